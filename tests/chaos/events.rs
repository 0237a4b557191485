//! What was done to the cluster, and when: a line each, in a file and for people who watch.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::fault::Fault;

/// Lines of at most so many characters.
const LINE_MAX: usize = 600;

pub(super) struct Events {
    began: Instant,
    out: Mutex<(File, BTreeMap<Fault, u64>)>,
    quiet: bool,
}

impl Events {
    pub(super) fn new(file: &Path, began: Instant, quiet: bool) -> std::io::Result<Events> {
        Ok(Events { began, out: Mutex::new((File::create(file)?, BTreeMap::new())), quiet })
    }

    /// A fault begins.
    pub(super) fn fault(&self, fault: Fault, text: &str) {
        self.note(fault.name(), text);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        *out.1.entry(fault).or_default() += 1;
    }

    /// Something else happens.
    pub(super) fn note(&self, what: &str, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let line: String = format!("{seconds:9.3} {what:16} {text}")
            .chars()
            .map(|c| if c == '\n' { ' ' } else { c })
            .take(LINE_MAX)
            .collect();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(out.0, "{line}") {
            eprintln!("the events cannot be written: {error}");
        }
        if !self.quiet {
            println!("{line}");
        }
    }

    /// How often each fault was done.
    pub(super) fn faults(&self) -> BTreeMap<Fault, u64> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}
