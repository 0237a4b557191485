//! Becoming a voter once caught up.

use std::time::Duration;

use raft_host_proto::v1;

use super::join;
use crate::node::NodeHandle;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Failed attempts between two lines in the log.
const QUIET_ATTEMPTS: u32 = 15;

/// Asks one member after the other until this node votes. Ends only then; whoever does not
/// want to wait drops it.
pub(super) async fn until_voter(handle: &NodeHandle) {
    let me = handle.identity().node;
    let mut machine = handle.machine();
    let mut pause = PAUSE_MIN;
    let mut attempts = 0_u32;
    loop {
        let Ok(view) = machine.wait_for(Option::is_some).await.map(|view| view.clone()) else {
            // The node stopped.
            return std::future::pending().await;
        };
        let view = view.expect("waited for");
        if view.conf_state.is_voter(me) {
            tracing::info!(node = %me, "this node has caught up and votes now");
            return;
        }
        let leader = handle.leadership().borrow().leader.as_ref().map(|leader| leader.id);
        let mut others: Vec<_> = view.members.values().filter(|member| member.id != me).collect();
        others.sort_by_key(|member| Some(member.id) != leader);
        for member in others {
            let request =
                v1::PromoteMemberRequest { node_id: me.0, when_stable: true, ..Default::default() };
            let asked = match join::client(&member.address) {
                Ok(mut client) => {
                    let request = join::meant_for(handle.identity().cluster, request);
                    client.promote_member(request).await.map(drop)
                }
                Err(status) => Err(status),
            };
            let Err(status) = asked else { break };
            if attempts % QUIET_ATTEMPTS == QUIET_ATTEMPTS - 1 {
                tracing::warn!(reason = status.message(), "still a learner; asking again");
            } else {
                tracing::debug!(asked = %member.id, reason = status.message(), "not promoted yet");
            }
        }
        attempts += 1;
        // Either the promotion arrives as an entry, or it is time to ask again.
        let arrived =
            machine.wait_for(|view| view.as_ref().is_some_and(|view| view.conf_state.is_voter(me)));
        let _ = tokio::time::timeout(pause, arrived).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
