//! What a run has shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use crate::history::{Action, Operation, Outcome};

/// The end of a run.
#[derive(Debug)]
pub struct Report {
    /// How long clients and faults went on.
    pub took: Duration,
    /// Until all nodes were healthy after the restart of all at the end, if they were.
    pub healthy_after: Option<Duration>,
    /// How often each fault was done.
    pub faults: BTreeMap<Fault, u64>,
    /// Faults that this machine does not allow, and why.
    pub skipped: Vec<String>,
    /// Calls of fsync that were made slow.
    pub slow_fsyncs: u64,
    /// Times at which operations were answered and what they took, of the time of the faults.
    latencies: Vec<Duration>,
    unavailable: Duration,
    counts: BTreeMap<&'static str, [u64; 3]>,
    /// Everything that is wrong; empty: the run has passed.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn new(history: &[Operation], took: Duration) -> Report {
        let mut counts: BTreeMap<&'static str, [u64; 3]> = BTreeMap::new();
        let end_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let (mut latencies, mut answers) = (Vec::new(), vec![0, end_ns]);
        for operation in history.iter().filter(|operation| operation.end_ns <= end_ns) {
            let name = match operation.action {
                Action::Read => "read",
                Action::Write(_) => "write",
                Action::Delete => "delete",
                Action::CompareAndSet(..) => "cas",
                Action::Add(_) => "add",
            };
            let outcome = match operation.outcome {
                Outcome::Answered(_) => 0,
                Outcome::Failed => 1,
                Outcome::Unknown => 2,
            };
            counts.entry(name).or_default()[outcome] += 1;
            if outcome == 0 {
                latencies.push(Duration::from_nanos(operation.end_ns - operation.start_ns));
                answers.push(operation.end_ns);
            }
        }
        latencies.sort_unstable();
        answers.sort_unstable();
        let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
        Report {
            took,
            unavailable: Duration::from_nanos(gaps.max().unwrap_or(0)),
            latencies,
            counts,
            healthy_after: None,
            faults: BTreeMap::new(),
            skipped: Vec::new(),
            slow_fsyncs: 0,
            violations: Vec::new(),
        }
    }

    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// Operations that were answered.
    pub fn answered(&self) -> usize {
        self.latencies.len()
    }

    fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.0} seconds of faults", self.took.as_secs_f64())?;
        writeln!(f, "\noperations      answered   failed  unknown")?;
        for (name, [answered, failed, unknown]) in &self.counts {
            writeln!(f, "  {name:12} {answered:9} {failed:8} {unknown:8}")?;
        }
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        writeln!(
            f,
            "\nlatency of answered operations: p50 {:.1} ms, p90 {:.1} ms, p99 {:.0} ms, max {:.0} ms",
            ms(50),
            ms(90),
            ms(99),
            ms(100)
        )?;
        let unavailable = self.unavailable.as_secs_f64();
        writeln!(f, "longest time without any answer: {unavailable:.1} s")?;
        match self.healthy_after {
            Some(healthy) => writeln!(
                f,
                "all healthy {:.1} s after all were killed and restarted",
                healthy.as_secs_f64()
            )?,
            None => writeln!(f, "not all became healthy in the end")?,
        }
        writeln!(f, "\nfaults")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {fault:14} {count:5}")?;
        }
        writeln!(f, "  ({} calls of fsync were made slow)", self.slow_fsyncs)?;
        for skipped in &self.skipped {
            writeln!(f, "  SKIPPED {skipped}")?;
        }
        if self.passed() {
            return write!(f, "\nPASSED: linearizable, nothing lost, all nodes agree");
        }
        writeln!(f, "\nFAILED")?;
        for violation in &self.violations {
            writeln!(f, "- {violation}")?;
        }
        Ok(())
    }
}
