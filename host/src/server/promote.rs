//! Becoming a voter once caught up.

use raft_host_proto::v1;
use tonic::Status;

use super::join;
use super::wish::{Wish, until_so};
use crate::node::{MachineView, NodeHandle};
use crate::tls::NodeDialer;
use crate::types::Member;

struct Voter<'a>(&'a NodeHandle, &'a NodeDialer);

impl Wish for Voter<'_> {
    const STILL: &'static str = "still a learner";
    const QUIET_ROUNDS: u32 = 15;

    fn is_so(&self, view: &MachineView) -> Option<bool> {
        Some(view.conf_state.is_voter(self.0.identity().node))
    }

    async fn ask(&self, member: &Member) -> Result<(), Status> {
        let me = self.0.identity();
        let request = v1::PromoteMemberRequest {
            node_id: me.node.0,
            when_stable: true,
            ..Default::default()
        };
        let request = join::meant_for(me.cluster, request);
        let mut client = join::client(&self.1.to_node(member.id), &member.address)?;
        client.promote_member(request).await.map(drop)
    }
}

/// Asks until this node votes. Ends only then; whoever does not want to wait drops it.
pub(super) async fn until_voter(handle: &NodeHandle, dialer: &NodeDialer) {
    until_so(handle, &Voter(handle, dialer)).await;
    tracing::info!(node = %handle.identity().node, "this node has caught up and votes now");
}
