//! Proposals on their way into the log, and who waits for what becomes of them.
//!
//! ```text
//!   submissions ─► this turn's ─► asked of the replica ─► appended ─┬─► applied: answered by the machine
//!                  (packed)                                         └─► settling: changes of the members
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::pack::Packer;
use super::waiters::Waiters;
use crate::consensus::{Proposal, ProposalId};
use crate::machine::Reply;
#[cfg(feature = "museum")]
use crate::machine::rehearsal;
use crate::museum::{self, Exhibit};
use crate::node::answer::{Committed, ProposeFailure};
use crate::node::clock::Clocks;
use crate::node::message::{Cost, Payload, Submission};
use crate::node::metrics::NodeMetrics;
use crate::node::waiter::Waiter;
use crate::types::{Index, Level, LogPosition, Position};

/// What entries are stamped with.
#[derive(Clone, Copy)]
pub(super) struct Stamp<'a> {
    pub(super) clocks: &'a Clocks,
    /// The level in force; rehearsals of the next one look at it.
    pub(super) level: Level,
}

/// See the module.
pub(super) struct Proposals {
    /// The entry that commands of this turn go into.
    packer: Packer,
    /// Collected during a turn, proposed together.
    batch: Vec<Proposal>,
    asked: VecDeque<(ProposalId, Waiter)>,
    next: u64,
    /// For entries appended here as leader.
    appended: Waiters,
    /// Membership changes that are committed; told to be done when they are settled, too.
    settling: VecDeque<(LogPosition, Waiter)>,
    metrics: Arc<NodeMetrics>,
}

impl Proposals {
    /// `interval`: ticks between two looks for callers that went away.
    pub(super) fn new(interval: usize, metrics: Arc<NodeMetrics>) -> Proposals {
        Proposals {
            packer: Packer::default(),
            batch: Vec::new(),
            asked: VecDeque::new(),
            next: 1,
            appended: Waiters::new(interval),
            settling: VecDeque::new(),
            metrics,
        }
    }

    /// What commands cost that were applied.
    pub(super) fn learn(&mut self, cost: Cost) {
        self.packer.learn(cost);
    }

    /// Entries on their way that somebody waits for.
    pub(super) fn waiting(&self) -> usize {
        self.asked.len() + self.appended.len()
    }

    pub(super) fn on_tick(&mut self) {
        self.appended.on_tick();
    }

    /// Takes a submission of this turn.
    pub(super) fn take_in(&mut self, Submission { payload, waiter }: Submission, stamp: Stamp<'_>) {
        match payload {
            Payload::Commands(commands) => {
                if !self.packer.fits(&commands, &waiter) {
                    self.close_entry(stamp);
                }
                self.packer.add(commands, waiter);
            }
            Payload::Entry { data, is_fence } => {
                self.close_entry(stamp);
                self.push(data, is_fence, waiter, stamp);
            }
        }
    }

    /// Proposes it behind all that came before, with the end of the turn.
    pub(super) fn add(&mut self, data: Bytes, waiter: Waiter, stamp: Stamp<'_>) {
        self.close_entry(stamp);
        self.push(data, false, waiter, stamp);
    }

    /// What comes next goes into another entry.
    fn close_entry(&mut self, stamp: Stamp<'_>) {
        let Some(open) = self.packer.take() else { return };
        let (data, waiter) = open.close(stamp.clocks.log_now_ms());
        self.push(data, false, waiter, stamp);
    }

    fn push(&mut self, data: Bytes, is_fence: bool, waiter: Waiter, stamp: Stamp<'_>) {
        #[cfg(feature = "museum")]
        let data = rehearsal::put(data, stamp.level);
        #[cfg(not(feature = "museum"))]
        let _ = stamp.level;
        let id = self.ask(waiter);
        self.batch.push(Proposal { id, data, is_fence });
    }

    /// A place among what the replica is asked for.
    pub(super) fn ask(&mut self, waiter: Waiter) -> ProposalId {
        let id = ProposalId(self.next);
        self.next += 1;
        self.asked.push_back((id, waiter));
        id
    }

    /// What came in during this turn, to be proposed.
    pub(super) fn take_batch(&mut self, stamp: Stamp<'_>) -> Vec<Proposal> {
        self.close_entry(stamp);
        std::mem::take(&mut self.batch)
    }

    /// The replica has answered: who waits for that.
    pub(super) fn on_reply(&mut self, id: ProposalId) -> Waiter {
        // Nearly always the first; a change of the voters is answered later than what came after it.
        let at = self.asked.iter().position(|(asked, _)| *asked == id);
        let (_, waiter) = at.and_then(|at| self.asked.remove(at)).expect("it was asked, once");
        waiter
    }

    pub(super) fn on_appended(&mut self, position: LogPosition, waiter: Waiter) {
        self.appended.add(position, waiter);
    }

    pub(super) fn refuse(&self, waiter: Waiter, failure: ProposeFailure) {
        self.metrics.on_refusal(&failure, waiter.callers());
        waiter.answer(Err(failure));
    }

    /// What was appended here was replaced by a later leader's entries, here. That is no proof that
    /// it never happens: a node that has it may lead after that leader, and commit it.
    pub(super) fn on_replaced(&mut self, first: Index) {
        for (_, waiter) in self.appended.take_from(first) {
            self.refuse(
                waiter,
                match museum::is_on(Exhibit::TruncatedAsSuperseded) {
                    true => ProposeFailure::Superseded,
                    false => ProposeFailure::Unknown(
                        "another leader's entries took the place of the command's on this node"
                            .into(),
                    ),
                },
            );
        }
    }

    /// A snapshot of the leader takes the place of all up to this index.
    pub(super) fn on_install(&mut self, last: Index) {
        let why = "this node was replaced by a snapshot of the leader";
        for (_, waiter) in self.appended.take_through(last) {
            self.refuse(waiter, ProposeFailure::Unknown(why.into()));
        }
    }

    /// The entry there is committed. Whoever waits for this index in another term waits for an entry
    /// that was never committed and never will be.
    pub(super) fn on_committed(&mut self, position: LogPosition) -> Option<Waiter> {
        let mut found = None;
        for (at, waiter) in self.appended.take_through(position.index) {
            let ignores_term = museum::is_on(Exhibit::SupersededAsDone);
            if at == position || (ignores_term && at.index == position.index) {
                found = Some(waiter);
            } else {
                self.refuse(waiter, ProposeFailure::Superseded);
            }
        }
        found
    }

    /// A change of the members is committed: whoever waits for it is told when it is settled.
    pub(super) fn settle_later(&mut self, position: LogPosition, waiter: Option<Waiter>) {
        self.settling.extend(waiter.map(|waiter| (position, waiter)));
    }

    pub(super) fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Whoever hears that a member is gone may throw its disk away, so that must not be
    /// forgotten by a loss of power, and must be seen by whoever looks. `settled`: up to where that
    /// is so and applied here; `None`: this node does not lead, and cannot tell.
    pub(super) fn answer_settled(&mut self, settled: Option<Index>) {
        let Some(settled) = settled else {
            let why = "this node does not lead any more, and cannot tell whether the change of \
                       the members will last";
            for (_, waiter) in std::mem::take(&mut self.settling) {
                self.refuse(waiter, ProposeFailure::Unknown(why.to_owned()));
            }
            return;
        };
        while self.settling.front().is_some_and(|(at, _)| at.index <= settled) {
            let (LogPosition { index, term }, waiter) =
                self.settling.pop_front().expect("just seen");
            waiter.answer(Ok(Committed {
                position: Position::first(index),
                term,
                reply: Reply::Nothing,
                fuel_used: 0,
                trap_message: None,
                pages_dirtied: None,
                apply_duration: Duration::ZERO,
            }));
        }
    }
}
