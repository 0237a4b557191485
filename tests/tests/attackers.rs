//! Whoever reaches the port may send what they like: no message ends a node, and no number of
//! connections, calls or bytes stops it or takes its memory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use raft_host_proto::codec::BoundedCodec;
use raft_host_proto::v1;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::v1::peer_client::PeerClient;
use raft_host_tests::hostile::large;
use raft_host_tests::{Cli, Cluster, Server, block_on, kv, workspace};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// What an attack may cost beyond what an idle node takes.
const MEMORY_BOUND: u64 = 512 << 20;

/// No member has it, and none will.
const STRANGER: u64 = 1 << 63;

/// What the peers' protocol calls its version.
const PROTOCOL: u32 = raft_host::transport::PROTOCOL_VERSION;

fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    block_on(endpoint.connect()).expect("it listens")
}

fn set(key: &str, value: &str) -> v1::ApplyRequest {
    let command = serde_json::json!({ "op": "set", "key": key, "value": value });
    v1::ApplyRequest { command: command.to_string().into(), ..Default::default() }
}

/// A number of `/proc/<pid>/status`, in bytes.
fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kib = line.trim_start_matches(':').split_whitespace().next().expect("a number");
    kib.parse::<u64>().expect("a number") << 10
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

fn hello(status: &v1::StatusResponse, from: u64) -> v1::Hello {
    let digits = status.cluster_id.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits")
    };
    v1::Hello {
        cluster_id: digits.map(byte).collect::<Vec<u8>>().into(),
        from,
        from_address: "127.0.0.1:1".to_owned(),
        to: status.node_id,
        protocol_version: PROTOCOL,
    }
}

/// Says hello and then this; what the node answers, if it does soon.
fn lie(address: SocketAddr, hello: v1::Hello, message: v1::RaftMessage) -> Option<tonic::Status> {
    let hello = v1::PeerEnvelope { hello: Some(hello), messages: Vec::new() };
    let message = v1::PeerEnvelope { hello: None, messages: vec![message] };
    let envelopes = futures::stream::iter([hello, message]).chain(futures::stream::pending());
    let mut client = PeerClient::new(channel(address));
    let answered = async { client.messages(envelopes).await };
    let soon = async { tokio::time::timeout(Duration::from_secs(2), answered).await };
    block_on(soon).ok().and_then(Result::err)
}

/// Messages that ended a node, or all of them.
fn lies(status: &v1::StatusResponse, from: u64) -> Vec<v1::RaftMessage> {
    let base = |kind: u32, term: u64| v1::RaftMessage {
        group: 1,
        kind,
        from,
        to: status.node_id,
        term,
        ..Default::default()
    };
    let (term, last) = (status.term, status.last_index);
    let garbage = v1::RaftEntry {
        index: last + 1,
        term,
        kind: 1,
        data: Bytes::from_static(b"\x0f\xff"),
        context: Bytes::new(),
    };
    vec![
        base(6, u64::MAX),
        base(6, term + (1 << 40)),
        v1::RaftMessage { commit: 1_000_000, ..base(6, term) },
        v1::RaftMessage { commit: 1_000_000, ..base(6, term + 1) },
        base(10, 0),
        base(10, term),
        base(8, term),
        base(8, 0),
        base(11, term),
        v1::RaftMessage { index: 1 << 60, ..base(2, term) },
        v1::RaftMessage { index: last + 5, ..base(2, term) },
        v1::RaftMessage { reject: true, reject_hint: u64::MAX, ..base(2, term) },
        v1::RaftMessage { index: last, log_term: 1, ..base(1, term + 1) },
        v1::RaftMessage {
            index: last,
            log_term: term,
            entries: vec![garbage.clone()],
            ..base(1, term)
        },
        v1::RaftMessage { entries: vec![garbage], ..base(14, 0) },
        base(9, term),
        v1::RaftMessage { group: 7, ..base(6, term) },
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
    let paths = ["/raft_host.v1.Client/ApplyStream", "/raft_host.v1.Peer/Messages"];
    let parts = [&b"\x0a\x00"[..], b"\x12\x00"];
    let bytes = cost(pid, || {
        block_on(async {
            let mut calls = tokio::task::JoinSet::new();
            for round in 0..24 {
                let (path, part) = (paths[round % 2], parts[round % 2]);
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

/// Uploads a module, and says with which words it is refused.
fn refusal(cluster: &Cluster, module: &[u8]) -> String {
    let file = cluster.dir().join("hostile.wasm");
    std::fs::write(&file, module).expect("written");
    let file = file.to_str().expect("UTF-8");
    cluster.cli().run(&["upgrade", file]).failed()
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

/// Bytes that are sent as a message as they are.
struct Raw(Bytes);

struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Raw;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Raw;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Raw,
        to: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Self::Error> {
        bytes::BufMut::put(to, item.0);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Bytes>, Self::Error> {
        let length = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, length)))
    }
}
