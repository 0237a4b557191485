//! Who may speak as a node. The services of nodes are asked by nodes of this cluster only, where certificates say
//! who is one: that is checked before anything of a call is read.
//!
//! Where nodes have a port of their own, the services of nodes are served there and nowhere else, and nobody else
//! is served there.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::middleware::Next;
use raft_host_proto::peer::{enrollment_server, membership_server, peer_server};
use raft_host_proto::v1::Reason;

use super::failure::Failure;
use super::io::{Caller, Entrance, Presented};
use crate::certs::Subject;
use crate::node::NodeHandle;
use crate::tls::Tls;
use crate::transport::grpc::ProvedNode;
use crate::types::{ClusterId, NodeId};

/// See the module.
#[derive(Clone)]
pub(super) struct Gate {
    handle: NodeHandle,
    /// Nodes show certificates.
    is_secured: bool,
}

impl Gate {
    pub(super) fn new(handle: NodeHandle, tls: Option<&Arc<Tls>>) -> Gate {
        Gate { handle, is_secured: tls.is_some() }
    }

    /// The node that calls, where that must be one; `None`: nobody can tell.
    fn check(&self, caller: &Caller, path: &str) -> Result<Option<ProvedNode>, Failure> {
        let is_of_peer = is_of(path, peer_server::SERVICE_NAME);
        let enrolls = is_of(path, enrollment_server::SERVICE_NAME);
        let is_of_nodes = is_of_peer || enrolls || is_of(path, membership_server::SERVICE_NAME);
        if caller.presented.is_newcomer && !enrolls {
            let words = "this connection was made to ask for a node's first certificate, and is good for nothing else";
            return Err(Failure::none(Reason::Unauthenticated, words));
        }
        if is_of_nodes && caller.entrance == Entrance::Clients {
            let words = "nodes have a port of their own (peer_listen), and this is the one of clients: members \
                         are told to dial peer_advertise, and who joins names such an address";
            return Err(Failure::none(Reason::UnknownMethod, words));
        }
        if !self.is_secured || !(is_of_nodes || caller.entrance == Entrance::Peers) {
            return Ok(None);
        }
        if enrolls {
            // A newcomer has nothing to show but its token; a member that passes it on has.
            let proved = of_cluster(self.handle.identity().cluster, &caller.presented).ok();
            return Ok(proved.filter(|proved| !self.was_removed(proved.node)));
        }
        let proved = of_cluster(self.handle.identity().cluster, &caller.presented)?;
        // The peers' service says it in a way that a removed node stops for, and one that joins is judged by its id.
        let says_itself = is_of_peer || path.ends_with("/Join");
        if !says_itself && self.was_removed(proved.node) {
            let words =
                format!("node {} was removed from this cluster, and is no member", proved.node);
            return Err(Failure::none(Reason::PermissionDenied, words));
        }
        Ok(Some(proved))
    }

    fn was_removed(&self, node: NodeId) -> bool {
        let machine = self.handle.machine();
        let view = machine.borrow();
        let known = view.as_ref();
        known.is_some_and(|view| node < view.next_node_id && !view.members.contains_key(&node))
    }
}

fn is_of(path: &str, service: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn of_cluster(ours: ClusterId, presented: &Presented) -> Result<ProvedNode, Failure> {
    match presented.certificate {
        Some(Subject::Node { cluster, node }) if cluster == ours => {
            Ok(ProvedNode { cluster, node })
        }
        Some(Subject::Node { cluster, node }) => {
            let words = format!(
                "this node belongs to cluster {ours}, and the certificate that was shown is of node {node} of \
                 cluster {cluster}: check the addresses and the certificates"
            );
            Err(Failure::none(Reason::OtherCluster, words))
        }
        Some(Subject::Client { name }) => {
            let words = format!(
                "this is for nodes of the cluster, and the certificate that was shown is of the client {name}"
            );
            Err(Failure::none(Reason::PermissionDenied, words))
        }
        None => {
            let words = "this is for nodes of the cluster, and no certificate of one was shown";
            Err(Failure::none(Reason::Unauthenticated, words))
        }
    }
}

/// The middleware.
pub(super) async fn check(
    State(gate): State<Gate>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        // Not from a socket: nobody else can be meant.
        return next.run(request).await;
    };
    match gate.check(&caller, request.uri().path()) {
        Ok(proved) => {
            if let Some(proved) = proved {
                request.extensions_mut().insert(proved);
            }
            next.run(request).await
        }
        Err(failure) => failure.into_status().into_http(),
    }
}

/// What the connection of a request has proved; nothing, if it came by none.
pub fn presented(extensions: &axum::http::Extensions) -> Presented {
    extensions.get::<Caller>().map(|caller| *caller.presented).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_of_this_cluster_pass() {
        let (ours, other) = (ClusterId([1; 16]), ClusterId([2; 16]));
        let with = |certificate| Presented { certificate, ..Presented::default() };
        let node = |cluster| Some(Subject::Node { cluster, node: NodeId(3) });
        let passed = of_cluster(ours, &with(node(ours))).expect("one of ours");
        assert_eq!(passed.node, NodeId(3));
        let refused = of_cluster(ours, &with(node(other))).unwrap_err();
        assert_eq!(refused.reason(), Reason::OtherCluster);
        assert!(refused.message().contains(&other.to_string()));
        let name = "alice".parse().expect("a name");
        let refused = of_cluster(ours, &with(Some(Subject::Client { name }))).unwrap_err();
        assert_eq!(refused.reason(), Reason::PermissionDenied);
        assert!(refused.message().contains("alice"));
        let refused = of_cluster(ours, &with(None)).unwrap_err();
        assert_eq!(refused.reason(), Reason::Unauthenticated);
    }

    #[test]
    fn a_service_is_known_by_its_whole_name() {
        let (service, other) = ("a.v1.Peer", "/a.v1.Peers/Messages");
        assert!(is_of("/a.v1.Peer/Messages", service));
        assert!(!is_of(other, service) && !is_of("/a.v1.Peer", service));
    }
}
