//! `raft-host demo`: three real processes on this machine, a crash and an upgrade, told as a
//! story. Every sentence that claims something was checked first; the exit code is 0 only if
//! all of them were.

mod cluster;
mod rights;
mod story;
mod writers;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

/// Shows what raft-host does: three nodes, a killed leader, an upgrade under load.
#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {
    /// Keep the temporary directory with the nodes' data and logs.
    #[arg(long)]
    keep: bool,
    /// Only say whether everything held.
    #[arg(long, short)]
    quiet: bool,
    /// With certificates, TLS in both directions, and rights: who may do what.
    #[arg(long)]
    secure: bool,
}

/// What a shell reports for a process that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

pub(super) fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("catching signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("catching signals")?;
        let mut cluster = cluster::Cluster::prepare(args.keep, args.secure)?;
        // Whichever way this ends, dropping the cluster ends its processes.
        tokio::select! {
            told = story::tell(&mut cluster, args.quiet) => match told {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(error) => Err(cluster.explain(error)),
            },
            _ = interrupt.recv() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
    })
}
