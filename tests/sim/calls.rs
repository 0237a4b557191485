//! Requests that wait for a node's answer.
//!
//! A request is the future that the node's own handle gives. Nothing wakes it: the world looks
//! at all of a node's requests after each of its steps.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use raft_host::fsm::LimitChange;
use raft_host::machine::{AccessChange, KeyChange, QueryReply, Verdict};
use raft_host::node::{
    AccessFailure, AccessSet, Command, Consistency, KeysFailure, KeysSet, LevelSet, LimitsFailure,
    LimitsSet, MembershipFailure, NodeHandle, ProposeFailure, ProposeResult, QueryFailure, Request,
    Upgrade, UpgradeFailure, Upgraded,
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
}

/// How a node answers.
#[derive(Debug)]
pub(super) enum Answered {
    Proposed(ProposeResult),
    /// One for each command.
    BatchProposed(Vec<ProposeResult>),
    Queried(Result<QueryReply, QueryFailure>),
    Learner(Result<NodeId, MembershipFailure>),
    Member(Result<(), MembershipFailure>),
    Upgraded(Result<Upgraded, UpgradeFailure>),
    Snapshot(Result<SnapshotMeta, String>),
    LimitsSet(Result<LimitsSet, LimitsFailure>),
    KeysSet(Result<KeysSet, KeysFailure>),
    LevelRaised(Result<LevelSet, ProposeFailure>),
    AccessSet(Result<AccessSet, AccessFailure>),
    Compared(Result<Verdict, ProposeFailure>),
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
                Ask::SetAccess(changes) => Answered::AccessSet(handle.set_access(changes).await),
                Ask::RaiseLevel => Answered::LevelRaised(handle.raise_level(None).await),
                Ask::Promote(node) => Answered::Member(handle.promote(node).await),
                Ask::Move(node, address) => Answered::Member(handle.relocate(node, address).await),
                Ask::Remove(node) => Answered::Member(handle.remove(node, false).await),
                Ask::Upgrade { upgrade, chunk_bytes } => {
                    Answered::Upgraded(handle.upgrade_checked(upgrade, chunk_bytes).await)
                }
                Ask::SetLimits(change) => {
                    Answered::LimitsSet(handle.set_limits(vec![change]).await)
                }
                Ask::SetKeys(changes) => Answered::KeysSet(handle.set_keys(changes).await),
                Ask::CompareDigests => Answered::Compared(handle.compare_digests().await),
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
