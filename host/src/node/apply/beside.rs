//! Answers queries while the apply thread is at an activation.
//!
//! What the guests of an activation do may take seconds, and the state that was there before does
//! not change meanwhile. So somebody beside the apply thread looks after the queue:
//!
//! ```text
//!   apply thread ─ activation ────────────────────────► done
//!   bystander      queue ─┬─ queries for what is applied ─► answers, from the state before
//!                         └─ all other jobs ─► deferred, in their order
//! ```
//!
//! A stepped node does without.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;

use super::queries::{self, Queries};
use crate::fsm::{GUEST_STACK_BYTES, HostFailure};
use crate::machine::{Applied, Machine, MachineBystander};
use crate::node::answer::QueryJob;
use crate::node::message::Job;
use crate::node::metrics::NodeMetrics;
use crate::types::{Index, Position};

/// How soon the bystander notices that the activation is done.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the bystander works on meanwhile.
pub(super) struct Beside<'a> {
    pub(super) jobs: &'a mut Receiver<Job>,
    pub(super) deferred: &'a mut VecDeque<Job>,
    pub(super) queries: &'a mut Queries,
    pub(super) metrics: &'a NodeMetrics,
}

/// Applies the activation at `index`, as [`Machine::apply`] does.
///
/// # Errors
/// The machine's or the bystander's failure: the node must stop.
pub(super) fn apply(
    machine: &mut Machine,
    index: Index,
    data: &Bytes,
    on_answer: &mut dyn FnMut(Position, Applied),
    mut beside: Beside<'_>,
) -> Result<(), HostFailure> {
    let Some(mut bystander) = machine.bystander()? else {
        return machine.apply(index, data, on_answer);
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Guests run on it.
        let thread = std::thread::Builder::new()
            .name("bystander".into())
            .stack_size(GUEST_STACK_BYTES)
            .spawn_scoped(scope, || beside.look_after(&mut bystander, &done));
        let applied = {
            // Also when the activation panics: the scope waits for the bystander.
            let _done = Done(&done);
            machine.apply(index, data, on_answer)
        };
        match thread.map(|thread| thread.join()) {
            Ok(Ok(answered)) => answered?,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => {
                tracing::warn!(%error, "no thread to answer queries during an activation");
            }
        }
        applied
    })
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Beside<'_> {
    fn look_after(
        &mut self,
        bystander: &mut MachineBystander,
        done: &AtomicBool,
    ) -> Result<(), HostFailure> {
        while !done.load(Ordering::Acquire) {
            if let Some(query) = self.queries.pop() {
                self.answer(bystander, query)?;
                continue;
            }
            match self.jobs.recv_timeout(LOOK_EVERY) {
                Ok(Job::Query(index, queries)) if index <= bystander.applied() => {
                    self.queries.ask(queries, bystander.applied());
                }
                Ok(job) => self.deferred.push_back(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    fn answer(&self, bystander: &mut MachineBystander, query: QueryJob) -> Result<(), HostFailure> {
        if query.reply.is_closed() {
            return Ok(());
        }
        let reply = bystander.query(&query.query)?;
        queries::answer(self.metrics, query, reply);
        Ok(())
    }
}
