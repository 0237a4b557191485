//! Metrics of TLS. Without it they are there, too, and 0.

use std::fmt;

use super::page::Page;
use crate::tls::{HandshakeFailure, Tls};

pub(super) fn tls(page: &mut Page<'_>, tls: Option<&Tls>) -> fmt::Result {
    let report = tls.map(Tls::report);
    let report = report.as_ref();
    page.gauge(
        "raft_host_tls",
        "1 when TLS is spoken on this node's ports.",
        u64::from(report.is_some()),
    )?;
    page.seconds(
        "raft_host_tls_certificate_expires_timestamp",
        "When this node's certificate expires; 0: there is none.",
        report.map_or(0, |report| report.not_after_ms) as f64 / 1_000.0,
    )?;
    page.gauge(
        "raft_host_tls_alarm",
        "1 when the newest files for TLS cannot be used, or the certificate expires within 30 days.",
        u64::from(report.is_some_and(|report| report.alarm.is_some())),
    )?;
    page.counter(
        "raft_host_tls_reloads",
        "Times that new files for TLS were taken.",
        [(vec![], report.map_or(0, |report| report.reloads))],
    )?;
    page.counter(
        "raft_host_tls_reload_failures",
        "Times that new files for TLS could not be used.",
        [(vec![], report.map_or(0, |report| report.reload_failures))],
    )?;
    page.counter(
        "raft_host_tls_handshakes",
        "Handshakes of TLS with those that connected.",
        [(vec![], report.map_or(0, |report| report.handshakes))],
    )?;
    let failures = HandshakeFailure::ALL.iter().enumerate().map(|(at, (_, name))| {
        let count = report.map_or(0, |report| report.failures[at]);
        (vec![("reason", (*name).to_owned())], count)
    });
    page.counter(
        "raft_host_tls_handshake_failures",
        "Handshakes of TLS that failed, by reason.",
        failures,
    )
}
