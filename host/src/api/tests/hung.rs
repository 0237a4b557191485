//! A leader that takes requests and answers nothing, until another one is elected.

use tokio::sync::watch;

use super::*;

/// Stands before a node's address; from some moment on it swallows what it is sent.
struct Gate {
    address: String,
    frozen: watch::Sender<bool>,
    /// Bytes that were swallowed.
    swallowed: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Gate {
    async fn before(node: std::net::SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (frozen, is_frozen) = watch::channel(false);
        let (count, swallowed) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(pass(stream, node, is_frozen.clone(), count.clone()));
            }
        });
        Gate { address, frozen, swallowed, task }
    }

    async fn swallows_more_than(&self, before: u64) {
        let mut swallowed = self.swallowed.clone();
        swallowed.wait_for(|bytes| *bytes > before).await.unwrap();
    }

    fn swallowed(&self) -> u64 {
        *self.swallowed.borrow()
    }
}

async fn pass(
    mut outside: TcpStream,
    node: std::net::SocketAddr,
    mut frozen: watch::Receiver<bool>,
    count: watch::Sender<u64>,
) {
    let mut inside = TcpStream::connect(node).await.unwrap();
    tokio::select! {
        biased;
        _ = frozen.wait_for(|frozen| *frozen) => {}
        _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => return,
    }
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = outside.read(&mut bytes).await {
        count.send_modify(|swallowed| *swallowed += read as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hung_leader_has_goes_to_the_next_one_if_it_may_be_repeated() {
    let network = MemoryNetwork::new(Delivery::Immediate, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = Gate::before(listener.local_addr().unwrap()).await;
    let loader: SharedLoader = Arc::new(NativeLoader);
    let (me, alone) = (NodeId(1), None);
    let first =
        TestNode::start_as(&network, listener, &gate.address, me, alone, loader.clone()).await;
    let cluster = Cluster::around(network, loader, first, 3).await.with_kv().await;
    let follower = cluster.follower();
    let opened = follower.client().open_session(v1::OpenSessionRequest::default()).await.unwrap();
    let session_id = opened.into_inner().session_id;
    let in_session = |sequence| v1::ApplyRequest {
        session: Some(v1::SessionCommand { session_id, sequence, acknowledged: 0, skip: false }),
        ..set(sequence)
    };

    gate.frozen.send_replace(true);
    let mut answers = Vec::new();
    for request in [in_session(1), set(100)] {
        let before = gate.swallowed();
        let mut client = follower.client();
        answers.push(tokio::spawn(async move { client.apply(request).await }));
        gate.swallows_more_than(before).await;
    }
    let (sender, receiver) = mpsc::channel::<v1::ApplyStreamRequest>(4);
    let requests = ReceiverStream::new(receiver);
    let before = gate.swallowed();
    let commands = vec![tagged(1, in_session(2)), tagged(2, set(200))];
    sender.send(v1::ApplyStreamRequest { commands }).await.unwrap();
    let mut stream = follower.client().apply_stream(requests).await.unwrap().into_inner();
    gate.swallows_more_than(before).await;

    let request = v1::TransferLeadershipRequest { group: String::new(), node_id: 2 };
    cluster.leader().admin().transfer_leadership(request).await.unwrap();
    let harmful = answers.pop().unwrap().await.unwrap();
    assert_fails(harmful, Code::Unavailable, "unknown", "another leader was elected");
    let harmless = answers.pop().unwrap().await.unwrap().unwrap().into_inner();
    assert!(!harmless.outcome.unwrap().duplicate);
    drop(sender);
    let mut results = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        results.extend(message.results);
    }
    results.sort_by_key(|result| result.tag);
    let [harmless, harmful] = &results[..] else { panic!("{results:?}") };
    use v1::tagged_result::Result as Answer;
    assert!(matches!(harmless.result, Some(Answer::Response(_))), "{harmless:?}");
    match &harmful.result {
        Some(Answer::Error(error)) => {
            assert_eq!(error.effect(), v1::Effect::Unknown);
            assert!(error.message.contains("another leader was elected"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    gate.task.abort();
    cluster.stop().await;
}
