//! Files of commands whose order shows, applied while leaders come and go.

use raft_host_proto::client::PipelineOptions;
use raft_host_proto::v1;
use raft_host_tests::{Cluster, block_on};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Makes `value` of the value before it, and of no other.
fn link(key: &str, value: u64) -> String {
    let expected = match value {
        1 => "null".to_owned(),
        value => format!("\"{}\"", value - 1),
    };
    format!(r#"{{"op":"cas","key":"{key}","expected":{expected},"value":"{value}"}}"#)
}

/// How many links of the chain were made: none is, once one is missing or comes too early.
fn length(cluster: &Cluster, key: &str) -> Option<u64> {
    let query = format!(r#"{{"op":"get","key":"{key}"}}"#);
    let client = cluster.client();
    let asked = block_on(client.query(query, v1::Consistency::Linearizable)).ok()?;
    let Some(v1::outcome::Kind::Ok(answer)) = asked.outcome?.kind else { return None };
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    answer["value"].as_str()?.parse().ok()
}

#[test]
fn a_file_is_applied_in_its_order_though_leaders_are_replaced_and_killed() {
    const LINKS: u64 = 12_000;
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    cluster.cli().run(&["limits", "set", "input_max_bytes=1000"]).ok();
    let path = cluster.dir().join("chain");
    let mut lines: Vec<String> = (1..=LINKS).map(|value| link("chain", value)).collect();
    // Refused each, which holds nothing up.
    for at in [9_000, 5_000, 0] {
        lines.insert(at, "x".repeat(1_001));
    }
    std::fs::write(&path, lines.join("\n")).expect("written");
    let cli = cluster.cli();
    let path = path.to_str().expect("UTF-8").to_owned();
    let applying = std::thread::spawn(move || cli.run(&["apply", "--lines", &path, "-o", "json"]));
    let changes: [fn(&mut Cluster, usize); 4] = [
        |cluster, _| drop(cluster.cli().run(&["members", "transfer"])),
        |cluster, leader| cluster.servers[leader].kill(),
        |cluster, _| drop(cluster.cli().run(&["members", "transfer"])),
        |cluster, leader| cluster.servers[leader].kill(),
    ];
    for (change, done) in changes.into_iter().zip([1_000, 3_000, 6_000, 8_000]) {
        cluster.eventually("some progress", || {
            length(&cluster, "chain").filter(|length| *length >= done)
        });
        let leader = cluster.leader();
        change(&mut cluster, leader);
        if !cluster.servers[leader].is_running() {
            cluster.servers[leader].start(&[]);
        }
    }
    let ended = applying.join().expect("it ends");
    assert_eq!(length(&cluster, "chain"), Some(LINKS), "{ended:?}");
    assert_eq!(ended.code, Some(3), "lines were refused: {ended:?}");
    let said: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&said["applied"], &said["refused"]), (&LINKS.into(), &3.into()), "{said}");
}

#[test]
fn the_answers_of_an_ordered_session_are_those_of_its_order() {
    const LINKS: u64 = 6_000;
    let cluster = Cluster::new(PROGRAM, 3, &[]);
    let client = cluster.client();
    let session = block_on(client.open_ordered_session(None)).expect("a session");
    let (sender, mut results) = block_on(async { session.pipeline(PipelineOptions::default()) });
    let submitting = std::thread::spawn(move || {
        for value in 1..=LINKS {
            block_on(sender.send(link("answers", value))).expect("the results are taken");
        }
    });
    let (mut last, mut answered) = ((0, 0), 0);
    while let Some(result) = block_on(results.next()) {
        let response = result.result.unwrap_or_else(|error| panic!("{}: {error}", result.tag));
        let outcome = response.outcome.expect("an outcome");
        assert_eq!(
            outcome.kind,
            Some(v1::outcome::Kind::Ok(r#"{"ok":true}"#.into())),
            "{}",
            result.tag
        );
        if !outcome.duplicate {
            let position = response.position.expect("a position");
            assert!(last < (position.index, position.ordinal), "{last:?} {position:?}");
            last = (position.index, position.ordinal);
        }
        answered += 1;
        if answered % (LINKS / 4) == 0 {
            // Whom it moves to does not matter, nor whether it was moving by itself.
            cluster.cli().run(&["members", "transfer"]);
        }
    }
    submitting.join().expect("all were submitted");
    assert_eq!((answered, length(&cluster, "answers")), (LINKS, Some(LINKS)));
}
