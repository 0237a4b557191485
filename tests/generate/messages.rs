//! Messages that peers could send to a replica, honest ones and lies, made from random bytes;
//! and the question that all replicas are asked: does it live on, and start again?
//!
//! What is judged is what stands between the wire and raft-rs: the checks of one message by
//! itself (`transport`), and those against the replica's own log (`consensus`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use prost::Message as _;
use raft_host::consensus::{
    ApplyTask, ConsensusConfig, Input, LogRead, Proposal, ProposalId, ReadId, Replica,
    ReplicaConfig, ReplicaError, Write, bootstrap_write, reconcile,
};
use raft_host::storage::{LogStore as _, MemoryLog, WriteBatch};
use raft_host::types::{
    ConfState, GroupId, Index, MessageKind, NodeId, PeerMessage, SnapshotMeta, Term,
};
use raft_host_proto::stored::membership_step::Kind;
use raft_host_proto::{peer, stored};

/// The replica under test.
const ME: NodeId = NodeId(1);
/// Its fellow members at first.
const FELLOWS: [u64; 2] = [2, 3];
/// Ticks of an election.
const ELECTION_TICKS: usize = 6;
/// Most steps of a run.
const STEPS: usize = 200;

/// What became of messages, by kind: (reached the replica, refused before).
pub type Tally = BTreeMap<i32, (u64, u64)>;

struct Subject {
    log: Arc<MemoryLog>,
    snapshot: Option<SnapshotMeta>,
    replica: Replica,
    starts: u64,
    writes: VecDeque<Write>,
    reads: VecDeque<LogRead>,
    tasks: VecDeque<ApplyTask>,
    /// What it sent last.
    sent: VecDeque<PeerMessage>,
    numbers: u64,
    tally: Tally,
}

/// Lets a replica live through what the bytes say, then restarts it. Returns how many messages
/// of each kind it got.
///
/// # Panics
///
/// If the replica panics or fails, then or after the restart.
pub fn judge(bytes: &mut Unstructured<'_>) -> Result<Tally> {
    let mut subject = Subject::new(bytes.ratio(1_u8, 5_u8)?);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        subject.act(bytes)?;
    }
    subject.rest();
    subject.restart();
    for _ in 0..ELECTION_TICKS * 4 {
        subject.input(Input::Tick);
    }
    subject.rest();
    Ok(subject.tally)
}

fn start(log: &Arc<MemoryLog>, snapshot: Option<SnapshotMeta>, starts: u64) -> Replica {
    let write = reconcile(&**log, GroupId::MAIN, snapshot.as_ref()).expect("what it has fits");
    if let Some(write) = write {
        log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] }).expect("memory");
    }
    let config = ReplicaConfig {
        node: ME,
        group: GroupId::MAIN,
        heartbeat_ticks: 2,
        election_ticks: ELECTION_TICKS,
        trailing_ticks: 0,
        seed: starts,
        incarnation: starts,
        limits: ConsensusConfig { trailing_logs: 4, ..ConsensusConfig::default() },
    };
    let log: Arc<MemoryLog> = Arc::clone(log);
    Replica::new(config, log, snapshot).expect("it starts with what it has")
}

impl Subject {
    /// One of three voters; or a node that was taken in and has nothing yet.
    fn new(is_empty: bool) -> Subject {
        let log = Arc::new(MemoryLog::new());
        let voters = [ME.0].into_iter().chain(FELLOWS).map(NodeId).collect();
        let snapshot = (!is_empty).then(|| SnapshotMeta {
            group: GroupId::MAIN,
            index: Index(1),
            term: Term(1),
            conf_state: ConfState { voters, ..ConfState::default() },
            size_bytes: 0,
            checksum: 0,
        });
        if let Some(meta) = &snapshot {
            let write = bootstrap_write(meta.position());
            log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] }).expect("memory");
        }
        Subject {
            replica: start(&log, snapshot.clone(), 1),
            log,
            snapshot,
            starts: 1,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            tasks: VecDeque::new(),
            sent: VecDeque::new(),
            numbers: 0,
            tally: Tally::new(),
        }
    }

    fn act(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        match bytes.int_in_range(0_u8..=15)? {
            0 | 1 => {
                for _ in 0..bytes.int_in_range(1..=ELECTION_TICKS * 2)? {
                    self.input(Input::Tick);
                }
            }
            2..=5 => self.answer_honestly(),
            6 => self.propose(bytes)?,
            7 => {
                self.numbers += 1;
                self.input(Input::Read(ReadId(self.numbers)));
            }
            8 => self.rest(),
            9 => self.save_snapshot(),
            10 if bytes.ratio(1_u8, 8_u8)? => self.restart(),
            _ => {
                let lie = self.lie(bytes)?;
                self.deliver(lie);
            }
        }
        Ok(())
    }

    fn input(&mut self, input: Input) -> bool {
        match self.replica.step(input) {
            Ok(()) => {}
            // Who speaks as the leader, and says the same for long enough, is believed that this
            // disk is an older one. That replica ends on purpose.
            Err(ReplicaError::Outdated { .. }) => {
                self.restart();
                return false;
            }
            Err(error) => panic!("no message makes it fail: {error}"),
        }
        let effects = self.replica.effects().expect("no message makes it fail");
        self.writes.extend(effects.writes);
        self.reads.extend(effects.log_reads);
        self.tasks.extend(effects.apply);
        self.sent.extend(effects.messages);
        while self.sent.len() > 16 {
            self.sent.pop_front();
        }
        effects.nonsense.is_empty()
    }

    /// As what receives messages from the network does.
    fn deliver(&mut self, wire: peer::RaftMessage) {
        let kind = wire.kind;
        let checked = PeerMessage::try_from(wire);
        let reached = match checked {
            // The sender is who it says, and not this node: the streams' introductions see to it.
            Ok(message) if message.from == ME || message.to != ME => return,
            Ok(message) if !message.kind.is_of_raft() => true,
            Ok(message) => self.input(Input::Message(message)),
            Err(_) => false,
        };
        let (admitted, refused) = self.tally.entry(kind).or_default();
        *(if reached { admitted } else { refused }) += 1;
    }

    /// Disk and machine catch up.
    fn rest(&mut self) {
        for _ in 0..64 {
            if let Some(Write { number, write }) = self.writes.pop_front() {
                let batch = WriteBatch { groups: vec![(GroupId::MAIN, write)] };
                self.log.write(&batch).expect("memory");
                self.input(Input::Persisted(number));
            } else if let Some(read) = self.reads.pop_front() {
                let found = read.run(&*self.log, GroupId::MAIN);
                self.input(Input::LogRead(read, found));
            } else if let Some(task) = self.tasks.pop_front() {
                let applied = match task {
                    ApplyTask::Entries(entries) => entries.last().map(|last| last.entry.index),
                    ApplyTask::Install(meta) => {
                        let index = meta.index;
                        self.snapshot = Some(meta);
                        Some(index)
                    }
                };
                if let Some(applied) = applied {
                    self.input(Input::Applied(applied));
                }
            } else {
                return;
            }
        }
    }

    fn propose(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let proposals = (0..bytes.int_in_range(1..=4)?)
            .map(|n| Proposal {
                id: ProposalId(n),
                data: Bytes::from_static(b"entry"),
                is_fence: false,
            })
            .collect();
        self.input(Input::Propose(proposals));
        Ok(())
    }

    fn save_snapshot(&mut self) {
        let status = self.replica.status();
        let index = self.replica.applied();
        let Ok(term) = self.log.term(GroupId::MAIN, index) else { return };
        if status.conf_state.voters.is_empty() || !self.tasks.is_empty() || index == Index(0) {
            return;
        }
        let conf_state = status.conf_state;
        let group = GroupId::MAIN;
        let meta = SnapshotMeta { group, index, term, conf_state, size_bytes: 0, checksum: 0 };
        self.snapshot = Some(meta.clone());
        self.input(Input::SnapshotSaved(meta));
    }

    /// What was not written is lost.
    fn restart(&mut self) {
        self.starts += 1;
        self.writes.clear();
        self.reads.clear();
        self.tasks.clear();
        self.sent.clear();
        self.replica = start(&self.log, self.snapshot.clone(), self.starts);
    }

    /// A fellow member answers what the replica sent, as it should, and so gets it elected.
    fn answer_honestly(&mut self) {
        let Some(message) = self.sent.pop_front() else { return };
        let last = message.index.0 + message.entries.len() as u64;
        let base = peer::RaftMessage {
            group: 1,
            from: message.to.0,
            to: ME.0,
            term: message.term.0,
            ..peer::RaftMessage::default()
        };
        let kind = |kind: MessageKind| i32::from(kind as u8);
        let answer = match message.kind {
            MessageKind::RequestPreVote => {
                peer::RaftMessage { kind: kind(MessageKind::RequestPreVoteResponse), ..base }
            }
            MessageKind::RequestVote => {
                peer::RaftMessage { kind: kind(MessageKind::RequestVoteResponse), ..base }
            }
            MessageKind::AppendEntries => peer::RaftMessage {
                kind: kind(MessageKind::AppendEntriesResponse),
                index: last,
                commit: message.commit.0.min(last),
                ..base
            },
            MessageKind::Heartbeat => peer::RaftMessage {
                kind: kind(MessageKind::HeartbeatResponse),
                context: message.context,
                commit: message.commit.0,
                ..base
            },
            MessageKind::ReadIndex => peer::RaftMessage {
                kind: kind(MessageKind::ReadIndexResponse),
                index: self.replica.status().commit.0,
                term: self.replica.term().0,
                entries: message.entries.into_iter().map(peer::RaftEntry::from).collect(),
                ..base
            },
            _ => return,
        };
        self.deliver(answer);
    }

    fn lie(&self, bytes: &mut Unstructured<'_>) -> Result<peer::RaftMessage> {
        let status = self.replica.status();
        let (term, commit, last) = (status.term.0, status.commit.0, status.last_index.0);
        let kind = bytes.int_in_range(1_i32..=15)?;
        let from = *bytes.choose(&[2, 3, 3, 4, 1 << 63])?;
        let mut message = peer::RaftMessage {
            group: 1,
            kind,
            from,
            to: ME.0,
            term: near(bytes, term)?,
            ..peer::RaftMessage::default()
        };
        // Most of what is drawn freely ends at the door, so fields that a kind does not have are
        // mostly left out.
        let mut has = |fields: &[i32]| -> Result<bool> {
            Ok(fields.contains(&kind) || bytes.ratio(1_u8, 30_u8)?)
        };
        let has_log = has(&[1, 2, 3, 12])?;
        let has_index = has(&[1, 2, 3, 11, 12, 15])?;
        let has_entries = has(&[1, 10, 11])?;
        let has_commit = has(&[1, 2, 3, 4, 6, 7, 12, 13])?;
        let has_commit_term = has(&[3, 4, 12, 13])?;
        let has_reject = has(&[2, 4, 13])?;
        let has_context = has(&[3, 6, 7, 15])?;
        let has_snapshot = has(&[5])?;
        if matches!(kind, 10 | 15) && bytes.ratio(9_u8, 10_u8)? {
            message.term = 0;
        }
        if has_index {
            message.index = near_one_of(bytes, &[commit, last])?;
        }
        if has_log {
            message.log_term = match self.log.term(GroupId::MAIN, Index(message.index)) {
                Ok(known) if bytes.ratio(2_u8, 3_u8)? => known.0,
                _ => near(bytes, term)?,
            };
        }
        if has_commit {
            message.commit = near_one_of(bytes, &[commit, last])?;
        }
        if has_commit_term {
            message.commit_term = near(bytes, term)?;
        }
        if has_reject && bytes.arbitrary()? {
            message.reject = true;
            message.reject_hint = near(bytes, message.index)?;
            if kind == 2 && bytes.ratio(1_u8, 4_u8)? {
                message.request_snapshot = near(bytes, last)?;
            }
        }
        if has_context && bytes.arbitrary()? {
            message.context = some_bytes(bytes, 40)?;
        }
        if has_entries {
            message.entries = match kind {
                10 | 11 => vec![read(bytes, from)?],
                _ => entries(bytes, message.index, message.term)?,
            };
        }
        if has_snapshot {
            message.snapshot = Some(snapshot(bytes, last, message.term)?);
        }
        Ok(message)
    }
}

fn near_one_of(bytes: &mut Unstructured<'_>, numbers: &[u64]) -> Result<u64> {
    let number = *bytes.choose(numbers)?;
    near(bytes, number)
}

/// A number that is often just right, often just wrong, and sometimes anything.
fn near(bytes: &mut Unstructured<'_>, number: u64) -> Result<u64> {
    Ok(match bytes.int_in_range(0_u8..=15)? {
        0..=6 => number,
        7 | 8 => number.saturating_add(1),
        9 => number.saturating_sub(1),
        10 => number.saturating_add(bytes.int_in_range(0..=40)?),
        11 => bytes.int_in_range(0..=number)?,
        12 => *bytes.choose(&[0, u64::MAX, u64::MAX - 1, 1 << 63])?,
        13 => *bytes.choose(&[Term::HIGHEST.0, Term::HIGHEST.0 - 1, Term::HIGHEST.0 + 1])?,
        14 => number.saturating_add(1 << 24),
        _ => bytes.arbitrary()?,
    })
}

fn some_bytes(bytes: &mut Unstructured<'_>, most: usize) -> Result<Bytes> {
    let length = bytes.int_in_range(0..=most)?.min(bytes.len());
    Ok(Bytes::copy_from_slice(bytes.bytes(length)?))
}

fn entries(bytes: &mut Unstructured<'_>, after: u64, term: u64) -> Result<Vec<peer::RaftEntry>> {
    let mut index = after;
    (0..bytes.int_in_range(0..=4)?)
        .map(|_| {
            index =
                if bytes.ratio(1_u8, 40_u8)? { near(bytes, index)? } else { index.wrapping_add(1) };
            let term = if bytes.ratio(1_u8, 20_u8)? { near(bytes, term)? } else { term };
            let mut entry = peer::RaftEntry { index, term, ..peer::RaftEntry::default() };
            match bytes.int_in_range(0_u8..=9)? {
                0..=5 => entry.data = some_bytes(bytes, 20)?,
                6 => {
                    (entry.kind, entry.data) = (1, some_bytes(bytes, 12)?);
                    entry.context = some_bytes(bytes, 12)?;
                }
                7 => entry.kind = bytes.arbitrary()?,
                8 => entry.kind = 1,
                _ => (entry.kind, entry.data, entry.context) = membership(bytes)?,
            }
            Ok(entry)
        })
        .collect()
}

/// A membership change as a leader writes it: `eraftpb.ConfChangeV2`, and the addresses.
fn membership(bytes: &mut Unstructured<'_>) -> Result<(i32, Bytes, Bytes)> {
    let (mut data, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..bytes.int_in_range(1..=3)? {
        let node = bytes.int_in_range(1_u8..=5)?;
        let (number, kind) =
            *bytes.choose(&[(0_u8, Kind::AddVoter), (1, Kind::Remove), (2, Kind::AddLearner)])?;
        data.extend([0x12, 4, 0x08, number, 0x10, node]);
        steps.push(stored::MembershipStep {
            kind: kind.into(),
            node_id: node.into(),
            address: "a:1".to_owned(),
            join_nonce: Bytes::new(),
        });
    }
    let change = stored::MembershipChange { steps };
    Ok((1, data.into(), change.encode_to_vec().into()))
}

fn read(bytes: &mut Unstructured<'_>, from: u64) -> Result<peer::RaftEntry> {
    let mut context = Vec::new();
    for part in [near(bytes, from)?, 1, near(bytes, 1)?] {
        context.extend_from_slice(&part.to_le_bytes());
    }
    if bytes.ratio(1_u8, 10_u8)? {
        context.truncate(bytes.int_in_range(0..=24)?);
    }
    Ok(peer::RaftEntry { data: context.into(), ..peer::RaftEntry::default() })
}

fn snapshot(bytes: &mut Unstructured<'_>, last: u64, term: u64) -> Result<peer::RaftSnapshot> {
    let mut nodes = |most: usize| -> Result<Vec<u64>> {
        (0..bytes.int_in_range(0..=most)?).map(|_| bytes.int_in_range(1..=5)).collect()
    };
    let conf_state = peer::RaftConfState {
        voters: nodes(4)?,
        learners: nodes(2)?,
        voters_outgoing: nodes(1)?,
        learners_next: nodes(1)?,
        auto_leave: bytes.ratio(1_u8, 8_u8)?,
    };
    Ok(peer::RaftSnapshot {
        index: near(bytes, last)?,
        term: near(bytes, term)?,
        conf_state: Some(conf_state),
        size_bytes: 0,
        checksum: 0,
    })
}
