//! Steps replicas in virtual time: a network that loses and delays, disks that are slow,
//! crashes that lose what was not persisted. One seed decides everything.

mod changes;
mod duty;
mod flow;
mod forwarding;
mod outdated;
mod reseed;
mod scenarios;
mod space;
mod stuck;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::storage::{LogStore as _, MemoryLog, SnapshotMeta, WriteBatch};
use crate::types::*;

const GROUP: GroupId = GroupId::MAIN;

/// Proposals from here on are membership changes, whose data is not the harness's.
const MEMBERSHIP: ProposalId = ProposalId(1 << 60);

/// What a node's state machine has applied, in order: (index, term, data).
type State = Vec<(Index, Term, Bytes)>;

struct SimNode {
    log: Arc<MemoryLog>,
    /// Durable, newest last.
    snapshots: Vec<(SnapshotMeta, State)>,
    replica: Option<Replica>,
    starts: u64,
    writes: VecDeque<Write>,
    reads: VecDeque<LogRead>,
    tasks: VecDeque<ApplyTask>,
    state: State,
    conf_state: ConfState,
    applied: Index,
    /// Snapshots of a leader that replaced the state.
    installed: u64,
    /// Of entries, from the log.
    read_bytes: u64,
}

struct InFlight {
    deliver_at: u64,
    message: PeerMessage,
    /// The content of an InstallSnapshot travels with it.
    snapshot: Option<State>,
}

/// Probabilities in percent.
#[derive(Clone, Copy)]
struct Faults {
    loss: u32,
    max_delay: u64,
    /// That a node persists its oldest write, or applies its oldest task, in a step.
    progress: u32,
}

const CALM: Faults = Faults { loss: 0, max_delay: 1, progress: 100 };
const STORMY: Faults = Faults { loss: 10, max_delay: 12, progress: 40 };

struct Cluster {
    nodes: BTreeMap<NodeId, SimNode>,
    network: Vec<InFlight>,
    /// Pairs that cannot talk, in this direction.
    cut: BTreeSet<(NodeId, NodeId)>,
    faults: Faults,
    /// Nodes that persist nothing, and nodes that apply nothing.
    stuck_disks: BTreeSet<NodeId>,
    stuck_machines: BTreeSet<NodeId>,
    /// The test has somebody say what no correct peer says, or forget what it said.
    are_lies_told: bool,
    trailing_ticks: u64,
    /// From where on entries were replaced in a log last.
    truncated: BTreeMap<NodeId, Index>,
    longest_append: u64,
    rng: ChaCha8Rng,
    now: u64,
    limits: ConsensusConfig,
    next_proposal: u64,
    /// Proposals appended by a leader, by position.
    proposed: BTreeMap<(Index, Term), Bytes>,
    /// Applied by the leader that appended them: what a client was told.
    acknowledged: BTreeSet<(Index, Term)>,
    refused: Vec<ProposeError>,
    leaders: BTreeMap<Term, NodeId>,
    /// Read → highest acknowledged index when it was asked.
    reads: BTreeMap<(NodeId, ReadId), Index>,
    reads_answered: usize,
    /// Committed order as first seen applied anywhere.
    history: BTreeMap<Index, (Term, Bytes)>,
    trace: Vec<String>,
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

impl Cluster {
    fn new(seed: u64, voters: &[u64]) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            faults: CALM,
            stuck_disks: BTreeSet::new(),
            stuck_machines: BTreeSet::new(),
            are_lies_told: false,
            trailing_ticks: 0,
            truncated: BTreeMap::new(),
            longest_append: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            limits: ConsensusConfig { promotion_lag: 20, ..Default::default() },
            next_proposal: 1,
            proposed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            refused: Vec::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_answered: 0,
            history: BTreeMap::new(),
            trace: Vec::new(),
        };
        let conf_state = ConfState { voters: ids(voters), ..Default::default() };
        for id in voters {
            cluster.add_node(NodeId(*id), Some(conf_state.clone()));
        }
        cluster
    }

    /// With a configuration: bootstrapped at index 1. Without: empty, waiting for a snapshot.
    fn add_node(&mut self, id: NodeId, conf_state: Option<ConfState>) {
        let mut node = SimNode {
            log: Arc::new(MemoryLog::new()),
            snapshots: Vec::new(),
            replica: None,
            starts: 0,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            tasks: VecDeque::new(),
            state: Vec::new(),
            conf_state: ConfState::default(),
            applied: Index(0),
            installed: 0,
            read_bytes: 0,
        };
        if let Some(conf_state) = conf_state {
            let meta = meta(Index(1), Term(1), conf_state);
            let write = bootstrap_write(meta.position());
            node.snapshots.push((meta, Vec::new()));
            node.log.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("memory");
        }
        self.nodes.insert(id, node);
        self.start(id);
    }

    fn start(&mut self, id: NodeId) {
        let seed = self.rng.random();
        let limits = self.limits.clone();
        let node = self.nodes.get_mut(&id).expect("known node");
        node.starts += 1;
        let (snapshot, state) = match node.snapshots.last() {
            Some((meta, state)) => (Some(meta.clone()), state.clone()),
            None => (None, Vec::new()),
        };
        if let Some(write) = reconcile(&*node.log, GROUP, snapshot.as_ref()).expect("recovers") {
            node.log.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("memory");
        }
        node.state = state;
        node.conf_state = snapshot.as_ref().map(|meta| meta.conf_state.clone()).unwrap_or_default();
        node.applied = snapshot.as_ref().map_or(Index(0), |meta| meta.index);
        let config = ReplicaConfig {
            node: id,
            group: GROUP,
            heartbeat_ticks: 2,
            election_ticks: 10,
            trailing_ticks: self.trailing_ticks,
            seed,
            incarnation: node.starts,
            limits,
        };
        let log: Arc<MemoryLog> = Arc::clone(&node.log);
        node.replica = Some(Replica::new(config, log, snapshot).expect("starts"));
    }

    fn crash(&mut self, id: NodeId) {
        self.trace.push(format!("{} crash {id}", self.now));
        let node = self.nodes.get_mut(&id).expect("known node");
        node.replica = None;
        node.writes.clear();
        node.reads.clear();
        node.tasks.clear();
        self.reads.retain(|(reader, _), _| *reader != id);
    }

    fn alive(&self) -> Vec<NodeId> {
        let alive = self.nodes.iter().filter(|(_, node)| node.replica.is_some());
        alive.map(|(id, _)| *id).collect()
    }

    fn replica(&self, id: NodeId) -> &Replica {
        self.nodes[&id].replica.as_ref().expect("alive")
    }

    /// The leader of the highest term.
    fn leader(&self) -> Option<NodeId> {
        self.alive()
            .into_iter()
            .filter(|id| self.replica(*id).role() == Role::Leader)
            .max_by_key(|id| self.replica(*id).status().term)
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let node = self.nodes.get_mut(&id).expect("known node");
        let Some(replica) = &mut node.replica else { return };
        replica.step(input).expect("steps");
        self.drain(id);
    }

    fn drain(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("known node");
        let Some(replica) = &mut node.replica else { return };
        let effects = replica.effects().expect("effects");
        let is_fine = self.are_lies_told || effects.nonsense.is_empty();
        assert!(is_fine, "{id} takes a correct peer for a broken one");
        node.writes.extend(effects.writes);
        node.reads.extend(effects.log_reads);
        node.tasks.extend(effects.apply);
        let snapshots: BTreeMap<Index, State> =
            node.snapshots.iter().map(|(meta, state)| (meta.index, state.clone())).collect();
        if replica.role() == Role::Leader {
            let term = replica.term();
            let before = self.leaders.insert(term, id);
            assert!(before.is_none_or(|before| before == id), "two leaders in term {term}");
        }
        for (proposal, reply) in effects.proposals {
            match reply {
                Ok(_) if proposal >= MEMBERSHIP => {}
                Ok(at) => {
                    let data = Bytes::from(proposal.0.to_le_bytes().to_vec());
                    self.proposed.insert((at.index, at.term), data);
                }
                Err(error) => self.refused.push(error),
            }
        }
        for ReadReady { id: read, index } in effects.reads {
            let needed = self.reads.remove(&(id, read)).expect("asked once, answered once");
            assert!(index >= needed, "a read at {index} misses {needed}, acknowledged before");
            self.reads_answered += 1;
        }
        self.truncated.extend(effects.truncated_from.map(|from| (id, from)));
        for message in effects.messages {
            let length = bytes(&message);
            let fits = message.entries.len() <= 1 || length <= self.limits.max_append_bytes;
            assert!(fits, "a message of {length} bytes");
            self.longest_append = self.longest_append.max(length);
            assert_eq!(message.from, id, "{:?} in the name of another node", message.kind);
            self.trace.push(format!(
                "{} {}->{} {:?} {} {}",
                self.now, message.from, message.to, message.kind, message.term, message.index
            ));
            let snapshot = message.snapshot.as_ref().map(|meta| snapshots[&meta.index].clone());
            let delay = self.rng.random_range(1..=self.faults.max_delay);
            let lost = self.rng.random_range(0..100) < self.faults.loss;
            if snapshot.is_some() && lost {
                // The transport reports how it ended.
                let to = message.to;
                self.report_snapshot(id, to, false);
            }
            if !lost {
                self.network.push(InFlight { deliver_at: self.now + delay, message, snapshot });
            }
        }
        if effects.snapshot_wanted {
            self.take_snapshot(id);
        }
    }

    fn report_snapshot(&mut self, from: NodeId, to: NodeId, delivered: bool) {
        let node = self.nodes.get_mut(&from).expect("known node");
        if let Some(replica) = &mut node.replica {
            let fate = if delivered { SnapshotFate::Delivered } else { SnapshotFate::Failed };
            replica.step(Input::SnapshotSent(to, fate)).expect("steps");
        }
    }

    fn persist_one(&mut self, id: NodeId) {
        if self.stuck_disks.contains(&id) {
            return;
        }
        let node = self.nodes.get_mut(&id).expect("known node");
        let Some(Write { number, write }) = node.writes.pop_front() else { return };
        node.log.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("memory");
        self.input(id, Input::Persisted(number));
    }

    fn read_one(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("known node");
        let Some(read) = node.reads.pop_front() else { return };
        let found = read.run(&*node.log, GROUP);
        let entries = found.as_deref().unwrap_or_default();
        node.read_bytes += entries.iter().map(LogEntry::cost_bytes).sum::<u64>();
        self.input(id, Input::LogRead(read, found));
    }

    fn apply_one(&mut self, id: NodeId) {
        if self.stuck_machines.contains(&id) {
            return;
        }
        let node = self.nodes.get_mut(&id).expect("known node");
        match node.tasks.pop_front() {
            None => return,
            Some(ApplyTask::Install(meta)) => {
                let (_, state) = node
                    .snapshots
                    .iter()
                    .find(|(saved, _)| saved.index == meta.index)
                    .expect("content arrived before the message");
                node.state = state.clone();
                node.conf_state = meta.conf_state;
                node.applied = meta.index;
                node.installed += 1;
            }
            Some(ApplyTask::Entries(entries)) => {
                for CommittedEntry { entry, membership } in entries {
                    assert_eq!(entry.index, node.applied.next(), "applied in order, once");
                    node.applied = entry.index;
                    if let Some((_, conf_state)) = membership {
                        node.conf_state = conf_state;
                    }
                    let applied = (entry.term, entry.data.clone());
                    let first = self.history.entry(entry.index).or_insert_with(|| applied.clone());
                    assert_eq!(*first, applied, "two nodes applied different entries");
                    node.state.push((entry.index, entry.term, entry.data));
                    if self.leaders.get(&entry.term) == Some(&id) {
                        self.acknowledged.insert((entry.index, entry.term));
                    }
                }
            }
        }
        let applied = node.applied;
        self.input(id, Input::Applied(applied));
    }

    fn take_snapshot(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("known node");
        if node.replica.is_none() || node.applied.0 == 0 {
            return;
        }
        let term = node.state.last().map_or(Term(1), |(_, term, _)| *term);
        let meta = meta(node.applied, term, node.conf_state.clone());
        if node.snapshots.last().is_some_and(|(newest, _)| newest.index >= meta.index) {
            return;
        }
        node.snapshots.push((meta.clone(), node.state.clone()));
        self.input(id, Input::SnapshotSaved(meta));
    }

    /// One unit of virtual time.
    fn step(&mut self) {
        self.now += 1;
        for id in self.alive() {
            self.input(id, Input::Tick);
            for _ in 0..4 {
                if self.rng.random_range(0..100) < self.faults.progress {
                    self.persist_one(id);
                }
                if self.rng.random_range(0..100) < self.faults.progress {
                    self.read_one(id);
                    self.apply_one(id);
                }
            }
        }
        let now = self.now;
        let due: Vec<InFlight> =
            self.network.extract_if(.., |sent| sent.deliver_at <= now).collect();
        for InFlight { message, snapshot, .. } in due {
            let (from, to) = (message.from, message.to);
            let reachable = self.nodes.get(&to).is_some_and(|node| node.replica.is_some());
            if !reachable || self.cut.contains(&(from, to)) {
                if reachable || self.rng.random_bool(0.5) {
                    self.input(from, Input::Unreachable(to));
                }
                if snapshot.is_some() {
                    self.report_snapshot(from, to, false);
                }
                continue;
            }
            if let (Some(meta), Some(state)) = (&message.snapshot, snapshot) {
                let node = self.nodes.get_mut(&to).expect("reachable");
                let newest = node.snapshots.last().map_or(Index(0), |(saved, _)| saved.index);
                if newest < meta.index {
                    node.snapshots.push((meta.clone(), state));
                }
            }
            let is_snapshot = message.kind == MessageKind::InstallSnapshot;
            self.input(to, Input::Message(message));
            if is_snapshot {
                self.report_snapshot(from, to, true);
            }
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Cluster) -> bool) {
        for _ in 0..3_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not within 3000 steps: {what}");
    }

    fn elect(&mut self) -> NodeId {
        self.run_until("a leader that has committed in its term", |cluster| {
            cluster.leader().is_some_and(|id| {
                let status = cluster.replica(id).status();
                cluster.history.get(&status.commit).is_some_and(|(term, _)| *term == status.term)
            })
        });
        self.leader().expect("just seen")
    }

    fn propose_to(&mut self, id: NodeId, count: usize) {
        let proposals = (0..count)
            .map(|_| {
                let proposal = ProposalId(self.next_proposal);
                self.next_proposal += 1;
                Proposal {
                    id: proposal,
                    data: proposal.0.to_le_bytes().to_vec().into(),
                    is_fence: false,
                }
            })
            .collect();
        self.input(id, Input::Propose(proposals));
    }

    fn change(&mut self, op: ConfChangeOp, node: u64) {
        self.change_together(&[(op, node)]);
    }

    /// Likewise, of the voters: those that stay have to answer first. Returns where the entry is.
    fn change_voters(&mut self, op: ConfChangeOp, node: u64) -> Index {
        let leader = self.elect();
        let before = self.replica(leader).status().last_index;
        self.change(op, node);
        self.run_until("the voters that stay have answered", |cluster| {
            cluster.replica(leader).status().last_index > before
        });
        self.replica(leader).status().last_index
    }

    /// More than one step goes through a joint configuration.
    fn change_together(&mut self, steps: &[(ConfChangeOp, u64)]) {
        let member = |id| Member { id: NodeId(id), address: format!("node-{id}:1") };
        let steps = steps.iter().map(|(op, id)| (*op, member(*id))).collect();
        let change = ConfChange { steps, ..ConfChange::default() };
        let leader = self.elect();
        let care = Care { decided_at: self.nodes[&leader].applied, force: false };
        self.input(leader, Input::ProposeConfChange(MEMBERSHIP, change, care));
    }

    fn read(&mut self, id: NodeId) {
        let read = ReadId(self.next_proposal);
        self.next_proposal += 1;
        let acknowledged = self.acknowledged.last().map_or(Index(0), |(index, _)| *index);
        self.reads.insert((id, read), acknowledged);
        self.input(id, Input::Read(read));
    }

    /// Faults end; everything must come together and nothing acknowledged may be missing.
    fn settle(&mut self) {
        self.faults = CALM;
        self.cut.clear();
        self.stuck_disks.clear();
        self.stuck_machines.clear();
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in all {
            if self.nodes[&id].replica.is_none() {
                self.start(id);
            }
        }
        let leader = self.elect();
        self.propose_to(leader, 1);
        self.run_until("all members applied the same", |cluster| {
            let Some(leader) = cluster.leader() else { return false };
            let status = cluster.replica(leader).status();
            status.commit == status.last_index
                && status.conf_state.voters_outgoing.is_empty()
                && status
                    .conf_state
                    .nodes()
                    .iter()
                    .all(|id| cluster.nodes[id].applied == status.last_index)
        });
        let leader = self.leader().expect("settled");
        let members = self.replica(leader).status().conf_state.nodes();
        let state = self.nodes[&leader].state.clone();
        for id in members {
            assert_eq!(self.nodes[&id].state, state, "node {id} differs from the leader");
        }
        let applied: BTreeSet<(Index, Term)> =
            state.iter().map(|(index, term, _)| (*index, *term)).collect();
        for position in &self.acknowledged {
            assert!(applied.contains(position), "acknowledged {position:?} is lost");
        }
        for (index, term, data) in &state {
            if let Some(proposed) = self.proposed.get(&(*index, *term)) {
                assert_eq!(proposed, data, "what was proposed is what was applied");
            }
        }
    }
}

/// Of a message's entries.
fn bytes(message: &PeerMessage) -> u64 {
    message.entries.iter().map(LogEntry::cost_bytes).sum()
}

fn meta(index: Index, term: Term, conf_state: ConfState) -> SnapshotMeta {
    SnapshotMeta { group: GROUP, index, term, conf_state, size_bytes: 0, checksum: 0 }
}
