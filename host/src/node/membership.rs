//! Joins, promotions, removals and leadership transfers, as operators see them.

use std::time::Duration;

use tokio::sync::oneshot;

use super::event_loop::Event;
use super::handle::{NodeHandle, ProposeFailure, ReplySink, stopped_unknown};
use crate::consensus::{ConfChangeError, Role};
use crate::types::{ConfChange, ConfChangeOp, Member, NodeId};

/// Why a membership operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipFailure {
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
    /// The id belongs to another node.
    #[error(
        "node id {id} is in use by the member at {address}; ids are never used twice: leave the \
         choice to the cluster, or remove that member first"
    )]
    IdInUse {
        /// The id.
        id: NodeId,
        /// Its holder.
        address: String,
    },
    /// The id belonged to a node that was removed.
    #[error(
        "node id {0} was used before by a node that has been removed; ids are never used twice: \
         leave the choice to the cluster"
    )]
    IdWasUsed(NodeId),
    /// A voter has that address: its votes and log must not be forgotten.
    #[error(
        "the address {address} belongs to node {id}, a voter; a node that lost its data must be \
         removed (`raft-host members remove {id}`) before it joins again"
    )]
    AddressOfVoter {
        /// The voter.
        id: NodeId,
        /// The address.
        address: String,
    },
    /// The address is not one.
    #[error("{0:?} is not an address: expected HOST:PORT")]
    BadAddress(String),
    /// This node has no state yet.
    #[error("this node has not caught up with its cluster yet; ask another one")]
    NoState,
    /// The transfer did not come about; the old leader goes on.
    #[error("leadership did not move to {0} in time; the old leader goes on")]
    TransferTimedOut(String),
    /// Not a voter, so it cannot lead.
    #[error("node {0} is not a voter, so it cannot lead")]
    NotAVoter(NodeId),
    /// Nobody to hand over to.
    #[error("there is no other voter to hand leadership to")]
    NoOtherVoter,
}

impl NodeHandle {
    /// Adds a learner, or finds the learner that has this address. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn add_learner(
        &self,
        id: Option<NodeId>,
        address: String,
    ) -> Result<NodeId, MembershipFailure> {
        check_address(&address)?;
        let view = self.machine_view()?;
        if let Some(member) = view.members.values().find(|member| member.address == address) {
            if view.conf_state.is_voter(member.id) {
                return Err(MembershipFailure::AddressOfVoter { id: member.id, address });
            }
            if id.is_none_or(|id| id == member.id) {
                return Ok(member.id);
            }
        }
        let id = match id {
            None => view.next_node_id,
            Some(id) => {
                if let Some(member) = view.members.get(&id) {
                    let address = member.address.clone();
                    return Err(MembershipFailure::IdInUse { id, address });
                }
                if id < view.next_node_id {
                    return Err(MembershipFailure::IdWasUsed(id));
                }
                id
            }
        };
        self.change(ConfChangeOp::AddLearner, Member { id, address }).await?;
        Ok(id)
    }

    /// Makes a learner that has caught up a voter. Done already: fine. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn promote(&self, id: NodeId) -> Result<(), MembershipFailure> {
        let view = self.machine_view()?;
        if view.conf_state.is_voter(id) {
            return Ok(());
        }
        let member = view.members.get(&id).cloned().ok_or_else(|| not_a_member(id))?;
        self.change(ConfChangeOp::AddVoter, member).await
    }

    /// Removes a member. Gone already: an error, since the id may be a mistake. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipFailure> {
        let view = self.machine_view()?;
        let member = view.members.get(&id).cloned().ok_or_else(|| not_a_member(id))?;
        self.change(ConfChangeOp::Remove, member).await
    }

    /// Hands leadership over and waits until somebody else leads. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
    ) -> Result<NodeId, MembershipFailure> {
        let me = self.identity().node;
        let mut leadership = self.leadership();
        let now = leadership.borrow().clone();
        if now.role != Role::Leader {
            return Err(ProposeFailure::NotLeader(now.leader).into());
        }
        if to == Some(me) {
            return Ok(me);
        }
        let view = self.machine_view()?;
        if let Some(to) = to
            && !view.conf_state.voters.contains(&to)
        {
            return Err(if view.members.contains_key(&to) {
                MembershipFailure::NotAVoter(to)
            } else {
                not_a_member(to)
            });
        }
        if view.conf_state.voters.iter().all(|voter| *voter == me) {
            return Err(MembershipFailure::NoOtherVoter);
        }
        self.send(Event::TransferLeader(to))?;
        let patience = Duration::from_millis(self.config().election_ms * 3);
        let moved = leadership.wait_for(|now| {
            now.leader.as_ref().is_some_and(|leader| leader.id != me) && now.role != Role::Leader
        });
        let target = to.map_or_else(|| "another voter".to_owned(), |to| format!("node {to}"));
        match tokio::time::timeout(patience, moved).await {
            Ok(Ok(now)) => Ok(now.leader.as_ref().expect("waited for").id),
            Ok(Err(_)) => Err(stopped_unknown().into()),
            Err(_) => Err(MembershipFailure::TransferTimedOut(target)),
        }
    }

    fn machine_view(&self) -> Result<std::sync::Arc<super::MachineView>, MembershipFailure> {
        self.shared.machine.borrow().clone().ok_or(MembershipFailure::NoState)
    }

    async fn change(&self, op: ConfChangeOp, member: Member) -> Result<(), MembershipFailure> {
        let charge = self.charge_request()?;
        let (sender, receiver) = oneshot::channel();
        let waiter = NodeHandle::waiter(ReplySink::One(sender), charge);
        let change = ConfChange { steps: vec![(op, member)] };
        self.send(Event::ConfChange(change, waiter))?;
        receiver.await.unwrap_or_else(|_| Err(stopped_unknown()))?;
        Ok(())
    }

    fn send(&self, event: Event) -> Result<(), ProposeFailure> {
        self.shared.events.send(event).map_err(|_| ProposeFailure::Stopping)
    }
}

fn not_a_member(id: NodeId) -> MembershipFailure {
    ProposeFailure::from(ConfChangeError::NotAMember(id)).into()
}

impl From<ConfChangeError> for MembershipFailure {
    fn from(error: ConfChangeError) -> MembershipFailure {
        ProposeFailure::from(error).into()
    }
}

/// `HOST:PORT` with a host and a port that others could dial.
fn check_address(address: &str) -> Result<(), MembershipFailure> {
    let parts = address.rsplit_once(':');
    let good = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good { Ok(()) } else { Err(MembershipFailure::BadAddress(address.to_owned())) }
}
