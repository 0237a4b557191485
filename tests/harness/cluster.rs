//! A cluster of processes and a load that counts what was acknowledged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use raft_host_proto::client::{Client, ClientOptions, PipelineOptions};
use raft_host_proto::v1;
use tokio::task::JoinHandle;

use super::process::{Cli, Server};
use crate::kv;

/// Servers that form one cluster, by the order in which they joined.
pub struct Cluster {
    program: String,
    /// The servers; some may have been killed or removed.
    pub servers: Vec<Server>,
    /// Goes after them: those of a failed test show their logs.
    dir: tempfile::TempDir,
}

impl Cluster {
    /// `size` voters that run the kv plugin. `arguments` go to every server.
    pub fn new(program: &str, size: usize, arguments: &[&str]) -> Cluster {
        Cluster::of(program, &kv(), size, arguments)
    }

    /// The same with another plugin.
    pub fn of(program: &str, plugin: &Path, size: usize, arguments: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster { program: program.into(), dir, servers: Vec::new() };
        let mut first = vec!["--plugin", plugin.to_str().expect("UTF-8")];
        first.extend(arguments);
        cluster.add(&first);
        for _ in 1..size {
            cluster.join(arguments);
        }
        cluster.wait_for_voters(size);
        cluster
    }

    /// One voter whose data directory `raft-host restore` has made of a backup.
    pub fn restored(program: &str, backup: &Path) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Server::new(program, dir.path(), "node-1");
        let (data_dir, address) = (server.data_dir.display().to_string(), server.address);
        let backup = backup.to_str().expect("UTF-8");
        let address = address.to_string();
        let arguments = ["restore", backup, "--data-dir", &data_dir, "--advertise", &address];
        Cli::new(program, &[]).run(&arguments).ok();
        server.start(&[]);
        Cluster { program: program.into(), dir, servers: vec![server] }
    }

    /// Restarts one server with a library preloaded.
    pub fn restart_with(&mut self, at: usize, shim: &Path) {
        self.servers[at].kill();
        self.servers[at].preload(shim);
        self.servers[at].start(&[]);
    }

    /// Where the servers' data and logs are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn add(&mut self, arguments: &[&str]) -> usize {
        let name = format!("node-{}", self.servers.len() + 1);
        let mut server = Server::new(&self.program, self.dir.path(), &name);
        server.start(arguments);
        self.servers.push(server);
        self.servers.len() - 1
    }

    /// Starts one more server that joins; returns its place.
    pub fn join(&mut self, arguments: &[&str]) -> usize {
        let seed = self.addresses().first().expect("somebody runs").to_string();
        let mut all = vec!["--join", &seed];
        all.extend(arguments);
        self.add(&all)
    }

    /// Addresses of the running servers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let running = self.servers.iter().filter(|server| server.is_running());
        running.map(|server| server.address).collect()
    }

    /// The command line, told of all running servers.
    pub fn cli(&self) -> Cli {
        Cli::new(&self.program, &self.addresses())
    }

    /// The command line, told of one server.
    pub fn cli_of(&self, at: usize) -> Cli {
        Cli::new(&self.program, &[self.servers[at].address])
    }

    /// A client that knows all servers, also those that do not run now.
    pub fn client(&self) -> Client {
        client(self.servers.iter().map(|server| server.address))
    }

    /// A client of one server only.
    pub fn client_of(&self, at: usize) -> Client {
        client([self.servers[at].address])
    }

    /// Status of one server, from itself.
    pub fn status(&self, at: usize) -> Option<v1::StatusResponse> {
        let client = self.client_of(at);
        let answer = async { client.status().await.ok() };
        let quick = async { tokio::time::timeout(Duration::from_secs(5), answer).await };
        block_on(quick).ok().flatten()
    }

    /// Status of the main group of one server, from itself.
    pub fn group(&self, at: usize) -> Option<v1::GroupStatus> {
        self.status(at)?.group("").cloned()
    }

    /// The place of the leader, once there is one that the others agree on.
    pub fn leader(&self) -> usize {
        self.eventually("a leader", || {
            (0..self.servers.len())
                .filter(|at| self.servers[*at].is_running())
                .find(|at| self.group(*at).is_some_and(|group| group.role() == v1::Role::Leader))
        })
    }

    /// The node id of a server.
    pub fn node_id(&self, at: usize) -> u64 {
        self.eventually("a status", || self.status(at)).node_id
    }

    /// Waits until the cluster has that many voters and no learners.
    pub fn wait_for_voters(&self, count: usize) {
        self.eventually("voters", || {
            let leader = self.leader();
            let members = block_on(self.client_of(leader).members()).ok()?.members;
            let voters = members.iter().filter(|member| member.is_voter()).count();
            (voters == count && members.len() == count).then_some(())
        });
    }

    /// Waits until every running server has applied what the leader has committed.
    pub fn wait_for_agreement(&self) {
        self.eventually("agreement", || {
            let target = self.group(self.leader())?.commit_index;
            let running = (0..self.servers.len()).filter(|at| self.servers[*at].is_running());
            running
                .map(|at| self.group(at))
                .all(|group| group.is_some_and(|group| group.applied_index >= target))
                .then_some(())
        });
    }

    /// Polls until `probe` finds something.
    pub fn eventually<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        for _ in 0..1_200 {
            if let Some(found) = probe() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited too long for {what}");
    }

    /// Asks one server's own state, without asking the others.
    pub fn local(&self, at: usize, query: &str) -> String {
        answer(&self.client_of(at), query, v1::Consistency::Stale)
    }

    /// Asks one server for an answer that sees everything acknowledged.
    pub fn query(&self, at: usize, query: &str) -> String {
        answer(&self.client_of(at), query, v1::Consistency::Linearizable)
    }
}

fn answer(client: &Client, query: &str, consistency: v1::Consistency) -> String {
    let response = block_on(client.query(query.to_owned(), consistency)).expect("an answer");
    match response.outcome.and_then(|outcome| outcome.kind) {
        Some(v1::outcome::Kind::Ok(bytes)) => String::from_utf8(bytes.to_vec()).expect("UTF-8"),
        other => panic!("{query}: {other:?}"),
    }
}

fn client(addresses: impl IntoIterator<Item = SocketAddr>) -> Client {
    let endpoints = addresses.into_iter().map(|address| address.to_string());
    let options = ClientOptions { deadline: Duration::from_secs(90), ..Default::default() };
    Client::connect(endpoints, options).expect("addresses are endpoints")
}

/// A hash or an id, as the command line shows it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a future on the harness's own runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime"))
}

fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let _runtime = runtime().enter();
    tokio::spawn(future)
}

/// Commands that are being applied in the background, exactly once each.
pub struct Load {
    answered: Arc<AtomicU64>,
    task: JoinHandle<(BTreeSet<u64>, Vec<String>)>,
}

/// The value that the load sets key `n` to.
pub fn value(n: u64) -> String {
    format!("value-{n}-{}", "x".repeat((n % 50) as usize))
}

impl Load {
    /// Sets `key-0` .. `key-(count-1)`, one session, pipelined, through the client library and
    /// nothing but what it does by itself against failures.
    pub fn start(client: Client, count: u64) -> Load {
        let answered = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&answered);
        let task = spawn(async move {
            let session = client.open_session(None).await.expect("a session");
            let options = PipelineOptions { window: 64, ..Default::default() };
            let (sender, mut results) = session.pipeline(options);
            let sending = tokio::spawn(async move {
                for n in 0..count {
                    let command = serde_json::json!({
                        "op": "set", "key": format!("key-{n}"), "value": value(n)
                    });
                    sender.send(command.to_string()).await.expect("the results are being taken");
                }
            });
            let (mut acknowledged, mut errors) = (BTreeSet::new(), Vec::new());
            while let Some(result) = results.next().await {
                counter.fetch_add(1, Ordering::Relaxed);
                match result.result {
                    Ok(response) => match response.outcome.and_then(|outcome| outcome.kind) {
                        Some(v1::outcome::Kind::Ok(_)) => drop(acknowledged.insert(result.tag)),
                        other => errors.push(format!("{}: {other:?}", result.tag)),
                    },
                    Err(error) => errors.push(format!("{}: {error}", result.tag)),
                }
            }
            sending.await.expect("the sender does not panic");
            (acknowledged, errors)
        });
        Load { answered, task }
    }

    /// Commands that were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for the end; every command must have been acknowledged.
    pub fn finish(self, count: u64) {
        let (acknowledged, errors) = block_on(self.task).expect("the load does not panic");
        let few: Vec<&String> = errors.iter().take(3).collect();
        assert!(errors.is_empty(), "{} errors, such as {few:?}", errors.len());
        assert_eq!(acknowledged.len() as u64, count);
    }
}
