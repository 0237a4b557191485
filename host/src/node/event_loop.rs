//! The thread that owns the replica: collects what happened, steps, executes the effects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::apply::{ApplyJob, Job};
use super::budget::Charge;
use super::handle::{Committed, Leadership, ProposeFailure, QueryJob, Submission, Waiter};
use super::stop::{StopReason, StopSignal};
use crate::consensus::{
    ApplyTask, Effects, Input, Proposal, ProposalId, ProposeError, ReadId, Replica, ReplicaError,
    ReplicaStatus, Role, Write,
};
use crate::machine::Reply;
use crate::museum::{self, Exhibit};
use crate::storage::SnapshotMeta;
use crate::transport::Transport;
use crate::types::{ConfChange, ConfState, Index, LogPosition, Member, NodeId, PeerMessage, Term};

/// What wakes the loop.
pub(super) enum Event {
    Submit(Vec<Submission>),
    ConfChange(ConfChange, Waiter),
    TransferLeader(Option<NodeId>),
    Messages(Vec<PeerMessage>, Charge),
    Query(QueryJob),
    StaleQuery(QueryJob),
    Status(oneshot::Sender<ReplicaStatus>),
    TakeSnapshot(oneshot::Sender<Result<SnapshotMeta, String>>),
    Persisted(u64),
    Applied(Index),
    /// The machine's members changed, as of an applied entry or a snapshot.
    Members(Arc<BTreeMap<NodeId, Member>>, Arc<ConfState>),
    SnapshotSaved(SnapshotMeta),
    SnapshotSent(NodeId, bool),
    Unreachable(NodeId),
    PeerSeen(Member),
    /// A member has applied this node's removal.
    Removed,
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
    pub(super) replica: Replica,
    pub(super) events: Receiver<Event>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) writer: Sender<Write>,
    pub(super) apply: Sender<Job>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) stop: StopSignal,
    pub(super) tick: Duration,
    /// Known from joining, or introduced themselves; the machine may not know them yet.
    pub(super) introduced: BTreeMap<NodeId, Member>,
    pub(super) members: Arc<BTreeMap<NodeId, Member>>,
    pub(super) proposals: VecDeque<(ProposalId, Waiter)>,
    pub(super) next_proposal: u64,
    /// Appended here as leader, waiting to be applied. Ascending by index.
    pub(super) waiters: VecDeque<(LogPosition, Waiter)>,
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
    /// Why to stop, and after how many more ticks.
    pub(super) halting: Option<(String, u64)>,
    /// How many of those there are at first.
    pub(super) linger_ticks: u64,
}

impl EventLoop {
    pub(super) fn run(mut self) {
        self.update_peers();
        if let Err(error) = self.turns() {
            self.fail(&error);
        }
        self.send_job(Job::End);
        // Dropping the queue ends the log writer; dropping the waiters answers them.
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
        self.stop.fail("consensus cannot go on", error);
    }

    pub(super) fn on_tick(&mut self) -> Result<(), ReplicaError> {
        // The others must be able to learn that what stops this node is committed, so that they
        // come to the same end without it.
        if let Some((why, ticks)) = &mut self.halting {
            match ticks.checked_sub(1) {
                Some(left) => *ticks = left,
                None => self.stop.stop(StopReason::Engine(std::mem::take(why))),
            }
        }
        self.replica.step(Input::Tick)
    }

    /// Brings what came in during a turn before the replica, and does what it wants done.
    pub(super) fn end_turn(&mut self) -> Result<(), ReplicaError> {
        self.propose_batch()?;
        self.ask_read()?;
        if !self.stale_queries.is_empty() {
            let queries = std::mem::take(&mut self.stale_queries);
            self.send_job(Job::Query(Index(0), queries));
        }
        let effects = self.replica.effects()?;
        self.execute(effects);
        self.answer_settled();
        Ok(())
    }

    pub(super) fn on_event(&mut self, event: Event) -> Result<(), ReplicaError> {
        match event {
            Event::Submit(submissions) if self.halting.is_some() => {
                for submission in submissions {
                    submission.waiter.answer(Err(ProposeFailure::Stopping));
                }
            }
            Event::Submit(submissions) => {
                for submission in submissions {
                    let id = self.new_proposal(submission.waiter);
                    self.batch.push(Proposal { id, data: submission.data });
                }
            }
            Event::ConfChange(_, waiter) if self.halting.is_some() => {
                waiter.answer(Err(ProposeFailure::Stopping));
            }
            Event::Halted(why) => self.halting = Some((why, self.linger_ticks)),
            Event::ConfChange(change, waiter) => {
                self.propose_batch()?;
                let id = self.new_proposal(waiter);
                self.replica.step(Input::ProposeConfChange(id, change))?;
            }
            Event::TransferLeader(to) => self.replica.step(Input::TransferLeader(to))?,
            Event::Messages(messages, charge) => {
                for message in messages {
                    self.replica.step(Input::Message(message))?;
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
            Event::Applied(index) => self.replica.step(Input::Applied(index))?,
            Event::Members(members, conf_state) => self.on_members(members, &conf_state),
            Event::SnapshotSaved(meta) => self.replica.step(Input::SnapshotSaved(meta))?,
            Event::SnapshotSent(to, delivered) => {
                self.replica.step(Input::SnapshotSent(to, delivered))?;
            }
            Event::Unreachable(to) => self.replica.step(Input::Unreachable(to))?,
            Event::PeerSeen(peer) => self.on_peer_seen(peer),
            Event::Removed => self.stop.stop(StopReason::Removed),
            Event::Stop => {}
        }
        Ok(())
    }

    fn new_proposal(&mut self, waiter: Waiter) -> ProposalId {
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        self.proposals.push_back((id, waiter));
        id
    }

    fn propose_batch(&mut self) -> Result<(), ReplicaError> {
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
        if !effects.messages.is_empty() {
            self.transport.send(effects.messages);
        }
        for write in effects.writes {
            // A writer that has ended has stopped the node.
            let _ = self.writer.send(write);
        }
        for (id, reply) in effects.proposals {
            let (expected, waiter) =
                self.proposals.pop_front().expect("every answered proposal has a waiter");
            assert_eq!(id, expected, "proposals are answered in the order they were made");
            match reply {
                Ok(position) => self.wait_for(position, waiter),
                Err(error) => waiter.answer(Err(self.failure(error))),
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
            self.publish_leadership();
        }
    }

    fn wait_for(&mut self, position: LogPosition, waiter: Waiter) {
        // Indices ascend but after an election, when the log may have been cut.
        let at = self.waiters.partition_point(|(waiting, _)| waiting.index <= position.index);
        self.waiters.insert(at, (position, waiter));
    }

    fn failure(&self, error: ProposeError) -> ProposeFailure {
        match error {
            ProposeError::NotLeader(_) | ProposeError::Transferring => {
                ProposeFailure::NotLeader(self.leader_member())
            }
            ProposeError::Busy => ProposeFailure::Busy,
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
                while self.waiters.front().is_some_and(|(at, _)| at.index <= meta.index) {
                    let (_, waiter) = self.waiters.pop_front().expect("just seen");
                    waiter.answer(Err(ProposeFailure::Unknown(
                        "this node was replaced by a snapshot of the leader".into(),
                    )));
                }
                Job::Install(meta)
            }
        }
    }

    /// Whoever hears that a member is gone may throw its disk away, so that must not be
    /// forgotten by a loss of power, and must be seen by whoever looks.
    fn answer_settled(&mut self) {
        if self.settling.is_empty() {
            return;
        }
        let Some(settled) = self.replica.settled() else {
            for (_, waiter) in self.settling.drain(..) {
                waiter.answer(Err(ProposeFailure::Unknown(
                    "this node does not lead any more, and cannot tell whether the change of the \
                     members will last"
                        .into(),
                )));
            }
            return;
        };
        let done = settled.min(self.replica.applied());
        while self.settling.front().is_some_and(|(at, _)| at.index <= done) {
            let (LogPosition { index, term }, waiter) =
                self.settling.pop_front().expect("just seen");
            waiter.answer(Ok(Committed {
                index,
                term,
                reply: Reply::Nothing,
                fuel_used: 0,
                trap_message: None,
            }));
        }
    }

    /// Whoever waits for this index in another term waits for an entry that was never
    /// committed and never will be.
    fn take_waiter(&mut self, position: LogPosition) -> Option<Waiter> {
        let mut found = None;
        while self.waiters.front().is_some_and(|(at, _)| at.index <= position.index) {
            let (at, waiter) = self.waiters.pop_front().expect("just seen");
            let ignores_term = museum::is_on(Exhibit::SupersededAsDone);
            if at == position || (ignores_term && at.index == position.index) {
                found = Some(waiter);
            } else {
                waiter.answer(Err(ProposeFailure::Superseded));
            }
        }
        found
    }

    fn send_job(&self, job: Job) {
        // An apply thread that has ended has stopped the node.
        let _ = self.apply.send(job);
    }

    fn on_members(&mut self, members: Arc<BTreeMap<NodeId, Member>>, conf_state: &ConfState) {
        let was_member = self.members.contains_key(&self.me);
        self.members = members;
        // Ids ascend: whoever is below the newest member and not among them was removed.
        let newest = self.members.keys().next_back().copied().unwrap_or_default();
        self.introduced.retain(|id, _| *id > newest);
        if was_member && !conf_state.contains(self.me) {
            self.stop.stop(StopReason::Removed);
        }
        self.update_peers();
        self.publish_leadership();
    }

    fn on_peer_seen(&mut self, peer: Member) {
        // Even a member may not know it: one that was down while the peer joined, and led by
        // it now, must answer it to learn of it.
        if !self.members.contains_key(&peer.id) && self.introduced.get(&peer.id) != Some(&peer) {
            self.introduced.insert(peer.id, peer);
            self.update_peers();
            self.publish_leadership();
        }
    }

    pub(super) fn update_peers(&self) {
        let mut peers = self.introduced.clone();
        peers.extend(self.members.iter().map(|(id, member)| (*id, member.clone())));
        peers.remove(&self.me);
        self.transport.set_peers(peers);
    }

    fn leader_member(&self) -> Option<Member> {
        let id = self.replica.leader()?;
        let known = self.members.get(&id).or_else(|| self.introduced.get(&id));
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
            *current = now;
            true
        });
    }
}
