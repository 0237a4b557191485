//! A module whose `snapshot` is broken is replaced all the same, and what shall replace it is tried first.

use std::path::{Path, PathBuf};

use raft_host_tests::{Cluster, Output, block_on, ledger};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const BROKEN: (&str, &str) = ("snapshot", "(unreachable)");
/// What the ledger keeps.
const STATE_BYTES: usize = 136;
/// Asks for the balance of account 2.
const BALANCE: &str = "b\u{2}";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Three nodes that run a ledger whose state nobody can have, with some deposits.
struct Scene {
    cluster: Cluster,
    deposits: u64,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let module = dir.path().join("broken.wasm");
        std::fs::write(&module, ledger(&[BROKEN])).expect("written");
        let cluster = Cluster::of(PROGRAM, &module, 3, &[]);
        cluster.wait_for_voters(3);
        let (client, deposits) = (cluster.client(), 20);
        for _ in 0..deposits {
            block_on(client.apply(vec![b'd', 2, 5, 0])).expect("applied");
        }
        Scene { cluster, deposits }
    }

    fn module(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let path = self.cluster.dir().join(name);
        std::fs::write(&path, ledger(changes)).expect("written");
        path
    }

    /// One that reads so many bytes of the memory of the one before.
    fn adopting(&self, name: &str, bytes: usize) -> PathBuf {
        let import =
            r#"(import "raft_fsm_v1" "old_memory" (func $old_memory (param i64 i32 i32)))"#;
        let export = format!(
            r#"(func (export "adopt") (param i32) (result i32)
                 (call $old_memory (i64.const 0x400) (i32.const 0x400) (i32.const {bytes}))
                 (i32.const 0))"#
        );
        self.module(name, &[("import", import), ("export", &export)])
    }

    fn upgrade(&self, module: &Path, arguments: &[&str]) -> (Value, Output) {
        let arguments = [&["upgrade", text(module), "-o", "json"], arguments].concat();
        let output = self.cluster.cli().run(&arguments);
        let value = serde_json::from_str(&output.stdout);
        (value.unwrap_or_else(|error| panic!("{error}: {output:?}")), output)
    }

    fn modules(&self) -> Value {
        let said = self.cluster.cli().run(&["modules", "-o", "json"]).ok();
        serde_json::from_str(&said).expect("JSON")
    }

    fn activations(&self) -> usize {
        self.modules()["history"].as_array().expect("a list").len()
    }

    fn balance(&self) -> u8 {
        let answer = self.cluster.cli().run(&["query", BALANCE, "-o", "json"]).ok();
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["answer"].as_str().expect("text").as_bytes()[0]
    }
}

/// The kinds of what a rehearsal found.
fn kinds(upgraded: &Value) -> Vec<&str> {
    let counts = upgraded["rehearsal"]["report"]["counts"].as_array().expect("a list");
    counts.iter().map(|count| count["kind"].as_str().expect("text")).collect()
}

#[test]
fn a_rescue_from_memory_is_rehearsed_and_a_bad_one_changes_nothing() {
    let scene = Scene::new();
    let rescue = scene.adopting("rescue.wasm", STATE_BYTES);
    let refused = |module: &Path, arguments: &[&str], found: &[&str]| {
        let (upgraded, output) = scene.upgrade(module, arguments);
        assert_eq!((output.code, &upgraded["index"]), (Some(3), &Value::Null), "{output:?}");
        assert_eq!(kinds(&upgraded), found, "{output:?}");
        assert_eq!((scene.activations(), scene.balance()), (1, 100), "{arguments:?}");
    };
    refused(&rescue, &[], &["migration"]);
    // It forgets most of the accounts; a trap, and no way to read the memory at all.
    let forgets = scene.adopting("forgets.wasm", 8);
    let arguments = ["--from-image", "--last", "5", "--query", BALANCE];
    refused(&forgets, &arguments, &["reply", "query"]);
    refused(&scene.adopting("beyond.wasm", 1 << 20), &["--from-image"], &["migration"]);
    refused(&scene.module("other.wasm", &[]), &["--from-image"], &["migration"]);

    let arguments = ["--from-image", "--query", BALANCE];
    let (upgraded, output) = scene.upgrade(&rescue, &arguments);
    assert_eq!(output.code, Some(0), "{output:?}");
    let rehearsal = &upgraded["rehearsal"];
    assert_eq!(rehearsal["report"]["commands"], scene.deposits, "{rehearsal}");
    let receipts = scene.modules()["receipts"].as_array().expect("a list").clone();
    assert_eq!(receipts.last().expect("one")["index"], rehearsal["receipt"]);
    assert_eq!(receipts.last().expect("one")["voters"].as_array().map(Vec::len), Some(3));
    assert_eq!((scene.activations(), scene.balance()), (2, 100));
    // What it found is good for that way only.
    let hash = upgraded["module_hash"].as_str().expect("text");
    let receipt = rehearsal["receipt"].to_string();
    let said = scene.cluster.cli().run(&["activate", hash, "--receipt", &receipt]).ok();
    assert!(said.contains("is active already"), "{said}");
    scene.cluster.wait_for_agreement();
}

#[test]
fn a_rescue_from_a_file_is_rehearsed_and_a_bad_one_changes_nothing() {
    let scene = Scene::new();
    let state = scene.cluster.dir().join("state.bin");
    let mut bytes = [0; STATE_BYTES];
    bytes[16] = 77;
    std::fs::write(&state, bytes).expect("written");
    let from = ["--from-export", text(&state)];
    let trapping = scene.module("trapping.wasm", &[("restore", "(unreachable)")]);
    let (upgraded, output) = scene.upgrade(&trapping, &from);
    assert_eq!((output.code, kinds(&upgraded)), (Some(3), vec!["migration"]), "{output:?}");
    // A rule of its own, that the file breaks.
    let rule = "(if (i64.eq (i64.load (call $account (i32.const 2))) (i64.const 77)) (then (return (i32.const 1))))";
    let strict = scene.module("strict.wasm", &[("check", rule)]);
    let (upgraded, output) = scene.upgrade(&strict, &from);
    assert_eq!((output.code, kinds(&upgraded)), (Some(3), vec!["state"]), "{output:?}");
    let sound = scene.module("sound.wasm", &[]);
    let asked = [&from[..], &["--query", BALANCE]].concat();
    let (upgraded, output) = scene.upgrade(&sound, &asked);
    assert_eq!((output.code, kinds(&upgraded)), (Some(3), vec!["query"]), "{output:?}");
    assert_eq!((scene.activations(), scene.balance()), (1, 100), "nothing has changed");
    let said =
        scene.cluster.cli().run(&[&["upgrade", text(&sound), "--last", "5"], &from[..]].concat());
    assert_eq!(said.code, Some(2), "{said:?}");

    let (upgraded, output) = scene.upgrade(&sound, &[&asked[..], &["--allow", "query"]].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let report = &upgraded["rehearsal"]["report"];
    assert_eq!((&report["commands"], &report["snapshot_bytes"]), (&0.into(), &STATE_BYTES.into()));
    assert_ne!(upgraded["rehearsal"]["receipt"], 0, "{upgraded}");
    let again = scene.cluster.cli().run(&[&["upgrade", text(&sound)], &from[..]].concat());
    let said = again.failed();
    assert!(said.contains("is active already, and keeps the state"), "{said}");
    assert_eq!((scene.activations(), scene.balance()), (2, 77));
    // Whoever knows what he does need not try it.
    let again = scene.module("again.wasm", &[("work", "(nop) (nop)")]);
    let (upgraded, output) = scene.upgrade(&again, &[&from[..], &["--no-rehearsal"]].concat());
    assert_eq!((output.code, &upgraded["rehearsal"]), (Some(0), &Value::Null), "{output:?}");
    scene.cluster.wait_for_agreement();
}

#[test]
fn each_step_of_a_rescue_can_be_made_alone_and_a_receipt_is_good_for_its_way_only() {
    let scene = Scene::new();
    let run = |arguments: &[&str]| scene.cluster.cli().run(arguments);
    let rehearse = |module: &Path, arguments: &[&str]| {
        let output = run(&[&["rehearse", text(module), "-o", "json"], arguments].concat());
        let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let hash = found["report"]["module_hash"].as_str().expect("text").to_owned();
        (output.code, found["receipt"].to_string(), hash)
    };
    let file = |name: &str, balance: u8| {
        let path = scene.cluster.dir().join(name);
        let mut bytes = [0; STATE_BYTES];
        bytes[16] = balance;
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let (state, other_state) = (file("state.bin", 77), file("other.bin", 78));
    let refused = |words: &str, arguments: &[&str]| {
        let before = (scene.activations(), scene.balance());
        let said = run(&[&["activate"], arguments].concat()).failed();
        assert!(said.contains(words), "{said}");
        assert_eq!((scene.activations(), scene.balance()), before, "{arguments:?}");
    };
    let another_way = "the module took the state over in another way";

    let sound = scene.module("sound.wasm", &[]);
    let from = ["--from-export", text(&state)];
    let asked = [&from[..], &["--query", BALANCE]].concat();
    assert_eq!(rehearse(&sound, &asked).0, Some(3), "the balance is another one");
    let (code, receipt, hash) = rehearse(&sound, &[&asked[..], &["--allow", "query"]].concat());
    assert_eq!(code, Some(0));
    refused(another_way, &[&hash, "--receipt", &receipt]);
    refused(another_way, &[&hash, "--receipt", &receipt, "--from-image"]);
    let missing = ["--from-export", "no-such-file"];
    refused("no-such-file", &[&[&*hash, "--receipt", &receipt], &missing[..]].concat());
    run(&[&["activate", &*hash, "--receipt", &receipt], &from[..]].concat()).ok();
    assert_eq!((scene.activations(), scene.balance()), (2, 77));
    refused("is active already, and keeps the state", &[&[&*hash], &from[..]].concat());
    refused("is active already, and keeps the state", &[&hash, "--from-image"]);

    let adopting = scene.adopting("adopting.wasm", STATE_BYTES);
    let (code, receipt, hash) = rehearse(&adopting, &["--from-image", "--query", BALANCE]);
    assert_eq!(code, Some(0));
    refused(another_way, &[&[&*hash, "--receipt", &receipt], &from[..]].concat());
    run(&["activate", &hash, "--receipt", &receipt, "--from-image"]).ok();
    assert_eq!((scene.activations(), scene.balance()), (3, 77));

    // Another file than the one that was rehearsed; it does not put the module out.
    let third = scene.module("third.wasm", &[("work", "(nop) (nop)")]);
    let (code, receipt, hash) = rehearse(&third, &from);
    assert_eq!(code, Some(0));
    let other = ["--from-export", text(&other_state)];
    refused(another_way, &[&[&*hash, "--receipt", &receipt], &other[..]].concat());
    let another = file("another.bin", 79);
    let another = ["--from-export", text(&another)];
    refused(another_way, &[&[&*hash, "--receipt", &receipt], &another[..]].concat());
    // Nor does one that is rehearsed after another.
    assert_eq!(rehearse(&third, &other).0, Some(0));
    assert_eq!(rehearse(&third, &from).0, Some(0));
    run(&[&["activate", &*hash, "--receipt", &receipt], &from[..]].concat()).ok();
    assert_eq!((scene.activations(), scene.balance()), (4, 77));
    scene.cluster.wait_for_agreement();
}
