//! Runs the tools of other people.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The most of a captured output that is kept: its end.
const KEPT_BYTES: u64 = 1 << 20;

/// How often it is looked whether a tool has ended.
const POLL: Duration = Duration::from_millis(5);
/// How long an interrupted tool may take to tidy up.
const TIDYING: Duration = Duration::from_secs(2);

/// Where a tool's output goes.
#[derive(Clone, Debug)]
pub enum ToolOutput {
    /// To this process's stderr, each command before what it says; stdout stays free for results.
    Inherit,
    /// Into the result: both streams, in the order they were written, the last MiB of them.
    /// The tool ends when it is interrupted, with all that it has started.
    Capture(Interrupt),
}

/// Ends the tools that run with it, and those that would.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on.
    pub fn interrupt(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for a process that leads its own group.
    fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        while !self.is_wanted() {
            match child.try_wait()? {
                Some(status) => return Ok(status),
                None => std::thread::sleep(POLL),
            }
        }
        signal_group(child, libc::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < TIDYING {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        signal_group(child, libc::SIGKILL);
        child.wait()
    }
}

/// To a child that has not been waited for to its end, and to all that it has started.
fn signal_group(child: &Child, signal: libc::c_int) {
    let group = libc::pid_t::try_from(child.id()).expect("an id that the system gave");
    #[expect(
        unsafe_code,
        reason = "a system call on numbers; the child keeps its id until waited for"
    )]
    // SAFETY: touches no memory of this process.
    let _ = unsafe { libc::kill(-group, signal) };
}

/// One program to run in the folder of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The program: a path, or a name for `PATH`.
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(String, OsString)>,
    /// What to know when it fails; may be empty.
    pub(super) hint: &'static str,
    /// What to know while it runs, if it runs for long; may be empty.
    pub(super) patience: &'static str,
}

impl Step {
    pub(super) fn new(program: impl Into<PathBuf>) -> Step {
        Step {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            hint: "",
            patience: "",
        }
    }

    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Step {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Step {
        arguments.into_iter().fold(self, Step::arg)
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Step {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(super) fn hint(self, hint: &'static str) -> Step {
        Step { hint, ..self }
    }

    pub(super) fn patience(self, patience: &'static str) -> Step {
        Step { patience, ..self }
    }

    /// The process to be, in a folder, with nothing to read.
    pub(super) fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end. What it wrote is empty unless captured.
    pub(super) fn run(&self, dir: &Path, output: &ToolOutput) -> io::Result<(ExitStatus, String)> {
        let mut command = self.command(dir);
        match output {
            ToolOutput::Inherit => {
                // Nobody is left to tell when stderr is gone; the build goes on.
                let _ = writeln!(io::stderr(), "$ {self}");
                if !self.patience.is_empty() {
                    let _ = writeln!(io::stderr(), "({})", self.patience);
                }
                command.stdout(io::stderr()).stderr(Stdio::inherit());
                Ok((command.status()?, String::new()))
            }
            ToolOutput::Capture(interrupt) => {
                // One file for both streams keeps their order, and no pipe can fill up.
                let file = tempfile::tempfile()?;
                command.stdout(file.try_clone()?).stderr(file.try_clone()?);
                let status = interrupt.wait(&mut command.process_group(0).spawn()?)?;
                Ok((status, end_of(file)?))
            }
        }
    }
}

fn end_of(mut file: File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(KEPT_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(KEPT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// As somebody would type it.
impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(formatter, "{name}={} ", quoted(value))?;
        }
        formatter.write_str(&quoted(self.program.as_os_str()))?;
        for argument in &self.arguments {
            write!(formatter, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

fn quoted(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./=+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured() -> ToolOutput {
        ToolOutput::Capture(Interrupt::default())
    }

    #[test]
    fn an_interrupted_tool_ends_with_all_that_it_has_started() {
        let interrupt = Interrupt::default();
        let output = ToolOutput::Capture(interrupt.clone());
        let folder = tempfile::tempdir().expect("created");
        let begun = folder.path().join("begun");
        let dir = folder.path().to_owned();
        let step = Step::new("sh").args(["-c", "sleep 1000 & echo $!; touch begun; wait"]);
        let running = std::thread::spawn(move || step.run(&dir, &output));
        while !begun.exists() {
            std::thread::sleep(POLL);
        }
        interrupt.interrupt();
        let (status, said) = running.join().expect("no panic").expect("it ran");
        assert!(!status.success(), "{status}");
        // Nobody may have buried it yet.
        let stat = Path::new("/proc").join(said.trim()).join("stat");
        let ended = || match std::fs::read_to_string(&stat) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !ended() {
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn both_streams_are_captured_in_order_and_the_exit_is_told() {
        let step =
            Step::new("sh").args(["-c", "echo one; echo $WORD >&2; exit 3"]).env("WORD", "two");
        let (status, said) = step.run(Path::new("/"), &captured()).expect("sh is there");
        assert_eq!((status.code(), said.as_str()), (Some(3), "one\ntwo\n"));
    }

    #[test]
    fn a_command_is_shown_as_somebody_would_type_it() {
        let step = Step::new("/usr/bin/make").arg("CC=zig cc").arg("it's").env("A", "b");
        assert_eq!(step.to_string(), r"A=b /usr/bin/make 'CC=zig cc' 'it'\''s'");
    }
}
