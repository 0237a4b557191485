//! What the threads of a node say to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::answer::{MachineCopy, QueryJob};
use super::budget::Charge;
use super::metrics::NodeMetrics;
use super::shadow::ShadowStart;
use super::waiter::Waiter;
use crate::consensus::{Care, CommittedEntry, LogRead, ReplicaStatus, WriteNumber};
use crate::machine::MachineSnapshot;
use crate::storage::{SnapshotMeta, StorageError};
use crate::types::{
    Actor, ConfChange, ConfState, GroupId, Index, Level, LogEntry, Member, NodeId, PeerMessage,
    SnapshotFate, Space, StateDigest,
};

/// What wakes the loop.
pub(super) enum Event {
    Submit(Vec<Submission>),
    ConfChange(ConfChange, Care, Waiter),
    TransferLeader(Option<NodeId>),
    /// Whether an operator wants others to lead.
    OffDuty(bool),
    Messages(Vec<PeerMessage>, Charge),
    Query(QueryJob),
    StaleQuery(QueryJob),
    Status(oneshot::Sender<ReplicaStatus>),
    TakeSnapshot(oneshot::Sender<Result<SnapshotMeta, String>>),
    Copy(oneshot::Sender<Result<MachineCopy, String>>),
    Shadow(oneshot::Sender<Result<ShadowStart, String>>),
    /// A shadow's time is over, and it wants the state then.
    ShadowOver,
    Persisted(WriteNumber),
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
    RaiseLevel(Option<Level>, Actor, Waiter),
    /// The machine's members changed, as of an applied entry or a snapshot.
    Members(Arc<BTreeMap<NodeId, Member>>, Arc<ConfState>),
    SnapshotSaved(SnapshotMeta),
    SnapshotSent(NodeId, SnapshotFate),
    /// The stored snapshot at this index is gone; the newest one now.
    SnapshotGone(Index, Option<SnapshotMeta>),
    /// The stored snapshot at this index cannot be sent to anybody.
    SnapshotUnreadable(Index),
    /// A part of the log that the newest snapshot covers is damaged.
    CompactAll,
    /// A rehearsal reads the log after this entry; `None`: it has ended.
    HoldLog(Option<Index>),
    Unreachable(NodeId),
    PeerSeen(Member),
    /// A task that this node cannot do without panicked.
    Broken(&'static str),
    /// This member says that this node is no member as of this index.
    RemovalSaid(NodeId, Index),
    /// What this node's disk has left, and how many bytes.
    Space(Space, u64),
    /// The machine applies nothing more, for this reason: stop soon.
    Halted(String),
    /// Something stopped the node: look at the signal.
    Stop,
}

/// What is to become an entry, or a part of one.
#[derive(Debug)]
pub(super) enum Payload {
    /// Commands.
    Commands(Commands),
    /// An encoded entry of another kind, and whether it is a [fence](crate::consensus::Proposal::is_fence).
    Entry { data: Bytes, is_fence: bool },
}

/// Encoded as the content of a `raft_host.storage.v1.Batch`: one behind the other they are one batch.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) encoded: Bytes,
    pub(super) count: u64,
}

/// An encoded proposal with its waiter.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) payload: Payload,
    pub(super) waiter: Waiter,
}

/// What commands cost that were applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) commands: u64,
    pub(super) fuel: u64,
}

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
    /// Copy the state, for somebody else than the store.
    Copy(oneshot::Sender<Result<MachineCopy, String>>),
    /// Copy the state, and show what comes after it.
    Shadow(oneshot::Sender<Result<ShadowStart, String>>),
    /// Copy the state once more, and show nothing else.
    ShadowOver,
    /// A follower needs a snapshot newer than the newest.
    SnapshotWanted,
    /// The stored snapshot at this index cannot be sent.
    SnapshotUnreadable(Index),
    /// What the disk has left, and how many bytes: free what can be freed if that is little.
    Space(Space, u64),
    /// The snapshot thread is done; it may have failed.
    Saved(Option<SnapshotMeta>),
    /// Fails the machine's memory, for tests.
    #[cfg(feature = "museum")]
    FlipBit(u64),
    /// The event loop has ended. The queue itself stays open: the snapshot thread answers
    /// into it.
    End,
}

/// A captured machine on its way to the store.
pub(super) struct SaveJob {
    pub(super) meta: SnapshotMeta,
    pub(super) image: MachineSnapshot,
    /// How many snapshots of the group are kept.
    pub(super) keep: usize,
    /// Who hears of it.
    pub(super) done: Sender<Job>,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// What comes into the queue of the event loop.
pub(super) enum Mail {
    /// Something happened to a group.
    Event(GroupId, Event),
    /// Another group is there, or somebody has stopped one: look.
    Look,
}

/// Whoever sees to it that mail is looked at.
pub(super) trait Postman: Send + Sync {
    /// There is one letter more in the queue.
    fn mail_came(&self);
}

/// The queue into the event loop.
#[derive(Clone)]
pub(super) struct Mailbox {
    queue: Sender<Mail>,
    postman: Arc<dyn Postman>,
}

/// The event loop has ended, and with it all groups.
#[derive(Debug)]
pub(super) struct LoopEnded;

impl Mailbox {
    pub(super) fn new(queue: Sender<Mail>, postman: Arc<dyn Postman>) -> Mailbox {
        Mailbox { queue, postman }
    }

    /// The event loop may take its turn on the caller's thread: nobody may send who holds a lock that
    /// a turn takes.
    pub(super) fn send(&self, mail: Mail) -> Result<(), LoopEnded> {
        self.queue.send(mail).map_err(|_| LoopEnded)?;
        self.postman.mail_came();
        Ok(())
    }
}

/// The way to a group in the event loop.
#[derive(Clone)]
pub(super) struct EventSender {
    group: GroupId,
    mail: Mailbox,
}

impl EventSender {
    pub(super) fn new(group: GroupId, mail: Mailbox) -> EventSender {
        EventSender { group, mail }
    }

    /// An event for a group that has been stopped is dropped, and with it whoever waits in it.
    pub(super) fn send(&self, event: Event) -> Result<(), LoopEnded> {
        self.mail.send(Mail::Event(self.group, event))
    }
}
