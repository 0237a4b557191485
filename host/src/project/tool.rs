//! Runs the tools of other people.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The most of a captured output that is kept: its end.
const KEPT_BYTES: u64 = 1 << 20;

/// Where a tool's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolOutput {
    /// To this process's stderr, each command before what it says; stdout stays free for results.
    Inherit,
    /// Into the result: both streams, in the order they were written, the last MiB of them.
    Capture,
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
}

impl Step {
    pub(super) fn new(program: impl Into<PathBuf>) -> Step {
        Step { program: program.into(), arguments: Vec::new(), environment: Vec::new(), hint: "" }
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
    pub(super) fn run(&self, dir: &Path, output: ToolOutput) -> io::Result<(ExitStatus, String)> {
        let mut command = self.command(dir);
        match output {
            ToolOutput::Inherit => {
                // Nobody is left to tell when stderr is gone; the build goes on.
                let _ = writeln!(io::stderr(), "$ {self}");
                command.stdout(io::stderr()).stderr(Stdio::inherit());
                Ok((command.status()?, String::new()))
            }
            ToolOutput::Capture => {
                // One file for both streams keeps their order, and no pipe can fill up.
                let file = tempfile::tempfile()?;
                command.stdout(file.try_clone()?).stderr(file.try_clone()?);
                let status = command.status()?;
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

    #[test]
    fn both_streams_are_captured_in_order_and_the_exit_is_told() {
        let step =
            Step::new("sh").args(["-c", "echo one; echo $WORD >&2; exit 3"]).env("WORD", "two");
        let (status, said) = step.run(Path::new("/"), ToolOutput::Capture).expect("sh is there");
        assert_eq!((status.code(), said.as_str()), (Some(3), "one\ntwo\n"));
    }

    #[test]
    fn a_command_is_shown_as_somebody_would_type_it() {
        let step = Step::new("/usr/bin/make").arg("CC=zig cc").arg("it's").env("A", "b");
        assert_eq!(step.to_string(), r"A=b /usr/bin/make 'CC=zig cc' 'it'\''s'");
    }
}
