//! The thread that owns the machine: applies committed entries in order, answers queries
//! between them, captures snapshots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, Sender};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::ahead::Making;
use super::answers::{Answer, is_announced};
use super::beside::{self, Beside};
use super::error::{ApplyError, why_halted};
use super::modules;
use super::parked::Parked;
use super::parts::ApplyParts;
use super::policy::SnapshotPolicy;
use super::queries::{self, Queries};
use super::shadow::Shadowed;
use super::stored::{self, LoadError};
use super::trust::Trust;
use super::witness::Witness;
use crate::consensus::CommittedEntry;
use crate::fsm::SharedLoader;
use crate::machine::{
    Applied, BodyKind, CommandRefused, Machine, MachineSnapshot, Reply, RestoreError, Unsupported,
};
use crate::museum::{self, Exhibit};
use crate::node::ahead::AheadBoard;
use crate::node::answer::{MachineCopy, MachineView, ProposeFailure, QueryJob};
use crate::node::clock::LogClock;
use crate::node::compilations::Compilations;
use crate::node::config::NodeConfig;
use crate::node::message::{ApplyJob, Cost, Event, EventSender, Job, SaveJob};
use crate::node::metrics::{JobKind, NodeMetrics, SessionsEnded};
use crate::node::roster::Roster;
use crate::node::shadow::ShadowStart;
use crate::node::stop::{StopReason, StopSignal, Stops};
use crate::node::waiter::Waiter;
use crate::node::work::{JobTicket, Jobs};
use crate::storage::{SnapshotMeta, SnapshotStore};
use crate::types::{
    ClusterId, ConfState, EntryKind, GroupId, Index, JoinNonce, Member, ModuleHash, NodeId, Space,
    Term,
};

/// See the module.
pub(in crate::node) struct ApplyLoop {
    cluster: ClusterId,
    group: GroupId,
    machine: Option<Machine>,
    /// Term of the last applied entry.
    term: Term,
    loader: SharedLoader,
    compilations: Arc<Compilations>,
    ahead: Arc<AheadBoard>,
    /// The instance that is made ahead of an activation, if there is a fork.
    making: Option<Making>,
    snapshots: Arc<dyn SnapshotStore>,
    jobs: Receiver<Job>,
    own_jobs: Sender<Job>,
    events: EventSender,
    roster: Arc<Roster>,
    view: watch::Sender<Option<Arc<MachineView>>>,
    members: Arc<BTreeMap<NodeId, Member>>,
    joins: Arc<BTreeMap<NodeId, JoinNonce>>,
    conf_state: Arc<ConfState>,
    modules: Arc<BTreeMap<ModuleHash, Bytes>>,
    policy: SnapshotPolicy,
    saver: Sender<SaveJob>,
    /// Callers that wait for the snapshot being saved.
    snapshot_callers: Vec<oneshot::Sender<Result<SnapshotMeta, String>>>,
    /// Of the commands applied since the event loop heard of any.
    cost: Cost,
    /// Who waits for commands that wait in ordered sessions.
    parked: Parked,
    /// Of the machine's sessions, when they were last looked at.
    sessions_ended: SessionsEnded,
    queries: Queries,
    shadowed: Shadowed,
    /// Taken from the queue while an activation ran; they come before what is in it.
    deferred: VecDeque<Job>,
    stop: StopSignal,
    /// An entry has set an engine profile that this program does not offer: nothing more is
    /// applied or answered, and the node stops soon.
    halted: bool,
    trust: Trust,
    log_clock: Arc<LogClock>,
    compile_ahead: bool,
    beside: bool,
    witness: Option<Box<dyn Witness>>,
    metrics: Arc<NodeMetrics>,
    work: Jobs,
}

impl ApplyLoop {
    pub(in crate::node) fn new(config: &NodeConfig, parts: ApplyParts) -> ApplyLoop {
        let last_size = parts.snapshot.as_ref().map_or(0, |meta| meta.size_bytes);
        let last_ms = parts.machine.as_ref().map_or(0, Machine::time_ms);
        parts.metrics.snapshot_bytes.set(last_size);
        parts.metrics.snapshot_time_ms.set(last_ms);
        ApplyLoop {
            cluster: parts.cluster,
            group: parts.group,
            machine: parts.machine,
            term: parts.snapshot.as_ref().map_or(Term(0), |meta| meta.term),
            loader: parts.loader,
            compilations: parts.compilations,
            ahead: parts.ahead,
            making: None,
            snapshots: parts.snapshots,
            jobs: parts.jobs,
            own_jobs: parts.own_jobs,
            events: parts.events,
            roster: parts.roster,
            view: parts.view,
            members: Arc::default(),
            joins: Arc::default(),
            conf_state: Arc::default(),
            modules: Arc::default(),
            policy: SnapshotPolicy::new(config.snapshot.clone(), last_size, last_ms),
            saver: parts.saver,
            snapshot_callers: Vec::new(),
            cost: Cost::default(),
            parked: Parked::new(config.max_inflight_bytes),
            sessions_ended: SessionsEnded::default(),
            queries: Queries::default(),
            shadowed: Shadowed::default(),
            deferred: VecDeque::new(),
            stop: parts.stop,
            halted: false,
            trust: parts.trust,
            log_clock: parts.log_clock,
            compile_ahead: parts.compile_ahead,
            beside: parts.beside,
            witness: None,
            metrics: parts.metrics,
            work: parts.work,
        }
    }

    /// Has somebody see what is applied.
    pub(in crate::node) fn show_to(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// The machine, unless the node waits for its first snapshot.
    pub(in crate::node) fn machine(&mut self) -> Option<&mut Machine> {
        self.machine.as_mut()
    }

    /// Takes the next job from the queue, if there is one.
    pub(in crate::node) fn try_job(&mut self) -> Option<Job> {
        self.jobs.try_recv().ok()
    }

    pub(in crate::node) fn run(mut self) {
        self.begin();
        loop {
            let done = match self.next_job() {
                Err(RecvError) | Ok(Some(Job::End)) => return,
                Ok(Some(job)) => self.on_job(job),
                Ok(None) => self.answer_some(),
            };
            if let Err(error) = done {
                self.fail(&error);
                // Wakes the event loop, which looks at the signal.
                let _ = self.events.send(Event::Stop);
                return;
            }
        }
    }

    /// Waits for a job; `None`: it is time for queries. An error when no job can come any more.
    fn next_job(&mut self) -> Result<Option<Job>, RecvError> {
        if self.answers_are_due() {
            return Ok(None);
        }
        match self.deferred.pop_front() {
            Some(job) => Ok(Some(job)),
            None if !self.queries.are_asked() => self.jobs.recv().map(Some),
            None => Ok(self.jobs.try_recv().ok()),
        }
    }

    /// Whether queries have waited long enough for other jobs.
    pub(in crate::node) fn answers_are_due(&self) -> bool {
        self.queries.are_due()
    }

    /// Tells the others what was recovered.
    pub(in crate::node) fn begin(&mut self) {
        self.prepare();
        self.make_ahead();
        self.tell_level();
        self.publish(true);
    }

    /// The machine may hold other modules than before: compiles the new ones beside what else is to
    /// be done, and drops what was compiled for those that are gone.
    fn prepare(&mut self) {
        let Some(machine) = &self.machine else { return };
        self.modules = Arc::new(modules::held(machine));
        if self.compile_ahead {
            let modules = self.modules.iter().map(|(hash, bytes)| (*hash, bytes.clone()));
            self.compilations.start(modules, &machine.info().limits);
        }
        let held: Vec<ModuleHash> = self.modules.keys().copied().collect();
        self.compilations.retain(&held);
    }

    /// Begins to make the instance that is to take over from the fork, if there is one; whoever was at another
    /// leaves it.
    fn make_ahead(&mut self) {
        if let Some(making) = self.making.take() {
            making.leave();
        }
        if !self.beside {
            return;
        }
        let job = self.machine.as_mut().and_then(Machine::ahead_job);
        let stops = Stops::of(self.group, self.stop.clone());
        self.making = job.and_then(|job| Making::begin(job, &self.ahead, stops));
    }

    pub(in crate::node) fn fail(&self, error: &ApplyError) {
        match error {
            // The snapshot stays; the program that offers its profile starts from it.
            ApplyError::Restore { source: RestoreError::Program(_), .. } => {
                self.stop.stop(StopReason::Program(error.to_string()));
            }
            _ => self.stop.fail("the state machine cannot go on", error),
        }
    }

    pub(in crate::node) fn on_job(&mut self, job: Job) -> Result<(), ApplyError> {
        self.queries.on_job();
        match job {
            // Whoever waits is told, as always when a node stops.
            Job::Apply(_) | Job::Install(_) | Job::Query(..) | Job::SnapshotWanted
                if self.halted =>
            {
                Ok(())
            }
            Job::Apply(entries) => {
                self.apply(entries)?;
                self.after_progress(false);
                if self.policy.due(self.time_ms()) && self.may_snapshot() {
                    self.start_snapshot()?;
                }
                Ok(())
            }
            Job::Install(meta) => self.install(&meta),
            Job::Query(index, queries) => {
                if index <= self.applied() || museum::is_on(Exhibit::ReadBeforeApplied) {
                    self.ask(queries);
                } else {
                    self.queries.wait_for(index, queries);
                }
                Ok(())
            }
            Job::TakeSnapshot(caller) => self.take_snapshot(caller),
            Job::Copy(caller) => self.copy(caller),
            Job::Shadow(caller) => {
                // Whoever has gone is found out at the next entry.
                let _ = caller.send(self.start_shadow()?);
                Ok(())
            }
            Job::ShadowOver => self.end_shadow(),
            Job::SnapshotWanted => {
                let may = self.machine.is_some() && self.trust.refuses_snapshots().is_none();
                if may && self.policy.wanted() {
                    self.start_snapshot()?;
                }
                Ok(())
            }
            Job::SnapshotUnreadable(index) => self.on_unreadable(index),
            Job::Space(space, free) => self.on_space(space, free),
            Job::Saved(meta) => {
                self.on_saved(meta);
                // Something costly may have ended while this one was written.
                match self.policy.is_urgent() && self.may_snapshot() {
                    true => self.start_snapshot(),
                    false => Ok(()),
                }
            }
            #[cfg(feature = "museum")]
            Job::FlipBit(at) => {
                let flipped = self.machine.as_mut().is_some_and(|machine| machine.flip_bit(at));
                tracing::warn!(at, flipped, "a bit of the state was flipped on purpose");
                Ok(())
            }
            Job::End => Ok(()),
        }
    }

    fn may_snapshot(&self) -> bool {
        self.machine.is_some() && !self.halted && self.trust.refuses_snapshots().is_none()
    }

    /// The log's clock.
    fn time_ms(&self) -> u64 {
        self.machine.as_ref().map_or(0, Machine::time_ms)
    }

    fn applied(&self) -> Index {
        self.machine.as_ref().map_or(Index(0), Machine::applied_index)
    }

    fn apply(&mut self, entries: Vec<ApplyJob>) -> Result<(), ApplyError> {
        for ApplyJob { committed, mut waiter } in entries {
            let (index, term) = (committed.entry.index, committed.entry.term);
            let is_membership = committed.membership.is_some();
            let kind = (!is_membership).then(|| BodyKind::of(&committed.entry.data));
            self.count_pages(index, waiter.as_ref());
            let mut ticket = match kind {
                Some(BodyKind::ActivateModule) => {
                    let name = modules::module_name(&committed.entry.data);
                    self.work.begin_named(JobKind::Activate, index, name)
                }
                _ => self.work.begin(JobKind::of(kind), index),
            };
            // The entry's last answer is given when all that follows from the entry is done.
            let last = self.apply_one(committed, kind, &mut waiter, &mut ticket)?;
            let applied = &last.applied;
            if kind == Some(BodyKind::ActivateModule) {
                // Failed or not: a restart shall not run it again.
                self.policy.activated(applied.fuel_used);
            }
            let is_engine = matches!(applied.reply, Reply::EngineSet { .. });
            let is_level = matches!(applied.reply, Reply::LevelSet { .. });
            let began = ticket.began();
            let took = self.work.end(ticket);
            self.metrics.on_entry(kind, took);
            if matches!(applied.reply, Reply::Activated { .. }) {
                self.metrics.switch_duration.observe(took);
            }
            if let Some(took) = waiter.as_mut().and_then(|waiter| waiter.gets_on(began + took)) {
                self.metrics.committed_apply_duration.observe(took);
            }
            self.metrics.on_answer(applied);
            let announced = is_announced(&applied.reply);
            if is_level {
                self.tell_level();
            }
            if is_level || is_engine && !museum::is_on(Exhibit::EngineChangedLate) {
                self.halt_unless_supported()?;
            }
            if is_membership || announced {
                // Whoever hears that it is done must also see it done.
                self.publish(is_membership);
            }
            let hidden = self.trust.hides_replies();
            last.tell(term, hidden.as_ref(), &mut waiter, &mut self.parked);
            self.leave_ended_sessions(index);
            if self.halted {
                break;
            }
        }
        if museum::is_on(Exhibit::EngineChangedLate) {
            self.halt_unless_supported()?;
        }
        self.trust.after_batch(self.machine.as_mut())
    }

    /// Whoever waits for a command of a session that has ended waits for nothing.
    fn leave_ended_sessions(&mut self, index: Index) {
        let Some(machine) = &self.machine else { return };
        let ended = SessionsEnded::of(machine);
        let before = std::mem::replace(&mut self.sessions_ended, ended);
        if ended != before {
            self.metrics.on_sessions_ended(before, ended);
        }
        let expired = Reply::Refused(CommandRefused::SessionExpired);
        let answer = Answer::without_guest(index, expired).committed(self.term);
        let is_open = |id| machine.has_session(id);
        self.parked.leave_ended(machine.sessions_ended(), is_open, &answer);
    }

    /// Counting costs a little and changes nothing, so one node may do it and another not.
    fn count_pages(&mut self, index: Index, waiter: Option<&Waiter>) {
        if (NodeMetrics::samples_pages(index) || waiter.is_some_and(Waiter::count_pages))
            && let Some(machine) = &mut self.machine
        {
            machine.count_pages();
        }
    }

    /// Applies an entry and returns its last answer. Who waits for the other commands of a batch is
    /// told at once, so that no more than two answers are held, however long they are.
    fn apply_one(
        &mut self,
        committed: CommittedEntry,
        kind: Option<BodyKind>,
        waiter: &mut Option<Waiter>,
        ticket: &mut JobTicket,
    ) -> Result<Answer, ApplyError> {
        let machine = self.machine.as_mut().expect("entries come only after a snapshot");
        if kind == Some(BodyKind::ActivateModule)
            && let Some(job) = self.making.take().and_then(Making::end)
        {
            machine.take_ahead(job);
        }
        let entry = committed.entry;
        let bytes = entry.cost_bytes();
        self.term = entry.term;
        if let Some((change, conf_state)) = committed.membership {
            if let Some(witness) = &mut self.witness {
                witness.membership(&entry, &conf_state);
            }
            machine.apply_membership(entry.index, &change, conf_state);
            self.shadowed.after(machine, &entry, || self.trust.refuses_snapshots());
            self.policy.count(1, bytes);
            return Ok(Answer::without_guest(entry.index, Reply::Nothing));
        }
        assert_eq!(entry.kind, EntryKind::Normal, "consensus decodes every membership entry");
        let is_activation = kind == Some(BodyKind::ActivateModule);
        let (work, metrics, parked) = (&self.work, &self.metrics, &mut self.parked);
        let (cost, shadowed) = (&mut self.cost, &mut self.shadowed);
        let hidden = self.trust.hides_replies();
        let mut seen = self.witness.is_some().then(Vec::new);
        let mut last = None;
        let mut on_answer = |position, applied: Applied| {
            if let Some(seen) = &mut seen {
                seen.push(applied.clone());
            }
            if let Reply::Command(_) = applied.reply {
                cost.commands += 1;
                cost.fuel = cost.fuel.saturating_add(applied.fuel_used);
            }
            shadowed.see(&applied);
            let answer = Answer { position, applied, took: work.lap(ticket) };
            let Some(before) = last.replace(answer) else { return };
            metrics.on_answer(&before.applied);
            before.tell_one(entry.term, hidden.as_ref(), waiter, parked);
        };
        match is_activation && self.beside && self.trust.refuses_queries().is_none() {
            true => {
                let beside = Beside {
                    jobs: &mut self.jobs,
                    deferred: &mut self.deferred,
                    queries: &mut self.queries,
                    metrics: &self.metrics,
                };
                beside::apply(machine, entry.index, &entry.data, &mut on_answer, beside)?;
            }
            false => machine.apply(entry.index, &entry.data, &mut on_answer)?,
        }
        let last = last.expect("every entry is answered");
        if let Some(witness) = &mut self.witness {
            witness.applied(machine, &entry, &seen.unwrap_or_default());
        }
        // What was said to an earlier process may be of another clock.
        if let Reply::ClockSet { time_ms, .. } = last.applied.reply
            && !self.trust.is_replay(entry.index)
        {
            self.log_clock.put_forward(time_ms);
        }
        if modules::may_be_others(&last.applied.reply) {
            self.prepare();
        }
        // An activation has taken what was made; if it did nothing, the fork is still there.
        if is_activation || matches!(last.applied.reply, Reply::Forked { .. }) {
            self.make_ahead();
        }
        let commands = u64::from(last.position.ordinal) + 1;
        self.policy.count(commands, bytes);
        let machine = self.machine.as_mut().expect("it has just applied the entry");
        self.trust.after_entry(machine, &mut self.queries, &last.applied, commands)?;
        self.shadowed.after(machine, &entry, || self.trust.refuses_snapshots());
        Ok(last)
    }

    fn install(&mut self, meta: &SnapshotMeta) -> Result<(), ApplyError> {
        let ticket = self.work.begin(JobKind::Install, meta.index);
        let machine = stored::restore(&*self.snapshots, meta, self.cluster, &self.loader).map_err(
            |error| match error {
                LoadError::Storage(error) => ApplyError::Storage(error),
                LoadError::Restore(source) => ApplyError::Restore { index: meta.index, source },
            },
        )?;
        self.work.end(ticket);
        self.metrics.snapshots_installed.add(1);
        self.metrics.snapshot_bytes.set(meta.size_bytes);
        tracing::info!(index = %meta.index, bytes = meta.size_bytes, "installed a snapshot");
        let words = "a snapshot of the leader took the place of this node's state";
        self.parked.answer_all(&ProposeFailure::Unknown(words.to_owned()));
        self.shadowed.installed(meta.index);
        let machine = self.machine.insert(machine);
        self.sessions_ended = SessionsEnded::of(machine);
        self.term = meta.term;
        if let Some(witness) = &mut self.witness {
            witness.installed(machine, meta);
        }
        self.prepare();
        self.make_ahead();
        self.policy.installed(self.time_ms(), meta.size_bytes);
        self.metrics.snapshot_time_ms.set(self.policy.last_ms());
        self.snapshots.retain(self.group, self.policy.keep(), meta.index)?;
        if let Some(machine) = &self.machine {
            self.trust.on_new_state(machine);
        }
        self.tell_level();
        self.after_progress(true);
        Ok(())
    }

    fn after_progress(&mut self, membership_changed: bool) {
        let applied = self.applied();
        self.publish(membership_changed);
        // An event loop that has ended needs no news.
        let cost = std::mem::take(&mut self.cost);
        let _ = self.events.send(Event::Applied(applied, self.trust.since_point(), cost));
        let released = self.queries.released_at(applied);
        self.ask(released);
    }

    fn ask(&mut self, queries: Vec<QueryJob>) {
        // Without a machine there is nothing to ask; dropping the queries says so.
        if self.machine.is_none() {
            return;
        }
        match self.trust.refuses_queries() {
            Some(failure) => queries::refuse(queries, &failure),
            None => {
                let applied = self.applied();
                self.queries.ask(queries, applied);
            }
        }
    }

    /// Whether queries wait for nothing but their turn.
    pub(in crate::node) fn has_asked(&self) -> bool {
        self.queries.are_asked()
    }

    /// Answers the oldest queries: a few expensive ones or many cheap ones.
    pub(in crate::node) fn answer_some(&mut self) -> Result<(), ApplyError> {
        let is_anybody_there = self.queries.begin_turn();
        let Some(machine) = &mut self.machine else {
            self.queries.clear();
            return Ok(());
        };
        if is_anybody_there {
            let ticket = self.work.begin(JobKind::Query, machine.applied_index());
            self.queries.answer_some(machine, &self.metrics)?;
            self.work.end(ticket);
        }
        Ok(())
    }

    /// Before anybody hears of the new profile or level, the state must be where the program that offers it
    /// finds it. A crash before that repeats the change.
    fn halt_unless_supported(&mut self) -> Result<(), ApplyError> {
        let machine = self.machine.as_ref().expect("it has applied something");
        let Err(unsupported) = machine.program_supported() else { return Ok(()) };
        let is_ignored = match &unsupported {
            Unsupported::Engine(_) => museum::is_on(Exhibit::EngineIgnored),
            Unsupported::Level { .. } => museum::is_on(Exhibit::UnknownFieldIgnored),
        };
        if is_ignored {
            return Ok(());
        }
        let index = machine.applied_index();
        let what_to_do = match self.trust.refuses_snapshots() {
            None => {
                let (meta, image) = self.capture()?;
                let meta = stored::save(&*self.snapshots, self.policy.keep(), meta, &image)?;
                tracing::info!(
                    %index, bytes = meta.size_bytes, "snapshot saved for another version of the program"
                );
                // An event loop that has ended needs no news.
                let _ = self.events.send(Event::Applied(
                    index,
                    self.trust.since_point(),
                    Cost::default(),
                ));
                let _ = self.events.send(Event::SnapshotSaved(meta));
                "start a version of raft-host that offers the former on the same data directory"
                    .to_owned()
            }
            // The next program must not begin with a state that went wrong.
            Some(reason) => format!(
                "{reason}; start this version again, which executes its log again up to this \
                 change, or is sent a state by the others"
            ),
        };
        self.halted = true;
        self.queries.clear();
        let _ = self.events.send(Event::Halted(why_halted(index, &unsupported, &what_to_do)));
        Ok(())
    }

    fn publish(&mut self, membership_changed: bool) {
        let Some(machine) = &self.machine else { return };
        self.log_clock.follow(machine.time_ms());
        if membership_changed {
            self.members = Arc::new(machine.members().clone());
            self.joins = Arc::new(machine.joins().clone());
            self.conf_state = Arc::new(machine.conf_state().clone());
            let (next, as_of) = (machine.next_node_id(), machine.applied_index());
            let origins = machine.info().origins;
            self.roster.update(Arc::clone(&self.members), next, as_of, origins);
            let event = Event::Members(Arc::clone(&self.members), Arc::clone(&self.conf_state));
            // An event loop that has ended needs no news.
            let _ = self.events.send(event);
        }
        self.view.send_replace(Some(Arc::new(MachineView {
            info: machine.info(),
            members: Arc::clone(&self.members),
            joins: Arc::clone(&self.joins),
            conf_state: Arc::clone(&self.conf_state),
            next_node_id: machine.next_node_id(),
            modules: Arc::clone(&self.modules),
        })));
    }

    /// Before anybody hears that the level is another one.
    fn tell_level(&self) {
        if let Some(machine) = &self.machine {
            // An event loop that has ended needs no news.
            let _ = self.events.send(Event::Level(machine.level(), machine.applied_index()));
        }
    }

    /// Why nobody gets a copy of the state now.
    fn refuses_copies(&self) -> Option<String> {
        if self.machine.is_none() {
            Some("this node has no state yet: it waits for its leader".to_owned())
        } else if self.halted {
            Some("this node stops, and has saved a snapshot".to_owned())
        } else {
            self.trust.refuses_snapshots()
        }
    }

    /// The digest costs what has changed since the last one, as at a digest point.
    fn copy(
        &mut self,
        caller: oneshot::Sender<Result<MachineCopy, String>>,
    ) -> Result<(), ApplyError> {
        // A caller that has gone needs no answer.
        if let Some(reason) = self.refuses_copies() {
            let _ = caller.send(Err(reason));
            return Ok(());
        }
        let machine = self.machine.as_mut().expect("else it is refused");
        let digest = machine.digest_now()?;
        let (meta, state) = self.capture()?;
        let _ = caller.send(Ok(MachineCopy { position: meta.position(), state, digest }));
        Ok(())
    }

    /// The state of now and what comes after it, or why there is none.
    pub(in crate::node) fn start_shadow(
        &mut self,
    ) -> Result<Result<ShadowStart, String>, ApplyError> {
        if let Some(reason) = self.refuses_copies() {
            return Ok(Err(reason));
        }
        let (_, state) = self.capture()?;
        let source = self.shadowed.begin(self.machine.as_ref().expect("else it is refused"));
        let (loader, metrics) = (Arc::clone(&self.loader), Arc::clone(&self.metrics));
        Ok(Ok(ShadowStart { state, source, loader, metrics }))
    }

    /// Shows a shadow the state of now, at the end of its time.
    pub(in crate::node) fn end_shadow(&mut self) -> Result<(), ApplyError> {
        if self.shadowed.is_fed() {
            let state = match self.refuses_copies() {
                Some(reason) => Err(reason),
                None => Ok(self.capture()?.1),
            };
            self.shadowed.conclude(state);
        }
        Ok(())
    }

    fn take_snapshot(
        &mut self,
        caller: oneshot::Sender<Result<SnapshotMeta, String>>,
    ) -> Result<(), ApplyError> {
        if let Some(reason) = self.refuses_copies() {
            let _ = caller.send(Err(reason));
            return Ok(());
        }
        if self.policy.saving() {
            let _ = caller.send(Err("a snapshot is being taken already".into()));
            return Ok(());
        }
        self.snapshot_callers.push(caller);
        self.start_snapshot()
    }

    /// The event loop is told which one is the newest now. A fresh one is taken at once: the log
    /// may not reach back to the one before, and then a restart would find nothing to go on from.
    fn on_unreadable(&mut self, index: Index) -> Result<(), ApplyError> {
        let stored = self.snapshots.list(self.group)?;
        let damaged = stored.into_iter().find(|meta| meta.index == index);
        if let Some(damaged) = &damaged {
            tracing::error!(%index, "this node's snapshot is damaged: it is set aside");
            self.snapshots.set_aside(damaged);
            self.policy.lost();
        }
        let newest = self.snapshots.list(self.group)?.into_iter().next();
        // An event loop that has ended needs no news.
        let _ = self.events.send(Event::SnapshotGone(index, newest));
        let may = self.machine.is_some() && self.trust.refuses_snapshots().is_none();
        if damaged.is_some() && may && !self.halted && !self.policy.saving() {
            self.start_snapshot()?;
        }
        Ok(())
    }

    /// Frees what can be freed of a disk that has little space left: older snapshots, and with a new
    /// one the log before it.
    fn on_space(&mut self, space: Space, free: u64) -> Result<(), ApplyError> {
        self.policy.set_short(space != Space::Ample);
        if space == Space::Ample || !self.may_snapshot() {
            return Ok(());
        }
        if self.policy.would_free(free) {
            tracing::warn!(free, "the disk has little space left: a snapshot is taken for the log");
            return self.start_snapshot();
        }
        if !self.policy.saving() {
            let (keep, applied) = (self.policy.keep(), self.applied());
            self.snapshots.retain(self.group, keep, applied)?;
        }
        Ok(())
    }

    fn start_snapshot(&mut self) -> Result<(), ApplyError> {
        let (meta, image) = self.capture()?;
        self.policy.started(self.time_ms());
        let (keep, done) = (self.policy.keep(), self.own_jobs.clone());
        let metrics = Arc::clone(&self.metrics);
        // A snapshot thread that has ended has stopped the node.
        let _ = self.saver.send(SaveJob { meta, image, keep, done, metrics });
        Ok(())
    }

    fn capture(&mut self) -> Result<(SnapshotMeta, MachineSnapshot), ApplyError> {
        let machine = self.machine.as_mut().expect("checked by the callers");
        let ticket = self.work.begin(JobKind::Capture, machine.applied_index());
        let image = machine.capture()?;
        self.metrics.snapshot_capture_duration.observe(self.work.end(ticket));
        let meta = SnapshotMeta {
            group: self.group,
            index: machine.applied_index(),
            term: self.term,
            conf_state: machine.conf_state().clone(),
            size_bytes: 0,
            checksum: 0,
        };
        Ok((meta, image))
    }

    fn on_saved(&mut self, meta: Option<SnapshotMeta>) {
        let result = match (meta, self.trust.refuses_snapshots()) {
            (Some(_), Some(reason)) => {
                // Taken before anybody knew. If the node starts with it, the next point tells.
                self.policy.failed();
                Err(reason)
            }
            (Some(meta), None) => {
                self.policy.saved(meta.size_bytes);
                self.metrics.snapshots_saved.add(1);
                self.metrics.snapshot_bytes.set(meta.size_bytes);
                self.metrics.snapshot_time_ms.set(self.policy.last_ms());
                let _ = self.events.send(Event::SnapshotSaved(meta.clone()));
                Ok(meta)
            }
            (None, _) => {
                self.policy.failed();
                self.metrics.snapshots_failed.add(1);
                Err("the snapshot could not be written; the node's log says why".to_owned())
            }
        };
        for caller in self.snapshot_callers.drain(..) {
            let _ = caller.send(result.clone());
        }
    }
}
