//! Members: listing and changing them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::v1::{self, Reason};
use tokio::time::Instant;

use super::caller::Caller;
use super::context::Context;
use super::duty::voters_on_duty;
use super::failure::Failure;
use super::forward::Forwarder;
use crate::autopilot::AutopilotChange;
use crate::consensus::ConfChangeError;
use crate::node::{MachineView, MembershipFailure, ProposeFailure};
use crate::types::{ConfState, Member, NodeId};

/// How long another membership change may keep this one waiting.
pub(super) const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a membership change is tried again.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);
/// How long the view may lag behind a change that was applied.
const VIEW_PATIENCE: Duration = Duration::from_secs(1);

/// The members of the main group.
pub(super) struct Members<'a>(pub(super) &'a Context);

impl Members<'_> {
    /// As this node has applied them.
    pub(super) fn list(&self) -> Result<v1::MembersResponse, Failure> {
        let view = self.view().ok_or(MembershipFailure::NoState)?;
        let leader = self.0.handle.leadership().borrow().leader.clone();
        let leader = leader.map(|leader| leader.id);
        Ok(v1::MembersResponse { members: member_infos(&view, leader) })
    }

    /// Has the leader change the members.
    async fn change<T, H, HF, R, RF>(
        &self,
        caller: &Caller,
        here: H,
        there: R,
    ) -> Result<T, Failure>
    where
        H: Fn() -> HF,
        HF: Future<Output = Result<T, Failure>>,
        R: Fn(Member) -> RF,
        RF: Future<Output = Result<T, Failure>>,
    {
        let patience = self.0.election_patience() + CHANGE_PATIENCE;
        caller.within(self.0.on_leader(caller, patience, here, there)).await
    }

    pub(super) fn view(&self) -> Option<Arc<MachineView>> {
        self.0.handle.machine().borrow().clone()
    }

    /// The members once the view shows a change that has been applied.
    pub(super) async fn members_when(
        &self,
        shown: impl Fn(&MachineView) -> bool,
    ) -> Result<v1::MembersResponse, Failure> {
        let mut views = self.0.handle.machine();
        let waiting = views.wait_for(|view| view.as_ref().is_some_and(|view| shown(view)));
        // The change is done; a view that lags changes nothing about that.
        let _ = tokio::time::timeout(VIEW_PATIENCE, waiting).await;
        self.list()
    }

    pub(super) async fn add(
        &self,
        caller: &Caller,
        request: v1::AddMemberRequest,
    ) -> Result<v1::AddMemberResponse, Failure> {
        self.0.check_group(&request.group)?;
        let here = || async {
            let id = self.add_learner(caller, request.node_id, &request.address).await?;
            let members = self.members_when(|view| view.members.contains_key(&id)).await?.members;
            Ok(v1::AddMemberResponse { node_id: id.0, members })
        };
        let there = self.0.forwarder.to_leader(
            caller,
            &request,
            Forwarder::admin,
            |mut admin, request| async move { admin.add_member(request).await },
        );
        self.change(caller, here, there).await
    }

    /// Whether it is a member with this address, who may ask again; nothing changes then.
    pub(super) fn is_member(&self, id: NodeId, address: &str) -> bool {
        let view = self.view();
        let member = view.as_ref().and_then(|view| view.members.get(&id));
        member.is_some_and(|member| member.address == address)
    }

    async fn add_learner(
        &self,
        caller: &Caller,
        id: u64,
        address: &str,
    ) -> Result<NodeId, MembershipFailure> {
        let id = (id != 0).then_some(NodeId(id));
        if let Some(id) = id.filter(|id| self.is_member(*id, address)) {
            return Ok(id);
        }
        let handle = &self.0.handle.acting_for(caller.actor);
        patiently(|failure| drawn_twice(id, failure), || handle.add_learner(id, address.to_owned()))
            .await
    }

    pub(super) async fn promote(
        &self,
        caller: &Caller,
        request: v1::PromoteMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.0.check_group(&request.group)?;
        let id = NodeId(request.node_id);
        let handle = &self.0.handle.acting_for(caller.actor);
        let here = || async {
            match request.when_stable {
                true => self.promote_when_stable(caller, id).await?,
                false => patiently(|_| false, || handle.promote(id)).await?,
            }
            self.members_when(|view| view.conf_state.is_voter(id)).await
        };
        let there = self.0.forwarder.to_leader(
            caller,
            &request,
            Forwarder::admin,
            |mut admin, request| async move { admin.promote_member(request).await },
        );
        self.change(caller, here, there).await
    }

    /// The learner itself asks, and will ask again.
    async fn promote_when_stable(&self, caller: &Caller, id: NodeId) -> Result<(), Failure> {
        let board = &self.0.info.autopilot;
        let handle = &self.0.handle.acting_for(caller.actor);
        let config = board.config();
        let is_voter = || self.view().is_some_and(|view| view.conf_state.is_voter(id));
        if is_voter() {
            return Ok(());
        }
        if !config.promote_learners {
            let words = format!(
                "this cluster's learners are promoted by operators only (autopilot.promote_learners): \
                 `raft-host members promote {id}`"
            );
            return Err(Failure::none(Reason::NotConfirmed, words));
        }
        let needed = Duration::from_millis(config.stable_ms);
        let is_young =
            |failure: &MembershipFailure| matches!(failure, MembershipFailure::NotStable { .. });
        patiently(is_young, || handle.promote_when_stable(id, needed)).await?;
        board.count(AutopilotChange::Promoted);
        tracing::info!(
            node = %id, stable_ms = config.stable_ms,
            "promoted a learner that asked for it: it has been caught up and has answered for long enough"
        );
        Ok(())
    }

    pub(super) async fn demote(
        &self,
        caller: &Caller,
        request: v1::DemoteMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.0.check_group(&request.group)?;
        let (id, force) = (NodeId(request.node_id), request.force);
        let handle = &self.0.handle.acting_for(caller.actor);
        let here = || async {
            self.step_aside(id, None, force, "demoted").await?;
            patiently(|_| false, || handle.demote(id, force)).await?;
            self.members_when(|view| !view.conf_state.is_voter(id)).await
        };
        let there = self.0.forwarder.to_leader(
            caller,
            &request,
            Forwarder::admin,
            |mut admin, request| async move { admin.demote_member(request).await },
        );
        self.change(caller, here, there).await
    }

    pub(super) async fn replace(
        &self,
        caller: &Caller,
        request: v1::ReplaceMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.0.check_group(&request.group)?;
        let (old, new) = (NodeId(request.node_id), NodeId(request.successor_id));
        let force = request.force;
        if old == new {
            let words = format!("node {old} cannot take its own place");
            return Err(Failure::none(Reason::InvalidRequest, words));
        }
        let handle = &self.0.handle.acting_for(caller.actor);
        let here = || async {
            self.step_aside(old, Some(new), force, "replaced").await?;
            patiently(|_| false, || handle.replace(old, new, force)).await?;
            self.members_when(|view| {
                view.conf_state.is_voter(new) && !view.members.contains_key(&old)
            })
            .await
        };
        let there = self.0.forwarder.to_leader(
            caller,
            &request,
            Forwarder::admin,
            |mut admin, request| async move { admin.replace_member(request).await },
        );
        self.change(caller, here, there).await
    }

    pub(super) async fn remove(
        &self,
        caller: &Caller,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.0.check_group(&request.group)?;
        let (id, force) = (NodeId(request.node_id), request.force);
        let handle = &self.0.handle.acting_for(caller.actor);
        let here = || async {
            self.step_aside(id, None, force, "removed").await?;
            patiently(|_| false, || handle.remove(id, force)).await?;
            self.members_when(|view| !view.members.contains_key(&id)).await
        };
        let there = self.0.forwarder.to_leader(
            caller,
            &request,
            Forwarder::admin,
            |mut admin, request| async move { admin.remove_member(request).await },
        );
        self.change(caller, here, there).await
    }

    /// A leader that is to vote no more hands leadership over first, if that is possible at all; whoever looks for
    /// the leader then finds the new one.
    async fn step_aside(
        &self,
        id: NodeId,
        successor: Option<NodeId>,
        force: bool,
        what: &str,
    ) -> Result<(), Failure> {
        let handle = &self.0.handle;
        if id != handle.identity().node || !self.other_voters() {
            return Ok(());
        }
        patiently(|_| false, || handle.check_departure(id, successor, force)).await?;
        let leader = patiently(|_| false, || self.hand_over(None)).await?;
        let words = format!("node {id} handed leadership to {leader} to be {what} by it");
        Err(Failure::none(Reason::NotLeader, words))
    }

    /// Takes this node off duty, or puts it back.
    pub(super) async fn drain(
        &self,
        request: v1::DrainRequest,
    ) -> Result<v1::DrainResponse, Failure> {
        self.0.check_group(&request.group)?;
        let handle = &self.0.handle;
        let unchanged = if request.undrain {
            let was_off_duty = handle.return_to_duty();
            if was_off_duty {
                tracing::info!("an operator has put this node back on duty");
            }
            !was_off_duty
        } else {
            let was_off_duty = handle.is_off_duty();
            let on_duty = voters_on_duty(handle, &self.0.info.dialer).await;
            let left = patiently(|_| false, || handle.leave_duty(&on_duty)).await;
            left.map_err(not_drained)?;
            if !was_off_duty {
                tracing::info!(
                    "an operator has drained this node: it leaves leading to others, and is not ready for clients \
                     until `raft-host undrain` or a restart"
                );
            }
            was_off_duty
        };
        let leader = handle.leadership().borrow().leader.as_ref().map_or(0, |leader| leader.id.0);
        Ok(v1::DrainResponse { node_id: handle.identity().node.0, unchanged, leader_id: leader })
    }

    /// To somebody who is on duty, unless it is said to whom.
    async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, MembershipFailure> {
        let handle = &self.0.handle;
        let on_duty = match to {
            None if self.other_voters() => voters_on_duty(handle, &self.0.info.dialer).await,
            _ => Vec::new(),
        };
        match on_duty.is_empty() {
            true => handle.transfer_leadership(to).await,
            false => handle.transfer_to_one_of(&on_duty).await,
        }
    }

    fn other_voters(&self) -> bool {
        let me = self.0.handle.identity().node;
        self.view().is_some_and(|view| view.conf_state.voters.iter().any(|voter| *voter != me))
    }

    pub(super) async fn transfer(
        &self,
        caller: &Caller,
        request: v1::TransferLeadershipRequest,
    ) -> Result<v1::TransferLeadershipResponse, Failure> {
        self.0.check_group(&request.group)?;
        let to = (request.node_id != 0).then_some(NodeId(request.node_id));
        let here = || async {
            let leader = patiently(|_| false, || self.hand_over(to)).await?;
            Ok(v1::TransferLeadershipResponse { leader_id: leader.0 })
        };
        let there = self.0.forwarder.to_leader(
            caller,
            &request,
            Forwarder::admin,
            |mut admin, request| async move { admin.transfer_leadership(request).await },
        );
        self.change(caller, here, there).await
    }
}

fn not_drained(failure: MembershipFailure) -> Failure {
    match failure {
        MembershipFailure::NoOtherVoter => Failure::none(
            Reason::LastVoter,
            "this node is the only voter, so nobody could lead while it is drained: to stop it, stop its process",
        ),
        other => other.into(),
    }
}

/// Waits while another membership change is in progress or the leader is new, or as long as
/// `again` says.
pub(super) async fn patiently<T, F>(
    again: impl Fn(&MembershipFailure) -> bool,
    change: impl Fn() -> F,
) -> Result<T, MembershipFailure>
where
    F: Future<Output = Result<T, MembershipFailure>>,
{
    let passes = |failure: &MembershipFailure| {
        use ConfChangeError::{InProgress, JustElected, RightsChanged};
        matches!(
            failure,
            MembershipFailure::Propose(ProposeFailure::ConfChange(
                InProgress | JustElected | RightsChanged
            ))
        )
    };
    let give_up = Instant::now() + CHANGE_PATIENCE;
    loop {
        match change().await {
            Err(failure) if (passes(&failure) || again(&failure)) && Instant::now() < give_up => {
                tokio::time::sleep(CHANGE_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Two nodes that join at once may be given the same id; one of them draws again.
pub(super) fn drawn_twice(asked: Option<NodeId>, failure: &MembershipFailure) -> bool {
    asked.is_none()
        && matches!(
            failure,
            MembershipFailure::Propose(ProposeFailure::ConfChange(
                ConfChangeError::AlreadyAMember(_)
            ))
        )
}

fn member_infos(view: &MachineView, leader: Option<NodeId>) -> Vec<v1::MemberInfo> {
    let info = |member: &Member| v1::MemberInfo {
        node_id: member.id.0,
        address: member.address.clone(),
        kind: kind_in(&view.conf_state, member.id).into(),
        leader: leader == Some(member.id),
    };
    view.members.values().map(info).collect()
}

fn kind_in(conf_state: &ConfState, id: NodeId) -> v1::member_info::Kind {
    use v1::member_info::Kind;
    if conf_state.voters.contains(&id) {
        Kind::Voter
    } else if conf_state.voters_outgoing.contains(&id) {
        Kind::Outgoing
    } else {
        Kind::Learner
    }
}
