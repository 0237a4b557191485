//! The demo's processes: the same binary, started as a user would start it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use raft_host_proto::Secret;
use raft_host_proto::client::{Client, ClientOptions};
use raft_host_proto::dial::ClientTls;
use tempfile::TempDir;
use tokio::time::Instant;

const KV: &[u8] = include_bytes!("../../../../plugins/kv/kv.wasm");
const KV_V2: &[u8] = include_bytes!("../../../../plugins/kv-v2/kv_v2.wasm");

/// How long a node may take to be ready.
const READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Faster than the defaults: everybody is on this machine.
const TIMING: [&str; 4] = ["--heartbeat-ms", "50", "--election-ms", "500"];

/// One process and what is needed to start it again.
pub(super) struct Process {
    pub(super) number: usize,
    pub(super) address: String,
    child: Option<Child>,
    starts: usize,
}

/// Three processes in a temporary directory. Dropping it kills them and deletes the directory.
pub(super) struct Cluster {
    processes: Vec<Process>,
    dir: Option<TempDir>,
    keep: bool,
    /// Nodes and clients have certificates.
    secure: bool,
}

impl Cluster {
    pub(super) fn prepare(keep: bool, secure: bool) -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new()
            .prefix("raft-host-demo-")
            .tempdir()
            .context("creating a temporary directory")?;
        std::fs::write(dir.path().join("kv.wasm"), KV).context("writing the kv plugin")?;
        let cluster = Cluster { processes: Vec::new(), dir: Some(dir), keep, secure };
        if secure {
            cluster.make_certificates()?;
        }
        Ok(cluster)
    }

    fn make_certificates(&self) -> anyhow::Result<()> {
        let mut command = program()?;
        command.args(["certs", "init"]).arg(self.certs()).args(["--client", "admin"]);
        for number in 1..=3 {
            command.args(["--node", &format!("node-{number}=127.0.0.1")]);
        }
        let made = command.output().context("making certificates")?;
        match made.status.success() {
            true => Ok(()),
            false => bail!("certs init: {}", String::from_utf8_lossy(&made.stderr)),
        }
    }

    /// Whether nodes and clients have certificates.
    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    fn certs(&self) -> PathBuf {
        self.path().join("certs")
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.as_ref().expect("there until it is dropped").path()
    }

    /// The second version of the plugin.
    pub(super) fn second_version(&self) -> &'static [u8] {
        KV_V2
    }

    pub(super) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Starts one more node: the first forms the cluster, the others join it.
    pub(super) async fn add(&mut self) -> anyhow::Result<()> {
        let number = self.processes.len() + 1;
        let flags = match self.processes.first() {
            None => ["--plugin".to_owned(), self.path().join("kv.wasm").display().to_string()],
            Some(first) => ["--join".to_owned(), first.address.clone()],
        };
        let any_port = "127.0.0.1:0".to_owned();
        self.processes.push(Process { number, address: any_port, child: None, starts: 0 });
        self.start(number, &flags).await
    }

    /// Starts a node that was killed, on its old address.
    pub(super) async fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.start(number, &[]).await
    }

    /// What `kill -9` does.
    pub(super) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let process = &mut self.processes[number - 1];
        let mut child = process.child.take().context("it does not run")?;
        child.kill().context("killing a node")?;
        child.wait().context("waiting for a killed node")?;
        Ok(())
    }

    async fn start(&mut self, number: usize, flags: &[String]) -> anyhow::Result<()> {
        let dir = self.path().to_owned();
        let secure = self.secure;
        let process = &mut self.processes[number - 1];
        process.starts += 1;
        let log = dir.join(format!("node-{number}.{}.log", process.starts));
        let mut command = program()?;
        if secure {
            command.arg("--tls").arg(dir.join("certs/nodes").join(format!("node-{number}")));
        }
        command
            .args(flags)
            .args(["--listen", &process.address, "--log-format", "json"])
            .arg("--data-dir")
            .arg(dir.join(format!("node-{number}")))
            .args(TIMING)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).context("creating a node's log")?);
        let child = process.child.insert(command.spawn().context("starting a node")?);
        let deadline = Instant::now() + READY;
        loop {
            if let Some(address) = ready_address(&log)? {
                process.address = address;
                return Ok(());
            }
            if let Some(status) = child.try_wait().context("looking at a node")? {
                bail!("node {number} ended ({status}) before it was ready");
            }
            if Instant::now() > deadline {
                bail!("node {number} was not ready within {READY:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A client of all nodes.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        self.client_of(self.processes.iter())
    }

    /// A client that asks one node only.
    pub(super) fn client_at(&self, number: usize) -> anyhow::Result<Client> {
        self.client_of([&self.processes[number - 1]].into_iter())
    }

    fn client_of<'a>(&self, of: impl Iterator<Item = &'a Process>) -> anyhow::Result<Client> {
        let options = ClientOptions {
            deadline: Duration::from_secs(20),
            attempt_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_millis(500),
            admin_deadline: Duration::from_secs(20),
            tls: self.secure.then(|| ClientTls::in_folder(&self.certs().join("clients/admin"))),
            ..ClientOptions::default()
        };
        Ok(Client::connect(of.map(|process| process.address.as_str()), options)?)
    }

    /// A client that shows a token besides the certificate that everybody needs.
    pub(super) fn client_with(&self, token: Secret) -> anyhow::Result<Client> {
        let options = ClientOptions { token: Some(token), ..self.client()?.options().clone() };
        let all = self.processes.iter().map(|process| process.address.as_str());
        Ok(Client::connect(all, options)?)
    }

    /// A client that has neither, and little patience.
    pub(super) fn stranger(&self, number: usize) -> anyhow::Result<Client> {
        let options = ClientOptions {
            deadline: Duration::from_secs(2),
            tls: Some(ClientTls::trusting(self.certs().join("ca.pem"))),
            ..ClientOptions::default()
        };
        Ok(Client::connect([self.processes[number - 1].address.as_str()], options)?)
    }

    /// Keeps the evidence of a failure and says where it is.
    pub(super) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.keep = true;
        error.context(format!(
            "the demo failed; the nodes' logs and data are in {}",
            self.path().display()
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().filter_map(|process| process.child.as_mut()) {
            // One that has ended already needs no killing.
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.keep
            && let Some(dir) = self.dir.take()
        {
            let kept: PathBuf = dir.keep();
            eprintln!("kept {}", kept.display());
        }
    }
}

/// This program, without what the user's environment says to it: the demo's nodes are not the user's.
fn program() -> anyhow::Result<Command> {
    let binary = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAFT_HOST_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The address that a node says it has, once it is ready.
fn ready_address(log: &Path) -> anyhow::Result<Option<String>> {
    let text = std::fs::read_to_string(log).context("reading a node's log")?;
    let records = text.lines().filter_map(|line| {
        // The last line may be half written.
        serde_json::from_str::<serde_json::Value>(line).ok()
    });
    let mut ready = records.filter(|record| record["message"] == "ready");
    Ok(ready.next().and_then(|record| record["address"].as_str().map(str::to_owned)))
}
