//! Draining: taking the asked node off duty, and putting it back. Whom it can hand leadership to is known by
//! asking the other voters.

use std::time::Duration;

use futures::future::join_all;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::v1::{self, Reason};
use tonic::transport::Endpoint;

use super::context::Context;
use super::failure::Failure;
use crate::node::{MembershipFailure, NodeHandle};
use crate::types::{ClusterId, Member, NodeId};

/// How long a voter may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes this node off duty, or puts it back.
pub(super) async fn change(
    context: &Context,
    request: v1::DrainRequest,
) -> Result<v1::DrainResponse, Failure> {
    context.check_group(&request.group)?;
    let handle = &context.handle;
    let unchanged = if request.undrain {
        let was_off_duty = handle.return_to_duty();
        if was_off_duty {
            tracing::info!("an operator has put this node back on duty");
        }
        !was_off_duty
    } else {
        let was_off_duty = handle.is_off_duty();
        let on_duty = voters_on_duty(handle).await;
        handle.leave_duty(&on_duty).await.map_err(not_drained)?;
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

fn not_drained(failure: MembershipFailure) -> Failure {
    match failure {
        MembershipFailure::NoOtherVoter => Failure::none(
            Reason::LastVoter,
            "this node is the only voter, so nobody could lead while it is drained: to stop it, stop its process",
        ),
        other => other.into(),
    }
}

/// The other voters that can be expected to lead if they are asked to: they answer, have been drained by
/// nobody, and should be sent requests.
pub(crate) async fn voters_on_duty(handle: &NodeHandle) -> Vec<NodeId> {
    let Some(view) = handle.machine().borrow().clone() else { return Vec::new() };
    let (me, cluster) = (handle.identity().node, handle.identity().cluster);
    let is_asked =
        |member: &&Member| member.id != me && view.conf_state.voters.contains(&member.id);
    let asked = view.members.values().filter(is_asked).map(|member| async move {
        let is_on_duty = tokio::time::timeout(PATIENCE, is_on_duty(member, cluster)).await;
        is_on_duty.ok().flatten().filter(|is| *is).map(|_| member.id)
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// `None`: it does not answer.
async fn is_on_duty(member: &Member, cluster: ClusterId) -> Option<bool> {
    let endpoint = Endpoint::from_shared(format!("http://{}", member.address)).ok()?;
    let channel = endpoint.connect_timeout(PATIENCE).connect().await.ok()?;
    let mut request = tonic::Request::new(v1::StatusRequest::default());
    request.set_timeout(PATIENCE);
    raft_host_proto::mean_for(&mut request, cluster.0);
    let status = AdminClient::new(channel).status(request).await.ok()?.into_inner();
    let serves = status.group("").is_some_and(|group| group.not_serving.is_empty());
    Some(serves && !status.drained)
}
