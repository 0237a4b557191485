//! Which membership changes make sense, and how they are written into the log.

use std::collections::BTreeSet;

use prost::Message as _;
use raft::eraftpb;
use raft_host_proto::stored;
use raft_host_proto::stored::membership_step::Kind;

use super::convert;
use super::status::Quorum;
use crate::types::{
    AddressError, ConfChange, ConfChangeOp, ConfState, Index, JoinNonce, LogEntry, Member, NodeId,
    check_address,
};

/// Most members of a group: each has an entry in each snapshot's header, a progress with the
/// leader, and a connection to everybody else.
pub const MEMBERS_MAX: usize = 256;

/// Why a membership change is refused. It surely does not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConfChangeError {
    #[error(
        "another change of the members or of the level is in progress; wait for it and try again"
    )]
    InProgress,
    #[error(
        "who may change the members may have changed since this was decided on; nothing was changed: \
         try again"
    )]
    RightsChanged,
    #[error("this node leads only since a moment, and has not heard from all voters; try again")]
    JustElected,
    #[error(
        "the change would leave a cluster that cannot make a majority: {0}. Bring back who is \
         missing, or remove those first; with --force it is made all the same, and if they do not \
         come back the cluster never serves again"
    )]
    NoQuorum(Quorum),
    #[error(
        "learner {0} has not been heard from recently, so it must not become a voter: is it \
         running, and can its address be dialed?"
    )]
    NotHeardFrom(NodeId),
    #[error("a cluster has at most {MEMBERS_MAX} members")]
    TooManyMembers { members: usize },
    #[error("node {id}: {error}")]
    BadAddress { id: NodeId, error: AddressError },
    #[error("node {0} is the last voter: a cluster without voters could never serve again")]
    LastVoter(NodeId),
    #[error("node {0} is not a member; see `raft-host members list`")]
    NotAMember(NodeId),
    #[error("node {0} is already a member")]
    AlreadyAMember(NodeId),
    #[error("node {0} is a voter already")]
    AlreadyAVoter(NodeId),
    #[error(
        "learner {node} has not caught up: it has entries up to {matched}, the log ends at {last}; \
         try again when `raft-host status` shows it closer"
    )]
    NotCaughtUp { node: NodeId, matched: Index, last: Index },
    #[error("the change names node {0} twice")]
    NamedTwice(NodeId),
    #[error("node {0} joins by a change that does not add it")]
    StrangeJoin(NodeId),
    #[error("node id 0 is not allowed")]
    ZeroId,
    #[error("node id {0} is not allowed: ids go up to {max}", max = NodeId::HIGHEST)]
    IdTooHigh(NodeId),
    #[error("the change has no steps")]
    Empty,
}

/// What can be said of the steps by themselves.
fn validate_steps(change: &ConfChange) -> Result<(), ConfChangeError> {
    if change.steps.len() > MEMBERS_MAX {
        return Err(ConfChangeError::TooManyMembers { members: change.steps.len() });
    }
    for id in change.joins.keys() {
        let adds = |(op, member): &(ConfChangeOp, Member)| {
            *op == ConfChangeOp::AddLearner && member.id == *id
        };
        if !change.steps.iter().any(adds) {
            return Err(ConfChangeError::StrangeJoin(*id));
        }
    }
    for (op, member) in &change.steps {
        let id = member.id;
        if id.0 == 0 {
            return Err(ConfChangeError::ZeroId);
        }
        if id > NodeId::HIGHEST {
            return Err(ConfChangeError::IdTooHigh(id));
        }
        // Who is promoted or removed may come without the address, which is known.
        let needs_address = matches!(op, ConfChangeOp::AddLearner | ConfChangeOp::Move);
        if needs_address || !member.address.is_empty() {
            check_address(&member.address)
                .map_err(|error| ConfChangeError::BadAddress { id, error })?;
        }
    }
    Ok(())
}

/// Checks the steps against the configuration they would change, and returns the voters after
/// them.
pub(super) fn validate(
    change: &ConfChange,
    current: &ConfState,
) -> Result<BTreeSet<NodeId>, ConfChangeError> {
    if !current.voters_outgoing.is_empty() {
        return Err(ConfChangeError::InProgress);
    }
    if change.steps.is_empty() {
        return Err(ConfChangeError::Empty);
    }
    validate_steps(change)?;
    let mut voters = current.voters.clone();
    let mut nodes = current.nodes();
    let mut named = BTreeSet::new();
    for (op, member) in &change.steps {
        match op {
            ConfChangeOp::Remove => nodes.remove(&member.id),
            ConfChangeOp::AddLearner | ConfChangeOp::AddVoter => nodes.insert(member.id),
            ConfChangeOp::Move => false,
        };
        if !named.insert(member.id) {
            return Err(ConfChangeError::NamedTwice(member.id));
        }
        match op {
            ConfChangeOp::AddLearner if change.joins.contains_key(&member.id) => {
                if current.is_voter(member.id) {
                    return Err(ConfChangeError::AlreadyAVoter(member.id));
                }
            }
            ConfChangeOp::AddLearner if current.learners.contains(&member.id) => {
                return Err(ConfChangeError::AlreadyAMember(member.id));
            }
            ConfChangeOp::AddLearner => {
                voters.remove(&member.id);
            }
            ConfChangeOp::AddVoter if current.voters.contains(&member.id) => {
                return Err(ConfChangeError::AlreadyAVoter(member.id));
            }
            ConfChangeOp::AddVoter => {
                voters.insert(member.id);
            }
            ConfChangeOp::Remove | ConfChangeOp::Move if !current.contains(member.id) => {
                return Err(ConfChangeError::NotAMember(member.id));
            }
            ConfChangeOp::Move => {}
            ConfChangeOp::Remove => {
                voters.remove(&member.id);
            }
        }
    }
    if voters.is_empty() {
        let (_, last) = change
            .steps
            .iter()
            .find(|(_, member)| current.voters.contains(&member.id))
            .expect("voters became empty by one of the steps");
        return Err(ConfChangeError::LastVoter(last.id));
    }
    if nodes.len() > MEMBERS_MAX {
        return Err(ConfChangeError::TooManyMembers { members: nodes.len() });
    }
    Ok(voters)
}

/// The entry's data (raft-rs reads it) and context (the addresses, which raft-rs does not know). To
/// raft-rs a member that moves becomes what it is.
pub(super) fn encode(change: &ConfChange, current: &ConfState) -> (Vec<u8>, Vec<u8>) {
    let mut raft = eraftpb::ConfChangeV2::default();
    for (op, member) in &change.steps {
        let change_type = match op {
            ConfChangeOp::AddLearner => eraftpb::ConfChangeType::AddLearnerNode,
            ConfChangeOp::AddVoter => eraftpb::ConfChangeType::AddNode,
            ConfChangeOp::Remove => eraftpb::ConfChangeType::RemoveNode,
            ConfChangeOp::Move if current.is_voter(member.id) => eraftpb::ConfChangeType::AddNode,
            ConfChangeOp::Move => eraftpb::ConfChangeType::AddLearnerNode,
        };
        raft.mut_changes().push(eraftpb::ConfChangeSingle {
            node_id: member.id.0,
            change_type,
            ..Default::default()
        });
    }
    (
        protobuf::Message::write_to_bytes(&raft).expect("writing to memory does not fail"),
        record(change).encode_to_vec(),
    )
}

fn record(change: &ConfChange) -> stored::MembershipChange {
    let step = |(op, member): &(ConfChangeOp, Member)| {
        let kind = match op {
            ConfChangeOp::AddLearner => Kind::AddLearner,
            ConfChangeOp::AddVoter => Kind::AddVoter,
            ConfChangeOp::Remove => Kind::Remove,
            ConfChangeOp::Move => Kind::Move,
        };
        let nonce = change.joins.get(&member.id);
        stored::MembershipStep {
            kind: kind.into(),
            node_id: member.id.0,
            address: member.address.clone(),
            join_nonce: nonce.map(|nonce| nonce.0.to_vec().into()).unwrap_or_default(),
        }
    };
    stored::MembershipChange { steps: change.steps.iter().map(step).collect() }
}

/// What [`record`] made, and nothing else: a field or a kind that this version does not know must not
/// be passed over, since others take it for what it is.
fn change_of(context: &[u8]) -> Result<ConfChange, String> {
    let unknown = || "it holds what this version of raft-host does not know".to_owned();
    let record = stored::MembershipChange::decode(context).map_err(|error| error.to_string())?;
    if record.encoded_len() != context.len() {
        return Err(unknown());
    }
    let mut change = ConfChange::default();
    for step in record.steps {
        let op = match step.kind() {
            Kind::AddLearner => ConfChangeOp::AddLearner,
            Kind::AddVoter => ConfChangeOp::AddVoter,
            Kind::Remove => ConfChangeOp::Remove,
            Kind::Move => ConfChangeOp::Move,
            Kind::Unspecified => return Err(unknown()),
        };
        let id = NodeId(step.node_id);
        if !step.join_nonce.is_empty() {
            let nonce = JoinNonce::try_from(&step.join_nonce[..]);
            change
                .joins
                .insert(id, nonce.map_err(|error| format!("the nonce of a join: {error}"))?);
        }
        change.steps.push((op, Member { id, address: step.address }));
    }
    Ok(change)
}

/// Reads an entry back. Empty data and context: leave the joint configuration.
fn decode(data: &[u8], context: &[u8]) -> Result<(eraftpb::ConfChangeV2, ConfChange), String> {
    let mut raft = eraftpb::ConfChangeV2::default();
    protobuf::Message::merge_from_bytes(&mut raft, data)
        .map_err(|error| format!("membership entry: {error}"))?;
    let change = change_of(context).map_err(|error| format!("membership entry: {error}"))?;
    Ok((raft, change))
}

/// Whether an entry can be read when it is committed: then it is too late to refuse it.
pub(super) fn check(entry: &LogEntry) -> Result<(), String> {
    let (raft, change) = decode(&entry.data, &entry.context)?;
    let named = |id: u64| change.steps.iter().any(|(_, member)| member.id.0 == id);
    if raft.changes.len() != change.steps.len() || !raft.changes.iter().all(|c| named(c.node_id)) {
        return Err("it changes other nodes than it says".to_owned());
    }
    validate_steps(&change).map_err(|error| error.to_string())
}

/// Has raft-rs take a committed change. `None`: it refuses it, as it does on every replica in the
/// same configuration.
pub(super) fn apply<T: raft::Storage>(
    raw: &mut raft::RawNode<T>,
    entry: &LogEntry,
) -> Result<Option<ConfChange>, String> {
    let (raft, change) = decode(&entry.data, &entry.context)?;
    if let Err(error) = validate_steps(&change) {
        tracing::warn!(index = %entry.index, %error, "a membership change that no leader makes");
        return Ok(None);
    }
    if let Err(error) = raw.apply_conf_change(&raft) {
        tracing::warn!(index = %entry.index, %error, "a membership change that does not apply");
        return Ok(None);
    }
    Ok(Some(change))
}

/// raft-rs's current configuration.
pub(super) fn current<T: raft::Storage>(raw: &raft::RawNode<T>) -> ConfState {
    convert::from_raft_conf_state(&raw.raft.prs().conf().to_conf_state())
}
