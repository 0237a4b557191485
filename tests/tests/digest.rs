//! A node whose memory fails is caught at the next digest point, says so, and heals by itself.

use raft_host_proto::v1;
use raft_host_tests::{Cluster, Load};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// No comparisons but those that are asked for.
const QUIET: &[&str] = &["--digest-every-commands", "0", "--digest-every-ms", "0"];
const READ: &str = r#"{"op":"get","key":"key-1"}"#;

/// Flips a bit of a server's state machine.
fn flip(cluster: &Cluster, at: usize) {
    let file = cluster.servers[at].data_dir.join("flip-bit");
    let aside = cluster.servers[at].data_dir.join("flip-bit.new");
    std::fs::write(&aside, "900001").expect("written");
    std::fs::rename(&aside, &file).expect("renamed");
    cluster.eventually("the flip", || (!file.exists()).then_some(()));
    let done = "flipped=true";
    cluster.eventually("the flip", || cluster.servers[at].log().contains(done).then_some(()));
}

fn digest(cluster: &Cluster, at: usize) -> v1::DigestStatus {
    cluster.eventually("a status", || cluster.group(at)).digest.expect("this version says")
}

fn three(arguments: &[&str]) -> Cluster {
    let cluster = Cluster::new(PROGRAM, 3, arguments);
    Load::start(cluster.client(), 100).finish(100);
    cluster
}

/// `raft-host digest` of all nodes, parsed.
fn compare(cluster: &Cluster) -> (Option<i32>, serde_json::Value) {
    let output = cluster.cli().run(&["digest", "-o", "json"]);
    let value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.code, value)
}

fn wait_until_healed(cluster: &Cluster, at: usize) {
    cluster.eventually("healing", || {
        let digest = digest(cluster, at);
        (digest.quarantine.is_none() && digest.healed == 1).then_some(())
    });
    cluster.wait_for_agreement();
    let (code, answer) = compare(cluster);
    assert_eq!((code, &answer["all_agree"]), (Some(0), &true.into()), "{answer}");
    assert!(cluster.local(at, READ).contains("value-1"));
}

#[test]
fn nodes_that_agree_say_so_with_exit_code_0() {
    let cluster = three(QUIET);
    let (code, answer) = compare(&cluster);
    assert_eq!(code, Some(0), "{answer}");
    let nodes = answer["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node["digest"] == answer["digest"]), "{answer}");
    let text = cluster.cli().run(&["digest"]).ok();
    assert!(text.contains("all nodes agree at index"), "{text}");
    let text = cluster.cli().run(&["status"]).ok();
    assert!(text.contains("3 of 3 agree at index"), "{text}");
}

#[test]
fn a_follower_whose_memory_fails_is_caught_answers_nothing_and_heals() {
    let cluster = three(QUIET);
    let flipped = (cluster.leader() + 1) % 3;
    flip(&cluster, flipped);
    assert!(digest(&cluster, flipped).quarantine.is_none(), "nobody has looked yet");
    let (code, answer) = compare(&cluster);
    assert_eq!((code, &answer["all_agree"]), (Some(1), &false.into()), "{answer}");
    let id = cluster.node_id(flipped);
    for node in answer["nodes"].as_array().expect("a list") {
        assert_eq!(node["agrees"] == true, node["node_id"] != id, "{answer}");
    }
    wait_until_healed(&cluster, flipped);
    let log = cluster.servers[flipped].log();
    assert!(log.contains("QUARANTINED") && log.contains("healed"), "{log}");
    let kept = std::fs::read_dir(cluster.servers[flipped].data_dir.join("evidence"));
    assert_eq!(kept.expect("evidence").count(), 1);
    let said = cluster.cli().run(&["status"]).ok();
    assert!(said.contains("was quarantined and healed 1×"), "{said}");
}

#[test]
fn a_leader_whose_memory_fails_hands_over_and_heals_within_one_interval() {
    // Compared by themselves, while commands go on.
    let cluster = three(&["--digest-every-commands", "50", "--digest-every-ms", "500"]);
    let flipped = cluster.leader();
    flip(&cluster, flipped);
    Load::start(cluster.client(), 300).finish(300);
    wait_until_healed(&cluster, flipped);
    for at in (0..3).filter(|at| *at != flipped) {
        assert_eq!(digest(&cluster, at).quarantines, 0, "node {at} was right all the time");
    }
}

/// The verdict takes longer than a client waits for an ordinary answer: it must not ask again, which
/// would begin anew.
#[test]
fn one_request_makes_one_point_however_long_the_missing_member_is_waited_for() {
    let slow = ["--heartbeat-ms", "300", "--election-ms", "3000"];
    let mut cluster = three(&[&slow[..], QUIET].concat());
    let leader = cluster.leader();
    let down = (leader + 1) % 3;
    cluster.servers[down].kill();
    let points = digest(&cluster, leader).points;
    let (code, answer) = compare(&cluster);
    assert_eq!((code, &answer["all_agree"]), (Some(1), &false.into()), "{answer}");
    let nodes = answer["nodes"].as_array().expect("a list");
    assert_eq!(nodes.iter().filter(|node| node["agrees"] == true).count(), 2, "{answer}");
    assert_eq!(digest(&cluster, leader).points, points + 1);
}

/// What was found before a restart, and what is executed again after it, are compared as well.
#[test]
fn comparing_goes_on_after_a_node_was_killed() {
    let mut cluster = three(QUIET);
    let flipped = (cluster.leader() + 1) % 3;
    flip(&cluster, flipped);
    assert_eq!(compare(&cluster).0, Some(1));
    wait_until_healed(&cluster, flipped);
    for at in 0..3 {
        cluster.servers[at].kill();
        cluster.servers[at].start(QUIET);
    }
    cluster.wait_for_agreement();
    assert_eq!(compare(&cluster).0, Some(0));
    for at in 0..3 {
        assert!(digest(&cluster, at).quarantine.is_none(), "node {at}");
    }
}
