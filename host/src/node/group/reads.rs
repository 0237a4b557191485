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

/// What the replica is to be asked for.
pub(super) struct ReadStep {
    /// Nobody waits for this read any more.
    pub(super) abandon: Option<ReadId>,
    pub(super) ask: Option<ReadId>,
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

    /// Looks at who still waits, and who waits anew.
    pub(super) fn next(&mut self) -> ReadStep {
        let mut step = ReadStep { abandon: None, ask: None };
        if let Some((id, queries)) = &mut self.asked {
            queries.retain(|query| !query.reply.is_closed());
            if !queries.is_empty() {
                return step;
            }
            step.abandon = Some(*id);
            self.asked = None;
        }
        self.queued.retain(|query| !query.reply.is_closed());
        if !self.queued.is_empty() {
            let id = ReadId(self.next);
            self.next += 1;
            self.asked = Some((id, std::mem::take(&mut self.queued)));
            step.ask = Some(id);
        }
        step
    }

    /// The queries that a read was for.
    pub(super) fn on_ready(&mut self, read: &ReadReady) -> Option<Vec<QueryJob>> {
        let is_it = self.asked.as_ref().is_some_and(|(id, _)| *id == read.id);
        is_it.then(|| self.asked.take().map(|(_, queries)| queries)).flatten()
    }
}
