//! What people do wrong: a clear message each, a failing exit code, and nothing lost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use raft_host_tests::{Cli, Cluster, Server, kv, kv_v2};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn server(dir: &Path) -> Server {
    Server::new(PROGRAM, dir, "node")
}

fn plugin() -> String {
    kv().to_str().expect("UTF-8").to_owned()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_missing_or_bad_plugin_is_named_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = server(dir.path());
    says(&node.refuses(&["--plugin", "/no/such/plugin.wasm"]), &["/no/such/plugin.wasm"]);
    says(&node.refuses(&["--plugin", dir.path().to_str().expect("UTF-8")]), &["irectory"]);
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "hello").expect("written");
    says(&node.refuses(&["--plugin", text.to_str().expect("UTF-8")]), &["text.wasm", "wasm"]);
    assert!(!node.data_dir.exists(), "a refused start left a data directory");
}

#[test]
fn an_empty_data_directory_needs_a_plugin_or_a_cluster_and_not_both() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = server(dir.path());
    says(&node.refuses(&[]), &["--plugin", "--join"]);
    says(&node.refuses(&["--plugin", &plugin(), "--join", "127.0.0.1:1"]), &["--plugin", "--join"]);
}

#[test]
fn a_busy_port_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = server(dir.path());
    let _holder = TcpListener::bind(node.address).expect("the port is free");
    let output = Cli::new(PROGRAM, &[]).run(&[
        "--data-dir",
        node.data_dir.to_str().expect("UTF-8"),
        "--listen",
        &node.address.to_string(),
        "--plugin",
        &plugin(),
    ]);
    says(&output.failed(), &[&node.address.to_string(), "--listen"]);
}

#[test]
fn contradictory_timings_and_unknown_settings_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = server(dir.path());
    let plugin = plugin();
    let timings = ["--plugin", &plugin, "--heartbeat-ms", "500", "--election-ms", "600"];
    says(&node.refuses(&timings), &["heartbeat", "election", "500", "600"]);
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[node]\nheartbeat_millis = 5\n").expect("written");
    let config = ["--plugin", &plugin, "--config", file.to_str().expect("UTF-8")];
    says(&node.refuses(&config), &["heartbeat_millis", "config.toml"]);
    says(&node.refuses(&["--no-such-flag"]), &["--no-such-flag"]);
    says(&node.refuses(&["--plugin", &plugin, "--storage-engine", "floppy"]), &["floppy", "sled"]);
}

#[test]
fn foreign_and_locked_data_directories_are_refused_untouched() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plugin = plugin();

    let mut node = server(dir.path());
    std::fs::create_dir(&node.data_dir).expect("created");
    std::fs::write(node.data_dir.join("thesis.tex"), "years of work").expect("written");
    says(&node.refuses(&["--plugin", &plugin]), &["thesis.tex"]);
    let kept = std::fs::read_to_string(node.data_dir.join("thesis.tex")).expect("still there");
    assert_eq!(kept, "years of work");

    let mut first = Server::new(PROGRAM, dir.path(), "first");
    first.start(&["--plugin", &plugin]);
    let mut second = Server::new(PROGRAM, dir.path(), "first");
    says(&second.refuses(&[]), &["first"]);
    first.terminate();
    says(&first.refuses(&["--storage-engine", "sled"]), &["sled", "raft-engine"]);
    first.start(&[]);
}

#[test]
fn another_plugin_at_start_changes_nothing_and_says_how_to_upgrade() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = server(dir.path());
    node.start(&["--plugin", &plugin()]);
    let cli = Cli::new(PROGRAM, &[node.address]);
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    node.terminate();
    node.start(&["--plugin", kv_v2().to_str().expect("UTF-8")]);
    cli.run(&["query", r#"{"op":"get","key":"a"}"#]).ok();
    says(&node.log(), &["raft-host upgrade"]);
    cli.run(&["apply", r#"{"op":"set","key":"b","value":"2","ttl_ms":5}"#]).failed();
}

#[test]
fn commands_that_cannot_be_are_refused_and_the_node_serves_on() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    cli.run(&["apply", ""]).failed();
    cli.run(&["apply", "{\"op\":"]).failed();
    let huge = cluster.dir().join("huge");
    std::fs::write(&huge, vec![b'x'; 10 << 20]).expect("written");
    let said = cli.run(&["apply", &format!("@{}", huge.display())]).failed();
    says(&said, &["bytes"]);
    says(&cli.run(&["apply", "@/no/such/file"]).failed(), &["/no/such/file"]);
    cli.run(&["query", "{"]).failed();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    assert!(cli.run(&["query", r#"{"op":"get","key":"a"}"#]).ok().contains('1'));
}

#[test]
fn a_module_without_query_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let module = wat::parse_str(
        r#"(module
            (memory (export "memory") 1)
            (func (export "raft_fsm_abi_v1"))
            (func (export "apply") (param i32) (result i32) i32.const 0)
            (func (export "snapshot") (result i32) i32.const 0)
            (func (export "restore") (param i32) (result i32) i32.const 0))"#,
    )
    .expect("WAT");
    let file = dir.path().join("mute.wasm");
    std::fs::write(&file, module).expect("written");
    let mut node = server(dir.path());
    node.start(&["--plugin", file.to_str().expect("UTF-8")]);
    let cli = Cli::new(PROGRAM, &[node.address]);
    cli.run(&["apply", "anything"]).ok();
    says(&cli.run(&["query", "anything"]).failed(), &["query"]);
}

#[test]
fn joins_to_a_wrong_cluster_or_with_a_used_id_are_refused() {
    let mut cluster = Cluster::new(PROGRAM, 2, &[]);
    let seed = cluster.servers[0].address.to_string();
    let dir = tempfile::tempdir().expect("a temporary directory");

    let mut twin = Server::new(PROGRAM, dir.path(), "twin");
    let used = cluster.node_id(1).to_string();
    says(&twin.refuses(&["--join", &seed, "--node-id", &used]), &[&used, "in use"]);

    let mut stranger = Server::new(PROGRAM, dir.path(), "stranger");
    stranger.start(&["--plugin", &plugin()]);
    stranger.terminate();
    says(&stranger.refuses(&["--join", &seed]), &["cluster"]);
    stranger.start(&[]);

    let id = cluster.node_id(1).to_string();
    cluster.cli_of(0).run(&["members", "remove", &id]).ok();
    let last = cluster.node_id(0).to_string();
    says(&cluster.cli_of(0).run(&["members", "remove", &last]).failed(), &["last voter"]);
    says(&cluster.cli_of(0).run(&["members", "promote", "99"]).failed(), &["99"]);
    cluster.servers[1].kill();
    cluster.cli_of(0).run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
}

#[test]
fn garbage_on_the_port_hurts_nobody() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let address = cluster.servers[0].address;
    let mut noise = vec![0u8; 200_000];
    let mut state = 12345u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for start in [&b"GET / HTTP/1.1\r\n\r\n"[..], &b""[..], &preface[..]] {
        let mut stream = TcpStream::connect(address).expect("it listens");
        // The server may hang up in the middle; that is its right.
        let _ = stream.write_all(start).and_then(|()| stream.write_all(&noise));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    cluster.cli().run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
}

#[test]
fn an_unreachable_cluster_is_a_clear_error() {
    let nobody = Cli::new(PROGRAM, &[([127, 0, 0, 1], raft_host_tests::free_port()).into()]);
    let said = nobody.run(&["--timeout", "2s", "status"]);
    let said = if said.code == Some(2) { nobody.run(&["status", "--timeout", "2s"]) } else { said };
    says(&said.failed(), &["127.0.0.1"]);
}

#[test]
fn check_says_in_one_line_what_is_wrong_with_a_module_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cli = Cli::new(PROGRAM, &[]);
    let check = |name: &str, bytes: &[u8]| {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).expect("written");
        cli.run(&["check", file.to_str().expect("UTF-8")])
    };
    let wat = |text: &str| wat::parse_str(text).expect("WAT");
    let import = r#"(module (import "env" "now" (func (result i64))))"#;
    for (name, module, parts) in [
        ("text.wasm", b"(module)".to_vec(), ["not a WebAssembly binary", "wat2wasm"]),
        ("empty.wasm", Vec::new(), ["not a WebAssembly binary", "give the .wasm file"]),
        ("bare.wasm", wat("(module)"), ["which guest ABI", "export an empty function"]),
        ("import.wasm", wat(import), ["`env.now`", "import only what guest-sdk/ABI.md names"]),
    ] {
        let said = check(name, &module).failed();
        says(&said, &[&format!("{name} would be refused: "), parts[0], parts[1]]);
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    says(&cli.run(&["check", "/no/such/plugin.wasm"]).failed(), &["/no/such/plugin.wasm"]);
    says(&cli.run(&["check", dir.path().to_str().expect("UTF-8")]).failed(), &["irectory"]);

    // A module that a cluster would run, and which forgets: told in the report.
    let forgetful = wat(r#"(module
        (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "raft_fsm_abi_v1"))
        (func (export "apply") (param i32) (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
            (i32.const 0))
        (func (export "snapshot") (result i32)
            (call $write (i32.const 0) (i32.const 4))
            (i32.const 0))
        (func (export "restore") (param i32) (result i32) (i32.const 0)))"#);
    let output = check("forgetful.wasm", &forgetful);
    assert_eq!(output.code, Some(1), "{output:?}");
    let parts = ["FAILED", "something is lost", "write every part of the state", "not fit"];
    says(&output.stdout, &parts);
}

/// A removal that leaves two voters of which one is dead, a transfer to a dead voter, and a
/// promotion of a node that nobody ever reached: each of them stopped the cluster for good, or all
/// writes for as long as the client tried.
#[test]
fn changes_that_would_stop_a_cluster_are_refused_with_the_reason() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let dead = (leader + 1) % 3;
    let live = (leader + 2) % 3;
    let (dead_id, live_id) = (cluster.node_id(dead).to_string(), cluster.node_id(live).to_string());
    cluster.servers[dead].kill();
    let cli = cluster.cli_of(leader);
    cluster.eventually("the leader to notice", || {
        let group = cluster.group(leader)?;
        let peer = group.peers.iter().find(|peer| peer.node_id.to_string() == dead_id)?;
        (!peer.recently_active).then_some(())
    });
    let leader_id = cluster.node_id(leader).to_string();
    for id in [&live_id, &leader_id] {
        let refused = cli.run(&["members", "remove", id]).failed();
        says(&refused, &["1 of 2 voters heard from", "2 needed", "--force", &dead_id]);
    }
    says(&cli.run(&["members", "transfer", &dead_id]).failed(), &["has not been heard from"]);
    assert_eq!(cluster.leader(), leader, "leadership moved for nothing");

    let added = cli.run(&["members", "add", "127.0.0.1:1"]).ok();
    says(&added, &["127.0.0.1:1", "learner"]);
    let refused = cli.run(&["members", "promote", "4"]).failed();
    says(&refused, &["learner 4", "not been heard from"]);

    for (address, words) in [
        ("0.0.0.0:7400", "cannot dial"),
        ("[::]:7400", "cannot dial"),
        ("a\nb:7400", "HOST:PORT"),
        ("user@host:7400", "HOST:PORT"),
    ] {
        says(&cli.run(&["members", "add", address]).failed(), &[words]);
    }
    let huge = u64::MAX.to_string();
    let refused = cli.run(&["members", "add", "127.0.0.1:2", "--node-id", &huge]).failed();
    says(&refused, &["too high", "next free one is 5"]);
    // Whoever knows better may do all; and the dead one may go without that.
    cli.run(&["members", "remove", "4"]).ok();
    cli.run(&["members", "remove", &dead_id]).ok();
    cli.run(&["members", "remove", &live_id, "--force"]).ok();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
}
