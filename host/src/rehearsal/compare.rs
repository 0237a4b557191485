//! What two modules answer to the same entries, compared.

use bytes::Bytes;

use super::answers::{Seen, command_of};
use super::fuel::{Ratios, permille};
use super::kind::Kind;
use super::report::{
    Count, Difference, FUEL_MEDIAN_PERMILLE, FUEL_WORST_PERMILLE, First, MEMORY_PERMILLE,
    MemoryFound, Report,
};
use super::tally::{Found, Tally};
use crate::fsm::HostFailure;
use crate::machine::Held;
use crate::types::{Index, Position};

/// Memory that a guest may take while it runs without that being a leak.
const MEMORY_SLACK_BYTES: u64 = 1 << 20;

/// Says which class a command is of.
pub(super) type Classify<'a> =
    dyn FnMut(Position, &Held) -> Result<Option<String>, HostFailure> + 'a;

/// An entry with what both answered.
pub(super) struct Pair<'a> {
    pub(super) index: Index,
    /// Those that the entry holds,
    pub(super) commands: &'a [Held],
    /// and those that had waited for it.
    pub(super) waiting: &'a [Held],
    pub(super) old: &'a [Seen],
    pub(super) new: &'a [Seen],
}

/// What was found until now.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    commands: u64,
    ratios: Ratios,
    /// The command that `ratios` finds the worst, and its class.
    dearest: (Bytes, String),
    pub(super) tally: Tally,
    /// It ends at the first command that differs,
    ends_at_first: bool,
    /// which is this one.
    first: Option<First>,
}

impl Comparison {
    /// Nothing is to be compared after the first difference.
    pub(super) fn end_at_first(&mut self) {
        self.ends_at_first = true;
    }

    /// Whether nothing is compared any more.
    pub(super) fn is_over(&self) -> bool {
        self.first.is_some()
    }

    /// The difference that it ended at.
    pub(super) fn take_first(&mut self) -> Option<First> {
        self.first.take()
    }

    /// Commands that both have executed.
    pub(super) fn commands(&self) -> u64 {
        self.commands
    }

    /// Compares what an entry got.
    pub(super) fn entry(
        &mut self,
        pair: &Pair<'_>,
        classify: &mut Classify<'_>,
    ) -> Result<(), HostFailure> {
        let (mut old, mut new) = (pair.old.iter(), pair.new.iter());
        for ordinal in 0..pair.old.len().max(pair.new.len()) as u32 {
            let both = (old.next(), new.next());
            let position = Position { index: pair.index, ordinal };
            let waited = both.0.or(both.1).and_then(|seen| seen.waited);
            let command = command_of(pair.commands, ordinal, waited, pair.waiting);
            let found_before = self.tally.total();
            match both {
                (Some(old), Some(new)) => self.compare(position, command, old, new, classify)?,
                (old, new) => {
                    let words = |seen: Option<&Seen>| {
                        seen.map_or("not executed yet".to_owned(), |seen| seen.shown.clone())
                    };
                    let words = (words(old), words(new));
                    self.differ(Kind::Reply, position, command, words, classify)?;
                }
            }
            if self.ends_at_first && self.tally.total() > found_before {
                let fuel = |seen: Option<&Seen>| seen.map_or(0, |seen| seen.fuel_used);
                let (old_fuel, new_fuel) = (fuel(both.0), fuel(both.1));
                let command = command.cloned();
                self.first = Some(First { position, command, old_fuel, new_fuel });
                break;
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        position: Position,
        command: Option<&Held>,
        old: &Seen,
        new: &Seen,
        classify: &mut Classify<'_>,
    ) -> Result<(), HostFailure> {
        if old.ran() && new.ran() {
            self.commands += 1;
        }
        if old.ended()
            && new.ended()
            && self.ratios.add(position, old.fuel_used, new.fuel_used)
            && let Some(command) = command
        {
            let class = classify(position, command)?.unwrap_or_default();
            self.dearest = (command.data.clone(), class);
        }
        let Some(kind) = old.difference(new) else { return Ok(()) };
        if kind != Kind::Event {
            let words = (old.shown.clone(), new.shown.clone());
            self.differ(kind, position, command, words, classify)?;
        }
        if old.emitted_otherwise(new) {
            let words = (old.events_shown.clone(), new.events_shown.clone());
            self.differ(Kind::Event, position, command, words, classify)?;
        }
        Ok(())
    }

    fn differ(
        &mut self,
        kind: Kind,
        position: Position,
        command: Option<&Held>,
        (old, new): (String, String),
        classify: &mut Classify<'_>,
    ) -> Result<(), HostFailure> {
        let class = match command {
            Some(command) => classify(position, command)?.unwrap_or_default(),
            None => String::new(),
        };
        let nothing = Bytes::new();
        let input = command.map_or(&nothing, |command| &command.data);
        let position = Some(position);
        self.tally.add(Found { kind, class: &class, position, input, old, new });
        Ok(())
    }

    /// Puts into the report what there is at the end, given what both guests' memory was at the beginning and
    /// is now: the old one's and the new one's.
    pub(super) fn conclude(mut self, began: (u64, u64), now: (u64, u64), report: &mut Report) {
        self.measure_fuel(report);
        self.measure_memory(began, now, report);
        report.commands = self.commands;
        (report.counts, report.differences) = self.told();
    }

    /// All that was found.
    pub(super) fn told(self) -> (Vec<Count>, Vec<Difference>) {
        self.tally.finish()
    }

    fn measure_fuel(&mut self, report: &mut Report) {
        let fuel = self.ratios.found();
        report.fuel = fuel;
        let too_much = fuel.median_permille > FUEL_MEDIAN_PERMILLE
            || fuel.worst_permille > FUEL_WORST_PERMILLE;
        if let Some(worst) = self.ratios.worst().filter(|_| too_much) {
            let times = |permille: u64| permille as f64 / 1_000.0;
            let (old, new) = (
                format!("{} fuel", worst.old),
                format!(
                    "{} fuel, {}x as much; half of the commands use up to {}x as much",
                    worst.new,
                    times(fuel.worst_permille),
                    times(fuel.median_permille)
                ),
            );
            let (input, class) = std::mem::take(&mut self.dearest);
            let (kind, position) = (Kind::Fuel, Some(worst.at));
            self.tally.add(Found { kind, class: &class, position, input: &input, old, new });
        }
    }

    fn measure_memory(&mut self, began: (u64, u64), now: (u64, u64), report: &mut Report) {
        let memory = memory(now, began);
        report.memory = memory;
        if memory.permille > MEMORY_PERMILLE {
            let words = |bytes, growth| {
                format!("{bytes} bytes at the end, {growth} more than at the beginning")
            };
            self.tally.add_general(
                Kind::Memory,
                words(memory.before_bytes, memory.before_growth),
                words(memory.bytes, memory.growth),
            );
        }
    }
}

/// What two guests need at the end, given what they needed at the beginning.
fn memory(end: (u64, u64), began: (u64, u64)) -> MemoryFound {
    let (before_bytes, bytes) = end;
    let (before_growth, growth) =
        (before_bytes.saturating_sub(began.0), bytes.saturating_sub(began.1));
    let ratio = |before: u64, now: u64| match now > before.saturating_add(MEMORY_SLACK_BYTES) {
        true => permille(now, before),
        false => 1_000,
    };
    // A guest that takes more and more is found while it is still small.
    let permille = ratio(before_bytes, bytes).max(ratio(before_growth, growth));
    MemoryFound { bytes, before_bytes, growth, before_growth, permille }
}
