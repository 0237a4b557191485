//! A node's life: formed, started, stepped, killed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use raft_host::machine::{Reply, RestoreError};
use raft_host::node::{Environment, NodeOptions, StartError, SteppedNode, StopReason, channel};
use raft_host::storage::{StorageError, Stores};
use raft_host::transport::Identity;
use raft_host::types::{GroupId, Index, LogPosition, NodeId, Space};

use super::{Event, Stage, World, operations};
use crate::sim::calls::Answered;
use crate::sim::disk::{Crash, SimDisk};
use crate::sim::homes::Opened;
use crate::sim::host::{Host, Running, SimTransport, State, StoredLog};
use crate::sim::observe::{Fact, Micros, Slot};
use crate::sim::plan::Boundary;
use crate::sim::random::Random;
use crate::sim::shadow::Shadow;
use crate::sim::trace::Who;
use crate::sim::witness::{self, Recorder, Seen};

const GROUP: GroupId = GroupId::MAIN;

impl World {
    /// The first node forms the cluster, and operators let it grow.
    pub(super) fn form(&mut self) {
        let slot = self.add_host(NodeId(1), "first:1".to_owned());
        self.conf_state.voters.insert(NodeId(1));
        self.start(slot);
        self.queue.after(1_000_000, Event::Survey);
        self.grow();
    }

    /// A host with an empty disk.
    pub(super) fn add_host(&mut self, node: NodeId, address: String) -> Slot {
        let slot = Slot(self.hosts.len());
        let disk = SimDisk::new(self.plan.seed ^ slot.0 as u64).expect("a temporary directory");
        self.hosts.push(Host::new(slot, node, address, disk));
        self.by_node.insert(node, slot);
        slot
    }

    pub(super) fn identity(&self, slot: Slot) -> Identity {
        let host = &self.hosts[slot.0];
        Identity { cluster: self.cluster, node: host.node, address: host.address.clone() }
    }

    /// Starts a host's node on what its disk holds.
    pub(super) fn start(&mut self, slot: Slot) {
        if !matches!(self.hosts[slot.0].state, State::Down) {
            return;
        }
        let now = self.now();
        let started = catch_unwind(AssertUnwindSafe(|| self.try_start(slot)));
        match started {
            Ok(Ok(())) => {}
            Ok(Err(StartError::Removed(_))) => {
                self.trace.line(now, Who::Host(slot), format_args!("was removed, stays down"));
                self.hosts[slot.0].state = State::Retired;
            }
            Ok(Err(StartError::Restore { source: RestoreError::Program(why), .. }))
                if self.is_outdated(slot) =>
            {
                self.trace.line(now, Who::Host(slot), format_args!("does not start: {why}"));
                self.update_program(slot);
                let down_us = self.hosts[slot.0].down_us;
                self.queue.after(down_us, Event::Start(slot));
            }
            Ok(Err(error)) => {
                let has_struck = self.note_disk(slot);
                let why = self.hosts[slot.0].disk.describe(&error);
                self.trace.line(now, Who::Host(slot), format_args!("does not start: {why}"));
                let is_corrupt = matches!(
                    error,
                    StartError::Storage(StorageError::Corrupt { .. })
                        | StartError::NoOlderState { .. }
                );
                self.counters.refused_starts += 1;
                // A start writes a little, and where there is room for nothing it is tried again.
                let is_full = matches!(&error, StartError::Storage(error) if error.is_full());
                if !self.hosts[slot.0].is_excused() && !has_struck && !is_full {
                    self.violate("excused_stops", format!("{slot} does not start: {why}"));
                }
                self.counters.corruptions_detected += u64::from(is_corrupt);
                if matches!(error, StartError::Storage(StorageError::Io { .. })) {
                    // Whoever watches over it starts it again.
                    let down_us = self.hosts[slot.0].down_us;
                    return self.queue.after(down_us, Event::Start(slot));
                }
                self.hosts[slot.0].state = State::Broken;
            }
            Err(panic) => {
                let words = panic_words(panic.as_ref());
                self.violate("panic", format!("{slot} panics while it starts: {words}"));
            }
        }
    }

    fn try_start(&mut self, slot: Slot) -> Result<(), StartError> {
        let now = self.now();
        let (identity, loader) = (self.identity(slot), self.loader_of(slot));
        let host = &mut self.hosts[slot.0];
        host.life += 1;
        host.last_role = None;
        host.clock.set(now);
        let Opened { home, introduced } = self.open_home(slot)?;
        let stores = home.stores().clone();
        let host = &mut self.hosts[slot.0];
        if host.is_untrustworthy {
            // Opening it must go well or fail, not more.
            let reason = "the disk lied before it lost power; nobody trusts it".to_owned();
            return Err(StorageError::ForeignData(reason).into());
        }
        let hard_state = stores.log.hard_state(GROUP)?;
        let seed = self.plan.seed;
        let shape = &self.plan.shape;
        // Of its own: a rehearsal of levels or engines changes what it offers.
        let shadow = (shape.rehearses && !shape.levels).then(|| {
            let random = Random::stream(seed ^ host.life, "ahead", slot.0 as u64);
            Shadow::new(identity.cluster, Arc::clone(&loader), random)
        });
        let options = NodeOptions {
            identity,
            group: GROUP,
            config: shape.node.clone(),
            consensus: shape.consensus.clone(),
            stores: stores.clone(),
            loader,
            introduced,
            evidence: None,
        };
        let environment = Environment {
            wall_clock_ms: host.clock.reader(),
            steady_clock: host.clock.steady_reader(),
            monotonic_clock: Arc::new(|| std::time::Duration::ZERO),
            seed: seed ^ (slot.0 as u64) << 32 ^ host.life,
            incarnation: host.life,
            compile_ahead: false,
            beside: false,
        };
        let (inbox, node_channel) = channel(&shape.node);
        let transport = SimTransport::default();
        let recorder = Recorder::new(
            slot,
            Arc::clone(&self.notes),
            Arc::clone(&self.early),
            shape.digest_every,
            shadow,
        );
        let node = SteppedNode::start(
            options,
            node_channel,
            Arc::new(transport.clone()),
            environment,
            Box::new(recorder),
        )?;
        let log = StoredLog(Arc::clone(&stores.log));
        let running = Running::new(node, inbox, transport, home);
        self.started(slot, running, &log, &hard_state);
        Ok(())
    }

    fn started(
        &mut self,
        slot: Slot,
        mut running: Running,
        log: &StoredLog,
        hard_state: &raft_host::types::HardState,
    ) {
        let now = self.now();
        let machine = running.node.machine();
        let applied = machine.as_ref().map_or(Index(0), |machine| machine.applied_index());
        let module = machine.and_then(|machine| machine.active_module());
        let last = log.last();
        let host = &mut self.hosts[slot.0];
        let (life, id) = (host.life, host.node);
        host.state = State::Up(Box::new(running));
        let (term, vote) = (hard_state.term, hard_state.vote);
        self.trace.line(
            now,
            Who::Host(slot),
            format_args!(
                "starts as node {id}: term {term}, log to {}, applied {applied}",
                last.index
            ),
        );
        self.counters.starts += 1;
        self.disturb(0);
        let (module, activated) = module.unzip();
        if self.hosts[slot.0].space.0 != Space::Ample {
            self.report_space(slot);
        }
        self.taint_as_snapshot(slot, applied);
        self.note_program(slot);
        self.fact(&Fact::Started { slot, node: id, term, vote, last, applied, module, activated });
        self.queue.after(0, Event::Tick(slot, life));
        self.after_step(slot);
    }

    /// Runs one step of a node, unless it died since the step was scheduled, or is paused.
    pub(super) fn step(
        &mut self,
        slot: Slot,
        life: u64,
        event: Event,
        step: impl FnOnce(&mut World, Slot),
    ) {
        let now = self.now();
        let host = &self.hosts[slot.0];
        if host.life != life || !host.is_up() {
            return;
        }
        if host.is_paused(now) {
            let until = host.paused_until;
            return self.queue.at(until, event);
        }
        let local_ms = host.clock.set(now);
        raft_host::museum::set_host_time_ms(local_ms);
        let stepped = catch_unwind(AssertUnwindSafe(|| step(self, slot)));
        if let Err(panic) = stepped {
            let words = panic_words(panic.as_ref());
            return self.violate("panic", format!("{slot} panics: {words}"));
        }
        self.after_step(slot);
    }

    fn up(&mut self, slot: Slot) -> &mut Running {
        self.hosts[slot.0].running().expect("a step is of a node that runs")
    }

    pub(super) fn tick(&mut self, slot: Slot) {
        let nominal_us = self.plan.shape.node.tick().as_micros() as u64;
        let host = &self.hosts[slot.0];
        let (life, tick_us) = (host.life, host.clock.tick(nominal_us));
        self.queue.after(tick_us, Event::Tick(slot, life));
        let running = self.up(slot);
        running.scheduled.turn = false;
        running.node.turn(true);
    }

    pub(super) fn turn(&mut self, slot: Slot) {
        let running = self.up(slot);
        if std::mem::take(&mut running.scheduled.turn) {
            running.node.turn(false);
        }
    }

    pub(super) fn write_done(&mut self, slot: Slot) {
        let stalled_until = self.hosts[slot.0].stalled_until;
        if stalled_until > self.now() {
            let life = self.hosts[slot.0].life;
            return self.queue.at(stalled_until, Event::WriteDone(slot, life));
        }
        self.dread(slot, |when| matches!(when, Boundary::InWrite(_)));
        let running = self.up(slot);
        running.node.finish_write();
        let Some(write) = running.writing.take() else { return };
        if running.node.stop_reason().is_some() || self.hosts[slot.0].disk.is_dead() {
            self.fact(&Fact::WriteFailed {
                slot,
                entries: &write.entries,
                reset_to: write.reset_to,
                hard_state: write.hard_state.as_ref().map(|state| (state.term, state.vote)),
            });
            return self.die_if_doomed(slot, |when| matches!(when, Boundary::InWrite(_)));
        }
        let running = self.up(slot);
        let log = StoredLog(Arc::clone(&running.node.stores().log));
        let node = self.hosts[slot.0].node;
        let previous = write.entries.first().and_then(|first| {
            let index = Index(first.index.0 - 1);
            crate::sim::observe::LogView::term(&log, index).map(|term| LogPosition { index, term })
        });
        self.counters.writes += 1;
        let now = self.now();
        self.trace.line(now, Who::Host(slot), format_args!("has written"));
        self.fact(&Fact::Persisted {
            slot,
            node,
            entries: &write.entries,
            previous,
            reset_to: write.reset_to,
            hard_state: write.hard_state.as_ref().map(|state| (state.term, state.vote)),
        });
        let is_doomed = |when| matches!(when, Boundary::InWrite(_) | Boundary::AfterWrite);
        self.die_if_doomed(slot, is_doomed);
    }

    pub(super) fn apply(&mut self, slot: Slot) {
        let stalled_until = self.hosts[slot.0].machine_stalled_until;
        if stalled_until > self.now() {
            let life = self.hosts[slot.0].life;
            return self.queue.at(stalled_until, Event::Apply(slot, life));
        }
        let running = self.up(slot);
        running.scheduled.apply = false;
        running.node.apply_next();
        self.die_if_doomed(slot, |when| when == Boundary::AfterApply);
    }

    pub(super) fn save(&mut self, slot: Slot) {
        self.dread(slot, |when| matches!(when, Boundary::InSave(_)));
        let before = self.snapshots_of(slot);
        let running = self.up(slot);
        running.scheduled.save = false;
        running.node.save_next();
        self.note_saved(slot, &before);
        let now = self.now();
        self.trace.line(now, Who::Host(slot), format_args!("has saved a snapshot"));
        self.counters.snapshots += 1;
        self.die_if_doomed(slot, |when| matches!(when, Boundary::InSave(_)));
    }

    pub(super) fn purge(&mut self, slot: Slot) {
        self.dread(slot, |when| matches!(when, Boundary::InPurge(_)));
        let running = self.up(slot);
        running.scheduled.purge = false;
        running.node.purge();
        self.die_if_doomed(slot, |when| matches!(when, Boundary::InPurge(_)));
    }

    pub(super) fn read_log(&mut self, slot: Slot) {
        let stalled_until = self.hosts[slot.0].stalled_until;
        if stalled_until > self.now() {
            let life = self.hosts[slot.0].life;
            return self.queue.at(stalled_until, Event::ReadLog(slot, life));
        }
        let running = self.up(slot);
        running.scheduled.read = false;
        running.node.read_log();
        self.counters.log_reads += 1;
    }

    /// Lets the disk die in the middle of the step to come, if that is the doom.
    fn dread(&mut self, slot: Slot, is_it: impl Fn(Boundary) -> bool) {
        let host = &self.hosts[slot.0];
        if let Some(doom) = host.doom.filter(|doom| is_it(doom.when))
            && let Some(operations) = operations(doom.when)
        {
            host.disk.die_after(operations);
        }
    }

    fn die_if_doomed(&mut self, slot: Slot, is_it: impl Fn(Boundary) -> bool) {
        if self.hosts[slot.0].doom.is_some_and(|doom| is_it(doom.when)) {
            self.die(slot);
        }
    }

    /// A doomed host dies.
    pub(super) fn die(&mut self, slot: Slot) {
        let Some(doom) = self.hosts[slot.0].doom.take() else { return };
        self.crash(slot, doom.power_loss, Some(doom.down_us));
    }

    /// Kills a node. Without a time it stays down.
    pub(super) fn crash(&mut self, slot: Slot, power_loss: bool, down_us: Option<u64>) {
        if !self.hosts[slot.0].is_up() {
            return;
        }
        let now = self.now();
        self.disturb(0);
        // What it did until then still counts.
        self.take_notes(slot);
        self.note_disk(slot);
        let host = &mut self.hosts[slot.0];
        host.doom = None;
        let State::Up(running) = std::mem::replace(&mut host.state, State::Down) else {
            unreachable!("just seen");
        };
        let Running { node, calls, .. } = *running;
        let crash = if power_loss { Crash::PowerLoss } else { Crash::Kill };
        // From here on the disk refuses whatever a dying node still wants to write.
        let event = host.crash_disk(self.disk_random.generator(), crash);
        drop(node);
        let words = if power_loss { "loses power" } else { "is killed" };
        self.trace.line(now, Who::Host(slot), format_args!("{words} ({event})"));
        let counter = if power_loss { "power loss" } else { "kill" };
        self.counters.fault(counter);
        self.fact(&Fact::Crashed { slot });
        for call in calls {
            self.answered(call.owner, Answered::BrokenOff);
        }
        self.forget_probes(slot);
        if let Some(down_us) = down_us {
            self.queue.after(down_us, Event::Start(slot));
        }
    }

    /// What a step made due.
    pub(super) fn after_step(&mut self, slot: Slot) {
        let is_judged = self.take_notes(slot);
        if self.violation.is_some() || !self.hosts[slot.0].is_up() {
            return;
        }
        let has_struck = self.note_disk(slot);
        let stop = self.up(slot).node.stop_reason();
        if let Some(reason) = stop {
            return self.stopped(slot, &reason, has_struck);
        }
        self.note_role(slot);
        self.post(slot);
        self.schedule(slot);
        self.poll_calls(slot);
        // Last: what a node answered in the step in which it was quarantined may come before that.
        self.note_trust(slot, is_judged);
    }

    /// Shows what the apply loop did.
    fn take_notes(&mut self, slot: Slot) -> bool {
        let notes = {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.is_empty() {
                return false;
            }
            std::mem::take(&mut *notes)
        };
        let now = self.now();
        let mut is_judged = false;
        for seen in notes {
            match seen {
                Seen::Applied(entry) => {
                    self.trace.line(
                        now,
                        Who::Host(slot),
                        format_args!(
                            "applies {} of term {}",
                            entry.position.index, entry.position.term
                        ),
                    );
                    self.counters.applied(&entry);
                    self.note_level(&entry);
                    if matches!(entry.reply, Reply::DigestJudged(_)) {
                        is_judged = true;
                        self.counters.verdicts += 1;
                    }
                    self.compare_with_sound(&entry);
                    self.fact(&Fact::Applied(&entry));
                }
                Seen::Membership(slot, position, conf_state) => {
                    let index = position.index;
                    self.trace.line(
                        now,
                        Who::Host(slot),
                        format_args!("applies {index}: members {:?}", conf_state),
                    );
                    self.fact(&Fact::Membership { slot, position, conf_state: &conf_state });
                    self.note_members(index, conf_state);
                    self.note_clocks();
                }
                Seen::Installed(slot, position, digest, module) => {
                    let index = position.index;
                    self.trace.line(
                        now,
                        Who::Host(slot),
                        format_args!("installs the snapshot at {index}"),
                    );
                    self.counters.installs += 1;
                    self.taint_as_snapshot(slot, index);
                    let (module, activated) = module.unzip();
                    let fact = Fact::Installed { slot, position, digest, module, activated };
                    self.fact(&fact);
                }
                Seen::WouldBe(slot, would_be) => {
                    self.fact(&Fact::WouldBe { slot, would_be: &would_be });
                }
                Seen::Rewound(slot, index, found) => {
                    self.fact(&Fact::Rewound { slot, index, found });
                }
            }
        }
        is_judged
    }

    /// Faults of the disk that struck in the step; whether they explain that the node stops in it.
    pub(super) fn note_disk(&mut self, slot: Slot) -> bool {
        let (now, trace) = (self.now(), &mut self.trace);
        self.hosts[slot.0].take_disk_events(|event| {
            trace.line(now, Who::Host(slot), format_args!("disk: {event}"));
        })
    }

    fn stopped(&mut self, slot: Slot, reason: &StopReason, has_struck: bool) {
        let now = self.now();
        let is_removed = *reason == StopReason::Removed;
        let words = match reason {
            StopReason::Requested => "on request".to_owned(),
            StopReason::Removed => "it was removed".to_owned(),
            StopReason::Program(why) => why.clone(),
            StopReason::Failed(why) | StopReason::Outdated(why) => {
                self.hosts[slot.0].disk.describe(why)
            }
        };
        self.trace.line(now, Who::Host(slot), format_args!("stops: {words}"));
        let host = &self.hosts[slot.0];
        // Without a majority for any state nobody can tell who is right.
        let is_in_doubt = self.flips.any && words.contains("the replicas disagree");
        let is_outdated = matches!(reason, StopReason::Program(_)) && self.is_outdated(slot);
        let is_excused =
            host.is_excused() || has_struck || is_removed || is_in_doubt || is_outdated;
        if is_outdated {
            self.update_program(slot);
        }
        self.fact(&Fact::Stopped { slot, reason: &words, is_excused });
        let down_us = self.hosts[slot.0].down_us;
        self.crash(slot, false, (!is_removed).then_some(down_us));
        if is_removed {
            self.hosts[slot.0].state = State::Retired;
        }
    }

    fn note_role(&mut self, slot: Slot) {
        let running = self.up(slot);
        let seen = (running.node.role(), running.node.term());
        let log = StoredLog(Arc::clone(&running.node.stores().log));
        let host = &mut self.hosts[slot.0];
        if host.last_role == Some(seen) {
            return;
        }
        let before = host.last_role.replace(seen).map(|(role, _)| role);
        let (role, term) = seen;
        let (now, node) = (self.now(), self.hosts[slot.0].node);
        self.trace.line(now, Who::Host(slot), format_args!("{role:?} of term {term}"));
        if role == raft_host::consensus::Role::Leader && before != Some(role) {
            self.counters.elections += 1;
        }
        let last = {
            let status = self.up(slot).node.status();
            let index = status.last_index;
            LogPosition {
                index,
                term: crate::sim::observe::LogView::term(&log, index).unwrap_or(term),
            }
        };
        self.fact(&Fact::Role { slot, node, role, term, last, log: &log });
        self.note_clocks();
    }

    /// Schedules the steps that are due now.
    fn schedule(&mut self, slot: Slot) {
        let now = self.now();
        let usual = (self.plan.shape.fsync_us, self.plan.shape.step_us);
        let host = &mut self.hosts[slot.0];
        let fsync_max = host.fsync_us(now, usual.0);
        let (life, stalled_until) = (host.life, host.stalled_until);
        let State::Up(running) = &mut host.state else { return };
        if running.writing.is_none()
            && let Some(write) = running.node.begin_write()
        {
            running.writing = Some(write.clone());
            running.writing_since = now;
            let (from, to) = match (write.entries.first(), write.entries.last()) {
                (Some(first), Some(last)) => (first.index.0, last.index.0),
                _ => (0, 0),
            };
            self.trace.line(
                now,
                Who::Host(slot),
                format_args!(
                    "writes {from}..={to}{}{}",
                    if write.reset_to.is_some() { ", reset" } else { "" },
                    if write.compact_to.is_some() { ", compacting" } else { "" },
                ),
            );
            let done = Micros(now.0 + self.scheduler.between(fsync_max / 4, fsync_max));
            self.queue.at(done.max(stalled_until), Event::WriteDone(slot, life));
        }
        if !running.scheduled.apply && running.node.has_job() {
            running.scheduled.apply = true;
            self.queue.after(self.scheduler.between(1, usual.1), Event::Apply(slot, life));
        }
        if !running.scheduled.save && running.node.has_save() {
            running.scheduled.save = true;
            let delay = self.scheduler.between(1, fsync_max * 4 + usual.1);
            self.queue.after(delay, Event::Save(slot, life));
        }
        if !running.scheduled.purge && running.node.purge_due() {
            running.scheduled.purge = true;
            self.queue.after(self.scheduler.between(1, fsync_max * 4), Event::Purge(slot, life));
        }
        if !running.scheduled.read && running.node.has_log_read() {
            running.scheduled.read = true;
            let delay = self.log_reads.between(1, fsync_max);
            self.queue.after(delay, Event::ReadLog(slot, life));
        }
        if !running.scheduled.turn && running.node.has_events() {
            running.scheduled.turn = true;
            self.queue.after(self.scheduler.between(1, usual.1), Event::Turn(slot, life));
        }
    }

    /// Something was put into a node's queue from outside of its steps.
    pub(super) fn wake(&mut self, slot: Slot) {
        if self.hosts[slot.0].is_up() {
            self.schedule(slot);
        }
    }

    fn poll_calls(&mut self, slot: Slot) {
        let running = self.up(slot);
        let mut answers = Vec::new();
        running.calls.retain_mut(|call| match call.poll() {
            Some(answer) => {
                answers.push((call.owner, answer));
                false
            }
            None => true,
        });
        for (owner, answer) in answers {
            match &answer {
                Answered::Queried(Ok(_)) => self.fact(&Fact::Answered { slot, what: "query" }),
                Answered::Proposed(Ok(_)) => {
                    self.fact(&Fact::Answered { slot, what: "command" });
                }
                Answered::RewindTried(tried) => self.note_trial(slot, tried),
                _ => {}
            }
            self.answered(owner, answer);
        }
    }

    /// The digest of a node's machine now.
    pub(super) fn digest(&mut self, slot: Slot) -> Option<crate::sim::observe::Digest> {
        self.up(slot).node.machine().map(witness::digest)
    }

    /// Whether faults are under way.
    pub(super) fn is_stormy(&self) -> bool {
        matches!(self.stage, Stage::Faults)
    }

    /// The commit index that a node still knows after a crash, if it runs.
    pub(super) fn durable_commit(&self, slot: Slot) -> Option<Index> {
        let State::Up(running) = &self.hosts[slot.0].state else { return None };
        let hard_state = running.node.stores().log.hard_state(GROUP).ok()?;
        Some(hard_state.commit)
    }

    /// The stores of a node that runs.
    pub(super) fn stores(&mut self, slot: Slot) -> Option<Stores> {
        self.hosts[slot.0].running().map(|running| running.node.stores().clone())
    }
}

/// What a panic says.
pub(in crate::sim) fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without words".to_owned())
}
