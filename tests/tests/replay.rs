//! `raft-host replay`, on what real nodes left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use raft_host::storage::{DataDir, GroupWrite, StorageConfig, WriteBatch};
use raft_host::types::{GroupId, Index};
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;
use raft_host_tests::{Cli, Cluster, block_on};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Two nodes that applied a few commands, of which some were refused, took snapshots on the way
/// and stopped.
fn stopped_nodes() -> (Cluster, [PathBuf; 2]) {
    let mut cluster =
        Cluster::new(PROGRAM, 2, &["--snapshot-threshold", "20", "--snapshot-pause-ms", "0"]);
    let client = cluster.client();
    // One after the other, so that each has an entry of its own.
    for n in 0..90 {
        let command = match n % 10 {
            7 => "not JSON".to_owned(),
            _ => format!(r#"{{"op":"set","key":"k{}","value":"{n}"}}"#, n % 13),
        };
        block_on(client.apply(command)).expect("applied");
    }
    cluster.wait_for_agreement();
    let dirs = [0, 1].map(|at| {
        cluster.servers[at].terminate();
        cluster.servers[at].data_dir.clone()
    });
    (cluster, dirs)
}

fn replay(arguments: &[&str]) -> raft_host_tests::Output {
    Cli::new(PROGRAM, &[]).run(&[&["replay"], arguments].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    found
}

/// Changes the committed command at an index as no node ever would; returns that index.
fn falsify_a_command(dir: &Path) -> u64 {
    let dir = DataDir::lock(dir).expect("stopped");
    let stores = dir.open_stores(&StorageConfig::default()).expect("sound");
    let (group, log) = (GroupId::MAIN, &stores.log);
    let (first, commit) = (log.first_index(group).unwrap(), log.hard_state(group).unwrap().commit);
    let mut entries =
        log.entries(group, first..log.last_index(group).unwrap().next(), u64::MAX).unwrap();
    let is_late = |index: Index| index.0 + 20 > commit.0 && index <= commit;
    let at = entries
        .iter()
        .position(|entry| {
            // Membership changes are encoded otherwise.
            let body = stored::Entry::decode(&entry.data[..]).ok().and_then(|entry| entry.body);
            let is_batch = matches!(body, Some(Body::Batch(batch)) if !batch.commands.is_empty());
            is_late(entry.index) && is_batch
        })
        .expect("there are commands");
    let mut entry = stored::Entry::decode(&entries[at].data[..]).expect("an entry");
    let Some(Body::Batch(batch)) = &mut entry.body else { unreachable!("just seen") };
    batch.commands[0].data = r#"{"op":"set","key":"k0","value":"false"}"#.into();
    entries[at].data = entry.encode_to_vec().into();
    let index = entries[at].index;
    let entries = entries.split_off(at);
    let write = GroupWrite { entries, ..GroupWrite::default() };
    log.write(&WriteBatch { groups: vec![(group, write)] }).expect("written");
    index.0
}

#[test]
fn a_stopped_node_agrees_with_its_log_and_with_the_other_node_and_nothing_is_changed() {
    let (_cluster, [one, two]) = stopped_nodes();
    let before = content(&one);
    let said = replay(&[text(&one)]).ok();
    assert!(said.contains("nothing differs"), "{said}");
    let said = replay(&[text(&one), "--against", text(&two), "-o", "json"]).ok();
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["agrees"], true);
    assert_eq!(report["comparison"]["kind"], "none");
    assert!(report["comparison"]["agreed_index"].as_u64() > Some(90), "{report}");
    assert_eq!(content(&one), before, "replay only reads");
    let verbose = replay(&[text(&one), "-v", "-o", "json"]).ok();
    let report: Value = serde_json::from_str(&verbose).expect("JSON");
    let entries = report["entries"].as_array().expect("entries");
    let replies: Vec<&str> = entries.iter().filter_map(|entry| entry["reply"].as_str()).collect();
    assert!(replies.contains(&"rejected") && replies.contains(&"ok, 11 bytes"), "{replies:?}");
    let commands = || entries.iter().filter(|entry| entry["kind"] == "command");
    assert!(commands().all(|entry| entry["fuel_used"].as_u64() > Some(0)));
    assert!(commands().all(|entry| entry["digest"].as_str().is_some_and(|it| it.len() == 64)));
}

#[test]
fn a_falsified_command_is_named_by_its_index() {
    let (_cluster, [one, two]) = stopped_nodes();
    let falsified = falsify_a_command(&two);
    let output = replay(&[text(&one), "--against", text(&two), "-o", "json"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(report["comparison"]["kind"], "entry", "{report}");
    assert_eq!(report["comparison"]["first_difference"], falsified);
    assert_eq!(report["comparison"]["agreed_index"], falsified - 1);
    let before = (falsified - 1).to_string();
    let said = replay(&[text(&one), "--against", text(&two), "--to", &before]).ok();
    assert!(said.contains(&format!("up to index {before}")), "{said}");
}

#[test]
fn a_running_node_and_a_strange_directory_are_refused() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let running = text(&cluster.servers[0].data_dir);
    let said = replay(&[running]).failed();
    assert!(said.contains("is in use by another process (pid "), "{said}");
    let said = replay(&[text(cluster.dir())]).failed();
    assert!(said.contains("is not the data directory of a node"), "{said}");
    let nowhere = cluster.dir().join("nowhere");
    let said = replay(&[text(&nowhere)]).failed();
    assert!(said.contains("is not the data directory of a node"), "{said}");
    assert!(!nowhere.exists());
}
