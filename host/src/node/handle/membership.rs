//! Joins, promotions, removals and leadership transfers, as operators see them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::core::NodeHandle;
use crate::consensus::{Care, ConfChangeError, ReplicaStatus, Role};
use crate::machine::Class;
use crate::museum::{self, Exhibit};
use crate::node::answer::{MachineView, ProposeFailure, stopped_unknown};
use crate::node::message::Event;
use crate::node::waiter::{ReplySink, Waiter};
use crate::types::{
    AddressError, ConfChange, ConfChangeOp, JoinNonce, Level, Member, NodeId, Right, check_address,
};

/// How far above all that were given out an id may be that an operator chooses: far enough for
/// any way of numbering hosts, and so near that ids are never used up.
const ID_JUMP_MAX: u64 = 1 << 20;

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
        "node id {0} was used before by a node that has been removed, or passed over; such ids are given to \
         nobody: leave the choice to the cluster, or give the node a certificate with a higher id"
    )]
    IdWasUsed(NodeId),
    /// The id leaves too many unused.
    #[error(
        "node id {id} is too high: the next free one is {next}, and at most {max} is allowed; \
         leave the choice to the cluster"
    )]
    IdTooFar {
        /// The id.
        id: NodeId,
        /// What the cluster would choose.
        next: NodeId,
        /// The bound.
        max: u64,
    },
    /// An operator adds an address that a member has.
    #[error(
        "node {id} has the address {address}; a node that lost its data starts with --join and \
         gets a new id, or is removed (`raft-host members remove {id}`)"
    )]
    AddressInUse {
        /// The member.
        id: NodeId,
        /// The address.
        address: String,
    },
    /// Somebody else joins from the address of a member that is there.
    #[error(
        "node {id} has the address {address} and was heard from a moment ago: if the joining node \
         is what is left of it, it is taken in once node {id} has been silent for an election \
         timeout; if not, give it an address of its own (--listen, --advertise)"
    )]
    AddressAlive {
        /// The member.
        id: NodeId,
        /// The address.
        address: String,
    },
    /// The address is not one.
    #[error(transparent)]
    BadAddress(#[from] AddressError),
    /// The joining node's program would have to stop.
    #[error(
        "this cluster's level is {level}, and the joining node's program offers {offered}: run a \
         version of raft-host that offers it"
    )]
    LevelNotOffered {
        /// The cluster's.
        level: Level,
        /// The joining program's.
        offered: Level,
    },
    /// This node has no state yet.
    #[error("this node has not caught up with its cluster yet; ask another one")]
    NoState,
    /// The transfer did not come about; the old leader goes on.
    #[error("leadership did not move to {0} in time; the old leader goes on")]
    TransferTimedOut(String),
    /// Another one won the election.
    #[error("node {leader} leads now, and not node {asked}")]
    AnotherLeads {
        /// Who was to lead.
        asked: NodeId,
        /// Who does.
        leader: NodeId,
    },
    /// Nobody there to lead.
    #[error(
        "node {node} has not been heard from{}, so leadership stays where it is: no command would \
         be taken until the transfer was given up",
        .silent.map_or_else(String::new, |silent| format!(" for {silent:.1?}"))
    )]
    Silent {
        /// Who was to lead.
        node: NodeId,
        /// For how long; `None`: since this node leads.
        silent: Option<Duration>,
    },
    /// Nobody to take over.
    #[error("no other voter has been heard from recently, so leadership stays where it is")]
    AllSilent,
    /// Not a voter, so it cannot lead.
    #[error("node {0} is not a voter, so it cannot lead")]
    NotAVoter(NodeId),
    /// Nobody to hand over to.
    #[error("there is no other voter to hand leadership to")]
    NoOtherVoter,
    /// All others are off duty, or do not answer.
    #[error(
        "no other voter is there to lead: each is drained, or does not answer (see `raft-host status`); put \
         one of them back on duty first (`raft-host undrain`)"
    )]
    NobodyOnDuty,
    /// A learner that has not been well for long enough.
    #[error(
        "learner {node} becomes a voter when it has been caught up and heard from for {needed:.1?} without a \
         break; it has been for {stable:.1?} (autopilot.stable_ms)"
    )]
    NotStable {
        /// The learner.
        node: NodeId,
        /// For how long it has.
        stable: Duration,
        /// For how long it must.
        needed: Duration,
    },
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
        let view = self.view_of_leader().await?;
        if let Some(member) = view.members.values().find(|member| member.address == address) {
            // Of a learner that nobody has joined as yet it may be the same request again.
            if view.conf_state.is_voter(member.id) || view.joins.contains_key(&member.id) {
                return Err(MembershipFailure::AddressInUse { id: member.id, address });
            }
            if id.is_none_or(|id| id == member.id) {
                return Ok(member.id);
            }
        }
        let id = free_id(&view, id)?;
        let change = ConfChange::of(ConfChangeOp::AddLearner, Member { id, address });
        self.change(change, &view, false).await?;
        Ok(id)
    }

    /// Takes in a node without data that asks for it, as a learner. The same nonce again is the
    /// same request, whose answer was lost. Whoever has another one for the address of a member
    /// that joined is what is left of it: that member is removed by the same change that adds the
    /// new one, since with its old id it would deny the votes it gave and the entries it
    /// acknowledged. Its program must offer the level in force. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn join(
        &self,
        id: Option<NodeId>,
        address: String,
        nonce: JoinNonce,
        offered: Level,
    ) -> Result<NodeId, MembershipFailure> {
        check_address(&address)?;
        let view = self.view_of_leader().await?;
        let level = view.info.level;
        if offered < level {
            return Err(MembershipFailure::LevelNotOffered { level, offered });
        }
        let joined = view.joins.iter().find(|(_, known)| **known == nonce).map(|(node, _)| *node);
        if let Some(member) = joined.and_then(|node| view.members.get(&node))
            && id.is_none_or(|id| id == member.id)
            && member.address == address
        {
            return self.join_again(&view, member, nonce).await;
        }
        let Some(holder) = view.members.values().find(|member| member.address == address) else {
            let member = Member { id: free_id(&view, id)?, address };
            return self.take_in(&view, member, None, nonce).await;
        };
        if museum::is_on(Exhibit::AddressIsIdentity)
            && view.conf_state.learners.contains(&holder.id)
        {
            return Ok(holder.id);
        }
        let is_awaited = !view.conf_state.is_voter(holder.id)
            && !view.joins.contains_key(&holder.id)
            && id.is_none_or(|id| id == holder.id);
        if is_awaited {
            return self.take_in(&view, holder.clone(), None, nonce).await;
        }
        let status = self.replica_status().await?;
        if status.is_heard(holder.id) {
            return Err(MembershipFailure::AddressAlive { id: holder.id, address });
        }
        if status.is_new_leader {
            return Err(ConfChangeError::JustElected.into());
        }
        let member = Member { id: free_id(&view, id)?, address };
        tracing::warn!(
            lost = %holder.id, node = %member.id, address = member.address,
            "a member lost its data and joins again as another one"
        );
        self.take_in(&view, member, Some(holder.clone()), nonce).await
    }

    /// An entry of its own, although nothing changes: whoever is answered may rely on the join
    /// being known to a majority, which the first answer, that was lost, waited for.
    async fn join_again(
        &self,
        view: &MachineView,
        member: &Member,
        nonce: JoinNonce,
    ) -> Result<NodeId, MembershipFailure> {
        if view.conf_state.is_voter(member.id) {
            return Ok(member.id);
        }
        self.take_in(view, member.clone(), None, nonce).await
    }

    async fn take_in(
        &self,
        view: &MachineView,
        member: Member,
        lost: Option<Member>,
        nonce: JoinNonce,
    ) -> Result<NodeId, MembershipFailure> {
        let id = member.id;
        let mut change = ConfChange::of(ConfChangeOp::AddLearner, member);
        change.steps.extend(lost.map(|lost| (ConfChangeOp::Remove, lost)));
        change.joins.insert(id, nonce);
        self.change(change, view, false).await?;
        Ok(id)
    }

    /// Makes a learner that has caught up a voter. Done already: fine. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn promote(&self, id: NodeId) -> Result<(), MembershipFailure> {
        let view = self.view_of_leader().await?;
        if view.conf_state.is_voter(id) {
            return Ok(());
        }
        let member = view.members.get(&id).cloned().ok_or_else(|| not_a_member(id))?;
        self.change(ConfChange::of(ConfChangeOp::AddVoter, member), &view, false).await
    }

    /// As [`NodeHandle::promote`], of a learner that asks for it by itself: only when it has been caught up
    /// and has answered for so long without a break. Leader only.
    ///
    /// # Errors
    /// `NotStable`, and see [`MembershipFailure`].
    pub async fn promote_when_stable(
        &self,
        id: NodeId,
        needed: Duration,
    ) -> Result<(), MembershipFailure> {
        let status = self.replica_status().await?;
        if status.role == Role::Leader
            && status.conf_state.learners.contains(&id)
            && let Some(peer) = status.peer(id)
        {
            let stable = peer.stable_ticks.map_or(Duration::ZERO, |ticks| self.ticks(ticks));
            if peer.stable_ticks.is_none() || stable < needed {
                return Err(MembershipFailure::NotStable { node: id, stable, needed });
            }
        }
        self.promote(id).await
    }

    /// Gives a member another address. Has it already: fine. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn relocate(&self, id: NodeId, address: String) -> Result<(), MembershipFailure> {
        check_address(&address)?;
        let view = self.view_of_leader().await?;
        let member = view.members.get(&id).ok_or_else(|| not_a_member(id))?;
        if member.address == address {
            return Ok(());
        }
        if let Some(holder) = view.members.values().find(|member| member.address == address) {
            return Err(MembershipFailure::AddressInUse { id: holder.id, address });
        }
        tracing::info!(node = %id, from = member.address, to = address, "a member moves");
        let change = ConfChange::of(ConfChangeOp::Move, Member { id, address });
        self.change(change, &view, false).await
    }

    /// Makes a voter a learner, which goes on following the log. Done already: fine. `force`: as for
    /// [`NodeHandle::remove`]. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn demote(&self, id: NodeId, force: bool) -> Result<(), MembershipFailure> {
        let (member, view) = self.departing(id, None, force).await?;
        if !view.conf_state.is_voter(id) {
            return Ok(());
        }
        self.change(ConfChange::of(ConfChangeOp::AddLearner, member), &view, force).await
    }

    /// Has a learner that has caught up vote in the place of a member that is removed: by one change, so
    /// that there are never fewer voters. Done already: fine. `force`: as for [`NodeHandle::remove`]. Leader
    /// only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn replace(
        &self,
        old: NodeId,
        new: NodeId,
        force: bool,
    ) -> Result<(), MembershipFailure> {
        let view = self.view_of_leader().await?;
        let successor = view.members.get(&new).cloned().ok_or_else(|| not_a_member(new))?;
        let is_voter = view.conf_state.is_voter(new);
        if is_voter && !view.members.contains_key(&old) {
            return Ok(());
        }
        let (member, view) = self.departing(old, Some(new), force).await?;
        let mut change = ConfChange::of(ConfChangeOp::Remove, member);
        if !is_voter {
            change.steps.push((ConfChangeOp::AddVoter, successor));
        }
        self.change(change, &view, force).await
    }

    /// Removes a member. Gone already: an error, since the id may be a mistake. `force`: even if
    /// no majority of the voters that stay was heard from recently. Leader only.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn remove(&self, id: NodeId, force: bool) -> Result<(), MembershipFailure> {
        let (member, view) = self.departing(id, None, force).await?;
        let change = ConfChange::of(ConfChangeOp::Remove, member);
        self.change(change, &view, force).await
    }

    /// What would be said before anything changes, if a member were to vote no more and another one in its
    /// place. A leader asks before it hands leadership over in order to be removed or demoted by its successor.
    ///
    /// # Errors
    /// See [`MembershipFailure`].
    pub async fn check_departure(
        &self,
        id: NodeId,
        successor: Option<NodeId>,
        force: bool,
    ) -> Result<(), MembershipFailure> {
        self.departing(id, successor, force).await.map(drop)
    }

    async fn departing(
        &self,
        id: NodeId,
        successor: Option<NodeId>,
        force: bool,
    ) -> Result<(Member, Arc<MachineView>), MembershipFailure> {
        let view = self.view_of_leader().await?;
        let member = view.members.get(&id).cloned().ok_or_else(|| not_a_member(id))?;
        let mut voters = view.conf_state.voters.clone();
        let votes = voters.remove(&id);
        voters.extend(successor);
        if votes && !voters.is_empty() && !force {
            let status = self.replica_status().await?;
            let quorum = status.quorum_of(&voters);
            if !quorum.is_there() {
                return Err(match status.is_new_leader {
                    true => ConfChangeError::JustElected.into(),
                    false => ConfChangeError::NoQuorum(quorum).into(),
                });
            }
        }
        Ok((member, view))
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
        let status = self.replica_status().await?;
        let heard = |voter: &NodeId| *voter != me && status.is_heard(*voter);
        let is_silent = match to {
            Some(to) => !status.is_heard(to),
            None => !view.conf_state.voters.iter().any(heard),
        };
        if is_silent && status.is_new_leader {
            return Err(ConfChangeError::JustElected.into());
        } else if is_silent {
            return Err(to.map_or(MembershipFailure::AllSilent, |node| {
                let silent = status.peer(node).and_then(|peer| peer.silent_ticks);
                MembershipFailure::Silent { node, silent: silent.map(|ticks| self.ticks(ticks)) }
            }));
        }
        self.send(Event::TransferLeader(to))?;
        let patience = Duration::from_millis(self.config().election_ms * 3);
        let moved = leadership.wait_for(|now| {
            now.leader.as_ref().is_some_and(|leader| leader.id != me) && now.role != Role::Leader
        });
        let target = to.map_or_else(|| "another voter".to_owned(), |to| format!("node {to}"));
        match tokio::time::timeout(patience, moved).await {
            Ok(Ok(now)) => {
                let leader = now.leader.as_ref().expect("waited for").id;
                match to.filter(|asked| *asked != leader) {
                    Some(asked) => Err(MembershipFailure::AnotherLeads { asked, leader }),
                    None => Ok(leader),
                }
            }
            Ok(Err(_)) => Err(stopped_unknown().into()),
            Err(_) => Err(MembershipFailure::TransferTimedOut(target)),
        }
    }

    fn machine_view(&self) -> Result<Arc<MachineView>, MembershipFailure> {
        self.shared.machine.borrow().clone().ok_or(MembershipFailure::NoState)
    }

    /// What the machine says once it has applied all that this leader's log held when it was
    /// asked: the members that its predecessors let in or removed are in it. Decided on anything
    /// older, a node that lost its data could get back the id that it voted with.
    pub(super) async fn view_of_leader(&self) -> Result<Arc<MachineView>, MembershipFailure> {
        let status = self.replica_status().await?;
        let mut views = self.shared.machine.clone();
        let mut leadership = self.leadership();
        if status.role != Role::Leader {
            return Err(ProposeFailure::NotLeader(leadership.borrow().leader.clone()).into());
        }
        let applied = views.wait_for(|view| {
            view.as_ref().is_some_and(|view| view.info.applied >= status.last_index)
        });
        // What waits for a majority waits for ever once somebody else leads.
        let deposed = leadership.wait_for(|now| now.term > status.term);
        tokio::select! {
            biased;
            view = applied => match view {
                Ok(view) => view.clone().ok_or(MembershipFailure::NoState),
                Err(_) => Err(ProposeFailure::Stopping.into()),
            },
            now = deposed => {
                let leader = now.ok().and_then(|now| now.leader.clone());
                Err(ProposeFailure::NotLeader(leader).into())
            }
        }
    }

    pub(super) async fn replica_status(&self) -> Result<ReplicaStatus, MembershipFailure> {
        self.status().await.map_err(|_| ProposeFailure::Stopping.into())
    }

    pub(super) fn ticks(&self, ticks: u64) -> Duration {
        self.config().tick().saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Makes a change that was decided on by what this view shows, unless whoever asks for it may not.
    /// What stands between the view and the change in the log changes nothing about that: see
    /// [`Proposal::is_fence`](crate::consensus::Proposal::is_fence).
    async fn change(
        &self,
        change: ConfChange,
        view: &MachineView,
        force: bool,
    ) -> Result<(), MembershipFailure> {
        if let Some(actor) = self.asking()
            && !museum::is_on(Exhibit::MembersJudgedAtTheDoor)
        {
            let (access, time_ms) = (&view.info.access, view.info.time_ms);
            access
                .allows(actor, time_ms, self.group(), Right::Members, Class::Any)
                .map_err(|denied| ProposeFailure::Denied(Box::new(denied)))?;
        }
        let care = Care { decided_at: view.info.applied, force };
        let charge = self.charge_request()?;
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter::new(ReplySink::One(sender), charge);
        self.send(Event::ConfChange(change, care, waiter))?;
        receiver.await.unwrap_or_else(|_| Err(stopped_unknown()))?;
        Ok(())
    }

    fn send(&self, event: Event) -> Result<(), ProposeFailure> {
        self.shared.events.send(event).map_err(|_| ProposeFailure::Stopping)
    }
}

/// The next id, or the one that was asked for, if it may be given out.
fn free_id(view: &MachineView, asked: Option<NodeId>) -> Result<NodeId, MembershipFailure> {
    let next = view.next_node_id;
    let Some(id) = asked else { return Ok(next) };
    if let Some(member) = view.members.get(&id) {
        return Err(MembershipFailure::IdInUse { id, address: member.address.clone() });
    }
    if id < next {
        return Err(MembershipFailure::IdWasUsed(id));
    }
    let max = next.0.saturating_add(ID_JUMP_MAX);
    if id.0 > max {
        return Err(MembershipFailure::IdTooFar { id, next, max });
    }
    Ok(id)
}

fn not_a_member(id: NodeId) -> MembershipFailure {
    ProposeFailure::from(ConfChangeError::NotAMember(id)).into()
}

impl From<ConfChangeError> for MembershipFailure {
    fn from(error: ConfChangeError) -> MembershipFailure {
        ProposeFailure::from(error).into()
    }
}
