//! Sessions whose commands are executed in order, through the services.

use super::*;

async fn open(node: &TestNode) -> v1::OpenSessionResponse {
    let request = v1::OpenSessionRequest { ordered: true, ..Default::default() };
    node.client().open_session(request).await.unwrap().into_inner()
}

fn numbered(session_id: u64, sequence: u64) -> v1::ApplyRequest {
    let session = v1::SessionCommand { session_id, sequence, acknowledged: 0, skip: false };
    v1::ApplyRequest { session: Some(session), ..set(sequence) }
}

/// Once the machine has so many bytes for sessions.
async fn sessions_hold(node: &TestNode, bytes: u64) {
    let mut machine = node.handle.machine();
    let holds =
        machine.wait_for(|view| view.as_ref().is_some_and(|view| view.info.session_bytes >= bytes));
    tokio::time::timeout(PATIENCE, holds).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_early_is_answered_where_it_was_executed_at_any_node() {
    let cluster = Cluster::of(3).await.with_kv().await;
    for node in [cluster.leader(), cluster.follower()] {
        let opened = open(node).await;
        assert!(opened.ordered && opened.responses_max > 0, "{opened:?}");
        let id = opened.session_id;
        let mut early = node.client();
        let third = tokio::spawn(async move { early.apply(numbered(id, 3)).await });
        sessions_hold(cluster.leader(), 1).await;
        let (sender, receiver) = mpsc::channel::<v1::ApplyStreamRequest>(4);
        let commands = vec![tagged(2, numbered(id, 2)), tagged(1, numbered(id, 1))];
        sender.send(v1::ApplyStreamRequest { commands }).await.unwrap();
        drop(sender);
        let answers = node.client().apply_stream(ReceiverStream::new(receiver)).await.unwrap();
        let mut answers = answers.into_inner();
        let mut positions = std::collections::BTreeMap::new();
        while let Some(message) = answers.message().await.unwrap() {
            for v1::TaggedResult { tag, result } in message.results {
                let Some(v1::tagged_result::Result::Response(response)) = result else {
                    panic!("{tag}: {result:?}");
                };
                positions.insert(tag, response.position.unwrap());
            }
        }
        let third = third.await.unwrap().unwrap().into_inner();
        positions.insert(3, third.position.unwrap());
        let positions: Vec<_> = positions.values().map(|it| (it.index, it.ordinal)).collect();
        // The second may wait in the same entry, in front of the first.
        let (index, at) = positions[0];
        assert_eq!(positions, [(index, at), (index, at + 1), (index, at + 2)]);
        let close = v1::CloseSessionRequest { group: String::new(), session_id: id };
        node.client().close_session(close).await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_ends_with_its_deadline_or_its_session_and_mistakes_are_told() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let id = open(node).await.session_id;
    let mut hasty = tonic::Request::new(numbered(id, 2));
    // The node answers half a second before, so that its own words arrive.
    hasty.set_timeout(Duration::from_millis(2_500));
    let late = node.client().apply(hasty).await;
    assert_fails(late, Code::DeadlineExceeded, "unknown", "in time");

    let beyond = v1::KeepSessionRequest { session_id: id, acknowledged: 1, ..Default::default() };
    let refused = node.client().keep_session(beyond).await;
    assert_fails(refused, Code::InvalidArgument, "none", "up to number 0 only");
    let mut skip = numbered(id, 1);
    skip.session.as_mut().unwrap().skip = true;
    let refused = node.client().apply(skip.clone()).await;
    assert_fails(refused, Code::InvalidArgument, "none", "without a command");

    let mut patient = node.client();
    let waiting = tokio::spawn(async move { patient.apply(numbered(id, 3)).await });
    // Both commands that wait, each with its bookkeeping.
    sessions_hold(node, 2 * 64 + 1 + set(2).command.len() as u64).await;
    let close = v1::CloseSessionRequest { group: String::new(), session_id: id };
    node.client().close_session(close).await.unwrap();
    assert_fails(waiting.await.unwrap(), Code::NotFound, "unknown", "session has expired");

    let id = open(node).await.session_id;
    skip.command = Bytes::new();
    skip.session.as_mut().unwrap().session_id = id;
    let skipped = node.client().apply(skip).await.unwrap().into_inner();
    assert_eq!(skipped.outcome.unwrap().kind, Some(Kind::Ok(Bytes::new())));
    node.client().apply(numbered(id, 2)).await.unwrap();
    cluster.stop().await;
}

/// More than may be under way before any answer is there.
#[tokio::test(flavor = "multi_thread")]
async fn many_commands_of_a_stream_that_wait_let_the_one_pass_that_they_wait_for() {
    let cluster = Cluster::of(3).await.with_kv().await;
    for node in [cluster.leader(), cluster.follower()] {
        let id = open(node).await.session_id;
        let (sender, receiver) = mpsc::channel::<v1::ApplyStreamRequest>(4);
        let commands = (1..=500).rev().map(|it| tagged(it, numbered(id, it))).collect();
        sender.send(v1::ApplyStreamRequest { commands }).await.unwrap();
        let answers = node.client().apply_stream(ReceiverStream::new(receiver)).await.unwrap();
        let mut answers = answers.into_inner();
        let mut positions = std::collections::BTreeMap::new();
        while positions.len() < 500 {
            for v1::TaggedResult { tag, result } in
                answers.message().await.unwrap().unwrap().results
            {
                let Some(v1::tagged_result::Result::Response(response)) = result else {
                    panic!("{tag}: {result:?}");
                };
                let position = response.position.unwrap();
                positions.insert(tag, (position.index, position.ordinal));
            }
        }
        drop(sender);
        assert!(positions.values().is_sorted(), "{positions:?}");
    }
    cluster.stop().await;
}
