//! The thread that owns the replica: collects what happened, steps, executes the effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;
use tokio::sync::{oneshot, watch};

use super::apply::{ApplyJob, Job};
use super::budget::Charge;
use super::clock::{Clocks, Standing};
use super::digests::{Digests, View, Wish};
use super::halt::Halting;
use super::handle::{Committed, Leadership, ProposeFailure, QueryJob};
use super::levels::Levels;
use super::metrics::NodeMetrics;
use super::newcomers::Newcomers;
use super::pack::{Cost, Packer, Submission};
use super::removal::{Known, Removal};
use super::standing::RaftStanding;
use super::stop::{StopReason, StopSignal};
use super::waiter::Waiter;
use super::waiters::Waiters;
use crate::consensus::{
    ApplyTask, Care, ConfChangeError, Effects, Input, LogRead, Proposal, ProposalId, ProposeError,
    ReadId, Replica, ReplicaError, ReplicaStatus, Role, Write,
};
use crate::machine::Reply;
use crate::museum::{self, Exhibit};
use crate::storage::{SnapshotMeta, StorageError};
use crate::transport::Transport;
use crate::types::{
    ConfChange, ConfState, GroupId, Index, Level, LogEntry, LogPosition, Member, NodeId,
    PeerMessage, Position, SnapshotFate, StateDigest, Term,
};

/// What wakes the loop.
pub(super) enum Event {
    Submit(Vec<Submission>),
    ConfChange(ConfChange, Care, Waiter),
    TransferLeader(Option<NodeId>),
    Messages(Vec<PeerMessage>, Charge),
    Query(QueryJob),
    StaleQuery(QueryJob),
    Status(oneshot::Sender<ReplicaStatus>),
    TakeSnapshot(oneshot::Sender<Result<SnapshotMeta, String>>),
    Persisted(u64),
    /// What the log reader found.
    LogRead(LogRead, Result<Vec<LogEntry>, StorageError>),
    /// A caller wants to compare digests at a point of its own, or shared with others.
    CompareDigests(Waiter),
    /// Up to this index; how many commands and other entries there were since the last digest point; and what the
    /// commands cost.
    Applied(Index, u64, Cost),
    /// A digest point was applied.
    DigestTaken(Index, StateDigest),
    /// A verdict about this point was applied; whether it decided; these nodes' states differ from
    /// the majority's.
    DigestJudged(Index, bool, BTreeSet<NodeId>),
    /// Nothing says whether the machine's state is right, for this reason; or that is over.
    Doubted(Option<String>),
    /// The machine's state is not trusted from now on.
    Quarantined,
    /// The machine has a state that the leader sent.
    Trusted,
    /// Fails the machine's memory, for tests.
    #[cfg(feature = "museum")]
    FlipBit(u64),
    /// The machine's level, as of this index.
    Level(Level, Index),
    /// An operator wants the level raised: to this one, or as far as all members offer.
    RaiseLevel(Option<Level>, Waiter),
    /// The machine's members changed, as of an applied entry or a snapshot.
    Members(Arc<BTreeMap<NodeId, Member>>, Arc<ConfState>),
    SnapshotSaved(SnapshotMeta),
    SnapshotSent(NodeId, SnapshotFate),
    /// The stored snapshot at this index is gone; the newest one now.
    SnapshotGone(Index, Option<SnapshotMeta>),
    /// The stored snapshot at this index cannot be sent to anybody.
    SnapshotUnreadable(Index),
    Unreachable(NodeId),
    PeerSeen(Member),
    /// A task that this node cannot do without panicked.
    Broken(&'static str),
    /// This member says that this node is no member as of this index.
    RemovalSaid(NodeId, Index),
    /// The machine applies nothing more, for this reason: stop soon.
    Halted(String),
    /// Something stopped the node: look at the signal.
    Stop,
}

pub(super) type EventSender = Sender<Event>;

/// Most events taken in before effects are executed.
const MAX_EVENTS_PER_TURN: usize = 4096;

/// All that the loop owns.
pub(super) struct EventLoop {
    pub(super) me: NodeId,
    pub(super) group: GroupId,
    pub(super) replica: Replica,
    pub(super) standing: Arc<RaftStanding>,
    pub(super) events: Receiver<Event>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) writer: Sender<Write>,
    pub(super) reader: Sender<LogRead>,
    pub(super) apply: Sender<Job>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) stop: StopSignal,
    pub(super) tick: Duration,
    /// Known from joining, or introduced themselves; the machine may not know them yet.
    pub(super) introduced: Newcomers,
    pub(super) members: Arc<BTreeMap<NodeId, Member>>,
    /// As of the last membership change that was applied.
    pub(super) conf_state: Arc<ConfState>,
    pub(super) clocks: Clocks,
    pub(super) levels: Levels,
    pub(super) digests: Digests,
    /// Callers that wait for the next digest point.
    pub(super) comparers: Vec<Waiter>,
    /// The machine's state is not trusted.
    pub(super) is_quarantined: bool,
    pub(super) proposals: VecDeque<(ProposalId, Waiter)>,
    pub(super) next_proposal: u64,
    /// For entries appended here as leader.
    pub(super) waiters: Waiters,
    /// Membership changes that are committed; told to be done when they are settled, too.
    pub(super) settling: VecDeque<(LogPosition, Waiter)>,
    pub(super) queued_queries: Vec<QueryJob>,
    /// Those that any state answers; collected during a turn, sent on together.
    pub(super) stale_queries: Vec<QueryJob>,
    /// The read in flight and the queries it is for.
    pub(super) asked_queries: Option<(ReadId, Vec<QueryJob>)>,
    pub(super) next_read: u64,
    /// Collected during a turn, proposed together.
    pub(super) batch: Vec<Proposal>,
    /// The entry that commands of this turn go into.
    pub(super) packer: Packer,
    /// What others say about this node's removal.
    pub(super) removal: Removal,
    /// Whether they are believed.
    pub(super) expelled: watch::Sender<bool>,
    /// Set while nothing says whether the machine's state is right.
    pub(super) doubting: Option<Halting>,
    /// Set once the machine applies nothing more.
    pub(super) halting: Option<Halting>,
    /// How long the node then takes part in consensus.
    pub(super) linger_ticks: usize,
    /// For how long the disk has not answered, once that is an election timeout.
    pub(super) stuck: watch::Sender<Option<Duration>>,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// What the group looks like now; borrows single fields, so that others may change.
macro_rules! standing {
    ($event_loop:ident) => {
        Standing {
            leads: $event_loop.replica.role() == Role::Leader,
            leader: $event_loop.replica.leader(),
            conf_state: &$event_loop.conf_state,
        }
    };
}

impl EventLoop {
    pub(super) fn run(mut self) {
        self.update_peers();
        if let Err(error) = self.turns() {
            self.fail(&error);
        }
        self.send_job(Job::End);
        // Dropping the queues ends the log's writer and reader; dropping the waiters answers them.
    }

    fn turns(&mut self) -> Result<(), ReplicaError> {
        let mut next_tick = Instant::now() + self.tick;
        loop {
            let patience = next_tick.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(patience) {
                Ok(event) => self.on_event(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            for _ in 0..MAX_EVENTS_PER_TURN {
                let Ok(event) = self.events.try_recv() else { break };
                self.on_event(event)?;
            }
            if self.stop.is_given() {
                return Ok(());
            }
            let now = Instant::now();
            if now >= next_tick {
                self.on_tick()?;
                next_tick += self.tick;
                if next_tick < now {
                    // This process was held up. The messages that arrived meanwhile count,
                    // not the time in which it could not have looked at them.
                    next_tick = now + self.tick;
                }
            }
            self.end_turn()?;
        }
    }

    pub(super) fn fail(&self, error: &ReplicaError) {
        match error {
            ReplicaError::Outdated { .. } => {
                self.stop.stop(StopReason::Outdated(error.to_string()));
            }
            _ => self.stop.fail("consensus cannot go on", error),
        }
    }

    pub(super) fn on_tick(&mut self) -> Result<(), ReplicaError> {
        self.linger();
        let leader = self.replica.leader();
        let knows_none = self.members.is_empty();
        if self.introduced.on_tick(|id| knows_none || leader == Some(id)) {
            self.update_peers();
        }
        self.watch_disk();
        let questions = self.clocks.on_tick(standing!(self));
        if !questions.is_empty() {
            self.transport.send(questions);
        }
        if self.halting.is_none() {
            self.digests.on_tick();
            self.pursue_level();
        }
        self.waiters.on_tick();
        self.replica.step(Input::Tick)
    }

    /// Says when the disk does not answer, and when it does again.
    fn watch_disk(&mut self) {
        let waits = self.replica.write_waits().filter(|_| self.replica.is_stuck());
        let stuck =
            waits.map(|ticks| self.tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)));
        let was = *self.stuck.borrow();
        match (was, stuck) {
            (None, Some(since)) => tracing::error!(
                since_ms = since.as_millis() as u64,
                "a write of the log is stuck: the disk does not answer. This node leaves leading to \
                 others and is not healthy until it does"
            ),
            (Some(_), None) => tracing::warn!("the disk answers again: the log is written"),
            _ => {}
        }
        let seconds = |stuck: Option<Duration>| stuck.map(|stuck| stuck.as_secs());
        if seconds(was) != seconds(stuck) {
            self.stuck.send_replace(stuck);
        }
    }

    /// Brings what came in during a turn before the replica, and does what it wants done.
    pub(super) fn end_turn(&mut self) -> Result<(), ReplicaError> {
        self.pursue_digests();
        self.propose_batch()?;
        self.ask_read()?;
        if !self.stale_queries.is_empty() {
            let queries = std::mem::take(&mut self.stale_queries);
            self.send_job(Job::Query(Index(0), queries));
        }
        let effects = self.replica.effects()?;
        self.execute(effects);
        self.answer_settled();
        self.standing.update(self.me, &self.replica);
        Ok(())
    }

    pub(super) fn on_event(&mut self, event: Event) -> Result<(), ReplicaError> {
        match event {
            Event::Submit(submissions) if self.halting.is_some() => {
                for submission in submissions {
                    submission.waiter.answer(Err(ProposeFailure::Stopping));
                }
            }
            Event::Submit(submissions) if self.is_in_doubt() => {
                for submission in submissions {
                    submission.waiter.answer(Err(ProposeFailure::InDoubt));
                }
            }
            Event::Submit(submissions) if self.is_quarantined => {
                for submission in submissions {
                    submission.waiter.answer(Err(ProposeFailure::Quarantined));
                }
            }
            Event::Submit(submissions) => {
                submissions.into_iter().for_each(|submission| self.take_in(submission));
            }
            Event::ConfChange(_, _, waiter) if self.halting.is_some() => {
                waiter.answer(Err(ProposeFailure::Stopping));
            }
            Event::Halted(why) => self.on_halted(why),
            Event::ConfChange(_, _, waiter) if self.is_quarantined => {
                waiter.answer(Err(ProposeFailure::Quarantined));
            }
            Event::ConfChange(change, care, waiter)
                if self.levels.is_in_the_way_of(&change, care.decided_at) =>
            {
                self.refuse(waiter, ConfChangeError::InProgress.into());
            }
            Event::ConfChange(change, care, waiter) => {
                self.propose_batch()?;
                let id = self.new_proposal(waiter);
                self.replica.step(Input::ProposeConfChange(id, change, care))?;
            }
            Event::TransferLeader(to) => self.replica.step(Input::TransferLeader(to))?,
            Event::Messages(messages, charge) => {
                if let Some(message) = messages.first() {
                    self.introduced.hear(message.from);
                }
                for message in messages {
                    if message.kind.is_of_raft() || message.group != self.group {
                        self.replica.step(Input::Message(message))?;
                    } else {
                        self.on_own_message(&message);
                    }
                }
                drop(charge);
            }
            Event::Query(query) => self.queued_queries.push(query),
            Event::StaleQuery(query) => self.stale_queries.push(query),
            Event::Status(reply) => {
                // A caller that went away does not want the answer any more.
                let _ = reply.send(self.replica.status());
            }
            Event::TakeSnapshot(reply) => self.send_job(Job::TakeSnapshot(reply)),
            Event::Persisted(number) => self.replica.step(Input::Persisted(number))?,
            Event::LogRead(read, found) => self.replica.step(Input::LogRead(read, found))?,
            Event::CompareDigests(waiter) => self.comparers.push(waiter),
            Event::Applied(index, since_point, cost) => {
                self.packer.learn(cost);
                self.digests.on_applied(since_point);
                self.replica.step(Input::Applied(index))?;
            }
            Event::DigestTaken(point, digest) => self.digests.on_taken(point, digest),
            Event::Doubted(why) => self.on_doubted(why),
            Event::DigestJudged(point, is_decided, distrusted) => {
                self.digests.on_judged(point, is_decided);
                self.replica.step(Input::Distrusted(distrusted))?;
            }
            Event::Quarantined => {
                self.is_quarantined = true;
                self.replica.step(Input::Quarantined)?;
            }
            Event::Trusted => {
                self.is_quarantined = false;
                self.digests.on_new_state();
                self.replica.step(Input::Trusted)?;
            }
            #[cfg(feature = "museum")]
            Event::FlipBit(at) => self.send_job(Job::FlipBit(at)),
            Event::Level(level, as_of) => self.levels.on_level(level, as_of),
            Event::RaiseLevel(wanted, waiter) => self.raise_level(wanted, waiter),
            Event::Members(members, conf_state) => self.on_members(members, conf_state)?,
            Event::SnapshotSaved(meta) => self.replica.step(Input::SnapshotSaved(meta))?,
            Event::SnapshotSent(to, fate) => self.replica.step(Input::SnapshotSent(to, fate))?,
            Event::SnapshotUnreadable(index) => self.send_job(Job::SnapshotUnreadable(index)),
            Event::SnapshotGone(index, newest) => {
                self.replica.step(Input::SnapshotGone(index, newest))?;
            }
            Event::Unreachable(to) => self.replica.step(Input::Unreachable(to))?,
            Event::PeerSeen(peer) => self.on_peer_seen(peer),
            Event::Broken(what) => self.stop.stop(StopReason::Failed(format!(
                "{what} panicked: a broken invariant; the log above says which"
            ))),
            Event::RemovalSaid(by, as_of) => self.on_removal_said(by, as_of)?,
            Event::Stop => {}
        }
        Ok(())
    }

    /// A message of a peer that is none of Raft's.
    fn on_own_message(&mut self, message: &PeerMessage) {
        if message.to != self.me {
            tracing::warn!(from = %message.from, to = %message.to, "a message for somebody else");
        } else if let Some((point, digest)) = message.as_digest_report() {
            self.on_digest_report(message.from, point, digest);
        } else if let Some((asked, offset)) = message.as_clock_question() {
            let answer = self.clocks.on_question(message.from, asked, offset, standing!(self));
            self.transport.send(vec![answer, self.level_offer(message.from)]);
        } else if let Some(level) = message.as_level_offer() {
            self.on_level_offer(message.from, level);
        } else if let Some((asked, wall_ms)) = message.as_clock_answer() {
            self.clocks.on_answer(message.from, asked, wall_ms, standing!(self));
        }
    }

    /// A member reports what it has applied, so this node has at least heard of it; if not yet,
    /// the report comes again.
    fn on_digest_report(&mut self, from: NodeId, point: Index, digest: StateDigest) {
        if self.conf_state.contains(from) && point <= self.replica.status().commit {
            self.digests.on_report(from, point, digest);
        }
    }

    pub(super) fn new_proposal(&mut self, waiter: Waiter) -> ProposalId {
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        self.proposals.push_back((id, waiter));
        id
    }

    /// Does what is due about digest points.
    fn pursue_digests(&mut self) {
        self.comparers.retain(|waiter| !waiter.is_gone());
        if !self.comparers.is_empty()
            && let Some(failure) = self.refuses_points()
        {
            for waiter in std::mem::take(&mut self.comparers) {
                self.refuse(waiter, failure.clone());
            }
        }
        loop {
            let view = View {
                me: self.me,
                leads: self.replica.role() == Role::Leader,
                leader: self.replica.leader(),
                conf_state: &self.conf_state,
                is_quarantined: self.is_quarantined,
                is_asked: !self.comparers.is_empty(),
            };
            let Some(wish) = self.digests.next(&view) else { return };
            match wish {
                Wish::Report(to, point, digest) => {
                    let report = PeerMessage::digest_report(self.group, self.me, to, point, digest);
                    self.transport.send(vec![report]);
                }
                Wish::Point => {
                    let waiter = Waiter::all(std::mem::take(&mut self.comparers));
                    self.propose_quietly(Body::DigestPoint(stored::DigestPoint {}), waiter);
                }
                Wish::Verdict(point, votes) => {
                    let votes = votes
                        .iter()
                        .map(|vote| stored::DigestVote {
                            node_id: vote.node.0,
                            digest: Bytes::copy_from_slice(&vote.digest.0),
                        })
                        .collect();
                    let verdict = stored::DigestVerdict { index: point.0, votes };
                    self.propose_quietly(Body::DigestVerdict(verdict), Waiter::nobody());
                }
            }
        }
    }

    /// Why no caller gets a digest point of this node, if none does.
    pub(super) fn refuses_points(&self) -> Option<ProposeFailure> {
        if self.halting.is_some() {
            Some(ProposeFailure::Stopping)
        } else if self.is_quarantined {
            Some(ProposeFailure::Quarantined)
        } else if self.is_in_doubt() {
            Some(ProposeFailure::InDoubt)
        } else if self.replica.role() != Role::Leader {
            Some(ProposeFailure::NotLeader(self.leader_member()))
        } else {
            None
        }
    }

    /// It says nothing of the time, so the log's clock stays where it is.
    pub(super) fn propose_quietly(&mut self, body: Body, waiter: Waiter) {
        let data = stored::Entry { time_ms: 0, body: Some(body) }.encode_to_vec().into();
        self.add_proposal(data, waiter);
    }

    fn propose_batch(&mut self) -> Result<(), ReplicaError> {
        self.close_entry();
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.replica.step(Input::Propose(batch))
    }

    /// One read at a time: all queries that came while the last one was under way share the
    /// next.
    fn ask_read(&mut self) -> Result<(), ReplicaError> {
        if let Some((id, queries)) = &mut self.asked_queries {
            queries.retain(|query| !query.reply.is_closed());
            if !queries.is_empty() {
                return Ok(());
            }
            let id = *id;
            self.asked_queries = None;
            self.replica.step(Input::AbandonRead(id))?;
        }
        self.queued_queries.retain(|query| !query.reply.is_closed());
        if self.queued_queries.is_empty() {
            return Ok(());
        }
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.asked_queries = Some((id, std::mem::take(&mut self.queued_queries)));
        self.replica.step(Input::Read(id))
    }

    fn execute(&mut self, effects: Effects) {
        for (from, why) in effects.nonsense {
            tracing::warn!(peer = %from, %why, "a peer sent a message that makes no sense");
            self.metrics.nonsense.add(1);
            self.transport.disconnect(from, &why.to_string());
        }
        if !effects.messages.is_empty() {
            self.transport.send(effects.messages);
        }
        for write in effects.writes {
            // A writer that has ended has stopped the node.
            let _ = self.writer.send(write);
        }
        for read in effects.log_reads {
            // A reader that has ended has stopped the node.
            let _ = self.reader.send(read);
        }
        if let Some(first) = effects.truncated_from {
            // Before those that were appended in the same turn wait for the same indexes.
            self.answer_replaced(first);
        }
        for (id, reply) in effects.proposals {
            let (expected, waiter) =
                self.proposals.pop_front().expect("every answered proposal has a waiter");
            assert_eq!(id, expected, "proposals are answered in the order they were made");
            match reply {
                Ok(position) => self.waiters.add(position, waiter),
                Err(error) => self.refuse(waiter, self.failure(error)),
            }
        }
        for task in effects.apply {
            let job = self.apply_job(task);
            self.send_job(job);
        }
        for read in effects.reads {
            match self.asked_queries.take() {
                Some((id, queries)) if id == read.id => {
                    self.send_job(Job::Query(read.index, queries));
                }
                other => self.asked_queries = other,
            }
        }
        if effects.snapshot_wanted {
            self.send_job(Job::SnapshotWanted);
        }
        if effects.leadership_changed {
            self.digests.on_leadership();
            self.clocks.on_leadership(standing!(self));
            self.levels.on_leadership();
            self.publish_leadership();
        }
    }

    pub(super) fn refuse(&self, waiter: Waiter, failure: ProposeFailure) {
        self.metrics.on_refusal(&failure, waiter.callers());
        waiter.answer(Err(failure));
    }

    fn failure(&self, error: ProposeError) -> ProposeFailure {
        match error {
            ProposeError::NotLeader(_) | ProposeError::Transferring => {
                ProposeFailure::NotLeader(self.leader_member())
            }
            ProposeError::Busy(exceeded) => ProposeFailure::Busy(exceeded),
            ProposeError::ConfChange(error) => ProposeFailure::ConfChange(error),
        }
    }

    fn apply_job(&mut self, task: ApplyTask) -> Job {
        match task {
            ApplyTask::Entries(entries) => Job::Apply(
                entries
                    .into_iter()
                    .map(|committed| {
                        let position = LogPosition {
                            index: committed.entry.index,
                            term: committed.entry.term,
                        };
                        let mut waiter = self.take_waiter(position);
                        if committed.membership.is_some()
                            && !museum::is_on(Exhibit::UnsettledAsDone)
                        {
                            self.settling.extend(waiter.take().map(|waiter| (position, waiter)));
                        }
                        ApplyJob { committed, waiter }
                    })
                    .collect(),
            ),
            ApplyTask::Install(meta) => {
                let why = "this node was replaced by a snapshot of the leader";
                for (_, waiter) in self.waiters.take_through(meta.index) {
                    self.refuse(waiter, ProposeFailure::Unknown(why.into()));
                }
                Job::Install(meta)
            }
        }
    }

    /// What was appended here was replaced by a later leader's entries, here. That is no proof that
    /// it never happens: a node that has it may lead after that leader, and commit it.
    fn answer_replaced(&mut self, first: Index) {
        for (_, waiter) in self.waiters.take_from(first) {
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

    /// Whoever hears that a member is gone may throw its disk away, so that must not be
    /// forgotten by a loss of power, and must be seen by whoever looks.
    fn answer_settled(&mut self) {
        if self.settling.is_empty() {
            return;
        }
        let Some(settled) = self.replica.settled() else {
            let why = "this node does not lead any more, and cannot tell whether the change of \
                       the members will last";
            for (_, waiter) in std::mem::take(&mut self.settling) {
                self.refuse(waiter, ProposeFailure::Unknown(why.to_owned()));
            }
            return;
        };
        let done = settled.min(self.replica.applied());
        while self.settling.front().is_some_and(|(at, _)| at.index <= done) {
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

    /// Whoever waits for this index in another term waits for an entry that was never
    /// committed and never will be.
    fn take_waiter(&mut self, position: LogPosition) -> Option<Waiter> {
        let mut found = None;
        for (at, waiter) in self.waiters.take_through(position.index) {
            let ignores_term = museum::is_on(Exhibit::SupersededAsDone);
            if at == position || (ignores_term && at.index == position.index) {
                found = Some(waiter);
            } else {
                self.refuse(waiter, ProposeFailure::Superseded);
            }
        }
        found
    }

    fn send_job(&self, job: Job) {
        // An apply thread that has ended has stopped the node.
        let _ = self.apply.send(job);
    }

    fn on_members(
        &mut self,
        members: Arc<BTreeMap<NodeId, Member>>,
        conf_state: Arc<ConfState>,
    ) -> Result<(), ReplicaError> {
        let was_member = self.members.contains_key(&self.me);
        self.members = members;
        // Ids ascend: whoever is below the newest member and not among them was removed.
        let newest = self.members.keys().next_back().copied().unwrap_or_default();
        self.introduced.retain_above(newest);
        if was_member && !conf_state.contains(self.me) {
            self.stop.stop(StopReason::Removed);
        }
        self.conf_state = conf_state;
        if self.removal.on_membership(&self.conf_state, self.me) {
            tracing::warn!("this node is a member all the same: its log says so");
            self.expelled.send_replace(false);
            self.replica.step(Input::Expelled(false))?;
        }
        self.clocks.on_members(standing!(self));
        self.update_peers();
        self.publish_leadership();
        Ok(())
    }

    fn on_removal_said(&mut self, by: NodeId, as_of: Index) -> Result<(), ReplicaError> {
        let known = Known {
            me: self.me,
            conf_state: &self.conf_state,
            introduced: self.introduced.members().into_keys().collect(),
            applied: self.replica.applied(),
        };
        let Some(voices) = self.removal.on_said(by, as_of, &known) else { return Ok(()) };
        let voices = voices.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        tracing::error!(
            said_by = voices,
            "this node was removed from its cluster, say most of the other voters. It campaigns no \
             more and waits for a person: stop it, and give it an empty data directory and --join \
             to use it again"
        );
        self.expelled.send_replace(true);
        self.replica.step(Input::Expelled(true))
    }

    fn on_peer_seen(&mut self, peer: Member) {
        // Even a member may not know it: one that was down while the peer joined, and led by
        // it now, must answer it to learn of it.
        if !self.members.contains_key(&peer.id) && self.introduced.introduce(peer) {
            self.update_peers();
            self.publish_leadership();
        }
    }

    pub(super) fn update_peers(&self) {
        let mut peers = self.introduced.members();
        peers.extend(self.members.iter().map(|(id, member)| (*id, member.clone())));
        peers.remove(&self.me);
        self.transport.set_peers(peers);
    }

    fn leader_member(&self) -> Option<Member> {
        let id = self.replica.leader()?;
        let known = self.members.get(&id).or_else(|| self.introduced.get(id));
        known.cloned().or(Some(Member { id, address: String::new() }))
    }

    fn publish_leadership(&self) {
        let status = (self.replica.role(), self.replica.term(), self.leader_member());
        let (role, term, leader): (Role, Term, Option<Member>) = status;
        let now = Leadership { role, term, leader };
        self.leadership.send_if_modified(|current| {
            if *current == now {
                return false;
            }
            if current.role != now.role || current.leader != now.leader {
                tracing::info!(
                    role = ?now.role,
                    term = %now.term,
                    leader = now.leader.as_ref().map_or(0, |leader| leader.id.0),
                    "leadership changed"
                );
            }
            let leader = |of: &Leadership| of.leader.as_ref().map(|leader| leader.id);
            if now.leader.is_some() && leader(&now) != leader(current) {
                self.metrics.leader_changes.add(1);
            }
            *current = now;
            true
        });
    }
}
