//! Streams of questions.

use super::*;

fn asks(text: &str) -> v1::QueryRequest {
    v1::QueryRequest { query: text.to_owned().into(), ..Default::default() }
}

fn question(tag: u64, request: v1::QueryRequest) -> v1::TaggedQuery {
    v1::TaggedQuery { tag, request: Some(request), timeout_ms: 0 }
}

fn get(key: u64) -> v1::QueryRequest {
    asks(&format!(r#"{{"op":"get","key":"{key}"}}"#))
}

/// A stream of questions, and its answers.
struct Asking {
    questions: mpsc::Sender<v1::QueryStreamRequest>,
    answers: tonic::Streaming<v1::QueryStreamResponse>,
}

impl Asking {
    async fn of(node: &TestNode) -> Asking {
        let (questions, parts) = mpsc::channel(16);
        let parts = ReceiverStream::new(parts);
        let mut client = node.client().max_decoding_message_size(64 << 20);
        let answers = client.query_stream(parts).await.unwrap().into_inner();
        Asking { questions, answers }
    }

    async fn send(&self, queries: impl IntoIterator<Item = v1::TaggedQuery>) {
        let queries = queries.into_iter().collect();
        self.questions.send(v1::QueryStreamRequest { queries }).await.unwrap();
    }

    /// The next so many answers, by tag.
    async fn take(&mut self, count: usize) -> Vec<(u64, Result<Bytes, v1::ApplyError>)> {
        use v1::tagged_answer::Result as Answer;
        let mut taken = Vec::new();
        while taken.len() < count {
            let message = tokio::time::timeout(PATIENCE, self.answers.message()).await;
            for answer in message.expect("in time").unwrap().unwrap().answers {
                let result = match answer.result.unwrap() {
                    Answer::Response(response) => {
                        match response.outcome.and_then(|outcome| outcome.kind) {
                            Some(Kind::Ok(bytes)) => Ok(bytes),
                            other => panic!("{other:?}"),
                        }
                    }
                    Answer::Error(error) => Err(error),
                };
                taken.push((answer.tag, result));
            }
        }
        taken.sort_by_key(|(tag, _)| *tag);
        taken
    }

    async fn take_one(&mut self) -> Result<Bytes, v1::ApplyError> {
        let [(_, result)] = self.take(1).await.try_into().expect("one");
        result
    }
}

#[track_caller]
fn assert_refused(result: &Result<Bytes, v1::ApplyError>, code: Code, words: &str) {
    let error = result.as_ref().unwrap_err();
    assert_eq!((Code::from(error.code), error.effect()), (code, v1::Effect::None), "{error:?}");
    assert!(error.message.contains(words), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_each_question_of_a_stream_and_bad_ones_disturb_nobody() {
    let cluster = Cluster::of(2).await.with_kv().await;
    cluster.leader().client().apply(set(5)).await.unwrap();
    for node in [cluster.leader(), cluster.follower()] {
        let mut asking = Asking::of(node).await;
        for message in 0..10 {
            asking.send((0..100).map(|n| question(message * 100 + n, get(n)))).await;
        }
        asking
            .send([
                v1::TaggedQuery { tag: 1_000, ..Default::default() },
                question(1_001, v1::QueryRequest { group: "2".into(), ..get(5) }),
                question(1_002, v1::QueryRequest { consistency: 9, ..get(5) }),
                question(1_003, v1::QueryRequest { max_staleness_ms: Some(1), ..get(5) }),
                question(1_004, asks(&"x".repeat(2 << 20))),
                question(1_005, v1::QueryRequest { consistency: 1, ..asks(r#"{"op":"count"}"#) }),
            ])
            .await;
        let answers = asking.take(1_006).await;
        let tags: Vec<u64> = answers.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, (0..1_006).collect::<Vec<_>>());
        for (tag, answer) in &answers[..1_000] {
            let value = if tag % 100 == 5 { r#"{"value":"x"}"# } else { r#"{"value":null}"# };
            assert_eq!(answer.as_ref().unwrap(), value);
        }
        let [missing, elsewhere, odd, fresh, long, count] = &answers[1_000..] else {
            panic!("six more");
        };
        assert_refused(&missing.1, Code::InvalidArgument, "missing");
        assert_refused(&elsewhere.1, Code::NotFound, "there is no group \"2\"");
        assert_refused(&odd.1, Code::InvalidArgument, "consistency 9");
        assert_refused(&fresh.1, Code::InvalidArgument, "never stale");
        assert_refused(&long.1, Code::InvalidArgument, "allows");
        assert_eq!(count.1.as_ref().unwrap(), r#"{"count":1}"#);
        // All are answered before it ends.
        asking.send((0..50).map(|n| question(n, get(n)))).await;
        drop(asking.questions);
        let mut answered = 0;
        while let Some(message) = asking.answers.message().await.unwrap() {
            answered += message.answers.len();
        }
        assert_eq!(answered, 50);
    }
    cluster.stop().await;
}

/// More than are asked at once at first.
#[tokio::test(flavor = "multi_thread")]
async fn questions_that_wait_for_an_entry_hold_up_no_other_one() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let applied = node.client().apply(set(1)).await.unwrap().into_inner();
    let min_index = applied.position.unwrap().index + 1;
    let mut asking = Asking::of(node).await;
    let later = |tag| question(tag, v1::QueryRequest { min_index, ..get(2) });
    asking.send((0..200).map(later).chain([question(200, get(1))])).await;
    assert_eq!(asking.take_one().await.unwrap(), r#"{"value":"x"}"#);
    let impatient = v1::QueryRequest { min_index: min_index + 1_000, ..get(1) };
    asking.send([v1::TaggedQuery { timeout_ms: 50, ..question(201, impatient) }]).await;
    assert_refused(&asking.take_one().await, Code::Unavailable, "not entry");
    node.client().apply(set(2)).await.unwrap();
    for (tag, answer) in asking.take(200).await {
        assert_eq!(answer.unwrap(), r#"{"value":"x"}"#, "{tag}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_a_stream_is_given_up_in_time_and_a_stale_one_answered() {
    let cluster = Cluster::of(2).await.with_kv().await;
    let node = cluster.leader();
    let mut asking = Asking::of(node).await;
    asking.send([question(0, get(1))]).await;
    asking.take_one().await.unwrap();
    cluster.network.cut(NodeId(1), NodeId(2));
    let soon = v1::TaggedQuery { timeout_ms: 100, ..question(1, get(1)) };
    let stale = question(2, v1::QueryRequest { consistency: 1, ..get(1) });
    asking.send([soon, stale]).await;
    let answers = asking.take(2).await;
    let error = answers[0].1.as_ref().unwrap_err();
    assert_eq!((answers[0].0, error.effect()), (1, v1::Effect::None));
    // It leads no longer than it must: then nobody is known who does.
    let codes = [Code::DeadlineExceeded as i32, Code::Unavailable as i32];
    assert!(codes.contains(&error.code), "{error:?}");
    assert_eq!(answers[1].1.as_ref().unwrap(), r#"{"value":null}"#);
    cluster.network.heal();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_gets_all_answers() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let value = "v".repeat(100 << 10);
    let command = format!(r#"{{"op":"set","key":"7","value":"{value}"}}"#);
    let request = v1::ApplyRequest { command: command.into(), ..Default::default() };
    node.client().apply(request).await.unwrap();
    let mut asking = Asking::of(node).await;
    // Some 80 MB of answers: more than all streams together may have.
    for message in 0..8 {
        asking.send((0..100).map(|n| question(message * 100 + n, get(7)))).await;
    }
    // Meanwhile others are answered.
    for _ in 0..20 {
        query(node, r#"{"op":"count"}"#).await.unwrap();
    }
    let answers = asking.take(800).await;
    let is_whole = |answer: &Result<Bytes, _>| answer.as_ref().unwrap().len() > value.len();
    assert!(answers.iter().all(|(_, answer)| is_whole(answer)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_questions_follows_the_leadership_and_ends_with_the_server() {
    let cluster = Cluster::of(3).await.with_kv().await;
    let mut asking = Asking::of(cluster.leader()).await;
    for leader in [2, 3, 1] {
        let request = v1::TransferLeadershipRequest { group: String::new(), node_id: leader };
        let mut admin = cluster.nodes[0].admin();
        let moving = tokio::spawn(async move { admin.transfer_leadership(request).await });
        asking.send((0..100).map(|n| question(n, get(n)))).await;
        for (tag, answer) in asking.take(100).await {
            assert_eq!(answer.unwrap(), r#"{"value":null}"#, "{tag}");
        }
        assert_eq!(moving.await.unwrap().unwrap().into_inner().leader_id, leader);
    }
    cluster.stop().await;
    assert_fails(asking.answers.message().await, Code::Unavailable, "none", "shutting down");
}
