//! Exactly once, whatever is answered and whoever leads.

use std::path::PathBuf;

use raft_host_proto::client::{Client, PipelineOptions, PipelineResult};
use raft_host_proto::v1;
use raft_host_tests::{Cluster, block_on};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// A command is the length of its answer, as four bytes; a query is answered with the number of
/// commands that ran, as eight.
const GUEST: &str = r#"(module
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (memory (export "memory") 2 2)
  (global $count (mut i64) (i64.const 0))
  (func (export "raft_fsm_abi_v1"))
  (func (export "apply") (param $len i32) (result i32)
    (local $left i32) (local $part i32)
    (drop (call $read (i32.const 0) (i32.const 4)))
    (local.set $left (i32.load (i32.const 0)))
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $left)))
      (local.set $part (select (local.get $left) (i32.const 65536)
        (i32.lt_u (local.get $left) (i32.const 65536))))
      (call $write (i32.const 65536) (local.get $part))
      (local.set $left (i32.sub (local.get $left) (local.get $part)))
      (br $more)))
    (i32.const 0))
  (func $told (i64.store (i32.const 16) (global.get $count))
    (call $write (i32.const 16) (i32.const 8)))
  (func (export "query") (param i32) (result i32) (call $told) (i32.const 0))
  (func (export "snapshot") (result i32) (call $told) (i32.const 0))
  (func (export "restore") (param i32) (result i32)
    (drop (call $read (i32.const 16) (i32.const 8)))
    (global.set $count (i64.load (i32.const 16))) (i32.const 0)))"#;

fn cluster() -> (Cluster, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plugin: PathBuf = dir.path().join("lengths.wasm");
    std::fs::write(&plugin, wat::parse_str(GUEST).expect("WAT")).expect("written");
    (Cluster::of(PROGRAM, &plugin, 3, &[]), dir)
}

/// Commands that ran.
fn count(client: &Client) -> u64 {
    let asked = client.query("", v1::Consistency::Linearizable);
    let answer = block_on(asked).expect("an answer").outcome.and_then(|outcome| outcome.kind);
    let Some(v1::outcome::Kind::Ok(bytes)) = answer else { panic!("{answer:?}") };
    u64::from_le_bytes(bytes[..].try_into().expect("eight bytes"))
}

fn length(result: PipelineResult) -> usize {
    let response = result.result.unwrap_or_else(|error| panic!("{}: {error}", result.tag));
    match response.outcome.and_then(|outcome| outcome.kind) {
        Some(v1::outcome::Kind::Ok(bytes)) => bytes.len(),
        other => panic!("{other:?}"),
    }
}

/// Sessions used to forget answers that their clients did not have yet when they were many or long;
/// commands that were sent again below them were refused for ever.
#[test]
fn commands_with_answers_of_any_length_run_once_through_changes_of_leadership() {
    let (cluster, _dir) = cluster();
    let client = cluster.client();
    let mut ran = 0;
    let rounds = [(1, 3_000), (64 << 10, 600), (1 << 20, 60), (4 << 20, 16)];
    let rounds = [false, true].into_iter().flat_map(|ordered| rounds.map(|round| (round, ordered)));
    for ((length_asked, commands), ordered) in rounds {
        let options = PipelineOptions { window: 2048, ..PipelineOptions::default() };
        let (sender, mut results) = block_on(async {
            match ordered {
                true => client.open_ordered_session(None).await.map(|it| it.pipeline(options)),
                false => client.open_session(None).await.map(|it| it.pipeline(options)),
            }
        })
        .expect("a session");
        let submitting = std::thread::spawn(move || {
            for _ in 0..commands {
                let command = (length_asked as u32).to_le_bytes().to_vec();
                block_on(sender.send(command)).expect("the results are taken");
            }
        });
        let mut answered = 0;
        while let Some(result) = block_on(results.next()) {
            assert_eq!(length(result), length_asked);
            answered += 1;
            if answered == commands / 4 || answered == commands / 2 {
                // Whom it moves to does not matter, nor whether it was moving by itself.
                cluster.cli().run(&["members", "transfer"]);
            }
        }
        submitting.join().expect("all were submitted");
        ran += commands;
        assert_eq!(
            (answered, count(&client)),
            (commands, ran),
            "{length_asked} bytes each, {ordered}"
        );
    }
}

#[test]
fn a_file_of_commands_with_long_answers_is_applied_once_though_its_leader_is_killed() {
    let (mut cluster, dir) = cluster();
    // As bytes: 64 KiB, and no line's end among them.
    let command = [0, 0, 1, 0];
    let path = dir.path().join("commands");
    let lines: Vec<u8> = (0..800).flat_map(|_| [&command[..], b"\n"].concat()).collect();
    std::fs::write(&path, lines).expect("written");
    let cli = cluster.cli();
    let path = path.to_str().expect("UTF-8").to_owned();
    let applying = std::thread::spawn(move || cli.run(&["apply", "--lines", &path]));
    let leader = cluster.leader();
    cluster.eventually("some progress", || (count(&cluster.client_of(leader)) > 150).then_some(()));
    cluster.servers[leader].kill();
    cluster.servers[leader].start(&[]);
    let said = applying.join().expect("it ends").ok();
    assert!(said.contains("800"), "{said}");
    assert_eq!(count(&cluster.client()), 800);
}

#[test]
fn sessions_of_others_survive_whoever_opens_too_many() {
    let (cluster, _dir) = cluster();
    let client = cluster.client();
    let session = block_on(client.open_session(None)).expect("a session");
    let one = 1_u32.to_le_bytes().to_vec();
    block_on(session.apply(one.clone())).expect("applied");
    // Raw calls: nobody keeps these alive, and nobody closes them.
    let address = format!("http://{}", cluster.servers[cluster.leader()].address);
    let refused = block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(address).expect("an address");
        let channel = channel.connect().await.expect("it listens");
        for round in 0..64 {
            let opening = (0..256).map(|_| {
                let mut client = v1::client_client::ClientClient::new(channel.clone());
                let request = v1::OpenSessionRequest { ttl_ms: 86_400_000, ..Default::default() };
                tokio::spawn(async move { client.open_session(request).await })
            });
            for opened in opening.collect::<Vec<_>>() {
                if let Err(status) = opened.await.expect("no panic") {
                    return (round, status);
                }
            }
        }
        panic!("there is no limit");
    });
    let (round, status) = refused;
    assert!(round >= 39, "{status}");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert_eq!(status.metadata().get(raft_host_proto::EFFECT_KEY).expect("said"), "none");
    block_on(session.apply(one)).expect("its session is still there");
}
