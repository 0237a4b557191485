//! Somebody who sees what is applied.

use crate::machine::{Applied, Machine};
use crate::storage::SnapshotMeta;
use crate::types::{ConfState, LogEntry};

/// Sees every entry with what the machine made of it. Only for tests of the whole.
pub trait Witness: Send {
    /// A normal entry was applied. The machine may be looked at, not changed. What came of the
    /// entry's commands is in their order; there is one answer if it holds none.
    fn applied(&mut self, machine: &mut Machine, entry: &LogEntry, answers: &[Applied]);

    /// A membership change was applied.
    fn membership(&mut self, entry: &LogEntry, conf_state: &ConfState);

    /// The machine was replaced by that of a snapshot.
    fn installed(&mut self, machine: &mut Machine, meta: &SnapshotMeta);
}
