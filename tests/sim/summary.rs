//! What happened in a run, or in many, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use raft_host::machine::Reply;
use raft_host::types::Outcome;

use super::disk::SimDisk;
use super::observe::{AppliedEntry, Slot};
use super::world::Tally;

/// Counts; those of several runs add up.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say what is counted")]
pub struct Counters {
    pub runs: u64,
    pub simulated_us: u64,
    pub faults: BTreeMap<String, u64>,
    pub clients: Tally,
    pub queries: u64,
    pub entries_applied: u64,
    pub commands: u64,
    /// Entries with more than one of them.
    pub batches: u64,
    /// Commands that had waited in ordered sessions.
    pub waited: u64,
    pub traps: u64,
    pub duplicates: u64,
    pub elections: u64,
    pub snapshots: u64,
    pub installs: u64,
    pub upgrades: u64,
    /// Upgrades that were undone.
    pub rewinds: u64,
    /// Looks of single nodes at what that would change.
    pub trials: u64,
    /// Reports of single nodes, and receipts that were made of them.
    pub rehearsals: u64,
    pub receipts: u64,
    pub limit_changes: u64,
    pub joins: u64,
    /// Newcomers whose join token let them in, or did not.
    pub tokens_used: u64,
    pub tokens_refused: u64,
    /// Times that the level was raised.
    pub levels: u64,
    /// Programs that could not run any more and were replaced.
    pub updates: u64,
    pub sessions: u64,
    pub starts: u64,
    pub refused_starts: u64,
    pub corruptions_detected: u64,
    pub writes: u64,
    pub messages: u64,
    pub lost_messages: u64,
    pub refused_messages: u64,
    /// Messages of those who may not speak to the receiver.
    pub turned_away: u64,
    pub log_reads: u64,
    pub probes: u64,
    pub verdicts: u64,
    pub quarantines: u64,
    pub healed: u64,
    pub doubts: u64,
    pub overwhelmed: u64,
    /// Plans for a recovery.
    pub plans: u64,
    pub plans_without_loss: u64,
    pub trace_lines: u64,
}

impl Counters {
    /// A fault or an operation of that kind.
    pub fn fault(&mut self, kind: &str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// An entry was applied by a node.
    pub fn applied(&mut self, entry: &AppliedEntry) {
        self.entries_applied += 1;
        if entry.slot != Slot(0) {
            // Commands are counted once, not once per replica.
            return;
        }
        self.batches += u64::from(entry.commands > 1);
        self.waited += entry.released as u64;
        for (_, answered) in entry.answers() {
            let Reply::Command(outcome) = answered.reply else { continue };
            self.commands += 1;
            self.traps += u64::from(matches!(outcome, Outcome::Trapped(_)));
            self.duplicates += u64::from(matches!(outcome, Outcome::Duplicate(_)));
        }
    }

    /// Faults that a disk counted by itself.
    pub fn add_disk(&mut self, disk: &SimDisk) {
        for (kind, count) in &disk.stats().faults {
            *self.faults.entry(format!("disk: {kind:?}")).or_default() += count;
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Counters) {
        let Counters { faults, clients, .. } = other;
        for (kind, count) in faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        self.clients.answered += clients.answered;
        self.clients.failed += clients.failed;
        self.clients.unknown += clients.unknown;
        self.clients.retries += clients.retries;
        for (mine, others) in self.numbers().into_iter().zip(other.clone().numbers()) {
            *mine += *others;
        }
    }

    fn numbers(&mut self) -> [&mut u64; 42] {
        [
            &mut self.runs,
            &mut self.simulated_us,
            &mut self.queries,
            &mut self.entries_applied,
            &mut self.commands,
            &mut self.batches,
            &mut self.waited,
            &mut self.traps,
            &mut self.duplicates,
            &mut self.elections,
            &mut self.snapshots,
            &mut self.installs,
            &mut self.upgrades,
            &mut self.rewinds,
            &mut self.trials,
            &mut self.rehearsals,
            &mut self.receipts,
            &mut self.limit_changes,
            &mut self.joins,
            &mut self.tokens_used,
            &mut self.tokens_refused,
            &mut self.levels,
            &mut self.updates,
            &mut self.sessions,
            &mut self.starts,
            &mut self.refused_starts,
            &mut self.corruptions_detected,
            &mut self.writes,
            &mut self.messages,
            &mut self.lost_messages,
            &mut self.refused_messages,
            &mut self.turned_away,
            &mut self.log_reads,
            &mut self.probes,
            &mut self.verdicts,
            &mut self.quarantines,
            &mut self.healed,
            &mut self.doubts,
            &mut self.overwhelmed,
            &mut self.plans,
            &mut self.plans_without_loss,
            &mut self.trace_lines,
        ]
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3.6e9;
        writeln!(f, "runs {}, simulated hours {hours:.2}", self.runs)?;
        writeln!(
            f,
            "clients: answered {}, failed {}, unknown {}, retries {}; reads {}, sessions {}",
            self.clients.answered,
            self.clients.failed,
            self.clients.unknown,
            self.clients.retries,
            self.queries,
            self.sessions
        )?;
        writeln!(
            f,
            "commands {}, entries of several {}, waited {}, traps {}, duplicates {}; entries applied {}, log writes {}, messages {} \
             (lost {}, {} of them too much for a link; turned away {}), reads of the log {}",
            self.commands,
            self.batches,
            self.waited,
            self.traps,
            self.duplicates,
            self.entries_applied,
            self.writes,
            self.messages,
            self.lost_messages,
            self.refused_messages,
            self.turned_away,
            self.log_reads
        )?;
        writeln!(
            f,
            "elections {}, snapshots {}, installed {}, upgrades {} (undone {}, tried {}), rehearsals {} (receipts {}), limit changes {}, joins {} (by token {}, refused {}), \
             levels raised {}, programs outdated {}, starts {}, probes {}",
            self.elections,
            self.snapshots,
            self.installs,
            self.upgrades,
            self.rewinds,
            self.trials,
            self.rehearsals,
            self.receipts,
            self.limit_changes,
            self.joins,
            self.tokens_used,
            self.tokens_refused,
            self.levels,
            self.updates,
            self.starts,
            self.probes
        )?;
        writeln!(
            f,
            "verdicts applied {}, quarantines {}, of these healed {}; in doubt {}; runs with too many \
             flips {}",
            self.verdicts, self.quarantines, self.healed, self.doubts, self.overwhelmed
        )?;
        writeln!(
            f,
            "starts refused {}, of these for corruption {}; recoveries planned {}, of these without a \
             loss {}",
            self.refused_starts, self.corruptions_detected, self.plans, self.plans_without_loss
        )?;
        write!(f, "faults:")?;
        for (kind, count) in &self.faults {
            write!(f, " {kind} {count},")?;
        }
        writeln!(f)
    }
}
