//! What became of the audit log, as metrics.

use std::fmt;

use super::page::Page;
use crate::audit::Audit;

/// Zeros where nothing is noted.
pub(super) fn written(page: &mut Page<'_>, audit: Option<&Audit>) -> fmt::Result {
    let counts = audit.map(Audit::counts).unwrap_or_default();
    page.counter(
        "raft_host_audit_lines",
        "Lines of the audit log that were written.",
        [(vec![], counts.written)],
    )?;
    page.counter(
        "raft_host_audit_lines_lost",
        "Events that were not noted because too many waited.",
        [(vec![], counts.lost)],
    )?;
    page.counter(
        "raft_host_audit_failures",
        "Attempts to write the audit log that failed.",
        [(vec![], counts.failures)],
    )?;
    page.gauge(
        "raft_host_audit_failing",
        "1 while the audit log cannot be written.",
        u64::from(counts.is_failing),
    )
}
