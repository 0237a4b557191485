//! The service that operators and joining nodes use.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::v1;
use raft_host_proto::v1::admin_server::Admin;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::forward::passed_on;
use crate::consensus::{ConfChangeError, PeerProgress, ProgressState, Role};
use crate::node::{Activity, MachineView, MembershipFailure, ProposeFailure};
use crate::transport::PROTOCOL_VERSION;
use crate::types::{ClusterId, ConfState, JoinNonce, Member, ModuleHash, NodeId, check_address};

/// See `admin.proto`.
#[derive(Clone)]
pub(super) struct AdminService {
    pub(super) context: Arc<Context>,
}

/// How long another membership change may keep this one waiting.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a membership change is tried again.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);
/// How long dialing a joining node may take.
const DIAL_BACK: Duration = Duration::from_secs(3);
/// How long the view may lag behind a change that was applied.
const VIEW_PATIENCE: Duration = Duration::from_secs(1);

/// What the apply thread has been at for less is nobody's business.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// Runs a request here or passes it to the leader's method of the same name.
macro_rules! on_leader {
    ($context:expr, $caller:expr, $method:ident, $request:expr, $here:expr) => {{
        let (context, caller, request) = ($context, $caller, $request);
        let there = |leader: Member| {
            let request = passed_on(request.clone(), Some(caller.remaining()));
            async move {
                let mut admin = context.forwarder.admin(&leader.address)?;
                let answer = admin.$method(request).await;
                answer.map(Response::into_inner).map_err(|status| Failure::from_status(&status))
            }
        };
        let patience = context.election_patience() + CHANGE_PATIENCE;
        caller.within(context.on_leader(caller, patience, $here, there)).await
    }};
}

impl AdminService {
    fn caller<T>(&self, request: &Request<T>) -> Caller {
        Caller::of(request, self.context.request_timeout())
    }

    fn view(&self) -> Option<Arc<MachineView>> {
        self.context.handle.machine().borrow().clone()
    }

    fn members(&self) -> Result<v1::MembersResponse, Failure> {
        let view = self.view().ok_or(MembershipFailure::NoState)?;
        let leader = self.context.handle.leadership().borrow().leader.clone();
        let leader = leader.map(|leader| leader.id);
        Ok(v1::MembersResponse { members: member_infos(&view, leader) })
    }

    /// The members once the view shows a change that has been applied.
    async fn members_when(
        &self,
        shown: impl Fn(&MachineView) -> bool,
    ) -> Result<v1::MembersResponse, Failure> {
        let mut views = self.context.handle.machine();
        let waiting = views.wait_for(|view| view.as_ref().is_some_and(|view| shown(view)));
        // The change is done; a view that lags changes nothing about that.
        let _ = tokio::time::timeout(VIEW_PATIENCE, waiting).await;
        self.members()
    }

    async fn status_here(&self, request: v1::StatusRequest) -> Result<v1::StatusResponse, Failure> {
        let context = &*self.context;
        context.check_group(request.group)?;
        let replica = context.handle.status().await?;
        let info = context.info.clone();
        let measured =
            tokio::task::spawn_blocking(move || ((info.data_dir_bytes)(), (info.resident_bytes)()));
        let (data_dir_bytes, resident_bytes) = measured.await.map_err(|error| {
            Failure::none(Code::Internal, format!("measuring this node failed: {error}"))
        })?;
        let leader = context.handle.leadership().borrow().leader.clone();
        let identity = context.handle.identity();
        let tick = context.handle.config().tick();
        let mut status = v1::StatusResponse {
            cluster_id: identity.cluster.to_string(),
            node_id: identity.node.0,
            group: context.handle.group().0,
            version: context.info.version.clone(),
            role: role_to_wire(replica.role).into(),
            term: replica.term.0,
            leader_id: replica.leader.map_or(0, |leader| leader.0),
            leader_address: leader.map(|leader| leader.address).unwrap_or_default(),
            first_index: replica.first_index.0,
            last_index: replica.last_index.0,
            commit_index: replica.commit.0,
            snapshot_index: replica.snapshot.0,
            storage: context.info.storage.clone(),
            memory_backend: context.handle.memory_backend().to_owned(),
            not_serving: context.handle.not_serving().unwrap_or_default().to_owned(),
            data_dir_bytes,
            resident_bytes,
            uptime_ms: context.handle.started().elapsed().as_millis() as u64,
            peers: replica.peers.iter().map(|peer| progress_to_wire(peer, tick)).collect(),
            log_write_stuck_ms: context.handle.stuck_write_ms(),
            digest: Some(super::digest::status(&context.handle.digests().borrow())),
            clock: Some(super::clock::status(&context.handle)),
            rival: super::cluster::rival_to_wire(context),
            ..Default::default()
        };
        status.activity = context
            .handle
            .activity()
            .filter(|activity| activity.lasting >= WORTH_TELLING)
            .map(activity_to_wire);
        if let Some(view) = self.view() {
            status.module_prepared = ModuleHash::try_from(&request.module_hash[..])
                .is_ok_and(|hash| context.handle.is_prepared(hash, &view.info.limits));
            status.applied_index = view.info.applied.0;
            status.sessions = view.info.sessions;
            status.time_ms = view.info.time_ms;
            status.profile_hash = view.info.engine.hash(&view.info.limits).to_string();
            if let Some(active) = &view.info.active {
                status.module_hash = active.hash.to_string();
                status.module_label = active.label.clone();
                status.module_activated_at = active.activated_at.0;
            }
        }
        Ok(status)
    }

    async fn add(
        &self,
        caller: &Caller,
        request: v1::AddMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.context.check_group(request.group)?;
        let here = || async {
            let id = self.add_learner(request.node_id, &request.address).await?;
            self.members_when(|view| view.members.contains_key(&id)).await
        };
        on_leader!(&*self.context, caller, add_member, &request, here)
    }

    /// Whether it is a member with this address, who may ask again; nothing changes then.
    fn is_member(&self, id: NodeId, address: &str) -> bool {
        let view = self.view();
        let member = view.as_ref().and_then(|view| view.members.get(&id));
        member.is_some_and(|member| member.address == address)
    }

    async fn add_learner(&self, id: u64, address: &str) -> Result<NodeId, MembershipFailure> {
        let id = (id != 0).then_some(NodeId(id));
        if let Some(id) = id.filter(|id| self.is_member(*id, address)) {
            return Ok(id);
        }
        let handle = &self.context.handle;
        patiently(|failure| drawn_twice(id, failure), || handle.add_learner(id, address.to_owned()))
            .await
    }

    async fn take_in(
        &self,
        id: Option<NodeId>,
        address: &str,
        nonce: JoinNonce,
    ) -> Result<NodeId, Failure> {
        let handle = &self.context.handle;
        check_address(address).map_err(MembershipFailure::from)?;
        dial_back(handle.identity().node, address).await?;
        let join = || handle.join(id, address.to_owned(), nonce);
        Ok(patiently(|failure| drawn_twice(id, failure), join).await?)
    }

    async fn promote(
        &self,
        caller: &Caller,
        request: v1::PromoteMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.context.check_group(request.group)?;
        let id = NodeId(request.node_id);
        let here = || async {
            patiently(|_| false, || self.context.handle.promote(id)).await?;
            self.members_when(|view| view.conf_state.is_voter(id)).await
        };
        on_leader!(&*self.context, caller, promote_member, &request, here)
    }

    async fn remove(
        &self,
        caller: &Caller,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::MembersResponse, Failure> {
        self.context.check_group(request.group)?;
        let id = NodeId(request.node_id);
        let here = || async {
            let handle = &self.context.handle;
            let force = request.force;
            if id == handle.identity().node && self.other_voters() {
                patiently(|_| false, || handle.check_removal(id, force)).await?;
                let leader = patiently(|_| false, || handle.transfer_leadership(None)).await?;
                // Whoever looks for the leader finds the new one.
                let words = format!("node {id} handed leadership to {leader} to be removed by it");
                return Err(Failure::none(Code::Unavailable, words));
            }
            patiently(|_| false, || handle.remove(id, force)).await?;
            self.members_when(|view| !view.members.contains_key(&id)).await
        };
        on_leader!(&*self.context, caller, remove_member, &request, here)
    }

    fn other_voters(&self) -> bool {
        let me = self.context.handle.identity().node;
        self.view().is_some_and(|view| view.conf_state.voters.iter().any(|voter| *voter != me))
    }

    async fn transfer(
        &self,
        caller: &Caller,
        request: v1::TransferLeadershipRequest,
    ) -> Result<v1::TransferLeadershipResponse, Failure> {
        self.context.check_group(request.group)?;
        let to = (request.node_id != 0).then_some(NodeId(request.node_id));
        let here = || async {
            let handle = &self.context.handle;
            let leader = patiently(|_| false, || handle.transfer_leadership(to)).await?;
            Ok(v1::TransferLeadershipResponse { leader_id: leader.0 })
        };
        on_leader!(&*self.context, caller, transfer_leadership, &request, here)
    }

    async fn join_cluster(
        &self,
        caller: &Caller,
        request: v1::JoinRequest,
    ) -> Result<v1::JoinResponse, Failure> {
        self.context.check_group(request.group)?;
        if request.protocol_version != PROTOCOL_VERSION {
            let words = format!(
                "this cluster speaks peer protocol {PROTOCOL_VERSION} and the joining node \
                 speaks {}: run the same version of raft-host",
                request.protocol_version
            );
            return Err(Failure::none(Code::FailedPrecondition, words));
        }
        let cluster = self.context.handle.identity().cluster;
        check_cluster(cluster, &request.cluster_id)?;
        let asked = (request.node_id != 0).then_some(NodeId(request.node_id));
        // Only a node that has its data knows its cluster.
        let has_data = !request.cluster_id.is_empty();
        let nonce = JoinNonce::try_from(&request.nonce[..]).map_err(|error| {
            Failure::none(Code::InvalidArgument, format!("the nonce of the join: {error}"))
        });
        let here = || async {
            let id = match asked.filter(|id| has_data && self.is_member(*id, &request.address)) {
                Some(id) => id,
                None => self.take_in(asked, &request.address, nonce.clone()?).await?,
            };
            let members = self.members_when(|view| view.members.contains_key(&id)).await?.members;
            Ok(v1::JoinResponse { cluster_id: cluster.to_string(), node_id: id.0, members })
        };
        on_leader!(&*self.context, caller, join, &request, here)
    }

    /// The modules after all that is committed by now.
    async fn modules_now(&self) -> Result<v1::ModulesResponse, Failure> {
        let barrier = self.context.handle.barrier();
        match tokio::time::timeout(self.context.election_patience(), barrier).await {
            Ok(passed) => passed?,
            Err(_) => {
                let words = "no leader confirmed that it leads: look at `raft-host status`";
                return Err(Failure::none(Code::Unavailable, words));
            }
        };
        self.held_modules()
    }

    fn held_modules(&self) -> Result<v1::ModulesResponse, Failure> {
        let view = self.view().ok_or(MembershipFailure::NoState)?;
        let modules = view.info.modules.iter().map(|module| v1::ModuleInfo {
            hash: module.hash.to_string(),
            size_bytes: module.size_bytes,
            label: module.label.clone(),
            active: module.active,
        });
        let history = view.info.history.iter().map(|activation| v1::Activation {
            index: activation.index.0,
            module_hash: activation.hash.to_string(),
            time_ms: activation.time_ms,
            label: activation.label.clone(),
        });
        Ok(v1::ModulesResponse { modules: modules.collect(), history: history.collect() })
    }

    async fn snapshot(
        &self,
        request: v1::TakeSnapshotRequest,
    ) -> Result<v1::TakeSnapshotResponse, Failure> {
        self.context.check_group(request.group)?;
        let taken = self.context.handle.take_snapshot().await;
        let meta = taken.map_err(|words| Failure::none(Code::FailedPrecondition, words))?;
        Ok(v1::TakeSnapshotResponse {
            index: meta.index.0,
            term: meta.term.0,
            size_bytes: meta.size_bytes,
        })
    }
}

fn activity_to_wire(activity: Activity) -> v1::Activity {
    v1::Activity {
        job: activity.kind.name().to_owned(),
        index: activity.index.0,
        name: activity.name,
        for_ms: u64::try_from(activity.lasting.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Waits while another membership change is in progress or the leader is new, or as long as
/// `again` says.
async fn patiently<T, F>(
    again: impl Fn(&MembershipFailure) -> bool,
    change: impl Fn() -> F,
) -> Result<T, MembershipFailure>
where
    F: Future<Output = Result<T, MembershipFailure>>,
{
    let passes = |failure: &MembershipFailure| {
        use ConfChangeError::{InProgress, JustElected};
        matches!(
            failure,
            MembershipFailure::Propose(ProposeFailure::ConfChange(InProgress | JustElected))
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
fn drawn_twice(asked: Option<NodeId>, failure: &MembershipFailure) -> bool {
    asked.is_none()
        && matches!(
            failure,
            MembershipFailure::Propose(ProposeFailure::ConfChange(
                ConfChangeError::AlreadyAMember(_)
            ))
        )
}

/// A member that nobody can dial would be sent nothing, and nobody would tell it why. Its socket
/// is there before it asks.
async fn dial_back(me: NodeId, address: &str) -> Result<(), Failure> {
    let dialing = tokio::net::TcpStream::connect(address);
    let why = match tokio::time::timeout(DIAL_BACK, dialing).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {DIAL_BACK:?}"),
    };
    let words = format!(
        "node {me}, which leads, cannot dial {address}, the address that the joining node \
         advertises ({why}): say with --advertise under which address members reach it, and let \
         the network pass them"
    );
    Err(Failure::none(Code::Aborted, words))
}

fn check_cluster(ours: ClusterId, theirs: &str) -> Result<(), Failure> {
    if theirs.is_empty() {
        return Ok(());
    }
    let theirs: ClusterId = theirs.parse().map_err(|error| {
        Failure::none(Code::InvalidArgument, format!("the joining node's cluster id: {error}"))
    })?;
    if theirs == ours {
        return Ok(());
    }
    Err(Failure::none(
        Code::FailedPrecondition,
        format!(
            "this is cluster {ours}, and the joining node's data belongs to cluster {theirs}: \
             join the right cluster, or start with an empty data directory"
        ),
    ))
}

fn member_infos(view: &MachineView, leader: Option<NodeId>) -> Vec<v1::MemberInfo> {
    let info = |member: &Member| v1::MemberInfo {
        node_id: member.id.0,
        address: member.address.clone(),
        role: role_in(&view.conf_state, member.id).to_owned(),
        leader: leader == Some(member.id),
    };
    view.members.values().map(info).collect()
}

fn role_in(conf_state: &ConfState, id: NodeId) -> &'static str {
    if conf_state.voters.contains(&id) {
        "voter"
    } else if conf_state.voters_outgoing.contains(&id) {
        "outgoing"
    } else {
        "learner"
    }
}

fn role_to_wire(role: Role) -> v1::Role {
    match role {
        Role::Follower => v1::Role::Follower,
        Role::PreCandidate => v1::Role::PreCandidate,
        Role::Candidate => v1::Role::Candidate,
        Role::Leader => v1::Role::Leader,
    }
}

fn progress_to_wire(peer: &PeerProgress, tick: Duration) -> v1::PeerProgress {
    let state = match peer.state {
        ProgressState::Probe => "probe",
        ProgressState::Replicate => "replicate",
        ProgressState::Snapshot => "snapshot",
    };
    v1::PeerProgress {
        node_id: peer.node.0,
        match_index: peer.matched.0,
        state: state.to_owned(),
        recently_active: peer.recently_active,
        silent_ms: peer
            .silent_ticks
            .map(|ticks| ticks.saturating_mul(tick.as_micros() as u64) / 1000),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(caller.within(self.status_here(request.into_inner())).await?))
    }

    async fn members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        self.context.check_group(request.into_inner().group)?;
        Ok(Response::new(AdminService::members(self)?))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(self.add(&caller, request.into_inner()).await?))
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(self.promote(&caller, request.into_inner()).await?))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(self.remove(&caller, request.into_inner()).await?))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(self.transfer(&caller, request.into_inner()).await?))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(self.join_cluster(&caller, request.into_inner()).await?))
    }

    async fn upgrade(
        &self,
        request: Request<Streaming<v1::UpgradeRequest>>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        let timeout = Duration::from_millis(self.context.config.upgrade_timeout_ms);
        let caller = Caller::of(&request, timeout);
        let upgrading = super::upgrade::run(&self.context, &caller, request.into_inner());
        Ok(Response::new(caller.within(upgrading).await?))
    }

    async fn modules(
        &self,
        request: Request<v1::ModulesRequest>,
    ) -> Result<Response<v1::ModulesResponse>, Status> {
        let caller = self.caller(&request);
        let request = request.into_inner();
        self.context.check_group(request.group)?;
        let answer = match request.linearizable {
            true => caller.within(self.modules_now()).await?,
            false => self.held_modules()?,
        };
        Ok(Response::new(answer))
    }

    async fn limits(
        &self,
        request: Request<v1::LimitsRequest>,
    ) -> Result<Response<v1::LimitsResponse>, Status> {
        Ok(Response::new(super::limits::show(&self.context, request.into_inner())?))
    }

    async fn set_limits(
        &self,
        request: Request<v1::SetLimitsRequest>,
    ) -> Result<Response<v1::SetLimitsResponse>, Status> {
        let caller = self.caller(&request);
        let setting = super::limits::set(&self.context, &caller, request.into_inner());
        Ok(Response::new(caller.within(setting).await?))
    }

    async fn set_engine(
        &self,
        request: Request<v1::SetEngineRequest>,
    ) -> Result<Response<v1::SetEngineResponse>, Status> {
        let caller = self.caller(&request);
        let setting = super::limits::set_engine(&self.context, &caller, request.into_inner());
        Ok(Response::new(caller.within(setting).await?))
    }

    async fn set_clock(
        &self,
        request: Request<v1::SetClockRequest>,
    ) -> Result<Response<v1::SetClockResponse>, Status> {
        let caller = self.caller(&request);
        let setting = super::clock::set(&self.context, &caller, request.into_inner());
        Ok(Response::new(caller.within(setting).await?))
    }

    async fn digest(
        &self,
        request: Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestResponse>, Status> {
        let patience = super::digest::patience(&self.context);
        let caller = Caller::of(&request, patience);
        let comparing = super::digest::compare(&self.context, &caller, request.into_inner());
        Ok(Response::new(caller.within(comparing).await?))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let caller = self.caller(&request);
        let confirming = super::cluster::confirm(&self.context, request.into_inner());
        Ok(Response::new(caller.within(confirming).await?))
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let caller = self.caller(&request);
        Ok(Response::new(caller.within(self.snapshot(request.into_inner())).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clusters_node_is_refused_by_both_names() {
        let ours = ClusterId([1; 16]);
        assert_eq!(check_cluster(ours, ""), Ok(()));
        assert_eq!(check_cluster(ours, &ours.to_string()), Ok(()));
        let theirs = ClusterId([2; 16]).to_string();
        let failure = check_cluster(ours, &theirs).unwrap_err();
        assert_eq!(failure.code, Code::FailedPrecondition);
        assert!(failure.message.contains(&theirs), "{}", failure.message);
        assert!(failure.message.contains(&ours.to_string()), "{}", failure.message);
        assert_eq!(check_cluster(ours, "xyz").unwrap_err().code, Code::InvalidArgument);
    }
}
