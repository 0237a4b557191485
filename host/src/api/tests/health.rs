//! `grpc.health.v1`: what is asked once, and what is watched.

use tonic::Streaming;
use tonic_health::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;

const SERVICES: [&str; 5] =
    ["", "readiness", "raft_host.v1.Client", "raft_host.v1.Admin", "group/main"];

pub(super) async fn health(node: &TestNode, service: &str) -> i32 {
    let request = HealthCheckRequest { service: service.into() };
    let mut client = HealthClient::new(node.channel.clone());
    client.check(request).await.unwrap().into_inner().status
}

/// Watches all that has a health.
async fn watch(node: &TestNode) -> Vec<Streaming<HealthCheckResponse>> {
    let mut watches = Vec::new();
    for service in SERVICES {
        let request = HealthCheckRequest { service: service.into() };
        let mut client = HealthClient::new(node.channel.clone());
        watches.push(client.watch(request).await.unwrap().into_inner());
    }
    watches
}

/// Returns when each of them was told so.
async fn all_become(watches: &mut [Streaming<HealthCheckResponse>], status: ServingStatus) {
    for (watch, service) in watches.iter_mut().zip(SERVICES) {
        let told = async {
            while watch.message().await.unwrap().expect("it goes on").status != status as i32 {}
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        assert!(told.is_ok(), "{service:?} was not told that it is {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_leadership_and_draining() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let mut watches = watch(node).await;
    all_become(&mut watches, ServingStatus::Serving).await;
    for name in SERVICES {
        assert_eq!(health(node, name).await, 1, "{name}");
    }
    node.node.drain().await;
    all_become(&mut watches, ServingStatus::NotServing).await;
    for name in SERVICES {
        assert_eq!(health(node, name).await, 2, "{name}");
    }
    let refused = query(node, r#"{"op":"count"}"#).await;
    assert_fails(refused, Code::Unavailable, "none", "shutting down");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_health_hears_that_a_node_is_drained_and_put_back() {
    let cluster = Cluster::of(3).await.with_kv().await;
    let node = cluster.leader();
    let mut watches = watch(node).await;
    all_become(&mut watches, ServingStatus::Serving).await;
    let drain = |undrain| v1::DrainRequest { undrain, ..Default::default() };
    let drained = node.admin().drain(drain(false)).await.unwrap().into_inner();
    assert_eq!((drained.node_id, drained.unchanged), (node.handle.identity().node.0, false));
    assert!(![0, drained.node_id].contains(&drained.leader_id), "{drained:?}");
    all_become(&mut watches, ServingStatus::NotServing).await;
    assert_eq!(node.handle.not_serving().map(|why| why.contains("drained")), Some(true));
    // It answers all the same: its clients go when their load balancer says so.
    query(node, r#"{"op":"count"}"#).await.unwrap();
    assert!(node.admin().drain(drain(false)).await.unwrap().into_inner().unchanged);
    assert!(!node.admin().drain(drain(true)).await.unwrap().into_inner().unchanged);
    all_become(&mut watches, ServingStatus::Serving).await;
    assert!(node.admin().drain(drain(true)).await.unwrap().into_inner().unchanged);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_is_not_drained() {
    let cluster = Cluster::of(1).await;
    let refused = cluster.leader().admin().drain(v1::DrainRequest::default()).await;
    assert_fails(refused, Code::FailedPrecondition, "none", "this node is the only voter");
    assert!(!cluster.leader().handle.is_off_duty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_health_hears_that_the_quorum_is_lost() {
    let mut cluster = Cluster::of(3).await.with_kv().await;
    let lost = [cluster.nodes.pop().unwrap(), cluster.nodes.pop().unwrap()];
    let mut watches = watch(&cluster.nodes[0]).await;
    all_become(&mut watches, ServingStatus::Serving).await;
    for node in lost {
        node.stop().await;
    }
    all_become(&mut watches, ServingStatus::NotServing).await;
    assert_eq!(health(&cluster.nodes[0], "liveness").await, 1, "to start it again mends nothing");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_lives_while_it_drains_and_not_when_it_has_stopped() {
    let cluster = Cluster::of(1).await;
    let node = cluster.leader();
    let request = HealthCheckRequest { service: "liveness".into() };
    let mut client = HealthClient::new(node.channel.clone());
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().expect("it goes on");
    assert_eq!(first.status, ServingStatus::Serving as i32);
    let mut others = self::watch(node).await;
    node.node.drain().await;
    all_become(&mut others, ServingStatus::NotServing).await;
    assert_eq!(health(node, "readiness").await, ServingStatus::NotServing as i32);
    assert_eq!(health(node, "liveness").await, ServingStatus::Serving as i32);
    assert!(node.node.close_group(GroupId::MAIN));
    let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("in time");
    assert_eq!(next.unwrap().expect("it goes on").status, ServingStatus::NotServing as i32);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_of_health_end_with_the_server() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let mut watches = watch(cluster.leader()).await;
    all_become(&mut watches, ServingStatus::Serving).await;
    cluster.stop().await;
    for watch in &mut watches {
        // Told that it does not serve or not, it ends.
        while let Ok(Some(said)) = watch.message().await {
            assert_eq!(said.status, ServingStatus::NotServing as i32);
        }
    }
}
