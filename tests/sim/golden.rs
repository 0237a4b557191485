//! Hashes of whole runs, kept in a file: the same seed must give the same run in every build
//! and on every machine.
//!
//! The file is written by the release build and compared by a test of the dev build. So it also
//! fails when code depends on the build, on addresses, on the order of a hash map or on the time.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use raft_host::fsm::SharedLoader;

use super::plan::{Fixed, Plan};
use super::runner;

/// The runs whose hashes are kept: a seed, and what it runs.
const RUNS: [(u64, &str); 3] = [(1, "native"), (2, "registers"), (3, "kv")];

/// Voters of these runs.
const VOTERS: usize = 3;

/// Where the hashes are.
pub fn path() -> PathBuf {
    crate::workspace("tests/sim/golden.txt")
}

/// What the file should hold. The calling thread needs the stack of a guest, see
/// [`runner::with_stack`].
///
/// # Errors
/// If a run violates an invariant: there is no point in keeping that.
pub fn current(loader: &SharedLoader) -> Result<String, String> {
    let mut text = String::from(
        "# Seed, guest and hash of the whole trace. Written by the release build:\n\
         #   cargo run --release -p raft-host-tests --bin sim -- --golden write\n",
    );
    for (seed, guest) in RUNS {
        let fixed = Fixed { guest: Some(guest), voters: Some(VOTERS), calm: false, flips: false };
        let report = runner::run(&Arc::new(Plan::draw(seed, &fixed)), loader, None, None);
        if let Some(violation) = report.violation {
            return Err(format!("seed {seed}: {}: {}", violation.invariant, violation.what));
        }
        let events = report.counters.trace_lines;
        writeln!(text, "{seed} {guest} {} of {events} events", report.trace_hash)
            .expect("strings take anything");
    }
    Ok(text)
}

/// Compares the file with the runs.
///
/// # Errors
/// What differs, and what to do about it.
pub fn check(loader: &SharedLoader) -> Result<(), String> {
    let path = path();
    let kept = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let current = current(loader)?;
    if kept == current {
        return Ok(());
    }
    Err(format!(
        "runs differ from those that were kept.\nkept:\n{kept}now:\n{current}\
         If the simulator, a guest or the host changed what it does, this is to be expected: look \
         whether `sim --golden check` of the release build says the same as this build, then \
         refresh the file with\n  \
         cargo run --release -p raft-host-tests --bin sim -- --golden write\n\
         If nothing of that changed, or if the builds do not agree, something depends on what is \
         not the seed: find it, and leave the file alone."
    ))
}
