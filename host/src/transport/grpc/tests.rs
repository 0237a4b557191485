use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use raft_host_proto::peer;
use raft_host_proto::peer::peer_client::PeerClient;
use raft_host_proto::peer::peer_server::Peer;
use raft_host_proto::peer::snapshot_part::Part;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

use super::*;
use crate::tls::NodeDialer;
use crate::transport::test_support::{
    MADE_OF, TestInbox, TestStore, Told, append, install, message, meta, peers,
};
use crate::types::{ClusterId, Index, Rival, SnapshotFate};

const CLUSTER: ClusterId = ClusterId([7; 16]);

struct Node {
    address: String,
    transport: Arc<GrpcTransport>,
    inbox: Arc<TestInbox>,
    store: TestStore,
    stop: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Node {
    async fn start(id: u64) -> Node {
        Node::start_in(CLUSTER, id, "127.0.0.1:0", TestStore::default()).await
    }

    async fn start_in(cluster: ClusterId, id: u64, listen: &str, store: TestStore) -> Node {
        let listener = TcpListener::bind(listen).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let identity = Identity { cluster, node: NodeId(id), address: address.clone() };
        let inbox = Arc::new(TestInbox::default());
        // Short pauses keep the tests quick; the rest is the default.
        let config = TransportConfig {
            reconnect_min_ms: 1,
            reconnect_max_ms: 20,
            refused_retry_ms: 20,
            snapshot_chunk_bytes: 64 << 10,
            flush_timeout_ms: 60_000,
            ..TransportConfig::default()
        };
        let mut server = config.server_builder();
        let opening = Opening {
            identity,
            snapshots: Arc::new(store.clone()),
            inbox: Arc::clone(&inbox) as _,
            runtime: Handle::current(),
            dialer: NodeDialer::plain(),
        };
        let transport = GrpcTransport::new(opening, config);
        let stop = CancellationToken::new();
        let serve = server.add_service(transport.peer_server()).serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.clone().cancelled_owned(),
        );
        let server = tokio::spawn(serve);
        Node { address, transport, inbox, store, stop, server }
    }

    fn knows(&self, others: &[(u64, &Node)]) {
        let members: Vec<_> = others.iter().map(|(id, node)| (*id, &*node.address)).collect();
        self.transport.set_peers(peers(&members));
    }

    async fn stop(self) {
        self.transport.shutdown().await;
        self.stop.cancel();
        self.server.await.expect("no panic").expect("clean end");
    }
}

/// Sends a message until the condition holds, as a leader's heartbeats would.
async fn keep_sending(
    from: &Node,
    message: PeerMessage,
    to: &Node,
    holds: impl Fn(&Told) -> bool,
) -> Told {
    let sending = async {
        let mut beat = tokio::time::interval(Duration::from_millis(5));
        loop {
            beat.tick().await;
            from.transport.send(vec![message.clone()]);
        }
    };
    tokio::select! {
        told = to.inbox.until("messages arrive", holds) => told,
        () = sending => unreachable!("sending never ends"),
    }
}

async fn client(node: &Node) -> PeerClient<Channel> {
    PeerClient::connect(format!("http://{}", node.address)).await.expect("listening")
}

fn hello(from: u64, to: u64) -> peer::Hello {
    let address = "127.0.0.1:1".to_owned();
    let identity = Identity { cluster: CLUSTER, node: NodeId(from), address };
    super::hello::hello(&identity, NodeId(to), "127.0.0.1:2")
}

/// What the peer service answers to a stream of these envelopes that stays open.
async fn answer(node: &Node, envelopes: Vec<peer::PeerEnvelope>) -> Status {
    let stream = futures::stream::iter(envelopes).chain(futures::stream::pending());
    client(node).await.messages(stream).await.expect_err("must be refused")
}

#[tokio::test]
async fn messages_arrive_in_order_and_both_sides_are_introduced() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    two.knows(&[(1, &one)]);
    let mut sent = Vec::new();
    for batch in 0_u64..100 {
        let messages = (0..batch % 7).map(|n| {
            let index = batch * 10 + n;
            if n == 3 { append(1, 2, index, 20_000) } else { message(1, 2, index) }
        });
        let messages: Vec<PeerMessage> = messages.collect();
        sent.extend(messages.clone());
        one.transport.send(messages);
        tokio::task::yield_now().await;
    }
    let told = two.inbox.until("all arrive", |told| told.messages.len() >= sent.len()).await;
    assert!(told.messages == sent, "altered or out of order");
    assert_eq!(told.seen, [Member { id: NodeId(1), address: one.address.clone() }]);
    two.transport.send(vec![message(2, 1, 5)]);
    let told = one.inbox.until("the answer", |told| !told.messages.is_empty()).await;
    assert_eq!(told.seen, [Member { id: NodeId(2), address: two.address.clone() }]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_restarted_peer_is_reached_again() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    keep_sending(&one, message(1, 2, 1), &two, |told| !told.messages.is_empty()).await;
    let address = two.address.clone();
    two.stop().await;
    one.inbox.until("the loss is reported", |told| told.unreachable.contains(&NodeId(2))).await;
    let two = Node::start_in(CLUSTER, 2, &address, TestStore::default()).await;
    let told = keep_sending(&one, message(1, 2, 2), &two, |told| !told.messages.is_empty()).await;
    assert!(told.indexes().iter().all(|index| *index == 2));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_peer_that_moved_is_redialed_at_its_new_address() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let wrong = silent.local_addr().expect("bound").to_string();
    one.transport.set_peers(peers(&[(2, &wrong)]));
    one.transport.send(vec![message(1, 2, 1)]);
    one.knows(&[(2, &two)]);
    keep_sending(&one, message(1, 2, 2), &two, |told| told.indexes().contains(&2)).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_removed_peer_is_disconnected_and_hears_nothing() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    keep_sending(&one, message(1, 2, 1), &two, |told| !told.messages.is_empty()).await;
    one.transport.set_peers(BTreeMap::new());
    one.transport.send(vec![message(1, 2, 2)]);
    one.inbox.until("it is unreachable", |told| told.unreachable.contains(&NodeId(2))).await;
    // The peer's server can only end by itself once the connection is closed.
    two.stop.cancel();
    two.server.await.expect("no panic").expect("clean end");
    assert!(!two.inbox.told().indexes().contains(&2));
    one.stop().await;
}

#[tokio::test]
async fn a_node_that_was_removed_is_told_so() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    two.inbox.expel(NodeId(1));
    one.knows(&[(2, &two)]);
    keep_sending(&one, message(1, 2, 1), &one, |told| {
        told.removed_by.contains(&(NodeId(2), Index(7)))
    })
    .await;
    assert!(two.inbox.told().messages.is_empty());
    one.stop().await;
    two.stop().await;
}

/// Denies everything, as a proxy or a mesh does that knows nobody.
struct Denying(tokio::sync::mpsc::UnboundedSender<()>);

#[tonic::async_trait]
impl Peer for Denying {
    async fn messages(
        &self,
        _: tonic::Request<tonic::Streaming<peer::PeerEnvelope>>,
    ) -> Result<tonic::Response<peer::MessagesClosed>, Status> {
        // The test may be over.
        let _ = self.0.send(());
        Err(Status::permission_denied("RBAC: access denied"))
    }

    async fn offer_snapshot(
        &self,
        _: tonic::Request<peer::SnapshotOffer>,
    ) -> Result<tonic::Response<peer::SnapshotAccepted>, Status> {
        Err(Status::permission_denied("RBAC: access denied"))
    }

    async fn snapshot(
        &self,
        _: tonic::Request<tonic::Streaming<peer::SnapshotPart>>,
    ) -> Result<tonic::Response<peer::SnapshotReceived>, Status> {
        Err(Status::permission_denied("RBAC: access denied"))
    }
}

/// With node 3 down and such a server on its port, both others took themselves for removed.
#[tokio::test]
async fn who_denies_everything_on_a_peers_address_removes_nobody() {
    let one = Node::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (denied, mut denials) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(PeerServer::new(Denying(denied)))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    one.transport.set_peers([(NodeId(2), Member { id: NodeId(2), address })].into());
    for _ in 0..3 {
        one.transport.send(vec![message(1, 2, 1)]);
        denials.recv().await.expect("it is dialed again and again");
    }
    one.inbox.until("it is unreachable", |told| !told.unreachable.is_empty()).await;
    assert!(one.inbox.told().removed_by.is_empty());
    server.abort();
    one.stop().await;
}

#[tokio::test]
async fn strangers_are_refused_with_words_that_say_why() {
    let node = Node::start(2).await;
    let good = || hello(1, 2);
    let cases = [
        (peer::Hello { cluster_id: vec![9; 16].into(), ..good() }, "belongs to cluster 0707"),
        (
            peer::Hello { cluster_id: MADE_OF.0.to_vec().into(), ..good() },
            "as of entry 41 (restored from a backup, or recovered after a loss), and node 1 was left behind",
        ),
        (peer::Hello { to: 5, ..good() }, "this is node 2, not node 5"),
        (peer::Hello { from: 2, ..good() }, "cannot be its own peer"),
        (peer::Hello { from: 0, ..good() }, "node 0"),
        (peer::Hello { protocol_min: 99, protocol_max: 99, ..good() }, "speaks 99..=99"),
    ];
    for (hello, words) in cases {
        let messages = vec![message(1, 2, 1).into()];
        let envelope = peer::PeerEnvelope { hello: Some(hello.clone()), messages };
        let status = answer(&node, vec![envelope]).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains(words), "{status}");
        let part = peer::SnapshotPart { part: Some(Part::Hello(hello)), start_at: 0 };
        let parts = futures::stream::iter([part]).chain(futures::stream::pending());
        let status = client(&node).await.snapshot(parts).await.expect_err(words);
        assert!(status.message().contains(words), "{status}");
    }
    let told = node.inbox.told();
    assert!(told.messages.is_empty() && told.seen.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_transport_in_the_wrong_cluster_delivers_nothing_and_reports_it() {
    let one = Node::start_in(ClusterId([8; 16]), 1, "127.0.0.1:0", TestStore::default()).await;
    let two = Node::start(2).await;
    one.knows(&[(2, &two)]);
    let refused = |told: &Told| told.unreachable.len() >= 2;
    keep_sending(&one, message(1, 2, 1), &one, refused).await;
    assert!(two.inbox.told().messages.is_empty());
    // Nor does the other one keep it to itself: its address is in another cluster's membership.
    let told = two.inbox.until("it was dialled", |told| !told.rivals.is_empty()).await;
    let rival = Rival {
        cluster: ClusterId([8; 16]),
        node: NodeId(1),
        address: one.address.clone(),
        dialled: two.address.clone(),
    };
    assert_eq!(told.rivals[0], (rival, true));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_ends_and_what_came_before_counts() {
    let node = Node::start(2).await;
    let first = || peer::PeerEnvelope { hello: Some(hello(1, 2)), messages: Vec::new() };
    let snapshot = node.store.add(3, b"x");
    let unknown = peer::RaftMessage { kind: 99, ..message(1, 2, 1).into() };
    let cases: [(peer::RaftMessage, &str); 4] = [
        (message(3, 2, 1).into(), "from node 3"),
        (message(1, 3, 1).into(), "to node 3"),
        (install(1, 2, snapshot).into(), "without its content"),
        (unknown, "message kind 99"),
    ];
    for (bad, words) in cases {
        let messages = vec![message(1, 2, 77).into(), bad, message(1, 2, 78).into()];
        let status =
            answer(&node, vec![first(), peer::PeerEnvelope { hello: None, messages }]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    assert_eq!(node.inbox.told().indexes(), [77; 4]);
    let status = answer(&node, vec![first(), first()]).await;
    assert!(status.message().contains("only once"), "{status}");
    let status = answer(&node, vec![peer::PeerEnvelope::default()]).await;
    assert!(status.message().contains("must be its hello"), "{status}");
    node.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_hurts_nobody() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let address: SocketAddr = two.address.parse().expect("an address");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[&preface[..], &[0; 99]].concat()]
    {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(garbage).await.expect("taken by the socket");
    }
    one.knows(&[(2, &two)]);
    keep_sending(&one, message(1, 2, 1), &two, |told| !told.messages.is_empty()).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_peer_that_reads_nothing_makes_messages_drop_and_nobody_wait() {
    let one = Node::start(1).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    one.transport.set_peers(peers(&[(2, &address)]));
    for index in 0..200 {
        one.transport.send(vec![append(1, 2, index, 1 << 20)]);
    }
    one.inbox.until("the drop is reported", |told| told.unreachable.contains(&NodeId(2))).await;
    one.transport.set_peers(BTreeMap::new());
    one.stop().await;
}

#[tokio::test]
async fn a_snapshot_arrives_whole_before_its_message() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    let content: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
    let meta = one.store.add(9, &content);
    one.transport.send(vec![install(1, 2, meta.clone())]);
    let told = two.inbox.until("the message", |told| !told.messages.is_empty()).await;
    assert_eq!(told.messages, [install(1, 2, meta)]);
    assert!(two.store.content(9).expect("stored") == content);
    let told = one.inbox.until("the report", |told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [(NodeId(2), Index(9), SnapshotFate::Delivered)]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_is_already_there_is_not_stored_again() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    // Far more than all buffers together: the answer must overtake the content.
    let content = vec![1; 40 << 20];
    let meta = one.store.add(9, &content);
    let present = two.store.add(9, &content);
    one.store.corrupt(9);
    one.transport.send(vec![install(1, 2, meta)]);
    let told = one.inbox.until("the report", |told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [(NodeId(2), Index(9), SnapshotFate::Delivered)]);
    assert_eq!(two.inbox.told().messages, [install(1, 2, present)]);
    one.stop().await;
    two.stop().await;
}

/// A node that is given a state because its own went wrong may have taken a snapshot of that.
#[tokio::test]
async fn another_snapshot_at_the_same_position_is_replaced() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    let meta = one.store.add(9, b"the leader's state");
    two.store.add(9, b"a state that went wrong");
    one.transport.send(vec![install(1, 2, meta.clone())]);
    let told = one.inbox.until("the report", |told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [(NodeId(2), Index(9), SnapshotFate::Delivered)]);
    assert_eq!(two.inbox.told().messages, [install(1, 2, meta)]);
    assert_eq!(two.store.content(9).expect("stored"), &b"the leader's state"[..]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_and_leaves_nothing() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    let corrupt = one.store.add(9, &[1; 200_000]);
    one.store.corrupt(9);
    let short = one.store.add(10, &[2; 200_000]);
    one.store.shorten(10);
    let missing = meta(11);
    // Too short shows before anything is sent.
    let fates = [SnapshotFate::Failed, SnapshotFate::Unreadable, SnapshotFate::Failed];
    for (n, meta) in [corrupt, short, missing].into_iter().enumerate() {
        let index = meta.index;
        one.transport.send(vec![install(1, 2, meta)]);
        let told = one.inbox.until("the report", |told| told.snapshots.len() > n).await;
        assert_eq!(told.snapshots[n], (NodeId(2), index, fates[n]));
        assert_eq!(two.store.content(index.0), None);
    }
    assert!(two.inbox.told().messages.is_empty());
    // And the next good one passes.
    let good = one.store.add(12, &[3; 200_000]);
    one.transport.send(vec![install(1, 2, good)]);
    two.inbox.until("the message", |told| !told.messages.is_empty()).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_raft_has_no_use_for_what_is_too_large_and_what_does_not_fit_is_refused_unsent() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    two.inbox.note(|told| told.unwanted.push(Index(9)));
    let unwanted = one.store.add(9, &[1; 200_000]);
    let endless = SnapshotMeta { size_bytes: 1 << 40, ..one.store.add(10, &[1; 200_000]) };
    let large = one.store.add(11, &[1; 200_000]);
    for (n, meta) in [unwanted, large].into_iter().enumerate() {
        let index = meta.index;
        if n == 1 {
            two.store.set_free_bytes(199_999);
        }
        one.transport.send(vec![install(1, 2, meta)]);
        let told = one.inbox.until("the report", |told| told.snapshots.len() > n).await;
        assert_eq!(told.snapshots[n], (NodeId(2), index, SnapshotFate::Failed));
        assert_eq!(two.store.content(index.0), None);
    }
    assert!(two.inbox.told().messages.is_empty());
    // A stranger that announces a terabyte, and one that sends without asking.
    let mut client = client(&two).await;
    let offer = peer::SnapshotOffer {
        hello: Some(hello(1, 2)),
        message: Some(install(1, 2, endless.clone()).into()),
    };
    let refused = client.offer_snapshot(offer).await.expect_err("a terabyte");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let parts = [
        Part::Hello(hello(1, 2)),
        Part::Message(install(1, 2, endless).into()),
        Part::Data(vec![1; 100].into()),
    ];
    let parts = parts.map(|part| peer::SnapshotPart { part: Some(part), start_at: 0 });
    let refused = client.snapshot(futures::stream::iter(parts)).await.expect_err("a terabyte");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_this_node_has_committed_already_needs_no_content() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    two.inbox.note(|told| told.committed = Index(20));
    let meta = one.store.add(9, &[1; 200_000]);
    one.transport.send(vec![install(1, 2, meta.clone())]);
    let told = two.inbox.until("the message", |told| !told.messages.is_empty()).await;
    assert_eq!(told.messages, [install(1, 2, meta)]);
    assert_eq!(two.store.content(9), None);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_where_it_was() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let meta = one.store.add(9, &content);
    let message = || peer::RaftMessage::from(install(1, 2, meta.clone()));
    let mut client = client(&two).await;
    let offer = || peer::SnapshotOffer { hello: Some(hello(1, 2)), message: Some(message()) };
    let accepted = client.offer_snapshot(offer()).await.expect("wanted").into_inner();
    assert_eq!(accepted.received_bytes, 0);
    // Two parts, and then the connection is gone.
    let (parts, stream) = tokio::sync::mpsc::channel(8);
    for part in [
        Part::Hello(hello(1, 2)),
        Part::Message(message()),
        Part::Data(content[..100_000].to_vec().into()),
        Part::Data(content[100_000..150_000].to_vec().into()),
    ] {
        parts.send(peer::SnapshotPart { part: Some(part), start_at: 0 }).await.expect("taken");
    }
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let call = tokio::spawn({
        let mut client = client.clone();
        async move { client.snapshot(stream).await.map(drop) }
    });
    two.store.until_written(150_000).await;
    call.abort();
    // While the thread that writes is at it, nothing is left for others yet.
    let left = async {
        loop {
            let answer = client.clone().offer_snapshot(offer()).await.expect("wanted");
            if answer.into_inner().received_bytes == 150_000 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), left).await.expect("left");
    // Not before: an end that is told is none of a connection.
    drop(parts);
    one.knows(&[(2, &two)]);
    one.transport.send(vec![install(1, 2, meta.clone())]);
    let told = two.inbox.until("the message", |told| !told.messages.is_empty()).await;
    assert_eq!(told.messages, [install(1, 2, meta)]);
    assert!(two.store.content(9).expect("stored") == content);
    assert_eq!(two.store.creations(), 1, "begun once");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn only_one_snapshot_at_a_time_goes_to_a_peer_and_removal_ends_it() {
    let one = Node::start(1).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    one.transport.set_peers(peers(&[(2, &address)]));
    let (first, second) = (one.store.add(9, &[1; 100]), one.store.add(10, &[1; 100]));
    one.transport.send(vec![install(1, 2, first), install(1, 2, second)]);
    let told = one.inbox.until("the second", |told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [(NodeId(2), Index(10), SnapshotFate::Failed)]);
    one.transport.set_peers(BTreeMap::new());
    let told = one.inbox.until("the first", |told| told.snapshots.len() > 1).await;
    assert_eq!(told.snapshots[1], (NodeId(2), Index(9), SnapshotFate::Failed));
    one.stop().await;
}

#[tokio::test]
async fn a_shutdown_sends_what_is_queued() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(&[(2, &two)]);
    one.transport.send((0..1000).map(|index| message(1, 2, index)).collect());
    one.stop().await;
    let told = two.inbox.until("all arrive", |told| told.messages.len() >= 1000).await;
    assert!(told.indexes().is_sorted());
    two.stop().await;
}
