//! What failed calls say, and what the answers of queries reflect.

use raft_host_proto::codec::BoundedCodec;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Response};

use super::*;

fn detail(status: &Status) -> v1::ErrorDetail {
    v1::ErrorDetail::of(status).expect("every failure has one")
}

/// Calls a method with a message of another one.
pub(super) async fn call(
    node: &TestNode,
    path: &'static str,
) -> Result<Response<v1::Position>, Status> {
    let mut service = Grpc::new(node.channel.clone());
    service.ready().await.unwrap();
    let codec: BoundedCodec<v1::Position, v1::Position> = BoundedCodec::default();
    let request = Request::new(v1::Position { index: 7, ordinal: 0 });
    service.unary(request, PathAndQuery::from_static(path), codec).await
}

/// Failures of the gRPC library had neither an effect nor a detail.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_grpc_library_refuses_is_labelled_as_well() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    for path in ["/raft_host.v1.Client/Nothing", "/raft_host.v9.Client/Apply"] {
        let status = call(node, path).await.unwrap_err();
        assert_eq!(detail(&status).reason(), v1::Reason::UnknownMethod, "{path}: {status}");
        assert_fails::<()>(Err(status), Code::Unimplemented, "none", "");
    }
    // Longer than the library takes: the reason has its one code here as well.
    let long = v1::ApplyRequest { command: vec![0; 5 << 20].into(), ..Default::default() };
    let status = node.client().apply(long).await.unwrap_err();
    let said = detail(&status);
    assert_eq!(said.reason(), v1::Reason::TooLarge, "{status}");
    let exceeded = said.exceeded.expect("a limit");
    assert_eq!((exceeded.limit.as_str(), exceeded.max), ("api.max_message_bytes", 4 << 20));
    assert!(exceeded.value > 5 << 20, "{exceeded:?}");
    assert_fails::<()>(Err(status), Code::InvalidArgument, "none", "");
    // The code of another protocol stays what that protocol says.
    let service = "nobody".to_owned();
    let request = tonic_health::pb::HealthCheckRequest { service };
    let status = HealthClient::new(node.channel.clone()).check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(status.metadata().get(EFFECT_KEY).unwrap(), "none", "{status}");
    let status = call(node, "/raft_host.v1.Client/Apply").await.unwrap_err();
    assert_eq!(detail(&status).effect(), v1::Effect::None, "{status}");
    assert_eq!(status.metadata().get(EFFECT_KEY).unwrap(), "none", "{status}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_the_limit_the_leader_and_the_entry_that_it_is_about() {
    let cluster = Cluster::of(2).await.with_kv().await;
    let query = v1::QueryRequest { query: vec![0; 3 << 20].into(), ..Default::default() };
    let status = cluster.leader().client().query(query).await.unwrap_err();
    let exceeded = detail(&status).exceeded.expect("a limit");
    assert_eq!((exceeded.limit.as_str(), exceeded.value), ("input_max_bytes", 3 << 20));
    assert!(exceeded.max < exceeded.value);

    let mut passed = Request::new(set(1));
    passed.metadata_mut().insert(raft_host_proto::FORWARDED_KEY, "1".parse().unwrap());
    let status = cluster.follower().client().apply(passed).await.unwrap_err();
    let said = detail(&status);
    assert_eq!((said.reason(), said.retry_after_ms), (v1::Reason::NotLeader, Some(0)));
    let leader = said.leader.expect("it is known");
    assert_eq!((leader.node_id, &leader.address), (1, &cluster.leader().address));

    let status = upgrade_from(cluster.leader(), None, NULL).await.unwrap_err();
    let said = detail(&status);
    assert_eq!(said.reason(), v1::Reason::IncumbentChanged);
    assert!(said.index > 0, "{said:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_reads_what_was_written_and_says_how_old_its_answer_may_be() {
    let cluster = Cluster::of(3).await.with_kv().await;
    let follower = cluster.follower();
    let get = |key: u64| v1::QueryRequest {
        query: format!(r#"{{"op":"get","key":"{key}"}}"#).into(),
        consistency: v1::Consistency::Stale.into(),
        ..Default::default()
    };
    // Nothing says yet how old this node's state is.
    let first = follower.client().query(get(0)).await.unwrap().into_inner();
    assert_eq!(first.age_ms, None);
    for key in 1..20 {
        let applied = cluster.leader().client().apply(set(key)).await.unwrap().into_inner();
        let min_index = applied.position.unwrap().index;
        let request = v1::QueryRequest { min_index, ..get(key) };
        let answer = follower.client().query(request).await.unwrap().into_inner();
        assert!(answer.applied_index >= min_index);
        let Some(Kind::Ok(bytes)) = answer.outcome.unwrap().kind else { panic!("no answer") };
        assert!(!bytes.is_empty(), "key {key} was written");
    }
    // Confirmed once, and good for an hour.
    let request = v1::QueryRequest { max_staleness_ms: Some(3_600_000), ..get(1) };
    for _ in 0..2 {
        let answer = follower.client().query(request.clone()).await.unwrap().into_inner();
        assert!(answer.age_ms.is_some_and(|age| age <= 3_600_000), "{answer:?}");
    }
    // No time at all: each is confirmed.
    let request = v1::QueryRequest { max_staleness_ms: Some(0), ..get(1) };
    follower.client().query(request).await.unwrap();

    let mut late = Request::new(v1::QueryRequest { min_index: 1 << 40, ..get(1) });
    // The node answers half a second before, so that its own words arrive.
    late.set_timeout(Duration::from_millis(2_500));
    let answer = follower.client().query(late).await;
    assert_fails(answer, Code::Unavailable, "none", "not entry 1099511627776 yet");
    let consistency = v1::Consistency::Linearizable.into();
    let request = v1::QueryRequest { consistency, max_staleness_ms: Some(1), ..get(1) };
    let answer = follower.client().query(request).await;
    assert_fails(answer, Code::InvalidArgument, "none", "never stale");

    let linearizable = v1::MembersRequest { linearizable: true, ..Default::default() };
    let members = follower.admin().members(linearizable).await.unwrap().into_inner().members;
    assert_eq!(members.len(), 3);
    let linearizable = v1::LimitsRequest { linearizable: true, ..Default::default() };
    follower.admin().limits(linearizable).await.unwrap();
    cluster.stop().await;
}
