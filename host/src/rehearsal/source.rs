//! The entries of a rehearsal, in their order, with what they make of the members.

use super::{Entries, RehearsalError};
use crate::consensus::Configuration;
use crate::machine::Machine;
use crate::types::{ConfChange, ConfState, EntryKind, Index, LogEntry};

/// Where entries come from, and what they make of the members: which receipts count depends on who votes.
pub(super) struct Source<'a> {
    entries: &'a mut dyn Entries,
    members: Configuration,
}

/// An entry, and what it changes of the members, if it is about them.
pub(super) struct Next {
    pub(super) entry: LogEntry,
    /// `None` as well where nobody asks who votes.
    pub(super) members: Option<(ConfChange, ConfState)>,
}

impl<'a> Source<'a> {
    /// Of what comes after the state of a machine.
    pub(super) fn new(
        entries: &'a mut dyn Entries,
        old: &Machine,
    ) -> Result<Source<'a>, RehearsalError> {
        Ok(Source { entries, members: Configuration::new(old.conf_state(), old.group())? })
    }

    /// The entries by themselves, to be looked through beforehand.
    pub(super) fn entries(&mut self) -> &mut dyn Entries {
        self.entries
    }

    pub(super) fn next(&mut self, index: Index) -> Result<Next, RehearsalError> {
        let entry = self.entries.entry(index)?;
        let members = match entry.kind {
            EntryKind::ConfChange => Some(self.members.apply(&entry)?),
            EntryKind::Normal => None,
        };
        Ok(Next { entry, members })
    }
}
