//! Who can be expected to lead: known by asking the voters.

use std::time::Duration;

use futures::future::join_all;
use raft_host_proto::v1;
use raft_host_proto::v1::admin_client::AdminClient;
use tonic::transport::Endpoint;

use crate::node::NodeHandle;
use crate::types::{ClusterId, Member, NodeId};

/// How long a voter may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

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
