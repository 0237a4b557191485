//! Queries on this node: those that wait for an index, and those that wait for their turn.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::fsm::HostFailure;
use crate::machine::{Machine, QueryReply, QueryResult};
use crate::node::answer::{QueryFailure, QueryJob};
use crate::node::metrics::{NodeMetrics, NotAsked};
use crate::types::Index;

/// Queries that are answered together, in parallel if the state machine can.
const QUERIES_AT_A_TIME: usize = 64;
/// Once those have used so much fuel together (some 50 ms), entries come first again: one can then
/// be held up by what a single query may use, however many there are.
const QUERIES_FUEL: u64 = 50_000_000;
/// Jobs done while queries wait, before some of these are answered: neither starves the other.
const JOBS_AT_A_TIME: u32 = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Queries {
    /// They wait for an index.
    waiting: BTreeMap<Index, Vec<QueryJob>>,
    /// They can be answered, oldest first.
    asked: VecDeque<QueryJob>,
    /// Jobs done since queries were answered last.
    jobs_since_answers: u32,
}

impl Queries {
    /// Another job is done before them.
    pub(super) fn on_job(&mut self) {
        self.jobs_since_answers += 1;
    }

    /// Whether they have waited long enough for other jobs.
    pub(super) fn are_due(&self) -> bool {
        !self.asked.is_empty() && self.jobs_since_answers >= JOBS_AT_A_TIME
    }

    /// Whether any wait for nothing but their turn.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// They wait until that is applied.
    pub(super) fn wait_for(&mut self, index: Index, queries: Vec<QueryJob>) {
        self.waiting.entry(index).or_default().extend(queries);
    }

    /// Those that need not wait any more.
    pub(super) fn released_at(&mut self, applied: Index) -> Vec<QueryJob> {
        let mut released = Vec::new();
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= applied
        {
            released.append(&mut entry.remove());
        }
        released
    }

    /// They are to be answered from what is applied.
    pub(super) fn ask(&mut self, queries: Vec<QueryJob>, applied: Index) {
        self.asked.extend(queries.into_iter().filter_map(|query| query.pass(applied)));
    }

    /// The next one, for somebody who answers them one by one.
    pub(super) fn pop(&mut self) -> Option<QueryJob> {
        self.asked.pop_front()
    }

    /// Answers the oldest: a few expensive ones or many cheap ones.
    pub(super) fn answer_some(
        &mut self,
        machine: &mut Machine,
        metrics: &NodeMetrics,
    ) -> Result<(), HostFailure> {
        let some = self.asked.iter().take(QUERIES_AT_A_TIME);
        let questions: Vec<Bytes> = some.map(|query| query.query.clone()).collect();
        let replies = machine.query_some(&questions, QUERIES_FUEL)?;
        assert!(!replies.is_empty(), "whoever asks is answered something");
        for (query, reply) in self.asked.drain(..replies.len()).zip(replies) {
            answer(metrics, query, reply);
        }
        Ok(())
    }

    /// It is their turn. Whether there is anybody to answer: a caller that went away does not want
    /// the answer any more.
    pub(super) fn begin_turn(&mut self) -> bool {
        self.jobs_since_answers = 0;
        self.asked.retain(|query| !query.reply.is_closed());
        !self.asked.is_empty()
    }

    /// Nobody is answered; dropping them says so.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.asked.clear();
    }

    /// Those that wait for an index get no answer.
    pub(super) fn refuse_waiting(&mut self, failure: &QueryFailure) {
        let waiting = std::mem::take(&mut self.waiting);
        refuse(waiting.into_values().flatten(), failure);
    }

    /// None gets an answer.
    pub(super) fn refuse_all(&mut self, failure: &QueryFailure) {
        refuse(self.asked.drain(..), failure);
        self.refuse_waiting(failure);
    }
}

/// Tells them why there is no answer.
pub(super) fn refuse(queries: impl IntoIterator<Item = QueryJob>, failure: &QueryFailure) {
    for query in queries {
        // A caller that went away does not want the answer any more.
        let _ = query.reply.send(Err(failure.clone()));
    }
}

/// Counts the reply to a query and hands it over.
pub(super) fn answer(metrics: &NodeMetrics, query: QueryJob, reply: QueryReply) {
    metrics.on_query(&reply);
    if let QueryResult::Unanswered(reason) = &reply.result {
        let so_far = metrics.queries_not_asked[NotAsked::HostShort as usize].get();
        // Whoever asks is told each time; the log hears of it less and less often.
        if so_far.is_power_of_two() {
            tracing::warn!(so_far, %reason, "this node could not run a query");
        }
    }
    // A caller that went away does not want the answer any more.
    let _ = query.reply.send(Ok(reply));
}
