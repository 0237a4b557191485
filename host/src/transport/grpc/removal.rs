//! How a node that was removed is told so.
//!
//! A bare PERMISSION_DENIED counts for nothing: a proxy, a mesh's default or whoever was given a
//! dead peer's address may answer so. What counts is a statement about this cluster, this node and
//! the member that was dialed; and even that is only one voice, which the node weighs.

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::peer;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::transport::Identity;
use crate::types::{Index, NodeId};

/// Where the statement is in a refusal.
const KEY: &str = "raft-host-removal-bin";

/// Refuses `removed`, which is no member as of this index.
pub(super) fn refusal(us: &Identity, removed: NodeId, as_of: Index) -> Status {
    let notice = peer::RemovalNotice {
        cluster_id: Bytes::copy_from_slice(&us.cluster.0),
        removed: removed.0,
        by: us.node.0,
        as_of: as_of.0,
    };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(KEY, MetadataValue::from_bytes(&notice.encode_to_vec()));
    let words = format!("node {removed} was removed from cluster {}", us.cluster);
    Status::with_metadata(Code::PermissionDenied, words, metadata)
}

/// The index of a statement of `peer` to `us` that we are removed, if the refusal has one.
pub(super) fn stated(us: &Identity, peer: NodeId, refusal: &Status) -> Option<Index> {
    if refusal.code() != Code::PermissionDenied {
        return None;
    }
    let bytes = refusal.metadata().get_bin(KEY)?.to_bytes().ok()?;
    let notice = peer::RemovalNotice::decode(bytes).ok()?;
    let is_ours =
        notice.cluster_id[..] == us.cluster.0 && notice.removed == us.node.0 && notice.by == peer.0;
    is_ours.then_some(Index(notice.as_of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ClusterId;

    fn identity(cluster: u8, node: u64) -> Identity {
        let address = format!("127.0.0.1:{node}");
        Identity { cluster: ClusterId([cluster; 16]), node: NodeId(node), address }
    }

    #[test]
    fn only_a_statement_of_the_dialed_member_about_this_node_counts() {
        let said = refusal(&identity(1, 2), NodeId(3), Index(70));
        let us = identity(1, 3);
        assert_eq!(stated(&us, NodeId(2), &said), Some(Index(70)));
        assert_eq!(stated(&us, NodeId(1), &said), None, "said by another than was dialed");
        assert_eq!(stated(&identity(1, 4), NodeId(2), &said), None, "about another node");
        assert_eq!(stated(&identity(9, 3), NodeId(2), &said), None, "about another cluster");
    }

    /// With one node down and a server on its address that answers 403 to all, both others
    /// stopped within a second, and again after every restart.
    #[test]
    fn a_stranger_that_denies_everything_says_nothing_about_membership() {
        let denied = Status::permission_denied("RBAC: access denied");
        assert_eq!(stated(&identity(1, 3), NodeId(2), &denied), None);
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(KEY, MetadataValue::from_bytes(b"\xff\xff nonsense"));
        let odd = Status::with_metadata(Code::PermissionDenied, "no", metadata);
        assert_eq!(stated(&identity(1, 3), NodeId(2), &odd), None);
    }
}
