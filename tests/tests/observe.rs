//! What an operator sees of a real server from outside.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use raft_host_tests::{Cluster, Server, block_on, free_port};
use serde_json::Value;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Status and body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

#[test]
fn metrics_and_health_have_an_address_of_their_own_if_one_is_given() {
    let metrics = format!("127.0.0.1:{}", free_port());
    let mut cluster = Cluster::new(PROGRAM, 1, &["--metrics-listen", &metrics]);
    assert_eq!(get(&metrics, "/health"), (200, "{\"serving\":true}\n".to_owned()));
    cluster.cli().run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let (status, text) = get(&metrics, "/metrics");
    assert_eq!(status, 200);
    let sample = |series: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
        let line = line.unwrap_or_else(|| panic!("{series} is missing in {text}"));
        line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number")
    };
    assert_eq!(sample(r#"raft_host_applies_total{outcome="ok"}"#), 1.0);
    assert!(sample(r#"raft_host_apply_fuel_total{outcome="ok"}"#) > 0.0);
    assert!(sample("raft_host_guest_memory_bytes") >= 65_536.0);
    assert!(sample("process_resident_memory_bytes") > 0.0);
    assert!(sample("raft_host_data_dir_bytes") > 0.0);
    assert!(sample("raft_host_log_write_duration_seconds_count") > 0.0);

    let said = cluster.servers[0].log();
    assert!(said.contains(&format!("http://{metrics}/metrics")), "{said}");
    assert_eq!(cluster.servers[0].terminate(), Some(0), "the address is let go of in time");
    let taken = std::net::TcpListener::bind(&metrics).expect("free again");
    let said = cluster.servers[0].refuses(&["--metrics-listen", &metrics]);
    assert!(said.contains("--metrics-listen"), "{said}");
    drop(taken);
}

/// Where a server says that its metrics are.
fn metrics_of(server: &Server) -> String {
    let log = server.log();
    let (_, rest) = log.rsplit_once("http://").expect("it says where");
    rest.split_once("/metrics").expect("an address").0.to_owned()
}

/// The value of a series; `None`: there is no such one.
fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit_once(' ').expect("a value").1.parse().ok()
}

/// What `grpc.health.v1` says of a service, or the code with which it refuses to.
fn health(address: SocketAddr, service: &str) -> Result<ServingStatus, Code> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let request = HealthCheckRequest { service: service.to_owned() };
    let asked = async {
        let endpoint = endpoint.timeout(Duration::from_secs(10));
        let channel = endpoint.connect().await.map_err(|_| Code::Unavailable)?;
        let answer = HealthClient::new(channel).check(request).await;
        answer.map(|answer| answer.into_inner().status).map_err(|status| status.code())
    };
    Ok(match block_on(asked)? {
        1 => ServingStatus::Serving,
        2 => ServingStatus::NotServing,
        _ => ServingStatus::Unknown,
    })
}

#[test]
fn an_operator_sees_calls_latencies_connections_and_queues_of_each_node() {
    let cluster = Cluster::new(PROGRAM, 3, &["--metrics-listen", "127.0.0.1:0"]);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let command = r#"{"op":"set","key":"a","value":"1"}"#;
    // It passes the command on.
    cluster.cli_of(follower).run(&["apply", command]).ok();
    cluster.cli_of(leader).run(&["query", r#"{"op":"count"}"#]).ok();
    let page = |at: usize| {
        let (status, text) = get(&metrics_of(&cluster.servers[at]), "/metrics");
        assert_eq!(status, 200);
        text
    };
    let (of_leader, of_follower) = (page(leader), page(follower));
    for (at, text) in [(leader, &of_leader), (follower, &of_follower)] {
        let value =
            |series: &str| sample(text, series).unwrap_or_else(|| panic!("{series}: {text}"));
        let applied = ["requests", "stream_requests"].map(|family| {
            let method = if family == "requests" { "Client/Apply" } else { "Client/ApplyStream" };
            value(&format!(r#"raft_host_{family}_total{{method="{method}",code="OK"}}"#))
        });
        assert!(applied.iter().sum::<f64>() >= 1.0, "node {at} was asked");
        assert!(value(r#"raft_host_connections{listener="services",kind="member"}"#) >= 2.0);
        assert_eq!(value(r#"raft_host_connections{listener="metrics",kind="client"}"#), 1.0);
        let peers = text.lines().filter(|line| line.starts_with("raft_host_peer_queue_bytes{"));
        assert_eq!(peers.count(), 2, "node {at}");
        let limit = value(r#"raft_host_queue_limit_bytes{queue="in_flight"}"#);
        assert!(value(r#"raft_host_queue_bytes{queue="in_flight"}"#) <= limit);
        assert!(value("raft_host_snapshot_newest_timestamp_seconds") > 1.6e9, "node {at}");
    }
    let committed = |text: &str| sample(text, "raft_host_commit_duration_seconds_count");
    assert!(committed(&of_leader) >= Some(1.0), "{of_leader}");
    assert_eq!(committed(&of_follower), Some(0.0), "it has never led");
}

#[test]
fn a_node_without_a_majority_lives_and_does_not_serve() {
    let mut cluster = Cluster::new(PROGRAM, 3, &["--metrics-listen", "127.0.0.1:0"]);
    let address = cluster.servers[0].address;
    assert_eq!(health(address, "liveness"), Ok(ServingStatus::Serving));
    cluster.eventually("a node that serves", || {
        (health(address, "readiness") == Ok(ServingStatus::Serving)).then_some(())
    });
    cluster.servers[1].kill();
    cluster.servers[2].kill();
    cluster.eventually("a node that does not serve", || {
        (health(address, "readiness") == Ok(ServingStatus::NotServing)).then_some(())
    });
    assert_eq!(health(address, ""), Ok(ServingStatus::NotServing));
    assert_eq!(health(address, "liveness"), Ok(ServingStatus::Serving));
    assert_eq!(health(address, "nobody"), Err(Code::NotFound));
    let metrics = metrics_of(&cluster.servers[0]);
    assert_eq!(get(&metrics, "/livez"), (200, "ok".to_owned()));
    assert_eq!(get(&metrics, "/readyz").0, 503);
}

#[test]
fn a_node_that_nobody_has_taken_in_yet_lives() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut joining = std::process::Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--listen", &address.to_string()])
        .args(["--join", &format!("127.0.0.1:{}", free_port())])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let lives = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        health(address, "liveness") == Ok(ServingStatus::Serving)
    });
    let serves = health(address, "readiness");
    joining.kill().expect("it can be killed");
    joining.wait().expect("it can be waited for");
    assert!(lives);
    assert_eq!(serves, Err(Code::Unavailable));
}

#[test]
fn a_verbose_apply_says_what_the_command_cost() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    let command = r#"{"op":"set","key":"a","value":"1"}"#;
    let output = cli.run(&["apply", "-v", command]);
    assert_eq!(output.code, Some(0), "{output:?}");
    for word in ["index ", "fuel ", "pages dirtied ", "term ", "applied in "] {
        assert!(output.stderr.contains(word), "{word} is missing in {}", output.stderr);
    }
    for session in [&[][..], &["--session"]] {
        let said = cli.run(&[&["apply", "-v", "-o", "json", command], session].concat()).ok();
        let answer: Value = serde_json::from_str(&said).expect("JSON");
        assert!(answer["fuel_used"].as_u64() > Some(0), "{answer}");
        assert!(answer["term"].as_u64() > Some(0), "{answer}");
        assert!(answer["apply_duration_ns"].as_u64() > Some(0), "{answer}");
        assert!(answer.get("pages_dirtied").is_some(), "{answer}");
    }
    let output = cli.run(&["query", "-v", r#"{"op":"count"}"#]);
    assert!(output.stderr.contains("fuel "), "{output:?}");
}
