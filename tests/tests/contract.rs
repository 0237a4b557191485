//! What scripts may rely on: the keys of `-o json`, and that a node starts on the data directory of an
//! earlier program. `proto/COMPATIBILITY.md` is the promise.
//!
//! `RAFT_HOST_CONTRACT=write` writes the files anew; look at what that changes.

#![allow(missing_docs, reason = "a test")]

use std::path::{Path, PathBuf};

use raft_host_tests::{Cluster, Server, kv, kv_v2, workspace};
use serde_json::{Map, Value};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn folder() -> PathBuf {
    workspace("tests/contract")
}

fn is_to_be_written() -> bool {
    std::env::var("RAFT_HOST_CONTRACT").is_ok_and(|wish| wish == "write")
}

/// The same keys, with the kinds of their values in the place of these. Of a list its first element.
fn skeleton(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(list) => list.first().map(skeleton).into_iter().collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), skeleton(value)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// Where what is printed is not what was promised. What is null, or an empty list, may be anything.
fn differences(place: &str, promised: &Value, printed: &Value, found: &mut Vec<String>) {
    match (promised, printed) {
        (Value::Object(promised), Value::Object(printed)) => {
            for (key, kind) in promised {
                match printed.get(key) {
                    Some(value) => differences(&format!("{place}.{key}"), kind, value, found),
                    None => found.push(format!("{place}.{key} is gone")),
                }
            }
            for key in printed.keys().filter(|key| !promised.contains_key(*key)) {
                found.push(format!("{place}.{key} is new: promise it (see the top of this test)"));
            }
        }
        (Value::Array(promised), Value::Array(printed)) => {
            if let (Some(promised), Some(printed)) = (promised.first(), printed.first()) {
                differences(&format!("{place}[]"), promised, printed, found);
            }
        }
        (promised, printed) => {
            let is_open = |value: &Value| value == "null";
            if promised != printed && !is_open(promised) && !is_open(printed) {
                found.push(format!("{place} was promised as {promised}, and is {printed}"));
            }
        }
    }
}

/// Compares what was printed with what was promised, or writes that down.
fn compare(name: &str, output: &raft_host_tests::Output, found: &mut Vec<String>) {
    // A failure says it on stderr, in the same form.
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let printed: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {output:?}"));
    let printed = skeleton(&printed);
    let file = folder().join("json").join(format!("{name}.json"));
    if is_to_be_written() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        let pretty = serde_json::to_string_pretty(&printed).expect("JSON") + "\n";
        std::fs::write(&file, pretty).expect("written");
    }
    let promised = std::fs::read_to_string(&file).expect("a file for each command");
    let promised = serde_json::from_str(&promised).expect("JSON");
    differences(name, &promised, &printed, found);
}

#[test]
fn the_keys_of_json_and_the_kinds_of_their_values_stay() {
    let mut cluster = Cluster::new(PROGRAM, 2, &[]);
    cluster.wait_for_voters(2);
    let cli = cluster.cli();
    let next = kv_v2();
    let lines = cluster.dir().join("commands");
    std::fs::write(&lines, "{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\"}\n".repeat(3))
        .expect("written");
    let [backup, export, restored, key, signature] = ["backup", "export", "restored", "key", "sig"]
        .map(|name| cluster.dir().join(name).to_str().expect("UTF-8").to_owned());
    let (backup, export, restored) = (&*backup, &*export, &*restored);
    let (key, signature) = (&*key, &*signature);
    let certs = cluster.dir().join("certs").to_str().expect("UTF-8").to_owned();
    let (certs, alice) = (&*certs, "--client=alice");
    let set = r#"{"op":"set","key":"a","value":"1"}"#;
    let (next, lines) = (next.to_str().expect("UTF-8"), lines.to_str().expect("UTF-8"));
    let second = cluster.servers[1].address.to_string();
    let placed = cli.run(&["apply", set, "-o", "json"]).ok();
    let placed: Value = serde_json::from_str(&placed).expect("JSON");
    let place = placed["index"].to_string();
    let commands: [(&str, &[&str]); 56] = [
        ("apply", &["apply", set]),
        ("apply-rejected", &["apply", "nonsense"]),
        ("apply-lines", &["apply", "--lines", lines]),
        ("query", &["query", r#"{"op":"count"}"#]),
        ("query-at", &["query", r#"{"op":"count"}"#, "--at", &place]),
        ("status", &["status"]),
        ("members", &["members"]),
        ("members-add", &["members", "add", "127.0.0.1:9"]),
        ("modules", &["modules"]),
        ("stage", &["stage", next]),
        ("rehearse", &["rehearse", next, "--allow", "fuel:3x"]),
        ("rehearse-shadow", &["rehearse", next, "--shadow", "300ms"]),
        ("upgrade", &["upgrade", next, "--allow", "fuel:3x"]),
        ("upgrade-rewind", &["upgrade", "--rollback", "rewind", "--yes"]),
        ("upgrade-confirm", &["upgrade", "--confirm"]),
        ("keys-generate", &["keys", "generate", "--out", key]),
        ("keys-add", &["keys", "add", "ci", key]),
        ("keys", &["keys"]),
        ("sign", &["sign", next, "--key", key, "--out", signature]),
        ("sign-verify", &["sign", next, "--verify", "--out", signature]),
        ("limits", &["limits"]),
        ("limits-set", &["limits", "set", "apply_fuel=2_000_000_000"]),
        ("engine", &["engine"]),
        ("engine-offered", &["engine", "offered"]),
        ("level", &["level"]),
        ("level-raise", &["level", "raise"]),
        ("rights", &["rights"]),
        ("role-add", &["role", "add", "teller", "--grant", "apply:transfer"]),
        ("role", &["role"]),
        ("role-remove", &["role", "remove", "teller"]),
        ("user-add", &["user", "add", "ann", "--role", "reader"]),
        ("user-set", &["user", "set", "ann", "--role", "writer"]),
        ("token-create", &["token", "create", "--name", "ann", "--ttl", "1h"]),
        ("token", &["token"]),
        ("user", &["user"]),
        ("user-remove", &["user", "remove", "ann", "--yes"]),
        ("rights-disable", &["rights", "disable", "--yes"]),
        ("snapshot-take", &["snapshot", "take"]),
        ("backup-save", &["backup", "save", backup]),
        ("backup-show", &["backup", "show", backup]),
        ("backup-verify", &["backup", "verify", backup]),
        ("export", &["export", export]),
        ("restore", &["restore", backup, "--data-dir", restored]),
        ("digest", &["digest", "--timeout", "60s"]),
        ("clock", &["clock"]),
        ("check", &["check", next]),
        ("certs-init", &["certs", "init", certs, "--node=n1=127.0.0.1", alice]),
        ("certs-node", &["certs", "node", certs, "--name=n2", "--address=127.0.0.1"]),
        ("certs-client", &["certs", "client", certs, "--name=bob"]),
        ("certs-rotate-ca", &["certs", "rotate-ca", certs]),
        ("certs-renew", &["certs", "renew", certs, "--all"]),
        ("certs-show", &["certs", "show", certs]),
        ("drain", &["drain", "--endpoint", &second]),
        ("undrain", &["undrain", "--endpoint", &second]),
        ("failed", &["members", "remove", "4711"]),
        ("unavailable", &["status", "--endpoint", "127.0.0.1:9"]),
    ];
    let mut found = Vec::new();
    for (name, arguments) in commands {
        let arguments = [arguments, &["-o", "json"]].concat();
        let output = match name {
            "unavailable" => raft_host_tests::Cli::new(PROGRAM, &[]).run(&arguments),
            _ => cli.run(&arguments),
        };
        compare(name, &output, &mut found);
    }
    // One of two is left: nothing can be lost.
    cluster.servers.iter_mut().for_each(|server| {
        server.terminate();
    });
    let [survivor, plan] = ["survivor", "plan"]
        .map(|name| cluster.dir().join(name).to_str().expect("UTF-8").to_owned());
    let (survivor, plan) = (&*survivor, &*plan);
    let dir = cluster.servers[1].data_dir.to_str().expect("UTF-8");
    let commands: [(&str, &[&str]); 4] = [
        ("recover-inspect", &["recover", "inspect", survivor, "--data-dir", dir]),
        ("recover-plan", &["recover", "plan", survivor, "--out", plan]),
        ("recover-apply", &["recover", "apply", plan, "--data-dir", dir]),
        ("recover-verify", &["recover", "verify", plan, "--data-dir", dir]),
    ];
    for (name, arguments) in commands {
        let output = cli.run(&[arguments, &["-o", "json"]].concat());
        compare(name, &output, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What the data directory of an earlier program holds.
const KEYS: u64 = 50;

fn set(n: u64) -> String {
    format!(r#"{{"op":"set","key":"key-{n}","value":"value {n}"}}"#)
}

/// Makes the data directory that later programs must read, with the program of now.
fn write_data_directory(to: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plugin = kv();
    let mut server = Server::new(PROGRAM, dir.path(), "node-1");
    server.start(&["--plugin", plugin.to_str().expect("UTF-8"), "--storage-engine", "sled"]);
    let cli = raft_host_tests::Cli::new(PROGRAM, &[server.address]);
    for n in 0..KEYS {
        if n == KEYS / 2 {
            cli.run(&["snapshot", "take"]).ok();
        }
        cli.run(&["apply", &set(n)]).ok();
    }
    assert_eq!(server.terminate(), Some(0));
    let packed = std::process::Command::new("tar")
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--exclude=modules", "-cJf"])
        .arg(to)
        .arg("-C")
        .arg(&server.data_dir)
        .arg(".")
        .status();
    assert!(packed.expect("tar runs").success());
}

#[test]
fn a_node_starts_on_the_data_directory_of_the_program_that_settled_the_formats() {
    let packed = folder().join("data-dir-2.tar.xz");
    if is_to_be_written() {
        write_data_directory(&packed);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::new(PROGRAM, dir.path(), "node-1");
    std::fs::create_dir_all(&server.data_dir).expect("a folder");
    let unpacked = std::process::Command::new("tar")
        .arg("-xJf")
        .arg(&packed)
        .arg("-C")
        .arg(&server.data_dir)
        .status();
    assert!(unpacked.expect("tar runs").success());
    server.start(&[]);
    let cli = raft_host_tests::Cli::new(PROGRAM, &[server.address]);
    let count = cli.run(&["query", r#"{"op":"count"}"#]).ok();
    assert!(count.contains(&KEYS.to_string()), "{count}");
    for n in [0, KEYS / 2, KEYS - 1] {
        let query = format!(r#"{{"op":"get","key":"key-{n}"}}"#);
        let value = cli.run(&["query", &query]).ok();
        assert!(value.contains(&format!("value {n}")), "{value}");
    }
    cli.run(&["apply", &set(KEYS)]).ok();
    assert_eq!(server.terminate(), Some(0));
}
