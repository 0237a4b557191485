//! Modules that must be signed: keys, signatures and refusals, on processes.

use std::path::{Path, PathBuf};

use raft_host_tests::hostile::assemble;
use raft_host_tests::{Cli, Cluster, Server, block_on, kv, kv_v2};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

struct Publishers<'a> {
    cluster: &'a Cluster,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

impl Publishers<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.cluster.dir().join(name)
    }

    /// A copy of a module, with no signatures beside it.
    fn module(&self, name: &str, of: &Path) -> PathBuf {
        let path = self.path(name);
        std::fs::copy(of, &path).expect("copied");
        path
    }

    /// Makes a key; returns its id.
    fn generate(&self, name: &str) -> String {
        let file = self.path(name);
        let made =
            self.cluster.cli().run(&["keys", "generate", "--out", text(&file), "-o", "json"]);
        let made: Value = serde_json::from_str(&made.ok()).expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    fn sign(&self, module: &Path, key: &str, more: &[&str]) {
        let key = self.path(key);
        let line = [&["sign", text(module), "--key", text(&key)], more].concat();
        self.cluster.cli().run(&line).ok();
    }

    /// What each node knows of modules, as JSON.
    fn modules(&self) -> Vec<String> {
        self.cluster.wait_for_agreement();
        let nodes = 0..self.cluster.servers.len();
        nodes.map(|at| self.cluster.cli_of(at).run(&["modules", "-o", "json"]).ok()).collect()
    }

    /// Each node refuses alike, and nothing changes.
    fn refused(&self, module: &Path, more: &[&str], words: &[&str]) {
        let before = self.modules();
        for at in 0..self.cluster.servers.len() {
            let line = [&["upgrade", text(module), "--no-rehearsal", "-o", "json"], more].concat();
            let output = self.cluster.cli_of(at).run(&line);
            assert_eq!(output.code, Some(1), "{output:?}");
            let error: Value = serde_json::from_str(&output.stderr).expect("JSON");
            let error = &error["error"];
            assert_eq!(error["reason"], "not_signed", "{error}");
            assert_eq!(error["effect"], "none", "{error}");
            let message = error["message"].as_str().expect("text");
            for words in words {
                assert!(message.contains(words), "{message:?} should contain {words:?}");
            }
        }
        assert_eq!(self.modules(), before);
    }
}

#[test]
fn a_cluster_with_keys_runs_what_is_signed_and_nothing_else_on_every_node() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let cli = cluster.cli();
    let publishers = Publishers { cluster: &cluster };
    assert!(cli.run(&["keys"]).ok().contains("no keys"));
    let [alice, bob] = ["alice.pem", "bob.pem"].map(|name| publishers.generate(name));
    let again = cli.run(&["keys", "generate", "--out", text(&publishers.path("bob.pem"))]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("no key is ever overwritten"), "{}", again.stderr);
    for (name, threshold) in [("alice", "0"), ("bob", "1")] {
        let file = publishers.path(&format!("{name}.pem"));
        let public = cli.run(&["keys", "public", text(&file), "-o", "json"]).ok();
        let public: Value = serde_json::from_str(&public).expect("JSON");
        let public = public["public_key"].as_str().expect("text");
        cli.run(&["keys", "add", name, public, "--threshold", threshold]).ok();
    }
    let too_many = cli.run(&["keys", "threshold", "3"]);
    assert!(too_many.stderr.contains("2 would be trusted"), "{}", too_many.stderr);
    cluster.wait_for_agreement();
    let shown: Vec<String> = (0..3).map(|at| cluster.cli_of(at).run(&["keys"]).ok()).collect();
    assert!(shown[0].contains(&alice) && shown[0].contains("1 of 2 trusted keys"), "{}", shown[0]);
    assert!(shown.iter().all(|other| *other == shown[0]), "{shown:?}");

    // Unsigned; of a key that is not trusted; for another cluster; under another label.
    let next = publishers.module("next.wasm", &kv_v2());
    publishers.refused(&next, &[], &["is not signed"]);
    publishers.generate("mallory.pem");
    let beside = publishers.path("next.wasm.sig");
    let unsigned = || std::fs::remove_file(&beside).expect("it was there");
    publishers.sign(&next, "mallory.pem", &[]);
    publishers.refused(&next, &[], &["has 0 of 1", "is not one of its keys"]);
    unsigned();
    publishers.sign(&next, "alice.pem", &["--cluster-id", "00112233445566778899aabbccddeeff"]);
    publishers.refused(&next, &[], &["is for cluster 0011", &alice]);
    unsigned();
    publishers.sign(&next, "alice.pem", &["--label", "other"]);
    publishers.refused(&next, &[], &["for the label \"other\", not for \"next\""]);
    unsigned();

    // For this cluster, and for any.
    let id = block_on(cluster.client().status()).expect("a status").cluster_id;
    let id = raft_host_tests::hex(&id);
    publishers.sign(&next, "alice.pem", &["--cluster-id", &id]);
    cli.run(&["sign", text(&next), "--verify"]).ok();
    cluster.cli_of(1).run(&["upgrade", text(&next), "--no-rehearsal"]).ok();
    let modules = cli.run(&["modules"]).ok();
    assert!(modules.contains("SIGNED BY") && modules.contains(&alice), "{modules}");
    let all = publishers.modules();
    assert!(all.iter().all(|other| *other == all[0]), "{all:?}");

    // Two of two.
    cli.run(&["keys", "threshold", "2"]).ok();
    let first = publishers.module("first.wasm", &kv());
    publishers.sign(&first, "bob.pem", &["--any-cluster"]);
    publishers.refused(&first, &[], &["the signatures of 2 keys", "has 1 of 2"]);
    publishers.sign(&first, "alice.pem", &[]);
    let written = publishers.path("first.wasm.sig");
    let moved = publishers.path("both.sig");
    std::fs::rename(&written, &moved).expect("moved");
    cli.run(&["upgrade", text(&first), "--no-rehearsal", "--signature", text(&moved)]).ok();

    // Back, by the signature of before; until its key is revoked. Restarts change nothing of that.
    cli.run(&["keys", "threshold", "1"]).ok();
    unsigned();
    cli.run(&["upgrade", text(&next), "--no-rehearsal"]).ok();
    let last = cli.run(&["keys", "revoke", &bob, "--threshold", "2"]);
    assert!(last.stderr.contains("1 would be trusted"), "{}", last.stderr);
    cli.run(&["keys", "revoke", &alice]).ok();
    for at in 0..3 {
        if at == 0 {
            cluster.cli_of(at).run(&["snapshot", "take"]).ok();
        }
        cluster.servers[at].kill();
        cluster.servers[at].start(&[]);
    }
    cluster.leader();
    let publishers = Publishers { cluster: &cluster };
    // Runs on, though nobody would take it any more.
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    cli.run(&["upgrade", text(&first), "--no-rehearsal"]).ok();
    let revoked = format!("key {alice} (alice) was revoked at index");
    publishers.refused(&next, &[], &[&revoked]);
    publishers.sign(&next, "alice.pem", &[]);
    publishers.refused(&next, &[], &[&revoked]);
    let words = cli.run(&["keys", "add", "alice", text(&publishers.path("alice.pem"))]);
    assert!(words.stderr.contains("never trusted again"), "{}", words.stderr);
    publishers.sign(&next, "bob.pem", &[]);
    cli.run(&["upgrade", text(&next), "--no-rehearsal"]).ok();
    let all = publishers.modules();
    assert!(all.iter().all(|other| *other == all[0] && other.contains(&bob)), "{all:?}");
}

#[test]
fn signatures_are_asked_for_when_the_state_is_given_up_and_after_a_restore() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    let publishers = Publishers { cluster: &cluster };
    publishers.generate("key.pem");
    let key = publishers.path("key.pem");
    cli.run(&["keys", "add", "ci", text(&key), "--threshold", "1"]).ok();
    let next = publishers.module("next.wasm", &kv_v2());
    publishers.refused(&next, &["--discard-state", "--yes"], &["is not signed"]);
    let backup = publishers.path("backup");
    cli.run(&["backup", "save", text(&backup)]).ok();

    let restored = Cluster::restored(PROGRAM, &backup);
    let there = Publishers { cluster: &restored };
    restored.leader();
    there.refused(&next, &[], &["is not signed"]);
    let id = block_on(cluster.client().status()).expect("a status").cluster_id;
    let id = raft_host_tests::hex(&id);
    publishers.sign(&next, "key.pem", &["--cluster-id", &id]);
    there.refused(&next, &[], &["is for cluster"]);
    publishers.sign(&next, "key.pem", &["--any-cluster"]);
    restored.cli().run(&["upgrade", text(&next), "--no-rehearsal"]).ok();
}

/// It was proposed without the signatures beside it, and so it was refused.
#[test]
fn a_plugin_that_a_start_brings_later_comes_with_the_signatures_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    // Traps at once: what runs until its fuel is gone takes longer than a command line waits, and
    // does so again at the next start.
    let broken = r#"(func (export "_initialize") (unreachable))"#;
    let assembled = assemble(broken).expect("a module");
    let mut server = Server::new(PROGRAM, dir.path(), "node-1");
    let broken = path("broken.wasm");
    std::fs::write(&broken, assembled).expect("written");
    let said = server.refuses(&["--plugin", text(&broken)]);
    assert!(said.contains("waits for a plugin"), "{said}");
    server.start(&[]);
    let cli = Cli::new(PROGRAM, &[server.address]);
    let (key, module) = (path("key.pem"), path("kv.wasm"));
    cli.run(&["keys", "generate", "--out", text(&key)]).ok();
    cli.run(&["keys", "add", "ci", text(&key), "--threshold", "1"]).ok();
    server.kill();

    std::fs::copy(kv(), &module).expect("copied");
    let start = ["--plugin", text(&module)];
    let said = server.refuses(&start);
    assert!(said.contains("is not signed"), "{said}");
    let beside = path("kv.wasm.sig");
    std::fs::write(&beside, "a poem").expect("written");
    let said = server.refuses(&start);
    assert!(said.contains("kv.wasm.sig: this is no file with signatures"), "{said}");
    std::fs::remove_file(&beside).expect("removed");
    cli.run(&["sign", text(&module), "--key", text(&key)]).ok();
    server.start(&start);
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    // What runs already is not looked at again.
    server.kill();
    std::fs::write(&beside, "a poem").expect("written");
    server.start(&start);
}
