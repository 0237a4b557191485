//! The thread that owns the machine: applies committed entries in order, answers queries
//! between them, captures snapshots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, Sender};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored::{self, entry::Body};
use tokio::sync::{oneshot, watch};

use super::beside::{self, Beside};
use super::clock::LogClock;
use super::event_loop::{Event, EventSender};
use super::handle::{Committed, MachineView, ProposeFailure, QueryJob};
use super::inbox::Roster;
use super::metrics::{NodeMetrics, NotAsked};
use super::pack::Cost;
use super::parked::Parked;
use super::recovery::{LoadError, restore};
use super::snapshots::{SaveJob, SnapshotPolicy};
use super::stop::{StopReason, StopSignal};
use super::trust::Trust;
use super::waiter::Waiter;
use super::work::{JobKind, JobTicket, Jobs};
use crate::consensus::CommittedEntry;
use crate::fsm::{HostFailure, SharedLoader};
use crate::machine::{
    Applied, BodyKind, CommandRefused, Machine, ModuleInfo, QueryReply, QueryResult, Reply,
    RestoreError, bounded_label,
};
use crate::museum::{self, Exhibit};
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::{
    ClusterId, ConfState, EntryKind, GroupId, Index, JoinNonce, LogEntry, Member, ModuleHash,
    NodeId, Position, Term,
};

/// Queries that are answered together, in parallel if the state machine can.
const QUERIES_AT_A_TIME: usize = 64;
/// Once those have used so much fuel together (some 50 ms), entries come first again: one can then
/// be held up by what a single query may use, however many there are.
const QUERIES_FUEL: u64 = 50_000_000;
/// Jobs done while queries wait, before some of these are answered: neither starves the other.
const JOBS_AT_A_TIME: u32 = 16;

/// An entry and who waits for it.
pub(super) struct ApplyJob {
    pub(super) committed: CommittedEntry,
    pub(super) waiter: Option<Waiter>,
}

/// Work for the machine, in the order it is to be done.
pub(super) enum Job {
    Apply(Vec<ApplyJob>),
    Install(SnapshotMeta),
    /// Answer once the index is applied.
    Query(Index, Vec<QueryJob>),
    TakeSnapshot(oneshot::Sender<Result<SnapshotMeta, String>>),
    /// A follower needs a snapshot newer than the newest.
    SnapshotWanted,
    /// The stored snapshot at this index cannot be sent.
    SnapshotUnreadable(Index),
    /// The snapshot thread is done; it may have failed.
    Saved(Option<SnapshotMeta>),
    /// Fails the machine's memory, for tests.
    #[cfg(feature = "museum")]
    FlipBit(u64),
    /// The event loop has ended. The queue itself stays open: the snapshot thread answers
    /// into it.
    End,
}

/// Why the machine cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Host(#[from] HostFailure),
    #[error("installing the snapshot at {index}: {source}")]
    Restore { index: Index, source: RestoreError },
    #[error("a snapshot: {0}")]
    Storage(#[from] StorageError),
    #[error(
        "the replicas disagree at index {point} and no state has a majority of the {voters} voters \
         ({votes}); nothing says whether this node's is right: start it again, which executes its \
         log again from the disk"
    )]
    InDoubt { point: Index, votes: String, voters: usize },
}

pub(super) struct ApplyLoop {
    pub(super) cluster: ClusterId,
    pub(super) group: GroupId,
    pub(super) machine: Option<Machine>,
    /// Term of the last applied entry.
    pub(super) term: Term,
    pub(super) loader: SharedLoader,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    pub(super) jobs: Receiver<Job>,
    pub(super) events: EventSender,
    pub(super) roster: Arc<Roster>,
    pub(super) view: watch::Sender<Option<Arc<MachineView>>>,
    pub(super) members: Arc<BTreeMap<NodeId, Member>>,
    pub(super) joins: Arc<BTreeMap<NodeId, JoinNonce>>,
    pub(super) conf_state: Arc<ConfState>,
    pub(super) policy: SnapshotPolicy,
    pub(super) saver: Sender<SaveJob>,
    /// Callers that wait for the snapshot being saved.
    pub(super) snapshot_callers: Vec<oneshot::Sender<Result<SnapshotMeta, String>>>,
    /// Of the commands applied since the event loop heard of any.
    pub(super) cost: Cost,
    /// Who waits for commands that wait in ordered sessions.
    pub(super) parked: Parked,
    /// Queries that wait for an index.
    pub(super) waiting: BTreeMap<Index, Vec<QueryJob>>,
    /// Queries that can be answered, oldest first.
    pub(super) asked: VecDeque<QueryJob>,
    /// Jobs done since queries were answered last.
    pub(super) jobs_since_answers: u32,
    /// Taken from the queue while an activation ran; they come before what is in it.
    pub(super) deferred: VecDeque<Job>,
    pub(super) stop: StopSignal,
    /// An entry has set an engine profile that this program does not offer: nothing more is
    /// applied or answered, and the node stops soon.
    pub(super) halted: bool,
    pub(super) trust: Trust,
    pub(super) log_clock: Arc<LogClock>,
    /// Compile modules that have become complete before they are activated.
    pub(super) compile_ahead: bool,
    /// Answer queries on a thread of their own while an activation runs.
    pub(super) beside: bool,
    /// Sees what is applied.
    pub(super) witness: Option<Box<dyn Witness>>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) work: Jobs,
}

/// Sees every entry with what the machine made of it. Only for tests of the whole.
pub trait Witness: Send {
    /// A normal entry was applied. The machine may be looked at, not changed. What came of the
    /// entry's commands is in their order; there is one answer if it holds none.
    fn applied(&mut self, machine: &mut Machine, entry: &LogEntry, answers: &[Applied]);

    /// A membership change was applied.
    fn membership(&mut self, entry: &LogEntry, conf_state: &ConfState);

    /// The machine was replaced by that of a snapshot.
    fn installed(&mut self, machine: &mut Machine, meta: &SnapshotMeta);
}

impl ApplyLoop {
    pub(super) fn run(mut self) {
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
            None if self.asked.is_empty() => self.jobs.recv().map(Some),
            None => Ok(self.jobs.try_recv().ok()),
        }
    }

    /// Whether queries have waited long enough for other jobs.
    pub(super) fn answers_are_due(&self) -> bool {
        !self.asked.is_empty() && self.jobs_since_answers >= JOBS_AT_A_TIME
    }

    /// Tells the others what was recovered.
    pub(super) fn begin(&mut self) {
        self.prepare();
        self.tell_level();
        self.publish(true);
    }

    /// The machine may hold other modules than before: compiles the new ones beside what else is to
    /// be done, and drops what was compiled for those that are gone.
    fn prepare(&self) {
        let Some(machine) = &self.machine else { return };
        if self.compile_ahead {
            prepare_modules(machine, &self.loader);
        }
        let held: Vec<ModuleHash> = machine.info().modules.iter().map(|held| held.hash).collect();
        self.loader.retain(&held);
    }

    pub(super) fn fail(&self, error: &ApplyError) {
        match error {
            // The snapshot stays; the program that offers its profile starts from it.
            ApplyError::Restore { source: RestoreError::Program(_), .. } => {
                self.stop.stop(StopReason::Program(error.to_string()));
            }
            _ => self.stop.fail("the state machine cannot go on", error),
        }
    }

    pub(super) fn on_job(&mut self, job: Job) -> Result<(), ApplyError> {
        self.jobs_since_answers += 1;
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
                if self.policy.due() && self.may_snapshot() {
                    self.start_snapshot()?;
                }
                Ok(())
            }
            Job::Install(meta) => self.install(&meta),
            Job::Query(index, queries) => {
                if index <= self.applied() || museum::is_on(Exhibit::ReadBeforeApplied) {
                    self.ask(queries);
                } else {
                    self.waiting.entry(index).or_default().extend(queries);
                }
                Ok(())
            }
            Job::TakeSnapshot(caller) => self.take_snapshot(caller),
            Job::SnapshotWanted => {
                let may = self.machine.is_some() && self.trust.refuses_snapshots().is_none();
                if may && self.policy.wanted() {
                    self.start_snapshot()?;
                }
                Ok(())
            }
            Job::SnapshotUnreadable(index) => self.on_unreadable(index),
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
                    let name = module_name(&committed.entry.data);
                    self.work.begin_named(JobKind::Activate, index, name)
                }
                _ => self.work.begin(job_kind(kind), index),
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
            self.metrics.on_entry(kind, self.work.end(ticket));
            self.metrics.on_answer(applied);
            let announced =
                matches!(applied.reply, Reply::Activated { .. } | Reply::LimitsSet { .. })
                    || is_engine
                    || is_level;
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
        self.after_batch()
    }

    /// Whoever waits for a command of a session that has ended waits for nothing.
    fn leave_ended_sessions(&mut self, index: Index) {
        let Some(machine) = &self.machine else { return };
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
        let entry = committed.entry;
        let bytes = entry.cost_bytes();
        self.term = entry.term;
        if let Some((change, conf_state)) = committed.membership {
            if let Some(witness) = &mut self.witness {
                witness.membership(&entry, &conf_state);
            }
            machine.apply_membership(entry.index, &change, conf_state);
            self.policy.count(1, bytes);
            return Ok(Answer::without_guest(entry.index, Reply::Nothing));
        }
        assert_eq!(entry.kind, EntryKind::Normal, "consensus decodes every membership entry");
        let is_activation = kind == Some(BodyKind::ActivateModule);
        let (work, metrics, parked) = (&self.work, &self.metrics, &mut self.parked);
        let cost = &mut self.cost;
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
                    asked: &mut self.asked,
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
        let modules_change = match last.applied.reply {
            Reply::ChunkStored { received, total } => received == total,
            Reply::Activated { .. } | Reply::LimitsSet { .. } => true,
            Reply::ClockSet { time_ms, .. } => {
                // Else it was said to an earlier process, which may have had another clock.
                if entry.index > self.trust.replayed_to {
                    self.log_clock.put_forward(time_ms);
                }
                false
            }
            _ => false,
        };
        if modules_change {
            self.prepare();
        }
        let commands = u64::from(last.position.ordinal) + 1;
        self.policy.count(commands, bytes);
        self.after_entry(&last.applied, commands)?;
        Ok(last)
    }

    fn install(&mut self, meta: &SnapshotMeta) -> Result<(), ApplyError> {
        let ticket = self.work.begin(JobKind::Install, meta.index);
        let machine = restore(&*self.snapshots, meta, self.cluster, &self.loader).map_err(
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
        let machine = self.machine.insert(machine);
        self.term = meta.term;
        if let Some(witness) = &mut self.witness {
            witness.installed(machine, meta);
        }
        self.prepare();
        self.policy.saved(meta.size_bytes);
        self.snapshots.retain(self.group, self.policy.keep(), meta.index)?;
        self.on_new_state();
        self.tell_level();
        self.after_progress(true);
        Ok(())
    }

    fn after_progress(&mut self, membership_changed: bool) {
        let applied = self.applied();
        self.publish(membership_changed);
        // An event loop that has ended needs no news.
        let cost = std::mem::take(&mut self.cost);
        let _ = self.events.send(Event::Applied(applied, self.trust.since_point, cost));
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= applied
        {
            let queries = entry.remove();
            self.ask(queries);
        }
    }

    fn ask(&mut self, queries: Vec<QueryJob>) {
        // Without a machine there is nothing to ask; dropping the queries says so.
        if self.machine.is_none() {
            return;
        }
        match self.trust.refuses_queries() {
            Some(_) => self.refuse(queries),
            None => {
                let applied = self.applied();
                self.asked.extend(queries.into_iter().filter_map(|query| query.pass(applied)));
            }
        }
    }

    /// Whether queries wait for nothing but their turn.
    pub(super) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Answers the oldest queries: a few expensive ones or many cheap ones.
    pub(super) fn answer_some(&mut self) -> Result<(), ApplyError> {
        self.jobs_since_answers = 0;
        let Some(machine) = &mut self.machine else {
            self.asked.clear();
            return Ok(());
        };
        // A caller that went away does not want the answer any more.
        self.asked.retain(|query| !query.reply.is_closed());
        if self.asked.is_empty() {
            return Ok(());
        }
        let some = self.asked.iter().take(QUERIES_AT_A_TIME);
        let questions: Vec<Bytes> = some.map(|query| query.query.clone()).collect();
        let ticket = self.work.begin(JobKind::Query, machine.applied_index());
        let replies = machine.query_some(&questions, QUERIES_FUEL)?;
        self.work.end(ticket);
        assert!(!replies.is_empty(), "whoever asks is answered something");
        for (query, reply) in self.asked.drain(..replies.len()).zip(replies) {
            answer(&self.metrics, query, reply);
        }
        Ok(())
    }

    /// All queries that are here, taken out.
    pub(super) fn take_queries(&mut self) -> Vec<QueryJob> {
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten();
        self.asked.drain(..).chain(waiting).collect()
    }

    /// Tells whoever asks why there is no answer, if there is none.
    pub(super) fn refuse(&self, queries: Vec<QueryJob>) {
        let Some(failure) = self.trust.refuses_queries() else { return };
        for query in queries {
            // A caller that went away does not want the answer any more.
            let _ = query.reply.send(Err(failure.clone()));
        }
    }

    fn publish(&mut self, membership_changed: bool) {
        let Some(machine) = &self.machine else { return };
        self.log_clock.follow(machine.time_ms());
        if membership_changed {
            self.members = Arc::new(machine.members().clone());
            self.joins = Arc::new(machine.joins().clone());
            self.conf_state = Arc::new(machine.conf_state().clone());
            let (next, as_of) = (machine.next_node_id(), machine.applied_index());
            self.roster.update(Arc::clone(&self.members), next, as_of);
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
        })));
    }

    /// Before anybody hears that the level is another one.
    fn tell_level(&self) {
        if let Some(machine) = &self.machine {
            // An event loop that has ended needs no news.
            let _ = self.events.send(Event::Level(machine.level(), machine.applied_index()));
        }
    }

    fn take_snapshot(
        &mut self,
        caller: oneshot::Sender<Result<SnapshotMeta, String>>,
    ) -> Result<(), ApplyError> {
        if self.machine.is_none() {
            let _ = caller.send(Err("this node has no state yet: it waits for its leader".into()));
            return Ok(());
        }
        if self.halted {
            let _ = caller.send(Err("this node stops, and has saved a snapshot".into()));
            return Ok(());
        }
        if let Some(reason) = self.trust.refuses_snapshots() {
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

    fn start_snapshot(&mut self) -> Result<(), ApplyError> {
        let job = self.snapshot_job()?;
        self.policy.started();
        // A snapshot thread that has ended has stopped the node.
        let _ = self.saver.send(job);
        Ok(())
    }

    pub(super) fn snapshot_job(&mut self) -> Result<SaveJob, ApplyError> {
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
        Ok(SaveJob { meta, image })
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

/// What came of a command, or of an entry that holds none.
struct Answer {
    position: Position,
    applied: Applied,
    took: Duration,
}

impl Answer {
    fn without_guest(index: Index, reply: Reply) -> Answer {
        let applied = Applied {
            reply,
            fuel_used: 0,
            events: Vec::new(),
            trap_message: None,
            pages_dirtied: None,
            waited: None,
        };
        Answer { position: Position::first(index), applied, took: Duration::ZERO }
    }

    /// Tells whoever waits for it, and for nothing else of its entry; or has them wait on.
    fn tell_one(
        self,
        term: Term,
        hidden: Option<&ProposeFailure>,
        waiter: &mut Option<Waiter>,
        parked: &mut Parked,
    ) {
        let (ordinal, waited) = (self.position.ordinal, self.applied.waited);
        let waits = match self.applied.reply {
            Reply::Waiting(number) => Some(number),
            _ => None,
        };
        let told = || hidden.cloned().map_or_else(|| Ok(self.committed(term)), Err);
        if let Some(number) = waited {
            return parked.answer(number, &told());
        }
        let Some(sink) = waiter.as_mut().and_then(|waiter| waiter.take(ordinal)) else { return };
        match waits {
            Some(number) => parked.park(number, sink),
            None => sink.send(told()),
        }
    }

    /// As the last of its entry: nobody waits for anything else of that any more.
    fn tell(
        self,
        term: Term,
        hidden: Option<&ProposeFailure>,
        waiter: &mut Option<Waiter>,
        parked: &mut Parked,
    ) {
        let is_late = self.applied.waited.is_some();
        if is_late || matches!(self.applied.reply, Reply::Waiting(_)) {
            self.tell_one(term, hidden, waiter, parked);
        } else if let Some(waiter) = waiter.take() {
            waiter.answer(hidden.cloned().map_or_else(|| Ok(self.committed(term)), Err));
        }
    }

    /// As whoever waits for it is told.
    fn committed(self, term: Term) -> Committed {
        Committed {
            position: self.position,
            term,
            reply: self.applied.reply,
            fuel_used: self.applied.fuel_used,
            trap_message: self.applied.trap_message,
            pages_dirtied: self.applied.pages_dirtied,
            apply_duration: self.took,
        }
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

fn job_kind(kind: Option<BodyKind>) -> JobKind {
    match kind {
        Some(BodyKind::ActivateModule | BodyKind::SetLimits) => JobKind::Activate,
        _ => JobKind::Apply,
    }
}

/// What an activation makes active, for people.
fn module_name(entry: &Bytes) -> String {
    let Ok(stored::Entry { body: Some(Body::ActivateModule(activate)), .. }) =
        stored::Entry::decode(&entry[..])
    else {
        return String::new();
    };
    match ModuleHash::try_from(&activate.module_hash[..]) {
        Ok(hash) if activate.label.is_empty() => hash.short(),
        _ => bounded_label(&activate.label),
    }
}

/// Compiles the modules that the machine holds beside its commands, so that an activation need not
/// wait.
fn prepare_modules(machine: &Machine, loader: &SharedLoader) {
    let info = machine.info();
    let unprepared = |module: &&ModuleInfo| !loader.is_prepared(module.hash, &info.limits);
    let missing: Vec<Bytes> = info
        .modules
        .iter()
        .filter(unprepared)
        .filter_map(|module| machine.module_bytes(module.hash))
        .collect();
    if missing.is_empty() {
        return;
    }
    let (loader, limits) = (Arc::clone(loader), info.limits.clone());
    let spawned = std::thread::Builder::new().name("module-compiler".into()).spawn(move || {
        for bytes in missing {
            // Only a head start: activation checks again and says what is wrong.
            if let Err(error) = loader.check(&bytes, &limits) {
                tracing::warn!(%error, "compiling a module ahead of its activation failed");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to compile a module ahead of its activation");
    }
}
