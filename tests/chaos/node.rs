//! One process under test: started, paused, killed; its disk and its fsync.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use raft_host_proto::client::{Client, ClientOptions};
use raft_host_proto::dial::ClientTls;
use raft_host_proto::v1;

use super::certificates::Certificates;
use super::disk::SmallDisk;
use super::owner::Pids;

/// How a node begins to be one.
pub(super) enum Form {
    /// It is one already, or joins the one at these addresses if its directory is empty.
    Join(Vec<SocketAddr>),
    /// It founds the cluster.
    Found(PathBuf),
}

/// What the nodes of a run have in common.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) dir: PathBuf,
    /// Preloaded into each process; absent if it could not be built.
    pub(super) shim: Option<PathBuf>,
    pub(super) pids: Arc<Pids>,
    /// With TLS.
    pub(super) certificates: Option<Arc<Certificates>>,
}

/// A node; its process is killed when it is dropped.
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) listen: SocketAddr,
    pub(super) advertise: SocketAddr,
    pub(super) program: PathBuf,
    pub(super) disk: Option<SmallDisk>,
    /// It may end by itself now: it was removed, or told to end while its disk hangs.
    pub(super) may_end: bool,
    setting: Setting,
    /// The folder with its certificate, of the node that its data are of.
    certificate: Option<PathBuf>,
    child: Option<Child>,
    /// How much of the log was written by earlier processes.
    log_before: u64,
}

impl Node {
    pub(super) fn new(
        at: usize,
        listen: SocketAddr,
        advertise: SocketAddr,
        program: &Path,
        setting: &Setting,
    ) -> anyhow::Result<Node> {
        Ok(Node {
            at,
            listen,
            advertise,
            program: program.to_owned(),
            disk: None,
            may_end: false,
            setting: setting.clone(),
            certificate: setting.certificates.as_ref().map(|all| all.issue()).transpose()?,
            child: None,
            log_before: 0,
        })
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        format!("node-{}", self.at + 1)
    }

    /// The directory that may be a small disk; the data are below it.
    pub(super) fn disk_dir(&self) -> PathBuf {
        self.setting.dir.join(self.name())
    }

    fn data_dir(&self) -> PathBuf {
        self.disk_dir().join("data")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.setting.dir.join(format!("{}.log", self.name()))
    }

    /// Says how slow its fsync is; see [`slow_fsync`].
    pub(super) fn fsync_file(&self) -> PathBuf {
        self.setting.dir.join(format!("{}.fsync", self.name()))
    }

    /// Starts a process; there must be none.
    pub(super) fn start(&mut self, form: &Form) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name());
        fs::create_dir_all(self.disk_dir())?;
        let mut log = File::options().create(true).append(true).open(self.log_path())?;
        self.log_before = log.seek(SeekFrom::End(0))?;
        let mut command = Command::new(&self.program);
        command
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen", &self.listen.to_string()])
            .args(["--advertise", &self.advertise.to_string()])
            // Small, so that snapshots are taken, sent and started from all the time.
            .args(["--snapshot-threshold", "400", "--snapshot-pause-ms", "0"])
            .args(["--trailing-logs", "200"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        match form {
            // What it is says its directory.
            _ if self.data_dir().join("IDENTITY").exists() => &mut command,
            Form::Found(plugin) => command.arg("--plugin").arg(plugin),
            Form::Join(seeds) => {
                let seeds: Vec<String> = seeds.iter().map(SocketAddr::to_string).collect();
                command.args(["--join", &seeds.join(",")])
            }
        };
        if let Some(certificate) = &self.certificate {
            command.arg("--tls").arg(certificate);
        }
        if let Some(shim) = &self.setting.shim {
            command.env("LD_PRELOAD", shim).env("CHAOS_FSYNC_FILE", self.fsync_file());
        }
        let child = command.spawn().with_context(|| format!("{}", self.program.display()))?;
        self.setting.pids.set(self.at, child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Whether a process runs.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// How the process ended by itself, if it did since the last look.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.setting.pids.set(self.at, 0);
            self.child = None;
        }
        Ok(status)
    }

    /// kill -9, and its end.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            self.setting.pids.set(self.at, 0);
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal such as `STOP` to the process, if there is one.
    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
        if let Some(child) = &self.child {
            let pid = child.id().to_string();
            let status = Command::new("kill").args([&format!("-{name}"), &pid]).status()?;
            ensure!(status.success(), "kill -{name} {pid}: {status}");
        }
        Ok(())
    }

    /// Waits until its process has ended. Whether it did in time.
    pub(super) async fn ends(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let deadline = tokio::time::Instant::now() + patience;
        while self.runs() && tokio::time::Instant::now() < deadline {
            if self.ended()?.is_some() {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(!self.runs())
    }

    /// Asks it to end, and makes it after `patience`. Whether it ended well by itself.
    pub(super) async fn terminate(&mut self, patience: Duration) -> anyhow::Result<bool> {
        self.signal("TERM")?;
        let deadline = tokio::time::Instant::now() + patience;
        while self.runs() && tokio::time::Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status.success());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill()?;
        Ok(false)
    }

    /// Waits until it answers or ends. Whether it answers.
    pub(super) async fn serves(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_)))) {
                return Ok(false);
            }
            if self.status().await.is_some() {
                return Ok(true);
            }
            if tokio::time::Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What it says of itself, if it says so within seconds.
    pub(super) async fn status(&self) -> Option<v1::StatusResponse> {
        let certificates = self.setting.certificates.as_ref();
        let tls = certificates.map(|certificates| certificates.client());
        client_of(self.listen, tls).status().await.ok()
    }

    /// How many calls of fsync were made slow.
    pub(super) fn slowed(&self) -> u64 {
        let waited = format!("{}.waited", self.fsync_file().display());
        fs::metadata(waited).map_or(0, |found| found.len())
    }

    /// Removes all data, as a replaced machine has none; there must be no process. What joins next is another node, with
    /// an id and a certificate of its own.
    pub(super) fn wipe(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs", self.name());
        if let Some(certificates) = &self.setting.certificates {
            self.certificate = Some(certificates.issue()?);
        }
        match fs::remove_dir_all(self.data_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What the newest process has written to its log.
    pub(super) fn log(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log_path())?;
            file.seek(SeekFrom::Start(self.log_before))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// A line of ours in its log.
    pub(super) fn note(&self, text: &str) {
        // For people who read the log; nothing depends on it.
        if let Ok(mut log) = File::options().append(true).open(self.log_path()) {
            let _ = writeln!(log, "======== {text}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.kill();
    }
}

/// From now on each fsync of the node with that file takes that much longer.
pub(super) fn slow_fsync(file: &Path, delay: Duration) -> anyhow::Result<()> {
    Ok(fs::write(file, delay.as_millis().to_string())?)
}

/// From now on no fsync of the node with that file returns, until it is told something else.
pub(super) fn hang_fsync(file: &Path) -> anyhow::Result<()> {
    Ok(fs::write(file, "-1")?)
}

/// A client of one node that does not wait long.
pub(super) fn client_of(address: SocketAddr, tls: Option<&ClientTls>) -> Client {
    let options = ClientOptions {
        attempt_timeout: Duration::from_secs(3),
        deadline: Duration::from_secs(3),
        tls: tls.cloned(),
        ..ClientOptions::default()
    };
    let client = Client::connect([address.to_string()], options);
    client.expect("an address is an endpoint, and certificates are read")
}
