//! Requests that are meant for another cluster, and clusters that nobody has confirmed.

use crate::tls::NodeDialer;
use crate::types::{Member, NodeId};
use raft_host_proto::CLUSTER_KEY;
use tonic::Request;
use tonic::metadata::MetadataMap;

use super::*;
use crate::api::forward::{Forwarder, passed_on};
use crate::types::Rival;

const OTHER: ClusterId = ClusterId([8; 16]);

fn meant_for<T>(cluster: ClusterId, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(CLUSTER_KEY, cluster.to_string().parse().unwrap());
    request
}

fn said_by(metadata: &MetadataMap) -> String {
    metadata.get(CLUSTER_KEY).expect("every answer says it").to_str().unwrap().to_owned()
}

fn rival() -> Rival {
    Rival {
        cluster: OTHER,
        node: NodeId(2),
        address: "127.0.0.1:1".to_owned(),
        dialled: "127.0.0.1:2".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_which_cluster_gave_it_and_requests_for_another_one_do_nothing() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let applied = node.client().apply(meant_for(CLUSTER, set(1))).await.unwrap();
    assert_eq!(said_by(applied.metadata()), CLUSTER.to_string());
    let refused = node
        .client()
        .apply(v1::ApplyRequest { group: "other".into(), ..set(1) })
        .await
        .unwrap_err();
    assert_eq!(said_by(refused.metadata()), CLUSTER.to_string(), "a failure says it too");
    let named = node.client().cluster(v1::ClusterRequest {}).await.unwrap().into_inner();
    assert_eq!(named.cluster_id[..], CLUSTER.0);

    let before = node.handle.status().await.unwrap().last_index;
    let foreign = node.client().apply(meant_for(OTHER, set(2))).await;
    assert_eq!(said_by(foreign.as_ref().unwrap_err().metadata()), CLUSTER.to_string());
    assert_fails(foreign, Code::FailedPrecondition, "none", &OTHER.to_string());
    let (commands, parts) = mpsc::channel(1);
    let message = v1::ApplyStreamRequest { commands: vec![tagged(1, set(3))] };
    commands.send(message).await.unwrap();
    let stream = meant_for(OTHER, ReceiverStream::new(parts));
    let foreign = node.client().apply_stream(stream).await.map(drop);
    assert_fails(foreign, Code::FailedPrecondition, "none", &CLUSTER.to_string());
    let nothing = tokio_stream::empty::<v1::QueryStreamRequest>();
    let foreign = node.client().query_stream(meant_for(OTHER, nothing)).await.map(drop);
    assert_fails(foreign, Code::FailedPrecondition, "none", &CLUSTER.to_string());
    let change = v1::AddMemberRequest { address: "127.0.0.1:1".to_owned(), ..Default::default() };
    let foreign = node.admin().add_member(meant_for(OTHER, change)).await;
    assert_fails(foreign, Code::FailedPrecondition, "none", &OTHER.to_string());
    assert_eq!(node.handle.status().await.unwrap().last_index, before, "nothing was proposed");

    // What another cluster's node passes to the address of its last leader goes back to it.
    let forwarder = Forwarder::new(&ApiConfig::default(), OTHER, NodeDialer::plain());
    let passed = passed_on(set(4), Some(PATIENCE));
    let answer = forwarder
        .client(&Member { id: NodeId(1), address: node.address.clone() })
        .unwrap()
        .apply(passed)
        .await;
    assert_fails(answer, Code::Unavailable, "none", &OTHER.to_string());
    assert_eq!(query(node, r#"{"op":"count"}"#).await.unwrap(), r#"{"count":1}"#);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disputed_new_cluster_serves_nobody_until_it_is_confirmed() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let (commands, parts) = mpsc::channel(1);
    let mut answers =
        node.client().apply_stream(ReceiverStream::new(parts)).await.unwrap().into_inner();
    let send =
        |tag| commands.send(v1::ApplyStreamRequest { commands: vec![tagged(tag, set(tag))] });
    send(1).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().results[0].tag, 1);
    let (questions, parts) = mpsc::channel(1);
    let mut told =
        node.client().query_stream(ReceiverStream::new(parts)).await.unwrap().into_inner();
    let status = || async { node.admin().status(v1::StatusRequest::default()).await };
    assert!(status().await.unwrap().into_inner().rival.is_none());

    node.handle.begin_probation(Some(rival()));
    let words = "raft-host confirm";
    assert_fails(node.client().apply(set(2)).await, Code::Unavailable, "none", words);
    assert_fails(query(node, r#"{"op":"count"}"#).await, Code::Unavailable, "none", words);
    let opened = node.client().open_session(v1::OpenSessionRequest::default()).await;
    assert_fails(opened, Code::Unavailable, "none", words);
    assert_fails(
        node.client().cluster(v1::ClusterRequest {}).await,
        Code::Unavailable,
        "none",
        words,
    );
    let joined = node.membership().join(join_request(&node.address)).await;
    assert_fails(joined, Code::Unavailable, "none", words);
    // Nor is a stream of before a way in.
    send(2).await.unwrap();
    let results = answers.message().await.unwrap().unwrap().results;
    let Some(v1::tagged_result::Result::Error(error)) = &results[0].result else {
        panic!("{results:?}");
    };
    assert_eq!(error.effect(), v1::Effect::None, "{error:?}");
    let count = v1::QueryRequest { query: r#"{"op":"count"}"#.into(), ..Default::default() };
    let count = v1::TaggedQuery { request: Some(count), ..Default::default() };
    questions.send(v1::QueryStreamRequest { queries: vec![count] }).await.unwrap();
    let answers = told.message().await.unwrap().unwrap().answers;
    let Some(v1::tagged_answer::Result::Error(error)) = &answers[0].result else {
        panic!("{answers:?}");
    };
    assert!(error.message.contains(words), "{error:?}");
    let said = status().await.unwrap().into_inner();
    let not_serving = &said.group("").unwrap().not_serving;
    assert!(not_serving.contains(words), "{not_serving}");
    let said = said.rival.expect("it is named");
    assert_eq!((&said.cluster_id[..], said.node_id), (&OTHER.0[..], 2));
    assert!(said.unconfirmed);

    let confirm = |cluster: &[u8]| {
        let request = v1::ConfirmRequest { cluster_id: Bytes::copy_from_slice(cluster) };
        let mut admin = node.admin();
        async move { admin.confirm(request).await }
    };
    let another = confirm(&OTHER.0).await;
    assert_fails(another, Code::FailedPrecondition, "none", &CLUSTER.to_string());
    assert_fails(confirm(b"c1").await, Code::InvalidArgument, "none", "16 bytes");
    assert!(node.handle.is_unconfirmed());
    let confirmed = confirm(&CLUSTER.0).await.unwrap().into_inner();
    assert!(confirmed.was_unconfirmed);
    node.client().apply(set(2)).await.unwrap();
    assert_eq!(query(node, r#"{"op":"count"}"#).await.unwrap(), r#"{"count":2}"#);
    assert!(status().await.unwrap().into_inner().rival.is_none());
    let again = confirm(&CLUSTER.0).await.unwrap().into_inner();
    assert!(!again.was_unconfirmed);
    drop(commands);
    cluster.stop().await;
}
