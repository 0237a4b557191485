//! One replica of one group: raft-rs driven by inputs, drained into effects.

mod admit;
mod assurance;
mod campaign;
mod changes;
mod compaction;
mod contact;
mod duty;
mod error;
mod fetching;
mod outdated;
mod reads;
mod ready;
mod reseed;
mod sending;
mod snapshots;
mod space;
mod stuck;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use raft::{RawNode, StateRole, eraftpb};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use self::admit::Admission;
pub use self::admit::Nonsense;
use self::assurance::Parked;
use self::changes::Contacts;
use self::compaction::LogSize;
use self::contact::Contact;
pub use self::error::ReplicaError;
use self::fetching::Fetches;
use self::outdated::Suspicion;
use self::reseed::Reseed;
use self::sending::{Flow, outdo};
use super::effects::{Effects, Input, Proposal, ProposeError, ReadId, ReadReady, WriteNumber};
use super::membership;
use super::offers::Offers;
use super::status::{PeerProgress, ProgressState, ReplicaStatus, Role};
use super::store::ReplicaStore;
use super::{ReplicaConfig, convert, logger};
use crate::museum::{self, Exhibit};
use crate::storage::{GroupWrite, LogStore, SnapshotMeta};
use crate::types::{Exceeded, Index, LogPosition, MessageKind, NodeId, PeerMessage, Space, Term};

/// What was handed out to be persisted or waits for that.
struct PendingWrite {
    /// Of the write; handed back as [`Input::Persisted`].
    number: WriteNumber,
    /// Tick at which it was handed out.
    since: u64,
    /// The newest raft-rs `Ready` that is durable once the write is.
    ready: u64,
    /// The term and the commit index that the write makes durable.
    hard_state: Option<(Term, Index)>,
    /// Where the log ends after the write, unless it carries no entries.
    last: Option<LogPosition>,
    /// May leave only when the write is durable.
    messages: Vec<PeerMessage>,
}

/// See the room's documentation.
pub struct Replica {
    config: ReplicaConfig,
    raw: RawNode<ReplicaStore>,
    rng: ChaCha8Rng,
    /// (term, role, leader) when the election timeout was drawn last.
    timeout_drawn_for: (u64, StateRole, u64),
    next_write: u64,
    /// Of the hard state on the disk.
    durable_term: Term,
    /// Of the hard state on the disk. Advances with writes, so it is often behind.
    durable_commit: Index,
    /// Of the newest write handed out. Durable ≤ written.
    written_commit: Index,
    pending_writes: VecDeque<PendingWrite>,
    /// A compaction to go out with the next write.
    compact_to: Option<LogPosition>,
    /// Committed entries emitted and not yet applied: (index, bytes).
    unapplied: VecDeque<(Index, u64)>,
    unapplied_bytes: u64,
    /// Highest index that the machine has applied.
    applied: Index,
    /// Reads without an answer, and the tick at which they were asked last.
    reads: BTreeMap<ReadId, u64>,
    tick: u64,
    /// Tick at which a write was last heard to have ended.
    last_persisted: u64,
    /// Heartbeats that know more of this log than there is.
    suspicion: Option<Suspicion>,
    /// Of the log; for compaction.
    log_size: LogSize,
    /// When each peer said something last, in ticks.
    heard: BTreeMap<NodeId, u64>,
    /// On the leader: what is on its way to each peer.
    flows: BTreeMap<NodeId, Flow>,
    /// What is being read from the log store, and what of that has come.
    fetches: Fetches,
    /// The last entry that was handed out to be applied.
    emitted: Index,
    /// What raft-rs handed out last, of what it hands out when it changes.
    seen: (raft::SoftState, eraftpb::HardState),
    last_soft_state: (u64, StateRole, u64),
    /// Present while the machine's state is not trusted.
    reseed: Option<Reseed>,
    /// Leadership is not handed to these.
    distrusted: BTreeSet<NodeId>,
    /// What this replica's disk has left.
    space: Space,
    /// Bytes of entries that it takes while that is critical.
    allowance: u64,
    /// What the disks of those have left that have said so to this leader.
    peer_spaces: BTreeMap<NodeId, Space>,
    /// Not before this tick is leadership handed over again for want of space.
    next_hand_over: u64,
    /// The others say that this replica is no member any more.
    is_expelled: bool,
    contact: Contact,
    /// Who said something in the current term, and at which tick last.
    contacts: Contacts,
    /// Index of the newest membership change that counts here, or that a snapshot holds.
    members_changed_at: Index,
    /// On a leader: at least the index of the newest [fence](Proposal::is_fence) in its log.
    fence: Index,
    /// A change of the voters that waits for them to show that they are there.
    parked: Option<Parked>,
    /// An operator wants others to lead.
    is_off_duty: bool,
    effects: Effects,
}

impl Replica {
    /// Starts a replica on a log that [`super::reconcile`] has passed. `snapshot`: the newest
    /// in the snapshot store, which the caller's machine has been restored from.
    ///
    /// # Errors
    /// When the log cannot be read or the configuration is invalid.
    pub fn new(
        config: ReplicaConfig,
        log: Arc<dyn LogStore>,
        snapshot: Option<SnapshotMeta>,
    ) -> Result<Replica, ReplicaError> {
        let applied = snapshot.as_ref().map_or(0, |snapshot| snapshot.index.0);
        let limits = &config.limits;
        let store = ReplicaStore::open(
            log,
            config.group,
            snapshot,
            limits.entry_cache_bytes,
            Offers::new(config.heartbeat_ticks, config.election_ticks),
        )?;
        let raft_config = raft::Config {
            id: config.node.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: limits.max_append_bytes,
            max_inflight_msgs: limits.max_inflight_messages,
            check_quorum: true,
            pre_vote: true,
            read_only_option: raft::ReadOnlyOption::Safe,
            // Joined where there is a bound on it: see `sending`.
            batch_append: false,
            // Told otherwise: see `tell_commit`.
            skip_bcast_commit: true,
            max_uncommitted_size: limits.max_uncommitted_bytes,
            max_committed_size_per_ready: limits.max_append_bytes,
            ..Default::default()
        };
        let raw = RawNode::new(&raft_config, store, &logger::logger(config.node, config.group))?;
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut replica = Replica {
            rng,
            timeout_drawn_for: (u64::MAX, StateRole::Follower, 0),
            next_write: 1,
            durable_term: Term(raw.raft.term),
            durable_commit: Index(raw.raft.raft_log.committed),
            written_commit: Index(raw.raft.raft_log.committed),
            pending_writes: VecDeque::new(),
            compact_to: None,
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
            applied: Index(applied),
            reads: BTreeMap::new(),
            tick: 0,
            last_persisted: 0,
            suspicion: None,
            log_size: LogSize::new(Index(raw.raft.raft_log.last_index())),
            heard: BTreeMap::new(),
            flows: BTreeMap::new(),
            fetches: Fetches::default(),
            emitted: Index(applied),
            seen: (raw.raft.soft_state(), raw.raft.hard_state()),
            last_soft_state: (0, StateRole::Follower, 0),
            reseed: None,
            distrusted: BTreeSet::new(),
            space: Space::Ample,
            allowance: 0,
            peer_spaces: BTreeMap::new(),
            next_hand_over: 0,
            is_expelled: false,
            contact: Contact::default(),
            contacts: Contacts::default(),
            members_changed_at: Index(applied),
            fence: Index(applied),
            parked: None,
            is_off_duty: false,
            effects: Effects::default(),
            config,
            raw,
        };
        replica.redraw_election_timeout();
        replica.check_log()?;
        Ok(replica)
    }

    /// Takes one input in. Call [`Replica::effects`] after one or many.
    ///
    /// # Errors
    /// When the replica cannot go on.
    pub fn step(&mut self, input: Input) -> Result<(), ReplicaError> {
        match input {
            Input::Tick => self.on_tick()?,
            Input::Message(message) => self.on_message(message)?,
            Input::Propose(proposals) => self.propose(proposals)?,
            Input::ProposeConfChange(id, change, care) => {
                let reply = self.ask_conf_change(id, change, care)?;
                self.effects.proposals.extend(reply.map(|reply| (id, reply)));
            }
            Input::Read(id)
                if museum::is_on(Exhibit::UnconfirmedRead) && self.role() == Role::Leader =>
            {
                self.effects.reads.push(ReadReady { id, index: self.status().commit });
            }
            Input::Read(id) => {
                self.reads.insert(id, self.tick);
                self.ask_read(id);
            }
            Input::AbandonRead(id) => {
                self.reads.remove(&id);
            }
            Input::LogRead(read, result) => self.on_log_read(&read, result)?,
            Input::Persisted(number) => self.on_persisted(number),
            Input::Applied(index) => self.on_applied(index),
            Input::SnapshotSaved(meta) => self.on_snapshot_saved(meta)?,
            Input::SnapshotSent(to, fate) => self.on_snapshot_sent(to, fate),
            Input::SnapshotGone(index, newest) => {
                self.raw.mut_store().snapshot_gone(index, newest);
            }
            Input::CompactAll => self.compact_all()?,
            Input::HoldLog(after) => self.log_size.hold(after),
            Input::Unreachable(node) => self.raw.report_unreachable(node.0),
            Input::TransferLeader(to) => self.transfer_leader(to),
            Input::Campaign if self.may_not_campaign() => {}
            Input::Campaign => self.raw.campaign()?,
            Input::Quarantined => self.begin_reseed(),
            Input::Trusted => self.end_reseed(),
            Input::Distrusted(nodes) => self.distrusted = nodes,
            Input::Space(space, free) => self.on_space(space, free)?,
            Input::PeerSpace(node, space) => self.on_peer_space(node, space),
            Input::Expelled(is_expelled) => self.is_expelled = is_expelled,
            Input::OffDuty(is_off_duty) => self.is_off_duty = is_off_duty,
        }
        self.redraw_election_timeout();
        self.check_log()
    }

    /// Whether all that raft-rs read was there. What it did since must not leave otherwise.
    fn check_log(&self) -> Result<(), ReplicaError> {
        self.raw.store().take_failure().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Drains what the inputs since the last call brought about.
    ///
    /// # Errors
    /// When the replica cannot go on.
    pub fn effects(&mut self) -> Result<Effects, ReplicaError> {
        self.note_leadership();
        self.take_ready()?;
        if let Some(compact_to) = self.compact_to.take() {
            let write = GroupWrite { compact_to: Some(compact_to), ..Default::default() };
            self.push_write(write, None, Vec::new());
        }
        self.note_leadership();
        self.check_log()?;
        self.effects.snapshot_wanted = self.raw.store().take_snapshot_wanted();
        Ok(std::mem::take(&mut self.effects))
    }

    /// The current view of the group.
    pub fn status(&self) -> ReplicaStatus {
        let raft = &self.raw.raft;
        let store = self.raw.store();
        let leading = raft.state == StateRole::Leader;
        let mut peers: Vec<PeerProgress> = raft
            .prs()
            .iter()
            .filter(|_| leading)
            .map(|(id, progress)| PeerProgress {
                node: NodeId(*id),
                matched: Index(progress.matched),
                state: match progress.state {
                    raft::ProgressState::Probe => ProgressState::Probe,
                    raft::ProgressState::Replicate => ProgressState::Replicate,
                    raft::ProgressState::Snapshot => ProgressState::Snapshot,
                },
                silent_ticks: self.silent_ticks(NodeId(*id)),
                recently_active: self.is_heard(NodeId(*id)),
                known_ticks: self.known_ticks(NodeId(*id)),
                stable_ticks: self.stable_ticks(NodeId(*id)),
            })
            .collect();
        peers.sort_by_key(|peer| peer.node);
        ReplicaStatus {
            role: self.role(),
            term: Term(raft.term),
            leader: self.leader(),
            first_index: store.start().index.next(),
            last_index: Index(raft.raft_log.last_index()),
            commit: Index(raft.raft_log.committed),
            snapshot: store.latest_snapshot().map_or(Index(0), |snapshot| snapshot.index),
            uncommitted_bytes: raft.uncommitted_size() as u64,
            unapplied_bytes: self.unapplied_bytes,
            conf_state: membership::current(&self.raw),
            peers,
            is_new_leader: leading && self.is_just_elected(),
            transferring: raft.lead_transferee.is_some(),
        }
    }

    /// Up to where a majority of the voters durably knows what is committed; only a leader can
    /// tell. Behind the commit index unless memberships change: other commits are not written.
    ///
    /// With the configuration counted from the moment a change is applied, a change is not
    /// settled by being committed. Voters that forget so need a majority of the configuration
    /// before, of which some may be gone for good because somebody was told that it is done.
    /// A majority of the new one that remembers it spreads it by its votes.
    pub fn settled(&self) -> Option<Index> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let known = |id: u64| match id == self.config.node.0 {
            true => self.durable_commit,
            false => raft.prs().get(id).map_or(Index(0), |peer| Index(peer.committed_index)),
        };
        let conf_state = raft.prs().conf().to_conf_state();
        [conf_state.voters, conf_state.voters_outgoing]
            .into_iter()
            .filter_map(|voters| {
                let mut known: Vec<Index> = voters.into_iter().map(known).collect();
                known.sort_unstable();
                known.get(known.len().saturating_sub(1) / 2).copied()
            })
            .min()
    }

    /// Up to where the machine has applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Up to where it knows entries to be committed.
    pub fn commit(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// This replica's term.
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Who leads, if known and heard from lately.
    pub fn leader(&self) -> Option<NodeId> {
        convert::node(self.raw.raft.leader_id).filter(|_| !self.is_out_of_touch())
    }

    fn soft_state(&self) -> (u64, StateRole, u64) {
        let raft = &self.raw.raft;
        (raft.term, raft.state, raft.leader_id)
    }

    /// Reads asked of one leader are asked again of the next. The questions go out with the
    /// next `ready`.
    fn note_leadership(&mut self) {
        let soft_state = self.soft_state();
        if soft_state != self.last_soft_state {
            self.last_soft_state = soft_state;
            // What its predecessors appended may be anything.
            self.fence = Index(self.raw.raft.raft_log.last_index());
            self.raw.mut_store().offers().clear();
            self.peer_spaces.clear();
            self.effects.leadership_changed = true;
            self.ask_all_reads();
        }
    }

    fn on_tick(&mut self) -> Result<(), ReplicaError> {
        self.tick += 1;
        self.raw.mut_store().offers().tick();
        self.keep_contacts();
        self.keep_stable();
        if !self.may_not_campaign() {
            self.pass_time();
        }
        self.leave_leading();
        self.leave_leading_for_space();
        self.look_for_leader();
        self.pursue_reseed();
        self.leave_joint()?;
        self.pursue_parked()?;
        self.tell_commit();
        self.compact_what_was_held()?;
        if museum::is_on(Exhibit::ReadAskedOnce) {
            return Ok(());
        }
        self.ask_stale_reads();
        Ok(())
    }

    /// raft-rs leaves a joint configuration by itself only when the leader that entered it
    /// still leads; a later leader has to be told.
    fn leave_joint(&mut self) -> Result<(), ReplicaError> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader
            || raft.prs().conf().to_conf_state().voters_outgoing.is_empty()
            || raft.has_pending_conf()
            || self.refuse_proposals().is_some()
        {
            return Ok(());
        }
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        // Dropped for its size: the next tick tries again.
        self.step_propose(vec![entry])?;
        Ok(())
    }

    fn on_message(&mut self, mut message: PeerMessage) -> Result<(), ReplicaError> {
        if message.to != self.config.node || message.group != self.config.group {
            tracing::warn!(from = %message.from, to = %message.to, "a message for somebody else");
            return Ok(());
        }
        match self.admit(&message) {
            Ok(Admission::Step) => self.trust_disk(&message),
            Ok(Admission::Drop) => return Ok(()),
            Err(Nonsense::CommitBeyondLog { commit, last }) => {
                return self.suspect_disk(&message, commit, last);
            }
            Err(why) => {
                self.effects.nonsense.push((message.from, why));
                return Ok(());
            }
        }
        if museum::is_on(Exhibit::UncheckedPreviousTerm)
            && message.kind == MessageKind::AppendEntries
        {
            message.log_term = self.raw.store().term_at(message.index).unwrap_or(message.log_term);
        }
        if self.may_not_vote(&message) {
            return Ok(());
        }
        let is_too_early = self.may_not_campaign()
            || self.is_held_back()
            || self.is_stuck()
            || self.is_out_of_space();
        if message.kind == MessageKind::TimeoutNow && is_too_early {
            return Ok(());
        }
        self.note_heard(&message);
        if self.raw.raft.prs().get(message.from.0).is_some() {
            self.heard.insert(message.from, self.tick);
        }
        if message.kind == MessageKind::HeartbeatResponse {
            self.on_heartbeat_response(message.from);
        }
        self.freeze_log(&mut message);
        self.fit_space(&mut message);
        if !convert::entries_follow_index(&message) {
            tracing::warn!(from = %message.from, index = %message.index, "a broken append");
            return Ok(());
        }
        let from = message.from;
        let stepped = self.raw.step(convert::to_raft_message(message));
        self.heard_from(from);
        match stepped {
            // From a node that has been removed, or has not been added yet here.
            Err(raft::Error::StepPeerNotFound) => Ok(()),
            // A proposal or transfer that raft-rs dropped; the sender tries again.
            Err(raft::Error::ProposalDropped | raft::Error::RequestSnapshotDropped) => Ok(()),
            other => Ok(other?),
        }
    }

    fn propose(&mut self, proposals: Vec<Proposal>) -> Result<(), ReplicaError> {
        if proposals.is_empty() {
            return Ok(());
        }
        let refused = self.refuse_proposals();
        let refused = match refused {
            Some(error) => Some(error),
            None => {
                let first = self.raw.raft.raft_log.last_index() + 1;
                let entries = proposals
                    .iter()
                    .map(|proposal| eraftpb::Entry {
                        data: proposal.data.clone(),
                        ..Default::default()
                    })
                    .collect::<Vec<_>>();
                if self.step_propose(entries)? {
                    let term = Term(self.raw.raft.term);
                    self.effects.proposals.extend(proposals.iter().enumerate().map(
                        |(at, proposal)| {
                            let index = Index(first + at as u64);
                            if proposal.is_fence {
                                self.fence = index;
                            }
                            (proposal.id, Ok(LogPosition { index, term }))
                        },
                    ));
                    None
                } else {
                    Some(ProposeError::Busy(self.too_much_uncommitted()))
                }
            }
        };
        if let Some(error) = refused {
            let replies = proposals.into_iter().map(|proposal| (proposal.id, Err(error.clone())));
            self.effects.proposals.extend(replies);
        }
        Ok(())
    }

    fn refuse_proposals(&self) -> Option<ProposeError> {
        if self.raw.raft.state != StateRole::Leader {
            return Some(ProposeError::NotLeader(self.leader()));
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Some(ProposeError::Transferring);
        }
        if self.unapplied_bytes >= self.config.limits.max_unapplied_bytes {
            let limit = "consensus.max_unapplied_bytes";
            let (value, max) = (self.unapplied_bytes, self.config.limits.max_unapplied_bytes);
            return Some(ProposeError::Busy(Exceeded { limit, value, max }));
        }
        None
    }

    fn too_much_uncommitted(&self) -> Exceeded {
        Exceeded {
            limit: "consensus.max_uncommitted_bytes",
            value: self.raw.raft.uncommitted_size() as u64,
            max: self.config.limits.max_uncommitted_bytes,
        }
    }

    /// False when raft-rs dropped the entries for their size.
    fn step_propose(&mut self, entries: Vec<eraftpb::Entry>) -> Result<bool, ReplicaError> {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.config.node.0;
        message.set_entries(entries.into());
        match self.raw.raft.step(message) {
            Ok(()) => Ok(true),
            Err(raft::Error::ProposalDropped) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn on_persisted(&mut self, number: WriteNumber) {
        self.last_persisted = self.tick;
        let mut ready = None;
        let mut waited = Vec::new();
        while self.pending_writes.front().is_some_and(|write| write.number <= number) {
            let write = self.pending_writes.pop_front().expect("just seen");
            if let Some(last) = write.last {
                self.raw.mut_store().persisted_to(last);
            }
            if let Some((term, commit)) = write.hard_state {
                (self.durable_term, self.durable_commit) = (term, commit);
            }
            match waited.is_empty() {
                true => waited = write.messages,
                false => write.messages.into_iter().for_each(|later| outdo(&mut waited, later)),
            }
            ready = Some(write.ready);
        }
        self.send(waited);
        if let Some(ready) = ready {
            self.raw.on_persist_ready(ready);
            self.advance_applied();
        }
    }

    fn on_applied(&mut self, index: Index) {
        while self.unapplied.front().is_some_and(|(at, _)| *at <= index) {
            let (_, bytes) = self.unapplied.pop_front().expect("just seen");
            self.unapplied_bytes -= bytes;
        }
        self.applied = self.applied.max(index);
        self.advance_applied();
    }

    /// A snapshot may be installed in the machine before the log's new start is durable;
    /// raft-rs hears of it when both are.
    fn advance_applied(&mut self) {
        let log = &self.raw.raft.raft_log;
        let applied = self.applied.0.min(log.persisted);
        if applied > log.applied {
            self.raw.advance_apply_to(applied);
        }
    }
}
