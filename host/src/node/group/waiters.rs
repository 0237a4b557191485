//! Who waits for an entry that this node appended as leader.

use std::collections::VecDeque;

use crate::node::waiter::Waiter;
use crate::types::{Index, LogPosition};

/// Ascending by index; of the same index, in the order of terms.
#[derive(Debug)]
pub(super) struct Waiters {
    queue: VecDeque<(LogPosition, Waiter)>,
    /// Ticks between two looks for callers that went away.
    interval: usize,
    ticks: usize,
}

impl Waiters {
    pub(super) fn new(interval: usize) -> Waiters {
        Waiters { queue: VecDeque::new(), interval: interval.max(1), ticks: 0 }
    }

    pub(super) fn add(&mut self, position: LogPosition, waiter: Waiter) {
        // Indices ascend but after an election, when the log may have been cut.
        let at = self.queue.partition_point(|(waiting, _)| waiting.index <= position.index);
        self.queue.insert(at, (position, waiter));
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Those for `last` and what is before it, in order.
    pub(super) fn take_through(
        &mut self,
        last: Index,
    ) -> impl Iterator<Item = (LogPosition, Waiter)> + use<> {
        let count = self.queue.partition_point(|(at, _)| at.index <= last);
        let rest = self.queue.split_off(count);
        std::mem::replace(&mut self.queue, rest).into_iter()
    }

    /// Those for `first` and what is after it, in order.
    pub(super) fn take_from(
        &mut self,
        first: Index,
    ) -> impl Iterator<Item = (LogPosition, Waiter)> + use<> {
        let count = self.queue.partition_point(|(at, _)| at.index < first);
        self.queue.split_off(count).into_iter()
    }

    /// Now and then forgets those whose callers went away: their entries may never be applied here,
    /// and they hold a share of the bytes that may be in flight.
    pub(super) fn on_tick(&mut self) {
        self.ticks += 1;
        if self.ticks >= self.interval {
            self.ticks = 0;
            self.queue.retain(|(_, waiter)| !waiter.is_gone());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::node::{ProposeResult, ReplySink};
    use crate::types::Term;

    fn waiting(waiters: &mut Waiters, index: u64) -> oneshot::Receiver<ProposeResult> {
        let (sender, receiver) = oneshot::channel();
        let position = LogPosition { index: Index(index), term: Term(1) };
        waiters.add(position, Waiter::of(ReplySink::One(sender)));
        receiver
    }

    fn indexes(taken: impl Iterator<Item = (LogPosition, Waiter)>) -> Vec<u64> {
        taken.map(|(at, _)| at.index.0).collect()
    }

    #[test]
    fn waiters_are_taken_from_both_ends_by_index() {
        let mut waiters = Waiters::new(1);
        let receivers: Vec<_> = [3, 4, 5, 7, 6].map(|at| waiting(&mut waiters, at)).into();
        assert_eq!(indexes(waiters.take_through(Index(3))), [3]);
        assert_eq!(indexes(waiters.take_from(Index(6))), [6, 7]);
        assert_eq!(indexes(waiters.take_through(Index(9))), [4, 5]);
        drop(receivers);
    }

    #[test]
    fn whoever_went_away_is_forgotten_and_whoever_waits_is_not() {
        let mut waiters = Waiters::new(2);
        let first = waiting(&mut waiters, 1);
        let _second = waiting(&mut waiters, 2);
        drop(first);
        waiters.on_tick();
        assert_eq!(waiters.queue.len(), 2);
        waiters.on_tick();
        assert_eq!(indexes(waiters.take_through(Index(9))), [2]);
    }
}
