//! Queries on their way to the machine.
//!
//! One read at a time: all queries that came while the last one was under way share the next.

use crate::consensus::{ReadId, ReadReady};
use crate::node::answer::QueryJob;

/// See the module.
pub(super) struct Reads {
    queued: Vec<QueryJob>,
    /// Those that any state answers; collected during a turn, sent on together.
    stale: Vec<QueryJob>,
    /// The read in flight and the queries it is for.
    asked: Option<(ReadId, Vec<QueryJob>)>,
    next: u64,
}

impl Reads {
    pub(super) fn new() -> Reads {
        Reads { queued: Vec::new(), stale: Vec::new(), asked: None, next: 1 }
    }

    pub(super) fn add(&mut self, query: QueryJob) {
        self.queued.push(query);
    }

    pub(super) fn add_stale(&mut self, query: QueryJob) {
        self.stale.push(query);
    }

    /// Those of this turn that any state answers.
    pub(super) fn take_stale(&mut self) -> Vec<QueryJob> {
        std::mem::take(&mut self.stale)
    }

    /// Looks at who still waits for the read in flight. That read, when nobody does any more.
    pub(super) fn on_tick(&mut self) -> Option<ReadId> {
        let (_, queries) = self.asked.as_mut()?;
        queries.retain(|query| !query.reply.is_closed());
        let is_over = queries.is_empty();
        is_over.then(|| self.asked.take().map(|(id, _)| id)).flatten()
    }

    /// The read that the replica is to be asked for, when there is none in flight and somebody waits.
    pub(super) fn next(&mut self) -> Option<ReadId> {
        if self.asked.is_some() {
            return None;
        }
        self.queued.retain(|query| !query.reply.is_closed());
        if self.queued.is_empty() {
            return None;
        }
        let id = ReadId(self.next);
        self.next += 1;
        self.asked = Some((id, std::mem::take(&mut self.queued)));
        Some(id)
    }

    /// The queries that a read was for.
    pub(super) fn on_ready(&mut self, read: &ReadReady) -> Option<Vec<QueryJob>> {
        let is_it = self.asked.as_ref().is_some_and(|(id, _)| *id == read.id);
        is_it.then(|| self.asked.take().map(|(_, queries)| queries)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::node::budget::Budget;
    use crate::types::Index;

    #[test]
    fn who_goes_away_is_asked_for_no_longer_than_a_tick() {
        let (mut reads, budget) = (Reads::new(), Budget::new(100));
        let query = || {
            let (reply, answer) = oneshot::channel();
            let _charge = budget.take(1).expect("there is room");
            (QueryJob { is_barrier: false, query: Bytes::new(), reply, _charge }, answer)
        };
        assert_eq!(reads.next(), None);
        let (first, answer) = query();
        reads.add(first);
        assert_eq!(reads.next(), Some(ReadId(1)));
        let (second, other) = query();
        reads.add(second);
        assert_eq!((reads.next(), reads.on_tick()), (None, None), "one at a time");
        drop(answer);
        assert_eq!((reads.next(), reads.on_tick()), (None, Some(ReadId(1))));
        assert!(reads.on_ready(&ReadReady { id: ReadId(1), index: Index(1) }).is_none());
        assert_eq!(reads.next(), Some(ReadId(2)));
        let ready = reads.on_ready(&ReadReady { id: ReadId(2), index: Index(1) });
        assert_eq!(ready.map(|queries| queries.len()), Some(1));
        let (third, gone) = query();
        reads.add(third);
        drop((other, gone));
        assert_eq!(reads.next(), None, "nobody waits");
    }
}
