//! Being known under the address that this node advertises.
//!
//! Members dial each other by the addresses of the membership. A node that is started with another one can
//! dial them, and is dialled by nobody, until the membership says where it is.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_host_proto::peer;
use raft_host_proto::peer::membership_client::MembershipClient;

use super::join;
use crate::consensus::Role;
use crate::node::NodeHandle;
use crate::types::{Member, NodeId};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Failed attempts between two lines in the log.
const QUIET_ATTEMPTS: u32 = 5;

/// Asks one member after the other until the membership has this node's address. Ends only then; whoever
/// does not want to wait drops it.
pub(super) async fn until_known(handle: NodeHandle) {
    let me = handle.identity().clone();
    let mut machine = handle.machine();
    let (mut pause, mut attempts) = (PAUSE_MIN, 0_u32);
    loop {
        let known = machine
            .wait_for(|view| view.as_ref().is_some_and(|view| view.members.contains_key(&me.node)));
        let Ok(view) = known.await.map(|view| view.clone()) else {
            // The node stopped.
            return std::future::pending().await;
        };
        let view = view.expect("waited for");
        let known = &view.members[&me.node].address;
        if *known == me.address {
            if attempts > 0 {
                tracing::info!(address = me.address, "the cluster knows this node's new address");
            }
            return;
        }
        if attempts == 0 {
            tracing::warn!(
                old = known,
                new = me.address,
                "this node advertises another address than its cluster knows: asking to be dialled there"
            );
        }
        let leads = handle.leadership().borrow().role == Role::Leader;
        let refused = match leads {
            true => {
                let moved = handle.relocate(me.node, me.address.clone()).await;
                moved.err().map(|failure| failure.to_string())
            }
            false => ask(&handle, &view.members, &me.address).await,
        };
        if let Some(reason) = refused {
            match attempts % QUIET_ATTEMPTS == QUIET_ATTEMPTS - 1 {
                true => tracing::warn!(reason, "still known under the old address; asking again"),
                false => tracing::debug!(reason, "not moved yet"),
            }
        }
        attempts += 1;
        // Either the change arrives as an entry, or it is time to ask again.
        let arrived = machine.wait_for(|view| {
            let member = view.as_ref().and_then(|view| view.members.get(&me.node));
            member.is_some_and(|member| member.address == me.address)
        });
        let _ = tokio::time::timeout(pause, arrived).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Why nobody has moved this node; `None`: somebody has.
async fn ask(
    handle: &NodeHandle,
    members: &BTreeMap<NodeId, Member>,
    address: &str,
) -> Option<String> {
    let me = handle.identity();
    let leader = handle.leadership().borrow().leader.as_ref().map(|leader| leader.id);
    let mut others: Vec<_> = members.values().filter(|member| member.id != me.node).collect();
    others.sort_by_key(|member| Some(member.id) != leader);
    let mut reason = "there is no other member to ask".to_owned();
    for member in others {
        let request = peer::MoveRequest { node_id: me.node.0, address: address.to_owned() };
        let asked = match join::channel(&member.address) {
            Ok(channel) => {
                let request = join::meant_for(me.cluster, request);
                MembershipClient::new(channel).r#move(request).await.map(drop)
            }
            Err(status) => Err(status),
        };
        match asked {
            Ok(()) => return None,
            Err(status) => reason = format!("node {}: {}", member.id, status.message()),
        }
    }
    Some(reason)
}
