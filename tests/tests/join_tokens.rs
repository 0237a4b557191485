//! Nodes without certificates that get into a cluster by join tokens: once each, whatever happens in between, and
//! nobody without one.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use raft_host::api::JoinTicket;
use raft_host::certs::Newcomer;
use raft_host::tls::FirstContact;
use raft_host::types::{ClusterId, NodeId};
use raft_host_proto::client::{Client, ClientOptions};
use raft_host_proto::dial::{ClientTls, Dialer};
use raft_host_proto::peer;
use raft_host_proto::peer::enrollment_client::EnrollmentClient;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::v1::{self, ErrorDetail, Reason};
use raft_host_tests::{Cli, Output, Server, block_on, kv};
use tonic::Status;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A cluster of one with certificates, that may keep its CA, and who administers it.
struct Stage {
    servers: Vec<Server>,
    cli: Cli,
    /// Goes last: servers of a failed test show their logs.
    dir: tempfile::TempDir,
}

/// A node that is to join.
struct New {
    server: Server,
    files: PathBuf,
    token: PathBuf,
}

impl Stage {
    fn new(keeps_ca: bool) -> Stage {
        let dir = tempfile::tempdir().expect("a folder");
        let cli = Cli::new(PROGRAM, &[]);
        let mut stage = Stage { dir, servers: Vec::new(), cli };
        let certs = text(&stage.path("certs"));
        let made = ["certs", "init", &certs, "--node", "n1=127.0.0.1", "--client", "admin"];
        stage.cli.run(&made).ok();
        let mut first = Server::new(PROGRAM, stage.dir.path(), "node-1");
        first.set_tls(stage.admin());
        stage.servers.push(first);
        stage.start_first(keeps_ca, &["--plugin", &text(&kv())]);
        stage
    }

    fn start_first(&mut self, keeps_ca: bool, more: &[&str]) {
        let (files, certs) = (text(&self.path("certs/nodes/n1")), text(&self.path("certs")));
        let mut flags = vec!["--tls", &files];
        if keeps_ca {
            flags.extend(["--tls-signing-ca", &certs]);
        }
        self.servers[0].start(&[&flags, more].concat());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn admin(&self) -> ClientTls {
        ClientTls::in_folder(&self.path("certs/clients/admin"))
    }

    fn seed(&self) -> String {
        self.servers[0].address.to_string()
    }

    fn run(&self, line: &[&str]) -> Output {
        let files = text(&self.path("certs/clients/admin"));
        self.cli.run(&[line, &["-e", &self.seed(), "--tls", &files]].concat())
    }

    /// A new token in a file.
    fn token(&self, name: &str, ttl: &str) -> PathBuf {
        let file = self.path(&format!("{name}.token"));
        let made = ["token", "join", "--ttl", ttl, "--note", name, "--out", &text(&file)];
        self.run(&made).ok();
        file
    }

    fn newcomer(&self, name: &str, token: PathBuf) -> New {
        let mut server = Server::new(PROGRAM, self.dir.path(), name);
        server.set_tls(self.admin());
        New { server, files: self.path(&format!("{name}-tls")), token }
    }

    fn members(&self) -> Vec<v1::MemberInfo> {
        let options = ClientOptions {
            tls: Some(self.admin()),
            deadline: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        let client = Client::connect([self.seed()], options).expect("an endpoint");
        block_on(client.members()).expect("an answer").members
    }

    fn wait_for_voters(&self, count: usize) {
        for _ in 0..1_200 {
            let members = self.members();
            if members.iter().filter(|member| member.is_voter()).count() == count {
                assert_eq!(members.len(), count, "{members:?}");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited too long for {count} voters: {:?}", self.members());
    }
}

impl New {
    fn flags(&self, seed: &str) -> Vec<String> {
        let flags = ["--join", seed, "--tls", &text(&self.files), "--join-token-file"];
        flags.iter().map(|flag| (*flag).to_owned()).chain([text(&self.token)]).collect()
    }

    fn start(&mut self, seed: &str) {
        let flags = self.flags(seed);
        self.server.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn refused(&mut self, seed: &str) -> String {
        let flags = self.flags(seed);
        self.server.refuses(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn ticket(&self) -> JoinTicket {
        let token = std::fs::read_to_string(&self.token).expect("a token");
        JoinTicket::read(token.trim()).expect("a join token")
    }

    /// What it asks in its first contact.
    fn request(&self, newcomer: &Newcomer) -> peer::EnrollRequest {
        peer::EnrollRequest {
            secret: self.ticket().secret().to_vec().into(),
            request: newcomer.request().expect("a key").into(),
            join: Some(peer::JoinRequest {
                address: self.server.address.to_string(),
                protocol_min: 1,
                protocol_max: 1_000,
                level: 1,
                nonce: newcomer.nonce().to_vec().into(),
                ..Default::default()
            }),
            hosts: Vec::new(),
        }
    }

    /// Asks as the node itself would, and is not the node itself.
    fn enroll(
        &self,
        seed: SocketAddr,
        newcomer: &Newcomer,
    ) -> Result<peer::EnrollResponse, Status> {
        let contact = FirstContact::new(self.ticket().ca()).expect("TLS");
        ask(contact.dialer(), seed, self.request(newcomer))
    }
}

fn ask(
    dialer: &Dialer,
    seed: SocketAddr,
    request: peer::EnrollRequest,
) -> Result<peer::EnrollResponse, Status> {
    let way = dialer.way(&seed.to_string()).expect("an address");
    block_on(async {
        let channel = way.connect().await.expect("TLS is agreed on");
        EnrollmentClient::new(channel).enroll(request).await
    })
    .map(tonic::Response::into_inner)
}

fn reason(status: &Status) -> Reason {
    ErrorDetail::of(status).map_or(Reason::Unspecified, |detail| detail.reason())
}

#[test]
fn two_nodes_join_by_tokens_and_come_back_by_themselves() {
    let stage = Stage::new(true);
    let tokens = ["n2", "n3"].map(|name| stage.token(name, "1h"));
    let mode = std::fs::metadata(&tokens[0]).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut news = Vec::new();
    for (name, token) in ["n2", "n3"].into_iter().zip(tokens) {
        let mut new = stage.newcomer(name, token);
        // The second one asks the first, which keeps no CA and passes it on.
        let seed = news.last().map_or(stage.seed(), |last: &New| last.server.address.to_string());
        new.start(&seed);
        stage.wait_for_voters(2 + news.len());
        let key = std::fs::metadata(new.files.join("key.pem")).expect("a key");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert!(!new.files.join("joining").exists());
        let secret = std::fs::read_to_string(&new.token).expect("a token");
        for log in [new.server.log(), stage.servers[0].log()] {
            assert!(!log.contains(secret.trim()), "a secret in a log");
        }
        news.push(new);
    }
    let ids: Vec<u64> = stage.members().iter().map(|member| member.node_id).collect();
    assert_eq!(ids, [1, 2, 3]);
    let listed = stage.run(&["token", "list"]).ok();
    assert!(listed.contains("used for node 2") && listed.contains("used for node 3"), "{listed}");

    let audit = std::fs::read_to_string(stage.servers[0].data_dir.join("audit.jsonl"));
    let audit = audit.expect("a log");
    for words in ["members.token", "members.enroll", "with join token"] {
        assert!(audit.contains(words), "{words}: {audit}");
    }
    // Tokens count once: for another node neither does.
    let mut thief = stage.newcomer("thief", news[0].token.clone());
    assert!(thief.refused(&stage.seed()).contains("was used for another node"));
    assert!(!thief.files.join("certificate.pem").exists());
    assert_eq!(stage.members().len(), 3);

    // A restart takes the same line, and the token file is not needed any more.
    for new in &mut news {
        new.server.kill();
        std::fs::remove_file(&new.token).expect("it was there");
        let seed = stage.servers[0].address.to_string();
        new.start(&seed);
    }
    stage.wait_for_voters(3);
    // Who has lost its data is another node: its certificate is of one that acknowledged things.
    let lost = &mut news[1];
    lost.server.kill();
    std::fs::remove_dir_all(&lost.server.data_dir).expect("removed");
    let words = lost.refused(&stage.seed());
    assert!(words.contains("node 3"), "{words}");
}

#[test]
fn whoever_has_no_good_token_gets_one_clear_sentence() {
    let mut stage = Stage::new(true);
    let seed = stage.seed();
    let until_refused = |name: &str, token: PathBuf| {
        let mut new = stage.newcomer(name, token);
        let words = new.refused(&seed);
        assert!(!new.files.join("certificate.pem").exists(), "{name}: {words}");
        words
    };
    let write = |name: &str, token: &str| {
        let file = stage.path(name);
        std::fs::write(&file, token).expect("written");
        file
    };
    let good = stage.token("good", "1h");
    let token = std::fs::read_to_string(&good).expect("a token").trim().to_owned();
    // The CA of another cluster.
    let other = Stage::new(true);
    let foreign = other.token("foreign", "1h");
    assert!(until_refused("foreign", foreign).contains("does not belong to the CA"));
    // The secret of nobody, with the right CA.
    let nobody = format!("rhj1.{}{}", "A".repeat(40), &token["rhj1.".len() + 40..]);
    let words = until_refused("unknown", write("unknown.token", &nobody));
    assert!(words.contains("does not know the join token"), "{words}");
    let short = stage.token("short", "1s");
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(until_refused("expired", short).contains("has expired"));
    let words = until_refused("nonsense", write("nonsense.token", "rhj1.abc"));
    assert!(words.contains("holds no join token") && !words.contains("rhj1.abc"), "{words}");
    assert!(until_refused("missing", stage.path("no-such-file")).contains("cannot be read"));
    // A revoked one.
    let revoked = stage.token("revoked", "1h");
    let shown: serde_json::Value =
        serde_json::from_str(&stage.run(&["rights", "-o", "json"]).ok()).expect("JSON");
    let tokens = shown["join_tokens"].as_array().expect("a list");
    let one = tokens.iter().find(|token| token["note"] == "revoked").expect("it is listed");
    let id = one["id"].to_string();
    stage.run(&["token", "revoke", &id, "--join"]).ok();
    assert!(until_refused("revoked", revoked).contains("does not know the join token"));
    let again = stage.run(&["token", "revoke", &id, "--join"]).failed();
    assert!(again.contains("no token"), "{again}");
    // Without a folder for its files.
    let mut bare = Server::new(PROGRAM, stage.dir.path(), "bare");
    let words = bare.refuses(&["--join", &seed, "--join-token-file", &text(&good)]);
    assert!(words.contains("--tls DIR"), "{words}");
    assert_eq!(stage.members().len(), 1, "nobody came in");

    // Nobody signs: the token is not used up.
    stage.servers[0].kill();
    stage.start_first(false, &[]);
    let mut patient = stage.newcomer("patient", good);
    let words = patient.refused(&seed);
    assert!(words.contains("keeps a CA") && words.contains("--tls-signing-ca"), "{words}");
    stage.servers[0].kill();
    stage.start_first(true, &[]);
    patient.start(&seed);
    stage.wait_for_voters(2);
}

#[test]
fn a_newcomer_that_is_killed_goes_on_with_the_same_token() {
    let stage = Stage::new(true);
    let seed = stage.servers[0].address;
    let new = stage.newcomer("n2", stage.token("n2", "1h"));
    // It has asked, and the answer is lost.
    let newcomer = Newcomer::prepare(&new.files).expect("a folder").expect("no certificate");
    let listening = TcpListener::bind(new.server.address).expect("the port is free");
    let first = new.enroll(seed, &newcomer).expect("signed");
    let again = new.enroll(seed, &newcomer).expect("signed again");
    assert_eq!((first.node_id, again.node_id), (2, 2));
    assert_eq!(first.cluster_id, again.cluster_id);
    assert_eq!(stage.members().len(), 2);
    // Somebody who has the token, and neither the key nor the nonce.
    let thief = stage.newcomer("thief", new.token.clone());
    let other = Newcomer::prepare(&thief.files).expect("a folder").expect("no certificate");
    let refused = thief.enroll(seed, &other).expect_err("it was used");
    assert_eq!(reason(&refused), Reason::JoinTokenRefused);
    assert_eq!(stage.members().len(), 2);
    // The same newcomer somewhere else would be a second node.
    let mut elsewhere = new.request(&newcomer);
    let address = thief.server.address;
    let _listening = TcpListener::bind(address).expect("the port is free");
    if let Some(join) = &mut elsewhere.join {
        join.address = address.to_string();
    }
    let contact = FirstContact::new(new.ticket().ca()).expect("TLS");
    let refused = ask(contact.dialer(), seed, elsewhere).expect_err("it is node 2");
    assert!(refused.message().contains("taken in as node 2"), "{}", refused.message());
    assert_eq!(stage.members().len(), 2);
    drop(listening);
    let mut new = new;
    new.start(&stage.seed());
    stage.wait_for_voters(2);

    // It has its certificate, and did not get to join.
    let mut late = stage.newcomer("n3", stage.token("n3", "1h"));
    let newcomer = Newcomer::prepare(&late.files).expect("a folder").expect("no certificate");
    let listening = TcpListener::bind(late.server.address).expect("the port is free");
    let signed = late.enroll(seed, &newcomer).expect("signed");
    let cluster = ClusterId::try_from(&signed.cluster_id[..]).expect("an id");
    let node = NodeId(signed.node_id);
    let now = SystemTime::now();
    newcomer.accept(cluster, node, &signed.certificate, &signed.ca, now).expect("its own");
    drop(listening);
    late.start(&stage.seed());
    stage.wait_for_voters(3);
}

#[test]
fn kill_9_at_any_moment_of_joining_changes_nothing_about_who_joins() {
    let stage = Stage::new(true);
    let mut new = stage.newcomer("n2", stage.token("n2", "1h"));
    let flags = new.flags(&stage.seed());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    for ms in (0..12).map(|step| 15 + 25 * step) {
        new.server.start_and_kill(&flags, Duration::from_millis(ms));
    }
    new.start(&stage.seed());
    stage.wait_for_voters(2);
    let ids: Vec<u64> = stage.members().iter().map(|member| member.node_id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn a_first_contact_is_good_for_nothing_else_and_bounded() {
    let stage = Stage::new(true);
    let seed = stage.servers[0].address;
    let new = stage.newcomer("n2", stage.token("n2", "1h"));
    let contact = FirstContact::new(new.ticket().ca()).expect("TLS");
    let way = contact.dialer().way(&seed.to_string()).expect("an address");
    // Others must show a certificate in this mode; a newcomer need not, and gets nothing by that.
    let status = block_on(async {
        let channel = way.connect().await.expect("TLS is agreed on");
        AdminClient::new(channel).status(v1::StatusRequest::default()).await
    });
    assert_eq!(reason(&status.expect_err("refused")), Reason::Unauthenticated);
    let index = || stage.run(&["rights"]).ok();
    let before = index();
    let newcomer = Newcomer::prepare(&new.files).expect("a folder").expect("no certificate");
    let mut guess = new.request(&newcomer);
    let mut reasons = Vec::new();
    for n in 0..60_u8 {
        guess.secret = vec![n; 32].into();
        let refused = ask(contact.dialer(), seed, guess.clone()).expect_err("a guess");
        reasons.push(reason(&refused));
    }
    assert!(reasons.contains(&Reason::JoinTokenUnknown), "{reasons:?}");
    assert!(reasons.contains(&Reason::RateLimited), "{reasons:?}");
    assert_eq!(index(), before, "nothing came into the log");
    // Whoever says that a member passes this on is not believed.
    let dialer = contact.dialer();
    let channel = dialer.way(&seed.to_string()).expect("an address");
    std::thread::sleep(Duration::from_secs(2));
    let refused = block_on(async {
        let channel = channel.connect().await.expect("TLS is agreed on");
        let mut request = tonic::Request::new(guess.clone());
        request.metadata_mut().insert("raft-host-forwarded", "1".parse().expect("ASCII"));
        EnrollmentClient::new(channel).enroll(request).await
    });
    assert_eq!(reason(&refused.expect_err("a guess")), Reason::JoinTokenUnknown);
    // What it asks for is a node's certificate for its own host, whatever else the request says.
    let listening = TcpListener::bind(new.server.address).expect("the port is free");
    let signed = new.enroll(seed, &newcomer).expect("signed");
    drop(listening);
    assert!(signed.certificate.contains("BEGIN CERTIFICATE") && signed.node_id == 2);
    assert!(!signed.ca.contains("KEY"));
}
