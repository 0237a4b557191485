//! What rots on the disk of a node that runs is found by it, said, and mended: the node can be restarted.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use raft_host_proto::v1::{GroupStatus, ScrubStatus};
use raft_host_tests::{Cluster, block_on};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Scrubs all the time, and its log is of several files soon.
const CONFIG: &str = "[storage]\nscrub_every_ms = 400\nscrub_bytes_per_s = 1073741824\n\
                      log_file_bytes = 1048576\ncompress_above_bytes = 0\n";

fn fill(cluster: &Cluster, round: u64) {
    let client = cluster.client();
    for n in 0..60 {
        let value = "x".repeat(50_000);
        let command = format!(r#"{{"op":"set","key":"{round}-{n}","value":"{value}"}}"#);
        block_on(client.apply(command)).expect("a cluster that is well");
    }
}

/// The files of a kind, oldest first.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).expect("listed").map(|entry| entry.expect("entry").path());
    let mut files: Vec<PathBuf> =
        listed.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    files.sort();
    files
}

/// Flips a bit in the middle of what is written in a file.
fn flip(path: &Path) {
    let bytes = std::fs::read(path).expect("read");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    let file = std::fs::File::options().write(true).open(path).expect("opened");
    file.write_all_at(&[bytes[used / 2] ^ 4], (used / 2) as u64).expect("written");
}

fn scrubs(cluster: &Cluster, at: usize) -> ScrubStatus {
    cluster.eventually("a status", || cluster.status(at)).scrub.expect("it scrubs")
}

fn wait_until_mended(cluster: &Cluster, at: usize, count: u64) {
    cluster.eventually("everything mended", || {
        let scrub = scrubs(cluster, at);
        (scrub.found == count && scrub.mended == count && scrub.alarm.is_empty()).then_some(())
    });
}

fn cluster(dir: &Path) -> Cluster {
    let config = dir.join("config.toml");
    std::fs::write(&config, CONFIG).expect("written");
    Cluster::new(PROGRAM, 3, &["--config", config.to_str().expect("UTF-8")])
}

#[test]
fn what_rots_on_a_running_nodes_disk_is_found_and_mended_before_a_restart_needs_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = cluster(dir.path());
    fill(&cluster, 0);
    cluster.wait_for_agreement();
    let leader = cluster.leader();
    for at in [leader, (leader + 1) % 3] {
        cluster.cli_of(at).run(&["snapshot", "take"]).ok();
        let data = cluster.servers[at].data_dir.clone();
        let (log, snapshots) = (data.join("log"), data.join("snapshots/1"));
        cluster.eventually("a scrub", || scrubs(&cluster, at).last_ms);
        assert_eq!(scrubs(&cluster, at).found, 0);

        let newest = files(&snapshots, "snap").pop().expect("there is one");
        flip(&newest);
        wait_until_mended(&cluster, at, 1);
        let told = scrubs(&cluster, at).damages;
        assert_eq!(told[0].file, newest.display().to_string());
        assert!(
            told[0].offset > 0 && told[0].outcome.contains("it was replaced by one"),
            "{told:?}"
        );

        let logs = files(&log, "raftlog");
        assert!(logs.len() > 1, "{logs:?}");
        flip(&logs[0]);
        wait_until_mended(&cluster, at, 2);
        assert!(!logs[0].exists());
        // The one that is written to.
        fill(&cluster, 1 + at as u64);
        cluster.wait_for_agreement();
        let last = files(&log, "raftlog").pop().expect("there is one");
        flip(&last);
        wait_until_mended(&cluster, at, 3);
        assert!(!last.exists());

        let text = cluster.cli_of(at).run(&["status"]).ok();
        assert!(text.contains("found 3 files damaged and mended them"), "{text}");
        let listed = cluster.servers[at].log();
        assert!(listed.contains("a file of this node is damaged"), "{listed}");
        cluster.servers[at].kill();
        cluster.servers[at].start(&[]);
        cluster.wait_for_agreement();
    }
    let compared: Value =
        serde_json::from_str(&cluster.cli().run(&["digest", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(compared["all_agree"], true, "{compared}");
    for round in [0, 1 + leader] {
        assert!(cluster.query(0, &format!(r#"{{"op":"get","key":"{round}-59"}}"#)).len() > 50_000);
    }
}

#[test]
fn what_cannot_be_mended_yet_is_an_alarm_until_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = cluster(dir.path());
    fill(&cluster, 0);
    cluster.wait_for_agreement();
    let leader = cluster.leader();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|at| cluster.servers[*at].kill());
    // It is in the log, and nobody agrees to it.
    let set = r#"{"op":"set","key":"late","value":"1"}"#;
    cluster.cli_of(leader).run(&["apply", set, "--timeout", "1s"]).failed();
    let waits = |group: &GroupStatus| group.applied_index < group.last_index;
    cluster.eventually("an entry without a majority", || cluster.group(leader).filter(waits));

    let log = cluster.servers[leader].data_dir.join("log");
    let first = files(&log, "raftlog").swap_remove(0);
    flip(&first);
    let alarm = cluster.eventually("an alarm that says why", || {
        let alarm = scrubs(&cluster, leader).alarm;
        alarm.contains("not mended").then_some(alarm)
    });
    for words in [first.to_str().expect("UTF-8"), "are applied", "join again with an empty"] {
        assert!(alarm.contains(words), "{alarm}");
    }
    assert!(first.exists());
    let text = cluster.cli_of(leader).run(&["status"]);
    assert!(text.stdout.contains("raises an ALARM"), "{}", text.stdout);

    others.iter().for_each(|at| cluster.servers[*at].start(&[]));
    wait_until_mended(&cluster, leader, 1);
    assert!(!first.exists());
    cluster.servers[leader].kill();
    cluster.servers[leader].start(&[]);
    cluster.wait_for_agreement();
}
