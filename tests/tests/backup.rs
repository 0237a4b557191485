//! Backups of real clusters: what was acknowledged before is there again, and nothing of the old cluster is
//! taken for a part of the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use raft_host_proto::client::Client;
use raft_host_proto::v1::Consistency;
use raft_host_tests::{Cli, Cluster, Server, block_on, kv, kv_v2};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Callers that set a key after the other, and note at which index each was executed.
struct Writers {
    until: Arc<AtomicBool>,
    positions: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    fn start(client: &Client, count: usize) -> Writers {
        let (until, positions) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let threads = (0..count).map(|writer| {
            let (client, until) = (client.clone(), Arc::clone(&until));
            let positions: Arc<Mutex<BTreeMap<String, u64>>> = Arc::clone(&positions);
            std::thread::spawn(move || {
                for n in 0.. {
                    if until.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{writer}-{n}");
                    let command = format!(r#"{{"op":"set","key":"{key}","value":"of {key}"}}"#);
                    let response = block_on(client.apply(command)).expect("a cluster that is well");
                    let index = response.position.expect("it was executed").index;
                    positions.lock().expect("lock").insert(key, index);
                }
            })
        });
        let threads = threads.collect();
        Writers { until, positions, threads }
    }

    fn wait_for(&self, count: usize) {
        while self.positions.lock().expect("lock").len() < count {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// The index of each key's command.
    fn stop(self) -> BTreeMap<String, u64> {
        self.until.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a writer"));
        std::mem::take(&mut *self.positions.lock().expect("lock"))
    }
}

fn json(cli: &Cli, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    serde_json::from_str(&cli.run(&all).ok()).expect("JSON")
}

fn get(client: &Client, key: &str) -> Option<String> {
    let query = format!(r#"{{"op":"get","key":"{key}"}}"#);
    let response = block_on(client.query(query, Consistency::Linearizable)).expect("an answer");
    let Some(raft_host_proto::v1::outcome::Kind::Ok(bytes)) = response.outcome.unwrap().kind else {
        panic!("no answer to {key}")
    };
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    answer["value"].as_str().map(str::to_owned)
}

fn assert_holds(cluster: &Cluster, keys: &BTreeMap<String, u64>, upto: u64) {
    let client = cluster.client();
    for (key, index) in keys {
        let expected = (*index <= upto).then(|| format!("of {key}"));
        assert_eq!(get(&client, key), expected, "{key} of index {index}, backup at {upto}");
    }
}

/// Others join, and all of them find the same digest.
fn grow_to_three(cluster: &mut Cluster) {
    for _ in 1..3 {
        cluster.join(&[]);
    }
    cluster.wait_for_voters(3);
    cluster.wait_for_agreement();
    let compared = json(&cluster.cli(), &["digest"]);
    assert_eq!(compared["all_agree"], true, "{compared}");
}

fn path(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let text = path.to_str().expect("UTF-8").to_owned();
    (path, text)
}

#[test]
fn a_backup_taken_under_load_brings_back_what_was_acknowledged_until_then_and_nobody_of_before() {
    let kept = tempfile::tempdir().expect("a temporary directory");
    let (file, name) = path(kept.path(), "backup");
    let mut old = Cluster::new(PROGRAM, 3, &[]);
    let old_id = json(&old.cli(), &["status"])["nodes"][0]["cluster_id"].clone();
    let old_id = old_id.as_str().expect("an id");
    let writers = Writers::start(&old.client(), 8);
    writers.wait_for(300);
    // Any node will do.
    let follower = (old.leader() + 1) % 3;
    let saved = json(&old.cli_of(follower), &["backup", "save", &name]);
    let acknowledged = writers.positions.lock().expect("lock").len();
    writers.wait_for(acknowledged + 300);
    let keys = writers.stop();
    let upto = saved["index"].as_u64().expect("an index");
    assert!(keys.values().any(|index| *index <= upto) && keys.values().any(|index| *index > upto));

    let cli = Cli::new(PROGRAM, &[]);
    let shown = json(&cli, &["backup", "show", &name]);
    assert_eq!(shown["cluster_id"], old_id);
    assert_eq!(shown["members"].as_array().map(Vec::len), Some(3));
    assert_eq!((&shown["index"], &shown["digest"]), (&saved["index"], &saved["digest"]));
    let verified = json(&cli, &["backup", "verify", &name]);
    assert_eq!((&verified["verified"], &verified["digest"]), (&true.into(), &saved["digest"]));
    // A pipe gets the same format, and the words go elsewhere.
    let piped = cli_output(&old.cli_of(follower), &["backup", "save", "-"]);
    assert!(piped.starts_with("RHBACKUP"));

    // All is lost, but for one member's directory that turns up later.
    for server in &mut old.servers {
        server.kill();
    }
    let mut new = Cluster::restored(PROGRAM, &file);
    assert_holds(&new, &keys, upto);
    grow_to_three(&mut new);
    assert_holds(&new, &keys, upto);
    let status = json(&new.cli(), &["status"]);
    let origin = &status["nodes"][0]["groups"][0]["origins"][0];
    assert_eq!(
        (origin["cluster_id"].as_str(), origin["index"].as_u64()),
        (Some(old_id), Some(upto))
    );
    let text = new.cli().run(&["status"]).ok();
    assert!(text.contains(&format!("was made of cluster {old_id} as of index {upto}")));

    // Whoever means the old cluster hears what became of it.
    let set = r#"{"op":"set","key":"late","value":"1"}"#;
    let refused = new.cli().run(&["apply", set, "--cluster-id", old_id, "-o", "json"]);
    // The client library warns of the node before.
    let refused = refused.failed();
    let last = refused.lines().last().expect("words");
    let refused: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(refused["error"]["reason"], "cluster_restored", "{refused}");
    assert_eq!(refused["error"]["effect"], "none", "{refused}");
    let message = refused["error"]["message"].as_str().expect("words");
    assert!(message.contains(&format!("as of entry {upto}")), "{message}");
    old.servers[1].start(&[]);
    let join = new.servers[0].address.to_string();
    old.servers[1].kill();
    let words = old.servers[1].refuses(&["--join", &join]);
    assert!(words.contains("belongs to cluster"), "{words}");
    block_on(new.client().apply(set)).expect("the new cluster goes on");

    // And it can be saved and restored again.
    let (again, name) = path(kept.path(), "again");
    new.cli().run(&["backup", "save", &name]).ok();
    let third = Cluster::restored(PROGRAM, &again);
    assert_holds(&third, &keys, upto);
    assert_eq!(get(&third.client(), "late").as_deref(), Some("1"));
    let origins = json(&third.cli(), &["status"])["nodes"][0]["groups"][0]["origins"].clone();
    assert_eq!(origins.as_array().map(Vec::len), Some(2), "{origins}");
}

fn cli_output(cli: &Cli, arguments: &[&str]) -> String {
    let output = cli.run(arguments);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stderr.contains("saved the state at index"), "{}", output.stderr);
    output.stdout
}

#[test]
fn an_exported_state_begins_a_new_cluster_also_with_another_module() {
    let kept = tempfile::tempdir().expect("a temporary directory");
    let (_, name) = path(kept.path(), "export");
    let old = Cluster::new(PROGRAM, 1, &[]);
    let writers = Writers::start(&old.client(), 4);
    writers.wait_for(100);
    let exported = json(&old.cli(), &["export", &name]);
    let upto = exported["index"].as_u64().expect("an index");
    let keys = writers.stop();
    let plugin = kv_v2();
    let arguments = ["--import", &name];
    let mut new = Cluster::of(PROGRAM, &plugin, 1, &arguments);
    assert_holds(&new, &keys, upto);
    let modules = json(&new.cli(), &["modules"]);
    assert_eq!(modules["history"].as_array().map(Vec::len), Some(1), "{modules}");
    grow_to_three(&mut new);
    assert_holds(&new, &keys, upto);
    // A restart with the same command line goes on.
    new.servers[0].kill();
    let plugin = plugin.to_str().expect("UTF-8");
    new.servers[0].start(&["--plugin", plugin, "--import", &name]);
    assert_holds(&new, &keys, upto);
}

#[test]
fn of_the_nodes_with_a_directory_one_takes_the_backups_and_another_one_when_that_fails() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |node: usize| {
        let (path, text) = path(dir.path(), &format!("config-{node}"));
        let target = dir.path().join(format!("backups-{node}"));
        let config = format!("[backup]\ndirectory = {target:?}\nevery_ms = 1000\nkeep = 2\n");
        std::fs::write(path, config).expect("written");
        text
    };
    // The leader, and a node that has none.
    let mut cluster = Cluster::new(PROGRAM, 1, &["--config", &file(1)]);
    for node in 2..4 {
        cluster.join(&["--config", &file(node)]);
    }
    cluster.join(&[]);
    cluster.wait_for_voters(4);
    let backups = |node: usize| -> Vec<PathBuf> {
        let found = std::fs::read_dir(dir.path().join(format!("backups-{node}")));
        let files = found.into_iter().flatten().map(|entry| entry.expect("listed").path());
        files.filter(|path| path.extension().is_some_and(|it| it == "backup")).collect()
    };
    let saved = |cluster: &Cluster, at: usize| cluster.status(at).and_then(|status| status.backup);
    cluster.eventually("two backups of node 2", || (backups(2).len() == 2).then_some(()));
    let first = backups(2);
    cluster.eventually("two others in their place", || {
        let now = backups(2);
        (now.len() == 2 && now.iter().all(|path| !first.contains(path))).then_some(())
    });
    // The first one took some while it was alone.
    assert!(backups(3).is_empty(), "one node takes them");
    assert_eq!(saved(&cluster, 3), None, "it was not told to");
    let newest = backups(2).pop().expect("there are some");
    Cli::new(PROGRAM, &[]).run(&["backup", "verify", newest.to_str().expect("UTF-8")]).ok();

    // Its disk is in the way: the next node takes over, and it says why.
    let taken = dir.path().join("backups-2");
    std::fs::remove_dir_all(&taken).expect("removed");
    std::fs::write(&taken, "no directory").expect("written");
    cluster.eventually("a backup of node 3", || (!backups(3).is_empty()).then_some(()));
    let failed = saved(&cluster, 1).expect("it was told to");
    assert!(failed.last_error.contains("backups-2"), "{failed:?}");
    let text = cluster.cli().run(&["status"]).ok();
    assert!(text.contains("its last attempt to take a backup failed"), "{text}");
    // And it may be down.
    cluster.servers[2].kill();
    std::fs::remove_file(&taken).expect("removed");
    cluster.eventually("a backup of node 2, which was forgiven", || {
        (!backups(2).is_empty()).then_some(())
    });
    assert_eq!(saved(&cluster, 1).expect("it was told to").last_error, "");
}

#[test]
fn what_is_no_backup_or_no_place_for_one_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, name) = path(dir.path(), "backup");
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    cluster.cli().run(&["backup", "save", &name]).ok();
    let good = std::fs::read(&file).expect("saved");
    let cli = Cli::new(PROGRAM, &[]);
    let refused = |arguments: &[&str], words: &str| {
        let output = cli.run(arguments);
        let said = output.failed();
        assert!(said.contains(words), "{arguments:?}: {said}");
    };

    let again = cluster.cli().run(&["backup", "save", &name]).failed();
    assert!(again.contains("is there already, and is left alone"), "{again}");
    assert_eq!(std::fs::read(&file).expect("still there"), good);

    let used = cluster.servers[0].data_dir.to_str().expect("UTF-8").to_owned();
    refused(&["restore", &name, "--data-dir", &used], "holds a node's data already");
    let (_, fresh) = path(dir.path(), "fresh");
    let bad = |name: &str, bytes: &[u8]| {
        let (path, text) = path(dir.path(), name);
        std::fs::write(path, bytes).expect("written");
        text
    };
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let mut newer = good.clone();
    newer[8] = 9;
    for (name, bytes, words) in [
        ("short", &good[..good.len() - 9], "is cut short"),
        ("long", &[&good[..], b"x"].concat(), "bytes after its end"),
        ("flipped", &flipped, "is damaged at byte"),
        ("newer", &newer, "has format version 9"),
        ("other", &std::fs::read(kv()).expect("a module"), "is no backup of raft-host"),
    ] {
        let name = bad(name, bytes);
        refused(&["backup", "verify", &name], words);
        refused(&["restore", &name, "--data-dir", &fresh], words);
    }
    refused(&["restore", "nowhere", "--data-dir", &fresh], "cannot read nowhere");
    assert!(!Path::new(&fresh).exists(), "nothing was begun");
    refused(&["backup", "show", "nowhere"], "cannot read nowhere");

    // A restore that was killed half way.
    let mut half = Server::new(PROGRAM, dir.path(), "half");
    let target = half.data_dir.to_str().expect("UTF-8").to_owned();
    cli.run(&["restore", &name, "--data-dir", &target]).ok();
    let body = "\"found\"";
    let intent = format!("raft-host-intent 1 {:08x}\n{body}\n", crc32fast::hash(body.as_bytes()));
    std::fs::write(half.data_dir.join("INTENT"), intent).expect("written");
    let said = half.refuses(&[]);
    assert!(said.contains("a restore or an import was interrupted"), "{said}");
    refused(&["restore", &name, "--data-dir", &target], "delete it and do that again");

    // States that no plugin takes.
    let plugin = kv();
    let plugin = plugin.to_str().expect("UTF-8");
    let mut new = Server::new(PROGRAM, dir.path(), "new");
    let nonsense = bad("nonsense", b"no state of kv");
    let said = new.refuses(&["--plugin", plugin, "--import", &nonsense]);
    assert!(said.contains("is refused: `restore` of the module"), "{said}");
    assert!(!new.data_dir.exists(), "nothing was begun");
    let said = new.refuses(&["--import", &nonsense]);
    assert!(said.contains("give --plugin as well"), "{said}");
}
