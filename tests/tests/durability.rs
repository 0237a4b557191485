//! One node: what was acknowledged is there after kill -9, whatever the storage.

use raft_host_tests::{Cli, Load, Server, block_on, kv, value};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn survives_kill(storage: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::new(PROGRAM, dir.path(), "node");
    let plugin = kv();
    server.start(&["--plugin", plugin.to_str().expect("UTF-8"), "--storage-engine", storage]);
    let cli = Cli::new(PROGRAM, &[server.address]);
    let client = raft_host_proto::client::Client::connect(
        [server.address.to_string()],
        raft_host_proto::client::ClientOptions::default(),
    )
    .expect("an endpoint");

    let answer = cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]);
    answer.ok();
    for round in 0..3 {
        Load::start(client.clone(), 300).finish(300);
        server.kill();
        // Neither --plugin nor --join, and the storage is remembered too.
        server.start(&["--storage-engine", storage]);
        let count = cli.run(&["query", r#"{"op":"count"}"#]).ok();
        assert!(count.contains("301"), "round {round}: {count}");
    }
    let got = cli.run(&["query", r#"{"op":"get","key":"key-299"}"#]).ok();
    assert!(got.contains(&value(299)), "{got}");
    let status = block_on(client.status()).expect("a status");
    assert_eq!(status.storage, storage);
    assert_eq!(server.terminate(), Some(0), "SIGTERM drains and exits 0");
    server.start(&["--storage-engine", storage]);
    assert!(cli.run(&["query", r#"{"op":"count"}"#]).ok().contains("301"));
}

#[test]
fn acknowledged_commands_survive_kill_with_raft_engine() {
    survives_kill("raft-engine");
}

#[test]
fn acknowledged_commands_survive_kill_with_sled() {
    survives_kill("sled");
}

#[test]
fn the_data_directory_does_not_grow_without_bound() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::new(PROGRAM, dir.path(), "node");
    let plugin = kv();
    server.start(&[
        "--plugin",
        plugin.to_str().expect("UTF-8"),
        "--snapshot-threshold",
        "500",
        "--snapshot-pause-ms",
        "0",
        "--trailing-logs",
        "50",
        // What is young is kept whatever its number, unless told otherwise.
        "--trailing-ms",
        "0",
    ]);
    let client = raft_host_proto::client::Client::connect(
        [server.address.to_string()],
        raft_host_proto::client::ClientOptions::default(),
    )
    .expect("an endpoint");
    // The same keys again and again: the state stays small.
    for _ in 0..20 {
        Load::start(client.clone(), 500).finish(500);
    }
    let status = block_on(client.status()).expect("a status");
    let status = status.group("").expect("the main one");
    // However many commands an entry came to hold.
    let last = status.last_index;
    assert!(status.snapshot_index > last / 2, "no snapshots were taken: {status:?}");
    let kept = last - status.first_index + 1;
    assert!(kept < last / 2, "the log keeps {kept} entries: {status:?}");
}
