//! Snapshots that are taken under a running rehearsal: the log that it reads is kept for it, or it says that it was not.

use std::path::{Path, PathBuf};

use raft_host_tests::{Cluster, block_on, ledger};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// Executes thirty million rounds of a loop before each command.
const SLOW: (&str, &str) = (
    "work",
    "(i64.store (i32.const 0x700) (i64.const 30000000)) (loop $again (i64.store (i32.const 0x700) (i64.sub (i64.load (i32.const 0x700)) (i64.const 1))) (br_if $again (i32.wrap_i64 (i64.load (i32.const 0x700)))))",
);
/// Commands that the slow module takes long for.
const FIRST: u64 = 60;
/// Of what it executes a rehearsal keeps 16 MiB; of more than that it reads a MiB of the log at a time: so much is
/// behind what it has read when it begins.
const LARGE: u64 = 72;
const LARGE_BYTES: usize = 256 << 10;
/// Commands in all.
const LAST: &str = "133";
/// Without the large ones.
const LAST_SMALL: &str = "61";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A node whose log begins with a state and goes on with the commands, and a module to rehearse on them.
struct Scene {
    cluster: Cluster,
    slow: PathBuf,
}

impl Scene {
    /// Nothing but a reader keeps the log behind a snapshot, and that at most so many bytes.
    fn new(held_bytes: &str, large: u64) -> Scene {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let old = dir.path().join("old.wasm");
        std::fs::write(&old, ledger(&[])).expect("written");
        let arguments = ["--snapshot-keep", "1", "--trailing-logs", "1", "--trailing-ms", "0"];
        let arguments = [&arguments[..], &["--held-bytes", held_bytes]].concat();
        let cluster = Cluster::of(PROGRAM, &old, 1, &arguments);
        let slow = cluster.dir().join("slow.wasm");
        std::fs::write(&slow, ledger(&[SLOW])).expect("written");
        let scene = Scene { cluster, slow };
        scene.cluster.cli().run(&["stage", text(&scene.slow)]).ok();
        scene.take_snapshot();
        for _ in 0..FIRST {
            scene.deposit();
        }
        let client = scene.cluster.client();
        for _ in 0..large {
            // It is none, and is rejected.
            block_on(client.apply(vec![0; LARGE_BYTES])).expect("an answer");
        }
        scene.deposit();
        scene
    }

    fn deposit(&self) {
        block_on(self.cluster.client().apply(vec![b'd', 2, 5, 0])).expect("applied");
    }

    fn take_snapshot(&self) {
        self.cluster.cli().run(&["snapshot", "take"]).ok();
    }

    /// Begins with a rehearsal of all commands, and takes snapshots under it. After which entry it began.
    fn rehearse(&self, last: &str) -> (raft_host_tests::Running, u64) {
        let wish = ["rehearse", text(&self.slow), "--allow", "fuel", "--last", last, "-o", "json"];
        let begun = self.cluster.cli().start(&wish);
        let seen = self.cluster.eventually("it is under way", || {
            self.cluster.group(0)?.rehearsal.filter(|it| it.commands > 0)
        });
        for _ in 0..2 {
            self.deposit();
            self.take_snapshot();
        }
        (begun, seen.range.expect("it has one").base)
    }
}

#[test]
fn a_rehearsal_holds_the_log_that_it_reads_while_snapshots_are_taken() {
    let scene = Scene::new("100000000", LARGE);
    let (begun, base) = scene.rehearse(LAST);
    let group = scene.cluster.group(0).expect("a status");
    let seen = group.rehearsal.expect("it takes longer than two snapshots");
    assert!(group.snapshot_index > seen.range.expect("it has one").until, "taken meanwhile");
    assert!(group.first_index <= base + 1, "{} is gone", base + 1);
    is_done(begun, LAST);
    // Nobody needs it any more.
    scene.cluster.eventually("the log is compacted", || {
        (scene.cluster.group(0)?.first_index > base + FIRST).then_some(())
    });
}

fn is_done(begun: raft_host_tests::Running, commands: &str) {
    let output = begun.finish();
    assert_eq!(output.code, Some(0), "{output:?}");
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let report = &found["report"];
    assert_eq!(report["commands"].to_string(), commands, "{found}");
    assert_eq!(report["counts"].as_array().map(Vec::len), Some(1), "only fuel: {found}");
}

#[test]
fn a_rehearsal_that_has_read_all_that_it_executes_holds_no_log() {
    let scene = Scene::new("100000000", 0);
    let (begun, _) = scene.rehearse(LAST_SMALL);
    let seen = scene.cluster.eventually("the log is compacted", || {
        let group = scene.cluster.group(0)?;
        let seen = group.rehearsal.expect("it takes longer than two snapshots");
        (group.first_index > seen.range?.until).then_some(seen)
    });
    assert!(seen.index < seen.range.expect("it has one").until, "it is not at the end yet");
    is_done(begun, LAST_SMALL);
}

#[test]
fn a_rehearsal_whose_log_could_not_be_held_says_so_as_if_it_had_never_been_retained() {
    let scene = Scene::new("1", LARGE);
    let (begun, base) = scene.rehearse(LAST);
    let gone = scene.cluster.eventually("the log is compacted", || {
        let group = scene.cluster.group(0)?;
        let seen = group.rehearsal.expect("it takes longer than two snapshots");
        (group.first_index > seen.range?.until).then_some(seen.index)
    });
    assert!(gone <= base + FIRST, "it had not read on");
    let output = begun.finish();
    assert_eq!(output.code, Some(1), "{output:?}");
    let said = output.failed();
    for part in
        ["the log begins at index", "the oldest retained state is at index", "--all-retained"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What is retained can be rehearsed, and the node is none the worse.
    let all = ["rehearse", text(&scene.slow), "--allow", "fuel", "--all-retained"];
    scene.cluster.cli().run(&all).ok();
}
