//! `raft-host man`: manual pages.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Ended, Exit, Failure};
use super::options;

/// Writes this program's manual pages: one for the server, and one for each command.
///
/// raft-host man /usr/local/share/man/man1
#[derive(Args, Clone, Debug)]
pub(super) struct ManArgs {
    /// Where to; made if it is not there. Pages that are there are replaced.
    directory: PathBuf,
}

pub(super) fn run(args: &ManArgs) -> Ended {
    let directory = &args.directory;
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot write to {}: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut program = options::shown().disable_help_subcommand(true);
    program.build();
    clap_mangen::generate_to(program, directory).map_err(failed)?;
    Ok(Exit::Done)
}
