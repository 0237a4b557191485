//! `raft-host completions`: scripts that complete commands in a shell.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::exit::{Ended, Exit, Failure};

/// Prints a script that completes this program's commands and options.
///
/// bash: raft-host completions bash > /etc/bash_completion.d/raft-host
#[derive(Args, Clone, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "raft-host", &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::new(format!("writing the output: {error}")))?;
    Ok(Exit::Done)
}
