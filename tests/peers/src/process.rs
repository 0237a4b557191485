//! Programs that are started, watched and ended.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Last lines of a program's output that an error repeats.
const LINES_SHOWN: usize = 5;

/// A program that runs. It is ended when this is dropped, and waited for.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    errors: PathBuf,
}

impl Process {
    /// Starts it, with what it says in `dir`.
    pub(crate) fn start(name: &str, dir: &Path, command: &mut Command) -> Result<Process> {
        let errors = dir.join(format!("{name}.log"));
        let log = File::create(&errors).with_context(|| errors.display().to_string())?;
        // A group of its own: what a terminal sends meets the one that ends it in order.
        let started = command.stdin(Stdio::null()).stderr(log).process_group(0).spawn();
        let child = started.with_context(|| format!("starting {name}"))?;
        Ok(Process { name: name.to_owned(), child, errors })
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Fails when it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.last_words()),
        }
    }

    /// The end of what it has said.
    pub(crate) fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.errors).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    /// Processor time that it has used so far. One that has ended has used none.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let ticks = stat.ok().and_then(|stat| ticks_of(&stat)).unwrap_or(0);
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `utime` and `stime` of proc_pid_stat(5), the fields 14 and 15; the second is a name in
/// parentheses that may hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// The first line of what a program says about its version.
pub(crate) fn version_of(program: &Path) -> Result<String> {
    let name = program.display();
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        bail!("{name} --version failed ({})", output.status);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Whether files below are kept in memory (tmpfs, ramfs) and by no disk.
pub(crate) fn is_in_memory(dir: &Path) -> Result<bool> {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    Ok([TMPFS, RAMFS].contains(&(rustix::fs::statfs(dir)?.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_name_of_the_program() {
        let stat = "7 (a) 9 (b) S 1 7 7 0 -1 4194304 100 0 0 0 250 31 5 6 20 0 3 0 99 1 2";
        assert_eq!(ticks_of(stat), Some(281));
        assert_eq!(ticks_of("7 (a) S 1"), None);
        assert_eq!(ticks_of(""), None);
    }

    #[test]
    fn a_program_that_ends_is_named_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 3"]);
        let mut process = Process::start("talker", dir.path(), &mut command).unwrap();
        while process.ended().unwrap().is_none() {
            std::thread::yield_now();
        }
        let error = process.must_run().unwrap_err().to_string();
        assert!(error.contains("talker ended") && error.ends_with("line 6\nline 7"), "{error}");
        assert!(!error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_process_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let process =
            Process::start("sleeper", dir.path(), Command::new("sleep").arg("1000")).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", process.child.id()));
        assert!(stat.exists());
        drop(process);
        assert!(!stat.exists());
    }
}
