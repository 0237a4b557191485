use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use tonic::Code;

use super::super::ClientOptions;
use super::super::fake::{Cluster, Fault, client, mortal_node, node};
use super::*;

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn answer(response: &v1::ApplyResponse) -> Bytes {
    match response.outcome.as_ref().unwrap().kind.as_ref().unwrap() {
        v1::outcome::Kind::Ok(bytes) => bytes.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

fn impatient() -> ClientOptions {
    ClientOptions { deadline: Duration::from_millis(300), ..ClientOptions::default() }
}

/// Waits until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.expect("it never came to be so");
}

/// Nobody waits in any line of this client, and all room is free.
fn assert_nothing_is_left(client: &Client) {
    for line in lock(&client.commands.lines).values() {
        assert!(lock(&line.state).is_empty());
    }
    for line in lock(&client.queries.lines).values() {
        assert!(lock(&line.state).is_empty());
    }
    assert_eq!(client.commands.room.available_permits(), ROOM_BYTES);
    assert_eq!(client.queries.room.available_permits(), ROOM_BYTES);
}

#[tokio::test]
async fn a_thousand_callers_share_one_stream_and_few_messages() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    let before = count(&cluster.calls);
    let calls = (0..1_000).map(|n| {
        let (client, session) = (&client, &session);
        async move {
            match n % 2 {
                0 => client.apply(n.to_string()).await,
                _ => session.apply(n.to_string()).await,
            }
        }
    });
    for (n, result) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer(&result.unwrap()), n.to_string());
    }
    assert_eq!(cluster.executed().len(), 1_000);
    assert_eq!(count(&cluster.calls) - before, 1, "the stream");
    assert_eq!(count(&cluster.streams), 1);
    assert!(count(&cluster.messages) <= 100, "{}", count(&cluster.messages));
    assert_nothing_is_left(&client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_on_several_threads_share_one_stream() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let tasks: Vec<_> = (0..200_u64)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let command = (task * 20 + n).to_string();
                    assert_eq!(answer(&client.apply(command.clone()).await.unwrap()), command);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut executed = cluster.executed();
    executed.sort_unstable();
    executed.dedup();
    assert_eq!(executed.len(), 4_000);
    assert_eq!((count(&cluster.streams), count(&cluster.calls)), (1, 2));
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn without_sharing_each_command_is_a_request_of_its_own() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let options = ClientOptions { sharing: false, ..ClientOptions::default() };
    let client = client(&[node.address], options);
    client.apply("first").await.unwrap();
    let before = count(&cluster.calls);
    for result in join_all((0..20).map(|n| client.apply(n.to_string()))).await {
        result.unwrap();
    }
    assert_eq!(count(&cluster.calls) - before, 20);
    assert_eq!(count(&cluster.streams), 0);
}

#[tokio::test]
async fn long_commands_do_not_travel_with_short_ones_and_long_answers_pass() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    client.apply("first").await.unwrap();
    let before = count(&cluster.calls);
    let long = "l".repeat(1 << 20);
    let answers = format!("long {}", 4 << 20);
    let calls = ["a", &long, &answers, "b"].map(|command| client.apply(command.to_owned()));
    let lengths: Vec<usize> =
        join_all(calls).await.into_iter().map(|result| answer(&result.unwrap()).len()).collect();
    assert_eq!(lengths, [1, 1 << 20, 4 << 20, 1]);
    assert_eq!(count(&cluster.calls) - before, 1, "the long one");
    assert_eq!(count(&cluster.streams), 1);
}

#[tokio::test]
async fn a_command_without_an_answer_holds_nobody_up_and_the_next_one_takes_another_stream() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], impatient());
    client.apply("first").await.unwrap();
    cluster.plan([Fault::Hang]);
    let (slow, quick) = tokio::join!(client.apply("slow"), client.apply("quick"));
    assert_eq!(answer(&quick.unwrap()), "quick");
    let error = slow.unwrap_err();
    assert_eq!((error.code(), error.effect()), (Some(Code::DeadlineExceeded), Effect::Unknown));
    assert_eq!(count(&cluster.streams), 1);
    client.apply("after").await.unwrap();
    assert_eq!(count(&cluster.streams), 2);
    // Nobody waits for the first any more.
    until(|| Arc::strong_count(&cluster.open_streams) == 2).await;
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn a_refused_command_does_not_disturb_its_neighbours() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    let calls = ["a", "refuse", "b"].map(|command| client.apply(command));
    let [a, refused, b] = join_all(calls).await.try_into().expect("three");
    assert_eq!((answer(&a.unwrap()), answer(&b.unwrap())), ("a".into(), "b".into()));
    assert!(matches!(
        refused.unwrap_err(),
        ClientError::Refused { code: Code::InvalidArgument, effect: Effect::None, .. }
    ));
    assert_eq!((count(&cluster.streams), cluster.executed().len()), (1, 2));
}

/// What was on its way may have happened, so without a session nobody may repeat it.
#[tokio::test]
async fn a_broken_stream_leaves_what_was_sent_in_doubt_outside_of_sessions_and_once_within() {
    let cluster = Arc::new(Cluster::default());
    let nodes = [node(&cluster).await, node(&cluster).await];
    let client = client(&[nodes[0].address, nodes[1].address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    client.apply("first").await.unwrap();
    cluster.plan([Fault::DropStream]);
    let plain = ["a", "b"].map(|command| client.apply(command));
    let kept = ["c", "d"].map(|command| session.apply(command));
    let (plain, kept) = tokio::join!(join_all(plain), join_all(kept));
    for result in plain {
        assert_eq!(result.unwrap_err().effect(), Effect::Unknown);
    }
    for (result, command) in kept.into_iter().zip(["c", "d"]) {
        assert_eq!(answer(&result.unwrap()), command);
    }
    let mut executed = cluster.executed();
    executed.sort_unstable();
    assert_eq!(executed, ["a", "c", "d", "first"], "the stream broke after the first command");
    assert_eq!(count(&cluster.streams), 2);
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn callers_of_a_node_that_dies_go_on_with_another() {
    let cluster = Arc::new(Cluster::default());
    let (first, runtime) = mortal_node(&cluster);
    let second = node(&cluster).await;
    let client = client(&[first.address, second.address], ClientOptions::default());
    let session = client.open_session(None).await.unwrap();
    session.apply("before").await.unwrap();
    cluster.plan([Fault::Hang; 20]);
    let calls = join_all((0..20).map(|n| session.apply(n.to_string())));
    let kill = async {
        until(|| cluster.faults.lock().unwrap().is_empty()).await;
        runtime.shutdown_background();
    };
    for (n, result) in tokio::join!(calls, kill).0.into_iter().enumerate() {
        assert_eq!(answer(&result.unwrap()), n.to_string());
    }
    assert_eq!(cluster.executed().len(), 21);
    assert_eq!(client.endpoints.pick().address, second.address.to_string());
    assert_eq!(count(&cluster.streams), 2);
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn a_caller_that_goes_away_is_forgotten() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    client.apply("first").await.unwrap();
    // One that was sent, and one that was not.
    cluster.plan([Fault::Hang]);
    {
        let mut sent = Box::pin(client.apply("sent"));
        until(|| {
            assert!(futures::FutureExt::now_or_never(&mut sent).is_none());
            cluster.faults.lock().unwrap().is_empty()
        })
        .await;
        let mut queued = Box::pin(client.apply("queued"));
        assert!(futures::poll!(&mut queued).is_pending());
    }
    assert_nothing_is_left(&client);
    client.apply("after").await.unwrap();
    assert_eq!(cluster.executed(), ["first", "after"]);
    assert_eq!(count(&cluster.streams), 1);
}

#[tokio::test]
async fn callers_wait_for_room_and_what_finds_none_surely_did_not_happen() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let room = Semaphore::new(REQUEST_OVERHEAD + 8);
    let shared = Shared { lines: Mutex::default(), room, idle: IDLE };
    let client =
        Client { commands: Arc::new(shared), ..client(&[node.address], ClientOptions::default()) };
    for result in join_all((0..50).map(|n| client.apply(n.to_string()))).await {
        result.unwrap();
    }
    assert_eq!(cluster.executed().len(), 50);
    assert_eq!(count(&cluster.messages), 50, "one at a time");
    cluster.plan([Fault::Hang]);
    let client = Client { options: Arc::new(impatient()), ..client };
    let (slow, behind) = tokio::join!(client.apply("slow"), client.apply("behind"));
    assert_eq!(slow.unwrap_err().effect(), Effect::Unknown);
    let error = behind.unwrap_err();
    assert_eq!((error.code(), error.effect()), (Some(Code::DeadlineExceeded), Effect::None));
    assert_eq!(cluster.executed().len(), 50);
}

#[tokio::test]
async fn a_stream_ends_when_nobody_uses_it_and_with_the_client() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let commands = Arc::new(Shared::new(Duration::from_millis(5)));
    let connected = client(&[node.address], ClientOptions::default());
    let client = Client { commands, ..connected.clone() };
    let are_closed = || Arc::strong_count(&cluster.open_streams) == 1;
    client.apply("a").await.unwrap();
    until(are_closed).await;
    client.apply("b").await.unwrap();
    until(are_closed).await;
    assert_eq!(count(&cluster.streams), 2);
    // While somebody waits it is in use.
    cluster.plan([Fault::RefuseLate(Code::InvalidArgument, Duration::from_millis(200))]);
    let error = client.apply("slow").await.unwrap_err();
    assert_eq!((error.code(), error.effect()), (Some(Code::InvalidArgument), Effect::None));
    assert_eq!(count(&cluster.streams), 3);
    until(are_closed).await;

    connected.apply("c").await.unwrap();
    assert!(!are_closed());
    let clone = connected.clone();
    drop(connected);
    clone.apply("d").await.unwrap();
    assert_eq!(count(&cluster.streams), 4);
    drop(clone);
    until(are_closed).await;
}

fn waiting(
    command: &'static str,
    end: Instant,
) -> (Waiting<Commands>, oneshot::Receiver<Answer<Commands>>) {
    let (to, answer) = oneshot::channel();
    let request = v1::ApplyRequest { command: command.into(), ..Default::default() };
    (Waiting { request, end, to }, answer)
}

#[test]
fn what_was_not_sent_when_a_stream_breaks_surely_did_not_happen() {
    let end = Instant::now() + Duration::from_secs(60);
    let (first, answer) = waiting("a", end);
    let (line, _) = Line::with(first);
    let mut answers = vec![answer];
    for _ in 0..MESSAGE_REQUESTS {
        let (next, answer) = waiting("b", end);
        line.queue(next).unwrap();
        answers.push(answer);
    }
    let (body, mut has_yielded) = (Waker::noop(), false);
    assert!(line.poll_message(&mut has_yielded, body).is_pending(), "others have their turn");
    let Poll::Ready(Some(message)) = line.poll_message(&mut has_yielded, body) else {
        panic!("a message is due");
    };
    assert_eq!(message.commands.len(), MESSAGE_REQUESTS);
    line.end(&Failure::stream_ended());
    let effects: Vec<Effect> =
        answers.into_iter().map(|mut it| it.try_recv().unwrap().unwrap_err().effect).collect();
    let is_unknown = effects.iter().filter(|effect| **effect == Effect::Unknown).count();
    assert_eq!((is_unknown, effects[MESSAGE_REQUESTS]), (MESSAGE_REQUESTS, Effect::None));
    assert!(line.queue(waiting("late", end).0).is_err(), "the stream is gone");
    assert!(matches!(line.poll_message(&mut has_yielded, body), Poll::Ready(None)));
}

#[test]
fn a_command_whose_time_is_over_is_not_sent() {
    let now = Instant::now();
    let (late, mut answer) = waiting("late", now);
    let (line, _) = Line::with(late);
    let (body, mut has_yielded) = (Waker::noop(), true);
    assert!(line.poll_message(&mut has_yielded, body).is_pending());
    assert_eq!(answer.try_recv().unwrap().unwrap_err().effect, Effect::None);
    let (next, _answer) = waiting("next", now + Duration::from_secs(2));
    line.queue(next).unwrap();
    has_yielded = true;
    let Poll::Ready(Some(message)) = line.poll_message(&mut has_yielded, body) else {
        panic!("a message is due");
    };
    let told_ms = message.commands[0].timeout_ms;
    assert!((1..=2_000).contains(&told_ms), "{told_ms}");
}

#[tokio::test]
async fn callers_that_begin_together_ask_once_which_cluster_it_is() {
    let (ours, unconfirmed) = (Cluster::numbered(1), Cluster::numbered(2));
    *unconfirmed.is_unconfirmed.lock().unwrap() = true;
    let nodes = [node(&unconfirmed).await, node(&ours).await];
    let client = client(&[nodes[0].address, nodes[1].address], ClientOptions::default());
    for result in join_all((0..200).map(|n| client.apply(n.to_string()))).await {
        result.unwrap();
    }
    assert_eq!(count(&unconfirmed.calls), 1, "the failure is that of all who waited for it");
    assert_eq!(count(&ours.calls), 2, "the question and the stream");
}

fn told(response: &v1::QueryResponse) -> Bytes {
    match response.outcome.as_ref().unwrap().kind.as_ref().unwrap() {
        v1::outcome::Kind::Ok(bytes) => bytes.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

fn ask(
    client: &Client,
    query: impl ToString,
) -> impl Future<Output = Result<v1::QueryResponse, ClientError>> {
    client.query(query.to_string(), v1::Consistency::Linearizable)
}

#[tokio::test]
async fn a_thousand_questions_share_one_stream_beside_that_of_commands() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let client = client(&[node.address], ClientOptions::default());
    client.apply("first").await.unwrap();
    let before = (count(&cluster.calls), count(&cluster.messages));
    let answers = join_all((0..1_000).map(|n| ask(&client, n))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(told(&answer.unwrap()), n.to_string());
    }
    assert_eq!(count(&cluster.calls) - before.0, 1, "the stream");
    assert_eq!(count(&cluster.streams), 2);
    let messages = count(&cluster.messages) - before.1;
    assert!(messages <= 100, "{messages}");
    let told_ms = *cluster.last_timeout_ms.lock().unwrap();
    assert!((1..=10_000).contains(&told_ms), "an attempt's: {told_ms}");
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn long_questions_and_those_that_are_not_to_share_are_requests_of_their_own() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let shared = client(&[node.address], ClientOptions::default());
    ask(&shared, "first").await.unwrap();
    let before = count(&cluster.calls);
    assert_eq!(told(&ask(&shared, "l".repeat(1 << 20)).await.unwrap()).len(), 1 << 20);
    assert_eq!(count(&cluster.calls) - before, 1);
    let options = ClientOptions { sharing: false, ..ClientOptions::default() };
    let alone = client(&[node.address], options);
    let before = count(&cluster.calls);
    for answer in join_all((0..20).map(|n| ask(&alone, n))).await {
        answer.unwrap();
    }
    assert_eq!(count(&cluster.calls) - before, 21, "which cluster it is, and the questions");
    assert_eq!(count(&cluster.streams), 1);
}

/// Nothing is changed by a question, so it is asked again, whatever became of it.
#[tokio::test]
async fn questions_of_a_broken_stream_are_asked_again_and_refused_ones_are_not() {
    let cluster = Arc::new(Cluster::default());
    let nodes = [node(&cluster).await, node(&cluster).await];
    let client = client(&[nodes[0].address, nodes[1].address], ClientOptions::default());
    ask(&client, "first").await.unwrap();
    for fault in [Fault::DropStream, Fault::LoseAnswer, Fault::Refuse(Code::Unavailable)] {
        cluster.plan([fault]);
        let answers = join_all(["a", "b", "refuse"].map(|query| ask(&client, query))).await;
        let [a, b, refused] = answers.try_into().expect("three");
        assert_eq!((told(&a.unwrap()), told(&b.unwrap())), ("a".into(), "b".into()));
        let refused = refused.unwrap_err();
        assert!(matches!(refused, ClientError::Refused { code: Code::InvalidArgument, .. }));
    }
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn a_question_without_an_answer_holds_nobody_up_and_is_asked_again_over_another_stream() {
    let cluster = Arc::new(Cluster::default());
    let node = node(&cluster).await;
    let attempt_timeout = Duration::from_secs(1);
    let options = ClientOptions { attempt_timeout, ..ClientOptions::default() };
    let client = client(&[node.address], options);
    ask(&client, "first").await.unwrap();
    cluster.plan([Fault::Hang]);
    let quick = async {
        let quick = ask(&client, "quick").await.unwrap();
        (told(&quick), count(&cluster.streams))
    };
    let (slow, quick) = tokio::join!(ask(&client, "slow"), quick);
    assert_eq!(quick, ("quick".into(), 1));
    assert_eq!(told(&slow.unwrap()), "slow");
    assert_eq!(count(&cluster.streams), 2);
    assert_nothing_is_left(&client);
}

#[tokio::test]
async fn whoever_asks_a_node_that_dies_is_answered_by_another() {
    let cluster = Arc::new(Cluster::default());
    let (first, runtime) = mortal_node(&cluster);
    let second = node(&cluster).await;
    let client = client(&[first.address, second.address], ClientOptions::default());
    ask(&client, "before").await.unwrap();
    cluster.plan([Fault::Hang; 20]);
    let calls = join_all((0..20).map(|n| ask(&client, n)));
    let kill = async {
        until(|| cluster.faults.lock().unwrap().is_empty()).await;
        runtime.shutdown_background();
    };
    for (n, answer) in tokio::join!(calls, kill).0.into_iter().enumerate() {
        assert_eq!(told(&answer.unwrap()), n.to_string());
    }
    assert_eq!(client.endpoints.pick().address, second.address.to_string());
    assert_nothing_is_left(&client);
}
