//! Where the rehearsal that runs on this node says how far it is.

use std::sync::{Arc, Mutex, PoisonError};

use crate::rehearsal::Progress;
use crate::types::{Index, ModuleHash};

/// How far a rehearsal on this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trying {
    /// The module.
    pub module: ModuleHash,
    /// It takes over the state after this entry.
    pub base: Index,
    /// See there; at first the base is the last entry that was executed.
    pub progress: Progress,
}

/// See the module.
#[derive(Clone, Default)]
pub(in crate::node) struct TrialBoard(Arc<Mutex<Option<Trying>>>);

impl TrialBoard {
    /// A rehearsal begins; the board is cleared when what it gets goes.
    pub(super) fn begin(&self) -> OnBoard<'_> {
        OnBoard(self)
    }

    pub(super) fn look(&self) -> Option<Trying> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, trying: Option<Trying>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trying;
    }
}

/// The one rehearsal that there may be at a time.
pub(super) struct OnBoard<'a>(&'a TrialBoard);

impl OnBoard<'_> {
    pub(super) fn tell(&self, trying: Trying) {
        self.0.put(Some(trying));
    }
}

impl Drop for OnBoard<'_> {
    fn drop(&mut self) {
        self.0.put(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_on_the_board_no_more() {
        let (board, base, until) = (TrialBoard::default(), Index(3), Index(9));
        let progress = Progress { index: base, until, commands: 0, differences: 0 };
        let trying = Trying { module: ModuleHash([7; 32]), base, progress };
        let begun = board.begin();
        assert_eq!(board.look(), None);
        begun.tell(trying);
        assert_eq!(board.clone().look(), Some(trying));
        drop(begun);
        assert_eq!(board.look(), None);
    }
}
