//! Rolling upgrades to a program that offers a higher level, back again, and no more once it is raised.

use raft_host_proto::v1::MemberLevel;
use raft_host_tests::chaos::RecordedClients;
use raft_host_tests::{Cluster, Started, block_on};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const NEXT: &str = env!("CARGO_BIN_EXE_raft-host-next-level");

fn level(cluster: &Cluster, at: usize) -> u32 {
    cluster.group(at).and_then(|group| group.level).map_or(0, |level| level.level)
}

/// What the leader knows that all members offer above the level in force.
fn agreed(cluster: &Cluster) -> Option<u32> {
    cluster.group(cluster.leader())?.level?.agreed
}

/// One server after the other becomes another program, under load.
fn roll(cluster: &mut Cluster, to: &str, clients: &RecordedClients) {
    for at in 0..cluster.servers.len() {
        become_program(cluster, at, to);
        let before = clients.operations().expect("a history");
        cluster.eventually("progress of the clients", || {
            (clients.operations().expect("a history") > before + 20).then_some(())
        });
    }
}

fn become_program(cluster: &mut Cluster, at: usize, program: &str) {
    assert_eq!(cluster.servers[at].terminate(), Some(0));
    cluster.servers[at].replace_program(program);
    cluster.servers[at].start(&[]);
    cluster.wait_for_agreement();
}

/// Why a server ended, or did not start: exit code 1 and these words.
fn refuses(cluster: &mut Cluster, at: usize, words: &str) {
    let server = &mut cluster.servers[at];
    let code = match server.try_start(&[]) {
        Started::Serving => server.wait(),
        Started::Ended(code, _) => code,
    };
    assert_eq!(code, Some(1));
    let log = server.log();
    assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
}

#[test]
fn a_cluster_rolls_forwards_and_back_until_the_level_is_raised() {
    let mut cluster =
        Cluster::new(PROGRAM, 3, &["--snapshot-threshold", "200", "--snapshot-pause-ms", "0"]);
    let history = cluster.dir().join("history.jsonl");
    let clients = block_on(async { RecordedClients::start(&cluster.addresses(), 4, &history) })
        .expect("clients");
    roll(&mut cluster, NEXT, &clients);
    cluster.eventually("offers of all", || (agreed(&cluster) == Some(2)).then_some(()));
    roll(&mut cluster, PROGRAM, &clients);
    assert_eq!((agreed(&cluster), level(&cluster, 0)), (None, 1), "the way back is open");

    // A member that does not offer it is in the way, and so is one that is not there.
    become_program(&mut cluster, 0, NEXT);
    become_program(&mut cluster, 1, NEXT);
    let id = cluster.node_id(2);
    let refused = |cluster: &Cluster, words: &str| {
        let refused = cluster.cli().run(&["level", "raise", "--to", "2", "--yes"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(&format!("node {id} {words}")), "{}", refused.stderr);
        assert_eq!(level(cluster, 0), 1);
    };
    refused(&cluster, "offers 1");
    // What a dead member offered counts for some seconds; whoever leads since has heard nothing of it.
    assert_eq!(cluster.servers[2].terminate(), Some(0));
    cluster.eventually("silence", || {
        let known = cluster.group(cluster.leader())?.level?.members;
        let is_silent = |of: &MemberLevel| of.node_id == id && of.offered.is_none();
        known.iter().any(is_silent).then_some(())
    });
    refused(&cluster, "has not said lately");
    cluster.servers[2].replace_program(NEXT);
    cluster.servers[2].start(&[]);
    cluster.wait_for_agreement();

    let shown = cluster.eventually("offers of all", || {
        let shown = cluster.cli().run(&["level"]).ok();
        shown.contains("2, by itself in").then_some(shown)
    });
    assert_eq!(shown.matches("offered by node").count(), 3, "{shown}");
    // A leader that was elected just now does not know yet what all offer; nothing is raised then either.
    let unsure = cluster.eventually("what would happen", || {
        let unsure = cluster.cli().run(&["level", "raise"]);
        (unsure.code != Some(0)).then_some(unsure)
    });
    assert_eq!(unsure.code, Some(1), "{unsure:?}");
    assert!(unsure.stderr.contains("from 1 to 2") && unsure.stderr.contains("--yes"), "{unsure:?}");
    assert_eq!(level(&cluster, 1), 1);
    let raised = cluster.cli().run(&["level", "raise", "--yes", "-o", "json"]).ok();
    let raised: serde_json::Value = serde_json::from_str(&raised).expect("JSON");
    // It waits for what members offer, also when its leader was elected just now.
    assert_eq!((raised["previous"].as_u64(), raised["level"].as_u64()), (Some(1), Some(2)));
    cluster.wait_for_agreement();
    assert_eq!([0, 1, 2].map(|at| level(&cluster, at)), [2, 2, 2]);
    let again = cluster.cli().run(&["level", "raise", "--yes"]).ok();
    assert!(again.contains("stays 2"), "{again}");

    // Nobody gets back, and no older program gets in; the cluster goes on meanwhile.
    let follower = (cluster.leader() + 1) % 3;
    let before = clients.operations().expect("a history");
    assert_eq!(cluster.servers[follower].terminate(), Some(0));
    cluster.servers[follower].replace_program(PROGRAM);
    for _ in 0..2 {
        refuses(&mut cluster, follower, "level is 2, and this program offers 1");
    }
    let mut stranger = raft_host_tests::Server::new(PROGRAM, cluster.dir(), "too-old");
    let seed = cluster.servers[(follower + 1) % 3].address.to_string();
    let log = stranger.refuses(&["--join", &seed]);
    assert!(log.contains("cluster's level is 2, and the joining node's program offers 1"), "{log}");
    cluster.servers[follower].replace_program(NEXT);
    cluster.servers[follower].start(&[]);
    cluster.wait_for_agreement();
    // What entries hold from now on survives a crash as well.
    let leader = cluster.leader();
    cluster.servers[leader].kill();
    cluster.eventually("progress of the clients", || {
        (clients.operations().expect("a history") > before + 100).then_some(())
    });
    cluster.servers[leader].start(&[]);
    cluster.wait_for_agreement();

    let recorded = block_on(clients.finish()).unwrap_or_else(|wrong| panic!("{wrong:#}"));
    assert!(recorded.operations > 200, "{recorded:?}");
    let compared = cluster.cli().run(&["digest", "-o", "json"]).ok();
    let compared: serde_json::Value = serde_json::from_str(&compared).expect("JSON");
    assert_eq!(compared["all_agree"], true, "{compared}");
}

#[test]
fn after_the_settling_time_the_level_is_raised_by_itself() {
    let mut cluster = Cluster::new(PROGRAM, 1, &[]);
    let config = cluster.dir().join("settle.toml");
    std::fs::write(&config, "[node]\nlevel_settle_ms = 1000\n").expect("written");
    let with_config = ["--config", config.to_str().expect("UTF-8")];
    assert_eq!(cluster.servers[0].terminate(), Some(0));
    cluster.servers[0].start(&with_config);
    assert_eq!(level(&cluster, 0), 1);
    assert_eq!(cluster.servers[0].terminate(), Some(0));
    cluster.servers[0].replace_program(NEXT);
    cluster.servers[0].start(&with_config);
    cluster.eventually("level 2", || (level(&cluster, 0) == 2).then_some(()));
    cluster.cli().run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    assert_eq!(cluster.servers[0].terminate(), Some(0));
    cluster.servers[0].replace_program(PROGRAM);
    refuses(&mut cluster, 0, "A level is never lowered");
}
