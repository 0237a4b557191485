use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use super::fake::{Cluster, Fault, client, nobody, node};
use super::*;

fn impatient() -> ClientOptions {
    ClientOptions { deadline: Duration::from_millis(300), ..ClientOptions::default() }
}

fn answer(response: &v1::ApplyResponse) -> Bytes {
    match response.outcome.as_ref().unwrap().kind.as_ref().unwrap() {
        v1::outcome::Kind::Ok(bytes) => bytes.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_then_left_alone() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[nobody().await, node.address], ClientOptions::default());
    assert_eq!(answer(&client.apply("a").await.unwrap()), "a");
    assert_eq!(client.endpoints.pick().address, node.address.to_string());
    assert_eq!(client.status().await.unwrap().node_id, 7);
}

#[tokio::test]
async fn when_nobody_can_be_reached_the_command_surely_did_not_happen() {
    let client = client(&[nobody().await], impatient());
    let error = client.apply("a").await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error:?}");
    assert!(matches!(error, ClientError::Unavailable { .. }));
}

#[tokio::test]
async fn a_plain_command_is_repeated_only_when_it_surely_had_no_effect() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    cluster.plan([Fault::Refuse(Code::Unavailable), Fault::Refuse(Code::ResourceExhausted)]);
    client.apply("a").await.unwrap();
    cluster.plan([Fault::LoseAnswer]);
    let error = client.apply("b").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(error.code(), Some(Code::Unavailable));
    assert_eq!(cluster.executed(), ["a", "b"]);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let error = client.apply("refuse").await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Refused { code: Code::InvalidArgument, effect: Effect::None, .. }
        ),
        "{error:?}"
    );
    assert_eq!(*cluster.requests.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_query_is_repeated_whatever_happened() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let options =
        ClientOptions { attempt_timeout: Duration::from_millis(100), ..ClientOptions::default() };
    let client = client(&[node.address], options);
    cluster.plan([Fault::LoseAnswer, Fault::Hang]);
    client.query("q", v1::Consistency::Linearizable).await.unwrap();
    assert!(cluster.faults.lock().unwrap().is_empty());
}

/// Every attempt has all nodes digest their state, and would make worthless what they did before.
#[tokio::test]
async fn a_comparison_of_digests_is_waited_for_and_repeated_only_when_it_failed() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let options = ClientOptions {
        attempt_timeout: Duration::from_millis(20),
        admin_deadline: Duration::from_millis(400),
        connect_timeout: Duration::from_millis(100),
        ..ClientOptions::default()
    };
    let client = client(&[node.address], options);
    cluster.plan([Fault::Hang]);
    assert!(client.compare_digests().await.is_err());
    assert_eq!(*cluster.requests.lock().unwrap(), 1, "one, though it took all the time there was");
    cluster.plan([Fault::LoseAnswer]);
    assert!(client.compare_digests().await.unwrap().all_agree);
    assert_eq!(*cluster.requests.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_session_command_whose_answers_are_lost_happens_once() {
    let cluster = Arc::new(Cluster::default());
    let nodes = [node(&cluster).await, node(&cluster).await];
    let client = client(&[nodes[0].address, nodes[1].address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    cluster.plan([Fault::LoseAnswer, Fault::Refuse(Code::Aborted), Fault::LoseAnswer]);
    assert_eq!(answer(&session.apply("a").await.unwrap()), "a");
    assert_eq!(answer(&session.apply("b").await.unwrap()), "b");
    assert_eq!(cluster.executed(), ["a", "b"]);
    assert_eq!(cluster.kept(session.id()), 1);
    session.close().await.unwrap();
    assert!(cluster.sessions().is_empty());
}

#[tokio::test]
async fn concurrent_session_commands_each_happen_once() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let session = client.open_session(Some(Duration::from_secs(9))).await.unwrap();
    assert_eq!(session.ttl_ms(), 9000);
    cluster.plan([Fault::LoseAnswer; 20]);
    let commands = (0..50).map(|n| session.apply(n.to_string()));
    for (n, result) in futures::future::join_all(commands).await.into_iter().enumerate() {
        assert_eq!(answer(&result.unwrap()), n.to_string());
    }
    assert_eq!(cluster.executed().len(), 50);
    session.apply("last").await.unwrap();
    assert_eq!(cluster.kept(session.id()), 1);
}

#[tokio::test]
async fn an_expired_session_says_whether_the_command_may_have_happened() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    cluster.expire_sessions();
    let error = session.apply("a").await.unwrap_err();
    assert!(matches!(error, ClientError::SessionExpired { effect: Effect::None, .. }), "{error:?}");
    // The first attempt hangs; by the second one the session is gone.
    let options =
        ClientOptions { attempt_timeout: Duration::from_millis(50), ..ClientOptions::default() };
    let client = super::fake::client(&[node.address], options);
    let session = client.open_session(None).await.unwrap();
    cluster.expire_sessions();
    cluster.plan([Fault::Hang]);
    let error = session.apply("b").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(matches!(error, ClientError::SessionExpired { .. }));
}

/// Pipelines `count` commands and returns the results.
async fn pipelined(client: &Client, count: u64, options: PipelineOptions) -> Vec<PipelineResult> {
    let session = client.open_session(None).await.unwrap();
    let (sender, mut results) = session.pipeline(options);
    let submit = async move {
        for n in 0..count {
            sender.send(n.to_string()).await.unwrap();
        }
    };
    let collect = async {
        let mut all = Vec::new();
        while let Some(result) = results.next().await {
            all.push(result);
        }
        all
    };
    tokio::join!(submit, collect).1
}

fn check_all_answered(results: Vec<PipelineResult>, cluster: &Cluster, count: u64) {
    assert_eq!(results.len() as u64, count);
    for (n, PipelineResult { tag, result }) in results.into_iter().enumerate() {
        assert_eq!(tag, n as u64);
        assert_eq!(answer(&result.unwrap()), n.to_string());
    }
    let mut executed: Vec<u64> =
        cluster.executed().iter().map(|command| command.parse().unwrap()).collect();
    executed.sort_unstable();
    assert_eq!(executed, (0..count).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pipeline_answers_in_order_and_closes_its_session() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let results = pipelined(&client, 5000, PipelineOptions::default()).await;
    check_all_answered(results, &cluster, 5000);
    assert!(cluster.sessions().is_empty());
    assert!(pipelined(&client, 0, PipelineOptions::default()).await.is_empty());
}

#[tokio::test]
async fn a_pipeline_survives_everything_and_every_command_happens_once() {
    let cluster = Arc::new(Cluster::default());
    let nodes = [node(&cluster).await, node(&cluster).await];
    let addresses = [nobody().await, nodes[0].address, nodes[1].address];
    let client = client(&addresses, ClientOptions::default());
    for round in 0..30_usize {
        cluster.plan((0..round).map(|_| Fault::AnswerTwice));
        cluster.plan([
            Fault::LoseAnswer,
            Fault::DropStream,
            Fault::Refuse(Code::ResourceExhausted),
            Fault::Refuse(Code::Unavailable),
            Fault::DropStream,
        ]);
    }
    let options = PipelineOptions { window: 64, ..PipelineOptions::default() };
    check_all_answered(pipelined(&client, 3000, options).await, &cluster, 3000);
    assert!(cluster.faults.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_pipeline_leaves_a_node_that_hangs() {
    let cluster = Arc::new(Cluster::default());
    let nodes = [node(&cluster).await, node(&cluster).await];
    let options =
        ClientOptions { attempt_timeout: Duration::from_millis(100), ..ClientOptions::default() };
    let client = client(&[nodes[0].address, nodes[1].address], options);
    cluster.plan([Fault::Hang; 3]);
    check_all_answered(pipelined(&client, 5, PipelineOptions::default()).await, &cluster, 5);
}

#[tokio::test]
async fn a_pipeline_reports_a_refused_command_and_goes_on() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    let (sender, mut results) = session.pipeline(PipelineOptions::default());
    for command in ["a", "refuse", "b"] {
        sender.send(command).await.unwrap();
    }
    drop(sender);
    assert!(results.next().await.unwrap().result.is_ok());
    let refused = results.next().await.unwrap().result.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { effect: Effect::None, .. }), "{refused:?}");
    assert!(results.next().await.unwrap().result.is_ok());
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn an_expired_pipeline_tells_commands_that_may_have_happened_from_those_that_did_not() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let options =
        ClientOptions { attempt_timeout: Duration::from_millis(100), ..ClientOptions::default() };
    let client = client(&[node.address], options);
    let session = client.open_session(None).await.unwrap();
    let (sender, mut results) = session.pipeline(PipelineOptions::default());
    sender.send("done").await.unwrap();
    assert!(results.next().await.unwrap().result.is_ok());
    // Sent, never answered there, and answered elsewhere that the session is gone.
    cluster.plan([Fault::Hang]);
    cluster.expire_sessions();
    sender.send("lost").await.unwrap();
    let lost = results.next().await.unwrap();
    let error = lost.result.unwrap_err();
    assert!(matches!(error, ClientError::SessionExpired { .. }), "{error:?}");
    assert_eq!((lost.tag, error.effect()), (1, Effect::Unknown));
    sender.send("late").await.unwrap();
    let error = results.next().await.unwrap().result.unwrap_err();
    assert_eq!(error.effect(), Effect::None);
    drop(sender);
    assert!(results.next().await.is_none());
    assert_eq!(cluster.executed(), ["done"]);
}

#[tokio::test]
async fn a_pipeline_gives_up_at_the_deadline() {
    let client_options =
        ClientOptions { connect_timeout: Duration::from_millis(50), ..impatient() };
    let cluster = Arc::new(Cluster::default());
    let up = node(&cluster).await;
    let session = client(&[up.address], ClientOptions::default()).open_session(None).await.unwrap();
    let dead = client(&[nobody().await], client_options);
    let (sender, mut results) = pipeline::start(dead, session.id(), 1, PipelineOptions::default());
    sender.send("a").await.unwrap();
    let error = results.next().await.unwrap().result.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error:?}");
    drop(results);
    while sender.send("b").await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_window_holds_senders_back_until_results_are_taken() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    let options = PipelineOptions { window: 10, window_bytes: 4 };
    let (sender, mut results) = session.pipeline(options);
    // Larger than the whole window: it goes alone.
    sender.send("a large command").await.unwrap();
    let mut second = Box::pin(sender.send("b"));
    assert!(futures::poll!(&mut second).is_pending());
    assert!(results.next().await.unwrap().result.is_ok());
    second.await.unwrap();
    assert!(results.next().await.unwrap().result.is_ok());
}

#[tokio::test]
async fn an_upgrade_is_sent_in_parts_after_its_header() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let module = vec![7; (1 << 20) + 1];
    assert_eq!(client.upgrade(module, "kv.wasm").await.unwrap().index, 5);
    let parts = cluster.upgrades.lock().unwrap();
    let sizes: Vec<usize> = parts
        .iter()
        .map(|part| match part.part.as_ref().unwrap() {
            v1::upgrade_request::Part::Header(header) => {
                assert_eq!((header.total_bytes, header.module_hash.len()), ((1 << 20) + 1, 32));
                let replaces = header.replaces.as_ref().unwrap();
                assert_eq!((replaces.activated_at, &replaces.module_hash[..]), (4, &[10; 32][..]));
                0
            }
            v1::upgrade_request::Part::Data(data) => data.len(),
        })
        .collect();
    assert_eq!(sizes, [0, 512 << 10, 512 << 10, 1]);
}
