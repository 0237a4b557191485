//! Leader completeness (Raft §5.4): what is committed in a term is in the logs of the leaders
//! of all later terms.

use raft_host::consensus::Role;
use raft_host::types::{Index, LogPosition, Term};

use super::Invariant;
use super::notes::at;
use crate::sim::observe::{Fact, LogView, Micros, Slot};

/// An entry that somebody has applied.
#[derive(Clone, Copy, Debug)]
struct Committed {
    position: LogPosition,
    /// It was committed in this term at the latest: the highest with a leader when it was first
    /// applied. Never falls from one entry to the next.
    by: Term,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    /// Ascending by index.
    committed: Vec<Committed>,
    highest_led: Term,
}

impl LeaderCompleteness {
    fn applied(&mut self, position: LogPosition) {
        let is_new = self.committed.last().is_none_or(|last| last.position.index < position.index);
        if is_new {
            self.committed.push(Committed { position, by: self.highest_led });
        }
    }

    fn elected(
        &mut self,
        slot: Slot,
        term: Term,
        last: LogPosition,
        log: &dyn LogView,
    ) -> Result<(), String> {
        self.highest_led = self.highest_led.max(term);
        let earlier = self.committed.partition_point(|committed| committed.by < term);
        let Some(highest) = earlier.checked_sub(1).map(|at| self.committed[at].position) else {
            return Ok(());
        };
        if last.index < highest.index || last.term < highest.term {
            return Err(format!(
                "{slot} leads term {term} with a log that ends at {}, but {} is committed",
                at(last),
                at(highest)
            ));
        }
        let start = log.start();
        let from = self.committed[..earlier]
            .partition_point(|committed| committed.position.index < start.index);
        for Committed { position, .. } in &self.committed[from..earlier] {
            let found = if position.index == start.index {
                Some(start.term)
            } else {
                log.term(position.index)
            };
            if found != Some(position.term) {
                let found = describe(position.index, found);
                return Err(format!(
                    "{slot} leads term {term} with {found}, but {} is committed",
                    at(*position)
                ));
            }
        }
        Ok(())
    }
}

fn describe(index: Index, found: Option<Term>) -> String {
    match found {
        Some(term) => format!("term {term} at index {index}"),
        None => format!("nothing at index {index}"),
    }
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader_completeness"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => self.applied(entry.position),
            Fact::Membership { position, .. } => self.applied(position),
            Fact::Role { slot, role: Role::Leader, term, last, log, .. } => {
                return self.elected(slot, term, last, log);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Log, applied, judge, node, ok, pos, refused};
    use super::*;

    fn leads<'a>(slot: usize, term: u64, last: LogPosition, log: &'a Log) -> Fact<'a> {
        Fact::Role {
            slot: Slot(slot),
            node: node(slot),
            role: Role::Leader,
            term: Term(term),
            last,
            log,
        }
    }

    #[test]
    fn a_leader_with_all_that_was_committed_is_fine() {
        let first = Log(pos(0, 0), vec![]);
        let whole = Log(pos(0, 0), vec![1, 1, 2]);
        let compacted = Log(pos(2, 1), vec![3]);
        let (a, b) = (applied(0, pos(1, 1), "a", ok("")), applied(0, pos(2, 1), "b", ok("")));
        let facts = [
            leads(0, 1, pos(0, 0), &first),
            Fact::Applied(&a),
            Fact::Applied(&b),
            leads(1, 2, pos(3, 2), &whole),
            leads(2, 3, pos(3, 3), &compacted),
        ];
        assert_eq!(judge(&mut LeaderCompleteness::default(), &facts), Ok(()));
    }

    #[test]
    fn a_late_leader_of_an_old_term_need_not_have_what_a_newer_one_committed() {
        let empty = Log(pos(0, 0), vec![]);
        let a = applied(0, pos(1, 3), "a", ok(""));
        let facts =
            [leads(0, 3, pos(0, 0), &empty), Fact::Applied(&a), leads(1, 2, pos(0, 0), &empty)];
        assert_eq!(judge(&mut LeaderCompleteness::default(), &facts), Ok(()));
    }

    #[test]
    fn a_leader_with_a_short_or_another_log_is_found() {
        let empty = Log(pos(0, 0), vec![]);
        let other = Log(pos(0, 0), vec![2, 2]);
        let a = applied(0, pos(1, 1), "a", ok(""));
        let before = || [leads(0, 1, pos(0, 0), &empty), Fact::Applied(&a)];
        let [x, y] = before();
        let short = [x, y, leads(1, 2, pos(0, 0), &empty)];
        refused(&mut LeaderCompleteness::default(), &short, "ends at index 0");
        let [x, y] = before();
        let another = [x, y, leads(1, 3, pos(2, 2), &other)];
        refused(&mut LeaderCompleteness::default(), &another, "term 2 at index 1");
        let gone = Log(pos(1, 7), vec![]);
        let [x, y] = before();
        let snapshot = [x, y, leads(1, 8, pos(1, 7), &gone)];
        refused(&mut LeaderCompleteness::default(), &snapshot, "term 7 at index 1");
    }
}
