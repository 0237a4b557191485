//! Copies of the state where nodes and clients show certificates and rights are in force: who gets one, what the
//! cluster that is made of it asks for, and nodes that need one to go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_host_proto::dial::ClientTls;
use raft_host_tests::{Cli, Output, Server, kv};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const GET: [&str; 2] = ["query", r#"{"op":"get","key":"a"}"#];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn set(key: &str) -> String {
    format!(r#"{{"op":"set","key":"{key}","value":"of {key}"}}"#)
}

fn eventually<T>(what: &str, probe: impl Fn() -> Option<T>) -> T {
    for _ in 0..1_200 {
        if let Some(found) = probe() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited too long for {what}");
}

/// A cluster, and a folder with its certificates: of nodes and of the clients admin, keeper and reader.
struct Secured {
    certs: PathBuf,
    servers: Vec<Server>,
}

impl Secured {
    fn make_certs(certs: &Path, more: &[&str]) {
        let certs = text(certs);
        let mut line = vec!["certs", "init", &certs];
        line.extend(["--node", "n1=127.0.0.1", "--node", "n2=127.0.0.1", "--node", "n3=127.0.0.1"]);
        line.extend(["--client", "admin", "--client", "keeper", "--client", "reader"]);
        Cli::new(PROGRAM, &[]).run(&[&line[..], more].concat()).ok();
    }

    fn new(dir: &Path, more: &[&str]) -> Secured {
        let certs = dir.join("certs");
        Secured::make_certs(&certs, &[]);
        let mut secured = Secured { certs, servers: Vec::new() };
        secured.start_first(Server::new(PROGRAM, dir, "node-1"), &["--plugin", &text(&kv())], more);
        for _ in 0..2 {
            secured.join(dir, "node", more);
        }
        secured.wait_for_voters(3);
        secured
    }

    fn start_first(&mut self, mut server: Server, begin: &[&str], more: &[&str]) {
        server.set_tls(ClientTls::in_folder(&self.client("admin")));
        server.start(&[&["--tls", &*self.node(0)][..], begin, more].concat());
        self.servers.push(server);
    }

    fn join(&mut self, dir: &Path, name: &str, more: &[&str]) {
        let at = self.servers.len();
        let mut server = Server::new(PROGRAM, dir, &format!("{name}-{}", at + 1));
        server.set_tls(ClientTls::in_folder(&self.client("admin")));
        let (tls, seed) = (self.node(at), self.servers[0].address.to_string());
        server.start(&[&["--tls", &*tls, "--join", &seed][..], more].concat());
        self.servers.push(server);
    }

    /// The folder of a node's certificate.
    fn node(&self, at: usize) -> String {
        text(&self.certs.join(format!("nodes/n{}", at + 1)))
    }

    fn client(&self, name: &str) -> PathBuf {
        self.certs.join("clients").join(name)
    }

    /// A command at one node, with the certificate of a client.
    fn run_at(&self, at: usize, client: &str, line: &[&str]) -> Output {
        let (endpoint, tls) = (self.servers[at].address.to_string(), text(&self.client(client)));
        Cli::new(PROGRAM, &[]).run(&[line, &["-e", &endpoint, "--tls", &tls]].concat())
    }

    fn run(&self, client: &str, line: &[&str]) -> Output {
        self.run_at(0, client, line)
    }

    fn json(&self, line: &[&str]) -> Option<Value> {
        let output = self.run("admin", &[line, &["-o", "json"]].concat());
        (output.code == Some(0)).then(|| serde_json::from_str(&output.stdout).expect("JSON"))
    }

    fn wait_for_voters(&self, count: usize) {
        eventually("voters", || {
            let shown = self.run("admin", &["members", "list", "-o", "json"]);
            (shown.stdout.matches("\"voter\"").count() == count).then_some(())
        });
    }

    fn wait_until_all_agree(&self) {
        eventually("agreement", || (self.json(&["digest"])?["all_agree"] == true).then_some(()));
    }
}

#[test]
fn who_may_takes_a_copy_and_the_cluster_made_of_it_wants_certificates_of_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut old = Secured::new(dir.path(), &[]);
    let path = |name: &str| text(&dir.path().join(name));
    let token = path("nightly.token");
    old.run("admin", &["user", "add", "keeper", "--role", "operator"]).ok();
    old.run("admin", &["user", "add", "reader", "--role", "reader"]).ok();
    let create = ["token", "create", "--name", "nightly", "--role", "operator", "--out", &token];
    old.run("admin", &create).ok();
    old.run("admin", &["apply", &set("a")]).ok();

    for command in [&["backup", "save"][..], &["export"]] {
        for at in 0..2 {
            let file = path("refused");
            let said = old.run_at(at, "reader", &[command, &[file.as_str()]].concat()).failed();
            assert!(said.contains("backup"), "{command:?}: {said}");
            assert!(!Path::new(&file).exists(), "{command:?}");
        }
        let by_certificate = path(&format!("{}.by-certificate", command[0]));
        old.run_at(1, "keeper", &[command, &[by_certificate.as_str()]].concat()).ok();
        // A token counts for more than the certificate beside it.
        let by_token = path(&format!("{}.by-token", command[0]));
        old.run("reader", &[command, &[by_token.as_str(), "--token-file", &token]].concat()).ok();
        assert!([by_certificate, by_token].iter().all(|file| Path::new(file).exists()));
    }
    // Whoever saves one has all data, and still no query.
    old.run("keeper", &GET).failed();

    old.servers.iter_mut().for_each(Server::kill);
    let mut server = Server::new(PROGRAM, dir.path(), "new-1");
    let (data, address) = (text(&server.data_dir), server.address.to_string());
    let backup = path("backup.by-token");
    let restore = ["restore", &backup, "--data-dir", &data, "--advertise", &address];
    let said = Cli::new(PROGRAM, &[]).run(&restore).ok();
    let id = said.split_once("new cluster ").expect("its id").1[..32].to_owned();
    let hint = format!("raft-host certs init DIR --cluster-id {id}");
    assert!(said.contains(&hint), "{said}");
    let said = server.refuses(&["--tls", &old.node(0)]);
    assert!(said.contains(&hint) && said.contains("make a new cluster"), "{said}");

    let certs = dir.path().join("certs-new");
    Secured::make_certs(&certs, &["--cluster-id", &id]);
    let mut new = Secured { certs, servers: Vec::new() };
    new.start_first(server, &[], &[]);
    assert!(new.run("admin", &GET).ok().contains("of a"));
    let rights = new.run("admin", &["rights"]).ok();
    for name in ["admin", "keeper", "reader", "nightly"] {
        assert!(rights.contains(name), "{name}: {rights}");
    }
    // Principals and tokens are what they were, and certificates of before are nobody's.
    assert!(new.run("reader", &GET).ok().contains("of a"));
    let again = path("again");
    new.run("reader", &["backup", "save", &again]).failed();
    new.run("reader", &["backup", "save", &again, "--token-file", &token]).ok();
    let of_before = text(&old.client("admin"));
    let line = ["status", "-e", &address, "--tls", &of_before, "--timeout", "5s"];
    let said = Cli::new(PROGRAM, &[]).run(&line).failed();
    assert!(said.contains("CA"), "{said}");
    new.join(dir.path(), "new", &[]);
    new.wait_for_voters(2);
    new.wait_until_all_agree();
}

fn rot_all(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let rot = |path: PathBuf| match path.is_dir() {
        true => rot_all(&path),
        false if path.extension().is_some_and(|extension| extension == "snap") => {
            let mut bytes = fs::read(&path).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(&path, bytes).expect("written");
            1
        }
        false => 0,
    };
    entries.map(rot).sum()
}

#[test]
fn nodes_that_need_a_state_get_it_by_their_certificates() {
    let dir = tempfile::tempdir().expect("a folder");
    let more = ["--trailing-logs", "1", "--trailing-ms", "0"];
    let mut secured = Secured::new(dir.path(), &more);
    secured.run("admin", &["apply", &set("a")]).ok();
    secured.wait_until_all_agree();

    // The log was compacted while it was away.
    let installed = |server: &Server| server.log().matches("installed a snapshot").count();
    let before = installed(&secured.servers[2]);
    secured.servers[2].kill();
    for n in 0..50 {
        secured.run_at(n % 2, "admin", &["apply", &set(&format!("meanwhile-{n}"))]).ok();
    }
    for at in 0..2 {
        secured.run_at(at, "admin", &["snapshot", "take"]).ok();
    }
    let tls = secured.node(2);
    secured.servers[2].start(&[&["--tls", &*tls][..], &more].concat());
    secured.wait_until_all_agree();
    assert!(installed(&secured.servers[2]) > before, "by log, not by snapshot");

    // All its states are rotten, and a member hands it a copy: a node has the right to that.
    assert_eq!(secured.servers[2].terminate(), Some(0));
    assert!(rot_all(&secured.servers[2].data_dir.join("snapshots")) > 0);
    secured.run("admin", &["apply", &set("late")]).ok();
    let said = secured.servers[2].refuses(&["--tls", &tls]);
    assert!(said.contains("No older state will do") && said.contains("--join"), "{said}");
    let seed = secured.servers[0].address.to_string();
    secured.servers[2].start(&["--tls", &tls, "--join", &seed]);
    secured.wait_until_all_agree();
    assert!(secured.servers[2].log().contains("it goes on with a member's"));
    let late = ["query", r#"{"op":"get","key":"late"}"#];
    assert!(secured.run_at(2, "admin", &late).ok().contains("of late"));
}
