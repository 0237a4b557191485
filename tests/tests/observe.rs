//! What an operator sees of a real server from outside.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use raft_host_tests::{Cluster, free_port};
use serde_json::Value;

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
