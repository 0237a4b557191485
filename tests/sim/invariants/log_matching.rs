//! Log matching (Raft §5.3): index and term name one entry, and with it all before it.
//!
//! Keeps a model of what every node's disk must hold, and compares it with what is recovered
//! and with what is applied: entries are applied only when they are durable where they are
//! applied.

use raft_host::types::{EntryKind, Index, LogEntry, LogPosition, Term};

use super::Invariant;
use super::notes::{Fingerprint, Map, Terms, at, before, fingerprint};
use crate::sim::observe::{Fact, Micros, Slot};

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct Known {
    content: Fingerprint,
    /// Term of the entry before it, where somebody saw that.
    previous: Option<Term>,
}

/// A node's disk.
#[derive(Debug, Default)]
struct Disk {
    log: Terms,
    /// What it holds if the batch that failed is there.
    unsure: Option<Terms>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: Map<(Index, Term), Known>,
    disks: Map<Slot, Disk>,
}

impl LogMatching {
    fn persisted(
        &mut self,
        slot: Slot,
        entries: &[LogEntry],
        previous: Option<LogPosition>,
        reset_to: Option<LogPosition>,
    ) -> Result<(), String> {
        let mut behind = previous;
        for entry in entries {
            self.note(slot, entry, behind)?;
            behind = Some(LogPosition { index: entry.index, term: entry.term });
        }
        let Some(disk) = self.disks.get_mut(&slot) else { return Ok(()) };
        let first = entries.first().map(|entry| entry.index);
        write(&mut disk.log, entries, reset_to).map_err(|error| format!("{slot}: {error}"))?;
        let (Some(first), Some(previous)) = (first, previous) else { return Ok(()) };
        match disk.log.get(before(first)) {
            Some(term) if term != previous.term => Err(format!(
                "{slot} wrote index {first} after term {}, but has term {term} before it",
                previous.term
            )),
            _ => Ok(()),
        }
    }

    fn note(
        &mut self,
        slot: Slot,
        entry: &LogEntry,
        behind: Option<LogPosition>,
    ) -> Result<(), String> {
        let position = LogPosition { index: entry.index, term: entry.term };
        if let Some(behind) = behind {
            if behind.index.next() != entry.index {
                return Err(format!("{slot} wrote {} after {}", at(position), at(behind)));
            }
            if behind.term > entry.term {
                return Err(format!(
                    "{slot}: terms go back from {} to {}",
                    at(behind),
                    at(position)
                ));
            }
        }
        let kind = [u8::from(entry.kind == EntryKind::ConfChange)];
        let content = fingerprint(&[&kind, &entry.data, &entry.context]);
        let previous = behind.map(|behind| behind.term);
        let known =
            self.entries.entry((entry.index, entry.term)).or_insert(Known { content, previous });
        if known.content != content {
            return Err(format!("{slot} has another entry than others at {}", at(position)));
        }
        match (known.previous, previous) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(format!(
                "{slot} has {} after term {ours}, others have it after term {theirs}",
                at(position)
            )),
            (None, Some(_)) => {
                known.previous = previous;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn started(&mut self, slot: Slot, last: LogPosition, applied: Index) -> Result<(), String> {
        let Some(disk) = self.disks.get_mut(&slot) else {
            self.disks.insert(slot, Disk { log: Terms::after(last), unsure: None });
            return Ok(());
        };
        let unsure = disk.unsure.take();
        if disk.log.last() == last {
            return Ok(());
        }
        if let Some(log) = unsure
            && log.last() == last
        {
            disk.log = log;
            return Ok(());
        }
        // A snapshot that the log does not reach, or contradicts, is where it begins anew.
        if last.index == applied && disk.log.get(applied) != Some(last.term) {
            disk.log = Terms::after(last);
            return Ok(());
        }
        Err(format!(
            "{slot} had a log up to {} on disk and recovered one up to {}",
            at(disk.log.last()),
            at(last)
        ))
    }

    fn applied(&self, slot: Slot, position: LogPosition) -> Result<(), String> {
        let Some(Disk { log, .. }) = self.disks.get(&slot) else { return Ok(()) };
        if position.index <= log.start.index || log.get(position.index) == Some(position.term) {
            return Ok(());
        }
        let found = log.get(position.index).map_or_else(
            || format!("ends at {}", at(log.last())),
            |term| format!("has an entry of term {term} there"),
        );
        Err(format!("{slot} applied {}, but its log on disk {found}", at(position)))
    }
}

fn write(
    log: &mut Terms,
    entries: &[LogEntry],
    reset_to: Option<LogPosition>,
) -> Result<(), String> {
    if let Some(start) = reset_to {
        *log = Terms::after(start);
    }
    match entries.first() {
        Some(first) => log.replace(first.index, entries.iter().map(|entry| entry.term)),
        None => Ok(()),
    }
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Started { slot, last, applied, .. } => self.started(slot, last, applied),
            Fact::Persisted { slot, entries, previous, reset_to, .. } => {
                self.persisted(slot, entries, previous, reset_to)
            }
            Fact::WriteFailed { slot, entries, reset_to, .. } => {
                let Some(disk) = self.disks.get_mut(&slot) else { return Ok(()) };
                let mut log = disk.log.clone();
                write(&mut log, entries, reset_to).map_err(|error| format!("{slot}: {error}"))?;
                disk.unsure = Some(log);
                Ok(())
            }
            Fact::Applied(entry) => self.applied(entry.slot, entry.position),
            Fact::Membership { slot, position, .. } => self.applied(slot, position),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, entry, judge, ok, persisted, pos, refused, started};
    use super::*;

    fn new() -> LogMatching {
        let mut invariant = LogMatching::default();
        judge(&mut invariant, &[started(0, 1, None, pos(1, 1)), started(1, 1, None, pos(1, 1))])
            .expect("fresh");
        invariant
    }

    #[test]
    fn the_same_entries_on_all_nodes_and_replaced_suffixes_are_fine() {
        let old = [entry(2, 1, "a"), entry(3, 1, "b")];
        let new_ = [entry(3, 2, "c")];
        let facts = [
            persisted(0, pos(1, 1), &old),
            persisted(1, pos(1, 1), &old[..1]),
            persisted(1, pos(2, 1), &new_),
            persisted(0, pos(2, 1), &new_),
            started(0, 2, None, pos(3, 2)),
        ];
        assert_eq!(judge(&mut new(), &facts), Ok(()));
    }

    #[test]
    fn one_position_with_two_contents_or_two_predecessors_is_found() {
        let (one, two) = ([entry(2, 1, "a")], [entry(2, 1, "b")]);
        let facts = [persisted(0, pos(1, 1), &one), persisted(1, pos(1, 1), &two)];
        refused(&mut new(), &facts, "another entry");
        let (one, two) =
            ([entry(2, 1, "a"), entry(3, 3, "x")], [entry(2, 2, "b"), entry(3, 3, "x")]);
        let facts = [persisted(0, pos(1, 1), &one), persisted(1, pos(1, 1), &two)];
        refused(&mut new(), &facts, "after term 2");
    }

    #[test]
    fn gaps_and_falling_terms_in_a_batch_are_found() {
        let gap = [entry(2, 1, "a"), entry(4, 1, "b")];
        refused(&mut new(), &[persisted(0, pos(1, 1), &gap)], "index 4");
        let falling = [entry(2, 3, "a"), entry(3, 2, "b")];
        refused(&mut new(), &[persisted(0, pos(1, 1), &falling)], "terms go back");
        let beyond = [entry(3, 1, "a")];
        refused(&mut new(), &[persisted(0, pos(2, 1), &beyond)], "do not fit");
    }

    #[test]
    fn what_was_durable_is_recovered() {
        let entries = [entry(2, 1, "a"), entry(3, 1, "b")];
        let facts = [persisted(0, pos(1, 1), &entries), started(0, 1, None, pos(2, 1))];
        refused(&mut new(), &facts, "recovered one up to index 2");
    }

    #[test]
    fn a_failed_batch_may_be_recovered_or_not_and_a_newer_snapshot_begins_a_log() {
        let entries = [entry(2, 1, "a")];
        for last in [pos(1, 1), pos(2, 1)] {
            let failed = Fact::WriteFailed {
                slot: Slot(0),
                entries: &entries,
                reset_to: None,
                hard_state: None,
            };
            assert_eq!(judge(&mut new(), &[failed, started(0, 1, None, last)]), Ok(()));
        }
        let reset = super::super::testing::restored(0, 9, None);
        let next = [entry(10, 1, "j")];
        assert_eq!(judge(&mut new(), &[reset, persisted(0, pos(9, 1), &next)]), Ok(()));
    }

    #[test]
    fn an_entry_is_applied_only_where_it_is_durable() {
        let entries = [entry(2, 1, "a")];
        let there = applied(0, pos(2, 1), "a", ok(""));
        let facts = [persisted(0, pos(1, 1), &entries), Fact::Applied(&there)];
        assert_eq!(judge(&mut new(), &facts), Ok(()));
        refused(&mut new(), &[Fact::Applied(&there)], "ends at index 1");
    }
}
