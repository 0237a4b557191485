//! `raft-host completions`: scripts that complete commands in a shell.

use std::collections::BTreeSet;
use std::io::Write as _;

use clap::Args;
use clap_complete::Shell;

use super::exit::{Ended, Exit, Failure};
use super::options;

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
    let mut program = options::shown();
    let name = if shell == Shell::Bash { NAME_IN_BASH } else { NAME };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    let text = String::from_utf8(script).expect("a script is text");
    match shell {
        // What is completed is the last word of the lines that say `complete`.
        Shell::Bash => text.replace(&format!(" {NAME_IN_BASH}\n"), &format!(" {NAME}\n")),
        Shell::Zsh => with_escaped_values(text, &program),
        _ => text,
    }
    .into_bytes()
}

/// zsh reads `]:HOST:PORT:_default` as two values, so that it completes nothing behind them.
/// clap_complete escapes colons in all but the names of values.
fn with_escaped_values(mut script: String, program: &clap::Command) -> String {
    let mut names = BTreeSet::new();
    collect_values(program, &mut names);
    for name in names.iter().filter(|name| name.contains(':')) {
        script = script.replace(&format!("]:{name}:"), &format!("]:{}:", name.replace(':', "\\:")));
    }
    script
}

fn collect_values(command: &clap::Command, names: &mut BTreeSet<String>) {
    let of_options = command.get_arguments().filter_map(|option| option.get_value_names());
    names.extend(of_options.flatten().map(ToString::to_string));
    command.get_subcommands().for_each(|command| collect_values(command, names));
}

pub(super) fn run(args: &CompletionsArgs) -> Ended {
    let script = script(args.shell);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::new(format!("writing the output: {error}")))?;
    Ok(Exit::Done)
}
