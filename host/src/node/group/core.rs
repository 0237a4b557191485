//! A group's replica with all that this node knows beside it, as one state: told what happened, step by
//! step, and asked at the end of a turn what is to be done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;
use tokio::sync::watch;

use super::digests::{Digests, View, Wish};
use super::levels::{LevelStatus, Levels};
use super::lingering::Lingering;
use super::members::{Members, MembersChanged};
use super::newcomers::Newcomers;
use super::proposals::{Proposals, Stamp};
use super::reads::Reads;
use super::space::Spaces;
use crate::consensus::{
    ApplyTask, Care, ConfChangeError, Effects, Input, LogRead, ProposeError, Replica, ReplicaError,
    ReplicaStatus, Role, Write,
};
use crate::machine::actor_to_log;
use crate::museum::{self, Exhibit};
use crate::node::answer::{Leadership, ProposeFailure, Shortage};
use crate::node::clock::{Clocks, MonotonicClock, Standing};
use crate::node::config::NodeConfig;
use crate::node::message::{ApplyJob, Event, Job, Submission};
use crate::node::metrics::NodeMetrics;
use crate::node::standing::RaftStanding;
use crate::node::stop::{StopReason, StopSignal};
use crate::node::waiter::Waiter;
use crate::types::{
    Actor, ConfChange, ConfState, GroupId, Index, Level, LogPosition, Member, NodeId, PeerMessage,
    Space, StateDigest, Term,
};

/// An unknown peer that is silent for so many election timeouts is forgotten.
const NEWCOMER_ELECTIONS: u64 = 20;

/// What a turn wants done. The lists keep the order in which it came to want it.
#[derive(Default)]
pub(in crate::node) struct Output {
    /// Whom this group talks to from now on.
    pub(in crate::node) peers: Option<BTreeMap<NodeId, Member>>,
    /// To be sent.
    pub(in crate::node) messages: Vec<PeerMessage>,
    /// Who sent what no correct peer sends, in which words.
    pub(in crate::node) nonsense: Vec<(NodeId, String)>,
    /// To be written, in this order.
    pub(in crate::node) writes: Vec<Write>,
    /// To be read from the log.
    pub(in crate::node) log_reads: Vec<LogRead>,
    /// For the machine.
    pub(in crate::node) jobs: Vec<Job>,
}

/// What a group is made of.
pub(in crate::node) struct GroupParts {
    pub(in crate::node) me: NodeId,
    pub(in crate::node) group: GroupId,
    pub(in crate::node) replica: Replica,
    /// What the program offers.
    pub(in crate::node) level: Level,
    /// Members to reach before the machine knows any.
    pub(in crate::node) introduced: Vec<Member>,
    pub(in crate::node) clocks: Clocks,
    pub(in crate::node) standing: Arc<RaftStanding>,
    pub(in crate::node) leadership: watch::Sender<Leadership>,
    pub(in crate::node) expelled: watch::Sender<bool>,
    pub(in crate::node) stuck: watch::Sender<Option<Duration>>,
    pub(in crate::node) stop: StopSignal,
    /// What durations are measured with.
    pub(in crate::node) clock: MonotonicClock,
    pub(in crate::node) metrics: Arc<NodeMetrics>,
}

/// See the module.
pub(in crate::node) struct Group {
    me: NodeId,
    group: GroupId,
    replica: Replica,
    proposals: Proposals,
    reads: Reads,
    members: Members,
    clocks: Clocks,
    levels: Levels,
    spaces: Spaces,
    digests: Digests,
    /// Callers that wait for the next digest point.
    comparers: Vec<Waiter>,
    /// The machine's state is not trusted.
    is_quarantined: bool,
    lingering: Lingering,
    tick: Duration,
    /// As others see it.
    standing: Arc<RaftStanding>,
    leadership: watch::Sender<Leadership>,
    /// Whether others are believed that say that this node was removed.
    expelled: watch::Sender<bool>,
    /// For how long the disk has not answered, once that is an election timeout.
    stuck: watch::Sender<Option<Duration>>,
    stop: StopSignal,
    clock: MonotonicClock,
    metrics: Arc<NodeMetrics>,
    /// Of the turn under way.
    output: Output,
}

/// What the group looks like now; borrows single fields, so that others may change.
macro_rules! standing {
    ($group:ident) => {
        Standing {
            leads: $group.replica.role() == Role::Leader,
            leader: $group.replica.leader(),
            conf_state: $group.members.conf_state(),
        }
    };
}

macro_rules! stamp {
    ($group:ident) => {
        Stamp { clocks: &$group.clocks, level: $group.levels.level() }
    };
}

impl Group {
    pub(in crate::node) fn new(config: &NodeConfig, parts: GroupParts) -> Group {
        let GroupParts { me, group, replica, level, introduced, clocks, standing, .. } = parts;
        let introduced = introduced.into_iter().filter(|member| member.id != me).collect();
        let patience = config.election_ticks() as u64 * NEWCOMER_ELECTIONS;
        let group = Group {
            me,
            group,
            replica,
            proposals: Proposals::new(config.election_ticks(), Arc::clone(&parts.metrics)),
            reads: Reads::new(),
            members: Members::new(me, Newcomers::new(introduced, patience)),
            clocks,
            levels: Levels::new(me, level, config),
            spaces: Spaces::new(me),
            digests: Digests::new(config),
            comparers: Vec::new(),
            is_quarantined: false,
            lingering: Lingering::new(config.election_ticks()),
            tick: config.tick(),
            standing,
            leadership: parts.leadership,
            expelled: parts.expelled,
            stuck: parts.stuck,
            stop: parts.stop,
            clock: parts.clock,
            metrics: parts.metrics,
            output: Output::default(),
        };
        group.standing.update(me, &group.replica);
        group
    }

    /// Whom this group talks to.
    pub(in crate::node) fn peers(&self) -> BTreeMap<NodeId, Member> {
        self.members.peers()
    }

    /// What is known of levels; changes can be awaited.
    pub(in crate::node) fn watch_levels(&self) -> watch::Receiver<Arc<LevelStatus>> {
        self.levels.watch()
    }

    /// Whether new commands are taken, as far as disks go; changes can be awaited.
    pub(in crate::node) fn watch_shortage(&self) -> watch::Receiver<Option<Shortage>> {
        self.spaces.watch()
    }

    /// The replica's view of its group.
    pub(in crate::node) fn status(&self) -> ReplicaStatus {
        self.replica.status()
    }

    /// What the replica is.
    pub(in crate::node) fn role(&self) -> Role {
        self.replica.role()
    }

    /// The replica's term.
    pub(in crate::node) fn term(&self) -> Term {
        self.replica.term()
    }

    /// Entries that somebody waits for.
    pub(in crate::node) fn waiting(&self) -> usize {
        self.proposals.waiting()
    }

    /// As of the last membership change that was applied.
    pub(in crate::node) fn conf_state(&self) -> &ConfState {
        self.members.conf_state()
    }

    /// Whether somebody has said why this node stops serving the group.
    pub(in crate::node) fn is_stopped(&self) -> bool {
        self.stop.is_given()
    }

    /// Consensus cannot go on.
    pub(in crate::node) fn fail(&self, error: &ReplicaError) {
        match error {
            ReplicaError::Outdated { .. } => {
                self.stop.stop(StopReason::Outdated(error.to_string()));
            }
            _ => self.stop.fail("consensus cannot go on", error),
        }
    }

    pub(in crate::node) fn on_tick(&mut self) -> Result<(), ReplicaError> {
        if let Some(reason) = self.lingering.on_tick() {
            self.stop.stop(reason);
        }
        if self.members.on_tick(self.replica.leader()) {
            self.update_peers();
        }
        self.watch_disk();
        let questions = self.clocks.on_tick(standing!(self));
        self.output.messages.extend(questions);
        if !self.lingering.is_halted() {
            self.digests.on_tick();
            self.pursue_level();
        }
        self.decide_raises();
        self.proposals.on_tick();
        if let Some(id) = self.reads.on_tick() {
            self.replica.step(Input::AbandonRead(id))?;
        }
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

    /// Brings what came in during a turn before the replica, and says what is to be done.
    pub(in crate::node) fn end_turn(&mut self) -> Result<Output, ReplicaError> {
        self.pursue_digests();
        self.propose_batch()?;
        self.ask_read()?;
        let stale = self.reads.take_stale();
        if !stale.is_empty() {
            self.output.jobs.push(Job::Query(Index(0), stale));
        }
        let effects = self.replica.effects()?;
        self.on_effects(effects);
        if self.proposals.is_settling() {
            let settled = self.replica.settled().map(|at| at.min(self.replica.applied()));
            self.proposals.answer_settled(settled);
        }
        self.standing.update(self.me, &self.replica);
        Ok(std::mem::take(&mut self.output))
    }

    pub(in crate::node) fn on_event(&mut self, event: Event) -> Result<(), ReplicaError> {
        match event {
            Event::Submit(submissions) => self.on_submit(submissions),
            Event::ConfChange(change, care, waiter) => self.on_conf_change(change, care, waiter)?,
            Event::Halted(why) => self.lingering.on_halted(why),
            Event::TransferLeader(to) => self.replica.step(Input::TransferLeader(to))?,
            Event::OffDuty(is_off_duty) => self.replica.step(Input::OffDuty(is_off_duty))?,
            Event::Messages(messages, charge) => {
                if let Some(message) = messages.first() {
                    self.members.hear(message.from);
                }
                for message in messages {
                    if message.kind.is_of_raft() || message.group != self.group {
                        self.replica.step(Input::Message(message))?;
                    } else {
                        self.on_own_message(&message)?;
                    }
                }
                drop(charge);
            }
            Event::Query(query) => self.reads.add(query),
            Event::StaleQuery(query) => self.reads.add_stale(query),
            Event::Status(reply) => {
                // A caller that went away does not want the answer any more.
                let _ = reply.send(self.replica.status());
            }
            Event::TakeSnapshot(reply) => self.output.jobs.push(Job::TakeSnapshot(reply)),
            Event::Copy(reply) => self.output.jobs.push(Job::Copy(reply)),
            Event::Shadow(reply) => self.output.jobs.push(Job::Shadow(reply)),
            Event::ShadowOver => self.output.jobs.push(Job::ShadowOver),
            Event::Persisted(number) => self.replica.step(Input::Persisted(number))?,
            Event::LogRead(read, found) => self.replica.step(Input::LogRead(read, found))?,
            Event::CompareDigests(waiter) => self.comparers.push(waiter),
            Event::Applied(index, since_point, cost) => {
                self.proposals.learn(cost);
                self.digests.on_applied(since_point);
                self.replica.step(Input::Applied(index))?;
            }
            Event::DigestTaken(point, digest) => self.digests.on_taken(point, digest),
            Event::Doubted(why) => self.lingering.on_doubted(why),
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
            Event::FlipBit(at) => self.output.jobs.push(Job::FlipBit(at)),
            Event::Level(level, as_of) => self.levels.on_level(level, as_of),
            Event::RaiseLevel(wanted, actor, waiter) => self.raise_level(wanted, actor, waiter),
            Event::Members(members, conf_state) => self.on_members(members, conf_state)?,
            Event::SnapshotSaved(meta) => self.replica.step(Input::SnapshotSaved(meta))?,
            Event::SnapshotSent(to, fate) => self.replica.step(Input::SnapshotSent(to, fate))?,
            Event::SnapshotUnreadable(index) => {
                self.output.jobs.push(Job::SnapshotUnreadable(index));
            }
            Event::SnapshotGone(index, newest) => {
                self.replica.step(Input::SnapshotGone(index, newest))?;
            }
            Event::CompactAll => self.replica.step(Input::CompactAll)?,
            Event::HoldLog(after) => self.replica.step(Input::HoldLog(after))?,
            Event::Unreachable(to) => self.replica.step(Input::Unreachable(to))?,
            Event::PeerSeen(peer) => {
                if self.members.on_peer_seen(peer) {
                    self.update_peers();
                    self.publish_leadership();
                }
            }
            Event::Broken(what) => self.stop.stop(StopReason::Failed(format!(
                "{what} panicked: a broken invariant; the log above says which"
            ))),
            Event::RemovalSaid(by, as_of) => self.on_removal_said(by, as_of)?,
            Event::Space(space, free) => self.on_space(space, free)?,
            Event::Stop => {}
        }
        Ok(())
    }

    fn on_submit(&mut self, submissions: Vec<Submission>) {
        let failure = if self.lingering.is_halted() {
            ProposeFailure::Stopping
        } else if self.lingering.is_in_doubt() {
            ProposeFailure::InDoubt
        } else if self.is_quarantined {
            ProposeFailure::Quarantined
        } else {
            for submission in submissions {
                self.proposals.take_in(submission, stamp!(self));
            }
            return;
        };
        for submission in submissions {
            submission.waiter.answer(Err(failure.clone()));
        }
    }

    fn on_conf_change(
        &mut self,
        change: ConfChange,
        care: Care,
        waiter: Waiter,
    ) -> Result<(), ReplicaError> {
        if self.lingering.is_halted() {
            waiter.answer(Err(ProposeFailure::Stopping));
        } else if self.is_quarantined {
            waiter.answer(Err(ProposeFailure::Quarantined));
        } else if self.levels.is_in_the_way_of(&change, care.decided_at) {
            self.proposals.refuse(waiter, ConfChangeError::InProgress.into());
        } else {
            self.propose_batch()?;
            let id = self.proposals.ask(waiter);
            self.replica.step(Input::ProposeConfChange(id, change, care))?;
        }
        Ok(())
    }

    /// A message of a peer that is none of Raft's.
    fn on_own_message(&mut self, message: &PeerMessage) -> Result<(), ReplicaError> {
        let from = message.from;
        if message.to != self.me {
            tracing::warn!(%from, to = %message.to, "a message for somebody else");
        } else if let Some((point, digest)) = message.as_digest_report() {
            self.on_digest_report(from, point, digest);
        } else if let Some((asked, offset)) = message.as_clock_question() {
            let answer = self.clocks.on_question(from, asked, offset, standing!(self));
            // Who leads asks for clocks, and hears of levels.
            let offered = self.levels.offered();
            let own = self.spaces.own();
            let offer = PeerMessage::level_offer(self.group, self.me, from, offered, own);
            self.output.messages.extend([answer, offer]);
        } else if let Some(level) = message.as_level_offer() {
            if self.replica.role() == Role::Leader && self.conf_state().contains(from) {
                self.levels.on_offer(from, level);
                self.decide_raises();
                self.spaces.hear(from, message.space);
                self.replica.step(Input::PeerSpace(from, message.space))?;
                self.publish_shortage();
            }
        } else if let Some((asked, wall_ms)) = message.as_clock_answer() {
            self.clocks.on_answer(from, asked, wall_ms, standing!(self));
        }
        Ok(())
    }

    /// Somebody has looked how much room this node's disk has left.
    fn on_space(&mut self, space: Space, free: u64) -> Result<(), ReplicaError> {
        self.spaces.set_own(space);
        self.publish_shortage();
        self.output.jobs.push(Job::Space(space, free));
        self.replica.step(Input::Space(space, free))
    }

    fn publish_shortage(&self) {
        let leads = self.replica.role() == Role::Leader;
        self.spaces.publish(leads.then(|| self.members.conf_state()));
    }

    /// A member reports what it has applied, so this node has at least heard of it; if not yet,
    /// the report comes again.
    fn on_digest_report(&mut self, from: NodeId, point: Index, digest: StateDigest) {
        if self.conf_state().contains(from) && point <= self.replica.status().commit {
            self.digests.on_report(from, point, digest);
        }
    }

    /// Does what is due about digest points.
    fn pursue_digests(&mut self) {
        self.comparers.retain(|waiter| !waiter.is_gone());
        if !self.comparers.is_empty()
            && let Some(failure) = self.refuses_points()
        {
            for waiter in std::mem::take(&mut self.comparers) {
                self.proposals.refuse(waiter, failure.clone());
            }
        }
        loop {
            let view = View {
                me: self.me,
                leads: self.replica.role() == Role::Leader,
                leader: self.replica.leader(),
                conf_state: self.members.conf_state(),
                is_quarantined: self.is_quarantined,
                is_asked: !self.comparers.is_empty(),
            };
            let Some(wish) = self.digests.next(&view) else { return };
            match wish {
                Wish::Report(to, point, digest) => {
                    let report = PeerMessage::digest_report(self.group, self.me, to, point, digest);
                    self.output.messages.push(report);
                }
                Wish::Point => {
                    let waiter = Waiter::all(std::mem::take(&mut self.comparers));
                    let body = Body::DigestPoint(stored::DigestPoint {});
                    self.propose_quietly(body, Actor::Nobody, waiter);
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
                    let body = Body::DigestVerdict(verdict);
                    self.propose_quietly(body, Actor::Nobody, Waiter::nobody());
                }
            }
        }
    }

    /// Why no caller gets a digest point of this node, if none does.
    fn refuses_points(&self) -> Option<ProposeFailure> {
        if self.lingering.is_halted() {
            Some(ProposeFailure::Stopping)
        } else if self.is_quarantined {
            Some(ProposeFailure::Quarantined)
        } else if self.lingering.is_in_doubt() {
            Some(ProposeFailure::InDoubt)
        } else if self.replica.role() != Role::Leader {
            Some(ProposeFailure::NotLeader(self.leader_member()))
        } else {
            None
        }
    }

    /// It says nothing of the time, so the log's clock stays where it is.
    fn propose_quietly(&mut self, body: Body, actor: Actor, waiter: Waiter) {
        let actor = actor_to_log(actor);
        let entry = stored::Entry { time_ms: 0, actor, body: Some(body) };
        let data = entry.encode_to_vec().into();
        self.proposals.add(data, waiter, stamp!(self));
    }

    /// Raises the level when it is time.
    fn pursue_level(&mut self) {
        let may = self.refuses_points().is_none();
        let members = || self.replica.settled_members().filter(|_| may);
        if let Some(level) = self.levels.on_tick(members) {
            tracing::info!(%level, "every member offers a higher level: the cluster's is raised");
            let waiter = self.levels.begin();
            self.propose_level(level, Actor::Nobody, waiter);
        }
    }

    /// An operator wants the level raised.
    fn raise_level(&mut self, wanted: Option<Level>, actor: Actor, waiter: Waiter) {
        self.levels.ask(wanted, actor, waiter);
        self.decide_raises();
        if self.levels.has_asked() {
            // Its answer comes with what the member offers.
            self.clocks.ask_soon();
        }
    }

    /// Does what operators have asked for, or refuses it, as soon as enough is known.
    fn decide_raises(&mut self) {
        for asked in self.levels.take_asked() {
            let decided = match self.refuses_points() {
                Some(failure) => Some(Err(failure)),
                None => self.levels.decide(&asked, self.replica.settled_members()),
            };
            match decided {
                None => self.levels.give_back(asked),
                Some(Ok(level)) => {
                    let waiter = Waiter::all(vec![self.levels.begin(), asked.waiter]);
                    self.propose_level(level, asked.actor, waiter);
                }
                Some(Err(failure)) => self.proposals.refuse(asked.waiter, failure),
            }
        }
    }

    fn propose_level(&mut self, level: Level, actor: Actor, waiter: Waiter) {
        let body = Body::SetLevel(stored::SetLevel { level: level.0 });
        self.propose_quietly(body, actor, waiter);
    }

    fn propose_batch(&mut self) -> Result<(), ReplicaError> {
        let batch = self.proposals.take_batch(stamp!(self));
        match batch.is_empty() {
            true => Ok(()),
            false => self.replica.step(Input::Propose(batch)),
        }
    }

    fn ask_read(&mut self) -> Result<(), ReplicaError> {
        self.reads.next().map_or(Ok(()), |id| self.replica.step(Input::Read(id)))
    }

    fn on_effects(&mut self, effects: Effects) {
        for (from, why) in effects.nonsense {
            tracing::warn!(peer = %from, %why, "a peer sent a message that makes no sense");
            self.metrics.nonsense.add(1);
            self.output.nonsense.push((from, why.to_string()));
        }
        let Output { messages, writes, log_reads, .. } = &mut self.output;
        append(messages, effects.messages);
        append(writes, effects.writes);
        append(log_reads, effects.log_reads);
        if let Some(first) = effects.truncated_from {
            // Before those that were appended in the same turn wait for the same indexes.
            self.proposals.on_replaced(first);
        }
        for (id, reply) in effects.proposals {
            let waiter = self.proposals.on_reply(id);
            match reply {
                Ok(position) => self.proposals.on_appended(position, waiter),
                Err(error) => self.proposals.refuse(waiter, self.failure(error)),
            }
        }
        for task in effects.apply {
            let job = self.apply_job(task);
            self.output.jobs.push(job);
        }
        for read in effects.reads {
            if let Some(queries) = self.reads.on_ready(&read) {
                self.output.jobs.push(Job::Query(read.index, queries));
            }
        }
        if effects.snapshot_wanted {
            self.output.jobs.push(Job::SnapshotWanted);
        }
        if effects.leadership_changed {
            self.digests.on_leadership();
            self.clocks.on_leadership(standing!(self));
            self.levels.on_leadership();
            self.decide_raises();
            self.spaces.on_leadership();
            self.publish_shortage();
            self.publish_leadership();
        }
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
        let entries = match task {
            ApplyTask::Entries(entries) => entries,
            ApplyTask::Install(meta) => {
                self.proposals.on_install(meta.index);
                return Job::Install(meta);
            }
        };
        // Looked at once, and only if somebody waits.
        let mut now = None;
        let jobs = entries.into_iter().map(|committed| {
            let (index, term) = (committed.entry.index, committed.entry.term);
            let position = LogPosition { index, term };
            let mut waiter = self.proposals.on_committed(position);
            if let Some(waiter) = waiter.as_mut().filter(|waiter| waiter.is_measured()) {
                let now = *now.get_or_insert_with(|| (self.clock)());
                if let Some(took) = waiter.gets_on(now) {
                    self.metrics.commit_duration.observe(took);
                }
            }
            if committed.membership.is_some() && !museum::is_on(Exhibit::UnsettledAsDone) {
                self.proposals.settle_later(position, waiter.take());
            }
            ApplyJob { committed, waiter }
        });
        Job::Apply(jobs.collect())
    }

    fn on_members(
        &mut self,
        members: Arc<BTreeMap<NodeId, Member>>,
        conf_state: Arc<ConfState>,
    ) -> Result<(), ReplicaError> {
        let MembersChanged { is_removed, is_member_all_the_same } =
            self.members.on_members(members, conf_state);
        if is_removed {
            self.stop.stop(StopReason::Removed);
        }
        if is_member_all_the_same {
            tracing::warn!("this node is a member all the same: its log says so");
            self.expelled.send_replace(false);
            self.replica.step(Input::Expelled(false))?;
        }
        self.clocks.on_members(standing!(self));
        self.publish_shortage();
        self.update_peers();
        self.publish_leadership();
        Ok(())
    }

    fn on_removal_said(&mut self, by: NodeId, as_of: Index) -> Result<(), ReplicaError> {
        let applied = self.replica.applied();
        let Some(voices) = self.members.on_removal_said(by, as_of, applied) else { return Ok(()) };
        tracing::error!(
            said_by = voices,
            "this node was removed from its cluster, say most of the other voters. It campaigns no \
             more and waits for a person: stop it, and give it an empty data directory and --join \
             to use it again"
        );
        self.expelled.send_replace(true);
        self.replica.step(Input::Expelled(true))
    }

    fn update_peers(&mut self) {
        self.output.peers = Some(self.members.peers());
    }

    fn leader_member(&self) -> Option<Member> {
        self.replica.leader().map(|id| self.members.find(id))
    }

    fn publish_leadership(&self) {
        let (role, term, leader) = (self.replica.role(), self.replica.term(), self.leader_member());
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

/// Most often there is nothing yet: then nothing is copied.
fn append<T>(to: &mut Vec<T>, more: Vec<T>) {
    match to.is_empty() {
        true => *to = more,
        false => to.extend(more),
    }
}
