//! Operators: let the cluster grow, replace what is broken, change members, modules and limits,
//! while everything else goes on.

use std::collections::BTreeSet;

use raft_host::consensus::Role;
use raft_host::fsm::LimitChange;
use raft_host::machine::{Incumbent, SecretHash};
use raft_host::node::{
    KeysFailure, LimitsFailure, MembershipFailure, ProposeFailure, Upgrade, UpgradeFailure,
};
use raft_host::types::{ConfState, Index, JoinNonce, Level, NodeId};

use super::rehearsals::Step;
use super::rights::Wish;
use super::rounds::Rehearsing;
use super::{Event, Stage, World};
use crate::sim::calls::{Answered, Ask, Owner};
use crate::sim::host::State;
use crate::sim::observe::{Fact, Micros, Phase, Slot};
use crate::sim::trace::Who;

/// What an operator is about.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    /// A new host, as a learner and perhaps a voter. The slot is there once it has an id. It may
    /// have the address of a member that lost its data, or bring a join token.
    Join {
        promote: bool,
        slot: Option<Slot>,
        address: String,
        nonce: JoinNonce,
        lost: Option<Slot>,
        token: Option<SecretHash>,
    },
    /// A member is to be dialled at another address; perhaps somebody asks for it who needs the right to.
    Move { slot: Slot, address: String, by_deputy: bool },
    /// A member is to be none.
    Remove { slot: Slot },
    /// A member that lost its data is removed, and another one takes its place.
    Replace { slot: Slot, was_voter: bool },
    /// The module is to be that one.
    Upgrade { version: u64 },
    /// The module is to be that one, and some publishers have signed it.
    UpgradeSigned { version: u64, choice: u64 },
    /// The module is to be that one, if a rehearsal says so.
    UpgradeRehearsed { version: u64, choice: u64 },
    /// The last activation is to be as if it had never been.
    Rewind,
    /// A node is to say what that would change; then perhaps it is done.
    TryRewind { slot: Slot, undoes: bool },
    /// It is to stay.
    SettleUpgrade,
    /// The module is to have a new instance.
    Renew { ahead: bool },
    /// Other keys of publishers are to be trusted.
    SetKeys { choice: u64 },
    /// The limits of the guest are to be others.
    SetLimits { choice: u64 },
    /// The level is to be what all members offer.
    RaiseLevel,
    /// Rights are to be others.
    SetAccess { wish: Wish },
    /// All members are to say what state they have, until all have the same.
    CompareDigests,
    /// A snapshot of one node, now.
    Snapshot { slot: Slot },
}

/// Something an operator does until it is done.
pub(super) struct Task {
    goal: Goal,
    pub(super) attempt: u64,
    /// It is given up then, if it may be.
    give_up: Option<Micros>,
    is_waiting: bool,
    /// What the program of a new host offers, as the cluster was told.
    offered: Level,
    /// What an upgrade is to replace: decided once, whatever happens until it is done.
    pub(super) replaces: Option<Option<Incumbent>>,
    /// Which activation is to be confirmed: decided once, too.
    pub(super) confirms: Option<Index>,
    /// What voters are at.
    pub(super) round: Option<Box<Rehearsing>>,
    /// A rehearsal has found what nobody allows.
    pub(super) is_refused: bool,
}

/// Voters until a change that may be forgotten yet.
pub(super) struct Superseded {
    by: Index,
    voters: BTreeSet<NodeId>,
}

/// Between two attempts.
const PAUSE_US: u64 = 150_000;
/// An attempt without an answer is given up.
const PATIENCE_US: u64 = 5_000_000;

impl World {
    /// Everything that a new cluster needs: a module and members.
    pub(super) fn grow(&mut self) {
        self.begin(Goal::Upgrade { version: 0 }, None);
        let (voters, learners) = (self.plan.shape.voters, self.plan.shape.learners);
        for number in 1..voters + learners {
            self.begin_join(number < voters, None);
        }
        self.grow_rights();
    }

    pub(super) fn begin_join(&mut self, promote: bool, patience_us: Option<u64>) {
        self.begin_join_by(None, promote, patience_us);
    }

    pub(super) fn begin_join_by(
        &mut self,
        token: Option<SecretHash>,
        promote: bool,
        patience_us: Option<u64>,
    ) {
        // An address of its own, which no earlier host had.
        let number = self.number();
        let address = format!("new{number}:1");
        let nonce = nonce(number);
        let goal = Goal::Join { promote, slot: None, address, nonce, lost: None, token };
        self.begin(goal, patience_us);
    }

    /// A member that lost its data is started again with an empty directory and `--join`.
    pub(super) fn begin_rejoin(&mut self, lost: Slot, promote: bool) {
        let nonce = nonce(self.number());
        let address = self.hosts[lost.0].address.clone();
        let lost = Some(lost);
        let goal = Goal::Join { promote, slot: None, address, nonce, lost, token: None };
        self.begin(goal, None);
    }

    pub(super) fn begin(&mut self, goal: Goal, patience_us: Option<u64>) {
        let number = self.next_task;
        self.next_task += 1;
        let now = self.now();
        self.trace.line(now, Who::World, format_args!("operator: {goal:?}"));
        let give_up = patience_us.map(|patience| Micros(now.0 + patience));
        self.tasks.insert(
            number,
            Task {
                goal,
                attempt: 0,
                give_up,
                is_waiting: false,
                offered: Level::CURRENT,
                replaces: None,
                confirms: None,
                round: None,
                is_refused: false,
            },
        );
        self.queue.after(number % 7 * 1000, Event::TaskWake(number, 0));
    }

    /// Whether a task is of somebody who needs the right to it.
    pub(super) fn is_of_deputy(&self, number: u64) -> bool {
        let task = self.tasks.get(&number);
        task.is_some_and(|task| matches!(task.goal, Goal::Move { by_deputy: true, .. }))
    }

    /// Whether operators have nothing left to do.
    pub(super) fn operators_are_done(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn describe_tasks(&self) -> String {
        let goals: Vec<String> =
            self.tasks.values().map(|task| format!("{:?}", task.goal)).collect();
        goals.join(", ")
    }

    /// The node that leads in the highest term, as operators find out by asking around.
    pub(super) fn leader(&self) -> Option<Slot> {
        let now = self.now();
        let nodes = self.hosts.iter().filter(|host| !host.is_paused(now));
        nodes
            .filter_map(|host| host.node().map(|node| (node.term(), node.role(), host.slot)))
            .filter(|(_, role, _)| *role == Role::Leader)
            .max_by_key(|(term, _, _)| *term)
            .map(|(_, _, slot)| slot)
    }

    /// Time for another attempt after that one, unless there was one already: it was answered before
    /// it was given up.
    pub(super) fn task_wakes(&mut self, number: u64, after: u64) {
        let now = self.now();
        let Some(task) = self.tasks.get_mut(&number).filter(|task| task.attempt == after) else {
            return;
        };
        // An attempt that is under way for too long is forgotten, not taken back.
        task.is_waiting = false;
        task.attempt += 1;
        let (attempt, goal) = (task.attempt, task.goal.clone());
        if task.give_up.is_some_and(|give_up| now >= give_up) {
            return self.end_task(number, "given up");
        }
        // Growing is one step after the other, as people would do it.
        let first = *self.tasks.keys().next().expect("this one at least");
        if self.stage == Stage::Growing && number != first {
            return self.queue.after(PAUSE_US, Event::TaskWake(number, attempt));
        }
        let Some(leader) = self.leader() else {
            return self.queue.after(PAUSE_US, Event::TaskWake(number, attempt));
        };
        // A verdict that is disputed waits for who is missing.
        let patience_us = match goal {
            Goal::CompareDigests => PATIENCE_US + self.plan.shape.node.election_ms * 20_000,
            _ => PATIENCE_US,
        };
        let offered = self.program_of_newcomer(number);
        let ask = match goal {
            // The change that lets it in removes the member that it was.
            Goal::Join { slot: None, lost: Some(lost), .. } if !self.may_remove(lost) => None,
            Goal::Join { slot: None, address, nonce, token: Some(hash), .. } => {
                Some((leader, Ask::Admit(self.coming(hash, &address, nonce), offered)))
            }
            Goal::Join { slot: None, address, nonce, lost, .. } => {
                self.doubtful.extend(lost);
                Some((leader, Ask::Join(address, nonce, offered)))
            }
            Goal::Join { slot: Some(slot), .. } => {
                Some((leader, Ask::Promote(self.hosts[slot.0].node)))
            }
            Goal::Remove { slot } | Goal::Replace { slot, .. } => {
                if leader == slot && self.conf_state.voters.len() > 1 {
                    // As the admin service does: another leader is to remove it.
                    if let Some(running) = self.hosts[slot.0].running() {
                        running.node.transfer_leadership(None);
                        self.wake(slot);
                    }
                    None
                } else if self.may_remove(slot) {
                    self.doubtful.insert(slot);
                    Some((leader, Ask::Remove(self.hosts[slot.0].node)))
                } else {
                    None
                }
            }
            Goal::Move { slot, address, .. } => {
                let actor = self.actor_of(Owner::Operator(number, attempt), leader);
                self.fact(&Fact::MoveAsked { address: &address, actor });
                Some((leader, Ask::Move(self.hosts[slot.0].node, address)))
            }
            Goal::Upgrade { version } | Goal::UpgradeSigned { version, .. } => {
                let looks = || self.hosts[leader.0].node()?.handle().incumbent();
                let task = self.tasks.get_mut(&number).expect("seen above");
                let replaces = *task.replaces.get_or_insert_with(looks);
                let module = self.guest.module(version);
                let mut upgrade = Upgrade {
                    label: "simulated".to_owned(),
                    replaces,
                    signatures: self.signed_by_all(&module),
                    module,
                    ..Upgrade::default()
                };
                if let Goal::UpgradeSigned { choice, .. } = goal {
                    self.sign_somehow(&mut upgrade, choice);
                }
                Some((leader, Ask::Upgrade { upgrade, chunk_bytes: self.plan.shape.chunk_bytes }))
            }
            Goal::UpgradeRehearsed { .. }
            | Goal::Rewind
            | Goal::SettleUpgrade
            | Goal::Renew { .. } => match self.step_of_upgrade(number, leader, &goal) {
                Step::Ask(ask) => Some((leader, *ask)),
                Step::Rehearse(wish) => {
                    if self.begin_round((number, attempt), leader, &wish) {
                        return self.queue.after(patience_us, Event::TaskWake(number, attempt));
                    }
                    None
                }
                Step::Wait => None,
                Step::End(words) => return self.end_task(number, words),
            },
            Goal::SetLimits { choice } => Some((leader, Ask::SetLimits(limit_change(choice)))),
            Goal::SetKeys { choice } => Some((leader, Ask::SetKeys(self.key_changes(choice)))),
            Goal::RaiseLevel => Some((leader, Ask::RaiseLevel)),
            Goal::SetAccess { wish } => match self.changes_for(wish) {
                Some(changes) => Some((leader, Ask::SetAccess(changes))),
                None => return self.end_task(number, "nothing to change"),
            },
            Goal::CompareDigests => Some((leader, Ask::CompareDigests)),
            Goal::Snapshot { slot } => Some((slot, Ask::Snapshot)),
            // Once it is known that there is none, whoever asks waits for one.
            Goal::TryRewind { slot, .. } if attempt > 1 && !self.has_way_back(slot) => None,
            Goal::TryRewind { slot, .. } => Some((slot, Ask::TryRewind)),
        };
        let Some((slot, ask)) = ask else {
            return self.queue.after(PAUSE_US * 4, Event::TaskWake(number, attempt));
        };
        if let Some(task) = self.tasks.get_mut(&number) {
            task.is_waiting = true;
            task.offered = offered;
        }
        self.queue.after(patience_us, Event::TaskWake(number, attempt));
        self.ask(slot, Owner::Operator(number, attempt), ask);
    }

    /// Nobody sane removes a voter that is needed: a majority must be there, or come back by
    /// itself, with it and without it. (Raft needs the old majority until everybody who is
    /// left has learned of the removal.)
    fn may_remove(&self, slot: Slot) -> bool {
        let is_voter = self.conf_state.voters.contains(&self.hosts[slot.0].node);
        self.doubtful.contains(&slot) || !is_voter || self.suffices_without(slot)
    }

    /// Whether the cluster gets over the loss of this node, in every configuration that may
    /// count.
    pub(super) fn suffices_without(&self, slot: Slot) -> bool {
        let earlier = self.superseded.iter().map(|change| &change.voters);
        let now = [&self.conf_state.voters, &self.conf_state.voters_outgoing];
        earlier.chain(now).filter(|voters| !voters.is_empty()).all(|voters| {
            let slots = voters.iter().filter_map(|voter| self.by_node.get(voter));
            let others = slots.filter(|other| **other != slot && self.is_sound(**other)).count();
            others * 2 > voters.len()
        })
    }

    /// Whether nobody touched its disk, nor ever wanted to remove it: what was proposed once
    /// may still happen.
    fn is_sound(&self, slot: Slot) -> bool {
        let host = &self.hosts[slot.0];
        // When everything is mended, whoever runs is sound.
        let is_suspect = host.is_excused() || self.doubtful.contains(&slot);
        match host.state {
            State::Up(_) => !is_suspect || self.phase() == Phase::Calm,
            State::Down => !is_suspect,
            State::Broken | State::Retired => false,
        }
    }

    /// Somebody has applied a change of the voters. Until operators are told that it is done,
    /// or it is durable on a majority, the voters before it must be able to go on, too.
    pub(super) fn note_members(&mut self, index: Index, conf_state: ConfState) {
        if index <= self.conf_index {
            return;
        }
        let before = std::mem::replace(&mut self.conf_state, conf_state);
        self.conf_index = index;
        let superseded = superseded(&before, &self.conf_state);
        self.superseded
            .extend(superseded.into_iter().map(|voters| Superseded { by: index, voters }));
    }

    /// An operator was told that what became of this node is done.
    fn told_done(&mut self, node: NodeId) {
        let is_voter = self.conf_state.voters.contains(&node);
        let last =
            self.superseded.iter().rposition(|change| change.voters.contains(&node) != is_voter);
        self.superseded.drain(..last.map_or(0, |last| last + 1));
    }

    /// Forgets configurations that a majority of the voters can never go back to.
    pub(super) fn forget_superseded(&mut self) {
        let Some(newest) = self.superseded.last().map(|change| change.by) else { return };
        let voters: Vec<Slot> = self
            .conf_state
            .voters
            .iter()
            .filter_map(|voter| self.by_node.get(voter))
            .copied()
            .collect();
        let all = voters.len();
        let knows = |slot: &Slot| self.durable_commit(*slot).is_some_and(|index| index >= newest);
        if voters.into_iter().filter(knows).count() * 2 > all {
            self.superseded.clear();
        }
    }

    /// Whether an operator is about to make it a voter.
    pub(super) fn is_to_be_promoted(&self, slot: Slot) -> bool {
        self.tasks.values().any(|task| {
            matches!(task.goal, Goal::Join { promote: true, slot: Some(other), .. } if other == slot)
        })
    }

    pub(super) fn task_hears(&mut self, number: u64, attempt: u64, answer: Answered) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        if task.attempt != attempt || !task.is_waiting {
            return;
        }
        task.is_waiting = false;
        let (goal, offered) = (task.goal.clone(), task.offered);
        if let (Goal::Remove { slot } | Goal::Replace { slot, .. }, Answered::Member(Err(_))) =
            (&goal, &answer)
            && self.conf_state.contains(self.hosts[slot.0].node)
        {
            // A new leader that has not applied everything yet may not know of the member.
            return self.queue.after(PAUSE_US, Event::TaskWake(number, attempt));
        }
        if let (
            Goal::Remove { slot }
            | Goal::Replace { slot, .. }
            | Goal::Join { slot: Some(slot), .. },
            Answered::Member(Ok(())),
        ) = (&goal, &answer)
        {
            self.told_done(self.hosts[slot.0].node);
        }
        match (goal, answer) {
            (Goal::Join { address, nonce, .. }, Answered::TurnedAway(why)) => {
                self.turned_away(address, nonce, offered);
                self.end_task(number, &format!("turned away: {why}"));
            }
            (Goal::Join { promote, slot: None, lost, token, .. }, Answered::Learner(Ok(node))) => {
                if let Some(hash) = token {
                    self.counters.tokens_used += 1;
                    self.fact(&Fact::TokenTold { hash, node });
                }
                if let Some(lost) = lost {
                    let of_lost = self.hosts[lost.0].node;
                    let is_left = self.conf_state.contains(of_lost) && node != of_lost;
                    // One that had moved, and nobody knew when the new one joined under its old address, is
                    // a member still: it is replaced as any other that is broken.
                    if !is_left {
                        self.hosts[lost.0].state = State::Retired;
                        self.told_done(of_lost);
                    }
                }
                self.joined(number, attempt, node, promote);
            }
            (Goal::Move { slot, address, .. }, Answered::Member(Ok(()))) => {
                self.hosts[slot.0].address = address;
                self.end_task(number, "done");
            }
            (Goal::Move { .. }, Answered::Member(result)) if is_gone(&result) => {
                self.end_task(number, "removed before it had moved");
            }
            (Goal::Join { .. }, Answered::Member(Ok(()))) => self.end_task(number, "done"),
            (Goal::Join { .. }, Answered::Member(result)) if is_gone(&result) => {
                self.end_task(number, "removed before it was a voter");
            }
            (Goal::Remove { .. }, Answered::Member(result)) if is_gone(&result) => {
                self.end_task(number, "done");
            }
            (Goal::Replace { slot, was_voter }, Answered::Member(result)) if is_gone(&result) => {
                if !matches!(self.hosts[slot.0].state, State::Up(_)) {
                    self.hosts[slot.0].state = State::Retired;
                }
                self.end_task(number, "removed; another one joins");
                self.begin_join(was_voter, None);
            }
            (Goal::Upgrade { .. } | Goal::UpgradeSigned { .. }, Answered::Upgraded(Ok(_))) => {
                self.counters.upgrades += 1;
                self.end_task(number, "done");
            }
            (
                Goal::Upgrade { .. } | Goal::UpgradeSigned { .. },
                Answered::Upgraded(Err(UpgradeFailure::Superseded { .. })),
            ) if self.stage != Stage::Growing => {
                self.end_task(number, "superseded");
            }
            (
                Goal::Upgrade { .. } | Goal::UpgradeSigned { .. },
                Answered::Upgraded(Err(UpgradeFailure::NotSigned(why))),
            ) => self.end_task(number, &format!("refused: {why}")),
            (
                Goal::UpgradeRehearsed { .. }
                | Goal::Rewind
                | Goal::SettleUpgrade
                | Goal::Renew { .. },
                Answered::Proposed(Ok(committed)),
            ) => match self.upgrade_is_over(&committed.reply) {
                Some(words) => self.end_task(number, &words),
                None => self.queue.after(PAUSE_US, Event::TaskWake(number, attempt)),
            },
            (Goal::UpgradeRehearsed { version, .. }, Answered::BroughtIn(Err(error))) => {
                // As with an upgrade.
                self.note_task(number, &format!("version {version}: {error}"));
                self.queue.after(PAUSE_US, Event::TaskWake(number, attempt));
            }
            (Goal::SetKeys { .. }, Answered::KeysSet(Ok(_))) => self.end_task(number, "done"),
            (Goal::SetKeys { .. }, Answered::KeysSet(Err(KeysFailure::Refused(why)))) => {
                self.end_task(number, &format!("refused: {why}"));
            }
            (
                Goal::Upgrade { version } | Goal::UpgradeSigned { version, .. },
                Answered::Upgraded(Err(error)),
            ) => {
                // Chunks of several uploads may be in each other's way; trying again helps.
                self.note_task(number, &format!("version {version}: {error}"));
                self.queue.after(PAUSE_US, Event::TaskWake(number, attempt));
            }
            (Goal::SetLimits { .. }, Answered::LimitsSet(Ok(_))) => {
                self.counters.limit_changes += 1;
                self.end_task(number, "done");
            }
            // It stays refused: memory that was grown never shrinks.
            (Goal::SetLimits { .. }, Answered::LimitsSet(Err(LimitsFailure::Refused(why)))) => {
                self.end_task(number, &format!("refused: {why}"));
            }
            (Goal::RaiseLevel, Answered::LevelRaised(Ok(set))) => {
                self.end_task(number, &format!("it is {}", set.level));
            }
            (Goal::RaiseLevel, Answered::LevelRaised(Err(ProposeFailure::Level(why)))) => {
                self.end_task(number, &format!("refused: {why}"));
            }
            (Goal::SetAccess { wish }, Answered::AccessSet(answer)) => {
                match self.rights_set(wish, answer) {
                    Some(words) => self.end_task(number, &words),
                    None => self.queue.after(PAUSE_US, Event::TaskWake(number, attempt)),
                }
            }
            (Goal::CompareDigests, _) if self.flips.is_overwhelmed => {
                self.end_task(number, "nobody can tell any more");
            }
            (Goal::CompareDigests, Answered::Compared(Ok(verdict)))
                if !verdict.is_disputed()
                    && verdict.votes.len() == self.conf_state.nodes().len() =>
            {
                self.end_task(number, "done");
            }
            (Goal::Snapshot { .. }, Answered::Snapshot(Ok(meta))) => {
                self.end_task(number, &format!("done at {}", meta.index));
            }
            (Goal::Snapshot { .. }, Answered::Snapshot(Err(why))) => {
                self.end_task(number, &format!("refused: {why}"));
            }
            (Goal::TryRewind { undoes, .. }, Answered::RewindTried(Ok(trial))) => {
                self.counters.trials += 1;
                let (differing, commands) = (trial.differing, trial.preview.commands);
                let words = format!("{differing} of {commands} commands would end otherwise");
                self.end_task(number, &words);
                if undoes {
                    let patience = self.operator_patience_us();
                    self.begin(Goal::Rewind, patience);
                }
            }
            (Goal::Snapshot { .. }, _) => self.end_task(number, "not answered"),
            _ => self.queue.after(PAUSE_US, Event::TaskWake(number, attempt)),
        }
    }

    pub(super) fn note_task(&mut self, number: u64, words: &str) {
        let now = self.now();
        self.trace.line(now, Who::World, format_args!("operator task {number}: {words}"));
    }

    fn end_task(&mut self, number: u64, words: &str) {
        self.note_task(number, words);
        self.tasks.remove(&number);
        if self.stage == Stage::Growing && self.tasks.is_empty() {
            self.begin_faults();
        }
    }

    /// A new member has an id: its host starts, and learns all else from the cluster.
    fn joined(&mut self, number: u64, attempt: u64, node: NodeId, promote: bool) {
        let Some(Task { goal: Goal::Join { address, lost, .. }, offered, .. }) =
            self.tasks.get(&number)
        else {
            return;
        };
        let (address, lost, program) = (address.clone(), *lost, *offered);
        let slot = match self.by_node.get(&node) {
            // Whoever gets back the id that it had has an empty disk all the same.
            Some(slot) if Some(*slot) != lost => *slot,
            _ => self.add_host(node, address),
        };
        self.introduce_to_members(slot, program);
        self.counters.joins += 1;
        self.start(slot);
        if !promote {
            return self.end_task(number, "done");
        }
        if let Some(task) = self.tasks.get_mut(&number) {
            let Goal::Join { slot: of_task, .. } = &mut task.goal else { return };
            *of_task = Some(slot);
        }
        self.queue.after(PAUSE_US, Event::TaskWake(number, attempt));
    }

    /// Broken hosts that nobody takes care of yet are to be replaced.
    pub(super) fn replace_broken(&mut self) {
        let broken: Vec<Slot> = self
            .hosts
            .iter()
            .filter(|host| matches!(host.state, State::Broken))
            .map(|host| host.slot)
            .collect();
        for slot in broken {
            let is_known = self.tasks.values().any(|task| {
                matches!(task.goal, Goal::Replace { slot: other, .. } | Goal::Remove { slot: other } | Goal::Join { lost: Some(other), .. } if other == slot)
            });
            if !is_known {
                let was_voter = self.conf_state.is_voter(self.hosts[slot.0].node);
                self.begin(Goal::Replace { slot, was_voter }, None);
            }
        }
    }

    /// Removals that wait for better times are not pursued any more.
    pub(super) fn drop_removals(&mut self) {
        self.tasks.retain(|_, task| !matches!(task.goal, Goal::Remove { .. }));
    }
}

/// As good as drawn at random, in a run.
fn nonce(number: u64) -> JoinNonce {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    JoinNonce(nonce)
}

/// A change of the guest's limits that its commands live with, or trap more by.
fn limit_change(choice: u64) -> LimitChange {
    match choice % 5 {
        0 => LimitChange::ApplyFuel(1_000_000),
        1 => LimitChange::ApplyFuel(3_000_000),
        2 => LimitChange::MemoryMaxBytes(2 << 20),
        3 => LimitChange::MemoryMaxBytes(1 << 20),
        _ => LimitChange::StackMaxBytes(if choice & 8 == 0 { 512 << 10 } else { 1 << 20 }),
    }
}

/// Whether the member is none any more.
fn is_gone(result: &Result<(), MembershipFailure>) -> bool {
    use raft_host::consensus::ConfChangeError;
    use raft_host::node::ProposeFailure;
    match result {
        Ok(()) => true,
        Err(MembershipFailure::Propose(ProposeFailure::ConfChange(error))) => {
            matches!(error, ConfChangeError::NotAMember(_))
        }
        Err(_) => false,
    }
}

/// Whose majorities do not count any more by this change. The outgoing half of a joint
/// configuration counts until that is left, and that is a change of its own.
fn superseded(before: &ConfState, now: &ConfState) -> Vec<BTreeSet<NodeId>> {
    let count = [&now.voters, &now.voters_outgoing];
    [&before.voters_outgoing, &before.voters]
        .into_iter()
        .filter(|voters| !voters.is_empty() && !count.contains(voters))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outgoing_voters_count_until_the_joint_configuration_is_left() {
        let nodes = |of: &[u64]| of.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let state = |voters: &[u64], outgoing: &[u64]| ConfState {
            voters: nodes(voters),
            voters_outgoing: nodes(outgoing),
            ..ConfState::default()
        };
        let (simple, joint, left) =
            (state(&[1, 2, 3], &[]), state(&[2, 3, 4], &[1, 2, 3]), state(&[2, 3, 4], &[]));
        assert_eq!(superseded(&simple, &joint), [], "they are the outgoing ones now");
        assert_eq!(superseded(&joint, &left), [nodes(&[1, 2, 3])]);
        assert_eq!(superseded(&left, &left), []);
        assert_eq!(superseded(&simple, &left), [nodes(&[1, 2, 3])]);
    }
}
