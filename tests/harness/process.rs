//! Starts, watches and kills `raft-host` processes.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raft_host_proto::client::{Client, ClientOptions};
use raft_host_proto::dial::ClientTls;

/// Long enough for a debug build on a loaded machine; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port below the ephemeral range that nobody listens on, so that no outgoing connection can
/// take it between two starts of a server.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    for _ in 0..20_000 {
        let port = 10_000 + (base - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output, when the program succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error, when the program failed by itself.
    pub fn failed(self) -> String {
        assert!(
            self.code.is_some_and(|code| code != 0),
            "did not fail: {:?}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "a panic is no message: {}", self.stderr);
        self.stderr
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Output {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The command line.
pub struct Cli {
    program: PathBuf,
    endpoints: Vec<String>,
}

impl Cli {
    /// `program`: `env!("CARGO_BIN_EXE_raft-host-under-test")`. Without endpoints the environment
    /// names none.
    pub fn new(program: &str, endpoints: &[SocketAddr]) -> Cli {
        let endpoints = endpoints.iter().map(SocketAddr::to_string).collect();
        Cli { program: program.into(), endpoints }
    }

    /// Runs a subcommand to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    /// The same with more variables in its environment.
    pub fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.start_with(arguments, variables).finish()
    }

    /// Starts a subcommand, and does not wait for it.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(arguments, &[])
    }

    fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if !self.endpoints.is_empty() {
            command.env("RAFT_HOST_ENDPOINT", self.endpoints.join(","));
        }
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("the program under test starts");
        let (stdout, stderr) =
            (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        Running { child, stdout: all_of(stdout), stderr: all_of(stderr) }
    }
}

/// A command that has not ended yet; dropped, it is killed.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Ends it as Ctrl-C does, by the signal that nobody ignores: whoever is started in the background of a shell
    /// ignores the one of Ctrl-C.
    pub fn interrupt(self) -> Output {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", "TERM", &pid]).status().expect("kill");
        assert!(status.success());
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Output {
        let status = wait(&mut self.child, "the command to end");
        let said = |reader: &mut Option<JoinHandle<Vec<u8>>>| {
            reader.take().expect("taken once").join().expect("reader")
        };
        let (stdout, stderr) = (said(&mut self.stdout), said(&mut self.stderr));
        std::process::Output { status, stdout, stderr }.into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pipe brings until its end.
fn all_of(mut pipe: impl Read + Send + 'static) -> Option<JoinHandle<Vec<u8>>> {
    Some(std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe reads");
        bytes
    }))
}

fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if Instant::now() > deadline {
            // The test fails either way.
            let _ = child.kill();
            panic!("waited too long for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a node answers at that address. A listening socket alone says nothing: it is bound
/// before a start can still be refused.
fn answers(address: SocketAddr, tls: Option<&ClientTls>) -> bool {
    let options = ClientOptions {
        attempt_timeout: Duration::from_secs(1),
        deadline: Duration::from_secs(1),
        tls: tls.cloned(),
        ..Default::default()
    };
    let client = Client::connect([address.to_string()], options).expect("an endpoint");
    crate::block_on(async { client.status().await.is_ok() })
}

/// A server: its program, arguments and data, running or not.
pub struct Server {
    program: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data directory.
    pub data_dir: PathBuf,
    log: PathBuf,
    environment: Vec<(String, PathBuf)>,
    tls: Option<ClientTls>,
    child: Option<Child>,
}

/// How a start went.
#[derive(Debug)]
pub enum Started {
    /// It answers requests.
    Serving,
    /// It ended, with this code and these last words.
    Ended(Option<i32>, String),
}

impl Server {
    /// A server that is not started yet. `dir` must exist; data and log go below it.
    pub fn new(program: &str, dir: &Path, name: &str) -> Server {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Server {
            program: program.into(),
            address,
            data_dir: dir.join(name),
            log: dir.join(format!("{name}.log")),
            environment: Vec::new(),
            tls: None,
            child: None,
        }
    }

    /// It is asked with this, to see whether it serves.
    pub fn set_tls(&mut self, tls: ClientTls) {
        self.tls = Some(tls);
    }

    /// Its data are in a directory of that name from now on; it must not have been started.
    pub fn move_data(&mut self, data_dir: PathBuf) {
        assert!(self.child.is_none(), "it runs");
        self.data_dir = data_dir;
    }

    /// From the next start on it is this program.
    pub fn replace_program(&mut self, program: &str) {
        self.program = program.into();
    }

    /// From the next start on it has this variable in its environment.
    pub fn set_variable(&mut self, name: &str, value: &Path) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From the next start on its fsync does what [`Server::hang_fsync`] says.
    pub fn preload(&mut self, shim: &Path) {
        self.environment.push(("LD_PRELOAD".to_owned(), shim.to_owned()));
        self.environment.push(("CHAOS_FSYNC_FILE".to_owned(), self.fsync_file()));
    }

    /// From the next start on its data directory is on a disk of that many bytes, of which somebody else
    /// takes what [`Server::take_disk`] says.
    pub fn preload_small_disk(&mut self, shim: &Path, bytes: u64) {
        let file_name = self.data_dir.file_name().expect("it has a name");
        let dir = self.data_dir.parent().expect("it is below another").canonicalize();
        let dir = dir.expect("the directory is there").join(file_name);
        for (name, value) in [
            ("LD_PRELOAD", shim.to_owned()),
            ("SMALL_DISK_DIR", dir),
            ("SMALL_DISK_BYTES", bytes.to_string().into()),
            ("SMALL_DISK_TAKEN", self.taken_file()),
        ] {
            self.environment.push((name.to_owned(), value));
        }
    }

    fn taken_file(&self) -> PathBuf {
        self.log.with_extension("taken")
    }

    /// From now on somebody else takes so many bytes of its disk.
    pub fn take_disk(&self, bytes: u64) {
        // It must never be read half written.
        let new = self.taken_file().with_extension("new");
        std::fs::write(&new, bytes.to_string()).expect("a file");
        std::fs::rename(new, self.taken_file()).expect("renamed");
    }

    fn fsync_file(&self) -> PathBuf {
        self.log.with_extension("fsync")
    }

    /// Whether no fsync of it returns from now on.
    pub fn hang_fsync(&self, hangs: bool) {
        std::fs::write(self.fsync_file(), if hangs { "-1" } else { "0" }).expect("a file");
    }

    /// Each fsync of it takes so much longer from now on.
    pub fn slow_fsync(&self, ms: u32) {
        std::fs::write(self.fsync_file(), ms.to_string()).expect("a file");
    }

    /// Starts it and waits until it serves or ends.
    pub fn try_start(&mut self, arguments: &[&str]) -> Started {
        let mut child = self.spawn(arguments);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Started::Ended(status.code(), self.log());
            }
            if answers(self.address, self.tls.as_ref()) {
                self.child = Some(child);
                return Started::Serving;
            }
            assert!(Instant::now() < deadline, "it does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it and kills it so much later, whatever it is at; a start that ends by itself is as good.
    pub fn start_and_kill(&mut self, arguments: &[&str], after: Duration) {
        let mut child = self.spawn(arguments);
        std::thread::sleep(after);
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        assert!(self.child.is_none(), "started twice");
        let log = File::options().create(true).append(true).open(&self.log).expect("log file");
        Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &self.address.to_string()])
            .args(arguments)
            .env_remove("RUST_LOG")
            // Museum builds flip a bit of their state when the file appears.
            .env("RAFT_HOST_FLIP_BIT_FILE", self.data_dir.join("flip-bit"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("the program under test starts")
    }

    /// Starts it; it must come to serve.
    pub fn start(&mut self, arguments: &[&str]) {
        if let Started::Ended(code, log) = self.try_start(arguments) {
            panic!("the server ended with {code:?}: {log}");
        }
    }

    /// Starts it; it must refuse. Returns what it said.
    pub fn refuses(&mut self, arguments: &[&str]) -> String {
        match self.try_start(arguments) {
            Started::Serving => {
                self.kill();
                panic!("it started although it must not: {}", self.log());
            }
            Started::Ended(code, log) => {
                assert!(code.is_some_and(|code| code != 0), "ended with {code:?}: {log}");
                assert!(!log.contains("panicked"), "a panic is no message: {log}");
                log
            }
        }
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// Whether it was started and has not ended by itself.
    pub fn still_runs(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| child.try_wait().expect("a child can be waited for").is_none())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
        }
    }

    /// SIGTERM; waits for the end and returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM")
    }

    /// Sends a signal that ends it; waits for the end and returns the exit code.
    pub fn signal(&mut self, name: &str) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success());
        wait(&mut child, "the server to drain").code()
    }

    /// Waits until it ends by itself and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        wait(&mut child, "the server to end").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- {} ---\n{}", self.log.display(), tail.join("\n"));
        }
    }
}
