//! `raft-host rehearse` without a cluster, and what else looks at a stopped node's commands: on what real nodes left
//! behind. The ten bad upgrades themselves are in `host/src/rehearsal/tests.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use raft_host_proto::Client;
use raft_host_tests::{Cli, Cluster, block_on, ledger};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// Rounds up where the ledger rounds down.
const ROUNDING: (&str, &str) = ("rounding", "(i64.const 999))");
/// A node that ran the ledger and stopped, and modules that may come after it.
struct Scene {
    dir: TempDir,
    _cluster: Cluster,
    data_dir: PathBuf,
    backup: PathBuf,
    /// Indexes of the commands.
    at: Vec<u64>,
}

fn command(op: u8, account: u8, amount: u16) -> Vec<u8> {
    let [low, high] = amount.to_le_bytes();
    vec![op, account, low, high]
}

impl Scene {
    fn new() -> Scene {
        Scene::with(|_, _| ())
    }

    /// Something more happens before it stops.
    fn with(more: impl FnOnce(&Cluster, &Client)) -> Scene {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let module = dir.path().join("ledger.wasm");
        fs::write(&module, ledger(&[])).expect("written");
        let mut cluster = Cluster::of(PROGRAM, &module, 1, &["--snapshot-keep", "1"]);
        let client = cluster.client();
        // Of the last one nobody may know that it is committed.
        let commands = [
            command(b'd', 2, 333),
            command(b'd', 3, 5),
            command(b'i', 2, 5),
            command(b'c', 3, 0),
            command(b'c', 3, 0),
        ];
        let at = commands.map(|command| {
            let answer = block_on(client.apply(command)).expect("applied");
            answer.position.expect("it has one").index
        });
        let backup = dir.path().join("backup");
        cluster.cli().run(&["backup", "save", text(&backup)]).ok();
        more(&cluster, &client);
        cluster.servers[0].terminate();
        let data_dir = cluster.servers[0].data_dir.clone();
        Scene { dir, _cluster: cluster, data_dir, backup, at: at.to_vec() }
    }

    fn module(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, ledger(changes)).expect("written");
        path
    }

    fn rehearse(&self, module: &Path, arguments: &[&str]) -> raft_host_tests::Output {
        let on = ["rehearse", text(module), "--data-dir", text(&self.data_dir)];
        Cli::new(PROGRAM, &[]).run(&[&on, arguments].concat())
    }
}

fn run(arguments: &[&str]) -> raft_host_tests::Output {
    Cli::new(PROGRAM, &[]).run(arguments)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn json(output: &raft_host_tests::Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_module_is_rehearsed_on_what_a_stopped_node_retains() {
    let scene = Scene::new();
    let same = scene.module("same.wasm", &[("work", "(nop) (nop)")]);
    let said = scene.rehearse(&same, &["--query", "b\u{2}"]).ok();
    assert!(said.contains("passed: nothing differs"), "{said}");
    assert!(said.contains("rehearsed 4 ") || said.contains("rehearsed 5 "), "{said}");

    let other = scene.module("other.wasm", &[ROUNDING]);
    let output = scene.rehearse(&other, &["-o", "json"]);
    assert_eq!(output.code, Some(3), "{output:?}");
    let found = json(&output);
    assert_eq!(found["passed"], false);
    let report = &found["report"];
    let first = &report["differences"][0];
    assert_eq!((&first["kind"], &first["class"]), (&"reply".into(), &"interest".into()));
    assert_eq!(first["position"]["index"], scene.at[2]);
    assert_eq!(first["input"], "i\u{2}\u{5}\u{0}");
    assert_eq!(
        (&first["old"], &first["new"]),
        (&"ok: 0x4e01000000000000".into(), &"ok: 0x4f01000000000000".into())
    );
    assert_eq!(report["no_way_back"], "");

    let said = scene.rehearse(&other, &["--allow", "reply:interest", "--allow", "trap"]).ok();
    assert!(said.contains("passed: what differs is allowed (1)"), "{said}");
    assert!(said.contains("trap allows nothing"), "{said}");
    let said = scene.rehearse(&other, &["--allow", "reply:deposit"]);
    assert_eq!(said.code, Some(3));
    assert!(said.stdout.contains("--allow KIND[:CLASS]"), "{said:?}");
    // A class that there is not.
    let said = scene.rehearse(&other, &["--allow", "reply:intrest"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.failed().contains("its classes there are deposit, interest"));
    // The last command is none of those that differ.
    scene.rehearse(&other, &["--last", "1"]).ok();
    assert_eq!(scene.rehearse(&other, &["--last", "3"]).code, Some(3));
    assert_eq!(scene.rehearse(&other, &["--since", "1h"]).code, Some(3));
}

#[test]
fn more_than_is_retained_is_refused_with_what_there_is() {
    let scene = Scene::with(|cluster, client| {
        // Only the newest state is retained, and then two more commands.
        cluster.cli().run(&["snapshot", "take"]).ok();
        for _ in 0..2 {
            block_on(client.apply(command(b'd', 3, 5))).expect("applied");
        }
    });
    let same = scene.module("same.wasm", &[("work", "(nop) (nop)")]);
    let from = |arguments: &[&str]| {
        let found = json(&scene.rehearse(&same, &[arguments, &["-o", "json"]].concat()));
        found["report"]["range"]["base"].as_u64().expect("a number")
    };
    let oldest = from(&["--all-retained"]);
    assert!(oldest >= scene.at[4], "{oldest}");
    assert_eq!(from(&[]), oldest, "the default takes what there is");
    assert!(from(&["--last", "1"]) >= oldest);
    let state = format!("the oldest retained state is at index {oldest} (");
    for arguments in [["--last", "3"], ["--since", "1h"]] {
        let said = scene.rehearse(&same, &arguments);
        assert_eq!(said.code, Some(1), "{said:?}");
        let words = said.failed();
        assert!(words.contains(&state) && words.contains("--all-retained"), "{words}");
    }
    let said = run(&["replay", text(&scene.data_dir), "--against", text(&same), "--from", "4"]);
    assert!(said.failed().contains(&state));
}

#[test]
fn a_module_that_reads_the_memory_of_the_one_before_is_tried_on_a_stopped_node() {
    let scene = Scene::new();
    let import = r#"(import "raft_fsm_v1" "old_memory" (func $old_memory (param i64 i32 i32)))"#;
    let adopting = |name: &str, bytes: u64| {
        let export = format!(
            r#"(func (export "adopt") (param i32) (result i32)
                 (call $old_memory (i64.const 0x400) (i32.const 0x400) (i32.const {bytes}))
                 (i32.const 0))"#
        );
        scene.module(name, &[("import", import), ("export", &export)])
    };
    let sound = adopting("sound.wasm", 136);
    let said = scene.rehearse(&sound, &["--from-image", "--last", "1", "--query", "b\u{2}"]).ok();
    assert!(said.contains("passed: nothing differs"), "{said}");
    let forgets = adopting("forgets.wasm", 8);
    let asked = ["--from-image", "--last", "1", "--query", "b\u{2}"];
    assert_eq!(scene.rehearse(&forgets, &asked).code, Some(3));
    let without = scene.module("without.wasm", &[]);
    let said = scene.rehearse(&without, &["--from-image"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stdout.contains("no export `adopt`"), "{said:?}");
    // `check` tries it beside `restore`.
    let check =
        |module: &Path| run(&["check", text(module), "--from", text(&without), "--verbose"]);
    assert!(check(&sound).ok().contains("it adopts the memory with"), "{sound:?}");
    let beyond = check(&adopting("beyond.wasm", 1 << 20));
    assert!(beyond.stdout.contains("`adopt` of the new module"), "{beyond:?}");
}

#[test]
fn a_backup_is_enough_for_the_migration_and_the_queries() {
    let scene = Scene::new();
    let on = |module: &Path, arguments: &[&str]| {
        run(&[&["rehearse", text(module), "--backup", text(&scene.backup)], arguments].concat())
    };
    let same = scene.module("same.wasm", &[("work", "(nop) (nop)")]);
    let said = on(&same, &["--query", "b\u{2}"]).ok();
    assert!(said.contains("rehearsed 0 commands") && said.contains("nothing differs"), "{said}");
    let forgets = "(i64.store (call $account (i32.const 2)) (i64.const 0))";
    let forgets = scene.module("forgets.wasm", &[("restore", forgets)]);
    on(&forgets, &[]).ok();
    let output = on(&forgets, &["--query", "b\u{2}", "-o", "json"]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert_eq!(json(&output)["report"]["differences"][0]["kind"], "query");
    let strange = scene.module("strange.wasm", &[("restore", "(unreachable)")]);
    let output = on(&strange, &[]);
    assert_eq!(output.code, Some(3));
    assert!(
        output.stdout.contains("`restore` of the new module executed `unreachable`"),
        "{output:?}"
    );
}

#[test]
fn what_cannot_be_rehearsed_is_said_in_one_sentence() {
    let scene = Scene::new();
    let same = scene.module("same.wasm", &[("work", "(nop) (nop)")]);
    let said = scene.rehearse(&same, &["--allow", "answers"]);
    assert_eq!(said.code, Some(2));
    assert!(said.failed().contains("there is no kind of difference called \"answers\""));
    let nonsense = scene.dir.path().join("nonsense.wasm");
    fs::write(&nonsense, "no module").expect("written");
    let said = scene.rehearse(&nonsense, &[]);
    assert_eq!(said.code, Some(1));
    assert!(said.failed().contains("a cluster would refuse the module"));
    let said = run(&["rehearse", text(&same), "--backup", text(&same)]).failed();
    assert!(said.contains("is no backup of raft-host"), "{said}");
    let said = run(&["rehearse", text(&same), "--data-dir", "/no/such/dir"]).failed();
    assert!(said.contains("/no/such/dir"), "{said}");
}

#[test]
fn replay_finds_the_first_command_that_a_module_answers_otherwise() {
    let scene = Scene::new();
    let data_dir = text(&scene.data_dir);
    let other = scene.module("other.wasm", &[ROUNDING]);
    let against = |arguments: &[&str]| {
        run(&[&["replay", data_dir, "--against", text(&other)], arguments].concat())
    };
    let output = against(&[]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let first = format!("first at {} (reply, class interest)", scene.at[2]);
    assert!(output.stdout.contains(&first), "{output:?}");
    assert!(output.stdout.contains("in hex   69020500"), "{output:?}");
    assert!(output.stdout.contains("active   ok: 0x4e01000000000000"), "{output:?}");
    assert!(output.stdout.contains("other    ok: 0x4f01000000000000"), "{output:?}");
    assert!(output.stdout.contains(" in the active module, "), "{output:?}");
    let until = scene.at[1].to_string();
    let said = against(&["--until", &until]).ok();
    assert!(said.contains("does the same"), "{said}");
    assert!(against(&["--until", &format!("{until}.0")]).failed().contains("whole entries"));

    // What comes after the first one is not executed, but if it is asked for.
    let found = json(&against(&["-o", "json"]));
    let first = &found["first_difference"];
    assert_eq!((&first["index"], &first["ordinal"]), (&scene.at[2].into(), &0.into()));
    assert_eq!(
        (&first["command"], &first["command_hex"]),
        (&"i\u{2}\u{5}\u{0}".into(), &"69020500".into())
    );
    assert_eq!(first["old"], "ok: 0x4e01000000000000");
    assert!(first["old_fuel"].as_u64() > Some(0) && first["new_fuel"].as_u64() > Some(0));
    assert_eq!(found["report"]["range"]["until"], scene.at[2]);
    assert_eq!(found["report"]["counts"].as_array().map(Vec::len), Some(1), "{found}");
    let all = against(&["--all", "-o", "json"]);
    assert_eq!(all.code, Some(1), "{all:?}");
    let all = json(&all);
    assert_eq!(all["first_difference"]["index"], scene.at[2]);
    assert!(all["report"]["range"]["until"].as_u64() > Some(scene.at[2]), "{all}");
    let said = against(&["--all"]);
    assert!(said.stdout.contains("reply:interest: 1 differences"), "{said:?}");

    let said = run(&["replay", data_dir, "--against", data_dir, "--all"]).failed();
    assert!(said.contains("--all is for a module"), "{said}");
}

#[test]
fn replay_shows_commands_and_asks_the_state_as_it_was() {
    let scene = Scene::new();
    let data_dir = text(&scene.data_dir);
    let until = scene.at[2].to_string();
    let output = run(&["replay", data_dir, "--trace", "--until", &until, "-o", "json"]);
    let traced = json(&output);
    let entries = traced["entries"].as_array().expect("entries");
    let last = entries.last().expect("some");
    assert_eq!(
        (&last["index"], &last["command"]),
        (&scene.at[2].into(), &"i\u{2}\u{5}\u{0}".into())
    );
    assert_eq!(
        (&last["answer"], &last["answer_encoding"]),
        (&"N\u{1}\0\0\0\0\0\0".into(), &"utf8".into())
    );
    let deposit = entries.iter().find(|entry| entry["index"] == scene.at[0]).expect("there");
    assert_eq!(deposit["events"][0]["topic"], "deposit");
    assert!(deposit["fuel_used"].as_u64() > Some(0));
    let said = run(&["replay", data_dir, "--trace"]).ok();
    assert!(said.contains("event    deposit"), "{said}");

    let ask = |arguments: &[&str]| {
        run(&[&["replay", data_dir, "--query", "b\u{2}", "-o", "json"], arguments].concat())
    };
    let balance = |output: &raft_host_tests::Output| json(output)["answer"].clone();
    let now = balance(&ask(&[]));
    assert_eq!(now, "N\u{1}\0\0\0\0\0\0");
    assert_eq!(balance(&ask(&["--at", &scene.at[3].to_string()])), now);
    assert_eq!(balance(&ask(&["--at", &format!("{}.0", scene.at[1])])), "M\u{1}\0\0\0\0\0\0");
    let beyond = ask(&["--at", "1000000"]);
    assert_eq!(beyond.code, Some(2));
    assert!(beyond.failed().contains("is beyond the last entry"));
    let before = ask(&["--at", "0"]).failed();
    assert!(before.contains("its log begins at index"), "{before}");

    let backup = text(&scene.backup);
    let said = run(&["replay", backup, "--query", "b\u{2}", "-o", "json"]);
    assert_eq!(balance(&said), now);
    assert!(run(&["replay", backup]).failed().contains("ask it with --query QUERY"));
    let said = run(&["replay", backup, "--query", "b\u{2}", "--at", "3"]).failed();
    assert!(said.contains("and no other"), "{said}");
}

#[test]
fn check_tries_a_migration_without_any_cluster() {
    let scene = Scene::new();
    let old = scene.module("old.wasm", &[]);
    let commands = scene.dir.path().join("commands");
    fs::write(&commands, [&b"d\x02M\x01"[..], b"i\x02\x05\x00", b""].join(&b"\n"[..]))
        .expect("written");
    let check = |new: &Path, arguments: &[&str]| {
        run(&[&["check", text(new), "--from", text(&old)], arguments].concat())
    };
    let same = scene.module("same.wasm", &[("work", "(nop) (nop)")]);
    let said = check(&same, &["--commands", text(&commands)]).ok();
    assert!(
        said.contains("migration from") && said.contains("both do the same with 2 commands"),
        "{said}"
    );
    assert!(said.contains("the old module takes its state back"), "{said}");
    let other = scene.module("other.wasm", &[ROUNDING]);
    let said = check(&other, &["--commands", text(&commands)]).ok();
    assert!(said.contains("reply differs 1 times of class interest: command 2"), "{said}");
    let counts =
        "(i64.store (i32.const 0x480) (i64.add (i64.load (i32.const 0x480)) (i64.const 1)))";
    let counts = scene.module("counts.wasm", &[("restore", counts)]);
    // Its own checks do not like it either.
    let output = check(&counts, &["-o", "json"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let sections = json(&output)["sections"].as_array().expect("sections").clone();
    let migration = sections
        .iter()
        .find(|it| it["name"].as_str().is_some_and(|name| name.starts_with("migration")));
    let findings = migration.expect("there is one")["findings"].to_string();
    assert!(findings.contains("not idempotent"), "{findings}");
    let export = scene.dir.path().join("export");
    fs::write(&export, [7; 136]).expect("written");
    check(&same, &["--export", text(&export)]).ok();
}
