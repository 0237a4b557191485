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

/// The program's name, and one without the dash that clap_complete's script for bash writes in two
/// ways: as `__` where it looks a command up, and as `__subcmd__` where the command's options stand,
/// so that it would complete nothing but the first word.
const NAME: &str = "raft-host";
const NAME_IN_BASH: &str = "raft_host";

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    if shell != Shell::Bash {
        clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
        return script;
    }
    clap_complete::generate(shell, &mut Cli::command(), NAME_IN_BASH, &mut script);
    let text = String::from_utf8(script).expect("a script is text");
    // What is completed is the last word of the lines that say `complete`.
    text.replace(&format!(" {NAME_IN_BASH}\n"), &format!(" {NAME}\n")).into_bytes()
}

pub(super) fn run(args: &CompletionsArgs) -> Ended {
    let script = script(args.shell);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::new(format!("writing the output: {error}")))?;
    Ok(Exit::Done)
}
