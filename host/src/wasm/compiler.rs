//! Where modules are checked and compiled: in this process, or in a child of it that may use only so
//! much.
//!
//! The bounds in `complexity` are what is known of validator and compiler. For what is not known
//! of them a server has a child process do the work, which the system ends when it takes too
//! much memory or processor time. So a module that nobody foresaw costs its uploader a refusal, and
//! the node nothing.
//!
//! ```text
//!   node ── job (JSON), module ──────────────────────────► child: setrlimit, check, compile
//!        ◄── verdict (JSON), compiled code, its SHA-256 ──
//! ```
//!
//! The child is this very program (`/proc/self/exe`, also when its file has been replaced), so what it
//! hands back is trusted as the process's own work is. It has none of the node's open files. It ends when
//! the node does: its input ends then.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::check::{CheckError, ModuleReport, check_held, check_module};
use super::engine;
use super::inherited::close_inherited;
use super::rewrite::rewrite;
use super::words::shown;
use crate::fsm::{HostFailure, Limits};

/// The hidden subcommand that a child is started with.
pub const CHILD_COMMAND: &str = "compile-module";

/// This program.
const PROGRAM: &str = "/proc/self/exe";
/// Threads of a child: each holds a function that it compiles, so their number is part of what
/// a module takes.
const THREADS_MAX: usize = 4;
/// Longest job or verdict, without module and code.
const HEAD_MAX_BYTES: u64 = 16 << 20;
/// Most that is kept of what a child says before it dies.
const LAST_WORDS_MAX_BYTES: u64 = 2 << 10;
/// What a module that a cluster has already may take, in terms of what a new one may. It has been
/// found to take less once, on some node.
const HELD_FACTOR: u64 = 4;
/// How long a child may take by the clock, in terms of the processor time that it may use. It
/// shares the processors with the node and others; one that takes longer hangs.
const PATIENCE_FACTOR: u64 = 10;
/// Nobody hangs who takes less, in seconds.
const PATIENCE_MIN_S: u64 = 300;
/// Smallest bounds that suffice for small modules.
const MEMORY_MIN_BYTES: u64 = 128 << 20;

/// What checking and compiling one new module may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompilerConfig {
    /// Most memory of the process that does it, in bytes.
    pub memory_max_bytes: u64,
    /// Most processor time of all its threads together, in seconds.
    pub cpu_max_s: u64,
}

impl Default for CompilerConfig {
    fn default() -> CompilerConfig {
        CompilerConfig { memory_max_bytes: 1 << 30, cpu_max_s: 300 }
    }
}

impl CompilerConfig {
    /// Says what makes no sense.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        if self.memory_max_bytes < MEMORY_MIN_BYTES {
            return Err(format!(
                "compiler.memory_max_bytes ({}) must be at least {MEMORY_MIN_BYTES} (128 MiB): small \
                 modules take some dozens of MiB",
                self.memory_max_bytes
            ));
        }
        if self.cpu_max_s == 0 {
            return Err("compiler.cpu_max_s must not be 0: nothing compiles in no time".into());
        }
        Ok(())
    }

    /// How long it may take by the clock.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.cpu_max_s.saturating_mul(PATIENCE_FACTOR).max(PATIENCE_MIN_S))
    }

    /// For a module that the cluster has in its log.
    fn held(&self) -> CompilerConfig {
        CompilerConfig {
            memory_max_bytes: self.memory_max_bytes.saturating_mul(HELD_FACTOR),
            cpu_max_s: self.cpu_max_s.saturating_mul(HELD_FACTOR),
        }
    }
}

/// Who checks and compiles.
#[derive(Clone, Debug, Default)]
pub(super) enum Compiler {
    /// The thread that asks.
    #[default]
    InProcess,
    /// A child process for each module.
    Children(CompilerConfig),
}

/// Whose module it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Whose {
    /// Nobody's yet. All bounds hold.
    New,
    /// A cluster's, in its log.
    Held,
}

impl Whose {
    /// The checks that hold for it.
    pub(super) fn check(self, module: &[u8], limits: &Limits) -> Result<ModuleReport, CheckError> {
        match self {
            Whose::New => check_module(module, limits),
            Whose::Held => check_held(module, limits),
        }
    }
}

/// Why a child did not compile a module.
pub(super) enum Failure {
    /// One of the checks.
    Refused(CheckError),
    /// The compiler, or a bound that ended it.
    Compile(String),
    /// No fault of the module's.
    Host(String),
}

#[derive(Serialize, Deserialize)]
struct Job {
    whose: Whose,
    limits: Limits,
    bounds: CompilerConfig,
    /// The compiled code is there, so only the checks are wanted.
    is_compiled: bool,
    module_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    verdict: Verdict,
    code_bytes: u64,
    code_sha256: [u8; 32],
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    Good(ModuleReport),
    Refused(CheckError),
    DoesNotCompile(String),
    HostFailed(String),
}

/// Has a child check `module` and compile it (without the code if `is_compiled`).
pub(super) fn run(
    config: &CompilerConfig,
    whose: Whose,
    module: &[u8],
    limits: &Limits,
    is_compiled: bool,
) -> Result<(ModuleReport, Vec<u8>), Failure> {
    let bounds = match whose {
        Whose::New => config.clone(),
        Whose::Held => config.held(),
    };
    let job = Job {
        whose,
        limits: limits.clone(),
        bounds,
        is_compiled,
        module_bytes: module.len() as u64,
    };
    ask(&mut command(), &job, module, job.bounds.patience())
}

/// Has a child that is started like this do the job. It is ended when it takes longer than `patience`.
fn ask(
    command: &mut Command,
    job: &Job,
    module: &[u8],
    patience: Duration,
) -> Result<(ModuleReport, Vec<u8>), Failure> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::Host(format!("starting a process to check a module: {error}")))?;
    let pipes = Pipes::of(&mut child);
    let (done, is_done) = mpsc::channel::<()>();
    let (outcome, is_late) = std::thread::scope(|scope| {
        let child = &mut child;
        let end = scope.spawn(move || {
            let is_late = is_done.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout);
            // If it has answered it has nothing left to do; if not, it is dead or out of its mind.
            let _ = child.kill();
            is_late
        });
        let outcome = converse(pipes, job, module);
        drop(done);
        (outcome, end.join().unwrap_or(false))
    });
    let status = child.wait().map_err(|error| {
        Failure::Host(format!("waiting for the process that checks a module: {error}"))
    })?;
    match outcome {
        Ok((answer, code)) => match answer.verdict {
            Verdict::Good(report) => Ok((report, code)),
            Verdict::Refused(error) => Err(Failure::Refused(error)),
            Verdict::DoesNotCompile(reason) => Err(Failure::Compile(reason)),
            Verdict::HostFailed(reason) => Err(Failure::Host(reason)),
        },
        // It has not used up its processor time, so nobody knows that this is the module's doing.
        Err(_) if is_late => Err(Failure::Host(format!(
            "the process that checks and compiles a module had no answer after {:?} and was ended: it \
             hangs, or this machine leaves it no time (it may use {} s of processor time, \
             compiler.cpu_max_s)",
            patience, job.bounds.cpu_max_s
        ))),
        Err(last_words) => Err(Failure::Compile(why_it_died(job, status, &last_words))),
    }
}

/// This program as a child.
fn command() -> Command {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let mut command = Command::new(PROGRAM);
    command
        .arg(CHILD_COMMAND)
        .env_clear()
        .env("RUST_BACKTRACE", "0")
        .env("RAYON_NUM_THREADS", threads.to_string())
        // The allocator would take a gigabyte at once, which counts, whatever of it is used.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
    command
}

/// To and from a child.
struct Pipes {
    input: ChildStdin,
    output: ChildStdout,
    errors: ChildStderr,
}

impl Pipes {
    fn of(child: &mut Child) -> Pipes {
        let pipe = "the child was started with pipes";
        Pipes {
            input: child.stdin.take().expect(pipe),
            output: child.stdout.take().expect(pipe),
            errors: child.stderr.take().expect(pipe),
        }
    }
}

/// What the child answers, or what it says instead. Ends with the child at the latest.
fn converse(pipes: Pipes, job: &Job, module: &[u8]) -> Result<(Answer, Vec<u8>), String> {
    let Pipes { mut input, mut output, mut errors } = pipes;
    std::thread::scope(|scope| {
        let last_words = scope.spawn(move || {
            let mut words = Vec::new();
            let _ = errors.by_ref().take(LAST_WORDS_MAX_BYTES).read_to_end(&mut words);
            // It must not wait for us before it dies.
            let _ = io::copy(&mut errors, &mut io::sink());
            String::from_utf8_lossy(&words).into_owned()
        });
        // If it dies before it has read everything, what it says tells why.
        let _ = write_head(&mut input, job).and_then(|()| input.write_all(module));
        let answer = receive(&mut output, job);
        // Its input ends, and with it the child.
        drop(input);
        let last_words = last_words.join().unwrap_or_default();
        answer.map_err(|error| match last_words.is_empty() {
            true => error.to_string(),
            false => last_words,
        })
    })
}

fn receive(output: &mut impl Read, job: &Job) -> io::Result<(Answer, Vec<u8>)> {
    let answer: Answer = read_head(output)?;
    if answer.code_bytes > job.bounds.memory_max_bytes {
        return Err(damaged("more code than the child can have"));
    }
    let code = read_bytes(output, answer.code_bytes)?;
    match Sha256::digest(&code)[..] == answer.code_sha256 {
        true => Ok((answer, code)),
        false => Err(damaged("the compiled code is damaged")),
    }
}

/// For whoever uploaded the module, or runs the node.
fn why_it_died(job: &Job, status: ExitStatus, last_words: &str) -> String {
    let what = match job.whose {
        Whose::New => "checking and compiling it takes more than",
        Whose::Held => "checking and compiling it takes more than four times what is set:",
    };
    if last_words.contains("memory allocation of") {
        let mib = job.bounds.memory_max_bytes >> 20;
        return format!("{what} {mib} MiB of memory (compiler.memory_max_bytes)");
    }
    match status.signal() {
        Some(libc::SIGXCPU) => {
            let seconds = job.bounds.cpu_max_s;
            format!("{what} {seconds} s of processor time (compiler.cpu_max_s)")
        }
        Some(libc::SIGKILL) => {
            "the system ended the process that checks and compiles it: it may have \
                          too little memory"
                .to_owned()
        }
        _ => {
            let last_words = shown(last_words.trim());
            format!("the process that checks and compiles it ended early ({status}): {last_words}")
        }
    }
}

/// What the child does: closes what it got of its parent's files, reads a job from `input`, confines itself,
/// and answers on `output`. `watch` is called once all input is there. For a process that has done nothing
/// else before.
///
/// # Errors
/// There is no job, nobody takes the answer, or the system does not confine it.
pub fn compile_one(
    input: &mut impl Read,
    output: &mut impl Write,
    watch: impl FnOnce(),
) -> io::Result<()> {
    close_inherited()?;
    let job: Job = read_head(input)?;
    confine(&job.bounds)?;
    let module = read_bytes(input, job.module_bytes)?;
    watch();
    let (verdict, code) = match job.judge(&module) {
        Ok((report, code)) => (Verdict::Good(report), code),
        Err(Failure::Refused(error)) => (Verdict::Refused(error), Vec::new()),
        Err(Failure::Compile(reason)) => (Verdict::DoesNotCompile(reason), Vec::new()),
        Err(Failure::Host(reason)) => (Verdict::HostFailed(reason), Vec::new()),
    };
    let answer = Answer {
        verdict,
        code_bytes: code.len() as u64,
        code_sha256: Sha256::digest(&code).into(),
    };
    write_head(output, &answer)?;
    output.write_all(&code)?;
    output.flush()
}

impl Job {
    fn judge(&self, module: &[u8]) -> Result<(ModuleReport, Vec<u8>), Failure> {
        let report = self.whose.check(module, &self.limits).map_err(Failure::Refused)?;
        if self.is_compiled {
            return Ok((report, Vec::new()));
        }
        let host = |failure: HostFailure| Failure::Host(failure.0);
        let rewritten = rewrite(module, &report).map_err(|error| {
            Failure::Host(format!("rewriting a module that passed every check: {error}"))
        })?;
        let engine = engine::build(self.limits.stack_max_bytes).map_err(host)?;
        let code = engine
            .precompile_module(&rewritten.bytes)
            .map_err(|error| Failure::Compile(format!("{error:#}")))?;
        Ok((report, code))
    }
}

/// Has the system end this process when it takes more than this.
fn confine(bounds: &CompilerConfig) -> io::Result<()> {
    // If the machine itself has too little, this process is to go and not the node. Raising it takes
    // no privilege; without it, the bound below still holds.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // No core file of a gigabyte.
    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_CPU, bounds.cpu_max_s)?;
    limit(Resource::RLIMIT_DATA, bounds.memory_max_bytes)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    // At the soft limit of processor time comes a signal that says so, at the hard one it is SIGKILL.
    let hard = if matches!(resource, Resource::RLIMIT_CPU) { hard } else { hard.min(most) };
    Ok(setrlimit(resource, most.min(hard), hard)?)
}

/// A length and JSON.
fn write_head(to: &mut impl Write, head: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(head).map_err(io::Error::other)?;
    to.write_all(&(json.len() as u64).to_le_bytes())?;
    to.write_all(&json)
}

fn read_head<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_MAX_BYTES {
        return Err(damaged("a head of impossible length"));
    }
    serde_json::from_slice(&read_bytes(from, length)?).map_err(io::Error::other)
}

/// Exactly so many. Grows with what comes.
fn read_bytes(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(cpu_max_s: u64) -> Job {
        Job {
            whose: Whose::New,
            limits: Limits::default(),
            bounds: CompilerConfig { cpu_max_s, ..CompilerConfig::default() },
            is_compiled: false,
            module_bytes: 3,
        }
    }

    #[test]
    fn a_child_that_hangs_is_ended_and_that_is_nobodys_fault() {
        let mut hung = Command::new("sleep");
        let answer = ask(hung.arg("86400"), &job(7), b"abc", Duration::from_millis(20));
        let Err(Failure::Host(reason)) = answer else { panic!("it says nothing") };
        assert!(reason.contains("20ms") && reason.contains("it may use 7 s"), "{reason}");
    }

    /// Whoever waits for the end of an hour here waits too long.
    #[test]
    fn a_child_that_dies_is_not_waited_for() {
        let hour = Duration::from_secs(3_600);
        let answer = ask(Command::new("sh").args(["-c", "echo alas >&2"]), &job(7), b"abc", hour);
        let Err(Failure::Compile(reason)) = answer else { panic!("it says nothing else") };
        assert!(reason.contains("ended early") && reason.contains("alas"), "{reason}");
    }

    #[test]
    fn whoever_may_use_more_processor_time_may_take_longer() {
        let patience_s = |cpu_max_s| {
            let config = CompilerConfig { cpu_max_s, ..CompilerConfig::default() };
            (config.patience().as_secs(), config.held().patience().as_secs())
        };
        assert_eq!(patience_s(100), (1_000, 4_000));
        assert_eq!(patience_s(1), (300, 300));
        assert_eq!(patience_s(u64::MAX), (u64::MAX, u64::MAX));
    }
}
