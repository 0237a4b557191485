//! A cluster moves to a program with another engine profile.

use raft_host_tests::{Cluster, Started, block_on, hex};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const NEXT: &str = env!("CARGO_BIN_EXE_raft-host-next-engine");

fn set(key: &str, value: &str) -> String {
    format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#)
}

fn get(key: &str) -> String {
    format!(r#"{{"op":"get","key":"{key}"}}"#)
}

fn offered(program: &str) -> String {
    let output = std::process::Command::new(program).args(["engine", "offered"]).output();
    let output = output.expect("the program runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

fn engine_of(cluster: &Cluster, at: usize) -> (String, String) {
    let answer = block_on(cluster.client_of(at).limits()).expect("an answer");
    (answer.engine, hex(&answer.profile_hash))
}

/// The index in "since entry 42 the cluster's engine profile is …".
fn stopped_at(log: &str) -> u64 {
    let (_, rest) = log.rsplit_once("since entry ").unwrap_or_else(|| panic!("no reason: {log}"));
    let digits = rest.split(' ').next().expect("a word");
    digits.parse().unwrap_or_else(|_| panic!("no index: {rest}"))
}

#[test]
fn a_cluster_stops_at_one_index_and_goes_on_with_the_next_program() {
    let (old, new) = (offered(PROGRAM), offered(NEXT));
    assert_ne!(old, new);
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    for n in 0..20 {
        cluster.cli().run(&["apply", &set(&format!("key-{n}"), "before")]).ok();
    }
    cluster.wait_for_agreement();
    let (engine, hash_before) = engine_of(&cluster, 0);
    assert_eq!(engine, old);
    let shown = cluster.cli().run(&["engine"]).ok();
    assert!(shown.contains(&old) && shown.contains(&hash_before), "{shown}");
    let status: serde_json::Value =
        serde_json::from_str(&cluster.cli().run(&["status", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(status["nodes"][0]["groups"][0]["profile_hash"], hash_before.as_str());

    // Who does not say that it is meant is told what would happen, by the command and the service.
    let output = cluster.cli().run(&["engine", "set", &new]);
    assert_eq!(output.code, Some(1), "{output:?}");
    for part in [old.as_str(), &new, "saves a snapshot and stops", "--yes"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    let refused = block_on(cluster.client().set_engine(&new, false)).expect_err("not confirmed");
    assert!(refused.to_string().contains("confirm that this is meant"), "{refused}");
    let refused = block_on(cluster.client().set_engine("v1/mine", true)).expect_err("nonsense");
    assert!(refused.to_string().contains("no engine profile"), "{refused}");
    assert_eq!(engine_of(&cluster, 1), (old.clone(), hash_before.clone()));
    // The one that it has changes nothing and needs no courage.
    let same = cluster.cli().run(&["engine", "set", &old]).ok();
    assert!(same.contains("already"), "{same}");

    let follower = (cluster.leader() + 1) % 3;
    let said = cluster.cli_of(follower).run(&["engine", "set", &new, "--yes", "-o", "json"]).ok();
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((said["engine"].as_str(), said["previous"].as_str()), (Some(&*new), Some(&*old)));
    let index = said["index"].as_u64().expect("a number");
    for server in &mut cluster.servers {
        assert_eq!(server.wait(), Some(1));
        let log = server.log();
        assert_eq!(stopped_at(&log), index, "{log}");
        assert!(log.contains(&format!("is {new}, and this program offers {old}")), "{log}");
    }

    // The old program does not start on that state, however often a supervisor tries.
    for _ in 0..2 {
        let log = cluster.servers[0].refuses(&[]);
        assert!(log.contains("start a version of raft-host that offers the former"), "{log}");
    }
    for server in &mut cluster.servers {
        server.replace_program(NEXT);
        server.start(&[]);
    }
    cluster.leader();
    cluster.wait_for_agreement();
    for n in 0..20 {
        assert!(cluster.query(n % 3, &get(&format!("key-{n}"))).contains("before"));
    }
    cluster.cli().run(&["apply", &set("key-0", "after")]).ok();
    cluster.wait_for_agreement();
    let now = engine_of(&cluster, 0);
    assert_eq!(now.0, new);
    assert_ne!(now.1, hash_before);
    for at in 0..3 {
        assert_eq!(engine_of(&cluster, at), now, "node {at}");
        assert!(cluster.local(at, &get("key-0")).contains("after"), "node {at}");
    }
    // And back again is the same way.
    cluster.cli().run(&["engine", "set", &old, "--yes"]).ok();
    for server in &mut cluster.servers {
        server.wait();
        server.replace_program(PROGRAM);
        server.start(&[]);
    }
    cluster.wait_for_agreement();
    assert_eq!(engine_of(&cluster, 2), (old, hash_before));
    assert!(cluster.query(1, &get("key-0")).contains("after"));
}

#[test]
fn the_next_program_does_not_start_before_the_change_and_says_what_to_do() {
    let mut cluster = Cluster::new(PROGRAM, 1, &[]);
    cluster.cli().run(&["apply", &set("key", "value")]).ok();
    cluster.cli().run(&["snapshot", "take"]).ok();
    cluster.cli().run(&["apply", &set("other", "value")]).ok();
    cluster.servers[0].terminate();
    // Whether it comes to the same can be tried before.
    let data_dir = cluster.servers[0].data_dir.to_str().expect("UTF-8").to_owned();
    let replay = |arguments: &[&str]| {
        let mut command = std::process::Command::new(NEXT);
        command.args(["replay", &data_dir]).args(arguments).output().expect("the program runs")
    };
    let output = replay(&[]);
    assert!(!output.status.success(), "{output:?}");
    let output = replay(&["--offered-engine"]);
    assert!(output.status.success(), "{output:?}");
    cluster.servers[0].replace_program(NEXT);
    let log = cluster.servers[0].refuses(&[]);
    let way = format!("raft-host engine set {}", offered(NEXT));
    assert!(log.contains(&way), "{log}");
    // Nothing is lost by having tried.
    cluster.servers[0].replace_program(PROGRAM);
    assert!(matches!(cluster.servers[0].try_start(&[]), Started::Serving));
    assert!(cluster.query(0, &get("key")).contains("value"));
}

/// A member that was down when the profile changed comes up with the old program, is told of the
/// change, by entries or by a snapshot, and stops where the others did.
#[test]
fn a_member_that_missed_the_change_follows_it() {
    let new = offered(NEXT);
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let (absent, present) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.servers[absent].kill();
    cluster.cli().run(&["apply", &set("key", "before")]).ok();
    cluster.cli().run(&["engine", "set", &new, "--yes"]).ok();
    for at in [leader, present] {
        cluster.servers[at].wait();
        cluster.servers[at].replace_program(NEXT);
        cluster.servers[at].start(&[]);
    }
    cluster.cli_of(leader).run(&["apply", &set("key", "after")]).ok();
    // Its state is from before the change: the next program is too early.
    cluster.servers[absent].replace_program(NEXT);
    cluster.servers[absent].refuses(&[]);
    cluster.servers[absent].replace_program(PROGRAM);
    let code = match cluster.servers[absent].try_start(&[]) {
        Started::Serving => cluster.servers[absent].wait(),
        Started::Ended(code, _) => code,
    };
    assert_eq!(code, Some(1));
    let index = stopped_at(&cluster.servers[leader].log());
    assert_eq!(stopped_at(&cluster.servers[absent].log()), index);
    cluster.servers[absent].replace_program(NEXT);
    cluster.servers[absent].start(&[]);
    cluster.wait_for_agreement();
    assert!(cluster.local(absent, &get("key")).contains("after"));
}
