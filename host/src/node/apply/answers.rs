//! What came of the commands of an entry, and how those who wait for it are told.

use std::time::Duration;

use super::parked::Parked;
use crate::machine::{Applied, Reply};
use crate::node::answer::{Committed, ProposeFailure};
use crate::node::waiter::Waiter;
use crate::types::{Index, Position, Term};

/// What came of a command, or of an entry that holds none.
pub(super) struct Answer {
    pub(super) position: Position,
    pub(super) applied: Applied,
    pub(super) took: Duration,
}

impl Answer {
    pub(super) fn without_guest(index: Index, reply: Reply) -> Answer {
        let applied = Applied {
            reply,
            fuel_used: 0,
            events: Vec::new(),
            trap_message: None,
            pages_dirtied: None,
            waited: None,
        };
        Answer { position: Position::first(index), applied, took: Duration::ZERO }
    }

    /// Tells whoever waits for it, and for nothing else of its entry; or has them wait on.
    pub(super) fn tell_one(
        self,
        term: Term,
        hidden: Option<&ProposeFailure>,
        waiter: &mut Option<Waiter>,
        parked: &mut Parked,
    ) {
        let (ordinal, waited) = (self.position.ordinal, self.applied.waited);
        let waits = match self.applied.reply {
            Reply::Waiting(number) => Some(number),
            _ => None,
        };
        let told = || hidden.cloned().map_or_else(|| Ok(self.committed(term)), Err);
        if let Some(number) = waited {
            return parked.answer(number, &told());
        }
        let Some(sink) = waiter.as_mut().and_then(|waiter| waiter.take(ordinal)) else { return };
        match waits {
            Some(number) => parked.park(number, sink),
            None => sink.send(told()),
        }
    }

    /// As the last of its entry: nobody waits for anything else of that any more.
    pub(super) fn tell(
        self,
        term: Term,
        hidden: Option<&ProposeFailure>,
        waiter: &mut Option<Waiter>,
        parked: &mut Parked,
    ) {
        let is_late = self.applied.waited.is_some();
        if is_late || matches!(self.applied.reply, Reply::Waiting(_)) {
            self.tell_one(term, hidden, waiter, parked);
        } else if let Some(waiter) = waiter.take() {
            waiter.answer(hidden.cloned().map_or_else(|| Ok(self.committed(term)), Err));
        }
    }

    /// As whoever waits for it is told.
    pub(super) fn committed(self, term: Term) -> Committed {
        Committed {
            position: self.position,
            term,
            reply: self.applied.reply,
            fuel_used: self.applied.fuel_used,
            trap_message: self.applied.trap_message,
            pages_dirtied: self.applied.pages_dirtied,
            apply_duration: self.took,
        }
    }
}

/// Whether what operators are shown changes with it.
pub(super) fn is_announced(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Activated { .. }
            | Reply::LimitsSet { .. }
            | Reply::AccessSet { .. }
            | Reply::EngineSet { .. }
            | Reply::LevelSet { .. }
            | Reply::Forked { .. }
            | Reply::ReceiptRecorded { .. }
            | Reply::UpgradeSettled { .. }
    )
}
