//! What monitoring sees.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::serve_http;
use crate::node::DiskStatus;

/// The HTTP face of a node.
pub(super) struct Face {
    address: String,
    closing: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Face {
    pub(super) async fn of(node: &TestNode) -> Face {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let closing = CancellationToken::new();
        let info = node.info.clone();
        let served = serve_http(listener, node.handle.clone(), info, closing.clone());
        Face { address, closing, serving: tokio::spawn(served) }
    }

    /// Status, head and body.
    async fn get(&self, path: &str) -> (u16, String, String) {
        self.get_as(path, "application/openmetrics-text; version=1.0.0").await
    }

    /// The same for a reader that takes `accept`.
    async fn get_as(&self, path: &str, accept: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: node\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    pub(super) async fn samples(&self) -> BTreeMap<String, f64> {
        let (status, head, body) = self.get("/metrics").await;
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        parse(&body)
    }

    pub(super) async fn stop(self) {
        self.closing.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

/// Reads the text as strictly as a scraper would.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut helped, mut family) = (BTreeMap::new(), BTreeSet::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, sentence) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()), "{name} comes twice");
            assert!(sentence.ends_with('.') && !sentence.contains(".."), "{line}");
            family = name.to_owned();
        } else if line == "# EOF" {
            assert_eq!(lines.peek(), None, "nothing comes after the end");
            return samples;
        } else if line.starts_with("# ") {
            assert!(line.contains(&format!(" {family} ")), "{line} is not of {family}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&family), "{line} is not of {family}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert_eq!(samples.insert(series.to_owned(), value), None, "{series} comes twice");
        }
    }
    panic!("no end: {text}");
}

/// `operations.md` has a table of metrics: none is missing, and none is there that no node has.
#[tokio::test(flavor = "multi_thread")]
async fn operations_md_has_every_metric_and_no_other() {
    let cluster = Cluster::of(2).await.with_kv().await;
    let sync_p99 = Some(std::time::Duration::from_millis(7));
    cluster.leader().handle.show_disk(DiskStatus { sync_p99, ..DiskStatus::default() });
    let face = Face::of(cluster.leader()).await;
    let (_, _, text) = face.get_as("/metrics", "text/plain").await;
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let page = include_str!("../../../docs/operations.md");
    let (_, table) = page.split_once("\n## Metrics\n").expect("the section");
    let (table, _) = table.split_once("\n## ").expect("another one follows");
    let documented: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|names| names.split('`'))
        .filter_map(|name| name.split('{').next())
        .filter(|name| name.starts_with("raft_host_") || name.starts_with("process_"))
        .collect();
    assert_eq!(told, documented);
    face.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_what_became_of_commands_and_queries() {
    let cluster = Cluster::of(2).await.with_kv().await;
    let leader = cluster.leader();
    for key in 0..3 {
        leader.client().apply(set(key)).await.unwrap();
    }
    leader.client().apply(v1::ApplyRequest::default()).await.unwrap();
    query(leader, r#"{"op":"count"}"#).await.unwrap();
    let unlucky = v1::ApplyRequest { command: vec![b'x'; 3 << 20].into(), ..Default::default() };
    leader.client().apply(unlucky).await.unwrap_err();

    let face = Face::of(leader).await;
    let samples = face.samples().await;
    let sample = |series: &str| {
        *samples.get(series).unwrap_or_else(|| panic!("{series} is missing in {samples:#?}"))
    };
    assert_eq!(sample(r#"raft_host_applies_total{outcome="ok"}"#), 3.0);
    assert_eq!(sample(r#"raft_host_applies_total{outcome="rejected"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_applies_total{outcome="trapped",trap="out_of_fuel"}"#), 0.0);
    assert_eq!(sample(r#"raft_host_entries_applied_total{kind="command"}"#), 4.0);
    assert_eq!(sample(r#"raft_host_entries_applied_total{kind="activate_module"}"#), 1.0);
    assert!(sample(r#"raft_host_entries_applied_total{kind="membership"}"#) >= 2.0);
    assert_eq!(sample(r#"raft_host_queries_total{outcome="ok"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_proposals_failed_total{reason="too_large"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_role{role="leader"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_role{role="follower"}"#), 0.0);
    let status = leader.handle.status().await.unwrap();
    assert_eq!(sample("raft_host_applied_index"), status.commit.0 as f64);
    assert_eq!(sample("raft_host_commit_index"), status.commit.0 as f64);
    assert_eq!(sample("raft_host_leader_id"), 1.0);
    assert_eq!(sample("raft_host_voters"), 2.0);
    assert!(sample("raft_host_apply_duration_seconds_count") >= 7.0);
    assert_eq!(
        sample(r#"raft_host_apply_duration_seconds_bucket{le="+Inf"}"#),
        sample("raft_host_apply_duration_seconds_count")
    );
    assert!(sample("raft_host_log_write_duration_seconds_count") >= 1.0);
    assert_eq!(sample("raft_host_guest_log_lines_dropped_total"), 33.0);
    assert_eq!(sample("process_resident_memory_bytes"), 22.0);
    assert_eq!(sample("raft_host_data_dir_bytes"), 11.0);
    let module = format!("hash=\"{}\"", ModuleHash::of(KV));
    assert!(samples.keys().any(|series| {
        series.starts_with("raft_host_module_info{") && series.contains(&module)
    }));
    let peers = samples.keys().filter(|series| series.starts_with("raft_host_peer_matched_index"));
    assert_eq!(peers.count(), 1);
    face.stop().await;
    cluster.stop().await;
}

/// The value of a series that is there.
fn sample(samples: &BTreeMap<String, f64>, series: &str) -> f64 {
    *samples.get(series).unwrap_or_else(|| panic!("{series} is missing in {samples:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code_and_timed_by_method() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let face = Face::of(node).await;
    let before = face.samples().await;
    let calls = |samples: &BTreeMap<String, f64>, method: &str, code: &str| {
        let series = format!(r#"raft_host_requests_total{{method="{method}",code="{code}"}}"#);
        sample(samples, &series)
    };
    assert_eq!(calls(&before, "Client/Query", "OK"), 0.0, "a method that nobody called");
    for key in 0..3 {
        node.client().apply(set(key)).await.unwrap();
    }
    // The service itself and the gRPC library refuse.
    let nowhere = v1::ApplyRequest { group: "nowhere".into(), ..set(1) };
    node.client().apply(nowhere).await.unwrap_err();
    let long = v1::ApplyRequest { command: vec![b'x'; 8 << 20].into(), ..Default::default() };
    node.client().apply(long).await.unwrap_err();
    let elsewhere = v1::QueryRequest { group: "nowhere".into(), ..Default::default() };
    node.client().query(elsewhere).await.unwrap_err();
    errors::call(node, "/raft_host.v1.Client/Nothing").await.unwrap_err();

    let after = face.samples().await;
    assert_eq!(calls(&after, "Client/Apply", "OK"), 3.0);
    assert_eq!(calls(&after, "Client/Apply", "NOT_FOUND"), 1.0);
    assert_eq!(calls(&after, "Client/Apply", "INTERNAL"), 0.0, "to be seen growing");
    assert_eq!(calls(&after, "Client/Query", "NOT_FOUND"), 1.0);
    assert_eq!(calls(&after, "other", "UNIMPLEMENTED"), 1.0);
    assert_eq!(calls(&after, "Client/Apply", "INVALID_ARGUMENT"), 1.0);
    let timed = r#"raft_host_request_duration_seconds_count{method="Client/Apply"}"#;
    assert_eq!(sample(&after, timed), 5.0);
    assert!(after.keys().all(|series| !series.contains("Nothing")));
    face.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_streams_carry_is_counted_one_by_one() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let face = Face::of(node).await;
    let (commands, incoming) = mpsc::channel(4);
    let mut answers =
        node.client().apply_stream(ReceiverStream::new(incoming)).await.unwrap().into_inner();
    let nowhere = v1::ApplyRequest { group: "nowhere".into(), ..set(1) };
    let three = vec![tagged(1, set(1)), tagged(2, set(2)), tagged(3, nowhere)];
    commands.send(v1::ApplyStreamRequest { commands: three }).await.unwrap();
    let mut answered = 0;
    while answered < 3 {
        answered += answers.message().await.unwrap().expect("more comes").results.len();
    }
    let open = face.samples().await;
    let carried = |code: &str| {
        let series = format!(
            r#"raft_host_stream_requests_total{{method="Client/ApplyStream",code="{code}"}}"#
        );
        sample(&open, &series)
    };
    assert_eq!((carried("OK"), carried("NOT_FOUND"), carried("UNAVAILABLE")), (2.0, 1.0, 0.0));
    let timed = r#"raft_host_stream_request_duration_seconds_count{method="Client/ApplyStream"}"#;
    assert_eq!(sample(&open, timed), 3.0);
    let active = r#"raft_host_requests_active{method="Client/ApplyStream"}"#;
    assert_eq!(sample(&open, active), 1.0);
    // The stream itself is one call, and over when its client says so.
    drop(commands);
    assert_eq!(answers.message().await.unwrap(), None);
    let over = face.samples().await;
    assert_eq!(sample(&over, active), 0.0);
    let calls = r#"raft_host_requests_total{method="Client/ApplyStream",code="OK"}"#;
    assert_eq!(sample(&over, calls), 1.0);
    face.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_connections_queues_and_the_way_of_a_proposal_are_told() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let node = cluster.leader();
    let mut client = node.client();
    let open = |ttl_ms| v1::OpenSessionRequest { ttl_ms, ..Default::default() };
    let session = client.open_session(open(0)).await.unwrap().into_inner().session_id;
    client.open_session(open(0)).await.unwrap();
    let close = v1::CloseSessionRequest { session_id: session, ..Default::default() };
    client.close_session(close).await.unwrap();
    let face = Face::of(node).await;
    let samples = face.samples().await;
    let sample = |series: &str| sample(&samples, series);
    assert_eq!(sample("raft_host_sessions"), 1.0);
    assert_eq!(sample("raft_host_sessions_opened_total"), 2.0);
    assert_eq!(sample(r#"raft_host_sessions_ended_total{reason="closed"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_sessions_ended_total{reason="expired"}"#), 0.0);
    assert_eq!(sample(r#"raft_host_connections{listener="services",kind="client"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_connections{listener="services",kind="member"}"#), 0.0);
    assert_eq!(sample(r#"raft_host_connections{listener="metrics",kind="client"}"#), 1.0);
    assert_eq!(sample(r#"raft_host_connections_accepted_total{listener="services"}"#), 1.0);
    let queues = ["in_flight", "inbox", "uncommitted", "unapplied", "stream_requests"];
    for queue in queues.into_iter().chain(["requests_arriving", "stream_answers"]) {
        let bytes = sample(&format!(r#"raft_host_queue_bytes{{queue="{queue}"}}"#));
        let limit = sample(&format!(r#"raft_host_queue_limit_bytes{{queue="{queue}"}}"#));
        assert!(bytes < limit, "{queue}: {bytes} of {limit}");
    }
    assert_eq!(sample(r#"raft_host_queue_bytes{queue="log"}"#), 0.0, "all is written");
    assert_eq!(sample(r#"raft_host_peer_queue_bytes{peer="2"}"#), 44.0);
    let parts = ["raft_host_commit_duration", "raft_host_committed_apply_duration"];
    let [committed, applied] = parts.map(|part| sample(&format!("{part}_seconds_count")));
    assert!(committed >= 3.0, "{committed}");
    assert_eq!(committed, applied);
    face.stop().await;
    cluster.stop().await;
}

/// What `promtool check metrics` reads, which is run when it is installed.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_text_gets_text_that_prometheus_tools_accept() {
    let cluster = Cluster::of(1).await.with_kv().await;
    let face = Face::of(cluster.leader()).await;
    let open = face.samples().await;
    let (status, head, body) = face.get_as("/metrics", "text/plain").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut names = BTreeSet::new();
    for line in body.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => {
                assert!(comment.starts_with("HELP ") || comment.starts_with("TYPE "), "{line}");
            }
            None => drop(names.insert(line.rsplit_once(' ').unwrap().0.to_owned())),
        }
    }
    assert_eq!(names, open.into_keys().collect());
    let promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    match promtool {
        Err(error) => eprintln!("promtool is not run: {error}"),
        Ok(mut promtool) => {
            let mut input = promtool.stdin.take().unwrap();
            std::io::Write::write_all(&mut input, body.as_bytes()).unwrap();
            drop(input);
            let said = promtool.wait_with_output().unwrap();
            let words = String::from_utf8_lossy(&said.stderr).into_owned()
                + &String::from_utf8_lossy(&said.stdout);
            assert!(said.status.success(), "{words}");
        }
    }
    face.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_503_with_the_reason_when_requests_should_go_elsewhere() {
    let cluster = Cluster::of(1).await;
    let face = Face::of(cluster.leader()).await;
    let (status, _, body) = face.get("/health").await;
    assert_eq!((status, body.as_str()), (200, "{\"serving\":true}\n"));
    assert_eq!(face.samples().await["raft_host_serving"], 1.0);
    cluster.leader().node.drain().await;
    let (status, _, body) = face.get("/health").await;
    assert_eq!(status, 503);
    assert_eq!(body, "{\"reason\":\"this node is shutting down\",\"serving\":false}\n");
    assert_eq!(face.samples().await["raft_host_serving"], 0.0);
    assert_eq!(face.get("/nothing").await.0, 404);
    face.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_as_kubernetes_expects_and_only_readiness_follows_the_cluster() {
    let cluster = Cluster::of(2).await;
    let face = Face::of(cluster.leader()).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        let (status, _, body) = face.get(path).await;
        assert_eq!((status, body.as_str()), (200, "ok"), "{path}");
    }
    let (status, _, body) = face.get("/healthz?verbose").await;
    assert_eq!(status, 200);
    assert!(body.starts_with("[+]event-loop ok\n[+]running ok\n"), "{body}");
    assert!(body.ends_with("[+]leader ok\nhealthz check passed\n"), "{body}");

    // Without a majority it works, and is not to be started again; but nobody should send it anything.
    cluster.network.cut(NodeId(1), NodeId(2));
    let mut leadership = cluster.leader().handle.leadership();
    leadership.wait_for(|now| now.leader.is_none()).await.unwrap();
    assert_eq!(face.get("/livez").await.0, 200);
    let (status, _, body) = face.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("[-]leader failed: no leader is known"), "{body}");
    assert!(body.ends_with("readyz check failed\n"), "{body}");
    let (status, _, body) = face.get("/readyz?verbose&exclude=leader").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("[+]leader excluded: ok"), "{body}");
    assert_eq!(face.get("/healthz?exclude=nothing").await.0, 503);
    cluster.network.heal();
    leadership.wait_for(|now| now.leader.is_some()).await.unwrap();
    face.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_alive_and_not_ready() {
    let cluster = Cluster::of(3).await.with_kv().await;
    let node = cluster.leader();
    let face = Face::of(node).await;
    assert_eq!(face.get("/readyz").await.0, 200);
    node.admin().drain(v1::DrainRequest::default()).await.unwrap();
    assert_eq!(face.get("/livez").await.0, 200);
    let (status, _, body) = face.get("/readyz?verbose").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("[-]drained failed: this node was drained by an operator"), "{body}");
    assert!(body.contains("[+]leader ok"), "{body}");
    assert_eq!(face.samples().await["raft_host_drained"], 1.0);
    face.stop().await;
    cluster.stop().await;
}
