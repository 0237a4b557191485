//! Who can be expected to lead: known by asking the voters.

use std::time::Duration;

use futures::future::join_all;
use raft_host_proto::v1;
use raft_host_proto::v1::admin_client::AdminClient;

use crate::node::NodeHandle;
use crate::tls::NodeDialer;
use crate::types::{ClusterId, Member, NodeId};

/// How long a voter may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// The other voters that can be expected to lead if they are asked to: they answer, have been drained by
/// nobody, and should be sent requests.
pub(crate) async fn voters_on_duty(handle: &NodeHandle, dialer: &NodeDialer) -> Vec<NodeId> {
    ask_voters(handle, dialer, |_| true).await
}

/// Of these, those whose writes of the log have taken no longer than that in the last minute, as they say (see
/// `slow_sync_ms` of [`NodeConfig`](crate::node::NodeConfig)). One that has written too little to tell is none.
pub(crate) async fn voters_with_quick_disks(
    handle: &NodeHandle,
    dialer: &NodeDialer,
    limit: Duration,
) -> Vec<NodeId> {
    let is_quick = |status: &v1::StatusResponse| {
        let p99 = status.disk.as_ref().and_then(|disk| disk.sync_p99_us);
        p99.is_some_and(|us| Duration::from_micros(us) <= limit)
    };
    ask_voters(handle, dialer, is_quick).await
}

async fn ask_voters(
    handle: &NodeHandle,
    dialer: &NodeDialer,
    suits: impl Fn(&v1::StatusResponse) -> bool,
) -> Vec<NodeId> {
    let suits = &suits;
    let Some(view) = handle.machine().borrow().clone() else { return Vec::new() };
    let (me, cluster) = (handle.identity().node, handle.identity().cluster);
    let is_asked =
        |member: &&Member| member.id != me && view.conf_state.voters.contains(&member.id);
    let asked = view.members.values().filter(is_asked).map(|member| async move {
        let status = status_of(member, cluster, dialer).await;
        status.filter(|status| is_on_duty(status) && suits(status)).map(|_| member.id)
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What a member says of itself; `None`: it does not answer within two seconds.
pub(crate) async fn status_of(
    member: &Member,
    cluster: ClusterId,
    dialer: &NodeDialer,
) -> Option<v1::StatusResponse> {
    tokio::time::timeout(PATIENCE, ask(member, cluster, dialer)).await.ok().flatten()
}

async fn ask(
    member: &Member,
    cluster: ClusterId,
    dialer: &NodeDialer,
) -> Option<v1::StatusResponse> {
    let way = dialer.to_node(member.id).way(&member.address).ok()?;
    let channel = way.tuned(|it| it.connect_timeout(PATIENCE)).connect().await.ok()?;
    let mut request = tonic::Request::new(v1::StatusRequest::default());
    request.set_timeout(PATIENCE);
    raft_host_proto::mean_for(&mut request, cluster.0);
    let answer = AdminClient::new(channel).status(request).await.ok()?;
    Some(answer.into_inner())
}

fn is_on_duty(status: &v1::StatusResponse) -> bool {
    let serves = status.group("").is_some_and(|group| group.not_serving.is_empty());
    serves && !status.drained
}
