//! `raft-host dev`: the loop of somebody who writes a state machine. A change of a file becomes
//! a new version on three nodes, with the state that the old one had.
//!
//! ```text
//!   watch ──► session ──► build (the project room: the language's tools, then check)
//!   prompt ─►   │   ◄──── module
//!               └───────► cluster: three servers in this process; upgrade, kill, revive
//!   screen ◄── answers, build errors, lines of the guest
//! ```

mod build;
mod cluster;
mod files;
mod guest_log;
mod line;
mod ports;
mod prompt;
mod scratch;
mod screen;
mod session;
mod show;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

/// Builds a project, runs it on three nodes in this process, and replaces it with every change.
///
/// What is typed is a command for `apply`; a line that begins with ? is a query; lines that
/// begin with : are for dev itself (`:help` lists them). F1, F2 and F3 (or Alt-1, Alt-2, Alt-3)
/// kill and revive a node. Ctrl-C or Ctrl-D ends.
///
/// A successful build is proposed as an upgrade: the state survives. A broken one leaves the
/// running version alone, and so does one that `raft-host check` finds unfit or that the nodes
/// refuse. When standard input is not a terminal, its lines are taken one by one and the end of
/// it ends dev.
#[derive(Args, Clone, Debug)]
pub(super) struct DevArgs {
    /// The project: a folder with a raft-host.toml.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Keep the nodes' data here and go on with it next time; a temporary folder if absent.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Go on after the end of standard input, until a signal, if it is not a terminal.
    #[arg(long)]
    keep_running: bool,
}

/// How to use it, for `:help`.
const HELP: &str = "\
COMMAND        apply it on the cluster
?QUERY         ask the state machine; changes nothing
\\TEXT          apply TEXT even if it begins with ?, : or \\
:status        the nodes and the version that runs
:kill N        stop node N at once, as near to a crash as a part of a process can be stopped
:revive N      start it again from its disk
:upgrade       build now and propose the result
:snapshot      take a snapshot now
:help  :quit
F1 F2 F3       kill or revive node 1, 2, 3 (also Alt-1, Alt-2, Alt-3)
arrow up, Ctrl-R: history    Ctrl-C, Ctrl-D: end";

pub(super) fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("runtime")
        .build()
        .context("starting the runtime")?;
    let code = runtime.block_on(session::run(args));
    // A thread that reads a pipe cannot be interrupted: leave it.
    runtime.shutdown_background();
    code
}
