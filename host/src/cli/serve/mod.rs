//! `raft-host` without a command: the server.

use std::process::ExitCode;

use clap::Args;

/// Options of the server.
#[derive(Args, Clone, Debug)]
pub(super) struct ServeArgs {
    #[arg(long, env = "RAFT_HOST_LISTEN")]
    listen: Option<String>,
}

pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet: {args:?}")
}
