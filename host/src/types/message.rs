//! A message between two replicas, free of any library's types.

use bytes::Bytes;

use super::{GroupId, Index, LogEntry, NodeId, SnapshotMeta, StateDigest, Term};

/// The messages peers exchange. The numbers go over the wire: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the Raft dissertation and etcd")]
pub enum MessageKind {
    AppendEntries = 1,
    AppendEntriesResponse = 2,
    RequestVote = 3,
    RequestVoteResponse = 4,
    InstallSnapshot = 5,
    Heartbeat = 6,
    HeartbeatResponse = 7,
    TransferLeader = 8,
    TimeoutNow = 9,
    ReadIndex = 10,
    ReadIndexResponse = 11,
    RequestPreVote = 12,
    RequestPreVoteResponse = 13,
    Propose = 14,
    /// What the sender found at a digest point. Not one of Raft's.
    DigestReport = 15,
}

impl MessageKind {
    /// Every kind, in the order of its number.
    pub const ALL: [MessageKind; 15] = [
        MessageKind::AppendEntries,
        MessageKind::AppendEntriesResponse,
        MessageKind::RequestVote,
        MessageKind::RequestVoteResponse,
        MessageKind::InstallSnapshot,
        MessageKind::Heartbeat,
        MessageKind::HeartbeatResponse,
        MessageKind::TransferLeader,
        MessageKind::TimeoutNow,
        MessageKind::ReadIndex,
        MessageKind::ReadIndexResponse,
        MessageKind::RequestPreVote,
        MessageKind::RequestPreVoteResponse,
        MessageKind::Propose,
        MessageKind::DigestReport,
    ];

    /// Reads the number that goes over the wire.
    pub fn from_u8(value: u8) -> Option<MessageKind> {
        MessageKind::ALL.get(usize::from(value).checked_sub(1)?).copied()
    }
}

/// One message. Which fields carry meaning depends on `kind`, as in the dissertation.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerMessage {
    /// The group it belongs to; messages of all groups to one peer share a connection.
    pub group: GroupId,
    /// What the message says.
    pub kind: MessageKind,
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// Sender's term; 0 for messages that carry none.
    pub term: Term,
    /// Term of the entry at `index` (AppendEntries), or of the sender's last entry (votes).
    pub log_term: Term,
    /// The index before the first of `entries`, the acknowledged index, or the last index. For
    /// DigestReport: the digest point.
    pub index: Index,
    /// Entries to append, contiguous from `index + 1`. For ReadIndex: one entry whose data is
    /// the read's context.
    pub entries: Vec<LogEntry>,
    /// Sender's commit index.
    pub commit: Index,
    /// Term of the entry at `commit` (votes).
    pub commit_term: Term,
    /// The snapshot that follows out of band (InstallSnapshot only).
    pub snapshot: Option<SnapshotMeta>,
    /// A follower that lost its log asks for a snapshot at least this new; 0 for none.
    pub request_snapshot: Index,
    /// Whether the sender refuses.
    pub reject: bool,
    /// On refusal, where the sender's log ends.
    pub reject_hint: Index,
    /// Opaque context (heartbeats of ReadIndex, leadership transfer). For DigestReport: the
    /// 32 bytes of the digest.
    pub context: Bytes,
    /// Election priority of the sender; part of votes.
    pub priority: i64,
}

impl PeerMessage {
    /// Tells `to` what `from` found at the digest point at `index`.
    pub fn digest_report(
        group: GroupId,
        from: NodeId,
        to: NodeId,
        index: Index,
        digest: StateDigest,
    ) -> PeerMessage {
        PeerMessage {
            group,
            kind: MessageKind::DigestReport,
            from,
            to,
            term: Term(0),
            log_term: Term(0),
            index,
            entries: Vec::new(),
            commit: Index(0),
            commit_term: Term(0),
            snapshot: None,
            request_snapshot: Index(0),
            reject: false,
            reject_hint: Index(0),
            context: Bytes::copy_from_slice(&digest.0),
            priority: 0,
        }
    }

    /// The point and the digest of a DigestReport; `None` for every other message.
    pub fn as_digest_report(&self) -> Option<(Index, StateDigest)> {
        let digest = StateDigest::try_from(&self.context[..]).ok();
        digest.filter(|_| self.kind == MessageKind::DigestReport).map(|digest| (self.index, digest))
    }
}
