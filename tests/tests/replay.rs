//! `raft-host replay`, on what real nodes left behind; and what nodes that run say of the past.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;
use raft_host::storage::{DataDir, GroupWrite, StorageConfig, WriteBatch};
use raft_host::types::{GroupId, Index};
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;
use raft_host_proto::v1::Consistency;
use raft_host_tests::{Cli, Cluster, block_on, ledger};
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

/// Tells the balance of account 4 whatever account is asked about.
const SHIFTED: (&str, &str) = ("query", "(i32.store8 (i32.const 1) (i32.const 4))");

fn deposit(account: u8, amount: u16) -> Vec<u8> {
    let [low, high] = amount.to_le_bytes();
    vec![b'd', account, low, high]
}

/// The balance of account 2, as the module that is active says it.
const BALANCE: &[u8] = b"b\x02";

#[test]
fn running_nodes_answer_for_what_was_while_they_take_commands_and_after_an_upgrade() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [module, next] = ["ledger.wasm", "next.wasm"].map(|name| dir.path().join(name));
    fs::write(&module, ledger(&[])).expect("written");
    fs::write(&next, ledger(&[SHIFTED])).expect("written");
    let arguments =
        ["--snapshot-threshold", "50", "--snapshot-pause-ms", "0", "--snapshot-keep", "1000"];
    let cluster = Cluster::of(PROGRAM, &module, 3, &arguments);
    cluster.wait_for_voters(3);
    let (client, others) = (cluster.client(), cluster.client());
    let is_over = AtomicBool::new(false);
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                block_on(others.apply(deposit(3, 1))).expect("applied");
            }
        });
        let mut note = |amount| {
            block_on(client.apply(deposit(4, 1_000 + amount))).expect("applied");
            let applied = block_on(client.apply(deposit(2, amount))).expect("applied");
            let answer = block_on(client.query(BALANCE, Consistency::Linearizable));
            let answer = answer.expect("answered");
            seen.push((applied.position.expect("it has one"), answer.outcome));
        };
        (1..40).for_each(&mut note);
        let upgraded = cluster.cli().run(&["upgrade", text(&next), "--no-rehearsal"]);
        assert_eq!(upgraded.code, Some(0), "{upgraded:?}");
        (40..60).for_each(&mut note);
        // Under load as well as without it; from any node.
        for at in [0, 1, 2] {
            let client = cluster.client_of(at);
            for (place, outcome) in seen.iter().skip(at).step_by(7) {
                let place = *place;
                let asked = async {
                    let whole = client.query_at(BALANCE, place.index, None).await?;
                    let part = client.query_at(BALANCE, place.index, Some(place.ordinal)).await?;
                    Ok::<_, raft_host_proto::ClientError>([whole, part])
                };
                for past in block_on(asked).expect("answered") {
                    assert!(past.base_index <= place.index, "{past:?}");
                    let answer = past.answer.expect("there is one");
                    assert_eq!((answer.applied_index, &answer.outcome), (place.index, outcome));
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // The two modules do answer otherwise.
    let kinds = [&seen[38], &seen[39]].map(|(_, outcome)| format!("{outcome:?}"));
    assert_ne!(kinds[0], kinds[1]);

    let cli = cluster.cli_of(1);
    let place = seen[5].0.index.to_string();
    let said = cli.run(&["query", "b\u{2}", "--at", &place, "-o", "json"]).ok();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["index"], &said["ordinal"]), (&seen[5].0.index.into(), &Value::Null));
    let early = cli.run(&["query", "b\u{2}", "--at", "100000000"]);
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.failed().contains("is not applied yet"));
    let old = cli.run(&["query", "b\u{2}", "--at", "0"]);
    assert_eq!(old.code, Some(1), "{old:?}");
    assert!(old.failed().contains("the oldest state that it can be asked about"));
}
