//! Requests that wait for a node's answer.
//!
//! A request is the future that the node's own handle gives. Nothing wakes it: the world looks
//! at all of a node's requests after each of its steps.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use raft_host::backup::{BackupFacts, BackupWriter};
use raft_host::fsm::LimitChange;
use raft_host::machine::{AccessChange, KeyChange, QueryReply, Verdict};
use raft_host::node::{
    AccessFailure, AccessSet, Admission, AdmissionFailure, Command, Consistency, KeysFailure,
    KeysSet, LevelSet, LimitsFailure, LimitsSet, MembershipFailure, NodeHandle, ProposeFailure,
    ProposeResult, QueryFailure, RehearsalFailure, Request, RewindTrial, Upgrade, UpgradeFailure,
    Upgraded,
};
use raft_host::types::{JoinNonce, Level, NodeId, SnapshotMeta};

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client, and which of its attempts.
    Client(usize, u64),
    /// An operator's task, and which of its attempts.
    Operator(u64, u64),
    /// A probe.
    Probe(u64),
    /// Whoever takes a backup.
    Backup,
}

/// What is asked of a node.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Propose(Request),
    /// Commands as one entry.
    ProposeBatch(Vec<Command>),
    Query(Bytes, Consistency),
    /// With the level that the joining program offers.
    Join(String, JoinNonce, Level),
    /// The same, with a join token.
    Admit(Admission, Level),
    Promote(NodeId),
    Remove(NodeId),
    /// With its new address.
    Move(NodeId, String),
    Upgrade {
        upgrade: Upgrade,
        chunk_bytes: usize,
    },
    Snapshot,
    SetLimits(LimitChange),
    SetKeys(Vec<KeyChange>),
    CompareDigests,
    RaiseLevel,
    SetAccess(Vec<AccessChange>),
    /// A module that is not to be activated yet.
    BringIn {
        module: Bytes,
        chunk_bytes: usize,
    },
    /// What undoing the last upgrade would change.
    TryRewind,
    Backup,
}

/// How a node answers.
#[derive(Debug)]
pub(super) enum Answered {
    Proposed(ProposeResult),
    /// One for each command.
    BatchProposed(Vec<ProposeResult>),
    Queried(Result<QueryReply, QueryFailure>),
    Learner(Result<NodeId, MembershipFailure>),
    /// A join token does not count; why.
    TurnedAway(String),
    Member(Result<(), MembershipFailure>),
    Upgraded(Result<Upgraded, UpgradeFailure>),
    Snapshot(Result<SnapshotMeta, String>),
    LimitsSet(Result<LimitsSet, LimitsFailure>),
    KeysSet(Result<KeysSet, KeysFailure>),
    LevelRaised(Result<LevelSet, ProposeFailure>),
    AccessSet(Result<AccessSet, AccessFailure>),
    Compared(Result<Verdict, ProposeFailure>),
    BroughtIn(Result<(), UpgradeFailure>),
    RewindTried(Result<RewindTrial, RehearsalFailure>),
    BackedUp(Result<Vec<u8>, String>),
    /// Nobody was there to ask.
    Unreachable,
    /// The node died with the request.
    BrokenOff,
}

/// A request under way.
pub(super) struct Call {
    /// Whose.
    pub owner: Owner,
    future: Pin<Box<dyn Future<Output = Answered>>>,
}

impl Call {
    /// Asks. What must be sent to the node's queue is sent.
    pub(super) fn new(owner: Owner, handle: &NodeHandle, ask: Ask) -> Call {
        let handle = handle.clone();
        let future = Box::pin(async move {
            match ask {
                Ask::Propose(request) => Answered::Proposed(handle.propose(request).await),
                Ask::ProposeBatch(commands) => {
                    Answered::BatchProposed(handle.propose_batch(commands).await)
                }
                Ask::Query(query, consistency) => {
                    Answered::Queried(handle.query(query, consistency).await)
                }
                Ask::Join(address, nonce, offered) => {
                    Answered::Learner(handle.join(None, address, nonce, offered).await)
                }
                Ask::Admit(coming, offered) => admit(&handle, &coming, offered).await,
                Ask::SetAccess(changes) => Answered::AccessSet(handle.set_access(changes).await),
                Ask::RaiseLevel => Answered::LevelRaised(handle.raise_level(None).await),
                Ask::Promote(node) => Answered::Member(handle.promote(node).await),
                Ask::Move(node, address) => Answered::Member(handle.relocate(node, address).await),
                Ask::Remove(node) => Answered::Member(handle.remove(node, false).await),
                Ask::Upgrade { upgrade, chunk_bytes } => {
                    Answered::Upgraded(handle.upgrade_checked(upgrade, chunk_bytes).await)
                }
                Ask::BringIn { module, chunk_bytes } => {
                    Answered::BroughtIn(handle.bring_in_checked(&module, chunk_bytes).await)
                }
                Ask::SetLimits(change) => {
                    Answered::LimitsSet(handle.set_limits(vec![change]).await)
                }
                Ask::SetKeys(changes) => Answered::KeysSet(handle.set_keys(changes).await),
                Ask::CompareDigests => Answered::Compared(handle.compare_digests().await),
                Ask::TryRewind => Answered::RewindTried(handle.try_rewind_here().await),
                Ask::Backup => Answered::BackedUp(back_up(&handle).await),
                Ask::Snapshot => Answered::Snapshot(handle.take_snapshot().await),
            }
        });
        Call { owner, future }
    }

    /// The answer, if it is there.
    pub(super) fn poll(&mut self) -> Option<Answered> {
        let mut context = Context::from_waker(Waker::noop());
        match self.future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

/// As the API of a leader lets a newcomer in that brings a token.
async fn admit(handle: &NodeHandle, coming: &Admission, offered: Level) -> Answered {
    let refused = |failure: AccessFailure| match failure {
        AccessFailure::Refused(why) => Answered::TurnedAway(why.to_string()),
        AccessFailure::Propose(failure) => Answered::Learner(Err(failure.into())),
    };
    let token = match handle.check_admission(coming) {
        Ok(token) => token,
        Err(AdmissionFailure::NoState(failure)) => return Answered::Learner(Err(failure)),
        Err(why) => return Answered::TurnedAway(why.to_string()),
    };
    if let Err(failure) = handle.use_token_up(coming, &token).await {
        return refused(failure);
    }
    let address = coming.address.clone();
    let id = match handle.join(None, address, coming.nonce, offered).await {
        Ok(id) => id,
        Err(failure) => return Answered::Learner(Err(failure)),
    };
    match handle.note_newcomer(coming, &token, id).await {
        Ok(()) => Answered::Learner(Ok(id)),
        Err(failure) => refused(failure),
    }
}

/// A backup, as a node's API writes it, but for the time.
async fn back_up(handle: &NodeHandle) -> Result<Vec<u8>, String> {
    let copy = handle.copy().await?;
    let node = handle.identity().node;
    let facts = BackupFacts::of(&copy.state, copy.position, copy.digest, node, "simulated");
    let write = || {
        let mut writer = BackupWriter::begin(Vec::new(), &BackupFacts { saved_ms: 0, ..facts })?;
        copy.state.write_to(&mut writer)?;
        writer.finish()
    };
    write().map(|(_, bytes)| bytes).map_err(|error| error.to_string())
}
