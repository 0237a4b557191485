//! A message between two replicas, free of any library's types.

use bytes::Bytes;

use super::{GroupId, Index, Level, LogEntry, NodeId, SnapshotMeta, Space, StateDigest, Term};

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
    /// Asks for the receiver's wall clock. Not one of Raft's.
    ClockQuestion = 16,
    /// What the sender's wall clock shows. Not one of Raft's.
    ClockAnswer = 17,
    /// The level that the sender's program offers. Not one of Raft's.
    LevelOffer = 18,
}

impl MessageKind {
    /// Every kind, in the order of its number.
    pub const ALL: [MessageKind; 18] = [
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
        MessageKind::ClockQuestion,
        MessageKind::ClockAnswer,
        MessageKind::LevelOffer,
    ];

    /// Whether it is one of Raft's.
    pub fn is_of_raft(self) -> bool {
        !matches!(
            self,
            MessageKind::DigestReport
                | MessageKind::ClockQuestion
                | MessageKind::ClockAnswer
                | MessageKind::LevelOffer
        )
    }

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
    /// DigestReport: the digest point. For clocks: when the question was asked, in microseconds of a
    /// monotonic clock that only its sender knows. For LevelOffer: the level.
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
    /// 32 bytes of the digest. For ClockQuestion: how far the receiver's clock was off when it
    /// was asked last, in microseconds, or nothing; for ClockAnswer: milliseconds since the Unix
    /// epoch. Eight bytes, little-endian.
    pub context: Bytes,
    /// Election priority of the sender; part of votes.
    pub priority: i64,
    /// LevelOffer only: how much room the sender's disk has left; ample also when it does not say.
    pub space: Space,
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
        let context = Bytes::copy_from_slice(&digest.0);
        let kind = MessageKind::DigestReport;
        PeerMessage { index, context, ..PeerMessage::bare(group, kind, from, to) }
    }

    /// Asks `to` for its clock, and says how far that was off, if that is known.
    pub fn clock_question(
        group: GroupId,
        from: NodeId,
        to: NodeId,
        asked_us: u64,
        offset_us: Option<i64>,
    ) -> PeerMessage {
        let context = offset_us.map(|offset| Bytes::copy_from_slice(&offset.to_le_bytes()));
        let (kind, index) = (MessageKind::ClockQuestion, Index(asked_us));
        let context = context.unwrap_or_default();
        PeerMessage { index, context, ..PeerMessage::bare(group, kind, from, to) }
    }

    /// Tells `to`, who asked, what the clock of `from` shows.
    pub fn clock_answer(
        group: GroupId,
        from: NodeId,
        to: NodeId,
        asked_us: u64,
        wall_ms: u64,
    ) -> PeerMessage {
        let context = Bytes::copy_from_slice(&wall_ms.to_le_bytes());
        let (kind, index) = (MessageKind::ClockAnswer, Index(asked_us));
        PeerMessage { index, context, ..PeerMessage::bare(group, kind, from, to) }
    }

    /// Tells `to`, who leads, which level the program of `from` offers, and how much room its disk
    /// has left.
    pub fn level_offer(
        group: GroupId,
        from: NodeId,
        to: NodeId,
        level: Level,
        space: Space,
    ) -> PeerMessage {
        let index = Index(level.0.into());
        PeerMessage { index, space, ..PeerMessage::bare(group, MessageKind::LevelOffer, from, to) }
    }

    /// A message in which nothing more is said.
    pub(crate) fn bare(group: GroupId, kind: MessageKind, from: NodeId, to: NodeId) -> PeerMessage {
        PeerMessage {
            group,
            kind,
            from,
            to,
            term: Term(0),
            log_term: Term(0),
            index: Index(0),
            entries: Vec::new(),
            commit: Index(0),
            commit_term: Term(0),
            snapshot: None,
            request_snapshot: Index(0),
            reject: false,
            reject_hint: Index(0),
            context: Bytes::new(),
            priority: 0,
            space: Space::Ample,
        }
    }

    /// The point and the digest of a DigestReport; `None` for every other message.
    pub fn as_digest_report(&self) -> Option<(Index, StateDigest)> {
        let digest = StateDigest::try_from(&self.context[..]).ok();
        digest.filter(|_| self.kind == MessageKind::DigestReport).map(|digest| (self.index, digest))
    }

    /// When a ClockQuestion was asked, and how far the receiver's clock was off, in microseconds;
    /// `None` for every other message.
    pub fn as_clock_question(&self) -> Option<(u64, Option<i64>)> {
        let offset = match &self.context[..] {
            [] => None,
            bytes => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        };
        (self.kind == MessageKind::ClockQuestion).then_some((self.index.0, offset))
    }

    /// When the question of a ClockAnswer was asked, and what the sender's clock shows, in
    /// milliseconds; `None` for every other message.
    pub fn as_clock_answer(&self) -> Option<(u64, u64)> {
        let wall_ms = u64::from_le_bytes(self.context[..].try_into().ok()?);
        (self.kind == MessageKind::ClockAnswer).then_some((self.index.0, wall_ms))
    }

    /// The level of a LevelOffer; `None` for every other message.
    pub fn as_level_offer(&self) -> Option<Level> {
        let level = u32::try_from(self.index.0).ok().filter(|level| *level != 0);
        level.filter(|_| self.kind == MessageKind::LevelOffer).map(Level)
    }
}
