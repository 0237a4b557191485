//! The audit log of real processes: what is in it, where it goes on, and what fails without it.

use std::path::{Path, PathBuf};

use raft_host_tests::{Cluster, kv};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// A configuration with this text.
fn config(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("config.toml");
    std::fs::write(&file, text).expect("written");
    file
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["event"].as_str()).collect()
}

#[test]
fn each_node_notes_what_it_was_asked_for_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = config(dir.path(), "[audit]\nsink = \"file\"\n");
    let config = ["--config", file.to_str().expect("UTF-8")];
    let mut cluster = Cluster::of(PROGRAM, &kv(), 2, &config);
    let leader = cluster.leader();
    let audit = |cluster: &Cluster, at: usize| cluster.servers[at].data_dir.join("audit.jsonl");
    let of_leader = audit(&cluster, leader);
    let of_other = audit(&cluster, 1 - leader);
    let begun = lines(&of_leader);
    assert!(kinds(&begun).contains(&"members.join"), "{begun:?}");
    // The other one passes it on.
    cluster.cli_of(1 - leader).run(&["limits", "set", "apply_fuel=200_000_000"]).ok();
    cluster.cli_of(leader).run(&["members", "remove", "77"]).failed();
    cluster.eventually("its lines", || {
        kinds(&lines(&of_leader)).contains(&"members.remove").then_some(())
    });
    let asked = lines(&of_other);
    let set = asked.iter().find(|line| line["event"] == "limits.set").expect("it was asked");
    assert_eq!((&set["effect"], set.get("forwarded")), (&"done".into(), None), "{set}");
    let done = lines(&of_leader);
    let passed = done.iter().find(|line| line["event"] == "limits.set").expect("it did it");
    assert_eq!((&passed["forwarded"], &passed["index"]), (&true.into(), &set["index"]));
    assert!(set["index"].as_u64() > Some(0), "{set}");
    let refused = done.iter().find(|line| line["event"] == "members.remove").expect("noted");
    assert_eq!(
        (&refused["effect"], &refused["reason"]),
        (&"none".into(), &"no_such_member".into())
    );
    let mode = std::fs::metadata(&of_leader).expect("there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    // What waits is written before the end, and another start adds to it.
    cluster.cli_of(leader).run(&["snapshot", "take"]).ok();
    let ended = cluster.servers[leader].terminate();
    assert_eq!(ended, Some(0));
    let before = lines(&of_leader);
    assert_eq!(kinds(&before).last(), Some(&"snapshot.take"));
    cluster.servers[leader].start(&config);
    cluster.eventually("a line of after", || {
        cluster.cli_of(leader).run(&["snapshot", "take"]).code.filter(|code| *code == 0)?;
        (lines(&of_leader).len() > before.len()).then_some(())
    });
    assert_eq!(lines(&of_leader)[..before.len()], before);
}

#[test]
fn what_must_be_noted_and_cannot_be_keeps_a_node_from_starting() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = "[audit]\nsink = \"syslog\"\nsocket = \"/nowhere/log\"\n";
    let file = config(dir.path(), text);
    let mut server = raft_host_tests::Server::new(PROGRAM, dir.path(), "node-1");
    let plugin = kv();
    let arguments = ["--config", file.to_str().expect("UTF-8"), "--plugin"];
    let said = server.refuses(&[&arguments[..], &[plugin.to_str().expect("UTF-8")]].concat());
    assert!(said.contains("/nowhere/log") && said.contains("audit.socket"), "{said}");
}
