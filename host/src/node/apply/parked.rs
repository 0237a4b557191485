//! Who waits for commands of ordered sessions whose turn has not come.
//!
//! The commands themselves are in their sessions, on every node, and are executed when their turn
//! comes, whoever leads then. Those who proposed them here wait here: only this node can answer them.

use std::collections::BTreeMap;

use crate::machine::SessionNumber;
use crate::node::answer::{
    Committed, ProposeFailure, ProposeResult, REQUEST_OVERHEAD_BYTES, stopped_unknown,
};
use crate::node::budget::{Budget, Charge};
use crate::node::waiter::ReplySink;

/// The part of the bytes in flight that may wait here.
const SHARE: u64 = 4;

/// See the module.
pub(super) struct Parked {
    by_number: BTreeMap<SessionNumber, Vec<Place>>,
    room: Budget,
    /// Sessions that have ended when those who wait were last looked at.
    sessions_ended: u64,
}

struct Place {
    sink: ReplySink,
    _charge: Charge,
}

impl Parked {
    pub(super) fn new(max_inflight_bytes: u64) -> Parked {
        let room = Budget::new(max_inflight_bytes / SHARE);
        Parked { by_number: BTreeMap::new(), room, sessions_ended: 0 }
    }

    /// Has somebody wait for a command. Without room for that they are told so: the command is in its
    /// session all the same, and who asks again waits again.
    pub(super) fn park(&mut self, number: SessionNumber, sink: ReplySink) {
        let mut charge = self.room.take(REQUEST_OVERHEAD_BYTES);
        if charge.is_none() {
            self.forget_gone();
            charge = self.room.take(REQUEST_OVERHEAD_BYTES);
        }
        let Some(charge) = charge else {
            let words = "the command waits for its turn in its session, and too many wait for answers \
                         on this node: send it again for the answer";
            return sink.send(Err(ProposeFailure::Unknown(words.to_owned())));
        };
        sink.say_it_waits();
        let places = self.by_number.entry(number).or_default();
        // Earlier attempts of one client.
        places.retain(|place| !place.sink.is_closed());
        places.push(Place { sink, _charge: charge });
    }

    /// The command was executed, or will not be.
    pub(super) fn answer(&mut self, number: SessionNumber, result: &ProposeResult) {
        for place in self.by_number.remove(&number).unwrap_or_default() {
            place.sink.send(result.clone());
        }
    }

    /// Tells those whose sessions have ended, which happens to nobody while `sessions_ended` stays.
    pub(super) fn leave_ended(
        &mut self,
        sessions_ended: u64,
        is_open: impl Fn(u64) -> bool,
        answer: &Committed,
    ) {
        if sessions_ended == self.sessions_ended {
            return;
        }
        self.sessions_ended = sessions_ended;
        let ended = self.by_number.extract_if(.., |number, _| !is_open(number.session_id));
        for place in ended.flat_map(|(_, places)| places) {
            place.sink.send(Ok(answer.clone()));
        }
    }

    /// Another state takes the place of the one in which they waited.
    pub(super) fn answer_all(&mut self, failure: &ProposeFailure) {
        for place in std::mem::take(&mut self.by_number).into_values().flatten() {
            place.sink.send(Err(failure.clone()));
        }
    }

    fn forget_gone(&mut self) {
        self.by_number.retain(|_, places| {
            places.retain(|place| !place.sink.is_closed());
            !places.is_empty()
        });
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.answer_all(&stopped_unknown());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn number(sequence: u64) -> SessionNumber {
        SessionNumber { session_id: 4, sequence }
    }

    fn wait(parked: &mut Parked, sequence: u64) -> oneshot::Receiver<ProposeResult> {
        let (sender, receiver) = oneshot::channel();
        parked.park(number(sequence), ReplySink::One(sender));
        receiver
    }

    #[test]
    fn room_is_for_those_who_still_wait() {
        let mut parked = Parked::new(2 * SHARE * REQUEST_OVERHEAD_BYTES);
        let (first, second) = (wait(&mut parked, 2), wait(&mut parked, 3));
        let mut third = wait(&mut parked, 4);
        let Ok(Err(failure)) = third.try_recv() else { panic!("there is room for two") };
        assert!(!failure.surely_not_applied(), "{failure}");
        drop(first);
        let mut fourth = wait(&mut parked, 5);
        fourth.try_recv().expect_err("it waits");
        drop((second, parked));
        assert!(matches!(fourth.try_recv(), Ok(Err(ProposeFailure::Unknown(_)))));
    }
}
