//! What nodes ask each other besides Raft: to be taken in, and whether a module is compiled.

use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::peer::membership_server::Membership;
use raft_host_proto::v1::Reason;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::{peer, v1};
use tonic::{Request, Response, Status};

use super::auditing::Witness;
use super::caller::Caller;
use super::context::Context;
use super::convert::{bytes, cluster_from_wire, module_from_wire};
use super::failure::Failure;
use super::forward::Forwarder;
use super::members::{CHANGE_PATIENCE, Members, drawn_twice, patiently};
use crate::node::{AheadOfFork, MachineView, MembershipFailure, Preparation};
use crate::text::sentence;
use crate::tls::NodeDialer;
use crate::transport::grpc::ProvedNode;
use crate::transport::{PROTOCOLS, common_protocol};
use crate::types::{ClusterId, GroupId, Index, JoinNonce, Level, NodeId, check_address};

/// See `peer.proto`.
#[derive(Clone)]
pub(super) struct MembershipService {
    pub(super) context: Arc<Context>,
}

/// How long dialing a joining node may take.
const DIAL_BACK: Duration = Duration::from_secs(3);

impl MembershipService {
    /// Whether a joining node is where it says.
    pub(super) async fn reach(&self, address: &str) -> Result<(), Failure> {
        check_address(address).map_err(MembershipFailure::from)?;
        let me = self.context.handle.identity().node;
        dial_back(&self.context.info.dialer, me, address).await
    }

    /// Takes it in, once it was reached.
    pub(super) async fn enter(
        &self,
        id: Option<NodeId>,
        request: &peer::JoinRequest,
        nonce: JoinNonce,
    ) -> Result<NodeId, Failure> {
        let handle = &self.context.handle;
        // A program from before levels offers the first.
        let offered = Level(request.level).max(Level::FIRST);
        let join = || handle.join(id, request.address.clone(), nonce, offered);
        Ok(patiently(|failure| drawn_twice(id, failure), join).await?)
    }

    /// What a node is told that was taken in.
    pub(super) fn joined(&self, id: NodeId, members: v1::MembersResponse) -> peer::JoinResponse {
        let address = |member: v1::MemberInfo| peer::Address {
            node_id: member.node_id,
            address: member.address,
        };
        let cluster = self.context.handle.identity().cluster;
        let members = members.members.into_iter().map(address).collect();
        peer::JoinResponse { cluster_id: bytes(cluster.0), node_id: id.0, members }
    }

    async fn join_cluster(
        &self,
        caller: &Caller,
        proved: Option<ProvedNode>,
        mut request: peer::JoinRequest,
    ) -> Result<peer::JoinResponse, Failure> {
        check_protocol(&request)?;
        let is_passed_on = |node| {
            let view = Members(&self.context).view();
            caller.forwarded && view.is_some_and(|view| view.members.contains_key(&node))
        };
        if let Some(ProvedNode { node, .. }) = proved.filter(|proved| !is_passed_on(proved.node)) {
            // A member that passes it on has seen the certificate.
            check_id(node, request.node_id)?;
            request.node_id = node.0;
        }
        let cluster = self.context.handle.identity().cluster;
        check_cluster(cluster, &request.cluster_id)?;
        let asked = (request.node_id != 0).then_some(NodeId(request.node_id));
        // Only a node that has its data knows its cluster.
        let has_data = !request.cluster_id.is_empty();
        let nonce = nonce_of(&request);
        let members = Members(&self.context);
        let out_of_order = request.out_of_order || self.context.info.tls.is_none();
        let here = || async {
            if let Some(asked) = asked.filter(|_| !out_of_order && !has_data) {
                in_order(asked, &members.view())?;
            }
            let id = match asked.filter(|id| has_data && members.is_member(*id, &request.address)) {
                Some(id) => id,
                None => {
                    let nonce = nonce.clone()?;
                    self.reach(&request.address).await?;
                    self.enter(asked, &request, nonce).await?
                }
            };
            let all = members.members_when(|view| view.members.contains_key(&id)).await?;
            Ok(self.joined(id, all))
        };
        let context = &*self.context;
        let there = context.forwarder.to_leader(
            caller,
            &request,
            Forwarder::membership,
            |mut membership, request| async move { membership.join(request).await },
        );
        let patience = context.election_patience() + CHANGE_PATIENCE;
        caller.within(context.on_leader(caller, patience, here, there)).await
    }

    async fn relocate(
        &self,
        caller: &Caller,
        proved: Option<ProvedNode>,
        request: peer::MoveRequest,
    ) -> Result<peer::MoveResponse, Failure> {
        if let Some(node) = proved.filter(|_| !caller.forwarded).map(|proved| proved.node) {
            check_id(node, request.node_id)?;
        }
        let context = &*self.context;
        let (id, address) = (NodeId(request.node_id), &request.address);
        let here = || async {
            check_address(address).map_err(MembershipFailure::from)?;
            let cluster = context.handle.identity().cluster;
            find(&context.info.dialer, cluster, id, address).await?;
            let relocate = || context.handle.relocate(id, address.clone());
            patiently(|_| false, relocate).await?;
            Ok(peer::MoveResponse {})
        };
        let there = context.forwarder.to_leader(
            caller,
            &request,
            Forwarder::membership,
            |mut membership, request| async move { membership.r#move(request).await },
        );
        let patience = context.election_patience() + CHANGE_PATIENCE;
        caller.within(context.on_leader(caller, patience, here, there)).await
    }

    async fn prepared_here(
        &self,
        request: &peer::PreparedRequest,
    ) -> Result<peer::PreparedResponse, Failure> {
        let handle = &self.context.handle;
        if GroupId(request.group) != handle.group() {
            let words = format!("this node has no group {}", request.group);
            return Err(Failure::none(Reason::NoSuchGroup, words));
        }
        let mut response = peer::PreparedResponse::default();
        if !request.module_hash.is_empty() {
            let hash = module_from_wire(&request.module_hash)?;
            match handle.preparation(hash) {
                Preparation::Ready => response.prepared = true,
                Preparation::Underway => {}
                Preparation::Failed(why) => response.why_not = why,
            }
        }
        if request.fork != 0 {
            match handle.ahead(Index(request.fork)) {
                AheadOfFork::Gone => {}
                AheadOfFork::Behind(lag) => response.lag = lag,
                AheadOfFork::Refused(why) => response.why_not = why,
            }
            return Ok(response);
        }
        let handle = handle.clone();
        let oldest = tokio::task::spawn_blocking(move || handle.oldest_state()).await;
        // What cannot be read is not there for a rehearsal; the disk's failures are told elsewhere.
        response.oldest_state = oldest.ok().and_then(Result::ok).flatten().map_or(0, |it| it.0);
        Ok(response)
    }
}

/// Whether a joining node and this one have a version of the peers' protocol in common.
pub(super) fn check_protocol(request: &peer::JoinRequest) -> Result<(), Failure> {
    let (min, max) = (request.protocol_min, request.protocol_max);
    if common_protocol(min..=max).is_some() {
        return Ok(());
    }
    let words = format!(
        "this cluster speaks versions {}..={} of the peers' protocol, and the joining node \
         speaks {min}..={max}: run versions of raft-host that have one in common",
        PROTOCOLS.start(),
        PROTOCOLS.end()
    );
    Err(Failure::none(Reason::IncompatibleVersion, words))
}

/// What a join is known by.
pub(super) fn nonce_of(request: &peer::JoinRequest) -> Result<JoinNonce, Failure> {
    JoinNonce::try_from(&request.nonce[..]).map_err(|error| {
        Failure::none(Reason::InvalidRequest, format!("the nonce of the join: {error}"))
    })
}

/// A member that nobody can dial would be sent nothing, and nobody would tell it why. Its socket
/// is there before it asks.
async fn dial_back(dialer: &NodeDialer, me: NodeId, address: &str) -> Result<(), Failure> {
    let way = dialer.to_member().way(address);
    let dialing = async { way.map_err(std::io::Error::other)?.knock().await };
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
    Err(Failure::none(Reason::MemberUnreachable, words))
}

/// A member that moves must be found where it says that it is: a stranger's word moves nobody.
async fn find(
    dialer: &NodeDialer,
    cluster: ClusterId,
    id: NodeId,
    address: &str,
) -> Result<(), Failure> {
    let ask = async {
        let way = dialer.to_node(id).way(address).map_err(|error| error.to_string())?;
        let channel = way.connect().await.map_err(|error| sentence(&error))?;
        let mut request = Request::new(v1::StatusRequest::default());
        request.set_timeout(DIAL_BACK);
        let answer = AdminClient::new(channel).status(request).await;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        match (answer.node_id, &answer.cluster_id[..]) == (id.0, &cluster.0) {
            true => Ok(()),
            false => Err("another node is there".to_owned()),
        }
    };
    let found = tokio::time::timeout(DIAL_BACK, ask).await;
    found.unwrap_or_else(|_| Err(format!("no answer within {DIAL_BACK:?}"))).map_err(|why| {
        let words = format!(
            "node {id} is not found at {address}, the address that it advertises now ({why}): say with \
             --advertise under which address members reach it, and let the network pass them"
        );
        Failure::none(Reason::MemberUnreachable, words)
    })
}

/// Ids that were passed over are never given out: a node waits for those before it, which may be about to join, too.
fn in_order(asked: NodeId, view: &Option<Arc<MachineView>>) -> Result<(), Failure> {
    let next = view.as_ref().map_or(asked, |view| view.next_node_id);
    if asked <= next {
        return Ok(());
    }
    let words = format!(
        "nodes join in the order of their ids, and node {next} comes before node {asked}: it is waited for"
    );
    Err(Failure::none(Reason::NotReady, words))
}

/// A node speaks for itself only. 0: it leaves its id to its certificate.
fn check_id(proved: NodeId, asked: u64) -> Result<(), Failure> {
    if asked == 0 || asked == proved.0 {
        return Ok(());
    }
    let words = format!(
        "the certificate that was shown is of node {proved}, and this is asked for node {asked}: a node speaks for \
         itself only"
    );
    Err(Failure::none(Reason::PermissionDenied, words))
}

fn check_cluster(ours: ClusterId, theirs: &[u8]) -> Result<(), Failure> {
    if theirs.is_empty() {
        return Ok(());
    }
    let theirs = cluster_from_wire("the joining node's cluster id", theirs)?;
    if theirs == ours {
        return Ok(());
    }
    Err(Failure::none(
        Reason::OtherCluster,
        format!(
            "this is cluster {ours}, and the joining node's data belongs to cluster {theirs}: \
             join the right cluster, or start with an empty data directory"
        ),
    ))
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn join(
        &self,
        request: Request<peer::JoinRequest>,
    ) -> Result<Response<peer::JoinResponse>, Status> {
        Witness::of(&request).hears(request.get_ref());
        let caller = Caller::of(&request, self.context.request_timeout());
        let proved = request.extensions().get::<ProvedNode>().copied();
        Ok(Response::new(self.join_cluster(&caller, proved, request.into_inner()).await?))
    }

    async fn r#move(
        &self,
        request: Request<peer::MoveRequest>,
    ) -> Result<Response<peer::MoveResponse>, Status> {
        Witness::of(&request).hears(request.get_ref());
        let caller = Caller::of(&request, self.context.request_timeout());
        let proved = request.extensions().get::<ProvedNode>().copied();
        Ok(Response::new(self.relocate(&caller, proved, request.into_inner()).await?))
    }

    async fn admit(
        &self,
        request: Request<peer::AdmitRequest>,
    ) -> Result<Response<peer::JoinResponse>, Status> {
        Witness::of(&request).hears(request.get_ref());
        let caller = Caller::of(&request, self.context.request_timeout());
        let admitting = super::enroll::admit_newcomer(&self.context, &caller, request.into_inner());
        Ok(Response::new(admitting.await?))
    }

    async fn prepared(
        &self,
        request: Request<peer::PreparedRequest>,
    ) -> Result<Response<peer::PreparedResponse>, Status> {
        Ok(Response::new(self.prepared_here(request.get_ref()).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clusters_node_is_refused_by_both_names() {
        let ours = ClusterId([1; 16]);
        assert_eq!(check_cluster(ours, b""), Ok(()));
        assert_eq!(check_cluster(ours, &ours.0), Ok(()));
        let other = ClusterId([2; 16]);
        let (failure, theirs) = (check_cluster(ours, &other.0).unwrap_err(), other.to_string());
        assert_eq!(failure.reason(), Reason::OtherCluster);
        assert!(failure.message().contains(&theirs), "{}", failure.message());
        assert!(failure.message().contains(&ours.to_string()), "{}", failure.message());
        assert_eq!(check_cluster(ours, b"xyz").unwrap_err().reason(), Reason::InvalidRequest);
    }
}
