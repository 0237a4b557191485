//! Real nodes in one process, asked through real connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_host_proto::peer::membership_client::MembershipClient;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::v1::outcome::Kind;
use raft_host_proto::{EFFECT_KEY, peer, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use super::{ApiConfig, ApiError, NodeInfo, ProcessFacts, serve};
use crate::autopilot::{AutopilotBoard, AutopilotConfig};
use crate::consensus::{ConsensusConfig, Role};
use crate::fsm::native::{KV, NULL, NativeLoader};
use crate::fsm::{Limits, SharedLoader};
use crate::machine::Incumbent;
use crate::node::{MachineView, Node, NodeConfig, NodeHandle, NodeOptions, bootstrap, channel};
use crate::storage::{MemoryLog, MemorySnapshots, Stores};
use crate::tls::NodeDialer;
use crate::transport::memory::{Delivery, MemoryNetwork};
use crate::transport::{Identity, PROTOCOLS};
use crate::types::{ClusterId, GroupId, Member, ModuleHash, NodeId};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const PATIENCE: Duration = Duration::from_secs(30);

mod audit;
mod clusters;
mod errors;
mod health;
mod http;
mod hung;
mod ordered;
mod past;
mod queries;
mod transfers;
mod upgrades;

struct TestNode {
    node: Node,
    handle: NodeHandle,
    info: NodeInfo,
    address: String,
    channel: Channel,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ApiError>>,
}

struct Cluster {
    network: MemoryNetwork,
    loader: SharedLoader,
    nodes: Vec<TestNode>,
}

fn node_config() -> NodeConfig {
    NodeConfig { heartbeat_ms: 30, election_ms: 300, drain_ms: 1_000, ..NodeConfig::default() }
}

fn info() -> NodeInfo {
    NodeInfo {
        tls: None,
        dialer: NodeDialer::plain(),
        backups: None,
        audit: None,
        autopilot: Arc::new(AutopilotBoard::new(AutopilotConfig::default())),
        scrubs: None,
        version: "test".into(),
        storage: "memory".into(),
        data_dir_bytes: Arc::new(|| 11),
        process: Arc::new(|| ProcessFacts { resident_bytes: 22, ..ProcessFacts::default() }),
        guest_lines_dropped: Arc::new(|| 33),
        peer_queues: Arc::new(|| [(NodeId(2), 44)].into()),
        traffic: Arc::default(),
        confirm: Arc::new(|| Ok(())),
    }
}

impl TestNode {
    async fn start(
        network: &MemoryNetwork,
        listener: TcpListener,
        id: NodeId,
        introduced: Option<Vec<Member>>,
        loader: SharedLoader,
    ) -> TestNode {
        let address = listener.local_addr().unwrap().to_string();
        TestNode::start_as(network, listener, &address, id, introduced, loader).await
    }

    /// One that others dial elsewhere than where it listens.
    async fn start_as(
        network: &MemoryNetwork,
        listener: TcpListener,
        advertised: &str,
        id: NodeId,
        introduced: Option<Vec<Member>>,
        loader: SharedLoader,
    ) -> TestNode {
        let listening = listener.local_addr().unwrap();
        let address = advertised.to_owned();
        let identity = Identity { cluster: CLUSTER, node: id, address: address.clone() };
        let snapshots = Arc::new(MemorySnapshots::new());
        let stores =
            Stores { log: Arc::new(MemoryLog::new()), snapshots: Arc::clone(&snapshots) as _ };
        if introduced.is_none() {
            let limits = Limits::default();
            bootstrap(&stores, &identity, GroupId::MAIN, limits, loader.clone()).unwrap();
        }
        let config = node_config();
        let (inbox, queue) = channel(&config);
        let me = Member { id, address: address.clone() };
        let transport = network.join(me, snapshots, inbox);
        let options = NodeOptions {
            identity,
            group: GroupId::MAIN,
            config,
            consensus: ConsensusConfig::default(),
            stores,
            loader,
            introduced: introduced.unwrap_or_default(),
            evidence: None,
        };
        let node = Node::start(options, queue, transport).unwrap();
        let handle = node.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let config = ApiConfig { shutdown_ms: 500, ..ApiConfig::default() };
        let info = info();
        let server = tokio::spawn(serve(
            listener,
            handle.clone(),
            Routes::default(),
            info.clone(),
            config,
            async move { drop(stopped.await) },
        ));
        let endpoint = Endpoint::from_shared(format!("http://{listening}")).unwrap();
        TestNode { node, handle, info, address, channel: endpoint.connect_lazy(), stop, server }
    }

    fn client(&self) -> ClientClient<Channel> {
        ClientClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    fn membership(&self) -> MembershipClient<Channel> {
        MembershipClient::new(self.channel.clone())
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    async fn leads(&self) {
        let mut leadership = self.handle.leadership();
        leadership.wait_for(|now| now.role == Role::Leader).await.unwrap();
    }

    async fn stop(self) {
        drop(self.stop);
        self.server.await.unwrap().unwrap();
        tokio::task::spawn_blocking(move || self.node.stop()).await.unwrap();
    }
}

impl Cluster {
    async fn of(size: usize) -> Cluster {
        Cluster::loading_with(Arc::new(NativeLoader), size).await
    }

    async fn loading_with(loader: SharedLoader, size: usize) -> Cluster {
        let network = MemoryNetwork::new(Delivery::Immediate, 1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let first = TestNode::start(&network, listener, NodeId(1), None, loader.clone()).await;
        Cluster::around(network, loader, first, size).await
    }

    async fn around(
        network: MemoryNetwork,
        loader: SharedLoader,
        first: TestNode,
        size: usize,
    ) -> Cluster {
        first.leads().await;
        // It may lead before its machine has shown what it recovered.
        first.handle.machine().wait_for(|view| view.is_some()).await.unwrap();
        let mut cluster = Cluster { network, loader, nodes: vec![first] };
        for _ in 1..size {
            cluster.grow().await;
        }
        cluster
    }

    /// Adds a voter the way `--join` does, asking the newest member.
    async fn grow(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = join_request(&listener.local_addr().unwrap().to_string());
        let asked = self.nodes.last().unwrap();
        let joined = asked.membership().join(request).await.unwrap().into_inner();
        assert_eq!(joined.cluster_id[..], CLUSTER.0);
        let id = NodeId(joined.node_id);
        let member =
            |info: peer::Address| Member { id: NodeId(info.node_id), address: info.address };
        let introduced = joined.members.into_iter().map(member).collect();
        let node =
            TestNode::start(&self.network, listener, id, Some(introduced), self.loader.clone())
                .await;
        node.handle.machine().wait_for(|view| view.is_some()).await.unwrap();
        let started = Instant::now();
        loop {
            let request = v1::PromoteMemberRequest { node_id: id.0, ..Default::default() };
            match asked.admin().promote_member(request).await {
                Ok(_) => break,
                Err(status) => {
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                    assert!(started.elapsed() < PATIENCE, "{status}");
                    tokio::task::yield_now().await;
                }
            }
        }
        self.nodes.push(node);
    }

    fn leader(&self) -> &TestNode {
        &self.nodes[0]
    }

    fn follower(&self) -> &TestNode {
        self.nodes.last().unwrap()
    }

    /// On every node: the others learn only after the leader's answer that the module is committed.
    async fn with_kv(self) -> Cluster {
        let activated = upgrade(self.leader(), KV).await.unwrap().index;
        for node in &self.nodes {
            let mut machine = node.handle.machine();
            let applied = |view: &Option<Arc<MachineView>>| {
                view.as_ref().is_some_and(|view| view.info.applied.0 >= activated)
            };
            machine.wait_for(applied).await.unwrap();
        }
        self
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

fn join_request(address: &str) -> peer::JoinRequest {
    let address = address.to_owned();
    let nonce = rand::random::<[u8; 16]>().to_vec().into();
    let (protocol_min, protocol_max) = (*PROTOCOLS.start(), *PROTOCOLS.end());
    peer::JoinRequest { address, nonce, protocol_min, protocol_max, ..Default::default() }
}

async fn upgrade(node: &TestNode, module: &'static [u8]) -> Result<v1::UpgradeResponse, Status> {
    upgrade_from(node, node.handle.incumbent(), module).await
}

async fn upgrade_from(
    node: &TestNode,
    replaces: Option<Incumbent>,
    module: &'static [u8],
) -> Result<v1::UpgradeResponse, Status> {
    let header = v1::UpgradeHeader {
        group: String::new(),
        module_hash: ModuleHash::of(module).0.to_vec().into(),
        total_bytes: module.len() as u64,
        label: "test".into(),
        replaces: replaces.map(|it| v1::Incumbent {
            module_hash: it.hash.0.to_vec().into(),
            activated_at: it.activated_at.0,
        }),
        ..Default::default()
    };
    let part = |part| v1::UpgradeRequest { part: Some(part) };
    let parts = vec![
        part(v1::upgrade_request::Part::Header(header)),
        part(v1::upgrade_request::Part::Data(Bytes::from_static(module))),
    ];
    node.admin().upgrade(tokio_stream::iter(parts)).await.map(|answer| answer.into_inner())
}

fn set(key: u64) -> v1::ApplyRequest {
    let command = format!(r#"{{"op":"set","key":"{key}","value":"x"}}"#);
    v1::ApplyRequest { command: command.into(), ..Default::default() }
}

fn tagged(tag: u64, request: v1::ApplyRequest) -> v1::TaggedCommand {
    v1::TaggedCommand { tag, request: Some(request), timeout_ms: 0 }
}

async fn query(node: &TestNode, query: &str) -> Result<String, Status> {
    let query = query.to_owned().into();
    let request = v1::QueryRequest { query, ..Default::default() };
    let answer = node.client().query(request).await?.into_inner();
    match answer.outcome.and_then(|outcome| outcome.kind) {
        Some(Kind::Ok(bytes)) => Ok(String::from_utf8(bytes.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_fails<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    effect: &str,
    words: &str,
) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert_eq!(status.metadata().get(EFFECT_KEY).unwrap(), effect, "{status}");
    let detail = v1::ErrorDetail::of(&status).expect("every failure has one");
    assert_eq!(
        (detail.reason().code(), detail.effect() == v1::Effect::None),
        (code, effect == "none")
    );
    assert!(status.message().contains(words), "{:?} lacks {words:?}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_commands_queries_and_sessions() {
    let cluster = Cluster::of(3).await;
    let early = cluster.follower().client().apply(set(0)).await;
    assert_fails(early, Code::FailedPrecondition, "none", "raft-host upgrade");
    assert_fails(
        query(cluster.leader(), "{}").await,
        Code::FailedPrecondition,
        "none",
        "raft-host upgrade",
    );
    // Through a follower, which passes the whole upload on.
    let upgraded = upgrade(cluster.follower(), KV).await.unwrap();
    assert!(!upgraded.already_active);
    let again = upgrade(cluster.leader(), KV).await.unwrap();
    assert!(again.already_active);
    assert_eq!(again.index, upgraded.index);

    for (number, node) in cluster.nodes.iter().enumerate() {
        let applied = node.client().apply(set(number as u64)).await.unwrap().into_inner();
        assert_eq!(applied.outcome.unwrap().kind, Some(Kind::Ok(r#"{"ok":true}"#.into())));
        let count = format!(r#"{{"count":{}}}"#, number + 1);
        for asked in &cluster.nodes {
            assert_eq!(query(asked, r#"{"op":"count"}"#).await.unwrap(), count);
        }
        let rejected = v1::ApplyRequest::default();
        let rejected = node.client().apply(rejected).await.unwrap().into_inner();
        assert!(matches!(rejected.outcome.unwrap().kind, Some(Kind::Rejected(_))));
    }
    for node in [cluster.leader(), cluster.follower()] {
        let opened = node.client().open_session(v1::OpenSessionRequest::default()).await.unwrap();
        let session_id = opened.into_inner().session_id;
        let session = v1::SessionCommand { session_id, sequence: 1, acknowledged: 0, skip: false };
        let command = v1::ApplyRequest { session: Some(session), ..set(9) };
        for duplicate in [false, true] {
            let answer = node.client().apply(command.clone()).await.unwrap().into_inner();
            assert_eq!(answer.outcome.unwrap().duplicate, duplicate);
        }
        let close = v1::CloseSessionRequest { group: String::new(), session_id };
        node.client().close_session(close).await.unwrap();
        let late = node.client().apply(command).await;
        assert_fails(late, Code::NotFound, "unknown", "session has expired");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_fail_with_words_and_break_no_connection() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let elsewhere = v1::ApplyRequest { group: "2".into(), ..set(1) };
    assert_fails(
        node.client().apply(elsewhere).await,
        Code::NotFound,
        "none",
        "there is no group \"2\"",
    );
    let huge = v1::ApplyRequest { command: vec![b'x'; 3 << 20].into(), ..Default::default() };
    assert_fails(node.client().apply(huge).await, Code::InvalidArgument, "none", "too many");
    let query = v1::QueryRequest { query: vec![0; 3 << 20].into(), ..Default::default() };
    assert_fails(node.client().query(query).await, Code::InvalidArgument, "none", "allows");
    let odd = v1::QueryRequest { consistency: 9, ..Default::default() };
    assert_fails(node.client().query(odd).await, Code::InvalidArgument, "none", "consistency 9");
    assert_fails(upgrade(node, b"\0asm").await, Code::InvalidArgument, "none", "refused");

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096]] {
        let mut socket = TcpStream::connect(&node.address).await.unwrap();
        // The server may close before it has read everything.
        let _ = socket.write_all(garbage).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    node.client().apply(set(1)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_every_command_before_it_ends() {
    let cluster = Cluster::of(2).await.with_kv().await;
    for node in [cluster.leader(), cluster.follower()] {
        let messages = (0..20).map(|message| v1::ApplyStreamRequest {
            commands: (0..100)
                .map(|n| {
                    let tag = message * 100 + n;
                    let request = (tag != 777).then(|| set(tag));
                    v1::TaggedCommand { tag, request, timeout_ms: 0 }
                })
                .collect(),
        });
        let messages: Vec<_> = messages.collect();
        let answers = node.client().apply_stream(tokio_stream::iter(messages)).await.unwrap();
        let mut answers = answers.into_inner();
        let mut tags = Vec::new();
        while let Some(message) = answers.message().await.unwrap() {
            for result in message.results {
                match result.result.unwrap() {
                    v1::tagged_result::Result::Response(_) => {}
                    v1::tagged_result::Result::Error(error) => {
                        assert_eq!((result.tag, error.code), (777, Code::InvalidArgument as i32));
                        assert_eq!(error.effect(), v1::Effect::None);
                    }
                }
                tags.push(result.tag);
            }
        }
        tags.sort_unstable();
        assert_eq!(tags, (0..2000).collect::<Vec<_>>());
    }
    assert_eq!(query(cluster.follower(), r#"{"op":"count"}"#).await.unwrap(), r#"{"count":1999}"#);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_follow_the_leadership_and_lose_nothing() {
    let cluster = Cluster::of(3).await.with_kv().await;
    let mut sides = Vec::new();
    for node in &cluster.nodes {
        let (sender, receiver) = mpsc::channel::<v1::ApplyStreamRequest>(4);
        let requests = ReceiverStream::new(receiver);
        let answers = node.client().apply_stream(requests).await.unwrap().into_inner();
        sides.push((sender, answers));
    }
    let mut tag = 0;
    for leader in [2, 3, 1, 2] {
        for (sender, _) in &mut sides {
            let commands = (0..50).map(|n| tagged(tag + n, set(tag + n)));
            sender.send(v1::ApplyStreamRequest { commands: commands.collect() }).await.unwrap();
            tag += 50;
        }
        let request = v1::TransferLeadershipRequest { group: String::new(), node_id: leader };
        let moved = cluster.nodes[0].admin().transfer_leadership(request).await.unwrap();
        assert_eq!(moved.into_inner().leader_id, leader);
    }
    let mut answered = 0;
    for (sender, mut answers) in sides {
        drop(sender);
        while let Some(message) = answers.message().await.unwrap() {
            for result in message.results {
                let result = result.result.unwrap();
                assert!(matches!(result, v1::tagged_result::Result::Response(_)), "{result:?}");
                answered += 1;
            }
        }
    }
    assert_eq!(answered, tag);
    let count = format!(r#"{{"count":{tag}}}"#);
    assert_eq!(query(cluster.follower(), r#"{"op":"count"}"#).await.unwrap(), count);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_lead_and_go() {
    let mut cluster = Cluster::of(1).await;
    let only = cluster.leader();
    let last = v1::RemoveMemberRequest { group: String::new(), node_id: 1, force: false };
    assert_fails(
        only.admin().remove_member(last).await,
        Code::FailedPrecondition,
        "none",
        "last voter",
    );
    cluster.grow().await;
    cluster.grow().await;
    let asked = cluster.follower().admin();
    let other = ClusterId([8; 16]).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = listener.local_addr().unwrap().to_string();
    let silent = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let refused = [
        (
            peer::JoinRequest { cluster_id: vec![8; 16].into(), ..join_request("127.0.0.1:9") },
            Code::FailedPrecondition,
            other.as_str(),
        ),
        (
            peer::JoinRequest { protocol_min: 99, protocol_max: 99, ..join_request("127.0.0.1:9") },
            Code::FailedPrecondition,
            "speaks 99..=99",
        ),
        (
            peer::JoinRequest { node_id: 2, ..join_request(&elsewhere) },
            Code::AlreadyExists,
            "in use",
        ),
        (
            peer::JoinRequest { node_id: u64::MAX, ..join_request(&elsewhere) },
            Code::InvalidArgument,
            "too high",
        ),
        (
            peer::JoinRequest { nonce: vec![1; 15].into(), ..join_request(&elsewhere) },
            Code::InvalidArgument,
            "nonce",
        ),
        (join_request(&silent), Code::Aborted, "cannot dial"),
        (join_request("0.0.0.0:7400"), Code::InvalidArgument, "cannot dial it"),
        (join_request("a\nb:7400"), Code::InvalidArgument, "HOST:PORT"),
        (
            join_request(&("\u{1}".repeat(3 << 20) + ":1")),
            Code::InvalidArgument,
            "an address of 3145730 bytes",
        ),
        (join_request("nowhere"), Code::InvalidArgument, "HOST:PORT"),
        (join_request(&cluster.leader().address), Code::Aborted, "heard from"),
    ];
    for (request, code, words) in refused {
        let answer = cluster.nodes[2].membership().join(request).await;
        assert_fails(answer, code, "none", words);
    }
    let again = v1::AddMemberRequest {
        group: String::new(),
        node_id: 2,
        address: cluster.nodes[1].address.clone(),
    };
    let members = asked.clone().add_member(again).await.unwrap().into_inner().members;
    assert_eq!(members.iter().map(|member| member.node_id).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(members.iter().all(v1::MemberInfo::is_voter));

    let status = asked.clone().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.node_id, status.resident_bytes), (3, 22));
    let group = status.group("main").unwrap();
    assert_eq!((group.leader_id, &group.leader_address), (1, &cluster.leader().address));
    let taken = asked.clone().take_snapshot(v1::TakeSnapshotRequest::default()).await.unwrap();
    assert!(taken.into_inner().index > 1);
    let absent = v1::RemoveMemberRequest { group: String::new(), node_id: 42, force: false };
    let refused = asked.clone().remove_member(absent).await;
    assert_fails(refused, Code::NotFound, "none", "not a member");

    // The leader hands over first; whoever was asked finds its successor.
    let leader = v1::RemoveMemberRequest { group: String::new(), node_id: 1, force: false };
    let left = asked.clone().remove_member(leader).await.unwrap().into_inner().members;
    assert_eq!(left.iter().map(|member| member.node_id).collect::<Vec<_>>(), [2, 3]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_and_their_history_are_listed() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let modules = v1::ModulesRequest::default();
    let held = cluster.leader().admin().modules(modules).await.unwrap().into_inner();
    assert_eq!(held.history.len(), 1);
    assert_eq!(held.modules[0].hash[..], ModuleHash::of(KV).0);
    assert!(held.modules[0].active);
    // The state of one native module is not that of another: the old one goes on.
    let refused = upgrade(cluster.leader(), NULL).await;
    assert_fails(refused, Code::FailedPrecondition, "none", "not activated");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_changes_limits_and_shows_them() {
    use v1::limit_change::Limit;
    let cluster = Cluster::of(2).await.with_kv().await;
    let change = |node: &TestNode, limits: Vec<Option<Limit>>| {
        let changes = limits.into_iter().map(|limit| v1::LimitChange { limit }).collect();
        let request = v1::SetLimitsRequest { group: String::new(), changes };
        let mut admin = node.admin();
        async move { admin.set_limits(request).await }
    };
    for node in [cluster.follower(), cluster.leader()] {
        let before = node.admin().limits(v1::LimitsRequest::default()).await.unwrap().into_inner();
        let before = before.limits.unwrap();
        let fuel = before.query_fuel - 1;
        let changes = vec![Some(Limit::QueryFuel(fuel)), Some(Limit::InputMaxBytes(4))];
        let changed = change(node, changes).await.unwrap().into_inner();
        let expected = v1::Limits { query_fuel: fuel, input_max_bytes: 4, ..before };
        assert_eq!(changed.previous.unwrap().query_fuel, before.query_fuel);
        assert_eq!(changed.limits.unwrap(), expected);
        let too_long = node.client().apply(set(1)).await;
        assert_fails(too_long, Code::InvalidArgument, "none", "allows 4");
        // Whoever hears that it is done from the leader must also see it there.
        let shown = cluster.leader().admin().limits(v1::LimitsRequest::default()).await.unwrap();
        let shown = shown.into_inner();
        assert_eq!(shown.limits.unwrap(), expected);
        assert!(shown.applied_index >= changed.index);
    }
    for node in &cluster.nodes {
        for (limits, words) in [
            (vec![], "at least one"),
            (vec![Some(Limit::ApplyFuel(0))], "apply_fuel is 0"),
            (vec![Some(Limit::ApplyFuel(9)), None], "unknown to this version"),
        ] {
            assert_fails(change(node, limits).await, Code::InvalidArgument, "none", words);
        }
        let small = change(node, vec![Some(Limit::ModuleMaxBytes(1))]).await;
        assert_fails(small, Code::FailedPrecondition, "none", "more than a module_max_bytes of 1");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_requests_fail_surely_and_health_says_so() {
    let network = MemoryNetwork::new(Delivery::Immediate, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node =
        TestNode::start(&network, listener, NodeId(5), Some(Vec::new()), Arc::new(NativeLoader))
            .await;
    assert_fails(node.client().apply(set(1)).await, Code::Unavailable, "none", "no leader");
    assert_fails(query(&node, "{}").await, Code::Unavailable, "none", "no leader");
    let stale = v1::QueryRequest { consistency: 1, ..Default::default() };
    assert_fails(node.client().query(stale).await, Code::Unavailable, "none", "no state");
    let command = tagged(3, set(1));
    let request = v1::ApplyStreamRequest { commands: vec![command] };
    let answers = node.client().apply_stream(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().results.remove(0);
    match answer.result.unwrap() {
        v1::tagged_result::Result::Error(error) => {
            assert_eq!((error.code, error.effect()), (Code::Unavailable as i32, v1::Effect::None));
        }
        other => panic!("{other:?}"),
    }
    for name in ["raft_host.v1.Client", "raft_host.v1.Admin", "group/main"] {
        assert_eq!(health::health(&node, name).await, 2, "{name}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_deadline_leaves_the_effect_open() {
    let cluster = Cluster::of(2).await.with_kv().await;
    cluster.network.cut(NodeId(1), NodeId(2));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The server's own patience: a client's library would race it with a timer of its own.
    let config = ApiConfig { request_timeout_ms: 50, ..ApiConfig::default() };
    let handle = cluster.leader().handle.clone();
    let forever = std::future::pending();
    let server = tokio::spawn(serve(listener, handle, Routes::default(), info(), config, forever));
    let mut client = ClientClient::connect(format!("http://{address}")).await.unwrap();
    // Those that say how long they wait are not cut by that.
    let mut patient = tonic::Request::new(set(2));
    patient.set_timeout(Duration::from_secs(3_600));
    let mut other = client.clone();
    let patient = tokio::spawn(async move { other.apply(patient).await });
    let hour = v1::TaggedCommand { timeout_ms: 3_600_000, ..tagged(3, set(3)) };
    let commands = vec![tagged(4, set(4)), hour];
    let stream = tokio_stream::iter([v1::ApplyStreamRequest { commands }]);
    let mut stream = client.apply_stream(stream).await.unwrap().into_inner();
    let results = stream.message().await.unwrap().unwrap().results;
    assert_eq!(results.len(), 1, "{results:?}");
    match &results[0].result {
        Some(v1::tagged_result::Result::Error(error)) => {
            assert_eq!((results[0].tag, error.code), (4, Code::DeadlineExceeded as i32));
        }
        other => panic!("{other:?}"),
    }
    let late = client.apply(set(1)).await;
    assert_fails(late, Code::DeadlineExceeded, "unknown", "may");
    cluster.network.heal();
    patient.await.unwrap().unwrap();
    let results = stream.message().await.unwrap().unwrap().results;
    let answered = matches!(results[0].result, Some(v1::tagged_result::Result::Response(_)));
    assert!(answered && results[0].tag == 3, "{results:?}");
    server.abort();
    cluster.stop().await;
}

/// They were tried once more when they were late already, and nobody could say what became of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_command_that_no_leader_took_in_time_surely_had_no_effect() {
    let network = MemoryNetwork::new(Delivery::Immediate, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let (me, alone, loader) = (NodeId(1), None, Arc::new(NativeLoader));
    let first = TestNode::start_as(&network, listener, &address, me, alone, loader.clone()).await;
    let cluster = Cluster::around(network, loader, first, 2).await.with_kv().await;
    let late = |n| v1::TaggedCommand { timeout_ms: 100 + 27 * n, ..tagged(n, set(n)) };
    let commands = (0..16).map(late).collect();
    let stream = tokio_stream::iter([v1::ApplyStreamRequest { commands }]);
    let mut answers = cluster.follower().client().apply_stream(stream).await.unwrap().into_inner();
    let mut effects = Vec::new();
    while let Some(message) = answers.message().await.unwrap() {
        for result in message.results {
            match result.result.unwrap() {
                v1::tagged_result::Result::Error(error) => effects.push(error.effect()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(effects.len(), 16);
    // One whose deadline ends while somebody dials is in the open; that takes no time.
    let certain = effects.iter().filter(|effect| **effect == v1::Effect::None).count();
    assert!(certain > 8, "{effects:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_open_streams_with_a_certain_effect() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let (sender, receiver) = mpsc::channel::<v1::ApplyStreamRequest>(4);
    let requests = ReceiverStream::new(receiver);
    let mut answers = node.client().apply_stream(requests).await.unwrap().into_inner();
    let command = tagged(1, set(1));
    sender.send(v1::ApplyStreamRequest { commands: vec![command] }).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().results[0].tag, 1);
    cluster.stop().await;
    assert_fails(answers.message().await, Code::Unavailable, "none", "shutting down");
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let cluster = Cluster::of(1).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(cluster.leader().channel.clone());
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["raft_host.v1.Client", "raft_host.v1.Admin", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("peer")), "of no use to clients: {names:?}");
    cluster.stop().await;
}

/// The answer to a join was lost: asked again with the same nonce it is the same join, and with
/// another one, from the address of a member that nobody hears from, it is another node.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_join_again_is_one_join_and_lost_data_makes_another_member() {
    let cluster = Cluster::of(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let request = join_request(&address);
    let mut admin = cluster.leader().admin();
    let mut membership = cluster.leader().membership();
    for _ in 0..3 {
        let joined = membership.join(request.clone()).await.unwrap().into_inner();
        assert_eq!(joined.node_id, 2);
        assert_eq!(joined.members.len(), 2);
    }
    let joined = membership.join(join_request(&address)).await.unwrap().into_inner();
    let ids: Vec<u64> = joined.members.iter().map(|member| member.node_id).collect();
    assert_eq!((joined.node_id, &ids[..]), (3, &[1, 3][..]));
    // An operator may say in advance who is to join, and nobody else gets that id.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let awaited = elsewhere.local_addr().unwrap().to_string();
    let add = v1::AddMemberRequest { group: String::new(), node_id: 7, address: awaited.clone() };
    admin.add_member(add).await.unwrap();
    let claim = peer::JoinRequest { node_id: 7, ..join_request(&awaited) };
    assert_eq!(membership.join(claim).await.unwrap().into_inner().node_id, 7);
    assert_eq!(membership.join(join_request(&awaited)).await.unwrap().into_inner().node_id, 8);
    cluster.stop().await;
}
