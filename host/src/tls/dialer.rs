//! Dialling other nodes.

use std::sync::Arc;

use raft_host_proto::dial::Dialer;
use tokio::sync::watch;

use crate::certs::{Subject, subject_of};
use crate::types::{ClusterId, NodeId};

/// Makes connections to other nodes. Where TLS is spoken, whom it has reached proves to be the one that was wanted.
#[derive(Clone, Debug, Default)]
pub struct NodeDialer {
    dialer: Dialer,
    /// Of this node's certificate.
    cluster: Option<ClusterId>,
}

impl NodeDialer {
    /// One that speaks no TLS, and believes whoever answers.
    pub fn plain() -> NodeDialer {
        NodeDialer::default()
    }

    pub(super) fn secured(dialer: Dialer, cluster: ClusterId) -> NodeDialer {
        NodeDialer { dialer, cluster: Some(cluster) }
    }

    /// To one node of the cluster and no other.
    pub fn to_node(&self, node: NodeId) -> Dialer {
        self.to(Some(node))
    }

    /// To any node of the cluster.
    pub fn to_member(&self) -> Dialer {
        self.to(None)
    }

    fn to(&self, node: Option<NodeId>) -> Dialer {
        match self.cluster {
            Some(cluster) => {
                self.dialer.checking(Arc::new(move |shown| check(cluster, node, shown)))
            }
            None => self.dialer.clone(),
        }
    }

    /// News of the certificates: connections that were made before use the old ones.
    pub fn news(&self) -> Option<watch::Receiver<u64>> {
        self.dialer.news()
    }
}

/// Whether a certificate, which TLS has verified, is of a node of the cluster, and of that one.
fn check(cluster: ClusterId, node: Option<NodeId>, shown: &[u8]) -> Result<(), String> {
    let subject = subject_of(shown).map_err(|error| format!("what answers there: {error}"))?;
    let wanted = || match node {
        Some(node) => format!("node {node} of cluster {cluster}"),
        None => format!("a node of cluster {cluster}"),
    };
    match subject {
        Some(Subject::Node { cluster: theirs, node: id })
            if theirs == cluster && node.is_none_or(|node| node == id) =>
        {
            Ok(())
        }
        Some(subject) => Err(format!(
            "what answers there has the certificate of {subject}, and {} was looked for: check the addresses, and \
             which certificate that node was given",
            wanted()
        )),
        None => Err(format!(
            "what answers there has a certificate of no node, and {} was looked for",
            wanted()
        )),
    }
}
