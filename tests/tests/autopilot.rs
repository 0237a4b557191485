//! Clusters that look after themselves, and nodes that an operator takes off duty.

use std::path::Path;

use raft_host_proto::v1::{self, Consistency};
use raft_host_tests::{Cluster, block_on};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

const QUICK: [&str; 4] = ["--heartbeat-ms", "30", "--election-ms", "300"];

fn works(cluster: &Cluster) {
    let client = cluster.client();
    let set = r#"{"op":"set","key":"a","value":"1"}"#;
    block_on(client.apply(set)).expect("a cluster that is well");
    let query = client.query(r#"{"op":"count"}"#, Consistency::Linearizable);
    block_on(query).expect("a cluster that is well");
}

fn arguments<'a>(file: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let path = file.to_str().expect("UTF-8");
    [&["--config", path], &QUICK[..], more].concat()
}

fn voters(cluster: &Cluster) -> Vec<u64> {
    let members = block_on(cluster.client().members()).map(|it| it.members).unwrap_or_default();
    members.iter().filter(|member| member.is_voter()).map(|member| member.node_id).collect()
}

#[test]
fn a_dead_voter_is_removed_only_when_its_replacement_has_joined() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("config.toml");
    let text = "[autopilot]\nremove_dead_after_ms = 3000\nvoters = 3\nstable_ms = 300\n";
    std::fs::write(&file, text).expect("written");
    let arguments = arguments(&file, &[]);
    let mut cluster = Cluster::new(PROGRAM, 3, &arguments);
    let leader = cluster.leader();
    let dead = (leader + 1) % 3;
    let id = cluster.node_id(dead);
    cluster.servers[dead].kill();
    let waits = cluster.eventually("what the autopilot waits for", || {
        cluster.status(cluster.leader()).map(|it| it.autopilot).filter(|it| !it.is_empty())
    });
    assert!(waits.starts_with(&format!("node {id} has been silent for")), "{waits}");
    assert!(waits.contains("removed when 3 voters are well without it"), "{waits}");
    let shown = cluster.cli().run(&["status"]).ok();
    assert!(shown.contains("autopilot: node"), "{shown}");
    assert!(voters(&cluster).contains(&id), "two that are well are not three");
    works(&cluster);

    cluster.join(&arguments);
    cluster.eventually("the removal", || (!voters(&cluster).contains(&id)).then_some(()));
    assert_eq!(voters(&cluster).len(), 3);
    works(&cluster);
    let logs: String = cluster.servers.iter().map(|server| server.log()).collect();
    let words = "and 3 voters are well without it (autopilot.voters is 3)";
    assert!(logs.contains(words), "{logs}");
    let promoted = "promoted a learner that asked for it";
    assert!(logs.contains(promoted), "{logs}");
}

#[test]
fn learners_wait_for_an_operator_where_the_autopilot_promotes_nobody() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[autopilot]\npromote_learners = false\n").expect("written");
    let arguments = arguments(&file, &[]);
    let mut cluster = Cluster::new(PROGRAM, 1, &arguments);
    let joined = cluster.join(&[&arguments[..], &["--log-filter", "raft_host=debug"]].concat());
    cluster.eventually("the refusal", || {
        let log = cluster.servers[joined].log();
        log.contains("promoted by operators only (autopilot.promote_learners)").then_some(())
    });
    assert_eq!(voters(&cluster).len(), 1);
    let id = cluster.node_id(joined).to_string();
    cluster.eventually("the promotion", || {
        (cluster.cli().run(&["members", "promote", &id]).code == Some(0)).then_some(())
    });
    cluster.wait_for_voters(2);
    works(&cluster);
}

#[test]
fn a_drained_node_leaves_leading_to_others_until_it_is_back_on_duty() {
    let mut cluster = Cluster::new(PROGRAM, 3, &QUICK);
    let leader = cluster.leader();
    let (cli, id) = (cluster.cli_of(leader), cluster.node_id(leader));
    let all = cluster.cli().run(&["drain"]);
    assert_eq!(all.code, Some(2), "which one? {all:?}");

    let said = cli.run(&["drain"]).ok();
    assert!(said.starts_with(&format!("node {id} is drained; node ")), "{said}");
    let second = cluster.leader();
    assert_ne!(second, leader);
    let status = cluster.status(leader).expect("it answers");
    assert!(status.drained);
    let group = status.group("").expect("the main group").clone();
    assert!(group.not_serving.contains("drained by an operator"), "{group:?}");
    let said = cli.run(&["status"]).ok();
    assert!(said.contains("does not serve: this node was drained by an operator"), "{said}");
    let again: Value = serde_json::from_str(&cli.run(&["drain", "-o", "json"]).ok()).expect("JSON");
    assert_eq!((&again["unchanged"], &again["drained"]), (&true.into(), &true.into()));
    // It forwards, and leadership passes it over.
    let set = r#"{"op":"set","key":"b","value":"2"}"#;
    cli.run(&["apply", set]).ok();
    let given = cluster.cli().run(&["members", "transfer", &id.to_string()]);
    assert_ne!(given.code, Some(0), "{given:?}");
    cluster.cli().run(&["members", "transfer"]).ok();
    let third = cluster.leader();
    assert!(third != leader, "it is drained");

    // The last one on duty stays.
    let other = (0..3).find(|at| ![leader, third].contains(at)).expect("three");
    cluster.cli_of(other).run(&["drain"]).ok();
    let last = cluster.leader();
    let refused = cluster.cli_of(last).run(&["drain"]).failed();
    assert!(refused.contains("no other voter is there to lead"), "{refused}");
    assert!(!cluster.status(last).expect("it answers").drained);
    works(&cluster);

    // Somebody leads all the same when it is gone, and hands over when somebody is on duty.
    cluster.servers[last].kill();
    let makeshift = cluster.leader();
    assert!(cluster.status(makeshift).expect("it answers").drained);
    works(&cluster);
    let on_duty = if makeshift == leader { other } else { leader };
    let said = cluster.cli_of(on_duty).run(&["undrain"]).ok();
    assert!(said.contains("is back on duty"), "{said}");
    cluster.eventually("who is on duty leads", || (cluster.leader() == on_duty).then_some(()));
    works(&cluster);

    // A restart forgets it.
    cluster.servers[makeshift].kill();
    cluster.servers[makeshift].start(&QUICK);
    assert!(!cluster.status(makeshift).expect("it answers").drained);
}

#[test]
fn the_only_voter_cannot_be_drained() {
    let cluster = Cluster::new(PROGRAM, 1, &QUICK);
    let refused = cluster.cli().run(&["drain", "-o", "json"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("this node is the only voter"), "{refused:?}");
    let group = cluster.group(0).expect("it answers");
    assert_eq!((group.role(), &*group.not_serving), (v1::Role::Leader, ""));
}

/// It counted as heard from for another election timeout, and the cluster never served again.
#[test]
fn beside_a_voter_that_died_a_moment_ago_no_other_one_is_removed() {
    let mut cluster = Cluster::new(PROGRAM, 3, &["--election-ms", "3000"]);
    let leader = cluster.leader();
    let (dead, live) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = cluster.node_id(live).to_string();
    let cli = cluster.cli_of(leader);
    cluster.servers[dead].kill();
    let refused = cli.run(&["members", "remove", &id]).failed();
    assert!(refused.contains("1 of 2 voters heard from recently, 2 needed"), "{refused}");
    let refused = cli.run(&["members", "demote", &id]).failed();
    assert!(refused.contains("1 of 2 voters heard from recently, 2 needed"), "{refused}");
    works(&cluster);
}
