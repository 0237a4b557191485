//! Rehearsals, as the leader's API has the voters do them: one range for all, each voter on what its own node
//! retains, and a receipt if most found the same. The rules are the product's; whoever leads may be another one
//! by the time that there is a receipt.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use raft_host::node::Request;
use raft_host::rehearsal::{Allowances, Floor, Report, Round, Wanted};
use raft_host::types::{ConfState, Index, ModuleHash, NodeId};

use super::rehearsals::Step;
use super::{Event, World};
use crate::sim::calls::Ask;
use crate::sim::observe::{Fact, Slot};
use crate::sim::trace::Who;

/// What an operator wants to be rehearsed.
pub(super) struct RoundWish {
    pub(super) module: ModuleHash,
    /// How much of the log, and what is intended.
    pub(super) choice: u64,
}

/// What voters are at.
pub(super) struct Rehearsing {
    module: ModuleHash,
    range: (Index, Index),
    allowances: Allowances,
    /// As of the beginning.
    conf_state: Arc<ConfState>,
    leader: NodeId,
    round: Round,
    /// Those that have not answered.
    waiting: BTreeSet<NodeId>,
    /// The leader's.
    report: Option<Report>,
}

/// Longest time until a voter has a report.
const LONGEST_US: u64 = 1_000_000;
/// Until it is looked again whether a node has applied the range.
const LAG_US: u64 = 50_000;
/// Keys whose values are asked for.
const QUERIES: u8 = 2;

impl RoundWish {
    fn wanted(&self) -> Wanted {
        match self.choice % 8 {
            0 => Wanted::All,
            some => Wanted::AtMost(some * some),
        }
    }

    fn allowances(&self) -> Allowances {
        let texts: &[&str] = match self.choice / 8 % 4 {
            0 => &[],
            1 => &["reply"],
            _ => &["reply", "query", "fuel:3x"],
        };
        Allowances::parse(texts).expect("these are allowances")
    }
}

impl World {
    /// Which entries? Then all voters are asked that can begin there. `false`: none can be found now.
    pub(super) fn begin_round(
        &mut self,
        (number, attempt): (u64, u64),
        leader: Slot,
        wish: &RoundWish,
    ) -> bool {
        let Some(node) = self.hosts[leader.0].node() else { return false };
        let handle = node.handle().clone();
        let Some(view) = handle.machine().borrow().clone() else { return false };
        let (Some(active), Ok(Some(own))) = (handle.incumbent(), handle.oldest_state()) else {
            return false;
        };
        let (me, conf_state) = (self.hosts[leader.0].node, Arc::clone(&view.conf_state));
        let (mut round, mut oldest) = (Round::default(), vec![own]);
        let mut waiting = BTreeSet::from([me]);
        let voters = conf_state.voters.union(&conf_state.voters_outgoing);
        for voter in voters.copied().filter(|voter| *voter != me) {
            match self.oldest_state_of(leader, voter) {
                Ok(theirs) => {
                    oldest.push(theirs);
                    waiting.insert(voter);
                }
                Err(why) => round.answered(voter, Err(why)),
            }
        }
        let floor = Floor::of_all(active.activated_at, oldest);
        let Ok(range) = handle.rehearsal_range(floor, wish.wanted()) else { return false };
        for voter in &waiting {
            let slot = self.by_node[voter];
            let takes_us = self.rounds.magnitude(1_000, LONGEST_US);
            let life = self.hosts[slot.0].life;
            self.queue.after(takes_us, Event::Rehearse(slot, life, number, attempt));
        }
        let Some(task) = self.tasks.get_mut(&number) else { return false };
        task.round = Some(Box::new(Rehearsing {
            module: wish.module,
            range,
            allowances: wish.allowances(),
            conf_state,
            leader: me,
            round,
            waiting,
            report: None,
        }));
        let words = format!("rehearse {} after {} up to {}", wish.module.short(), range.0, range.1);
        self.note_task(number, &words);
        true
    }

    /// The oldest state that a voter can begin with, as the leader hears of it.
    fn oldest_state_of(&self, leader: Slot, voter: NodeId) -> Result<Index, String> {
        let slot = *self.by_node.get(&voter).ok_or("nobody knows it")?;
        let host = &self.hosts[slot.0];
        let is_cut = self.network.is_cut((leader, slot)) || self.network.is_cut((slot, leader));
        let node = host.node().filter(|_| !host.is_paused(self.now()) && !is_cut);
        let node = node.ok_or("it does not answer")?;
        let oldest = node.handle().oldest_state().map_err(|error| host.disk.describe(error))?;
        oldest.ok_or_else(|| "it retains no state to begin with".to_owned())
    }

    /// It is a voter's time to rehearse.
    pub(super) fn rehearsal_begins(&mut self, slot: Slot, life: u64, of: (u64, u64)) {
        let (number, attempt) = of;
        let is_wanted = |task: &super::Task| task.attempt == attempt && task.round.is_some();
        if !self.tasks.get(&number).is_some_and(is_wanted) {
            return;
        }
        let host = &self.hosts[slot.0];
        if host.life != life || !host.is_up() {
            return self.has_rehearsed(slot, of, Err("the connection broke".to_owned()));
        }
        let event = Event::Rehearse(slot, life, number, attempt);
        if host.stalled_until > self.now() {
            let until = host.stalled_until;
            return self.queue.at(until, event);
        }
        self.step(slot, life, event, |world, slot| world.rehearse(slot, life, of));
    }

    fn rehearse(&mut self, slot: Slot, life: u64, of: (u64, u64)) {
        let task = self.tasks.get(&of.0).and_then(|task| task.round.as_ref());
        let Some(Rehearsing { module, range, .. }) = task.map(|round| &**round) else { return };
        let (module, range) = (*module, *range);
        let keys = 0..self.plan.shape.keys.min(QUERIES);
        let queries: Vec<Bytes> = keys.map(|key| self.guest.query(key)).collect();
        let asked = queries.len();
        let host = &self.hosts[slot.0];
        let Some(node) = host.node() else { return };
        let (now, node_id) = (self.now(), host.node);
        match node.rehearse(module, range, queries) {
            Ok(None) => self.queue.after(LAG_US, Event::Rehearse(slot, life, of.0, of.1)),
            Ok(Some(rehearsed)) => {
                let report = rehearsed.report;
                let found: u64 = report.counts.iter().map(|count| count.count).sum();
                self.trace.line(
                    now,
                    Who::Host(slot),
                    format_args!(
                        "rehearses {} after {} up to {}: {} commands, {found} differences",
                        module.short(),
                        range.0,
                        range.1,
                        report.commands
                    ),
                );
                self.counters.rehearsals += 1;
                let fact =
                    Fact::Rehearsed { slot, node: node_id, range, queries: asked, report: &report };
                self.fact(&fact);
                self.has_rehearsed(slot, of, Ok(report));
            }
            Err(error) => {
                let why = host.disk.describe(error);
                self.trace.line(now, Who::Host(slot), format_args!("does not rehearse: {why}"));
                self.has_rehearsed(slot, of, Err(why));
            }
        }
    }

    /// The leader hears of a voter. When all have answered, the operator goes on.
    fn has_rehearsed(&mut self, slot: Slot, of: (u64, u64), answer: Result<Report, String>) {
        let voter = self.hosts[slot.0].node;
        let Some(task) = self.tasks.get_mut(&of.0) else { return };
        let Some(round) = &mut task.round else { return };
        if !round.waiting.remove(&voter) {
            return;
        }
        round.round.answered(voter, answer.as_ref().map(Report::hash).map_err(String::clone));
        if voter == round.leader {
            round.report = answer.ok();
        }
        if round.waiting.is_empty() {
            self.queue.after(1, Event::TaskWake(of.0, of.1));
        }
    }

    /// What is written down of what there is; the others are waited for no longer.
    pub(super) fn end_round(&mut self, number: u64, rehearsing: Rehearsing) -> Step {
        let Rehearsing { mut round, waiting, allowances, conf_state, report, .. } = rehearsing;
        for voter in waiting {
            round.answered(voter, Err("it does not answer".to_owned()));
        }
        let Some(report) = report else {
            self.note_task(number, "the leader has not rehearsed");
            return Step::Wait;
        };
        match round.receipt(&report, &allowances, &conf_state) {
            Ok(receipt) => {
                if let Some(task) = self.tasks.get_mut(&number) {
                    task.is_refused = receipt.refused > 0;
                }
                self.counters.receipts += 1;
                let request = Request::RecordReceipt(Box::new(receipt));
                Step::Ask(Box::new(Ask::Propose(request)))
            }
            Err(none) => {
                self.note_task(number, &none.to_string());
                Step::Wait
            }
        }
    }
}
