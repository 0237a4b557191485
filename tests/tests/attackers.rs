//! Whoever reaches the port may send what they like: no message ends a node, and no number of
//! connections, calls or bytes stops it or takes its memory.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use raft_host_proto::codec::BoundedCodec;
use raft_host_proto::peer::peer_client::PeerClient;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::{peer, v1};
use raft_host_tests::hostile::large;
use raft_host_tests::strangers::frames::{GREETING, open_call};
use raft_host_tests::strangers::{Raw, RawCodec, memory, with_many_files};
use raft_host_tests::{Cli, Cluster, Load, Server, block_on, kv, workspace};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// What an attack may cost beyond what an idle node takes.
const MEMORY_BOUND: u64 = 512 << 20;

/// No member has it, and none will.
const STRANGER: u64 = 1 << 63;

/// What the peers' protocol calls its version.
const PROTOCOL: u32 = *raft_host::transport::PROTOCOLS.end();

fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    block_on(endpoint.connect()).expect("it listens")
}

fn set(key: &str, value: &str) -> v1::ApplyRequest {
    let command = serde_json::json!({ "op": "set", "key": key, "value": value });
    v1::ApplyRequest { command: command.to_string().into(), ..Default::default() }
}

/// Whether the process is there and has not ended by itself.
fn lives(server: &Server) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    status.is_ok_and(|text| !text.contains("State:\tZ"))
}

/// Runs an attack, and says how far the process's memory ever was above what it was before.
fn cost(pid: u32, attack: impl FnOnce()) -> u64 {
    let before = memory(pid, "VmRSS");
    attack();
    let cost = memory(pid, "VmHWM").saturating_sub(before);
    println!("{} MiB beyond {} MiB", cost >> 20, before >> 20);
    cost
}

fn hello(status: &v1::StatusResponse, from: u64) -> peer::Hello {
    peer::Hello {
        cluster_id: status.cluster_id.clone(),
        from,
        from_address: "127.0.0.1:1".to_owned(),
        to: status.node_id,
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        to_address: "127.0.0.1:2".to_owned(),
    }
}

/// Says hello and then this; what the node answers, if it does soon.
fn lie(
    address: SocketAddr,
    hello: peer::Hello,
    message: peer::RaftMessage,
) -> Option<tonic::Status> {
    let hello = peer::PeerEnvelope { hello: Some(hello), messages: Vec::new() };
    let message = peer::PeerEnvelope { hello: None, messages: vec![message] };
    let envelopes = futures::stream::iter([hello, message]).chain(futures::stream::pending());
    let mut client = PeerClient::new(channel(address));
    let answered = async { client.messages(envelopes).await };
    let soon = async { tokio::time::timeout(Duration::from_secs(2), answered).await };
    block_on(soon).ok().and_then(Result::err)
}

/// Messages that ended a node, or all of them.
fn lies(status: &v1::StatusResponse, from: u64) -> Vec<peer::RaftMessage> {
    let base = |kind: i32, term: u64| peer::RaftMessage {
        group: 1,
        kind,
        from,
        to: status.node_id,
        term,
        ..Default::default()
    };
    let group = status.group("").expect("the main one");
    let (term, last) = (group.term, group.last_index);
    let garbage = peer::RaftEntry {
        index: last + 1,
        term,
        kind: 1,
        data: Bytes::from_static(b"\x0f\xff"),
        context: Bytes::new(),
    };
    vec![
        base(6, u64::MAX),
        base(6, term + (1 << 40)),
        peer::RaftMessage { commit: 1_000_000, ..base(6, term) },
        peer::RaftMessage { commit: 1_000_000, ..base(6, term + 1) },
        base(10, 0),
        base(10, term),
        base(8, term),
        base(8, 0),
        base(11, term),
        peer::RaftMessage { index: 1 << 60, ..base(2, term) },
        peer::RaftMessage { index: last + 5, ..base(2, term) },
        peer::RaftMessage { reject: true, reject_hint: u64::MAX, ..base(2, term) },
        peer::RaftMessage { index: last, log_term: 1, ..base(1, term + 1) },
        peer::RaftMessage {
            index: last,
            log_term: term,
            entries: vec![garbage.clone()],
            ..base(1, term)
        },
        peer::RaftMessage { entries: vec![garbage], ..base(14, 0) },
        base(9, term),
        peer::RaftMessage { group: 7, ..base(6, term) },
    ]
}

#[test]
fn no_message_of_a_stranger_or_a_member_ends_a_node() {
    let cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let follower = (0..3).find(|at| *at != leader).expect("three nodes");
    for target in [leader, follower] {
        let address = cluster.servers[target].address;
        let other = cluster.node_id(if target == leader { follower } else { leader });
        let status = cluster.status(target).expect("it serves");
        let refused = lie(address, hello(&status, STRANGER), lies(&status, STRANGER).remove(0));
        let refused = refused.expect("strangers are sent away");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        // In a member's name, and in that of one that may have joined meanwhile.
        for from in [other, 1_000] {
            for at in 0..lies(&status, from).len() {
                let status = cluster.status(target).expect("it serves");
                let message = lies(&status, from).remove(at);
                lie(address, hello(&status, from), message);
                assert!(lives(&cluster.servers[target]), "message {at} ended it");
            }
        }
        assert!(cluster.servers[target].log().contains("makes no sense"));
    }
    cluster.eventually("a write", || {
        cluster
            .cli()
            .run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#])
            .code
            .filter(|c| *c == 0)
    });
    assert!(cluster.servers.iter().all(lives));
}

/// A program that runs the real one with few files.
fn with_few_files(dir: &Path, files: u32) -> String {
    let script = dir.join("few-files");
    let text = format!("#!/bin/sh\nulimit -n {files}\nexec {PROGRAM} \"$@\"\n");
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
    script.to_str().expect("UTF-8").to_owned()
}

#[test]
fn hundreds_of_silent_connections_and_few_files_stop_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = with_few_files(dir.path(), 256);
    let cluster = Cluster::of(&program, &kv(), 3, &[]);
    let leader = cluster.leader();
    let address = cluster.servers[leader].address;
    let silent: Vec<TcpStream> =
        (0..400).map(|_| TcpStream::connect(address).expect("the port is open")).collect();
    let cli = Cli::new(PROGRAM, &[address]);
    for round in 0..20 {
        let command = format!(r#"{{"op":"set","key":"k{round}","value":"1"}}"#);
        cluster.eventually("a write beside them", || {
            cli.run(&["apply", &command]).code.filter(|code| *code == 0)
        });
    }
    let pid = cluster.servers[leader].pid();
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    cluster.eventually("silent connections ended", || (files() < 200).then_some(()));
    assert!(cluster.servers.iter().all(lives));
    drop(silent);
}

/// Whether the other side has ended the connection, whatever it said before.
fn is_ended(connection: &mut TcpStream) -> bool {
    let mut bytes = [0; 4_096];
    loop {
        match connection.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// They stopped all writes, and no other node led: the leader could open no file, and could not dial.
#[test]
fn more_idle_connections_than_files_stop_no_write_and_are_gone_in_time() {
    with_many_files();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = with_few_files(dir.path(), 1_024);
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[api]\nidle_timeout_ms = 4000\n").expect("written");
    let config = ["--config", config.to_str().expect("UTF-8")];
    let cluster = Cluster::of(&program, &kv(), 3, &config);
    let leader = cluster.leader();
    let before = cluster.group(leader).expect("it serves");
    let address = cluster.servers[leader].address;
    // They say nothing, or half a greeting, or greet and do nothing.
    let said = [&b""[..], &GREETING[..20], GREETING];
    let idle = |at: usize| {
        let mut connection = TcpStream::connect(address).expect("the port is open");
        connection.write_all(said[at % 3]).expect("it is read");
        connection.set_nonblocking(true).expect("set");
        connection
    };
    let mut connections: Vec<TcpStream> = (0..1_100).map(idle).collect();
    let load = Load::start(cluster.client(), 2_000);
    connections.extend((0..1_100).map(idle));
    load.finish(2_000);
    let cli = Cli::new(PROGRAM, &[address]);
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let after = cluster.group(leader).expect("it serves");
    assert_eq!((after.role, after.term), (before.role, before.term), "it led all the time");
    cluster.eventually("the end of all of them", || {
        connections.retain_mut(|connection| !is_ended(connection));
        connections.is_empty().then_some(())
    });
    assert!(cluster.servers.iter().all(lives));
}

/// Begins so many calls, at most `most` of them on a connection, and takes no answer. A connection
/// that is ended is followed by another one.
fn open_calls(address: SocketAddr, path: &str, count: usize, most: usize) -> Vec<TcpStream> {
    let (mut connections, mut opened) = (Vec::new(), 0);
    while opened < count {
        let mut connection = TcpStream::connect(address).expect("the port is open");
        connection.set_write_timeout(Some(Duration::from_secs(5))).expect("set");
        let mut here = 0;
        let mut write = connection.write_all(GREETING);
        while write.is_ok() && here < most && opened < count {
            let streams = (here..here + 100).map(|at| u32::try_from(2 * at + 1).expect("few"));
            let frames: Vec<u8> = streams.flat_map(|stream| open_call(stream, path)).collect();
            write = connection.write_all(&frames);
            here += 100;
            opened += 100;
        }
        connections.push(connection);
    }
    connections
}

/// 60,000 streams on one connection kept 1.56 GiB.
#[test]
fn sixty_thousand_open_calls_cost_bounded_memory_and_others_are_served() {
    const CALLS: usize = 60_000;
    with_many_files();
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let (address, pid) = (cluster.servers[0].address, cluster.servers[0].pid());
    let mut rounds = 0;
    let bytes = cost(pid, || {
        for path in [
            "v1.Client/ApplyStream",
            "v1.Client/Apply",
            "peer.v1.Peer/Messages",
            "peer.v1.Peer/Snapshot",
        ] {
            let path = format!("/raft_host.{path}");
            // All on one, whatever it says to that, and as many on each as it allows.
            for most in [CALLS, 500] {
                let held = open_calls(address, &path, CALLS, most);
                rounds += 1;
                let command = format!(r#"{{"op":"set","key":"k{rounds}","value":"1"}}"#);
                cluster.eventually("a write beside them", || {
                    cluster.cli().run(&["apply", &command]).code.filter(|code| *code == 0)
                });
                println!("{path}: {} MiB", memory(pid, "VmRSS") >> 20);
                drop(held);
            }
        }
    });
    assert!(bytes < MEMORY_BOUND, "{} MiB", bytes >> 20);
    assert!(lives(&cluster.servers[0]));
}

/// Its queries burn all the fuel that they may.
const BURNER: &str = r#"(module (memory (export "memory") 1)
  (func (export "raft_fsm_abi_v1"))
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "query") (param i32) (result i32) (loop $again (br $again)) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0)))"#;

/// 64 of them were answered together, and a command waited for all.
#[test]
fn a_command_does_not_wait_for_all_queries_that_burn_their_fuel() {
    const QUERIES: usize = 64;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plugin = dir.path().join("burner.wasm");
    std::fs::write(&plugin, wat::parse_str(BURNER).expect("WAT")).expect("written");
    let cluster = Cluster::of(PROGRAM, &plugin, 1, &[]);
    cluster.cli().run(&["limits", "set", "query_fuel=300_000_000"]).ok();
    let channel = channel(cluster.servers[0].address);
    let answered = block_on(async {
        let mut queries = tokio::task::JoinSet::new();
        for _ in 0..QUERIES {
            let mut client = ClientClient::new(channel.clone());
            let consistency = v1::Consistency::Stale.into();
            let request = v1::QueryRequest { consistency, ..Default::default() };
            queries.spawn(async move { client.query(request).await });
        }
        let take = |answer: Result<Result<tonic::Response<v1::QueryResponse>, _>, _>| {
            let answer = answer.expect("no panic").expect("an answer").into_inner();
            let outcome = answer.outcome.and_then(|outcome| outcome.kind);
            assert!(matches!(outcome, Some(v1::outcome::Kind::Trapped(_))), "{outcome:?}");
            1
        };
        // They are at it.
        let mut answered = take(queries.join_next().await.expect("64 queries"));
        let mut client = ClientClient::new(channel);
        let mut command = std::pin::pin!(client.apply(v1::ApplyRequest::default()));
        loop {
            tokio::select! {
                biased;
                applied = &mut command => {
                    applied.expect("applied");
                    break answered;
                }
                Some(answer) = queries.join_next() => answered += take(answer),
            }
        }
    });
    assert!(answered < QUERIES / 2, "{answered} queries were answered before the command was");
}

#[test]
fn a_forged_hello_makes_nobody_dial() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("set");
    let status = cluster.status(0).expect("it serves");
    let mut forged = hello(&status, STRANGER);
    forged.from_address = listener.local_addr().expect("bound").to_string();
    let message = lies(&status, STRANGER).remove(0);
    let refused = lie(cluster.servers[0].address, forged, message).expect("refused");
    assert!(refused.message().contains("no member"), "{refused:?}");
    // It has been refused by now, and whoever is refused is not dialled.
    assert!(listener.accept().is_err());
}

#[test]
fn messages_of_tiny_parts_cost_no_memory_before_anybody_is_known() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let (address, pid) = (cluster.servers[0].address, cluster.servers[0].pid());
    let attacks = [
        ("/raft_host.v1.Client/ApplyStream", b"\x0a\x00"),
        ("/raft_host.v1.Client/QueryStream", b"\x0a\x00"),
        ("/raft_host.peer.v1.Peer/Messages", b"\x12\x00"),
    ];
    let bytes = cost(pid, || {
        block_on(async {
            let mut calls = tokio::task::JoinSet::new();
            for round in 0..24 {
                let (path, part) = attacks[round % attacks.len()];
                // As large as is decoded, and much larger.
                let size = if round < 12 { 3 << 20 } else { 64 << 20 };
                let message = Bytes::from(part.repeat(size / 2));
                let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("fine");
                calls.spawn(async move {
                    let channel = endpoint.connect().await.expect("it listens");
                    let mut grpc = tonic::client::Grpc::new(channel);
                    grpc.ready().await.expect("connected");
                    let messages = futures::stream::iter([Raw(message)]);
                    let codec = RawCodec;
                    let path = PathAndQuery::from_static(path);
                    let answers = grpc.streaming(Request::new(messages), path, codec).await;
                    match answers {
                        Ok(answers) => answers.into_inner().message().await.map(drop),
                        Err(status) => Err(status),
                    }
                });
            }
            while let Some(ended) = calls.join_next().await {
                ended.expect("no panic").expect_err("refused");
            }
        });
    });
    assert!(bytes < MEMORY_BOUND, "{} MiB", bytes >> 20);
    block_on(ClientClient::new(channel(address)).apply(set("a", "1"))).expect("it serves on");
}

#[test]
fn answers_that_nobody_reads_cost_bounded_memory() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let (address, pid) = (cluster.servers[0].address, cluster.servers[0].pid());
    let large = "x".repeat(1_000_000);
    block_on(ClientClient::new(channel(address)).apply(set("large", &large))).expect("applied");
    let bytes = cost(pid, || {
        block_on(async {
            let mut held = Vec::new();
            for _ in 0..8 {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("fine");
                let channel = endpoint.connect().await.expect("it listens");
                let mut asking = tokio::task::JoinSet::new();
                for _ in 0..300 {
                    let channel = channel.clone();
                    // Taken for a stream, an answer begins and is not read.
                    asking.spawn(async move {
                        let mut grpc = tonic::client::Grpc::new(channel);
                        grpc.ready().await.ok()?;
                        let query = v1::QueryRequest {
                            query: r#"{"op":"get","key":"large"}"#.into(),
                            ..Default::default()
                        };
                        let path = PathAndQuery::from_static("/raft_host.v1.Client/Query");
                        let codec = BoundedCodec::<v1::QueryRequest, v1::QueryResponse>::default();
                        let asked = grpc.server_streaming(Request::new(query), path, codec);
                        let soon = tokio::time::timeout(Duration::from_secs(5), asked);
                        soon.await.ok()?.ok()
                    });
                }
                while let Some(answer) = asking.join_next().await {
                    held.extend(answer.expect("no panic"));
                }
            }
            drop(held);
        });
    });
    assert!(bytes < MEMORY_BOUND, "{} MiB", bytes >> 20);
    block_on(ClientClient::new(channel(address)).apply(set("a", "1"))).expect("it serves on");
}

/// A question takes some bytes, and its answer a million.
#[test]
fn answers_of_streams_that_nobody_reads_cost_bounded_memory() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let (address, pid) = (cluster.servers[0].address, cluster.servers[0].pid());
    let large = "x".repeat(1_000_000);
    block_on(ClientClient::new(channel(address)).apply(set("large", &large))).expect("applied");
    let question =
        v1::QueryRequest { query: r#"{"op":"get","key":"large"}"#.into(), ..Default::default() };
    let queries = (0..300).map(|tag| v1::TaggedQuery {
        tag,
        request: Some(question.clone()),
        ..Default::default()
    });
    let message = v1::QueryStreamRequest { queries: queries.collect() };
    let bytes = cost(pid, || {
        block_on(async {
            let mut held = Vec::new();
            for _ in 0..8 {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("fine");
                let mut client = ClientClient::new(endpoint.connect().await.expect("it listens"));
                for _ in 0..20 {
                    let messages = futures::stream::iter([message.clone()]);
                    let messages = messages.chain(futures::stream::pending());
                    held.extend(client.query_stream(messages).await.ok());
                }
            }
            assert!(held.len() > 100, "most are let in: {}", held.len());
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
    });
    assert!(bytes < MEMORY_BOUND, "{} MiB", bytes >> 20);
    block_on(ClientClient::new(channel(address)).apply(set("a", "1"))).expect("it serves on");
}

/// Uploads a module, and says with which words it is refused.
fn refusal(cluster: &Cluster, module: &[u8]) -> String {
    let file = cluster.dir().join("hostile.wasm");
    std::fs::write(&file, module).expect("written");
    let file = file.to_str().expect("UTF-8");
    cluster.cli().run(&["upgrade", file, "--no-rehearsal"]).failed()
}

#[test]
fn modules_out_of_proportion_cost_no_memory() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let pid = cluster.servers[0].pid();
    let bombs = [
        // Each took a gigabyte or many in the validator or the compiler.
        (large::calls(50_000, 1_000), "0 parameters and 1000 results"),
        (large::calls(3_800_000, 1_000), "0 parameters and 1000 results"),
        (large::calls(3_800_000, 64), "function 4 of the module is too complex"),
        (large::callable(65_000, 1_000), "1000 parameters and 1000 results"),
        (large::types(900_000), "more than 16384 types"),
        (large::straight(7_500_000), "function 4 of the module is too complex"),
        (large::declared(40_000_000), "more than 1048576 elements"),
    ];
    let bytes = cost(pid, || {
        for (module, words) in &bombs {
            let said = refusal(&cluster, module);
            assert!(said.contains(words), "{said} should contain {words:?}");
        }
    });
    assert!(bytes < MEMORY_BOUND, "{} MiB", bytes >> 20);
    block_on(ClientClient::new(channel(cluster.servers[0].address)).apply(set("a", "1")))
        .expect("it serves on");
}

/// A cluster of one node whose modules may take so much.
fn with_compiler(plugin: &str, setting: &str) -> (tempfile::TempDir, Cluster) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("node.toml");
    std::fs::write(&file, format!("[compiler]\n{setting}\n")).expect("written");
    let config = ["--config", file.to_str().expect("UTF-8")];
    let cluster = Cluster::of(PROGRAM, &workspace(plugin), 1, &config);
    (dir, cluster)
}

/// What no bound foresees: here, many small functions and few resources.
#[test]
fn a_module_that_takes_more_than_its_check_may_is_refused_and_the_node_serves_on() {
    let settings = [
        ("memory_max_bytes = 134217728", "takes more than 128 MiB of memory"),
        ("cpu_max_s = 1", "takes more than 1 s of processor time"),
    ];
    let module = large::functions(60_000);
    for (setting, words) in settings {
        let (_dir, mut cluster) = with_compiler("plugins/counter/counter.wasm", setting);
        let pid = cluster.servers[0].pid();
        let bytes = cost(pid, || {
            for _ in 0..2 {
                let said = refusal(&cluster, &module);
                assert!(said.contains(words), "{said} should contain {words:?}");
            }
        });
        assert!(bytes < MEMORY_BOUND, "{} MiB", bytes >> 20);
        assert_eq!(cluster.servers[0].pid(), pid);
        assert!(lives(&cluster.servers[0]));
        // Nothing of it is in the log, and what is active goes on: also where its code is not kept.
        cluster.servers[0].kill();
        let compiled = cluster.dir().join("node-1/modules");
        std::fs::remove_dir_all(&compiled).expect("there is compiled code");
        cluster.servers[0].start(&[]);
        cluster.eventually("the module is back, and no other", || {
            let modules = cluster.cli().run(&["modules"]).stdout;
            assert!(!modules.contains("hostile"), "{modules}");
            modules.contains("counter").then_some(())
        });
    }
}

/// raft-engine's files are open for whatever is started; a module is compiled where they are not.
#[test]
fn who_compiles_a_module_has_none_of_the_files_of_who_started_it() {
    // It waits for its job.
    let mut child = std::process::Command::new("sh")
        .args(["-c", "exec 5</dev/null 9</etc/passwd; exec \"$0\" compile-module", PROGRAM])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let proc = format!("/proc/{}", child.id());
    let is_started = || {
        let command = std::fs::read(format!("{proc}/cmdline")).expect("it runs");
        command.starts_with(PROGRAM.as_bytes())
    };
    let open = || {
        let entries = std::fs::read_dir(format!("{proc}/fd")).expect("it runs");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse::<u32>().ok()).collect::<std::collections::BTreeSet<_>>()
    };
    while !is_started() || open() != [0, 1, 2].into() {
        assert!(std::time::Instant::now() < deadline, "{:?} are open", open());
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("ended");
    child.wait().expect("waited for");
}
