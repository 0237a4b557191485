//! Processes that speak TLS: who gets in, who does not and is told why, and new certificates while they run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use raft_host::certs::{Authority, Host, Issued, Validity};
use raft_host::types::{ClusterId, NodeId};
use raft_host_proto::client::{Client, ClientOptions};
use raft_host_proto::dial::{ClientTls, Dialer};
use raft_host_proto::peer::membership_client::MembershipClient;
use raft_host_proto::peer::peer_client::PeerClient;
use raft_host_proto::{peer, v1};
use raft_host_tests::{Cli, Load, Server, block_on, free_port, kv};
use tonic::{Code, Status};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const CLUSTER: ClusterId = ClusterId([0x5c; 16]);

fn days(days: u32) -> Validity {
    Validity::days(SystemTime::now(), days).expect("days")
}

fn authority() -> Authority {
    Authority::new(CLUSTER, days(100)).expect("randomness")
}

fn node(authority: &Authority, cluster: ClusterId, id: u64) -> Issued {
    let here = [Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    authority.issue_node(cluster, NodeId(id), &here, days(90)).expect("issued")
}

fn client(authority: &Authority, validity: Validity) -> Issued {
    authority.issue_client(CLUSTER, "admin".parse().expect("a name"), validity).expect("issued")
}

/// A file that is never seen half written.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

fn folder(dir: PathBuf, ca: &str, issued: &Issued) -> PathBuf {
    std::fs::create_dir_all(&dir).expect("a folder");
    write(&dir.join("ca.pem"), ca);
    write(&dir.join("certificate.pem"), &issued.certificate);
    write(&dir.join("key.pem"), issued.key.pem());
    dir
}

/// Three nodes with certificates, and a client with one.
struct Secured {
    authority: Authority,
    servers: Vec<Server>,
    client: PathBuf,
    /// Goes last: servers of a failed test show their logs.
    dir: tempfile::TempDir,
}

impl Secured {
    fn new(config: &str) -> Secured {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = authority();
        let ca = authority.certificate_pem();
        let client = folder(dir.path().join("client"), ca, &client(&authority, days(90)));
        write(&dir.path().join("config.toml"), config);
        let mut secured = Secured { dir, authority, servers: Vec::new(), client };
        for id in 1..=3 {
            secured.add(id);
        }
        secured.eventually("three voters", |secured| {
            let members = block_on(secured.client_of(0).members()).ok()?.members;
            let voters = members.iter().filter(|member| member.is_voter()).count();
            (voters == 3).then_some(())
        });
        secured
    }

    fn files(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("tls-{id}"))
    }

    fn add(&mut self, id: u64) {
        let issued = node(&self.authority, CLUSTER, id);
        let files = folder(self.files(id), self.authority.certificate_pem(), &issued);
        let mut server = Server::new(PROGRAM, self.dir.path(), &format!("node-{id}"));
        server.set_tls(ClientTls::in_folder(&self.client));
        let begin = match self.servers.first() {
            None => ["--plugin".to_owned(), kv().display().to_string()],
            Some(seed) => ["--join".to_owned(), seed.address.to_string()],
        };
        let config = self.dir.path().join("config.toml");
        let (files, config) = (files.display().to_string(), config.display().to_string());
        server.start(&["--tls", &files, "--config", &config, &begin[0], &begin[1]]);
        self.servers.push(server);
    }

    fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address.to_string()).collect()
    }

    fn client(&self) -> Client {
        connect(&self.addresses(), Some(ClientTls::in_folder(&self.client)), 90)
    }

    fn client_of(&self, at: usize) -> Client {
        connect(&[self.addresses()[at].clone()], Some(ClientTls::in_folder(&self.client)), 90)
    }

    fn status(&self, at: usize) -> Option<v1::StatusResponse> {
        block_on(self.client_of(at).status()).ok()
    }

    fn tls(&self, at: usize) -> Option<v1::TlsStatus> {
        self.status(at)?.tls
    }

    fn eventually<T>(&self, what: &str, probe: impl Fn(&Secured) -> Option<T>) -> T {
        for _ in 0..1_200 {
            if let Some(found) = probe(self) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited too long for {what}");
    }
}

fn connect(addresses: &[String], tls: Option<ClientTls>, seconds: u64) -> Client {
    let options = ClientOptions {
        tls,
        deadline: Duration::from_secs(seconds),
        connect_timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    };
    Client::connect(addresses, options).expect("usable")
}

fn set(key: &str) -> String {
    serde_json::json!({ "op": "set", "key": key, "value": "v" }).to_string()
}

/// Why a client does not get an answer.
fn why(address: SocketAddr, tls: Option<ClientTls>) -> String {
    let client = connect(&[address.to_string()], tls, 2);
    let refused = block_on(client.apply(set("intruder"))).expect_err("nobody lets it in");
    refused.to_string()
}

/// Asks a service of nodes with somebody's certificate.
fn ask_as<T, F: Future<Output = Result<T, Status>>>(
    address: SocketAddr,
    files: &Path,
    ask: impl FnOnce(tonic::transport::Channel) -> F,
) -> Status {
    let dialer = Dialer::of(Some(&ClientTls::in_folder(files))).expect("usable");
    let way = dialer.way(&address.to_string()).expect("an address");
    let asked = async { ask(way.connect().await.expect("TLS is agreed on")).await.map(drop) };
    block_on(asked).expect_err("it must be refused")
}

#[test]
fn a_cluster_with_certificates_serves_and_refuses_who_does_not_belong() {
    let secured = Secured::new("");
    let status = secured.status(2).expect("it serves");
    assert_eq!((&status.cluster_id[..], status.node_id), (&CLUSTER.0[..], 3));
    let tls = status.tls.expect("it speaks TLS");
    assert_eq!((&*tls.mode, &*tls.alarm), ("mutual", ""));
    assert!(tls.subject.contains("node 3"), "{}", tls.subject);
    // Each takes commands; those that do not lead pass them on.
    for at in 0..3 {
        block_on(secured.client_of(at).apply(set("a"))).expect("it is done");
    }

    let address = secured.servers[0].address;
    let dir = secured.dir.path();
    let (ours, other) = (&secured.authority, authority());
    let (ca, other_ca) = (ours.certificate_pem(), other.certificate_pem());
    let files = |name: &str, ca: &str, issued: &Issued| folder(dir.join(name), ca, issued);
    let expired = Validity { not_before: 1_000_000_000, not_after: 1_000_000_060 };
    let stranger = files("stranger", ca, &client(&other, days(9)));
    let late = files("late", ca, &client(ours, expired));
    let good = client(ours, days(9));
    let wary = files("wary", other_ca, &good);
    for (tls, words) in [
        (None, "the node speaks TLS"),
        (Some(ClientTls::trusting(dir.join("client/ca.pem"))), "without a client certificate"),
        (Some(ClientTls::in_folder(&wary)), "not of a CA that this client trusts"),
        (Some(ClientTls::in_folder(&stranger)), "does not trust the CA"),
        (Some(ClientTls::in_folder(&late)), "has expired"),
    ] {
        let said = why(address, tls);
        assert!(said.contains(words), "{words}: {said}");
    }

    // More handshakes that nobody goes on with than there may be: others are served all the same.
    let silent: Vec<_> =
        (0..300).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    block_on(secured.client_of(0).apply(set("b"))).expect("it is done");
    drop(silent);

    // Services of nodes, asked by others.
    let prepared = |channel| async move {
        MembershipClient::new(channel).prepared(peer::PreparedRequest::default()).await
    };
    let refused = ask_as(address, &secured.client, prepared);
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("client admin"), "{refused}");
    let elsewhere = ClusterId([0x5d; 16]);
    let foreign = files("foreign", ca, &node(ours, elsewhere, 2));
    let refused = ask_as(address, &foreign, prepared);
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(&elsewhere.to_string()), "{refused}");
    // A node that says it is another one.
    let fourth = files("fourth", ca, &node(ours, CLUSTER, 4));
    let request = peer::JoinRequest {
        address: "127.0.0.1:1".to_owned(),
        node_id: 9,
        protocol_min: 4,
        protocol_max: 4,
        level: 1,
        nonce: vec![7; 16].into(),
        ..peer::JoinRequest::default()
    };
    let refused = ask_as(address, &fourth, |channel| async move {
        MembershipClient::new(channel).join(request).await
    });
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("of node 4") && refused.message().contains("node 9"));
    let hello = peer::Hello {
        cluster_id: CLUSTER.0.to_vec().into(),
        from: 3,
        to: 1,
        from_address: "127.0.0.1:1".to_owned(),
        to_address: address.to_string(),
        protocol_min: 4,
        protocol_max: 4,
    };
    let second = secured.files(2);
    let refused = ask_as(address, &second, |channel| async move {
        let offer = peer::SnapshotOffer { hello: Some(hello), message: None };
        PeerClient::new(channel).offer_snapshot(offer).await
    });
    assert!(refused.message().contains("with the certificate of node 2"), "{refused}");

    // A node whose data is another's.
    let mut misled = Server::new(PROGRAM, dir, "misled");
    let (tls, seed) = (fourth.display().to_string(), address.to_string());
    let said = misled.refuses(&["--tls", &tls, "--join", &seed, "--node-id", "7"]);
    assert!(said.contains("cannot join as node 7"), "{said}");

    // The command line, and the way in when all else fails.
    let (client_files, endpoint) = (secured.client.display().to_string(), address.to_string());
    let cli = Cli::new(PROGRAM, &[]);
    let said = cli.run(&["status", "-e", &endpoint, "--tls", &client_files]).ok();
    assert!(said.contains(&CLUSTER.to_string()), "{said}");
    let socket = secured.servers[0].data_dir.join("raft-host.sock");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let local = format!("unix:{}", socket.display());
    let said = cli.run(&["status", "-e", &local]).ok();
    assert!(said.contains(&CLUSTER.to_string()), "{said}");
    let said = cli.run(&["apply", "-e", &local, &set("b")]).ok();
    assert!(said.contains("ok"), "{said}");
}

#[test]
fn all_certificates_and_the_ca_are_renewed_under_load() {
    let secured = Secured::new("[tls]\nconnection_age_ms = 3000\n");
    let before: Vec<_> = (0..3).map(|at| secured.tls(at).expect("it speaks TLS")).collect();
    let load = Load::start(secured.client(), 30_000);
    let new = authority();
    let both = format!("{}{}", secured.authority.certificate_pem(), new.certificate_pem());
    let everywhere = || (1..=3).map(|id| secured.files(id)).chain([secured.client.clone()]);
    let reloaded = |than: &[v1::TlsStatus]| {
        for (at, older) in than.iter().enumerate() {
            secured.eventually("new files", |secured| {
                let now = secured.tls(at)?;
                assert_eq!(now.alarm, "");
                (now.reloaded_ms > older.reloaded_ms).then_some(())
            });
        }
    };
    everywhere().for_each(|dir| write(&dir.join("ca.pem"), &both));
    reloaded(&before);
    let trusting: Vec<_> = (0..3).map(|at| secured.tls(at).expect("it speaks TLS")).collect();
    for id in 1..=3 {
        folder(secured.files(id), &both, &node(&new, CLUSTER, id));
    }
    folder(secured.client.clone(), &both, &client(&new, days(90)));
    reloaded(&trusting);
    let renewed: Vec<_> = (0..3).map(|at| secured.tls(at).expect("it speaks TLS")).collect();
    everywhere().for_each(|dir| write(&dir.join("ca.pem"), new.certificate_pem()));
    reloaded(&renewed);
    for (old, at) in before.iter().zip(0..) {
        assert_ne!(secured.tls(at).expect("it speaks TLS").fingerprint, old.fingerprint);
    }
    // Older connections are let go of meanwhile.
    std::thread::sleep(Duration::from_secs(4));
    load.finish(30_000);

    // A broken file is an alarm, and all goes on.
    write(&secured.files(1).join("key.pem"), "nonsense");
    let alarm = secured.eventually("an alarm", |secured| {
        Some(secured.tls(0)?.alarm).filter(|alarm| !alarm.is_empty())
    });
    assert!(alarm.contains("key.pem"), "{alarm}");
    block_on(secured.client_of(0).apply(set("c"))).expect("it goes on");
    let files = secured.client.display().to_string();
    let endpoint = secured.addresses()[0].clone();
    let said = Cli::new(PROGRAM, &[]).run(&["status", "-e", &endpoint, "--tls", &files]).ok();
    assert!(said.contains("ALARM"), "{said}");
}

#[test]
fn without_tls_others_are_listened_to_only_if_somebody_insists() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data").display().to_string();
    let plugin = kv().display().to_string();
    let open = [
        "--data-dir",
        &data,
        "--listen",
        "0.0.0.0:0",
        "--advertise",
        "127.0.0.1:1",
        "--plugin",
        &plugin,
    ];
    let refused = Cli::new(PROGRAM, &[]).run(&open);
    assert_eq!(refused.code, Some(2));
    for words in ["certs init", "--tls DIR", "--insecure"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    assert!(!Path::new(&data).exists());
    let mut server = Server::new(PROGRAM, dir.path(), "plain");
    server.start(&["--plugin", &plugin]);
    let ca = authority();
    write(&dir.path().join("ca.pem"), ca.certificate_pem());
    let said = why(server.address, Some(ClientTls::trusting(dir.path().join("ca.pem"))));
    assert!(said.contains("the node speaks no TLS"), "{said}");
}

#[test]
fn nodes_may_have_a_port_that_clients_do_not_reach() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut servers = Vec::<Server>::new();
    let mut seed: Option<String> = None;
    for id in 1..=2 {
        let mut server = Server::new(PROGRAM, dir.path(), &format!("node-{id}"));
        let own = format!("127.0.0.1:{}", free_port());
        let plugin = kv().display().to_string();
        match &seed {
            None => server.start(&["--peer-listen", &own, "--plugin", &plugin]),
            Some(seed) => server.start(&["--peer-listen", &own, "--join", seed]),
        }
        seed.get_or_insert(own);
        servers.push(server);
    }
    let follower = connect(&[servers[1].address.to_string()], None, 60);
    block_on(follower.apply(set("a"))).expect("it is passed on to the port of nodes");
    let way = Dialer::plain().way(&servers[0].address.to_string()).expect("an address");
    let refused = block_on(async {
        let channel = way.connect().await.expect("it listens");
        MembershipClient::new(channel).prepared(peer::PreparedRequest::default()).await
    })
    .expect_err("not here");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    assert!(refused.message().contains("peer_listen"), "{refused}");
}
