//! Building: a child process, so that what the tool says is shown as it is and a build that
//! hangs ends with dev.

use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;

use super::project::Project;
use crate::fsm::Limits;
use crate::types::ModuleHash;
use crate::wasm::check_module;

/// Lines of a tool's output that are shown of a failed build; the last ones.
const SHOWN_LINES: usize = 60;
const POLL: Duration = Duration::from_millis(10);

/// A module that a cluster may be given.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) module: Bytes,
    pub(super) hash: ModuleHash,
    pub(super) took: Duration,
}

/// Why there is none, in words for the screen.
#[derive(Debug)]
pub(super) struct NotBuilt(pub(super) String);

/// Runs the build and reads what it wrote.
pub(super) async fn build(project: &Project, command: Option<&str>) -> Result<Built, NotBuilt> {
    let begun = Instant::now();
    let said = run(project, command).await.map_err(|error| NotBuilt(format!("{error:#}")))?;
    let took = begun.elapsed();
    if let Some(said) = said {
        return Err(NotBuilt(last_lines(&said)));
    }
    let read = tokio::fs::read(&project.module).await;
    let module = read.map_err(|error| {
        NotBuilt(format!("the build wrote no module at {}: {error}", project.module.display()))
    })?;
    check_module(&module, &Limits::default())
        .map_err(|error| NotBuilt(format!("no cluster would take the module: {error}")))?;
    Ok(Built { hash: ModuleHash::of(&module), module: module.into(), took })
}

/// `Some`: it failed, having said this.
async fn run(project: &Project, command: Option<&str>) -> anyhow::Result<Option<String>> {
    let mut process = match command {
        Some(command) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]);
            shell
        }
        None => {
            let mut own = Command::new(std::env::current_exe().context("finding this program")?);
            own.arg("build").arg(&project.dir);
            own
        }
    };
    // One file for both streams keeps what is said in order, and no pipe can fill up.
    let mut said = tempfile::tempfile().context("creating a file for the build's output")?;
    let stream = || said.try_clone().context("sharing the file for the build's output");
    process.current_dir(&project.dir).stdin(Stdio::null()).stdout(stream()?).stderr(stream()?);
    let mut running = Running(process.spawn().context("starting the build")?);
    let status = loop {
        if let Some(status) = running.0.try_wait().context("waiting for the build")? {
            break status;
        }
        tokio::time::sleep(POLL).await;
    };
    if status.success() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut bytes)).context("reading its output")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(if text.trim().is_empty() { format!("the build ended with {status}") } else { text }))
}

/// A build that ends, at the latest, with whoever waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(SHOWN_LINES) {
        None | Some(0) => lines.join("\n"),
        Some(left) => format!("({left} lines before)\n{}", lines[left..].join("\n")),
    }
}
