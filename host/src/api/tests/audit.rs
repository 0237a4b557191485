//! What calls leave in the audit log, and what of them is counted against a rate.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::audit::{Audit, AuditConfig};

/// A server beside the first node's own, with an audit log and other settings.
struct Beside {
    channel: Channel,
    audit: Arc<Audit>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ApiError>>,
}

impl Beside {
    async fn of(cluster: &Cluster, audit: &AuditConfig, config: ApiConfig) -> Beside {
        let node = &cluster.nodes[0];
        let audit = Audit::open(audit, None, false, (CLUSTER, NodeId(1)));
        let audit = Arc::new(audit.expect("opened").expect("a file is given"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let info = NodeInfo { audit: Some(Arc::clone(&audit)), ..info() };
        let stopped = async move { drop(stopped.await) };
        let server = serve(listener, node.handle.clone(), Routes::default(), info, config, stopped);
        let server = tokio::spawn(server);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Beside { channel: endpoint.connect_lazy(), audit, stop, server }
    }

    fn client(&self) -> ClientClient<Channel> {
        ClientClient::new(self.channel.clone())
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    /// What has been written, once the server has ended.
    async fn lines(self, file: &Path) -> Vec<serde_json::Value> {
        drop((self.stop, self.channel));
        self.server.await.expect("no panic").expect("ended in order");
        self.audit.close(PATIENCE);
        let text = std::fs::read_to_string(file).expect("readable");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn fields(line: &serde_json::Value, names: &[&str]) -> Vec<String> {
    let text = |name: &&str| match &line[*name] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    names.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_change_is_noted_and_what_they_look_at_is_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("audit");
    let cluster = Cluster::of(1).await;
    let audit = AuditConfig { file: Some(file.clone()), ..AuditConfig::default() };
    let beside = Beside::of(&cluster, &audit, ApiConfig::default()).await;
    let mut admin = beside.admin();
    admin.status(v1::StatusRequest::default()).await.expect("looked at");
    admin.limits(v1::LimitsRequest::default()).await.expect("looked at");
    let change = v1::LimitChange { limit: Some(v1::limit_change::Limit::ApplyFuel(123_456_789)) };
    let set = v1::SetLimitsRequest { changes: vec![change], ..Default::default() };
    let index = admin.set_limits(set).await.expect("set").into_inner().index;
    let remove = v1::RemoveMemberRequest { node_id: 77, force: true, ..Default::default() };
    admin.remove_member(remove).await.expect_err("nobody has that id");
    let command = v1::ApplyRequest { command: "secret".into(), ..Default::default() };
    let _ = beside.client().apply(command).await;
    let lines = beside.lines(&file).await;
    let names = ["event", "method", "from", "what", "index", "effect", "reason"];
    let found: Vec<_> = lines.iter().map(|line| fields(line, &names)).collect();
    let index = index.to_string();
    let set =
        ["limits.set", "Admin/SetLimits", "127.0.0.1", "ApplyFuel(123456789)", &index, "done", ""];
    let removed = [
        "members.remove",
        "Admin/RemoveMember",
        "127.0.0.1",
        "node 77, forced",
        "",
        "none",
        "no_such_member",
    ];
    assert_eq!(found, [set, removed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_noted_on_request_and_never_their_bytes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("audit");
    let cluster = Cluster::of(1).await;
    let audit = AuditConfig { file: Some(file.clone()), commands: true, ..AuditConfig::default() };
    let beside = Beside::of(&cluster, &audit, ApiConfig::default()).await;
    let request =
        || v1::ApplyRequest { command: "no secret is noted".into(), ..Default::default() };
    let _ = beside.client().apply(request()).await;
    let commands =
        (0..3).map(|tag| v1::TaggedCommand { tag, request: Some(request()), ..Default::default() });
    let stream = futures::stream::iter([v1::ApplyStreamRequest { commands: commands.collect() }]);
    let mut answers = beside.client().apply_stream(stream).await.expect("a stream").into_inner();
    while answers.message().await.expect("it ends in order").is_some() {}
    let lines = beside.lines(&file).await;
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in &lines {
        assert_eq!(fields(line, &["event", "what"]), ["command", "18 bytes"], "{line}");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_is_told_when_to_come_back_and_that_is_noted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("audit");
    let cluster = Cluster::of(1).await;
    let audit = AuditConfig { file: Some(file.clone()), ..AuditConfig::default() };
    let config = ApiConfig { requests_per_second: 1, requests_burst: 4, ..ApiConfig::default() };
    let beside = Beside::of(&cluster, &audit, config).await;
    let request = || v1::ApplyRequest { command: "x".into(), ..Default::default() };
    let commands = (0..10).map(|tag| v1::TaggedCommand {
        tag,
        request: Some(request()),
        ..Default::default()
    });
    // The stream counts one, and each of its commands.
    let stream = futures::stream::iter([v1::ApplyStreamRequest { commands: commands.collect() }]);
    let mut answers = beside.client().apply_stream(stream).await.expect("a stream").into_inner();
    let mut refused = Vec::new();
    while let Some(message) = answers.message().await.expect("it ends in order") {
        for result in message.results {
            if let Some(v1::tagged_result::Result::Error(error)) = result.result
                && error.code == i32::from(Code::ResourceExhausted)
            {
                refused.push(error.detail.expect("all failures have one"));
            }
        }
    }
    assert!((6..=7).contains(&refused.len()), "{}", refused.len());
    for detail in &refused {
        assert_eq!(detail.reason(), v1::Reason::RateLimited);
        assert_eq!(detail.effect(), v1::Effect::None);
        assert!(detail.retry_after_ms.is_some_and(|pause| (1..=1_000).contains(&pause)));
    }
    let status = beside.client().apply(request()).await.expect_err("too early");
    let detail = v1::ErrorDetail::of(&status).expect("all failures have one");
    assert_eq!(detail.reason(), v1::Reason::RateLimited);
    // What another node has passed on was counted there.
    let mut passed = tonic::Request::new(request());
    passed.metadata_mut().insert(raft_host_proto::FORWARDED_KEY, "1".parse().expect("ASCII"));
    if let Err(status) = beside.client().apply(passed).await {
        assert_ne!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    tokio::time::sleep(Duration::from_millis(detail.retry_after_ms.unwrap_or(0))).await;
    if let Err(status) = beside.client().apply(request()).await {
        assert_ne!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    let lines = beside.lines(&file).await;
    let refusals = lines.iter().filter(|line| line["event"] == "refused");
    assert!((7..=10).contains(&refusals.clone().count()), "{lines:?}");
    for line in refusals {
        assert_eq!(fields(line, &["effect", "reason"]), ["none", "rate_limited"], "{line}");
    }
}

/// A full disk, say.
#[tokio::test(flavor = "multi_thread")]
async fn where_it_must_be_noted_nothing_is_done_that_cannot_be() {
    let cluster = Cluster::of(1).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("log");
    let listening = std::os::unix::net::UnixDatagram::bind(&socket).expect("bound");
    let audit = AuditConfig {
        sink: crate::audit::AuditSink::Syslog,
        socket: socket.clone(),
        required: true,
        ..AuditConfig::default()
    };
    let beside = Beside::of(&cluster, &audit, ApiConfig::default()).await;
    let mut admin = beside.admin();
    let take = v1::TakeSnapshotRequest::default;
    admin.take_snapshot(take()).await.expect("it can be noted");
    drop(listening);
    std::fs::remove_file(&socket).expect("gone");
    // The first one is done: that it cannot be noted is found out then.
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match admin.take_snapshot(take()).await {
            Err(status) => break status,
            Ok(_) => assert!(Instant::now() < deadline, "it is never refused"),
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    let detail = v1::ErrorDetail::of(&status).expect("all failures have one");
    assert_eq!(detail.reason(), v1::Reason::NotAudited);
    assert_eq!(detail.effect(), v1::Effect::None);
    admin.status(v1::StatusRequest::default()).await.expect("to look at is no change");
    let _listening = std::os::unix::net::UnixDatagram::bind(&socket).expect("bound");
    while admin.take_snapshot(take()).await.is_err() {
        assert!(Instant::now() < deadline, "it is refused for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
