//! Being known under the address that this node advertises.
//!
//! Members dial each other by the addresses of the membership. A node that is started with another one can
//! dial them, and is dialled by nobody, until the membership says where it is.

use raft_host_proto::peer;
use raft_host_proto::peer::membership_client::MembershipClient;
use tonic::Status;

use super::join;
use super::wish::{Wish, until_so};
use crate::node::{MachineView, NodeHandle};
use crate::tls::NodeDialer;
use crate::types::Member;

struct KnownHere<'a>(&'a NodeHandle, &'a NodeDialer);

impl Wish for KnownHere<'_> {
    const STILL: &'static str = "still known under the old address";
    const QUIET_ROUNDS: u32 = 5;

    fn is_so(&self, view: &MachineView) -> Option<bool> {
        let me = self.0.identity();
        view.members.get(&me.node).map(|member| member.address == me.address)
    }

    async fn ask(&self, member: &Member) -> Result<(), Status> {
        let me = self.0.identity();
        let request = peer::MoveRequest { node_id: me.node.0, address: me.address.clone() };
        let request = join::meant_for(me.cluster, request);
        let channel = join::channel(&self.1.to_node(member.id), &member.address)?;
        MembershipClient::new(channel).r#move(request).await.map(drop)
    }

    async fn ask_here(&self) -> Result<(), String> {
        let me = self.0.identity();
        let moved = self.0.relocate(me.node, me.address.clone()).await;
        moved.map(drop).map_err(|failure| failure.to_string())
    }
}

/// Asks until the membership has this node's address. Ends only then; whoever does not want to wait
/// drops it.
pub(super) async fn until_known(handle: NodeHandle, dialer: NodeDialer) {
    let me = handle.identity().clone();
    let mut machine = handle.machine();
    let found = machine
        .wait_for(|view| view.as_ref().is_some_and(|view| view.members.contains_key(&me.node)));
    let Ok(view) = found.await.map(|view| view.clone()) else {
        // The node stopped.
        return std::future::pending().await;
    };
    let known = &view.expect("waited for").members[&me.node].address;
    if *known != me.address {
        tracing::warn!(
            old = known,
            new = me.address,
            "this node advertises another address than its cluster knows: asking to be dialled there"
        );
    }
    if until_so(&handle, &KnownHere(&handle, &dialer)).await > 0 {
        tracing::info!(address = me.address, "the cluster knows this node's new address");
    }
}
