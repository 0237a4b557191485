//! Many commands as one entry.

use tokio::sync::oneshot;

use super::core::NodeHandle;
use crate::consensus::Role;
use crate::machine::BATCH_COMMANDS_MAX;
use crate::node::answer::{ProposeFailure, ProposeResult, stopped_unknown};
use crate::node::budget::Charge;
use crate::node::message::{Event, Payload, Submission};
use crate::node::request::{Command, Draft};
use crate::node::waiter::{ReplySink, Waiter};

/// Commands to be proposed as one entry, and who waits for what becomes of each.
#[derive(Debug)]
pub struct SubmitBatch {
    /// In the order in which they are to be executed.
    pub commands: Vec<(Command, ReplySink)>,
    /// Count the pages that each command writes, if this host can: see
    /// [`crate::node::Committed::pages_dirtied`].
    pub count_pages: bool,
}

impl NodeHandle {
    /// Hands a batch over and returns; every sink gets exactly one answer. Those of a batch that is
    /// not taken all get the same.
    pub fn submit_batch(&self, batch: SubmitBatch) {
        let leads = self.shared.leadership.borrow().role == Role::Leader;
        let commands = batch.commands.into_iter();
        let (commands, sinks): (Vec<_>, Vec<_>) =
            commands.map(|(command, sink)| (command.into_log(self.actor()), sink)).unzip();
        self.shared.metrics.proposals.add(1);
        match self.admit_batch(Draft::Batch(commands), sinks.len(), leads) {
            Ok((payload, charge)) => {
                let mut sinks = sinks.into_iter();
                let first = sinks.next().expect("an empty batch is not admitted");
                let behind = sinks.map(Some).collect();
                let mut waiter = Waiter::of_batch(first, behind, charge);
                waiter.set_count_pages(batch.count_pages);
                waiter.sets_out((self.shared.clock)());
                // When the loop is gone the waiter is dropped, which answers it.
                let _ =
                    self.shared.events.send(Event::Submit(vec![Submission { payload, waiter }]));
            }
            Err(failure) => {
                self.shared.metrics.on_refusal(&failure, sinks.len() as u64);
                for sink in sinks {
                    sink.send(Err(failure.clone()));
                }
            }
        }
    }

    /// Proposes commands as one entry, and waits until it is durable on a quorum and applied here.
    /// Only the leader can. The answers are those of the commands, in their order: each is at a
    /// position of its own, and what came of one says nothing of the others.
    ///
    /// # Errors
    /// See [`ProposeFailure`]; the caller may stop waiting, which leaves the effect unknown.
    pub async fn propose_batch(&self, commands: Vec<Command>) -> Vec<ProposeResult> {
        let mut receivers = Vec::with_capacity(commands.len());
        let commands = commands.into_iter().map(|command| {
            let (sender, receiver) = oneshot::channel();
            receivers.push(receiver);
            (command, ReplySink::One(sender))
        });
        let commands = commands.collect();
        self.submit_batch(SubmitBatch { commands, count_pages: false });
        let mut answers = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            answers.push(receiver.await.unwrap_or_else(|_| Err(stopped_unknown())));
        }
        answers
    }

    fn admit_batch(
        &self,
        batch: Draft,
        callers: usize,
        leads: bool,
    ) -> Result<(Payload, Charge), ProposeFailure> {
        let max = BATCH_COMMANDS_MAX;
        if callers == 0 || callers > max {
            return Err(ProposeFailure::BatchSize { commands: callers, max });
        }
        self.admit(batch, callers, leads)
    }
}
