//! `raft-host demo`.

use std::process::ExitCode;

use clap::Args;

/// Shows what raft-host does.
#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {}

pub(super) fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet: {args:?}")
}
