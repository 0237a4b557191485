//! The process in which a module is checked and compiled: started by this program, never by people, so
//! `--help` knows nothing of it.

use std::io::{Read as _, stdin, stdout};
use std::process::ExitCode;

use crate::wasm::{CHILD_COMMAND, compile_one};

/// Whether this process is one.
pub(super) fn is_wanted() -> bool {
    let mut words = std::env::args_os().skip(1);
    words.next().is_some_and(|word| word == CHILD_COMMAND) && words.next().is_none()
}

/// Answers one job.
pub(super) fn run() -> ExitCode {
    match compile_one(&mut stdin(), &mut stdout().lock(), end_with_input) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: checking a module for another process: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever asked is gone, or does not want to know any more, when the input ends.
fn end_with_input() {
    let watch = || {
        let _ = stdin().read(&mut [0]);
        std::process::exit(1);
    };
    // Without a thread for that, the bound of processor time ends it.
    let _ = std::thread::Builder::new().name("end-of-input".into()).spawn(watch);
}
