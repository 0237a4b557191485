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

/// The node said in time that nothing happened; the attempt after that ended before its answer came,
/// so that it was in doubt.
#[tokio::test]
async fn no_attempt_begins_so_late_that_its_end_would_say_nothing() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let options = ClientOptions { deadline: Duration::from_secs(4), ..ClientOptions::default() };
    let client = client(&[node.address], options);
    let late = Fault::RefuseLate(Code::Unavailable, Duration::from_millis(3_550));
    cluster.plan([late, Fault::Hang]);
    let error = client.apply("a").await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error:?}");
    assert_eq!(*cluster.requests.lock().unwrap(), 1);

    cluster.faults.lock().unwrap().clear();
    let session = client.open_session(None).await.unwrap();
    let before = *cluster.requests.lock().unwrap();
    cluster.plan([late, Fault::Hang]);
    let (sender, mut results) = session.pipeline(PipelineOptions::default());
    sender.send("b").await.unwrap();
    let error = results.next().await.unwrap().result.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error:?}");
    assert_eq!(*cluster.requests.lock().unwrap(), before + 1);
    assert!(cluster.executed().is_empty());
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

/// Leaders change while a module is rehearsed for minutes.
#[tokio::test]
async fn what_comes_before_an_activation_is_repeated_whatever_became_of_it() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    cluster.plan([Fault::LoseAnswer]);
    client.stage("module").await.unwrap();
    assert_eq!(*cluster.requests.lock().unwrap(), 2);
    cluster.plan([Fault::LoseAnswer]);
    assert!(client.rehearse(v1::RehearseRequest::default()).await.unwrap().passed);
    assert_eq!(*cluster.requests.lock().unwrap(), 4);
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

fn opened(session_id: u64) -> v1::OpenSessionResponse {
    v1::OpenSessionResponse { session_id, ttl_ms: 600_000, ..Default::default() }
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
    let session = Session::new(dead, opened(session.id()));
    let (sender, mut results) = session.pipeline(PipelineOptions::default());
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

/// Answers from one byte to four megabytes, to a session that keeps little, with lost answers and
/// broken streams.
#[tokio::test]
async fn commands_with_long_answers_happen_once_and_few_are_refused_for_want_of_room() {
    let cluster = Arc::new(Cluster::default());
    *cluster.kept_max_bytes.lock().unwrap() = 16 << 20;
    let nodes = [node(&cluster).await, node(&cluster).await];
    let client = client(&[nodes[0].address, nodes[1].address], ClientOptions::default());
    for length in [1, 8 << 10, 64 << 10, 1 << 20, 4 << 20] {
        let count = (64 << 20) / length.max(128 << 10);
        cluster.plan([Fault::DropStream, Fault::LoseAnswer, Fault::DropStream]);
        *cluster.refused_full.lock().unwrap() = 0;
        cluster.executed.lock().unwrap().clear();
        let session = client.open_session(None).await.unwrap();
        let (sender, mut results) = session.pipeline(PipelineOptions::default());
        let submit = async move {
            for n in 0..count {
                sender.send(format!("long {length} {n}")).await.unwrap();
            }
        };
        let collect = async {
            let mut answered = 0;
            while let Some(PipelineResult { tag, result }) = results.next().await {
                let answer = answer(&result.unwrap_or_else(|error| panic!("{tag}: {error}")));
                assert_eq!(answer.len(), length);
                answered += 1;
            }
            answered
        };
        assert_eq!(tokio::join!(submit, collect).1, count);
        let executed = cluster.executed();
        let distinct: std::collections::BTreeSet<_> = executed.iter().collect();
        assert_eq!((executed.len(), distinct.len()), (count, count), "{length}");
        // The first ones are a guess.
        let refused = *cluster.refused_full.lock().unwrap();
        assert!(refused <= count as u64, "{refused} of {count} with answers of {length} bytes");
    }
}

#[tokio::test]
async fn concurrent_calls_in_a_session_wait_for_room_for_their_answers() {
    let cluster = Arc::new(Cluster::default());
    *cluster.kept_max_bytes.lock().unwrap() = 1 << 20;
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    let calls = (0..40).map(|n| session.apply(format!("long {} {n}", 300 << 10)));
    for result in futures::future::join_all(calls).await {
        assert_eq!(answer(&result.unwrap()).len(), 300 << 10);
    }
    assert_eq!(cluster.executed().len(), 40);
}

#[tokio::test]
async fn a_session_without_commands_is_kept_alive_and_lets_go_of_long_answers() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let kept = |session: u64, acknowledged: u64| {
        let cluster = Arc::clone(&cluster);
        async move {
            let is_it = |kept: &&v1::KeepSessionRequest| {
                (kept.session_id, kept.acknowledged) == (session, acknowledged)
            };
            while cluster.kept_alive.lock().unwrap().iter().find(is_it).is_none() {
                tokio::task::yield_now().await;
            }
        }
    };
    let short = client.open_session(Some(Duration::from_millis(30))).await.unwrap();
    kept(short.id(), 0).await;
    // It is not due for an hour.
    let long = client.open_session(Some(Duration::from_secs(10_800))).await.unwrap();
    long.apply(format!("long {}", 1 << 20)).await.unwrap();
    kept(long.id(), 1).await;
}

#[tokio::test]
async fn nodes_are_told_how_long_a_request_is_waited_for_and_no_patience_is_too_long() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let told = || cluster.last_timeout.lock().unwrap().take().expect("it was told");
    let patient = ClientOptions { deadline: Duration::from_secs(86_400), ..Default::default() };
    let alone = ClientOptions { sharing: false, ..patient.clone() };
    client(&[node.address], alone).apply("a").await.unwrap();
    assert!(told().starts_with("86399"), "a day, less what has passed");
    client(&[node.address], patient).apply("a").await.unwrap();
    assert_eq!(*cluster.last_timeout_ms.lock().unwrap() / 1_000, 86_399);
    let endless = ClientOptions {
        connect_timeout: Duration::MAX,
        attempt_timeout: Duration::MAX,
        deadline: Duration::MAX,
        admin_deadline: Duration::MAX,
        backoff_max: Duration::MAX,
        keepalive: Duration::MAX,
        ..ClientOptions::default()
    };
    let client = client(&[node.address], endless);
    client.apply("b").await.unwrap();
    let session = client.open_session(Some(Duration::MAX)).await.unwrap();
    cluster.plan([Fault::LoseAnswer, Fault::LoseAnswer]);
    session.apply("c").await.unwrap();
    client.upgrade("module", "label").await.unwrap();
    check_all_answered_in(pipelined(&client, 3, PipelineOptions::default()).await);
}

fn check_all_answered_in(results: Vec<PipelineResult>) {
    assert_eq!(results.len(), 3);
    results.into_iter().for_each(|result| drop(result.result.unwrap()));
}

#[tokio::test]
async fn the_deadline_of_a_command_counts_from_its_submission_not_from_its_batch() {
    let options = ClientOptions {
        deadline: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(20),
        ..ClientOptions::default()
    };
    let dead = client(&[nobody().await], options);
    let session = Session::new(dead, opened(1));
    let (sender, mut results) = session.pipeline(PipelineOptions::default());
    // Two batches. The second is taken in when the first is given up; it used to wait anew.
    for n in 0..1_000 {
        sender.send(n.to_string()).await.unwrap();
    }
    drop(sender);
    let mut attempts_made = Vec::new();
    while let Some(result) = results.next().await {
        match result.result.unwrap_err() {
            ClientError::Unavailable { effect: Effect::None, attempts, .. } => {
                attempts_made.push(attempts);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(attempts_made.len(), 1_000);
    assert!(attempts_made[0] > 1 && attempts_made[999] == 0, "{attempts_made:?}");
}

/// A node that was wiped formed a second cluster on its old address, and answered the clients of the
/// first one.
#[tokio::test]
async fn a_client_stays_with_the_cluster_that_answered_first() {
    let (ours, other) = (Cluster::numbered(1), Cluster::numbered(2));
    let (first, second) = (node(&ours).await, node(&ours).await);
    let client = client(&[first.address, second.address], ClientOptions::default());
    assert_eq!(client.cluster(), None);
    let session = client.open_session(None).await.unwrap();
    assert_eq!(client.cluster().unwrap().to_string(), ours.id());
    session.apply("a").await.unwrap();
    // All nodes of the endpoint at hand are replaced: the connection stays, the cluster does not.
    let impostor = Client {
        endpoints: Arc::new(
            Endpoints::new(
                [node_of(&other).await, second.address.to_string()],
                &ClientOptions::default(),
            )
            .unwrap(),
        ),
        ..client.clone()
    };
    assert_eq!(answer(&impostor.apply("b").await.unwrap()), "b");
    let (sender, mut results) =
        impostor.open_session(None).await.unwrap().pipeline(PipelineOptions::default());
    sender.send("c").await.unwrap();
    assert_eq!(answer(&results.next().await.unwrap().result.unwrap()), "c");
    assert_eq!(ours.executed(), ["a", "b", "c"]);
    assert!(other.executed().is_empty() && other.sessions().is_empty());
    // Left alone after the first refusal.
    assert_eq!(*other.refused_foreign.lock().unwrap(), 1);
}

/// The address of a node that runs until the test ends.
async fn node_of(cluster: &Arc<Cluster>) -> String {
    let node = node(cluster).await;
    let address = node.address.to_string();
    std::mem::forget(node);
    address
}

#[tokio::test]
async fn when_all_endpoints_belong_to_another_cluster_requests_are_refused_at_once() {
    let other = Cluster::numbered(2);
    let nodes = [node(&other).await, node(&other).await];
    let cluster = Some("01".repeat(16).parse().unwrap());
    let options = ClientOptions { cluster, ..ClientOptions::default() };
    let client = client(&[nodes[0].address, nodes[1].address], options);
    let error = client.apply("a").await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { effect: Effect::None, .. }), "{error:?}");
    for words in [other.id(), "01".repeat(16)] {
        assert!(error.to_string().contains(&words), "{error}");
    }
    assert!(client.open_session(None).await.is_err());
    assert!(client.status().await.is_err(), "nor is a question about a node asked of a stranger");
    assert!(other.executed().is_empty() && other.sessions().is_empty());
}

#[tokio::test]
async fn a_pipeline_ends_when_all_endpoints_turn_out_to_belong_to_another_cluster() {
    let cluster = Cluster::numbered(1);
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let (sender, mut results) =
        client.open_session(None).await.unwrap().pipeline(PipelineOptions::default());
    *cluster.number.lock().unwrap() = 2;
    sender.send("a").await.unwrap();
    let error = results.next().await.unwrap().result.unwrap_err();
    assert!(matches!(error, ClientError::Refused { effect: Effect::None, .. }), "{error:?}");
    assert!(cluster.executed().is_empty());
}

#[tokio::test]
async fn a_node_that_nobody_has_confirmed_decides_nothing_and_still_tells_its_status() {
    let (ours, unconfirmed) = (Cluster::numbered(1), Cluster::numbered(2));
    *unconfirmed.is_unconfirmed.lock().unwrap() = true;
    let nodes = [node(&unconfirmed).await, node(&ours).await];
    let client = client(&[nodes[0].address, nodes[1].address], ClientOptions::default());
    assert_eq!(client.status().await.unwrap().node_id, 7);
    client.apply("a").await.unwrap();
    assert_eq!(client.cluster().unwrap().to_string(), ours.id());
    assert_eq!(ours.executed(), ["a"]);
    assert!(unconfirmed.executed().is_empty());
}

async fn ordered(client: &Client) -> (PipelineSender, PipelineResults) {
    client.open_ordered_session(None).await.unwrap().pipeline(PipelineOptions::default())
}

#[tokio::test]
async fn an_ordered_pipeline_survives_everything_in_order() {
    let cluster = Arc::new(Cluster::default());
    let nodes = [node(&cluster).await, node(&cluster).await];
    let addresses = [nobody().await, nodes[0].address, nodes[1].address];
    let client = client(&addresses, ClientOptions::default());
    for round in 0..30_usize {
        cluster.plan((0..round).map(|_| Fault::AnswerTwice));
        cluster.plan([
            Fault::LoseAnswer,
            Fault::Refuse(Code::ResourceExhausted),
            Fault::DropStream,
            Fault::Refuse(Code::Unavailable),
        ]);
    }
    let (sender, mut results) = ordered(&client).await;
    let submit = async move {
        for n in 0..3000 {
            sender.send(n.to_string()).await.unwrap();
        }
    };
    let collect = async {
        for n in 0..3000 {
            let PipelineResult { tag, result } = results.next().await.unwrap();
            assert_eq!((tag, answer(&result.unwrap())), (n, n.to_string().into()));
        }
        assert!(results.next().await.is_none());
    };
    tokio::join!(submit, collect);
    let executed: Vec<u64> =
        cluster.executed().iter().map(|command| command.parse().unwrap()).collect();
    assert_eq!(executed, (0..3000).collect::<Vec<_>>());
    assert!(cluster.faults.lock().unwrap().is_empty() && cluster.sessions().is_empty());
    assert!(*cluster.early.lock().unwrap() > 0, "nothing ever had to wait");
}

#[tokio::test]
async fn an_ordered_pipeline_passes_over_what_is_refused_for_good() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let (sender, mut results) = ordered(&client).await;
    for command in ["a", "refuse", "b", "refuse"] {
        sender.send(command).await.unwrap();
    }
    drop(sender);
    for is_fine in [true, false, true, false] {
        let result = results.next().await.unwrap().result;
        match is_fine {
            true => drop(result.unwrap()),
            false => {
                let error = result.unwrap_err();
                let code = error.code();
                assert_eq!((code, error.effect()), (Some(Code::InvalidArgument), Effect::None));
            }
        }
    }
    assert!(results.next().await.is_none());
    assert_eq!(cluster.executed(), ["a", "b"]);
    assert_eq!(*cluster.skipped.lock().unwrap(), [2, 4]);
}

#[tokio::test]
async fn nothing_overtakes_a_command_of_an_ordered_pipeline_that_has_no_answer() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], impatient());
    let (sender, mut results) = ordered(&client).await;
    sender.send("done").await.unwrap();
    assert!(results.next().await.unwrap().result.is_ok());
    cluster.plan([Fault::Hang]);
    for command in ["lost", "behind"] {
        sender.send(command).await.unwrap();
    }
    for _ in 0..2 {
        // Whether the node ever takes the first of them is not known.
        let error = results.next().await.unwrap().result.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{error:?}");
    }
    sender.send("late").await.unwrap();
    let error = results.next().await.unwrap().result.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error:?}");
    drop(sender);
    assert!(results.next().await.is_none());
    assert_eq!(cluster.executed(), ["done"]);
    assert!(cluster.sessions().is_empty(), "what waits there is dropped");
}

#[tokio::test]
async fn a_cluster_that_knows_no_order_is_not_sent_anything() {
    let cluster = Arc::new(Cluster::default());
    *cluster.is_old.lock().unwrap() = true;
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let error = client.open_ordered_session(None).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), (Some(Code::Unimplemented), Effect::None));
    assert!(cluster.sessions().is_empty());
}
