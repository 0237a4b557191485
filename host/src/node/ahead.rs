//! How far this node's instance of a module is that is made ahead of its activation.

use std::sync::{Mutex, PoisonError};

use crate::types::Index;

/// How far the instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct AheadStatus {
    /// The fork that it begins with; 0: there is none.
    pub(in crate::node) fork: Index,
    /// Whether the module has taken the state over; before, the next says nothing.
    pub(in crate::node) has_begun: bool,
    /// Commands that it has executed.
    pub(in crate::node) executed: u64,
    /// Why it cannot take over.
    pub(in crate::node) refused: Option<String>,
}

/// Written by whoever makes it, read by whoever asks.
#[derive(Debug, Default)]
pub(in crate::node) struct AheadBoard(Mutex<AheadStatus>);

impl AheadBoard {
    pub(in crate::node) fn show(&self, status: AheadStatus) {
        // Nothing panics under this lock.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    pub(in crate::node) fn status(&self) -> AheadStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
