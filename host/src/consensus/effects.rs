//! What goes into a replica and what comes out.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::membership::ConfChangeError;
use super::replica::Nonsense;
use crate::storage::{GroupWrite, LogStore, SnapshotMeta, StorageError};
use crate::types::{
    ConfChange, ConfState, Exceeded, GroupId, Index, LogEntry, LogPosition, NodeId, PeerMessage,
    SnapshotFate, Space,
};

/// Names a proposal between the caller and the replica; never leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

/// Names a read between the caller and the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Data to be appended to the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Chosen by the caller.
    pub id: ProposalId,
    /// Opaque.
    pub data: Bytes,
    /// It may change who may change the members: no change of them that was decided on before it is
    /// appended behind it.
    pub is_fence: bool,
}

/// With how much care a membership change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    /// Up to where the machine had applied when the change was decided on: if the members, or who may
    /// change them, have changed since, it was decided on something that is not so.
    pub decided_at: Index,
    /// Make it even if it leaves no majority of voters heard from recently. The operator knows
    /// something that the leader does not.
    pub force: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// One tick of the clock passed.
    Tick,
    /// A peer's message arrived. For InstallSnapshot: its content is in the snapshot store.
    Message(PeerMessage),
    /// Append to the log, if this replica leads.
    Propose(Vec<Proposal>),
    /// Change the membership, if this replica leads. A change of the voters is answered when a
    /// majority of those that would vote after it has shown that it is there, or not for so long that
    /// it is refused.
    ProposeConfChange(ProposalId, ConfChange, Care),
    /// Find an index that a linearizable read must wait for (Raft dissertation §6.4).
    Read(ReadId),
    /// Nobody waits for this read any more.
    AbandonRead(ReadId),
    /// The write of this number, and all before it, survive a power loss.
    Persisted(WriteNumber),
    /// The machine has applied all entries up to and including this index.
    Applied(Index),
    /// What became of a [`LogRead`].
    LogRead(LogRead, Result<Vec<LogEntry>, StorageError>),
    /// A snapshot of the machine is in the snapshot store.
    SnapshotSaved(SnapshotMeta),
    /// What became of a snapshot to a peer.
    SnapshotSent(NodeId, SnapshotFate),
    /// The snapshot at this index cannot be read any more; the newest that can, if any.
    SnapshotGone(Index, Option<SnapshotMeta>),
    /// The log is damaged somewhere: forget all of it that the newest snapshot covers, whoever may want it.
    CompactAll,
    /// Somebody on this node reads the log after this entry: as much as `held_bytes` allows is kept for that.
    /// `None`: nobody any more.
    HoldLog(Option<Index>),
    /// Messages to a peer could not be sent.
    Unreachable(NodeId),
    /// Hand leadership over; `None`: to the most up-to-date active voter.
    TransferLeader(Option<NodeId>),
    /// Start an election now (the only voter of a group need not wait).
    Campaign,
    /// The machine's state cannot be trusted: get it a fresh one. Ends with the next
    /// [`ApplyTask::Install`], or with [`Input::Trusted`].
    Quarantined,
    /// The machine has a state that can be trusted.
    Trusted,
    /// Whether the others say that this replica is no member any more: then it does not campaign.
    Expelled(bool),
    /// The nodes whose state cannot be trusted as far as is known: leadership is not handed to
    /// them.
    Distrusted(BTreeSet<NodeId>),
    /// How much room the disk of this replica has left, and how many bytes.
    Space(Space, u64),
    /// How much room a peer says that its disk has left.
    PeerSpace(NodeId, Space),
    /// Whether an operator wants others to lead: then it does not campaign while anybody else does,
    /// and takes no leadership that it is handed.
    OffDuty(bool),
}

/// Why a proposal was not appended. It surely does not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or nobody is known to.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// Too many bytes are uncommitted, or not applied.
    #[error("too many bytes: {} is {}", .0.limit, .0.max)]
    Busy(Exceeded),
    /// The membership change makes no sense now.
    #[error(transparent)]
    ConfChange(#[from] ConfChangeError),
}

/// Where a proposal went. Whether it is committed shows when that index is applied: if the
/// term there is another one, the proposal did not happen.
pub type ProposalReply = (ProposalId, Result<LogPosition, ProposeError>);

/// Which write; they ascend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteNumber(pub u64);

/// A batch that must be persisted. Writes are numbered and persisted in order.
#[derive(Debug)]
pub struct Write {
    /// To be handed back with [`Input::Persisted`].
    pub number: WriteNumber,
    /// What to write.
    pub write: GroupWrite,
}

/// Whom entries are read from the disk for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogReader {
    /// The machine lags behind what is committed.
    Machine,
    /// That peer lags behind the log.
    Peer(NodeId),
}

/// Entries that are wanted and not in memory any more. Reading them may take long, so somebody
/// else does, with [`LogRead::run`], and hands in what it found as [`Input::LogRead`]. At most one
/// per [`LogReader`] is under way.
#[derive(Clone, Debug)]
pub struct LogRead {
    /// Who wants them.
    pub reader: LogReader,
    /// Which ones; not empty.
    pub range: Range<Index>,
    /// As many of them as fit so many bytes, but at least one.
    pub max_bytes: u64,
    /// Of the log at the time of asking.
    pub(super) epoch: u64,
}

impl LogRead {
    /// Reads. Blocks.
    ///
    /// # Errors
    /// What the store reports; the replica knows what it means.
    pub fn run(&self, log: &dyn LogStore, group: GroupId) -> Result<Vec<LogEntry>, StorageError> {
        log.entries(group, self.range.clone(), self.max_bytes)
    }
}

/// A committed entry, durable here.
#[derive(Clone, Debug)]
pub struct CommittedEntry {
    /// The entry.
    pub entry: LogEntry,
    /// For a membership change: what changed and the configuration that results.
    pub membership: Option<(ConfChange, ConfState)>,
}

/// Work for the owner of the machine, in order.
#[derive(Debug)]
pub enum ApplyTask {
    /// Apply these entries, contiguous with all before.
    Entries(Vec<CommittedEntry>),
    /// Replace the machine by this snapshot.
    Install(SnapshotMeta),
}

/// A linearizable read may be answered once `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// As given to [`Input::Read`].
    pub id: ReadId,
    /// What must be applied first.
    pub index: Index,
}

/// What the caller has to do. The order between the fields does not matter, the order
/// within each does.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent; may be lost.
    pub messages: Vec<PeerMessage>,
    /// To be persisted.
    pub writes: Vec<Write>,
    /// For the machine.
    pub apply: Vec<ApplyTask>,
    /// To be read from the log store; in any order, off this thread.
    pub log_reads: Vec<LogRead>,
    /// Entries from this index on were replaced by those of another leader. That tells nothing
    /// about whether they will be committed: a node that has them yet may lead one day.
    pub truncated_from: Option<Index>,
    /// Answers to reads.
    pub reads: Vec<ReadReady>,
    /// Answers to proposals.
    pub proposals: Vec<ProposalReply>,
    /// A follower needs a snapshot newer than the newest: take one. Repeated until there is one.
    pub snapshot_wanted: bool,
    /// Role, term or leader changed.
    pub leadership_changed: bool,
    /// Who sent what no correct peer sends to this replica. It was dropped.
    pub nonsense: Vec<(NodeId, Nonsense)>,
}
