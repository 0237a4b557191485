//! Who may call what: every method and every page, with everything that somebody can show, against the tables of
//! `host/docs/security.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use raft_host::certs::{Authority, Validity};
use raft_host::types::ClusterId;
use raft_host_proto::Secret;
use raft_host_proto::client::{Client, ClientError, ClientOptions};
use raft_host_proto::dial::{Bearer, ClientTls, Dialer};
use raft_host_proto::v1::{ErrorDetail, Reason};
use raft_host_tests::{Cli, Load, Server, block_on, free_port, workspace};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const SECURITY: &str = include_str!("../../host/docs/security.md");
/// How long an answer that goes on is listened to.
const LISTENED: Duration = Duration::from_millis(300);

/// What a method asks, as the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    Known,
    Right(String),
    Node,
}

/// What somebody may do.
enum May {
    /// There is no connection.
    Nothing,
    /// What asks nothing.
    Ask,
    /// What it has the rights for.
    Use(BTreeSet<String>),
    /// Commands of one class: an empty one is of none, and is judged where it is applied.
    UseClass,
    /// All that is not for nodes.
    Everything,
    /// All of it.
    All,
    /// What asks nothing; the peers' service tells it in answer to its hello that it was removed.
    BeTold,
}

/// Somebody who calls.
struct Somebody {
    name: String,
    tls: Option<ClientTls>,
    is_local: bool,
    token: Option<Secret>,
    may: May,
}

impl May {
    /// `None`: it is told so by the service itself.
    fn allows(&self, path: &str, asks: &Asks) -> Option<bool> {
        Some(match (self, asks) {
            (May::Nothing, _) => false,
            (May::All, _) | (_, Asks::Nothing) => true,
            (May::BeTold, Asks::Node)
                if !["/Move", "/Prepared", "/Admit"].iter().any(|end| path.ends_with(end)) =>
            {
                return None;
            }
            (May::UseClass, Asks::Right(_)) if path.ends_with("/Apply") => return None,
            (May::UseClass, Asks::Right(right)) => right == "apply",
            (_, Asks::Node) | (May::Ask | May::BeTold, _) => false,
            (May::Everything, _) | (May::Use(_) | May::UseClass, Asks::Known) => true,
            (May::Use(rights), Asks::Right(right)) => rights.contains(right),
        })
    }
}

/// The rows of the table below a heading: two cells each.
fn table(heading: &str) -> Vec<(String, String)> {
    let section = SECURITY.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.expect("the page has this heading");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let [first, second] = [(); 2].map(|()| cells.next().expect("two cells"));
        (first.trim_matches('`').to_owned(), second)
    })
    .collect()
}

fn methods() -> BTreeMap<String, Asks> {
    let asks = |(path, asks): (String, String)| {
        let asks = match asks.as_str() {
            "nothing" => Asks::Nothing,
            "known" => Asks::Known,
            "node" => Asks::Node,
            right => Asks::Right(right.trim_matches('`').to_owned()),
        };
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        (path, asks)
    };
    table("What each method asks").into_iter().map(asks).collect()
}

fn roles() -> BTreeMap<String, BTreeSet<String>> {
    let rights = || {
        let asked = methods().into_values();
        asked.filter_map(|asks| if let Asks::Right(right) = asks { Some(right) } else { None })
    };
    let role = |(role, grants): (String, String)| {
        let named = grants.split(", ").map(|grant| grant.trim_matches('`').to_owned());
        let grants = if grants == "everything" { rights().collect() } else { named.collect() };
        (role, grants)
    };
    table("Built-in roles").into_iter().map(role).collect()
}

/// A node with certificates, and who there is to call it.
struct Stage {
    /// What the node is started with, each time.
    flags: Vec<String>,
    server: Server,
    pages: String,
    cli: Cli,
    /// Goes last: servers of a failed test show their logs.
    dir: tempfile::TempDir,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let dir = tempfile::tempdir().expect("a folder");
        let certs = dir.path().join("certs").display().to_string();
        let cli = Cli::new(PROGRAM, &[]);
        let made = ["certs", "init", &certs, "--node", "n1=127.0.0.1", "--client", "admin"];
        cli.run(&made).ok();
        let mut server = Server::new(PROGRAM, dir.path(), "node-1");
        let admin = dir.path().join("certs/clients/admin");
        server.set_tls(ClientTls::in_folder(&admin));
        let files = dir.path().join("certs/nodes/n1").display().to_string();
        let module = workspace(&format!("plugins/{name}/{name}.wasm")).display().to_string();
        let pages = format!("127.0.0.1:{}", free_port());
        let begin = ["--tls", &files, "--tls-mode", "server", "--metrics-listen", &pages];
        let flags = begin.map(str::to_owned).to_vec();
        server.start(&[&begin[..], &["--plugin", &module]].concat());
        Stage { flags, dir, server, pages, cli }
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    fn client(&self, name: &str) -> ClientTls {
        ClientTls::in_folder(&self.certs().join("clients").join(name))
    }

    /// Runs a command as the principal `admin`.
    fn admin(&self, line: &[&str]) -> String {
        self.run_as("admin", line).ok()
    }

    fn run_as(&self, name: &str, line: &[&str]) -> raft_host_tests::Output {
        let files = self.certs().join("clients").join(name).display().to_string();
        let endpoint = self.server.address.to_string();
        self.cli.run(&[line, &["-e", &endpoint, "--tls", &files]].concat())
    }

    fn issue(&self, line: &[&str]) {
        let certs = self.certs().display().to_string();
        self.cli.run(&[&["certs", line[0], &certs], &line[1..]].concat()).ok();
    }

    /// A new principal with a certificate and a token.
    fn principal(&self, name: &str, role: &str) -> Secret {
        self.issue(&["client", "--name", name]);
        self.token(&["--name", name, "--role", role]).1
    }

    fn token(&self, line: &[&str]) -> (u64, Secret) {
        let made = self.admin(&[&["token", "create", "-o", "json"], line].concat());
        let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
        let token = Secret::new(made["token"].as_str().expect("a token"));
        (made["id"].as_u64().expect("an id"), token)
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.server.data_dir.join("raft-host.sock").display())
    }

    fn trusting(&self) -> ClientTls {
        ClientTls::trusting(self.certs().join("ca.pem"))
    }

    async fn call(&self, channel: &Channel, who: &Somebody, path: &str) -> Result<(), Status> {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let mut request = Request::new(one_message());
        let bearer = who.token.as_ref().map(|token| Bearer::in_the_open(Some(token)));
        if let Some(bearer) = bearer {
            bearer.expect("a token").sign(&mut request);
        }
        request.set_timeout(Duration::from_secs(10));
        let path = path.parse().expect("a path");
        let codec = ProstCodec::<(), ()>::default();
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        match tokio::time::timeout(LISTENED, answers.message()).await {
            Ok(Err(status)) => Err(status),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// The status of a page; `None`: there is no connection.
    async fn page(&self, who: &Somebody, path: &str) -> Option<u16> {
        let tcp = TcpStream::connect(&self.pages).await.expect("it listens");
        let Some(tls) = &who.tls else { return ask(tcp, who, path).await };
        let mut config = tls.config().expect("files that can be used");
        config.alpn_protocols.clear();
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
        ask(stream, who, path).await
    }
}

fn one_message() -> impl futures::Stream<Item = ()> {
    futures::stream::once(async {})
}

async fn ask(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    who: &Somebody,
    path: &str,
) -> Option<u16> {
    let token =
        who.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
    let token = token.unwrap_or_default();
    let asked = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{token}\r\n");
    stream.write_all(asked.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // Whoever is cut off has read what there was.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn is_refusal(status: &Status) -> bool {
    let is_foreign = ErrorDetail::of(status).is_some_and(|it| it.reason() == Reason::OtherCluster);
    is_foreign || matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

fn write_folder(dir: &Path, ca: &str, issued: &raft_host::certs::Issued) -> ClientTls {
    std::fs::create_dir_all(dir).expect("a folder");
    for (name, text) in
        [("ca.pem", ca), ("certificate.pem", &issued.certificate), ("key.pem", issued.key.pem())]
    {
        std::fs::write(dir.join(name), text).expect("written");
    }
    ClientTls::in_folder(dir)
}

/// Everybody, with what they may do.
fn everybody(stage: &Stage) -> Vec<Somebody> {
    let somebody = |name: &str, tls, token, may| Somebody {
        name: name.to_owned(),
        tls,
        is_local: false,
        token,
        may,
    };
    let (dir, ca) = (stage.dir.path(), stage.trusting());
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let our_ca = read(&stage.certs().join("ca.pem"));
    let mut all = vec![
        somebody("nobody, without TLS", None, None, May::Nothing),
        somebody("nobody", Some(ca.clone()), None, May::Ask),
    ];
    // Of another CA, and one whose time is over.
    let cluster = ClusterId([7; 16]);
    let days = |days| Validity::days(SystemTime::now(), days).expect("days");
    let other = Authority::new(cluster, days(9)).expect("randomness");
    let admin = || "admin".parse().expect("a name");
    let stranger = other.issue_client(cluster, admin(), days(9)).expect("issued");
    let stranger = write_folder(&dir.join("stranger"), &our_ca, &stranger);
    all.push(somebody("a certificate of another CA", Some(stranger), None, May::Nothing));
    let ours = Authority::from_pem(&our_ca, &read(&stage.certs().join("ca-key.pem")));
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
    let over = Validity::days(long_ago, 9).expect("days");
    let late = ours.expect("the CA").issue_client(cluster, admin(), over).expect("issued");
    let late = write_folder(&dir.join("late"), &our_ca, &late);
    all.push(somebody("an expired certificate", Some(late), None, May::Nothing));
    // Nodes.
    let node = |name: &str| ClientTls::in_folder(&stage.certs().join("nodes").join(name));
    stage.issue(&[
        "node",
        "--name",
        "foreign",
        "--address",
        "127.0.0.1",
        "--cluster-id",
        &"ab".repeat(16),
    ]);
    all.push(somebody("another cluster's node", Some(node("foreign")), None, May::Ask));
    stage.issue(&["node", "--name", "gone", "--address", "127.0.0.1", "--id", "2"]);
    let nowhere = format!("127.0.0.1:{}", free_port());
    stage.admin(&["members", "add", "--node-id", "2", &nowhere]);
    stage.admin(&["members", "remove", "2", "--force"]);
    all.push(somebody("a removed node", Some(node("gone")), None, May::BeTold));
    all.push(somebody("a member", Some(node("n1")), None, May::All));
    // Principals.
    for (role, rights) in roles() {
        let name = format!("one-{role}");
        let token = stage.principal(&name, &role);
        let certificate = Some(stage.client(&name));
        all.push(somebody(
            &format!("certificate of {role}"),
            certificate,
            None,
            May::Use(rights.clone()),
        ));
        all.push(somebody(
            &format!("token of {role}"),
            Some(ca.clone()),
            Some(token),
            May::Use(rights),
        ));
    }
    stage.issue(&["client", "--name", "unheard"]);
    let unheard = Some(stage.client("unheard"));
    all.push(somebody("a certificate of no principal", unheard, None, May::Ask));
    let (id, revoked) = stage.token(&["--name", "one-admin"]);
    stage.admin(&["token", "revoke", &id.to_string()]);
    all.push(somebody("a revoked token", Some(ca.clone()), Some(revoked), May::Ask));
    let (_, expired) = stage.token(&["--name", "one-admin", "--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(1_500));
    all.push(somebody("an expired token", Some(ca.clone()), Some(expired), May::Ask));
    let nonsense = Secret::new(format!("rh1.{}", "A".repeat(43)));
    all.push(somebody("a token of nobody", Some(ca.clone()), Some(nonsense), May::Ask));
    // Classes: some commands are enough for the door.
    stage.admin(&["role", "add", "payer", "--grant", "apply:transfer"]);
    let payer = stage.principal("one-payer", "payer");
    all.push(somebody("token for one class", Some(ca), Some(payer), May::UseClass));
    let local = Somebody { is_local: true, ..somebody("the socket", None, None, May::Everything) };
    all.push(local);
    all
}

#[test]
fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let stage = Stage::new("ledger");
    let (methods, everybody) = (methods(), everybody(&stage));
    let mut wrong = Vec::new();
    let mut compared = 0;
    block_on(async {
        for who in &everybody {
            let dialer = Dialer::of(who.tls.as_ref()).expect("files that can be used");
            let address = match who.is_local {
                true => stage.socket(),
                false => stage.server.address.to_string(),
            };
            let channel = dialer.way(&address).expect("an address").connect_lazy();
            for (path, asks) in &methods {
                let is_page = path.matches('/').count() == 1;
                if is_page && who.is_local {
                    continue;
                }
                let Some(allowed) = who.may.allows(path, asks) else { continue };
                let (was_allowed, said) = match is_page {
                    true => {
                        let status = stage.page(who, path).await;
                        let is_refused =
                            status.is_none_or(|status| matches!(status, 400 | 401 | 403));
                        (!is_refused, format!("{status:?}"))
                    }
                    false => match stage.call(&channel, who, path).await {
                        Ok(()) => (true, "an answer".to_owned()),
                        Err(status) => {
                            let is_cut = matches!(who.may, May::Nothing);
                            let is_refused = is_refusal(&status) || is_cut;
                            (!is_refused, format!("{:?}: {}", status.code(), status.message()))
                        }
                    },
                };
                compared += 1;
                if was_allowed != allowed {
                    wrong.push(format!("{}: {path}: {said}", who.name));
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 500, "{compared} were compared");
}

/// A role may be given some classes of commands and not others.
#[test]
fn commands_are_judged_by_their_class_where_they_are_applied() {
    let stage = Stage::new("ledger");
    for command in ["open bank EUR external", "open till EUR"] {
        stage.admin(&["apply", command]);
    }
    stage.admin(&["role", "add", "payer", "--grant", "apply:transfer", "--grant", "query"]);
    stage.principal("pat", "payer");
    let refused = stage.run_as("pat", &["apply", "open purse EUR"]).failed();
    assert!(refused.contains("open-account"), "{refused}");
    // It is of the class, and an account of somebody else.
    let not_its_own = stage.run_as("pat", &["apply", "transfer t1 till bank 0"]);
    assert!(!format!("{not_its_own:?}").contains("none of its roles"), "{not_its_own:?}");
    let accounts = stage.run_as("pat", &["query", "accounts *"]).ok();
    assert!(!accounts.contains("purse") && accounts.contains("till"), "{accounts}");
    assert!(accounts.contains("\"owner\":\"admin\""), "who opened it owns it: {accounts}");
}

/// Rights change all the time, and nobody notices but those whose rights are taken away.
#[test]
fn rights_change_under_load_and_only_who_loses_them_notices() {
    const COMMANDS: u64 = 4_000;
    let stage = Stage::new("kv");
    let connect = |tls, token| {
        let options = ClientOptions { tls: Some(tls), token, ..ClientOptions::default() };
        Client::connect([stage.server.address.to_string()], options).expect("an address")
    };
    let load = Load::start(connect(stage.client("admin"), None), COMMANDS);
    let (id, token) = stage.token(&["--name", "victim", "--role", "writer"]);
    let victim = connect(stage.trusting(), Some(token));
    let set = r#"{"op":"set","key":"v","value":"1"}"#;
    block_on(victim.apply(set)).expect("it may");
    for round in 0..8 {
        let name = format!("u{round}");
        stage.admin(&["user", "add", &name, "--role", "reader"]);
        let (token, _) = stage.token(&["--name", &name]);
        stage.admin(&["user", "set", &name, "--role", "writer"]);
        stage.admin(&["token", "revoke", &token.to_string()]);
        stage.admin(&["user", "remove", &name, "--yes"]);
        block_on(victim.apply(set)).expect("it is none of these");
    }
    stage.admin(&["token", "revoke", &id.to_string()]);
    // Its commands go over a stream that was opened when it had the right.
    let refused = block_on(victim.apply(set)).expect_err("it has no right any more");
    let ClientError::Refused { code, .. } = &refused else { panic!("{refused}") };
    assert!(matches!(code, Code::PermissionDenied | Code::Unauthenticated), "{refused}");
    load.finish(COMMANDS);
    // What is replicated outlives the process.
    let mut stage = stage;
    stage.server.kill();
    let flags: Vec<&str> = stage.flags.iter().map(String::as_str).collect();
    stage.server.start(&flags);
    stage.admin(&["apply", set]);
    let refused = block_on(victim.apply(set)).expect_err("nor now");
    assert!(refused.to_string().contains("token"), "{refused}");
}
