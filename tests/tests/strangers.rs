//! Whoever reaches the port may try to break a node by the protocol below the calls: no such attack takes its
//! memory, and none of them stops an honest client.
//!
//! The time that an honest client's commands take is measured on the same machine right before each attack, and
//! what one in a hundred takes may become ten times as long, or a quarter of a second: attacker, node and client
//! share the machine's few processors, so what is compared is not the node alone. What else goes on there may
//! last as long as a measurement, so there are up to five of them, and the best counts. For the same reason attackers
//! pause for a moment after each burst: they have what a network lets through, not the processor.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::ALL_DESCRIPTORS;
use raft_host_proto::dial::ClientTls;
use raft_host_tests::strangers::frames::{
    CONTINUATION, DATA, END_HEADERS, GREETING, HEADERS, NO_FLAGS, PING, PRIORITY, SETTINGS,
    WINDOW_UPDATE, call_block, frame, head, long_header, open_call, reset,
};
use raft_host_tests::strangers::{Honest, Raw, RawCodec, memory, with_many_files};
use raft_host_tests::{Cli, Cluster, Server, block_on, kv};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// What an attack may cost beyond what the node takes while an honest client works.
const MEMORY_BOUND: u64 = 256 << 20;
/// An honest client's times may grow by this factor.
const SLOWER: u32 = 10;
/// Or to this.
const FLOOR: Duration = Duration::from_millis(250);
/// Times that an attack is looked at, until one passes.
const LOOKS: usize = 5;
/// Those who attack at the same time.
const ATTACKERS: usize = 4;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(5);
const APPLY: &str = "/raft_host.v1.Client/Apply";

/// One attack at a time, or their times would be each other's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a node attacked by all attackers at once; `attack` goes on until it is told to end, and says how often it
/// struck.
fn withstands(what: &str, attack: impl Fn(SocketAddr, &AtomicBool) -> u64 + Sync) -> Cluster {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    withstands_as(cluster, what, attack)
}

fn withstands_as(
    cluster: Cluster,
    what: &str,
    attack: impl Fn(SocketAddr, &AtomicBool) -> u64 + Sync,
) -> Cluster {
    let address = cluster.servers[0].address;
    endures(what, &Honest::of(address), &cluster.servers[0], attack);
    // Whoever comes anew is served as well.
    cluster.eventually("a new client", || {
        let command = r#"{"op":"set","key":"new","value":"1"}"#;
        cluster.cli().run(&["apply", command]).code.filter(|code| *code == 0)
    });
    cluster
}

/// The same of a node that an honest client uses.
fn endures(
    what: &str,
    honest: &Honest,
    node: &Server,
    attack: impl Fn(SocketAddr, &AtomicBool) -> u64 + Sync,
) {
    let (address, pid) = (node.address, node.pid());
    honest.p99();
    let before = memory(pid, "VmRSS");
    let mut looks = 0;
    loop {
        looks += 1;
        let usual = honest.p99();
        let strikes = AtomicU64::new(0);
        let attacked = honest.p99_during(|end| {
            std::thread::scope(|scope| {
                for _ in 0..ATTACKERS {
                    scope.spawn(|| strikes.fetch_add(attack(address, end), Ordering::Relaxed));
                }
            });
        });
        let strikes = strikes.into_inner();
        let cost = memory(pid, "VmHWM").saturating_sub(before);
        println!(
            "{what}: {strikes} strikes; p99 {usual:?}, then {attacked:?}; {} MiB beyond {} MiB",
            cost >> 20,
            before >> 20
        );
        assert!(strikes > 0, "{what}: nothing was tried");
        assert!(cost < MEMORY_BOUND, "{what} cost {} MiB", cost >> 20);
        if attacked <= (usual * SLOWER).max(FLOOR) {
            break;
        }
        assert!(looks < LOOKS, "{what}: p99 {usual:?} became {attacked:?}");
    }
}

/// A connection that has not begun; it waits for nothing for ever.
fn dial(address: SocketAddr) -> Option<TcpStream> {
    let connection = TcpStream::connect(address).ok()?;
    connection.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    Some(connection)
}

/// A connection that has greeted.
fn greet(address: SocketAddr) -> Option<TcpStream> {
    let mut connection = dial(address)?;
    connection.write_all(GREETING).ok()?;
    Some(connection)
}

/// Takes what has been said, if anything, so that the other side can go on saying it.
fn drain(connection: &mut TcpStream) {
    let mut bytes = [0; 16 << 10];
    if connection.set_nonblocking(true).is_ok() {
        while matches!(connection.read(&mut bytes), Ok(read) if read > 0) {}
    }
    connection.set_nonblocking(false).expect("set");
}

/// Says the same again and again on one connection, and on another when that ends. Strikes are bursts.
fn repeat(
    address: SocketAddr,
    end: &AtomicBool,
    begin: &[u8],
    mut burst: impl FnMut(u32) -> Vec<u8>,
) -> u64 {
    let mut strikes = 0;
    while !end.load(Ordering::Relaxed) {
        let Some(mut connection) = greet(address) else { continue };
        if connection.write_all(begin).is_err() {
            continue;
        }
        for round in 0.. {
            if end.load(Ordering::Relaxed) || connection.write_all(&burst(round)).is_err() {
                break;
            }
            drain(&mut connection);
            strikes += 1;
            std::thread::sleep(PAUSE);
        }
    }
    strikes
}

#[test]
fn half_handshakes_stop_nobody() {
    let _alone = alone();
    with_many_files();
    withstands("half handshakes", |address, end| {
        let (mut held, mut strikes) = (Vec::new(), 0);
        while !end.load(Ordering::Relaxed) {
            let Some(mut connection) = dial(address) else { continue };
            let said = strikes as usize % GREETING.len();
            // It may have been ended by now.
            let _ = connection.write_all(&GREETING[..said]);
            held.push(connection);
            strikes += 1;
            std::thread::sleep(PAUSE / 5);
            if held.len() > 500 {
                held.drain(..250);
            }
        }
        strikes
    });
}

/// What a client says first in TLS, for HTTP/2 or in the first contact of a new node.
fn client_hello(tls: &ClientTls, protocol: &[u8]) -> Vec<u8> {
    let mut config = tls.config().expect("files that can be used");
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), name).expect("TLS");
    client.write_tls(&mut hello).expect("memory");
    hello
}

#[test]
fn half_tls_handshakes_stop_nobody() {
    let _alone = alone();
    with_many_files();
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let certs = path("certs").display().to_string();
    let cli = Cli::new(PROGRAM, &[]);
    let made = ["certs", "init", &certs, "--node", "n1=127.0.0.1", "--client", "admin"];
    cli.run(&made).ok();
    let admin = ClientTls::in_folder(&path("certs/clients/admin"));
    let mut node = Server::new(PROGRAM, dir.path(), "node-1");
    node.set_tls(admin.clone());
    let (files, plugin) =
        (path("certs/nodes/n1").display().to_string(), kv().display().to_string());
    node.start(&["--tls", &files, "--plugin", &plugin]);
    let trusting = ClientTls::trusting(path("certs/ca.pem"));
    let hellos = [&b"h2"[..], b"raft-host-join"].map(|name| client_hello(&trusting, name));
    let honest = Honest::secured(node.address, admin.clone());
    endures("half TLS handshakes", &honest, &node, |address, end| {
        let (mut held, mut strikes) = (Vec::new(), 0);
        while !end.load(Ordering::Relaxed) {
            let Some(mut connection) = dial(address) else { continue };
            let hello = &hellos[strikes % 2];
            // A part of it, or all, and nothing after that: the node has answered, and waits.
            let said = if strikes % 3 == 0 { hello.len() } else { strikes * 7 % hello.len() };
            // It may have been ended by now.
            let _ = connection.write_all(&hello[..said]);
            held.push(connection);
            strikes += 1;
            std::thread::sleep(PAUSE / 5);
            if held.len() > 500 {
                held.drain(..250);
            }
        }
        strikes as u64
    });
    Honest::secured(node.address, admin).p99();
}

#[test]
fn headers_that_take_for_ever_stop_nobody() {
    let _alone = alone();
    withstands("slow headers", |address, end| {
        let block = call_block(APPLY);
        let mut strikes = 0;
        let mut slow: Vec<TcpStream> = (0..100).filter_map(|_| greet(address)).collect();
        for connection in &mut slow {
            let announced = u32::try_from(block.len()).expect("short");
            let _ = connection.write_all(&head(HEADERS, END_HEADERS, 1, announced));
        }
        for byte in block.chunks(1) {
            slow.retain_mut(|connection| connection.write_all(byte).is_ok());
            strikes += slow.len() as u64;
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(100));
                if end.load(Ordering::Relaxed) {
                    return strikes;
                }
            }
        }
        strikes
    });
}

/// CVE-2023-44487.
#[test]
fn calls_that_are_given_up_at_once_stop_nobody() {
    let _alone = alone();
    for path in [APPLY, "/raft_host.v1.Client/ApplyStream", "/raft_host.v1.Admin/Status"] {
        withstands(&format!("rapid resets of {path}"), |address, end| {
            repeat(address, end, &[], |round| {
                let streams = (0..50).map(|at| 2 * (round * 50 + at) + 1);
                streams
                    .flat_map(|stream| [open_call(stream, path), reset(stream)].concat())
                    .collect()
            })
        });
    }
}

/// CVE-2024-27316, and headers that are longer than anybody needs.
#[test]
fn headers_without_an_end_stop_nobody() {
    let _alone = alone();
    withstands("continuations", |address, end| {
        let begin = frame(HEADERS, NO_FLAGS, 1, &call_block(APPLY));
        let more = frame(CONTINUATION, NO_FLAGS, 1, &long_header(16_000));
        repeat(address, end, &begin, |_| more.clone())
    });
    withstands("empty continuations", |address, end| {
        let begin = frame(HEADERS, NO_FLAGS, 1, &call_block(APPLY));
        let more = frame(CONTINUATION, NO_FLAGS, 1, &[]).repeat(100);
        repeat(address, end, &begin, |_| more.clone())
    });
    withstands("huge headers", |address, end| {
        let (first, rest) = (call_block(APPLY), long_header(200 << 10));
        repeat(address, end, &[], |round| {
            let stream = 2 * round + 1;
            let mut frames = frame(HEADERS, NO_FLAGS, stream, &first);
            for part in rest.chunks(16_000) {
                frames.extend(frame(CONTINUATION, NO_FLAGS, stream, part));
            }
            frames.extend(frame(CONTINUATION, END_HEADERS, stream, &[]));
            frames
        })
    });
    withstands("headers that name a long one again and again", |address, end| {
        // With indexing: what follows names it by one byte (RFC 7541 §6.1, §6.2.1).
        let mut first = long_header(3_900);
        first[0] = 0x40;
        let block = [call_block(APPLY), first, [0xbe].repeat(10_000)].concat();
        repeat(address, end, &[], |round| frame(HEADERS, END_HEADERS, 2 * round + 1, &block))
    });
}

#[test]
fn frames_that_mean_nothing_stop_nobody() {
    let _alone = alone();
    let floods: [(&str, Vec<u8>); 6] = [
        ("settings", frame(SETTINGS, NO_FLAGS, 0, &[])),
        ("pings", frame(PING, NO_FLAGS, 0, &[7; 8])),
        ("priorities", frame(PRIORITY, NO_FLAGS, 3, &[0, 0, 0, 1, 16])),
        ("window updates", frame(WINDOW_UPDATE, NO_FLAGS, 0, &1_u32.to_be_bytes())),
        ("unknown frames", frame(0xfa, NO_FLAGS, 0, &[0; 64])),
        ("empty data", frame(DATA, NO_FLAGS, 1, &[])),
    ];
    for (what, frame) in floods {
        let begin = if what == "empty data" { open_call(1, APPLY) } else { Vec::new() };
        let burst = frame.repeat(100);
        withstands(what, |address, end| repeat(address, end, &begin, |_| burst.clone()));
    }
}

#[test]
fn frames_longer_than_any_stop_nobody() {
    let _alone = alone();
    withstands("huge frames", |address, end| {
        let begin = [open_call(1, APPLY), head(DATA, NO_FLAGS, 1, (1 << 24) - 1)].concat();
        let content = vec![0; 64 << 10];
        repeat(address, end, &begin, |_| content.clone())
    });
    withstands("messages that announce four gigabytes", |address, end| {
        let mut message = frame(DATA, NO_FLAGS, 1, &[0, 0xff, 0xff, 0xff, 0xff]);
        message.extend(frame(DATA, NO_FLAGS, 1, &[0; 16_000]));
        let begin = open_call(1, APPLY);
        repeat(address, end, &begin, |_| message.clone())
    });
}

/// As many as this process may open, when that is fewer. They are all there before it is looked what they cost.
#[test]
fn ten_thousand_idle_connections_stop_nobody() {
    const CONNECTIONS: usize = 10_000;
    let _alone = alone();
    let files = with_many_files() as usize;
    let each = CONNECTIONS.min(files.saturating_sub(1_000)) / ATTACKERS;
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let (address, pid) = (cluster.servers[0].address, cluster.servers[0].pid());
    let honest = Honest::of(address);
    honest.p99();
    let (before, usual) = (memory(pid, "VmRSS"), honest.p99());
    let dial_all = || {
        let mut held = Vec::new();
        while held.len() < each {
            held.extend(greet(address));
        }
        held
    };
    let held: Vec<TcpStream> = std::thread::scope(|scope| {
        let dialling: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(dial_all)).collect();
        let dialled = dialling.into_iter().flat_map(|thread| thread.join().expect("no panic"));
        dialled.collect()
    });
    let is_well = || {
        let attacked = honest.p99();
        println!("{} connections; p99 {usual:?}, then {attacked:?}", held.len());
        attacked <= (usual * SLOWER).max(FLOOR)
    };
    assert!((0..LOOKS).any(|_| is_well()), "an honest client waits for idle connections");
    let cost = memory(pid, "VmHWM").saturating_sub(before);
    assert!(cost < MEMORY_BOUND, "{} MiB", cost >> 20);
}

/// Both ports are full, and the store still has its files.
#[test]
fn connections_leave_the_store_its_files() {
    const FILES: usize = 400;
    const KEPT: usize = 128;
    let _alone = alone();
    with_many_files();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = dir.path().join("few-files");
    let text = format!("#!/bin/sh\nulimit -n {FILES}\nexec {PROGRAM} \"$@\"\n");
    std::fs::write(&script, text).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("set");
    let program = script.to_str().expect("UTF-8");
    let metrics = format!("127.0.0.1:{}", raft_host_tests::free_port());
    let cluster = Cluster::of(program, &raft_host_tests::kv(), 1, &["--metrics-listen", &metrics]);
    let pid = cluster.servers[0].pid();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let idle = open();
    let metrics: SocketAddr = metrics.parse().expect("an address");
    let cluster = withstands_as(cluster, "connections to both ports", |address, end| {
        let (mut held, mut strikes) = (Vec::new(), 0);
        while !end.load(Ordering::Relaxed) {
            for port in [address, metrics] {
                // A call that does not end is not idle.
                if let Some(mut connection) = greet(port) {
                    let _ = connection.write_all(&open_call(1, APPLY));
                    held.push(connection);
                    strikes += 1;
                }
            }
            std::thread::sleep(PAUSE);
            if strikes % 20 == 0 {
                let files = open();
                // What the node has for itself is of those that are kept.
                assert!(files <= idle + FILES - KEPT, "{files} files are open, {idle} before");
            }
            if held.len() > 1_000 {
                held.drain(..500);
            }
        }
        strikes
    });
    cluster.cli().run(&["snapshot", "take"]).ok();
}

/// All methods of all services that are served, by the path of their requests.
fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for set in [ALL_DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        for file in prost_types::FileDescriptorSet::decode(set).expect("made by a build").file {
            for service in &file.service {
                for method in &service.method {
                    let service = format!("{}.{}", file.package(), service.name());
                    methods.push(format!("/{service}/{}", method.name()));
                }
            }
        }
    }
    let reflection = ["v1", "v1alpha"]
        .map(|version| format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"));
    methods.extend(reflection);
    assert!(methods.len() > 35, "{methods:?}");
    methods
}

fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    // It begins a task.
    block_on(async { endpoint.connect_lazy() })
}

/// Sends this as a message; what it is answered, if anything soon.
fn send(channel: &Channel, path: &str, message: Bytes) -> Option<Code> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    let path = PathAndQuery::try_from(path.to_owned()).expect("a path");
    let mut request = Request::new(futures::stream::iter([Raw(message)]));
    request.set_timeout(Duration::from_secs(2));
    let call = async {
        client.ready().await.ok()?;
        let answer = client.streaming(request, path, RawCodec).await;
        match answer {
            Err(status) => Some(status.code()),
            Ok(answer) => {
                let mut answers = answer.into_inner();
                loop {
                    match answers.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => return Some(Code::Ok),
                        Err(status) => return Some(status.code()),
                    }
                }
            }
        }
    };
    block_on(async { tokio::time::timeout(Duration::from_secs(3), call).await.ok().flatten() })
}

#[test]
fn random_bytes_to_every_method_stop_nobody() {
    let _alone = alone();
    let methods = methods();
    let seeds = AtomicU64::new(1);
    let cluster = withstands("random bytes", |address, end| {
        let mut random = ChaCha8Rng::seed_from_u64(seeds.fetch_add(1, Ordering::Relaxed));
        let (channel, mut strikes) = (channel(address), 0);
        while !end.load(Ordering::Relaxed) {
            let path = &methods[random.random_range(0..methods.len())];
            // Some of them are requests; what those ask for does a lone node no harm.
            let length = 1 << random.random_range(0..17);
            let mut message = vec![0; random.random_range(1..=length)];
            random.fill_bytes(&mut message);
            // A field that could be one, so that more than the first byte is looked at.
            message[0] = [0x08, 0x0a, 0x10, 0x12, 0x1a, 0x22][random.random_range(0..6)];
            send(&channel, path, message.into());
            strikes += 1;
            std::thread::sleep(PAUSE);
        }
        strikes
    });
    // Each at least once, and none of them is a failure of the node.
    let channel = channel(cluster.servers[0].address);
    for path in methods.iter().filter(|path| path.starts_with("/raft_host.")) {
        let answered = send(&channel, path, Bytes::from_static(b"\x0b\xff\xff\xff"));
        assert!(answered.is_none_or(|code| code != Code::Ok), "{path}: {answered:?}");
    }
    let members = cluster.cli().run(&["members", "-o", "json"]).ok();
    assert!(members.contains("node_id"), "{members}");
}

#[test]
fn messages_of_a_million_empty_parts_stop_nobody() {
    let _alone = alone();
    let methods = methods();
    // Empty parts of the first field, of the second, and of one that nobody knows.
    let messages: Vec<Bytes> =
        [0x0a, 0x12, 0x7a].into_iter().map(|tag| [tag, 0].repeat(1 << 20).into()).collect();
    withstands("empty parts", |address, end| {
        let (channel, mut strikes) = (channel(address), 0);
        for (path, message) in
            methods.iter().flat_map(|path| messages.iter().map(move |it| (path, it))).cycle()
        {
            if end.load(Ordering::Relaxed) {
                break;
            }
            send(&channel, path, message.clone());
            strikes += 1;
            // They are long.
            std::thread::sleep(10 * PAUSE);
        }
        strikes
    });
}

/// The port of metrics speaks HTTP/1, and is small.
#[test]
fn slow_requests_to_the_metrics_leave_them_to_others() {
    let _alone = alone();
    let metrics = format!("127.0.0.1:{}", raft_host_tests::free_port());
    let cluster = Cluster::new(PROGRAM, 1, &["--metrics-listen", &metrics]);
    let address: SocketAddr = metrics.parse().expect("an address");
    let pid = cluster.servers[0].pid();
    let before = memory(pid, "VmRSS");
    let mut slow: Vec<TcpStream> = (0..500).filter_map(|_| dial(address)).collect();
    let mut scrapes = 0;
    for byte in b"GET /metrics HTTP/1.1\r\nX-Slow: ".iter().chain([b'x'].iter().cycle()).take(100) {
        slow.retain_mut(|connection| connection.write_all(&[*byte]).is_ok());
        std::thread::sleep(Duration::from_millis(50));
        scrapes += usize::from(scrape(address));
    }
    assert!(scrapes > 10, "{scrapes} scrapes of 100 got through");
    let mut endless = dial(address).expect("the port is open");
    let header = [b"X: ", &[b'x'; 8_000][..], b"\r\n"].concat();
    let mut written = endless.write_all(b"GET /metrics HTTP/1.1\r\n");
    while written.is_ok() {
        written = endless.write_all(&header);
    }
    let cost = memory(pid, "VmHWM").saturating_sub(before);
    assert!(cost < MEMORY_BOUND, "{} MiB", cost >> 20);
}

fn scrape(address: SocketAddr) -> bool {
    let Some(mut connection) = dial(address) else { return false };
    let asked =
        connection.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    match asked.and_then(|()| connection.read_to_string(&mut text)) {
        Ok(_) => text.starts_with("HTTP/1.1 200"),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::InvalidData, "{error}");
            false
        }
    }
}
