//! The commands of an ordered session are executed in the order of their numbers: none is overtaken,
//! and none waits when its turn has come.

use std::collections::BTreeSet;

use raft_host::machine::Reply;
use raft_host::types::{Index, Outcome, Position};

use super::Invariant;
use super::notes::Map;
use crate::sim::observe::{Answered, AppliedEntry, Fact, Micros, Slot};

/// See the module. Every entry is looked at where it is applied first; that replicas do the same is
/// another invariant's concern.
#[derive(Debug, Default)]
pub struct OrderedSessions {
    applied: Index,
    by_id: Map<u64, Session>,
}

#[derive(Debug, Default)]
struct Session {
    /// The highest number that was executed.
    executed: u64,
    waiting: BTreeSet<u64>,
}

impl OrderedSessions {
    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.position.index;
        if index <= self.applied {
            return Ok(());
        }
        self.applied = index;
        if let Reply::SessionOpened { id, ordered: true, .. } = entry.reply {
            self.by_id.insert(id, Session::default());
        }
        let mut used = BTreeSet::new();
        for (position, answered) in entry.answers() {
            self.answered(entry.slot, position, &answered)?;
            used.extend(answered.command.and_then(|(session, _)| Some(session?.0)));
        }
        // No client of a simulation fills the room that a session has.
        for (id, session) in used.iter().filter_map(|id| Some((id, self.by_id.get(id)?))) {
            if session.waiting.contains(&(session.executed + 1)) {
                return Err(format!(
                    "command {} of ordered session {id} is next, and still waits after index {index} \
                     on {}",
                    session.executed + 1,
                    entry.slot
                ));
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        slot: Slot,
        position: Position,
        answered: &Answered,
    ) -> Result<(), String> {
        let Some((Some((id, sequence)), _)) = answered.command else { return Ok(()) };
        let Some(session) = self.by_id.get_mut(&id) else { return Ok(()) };
        let next = session.executed + 1;
        match &answered.reply {
            Reply::Command(Outcome::Duplicate(_)) => {}
            Reply::Command(_) if sequence == next => {
                session.executed = sequence;
                session.waiting.remove(&sequence);
            }
            Reply::Command(_) => {
                return Err(format!(
                    "{slot} executed command {sequence} of ordered session {id} at index {position}, \
                     where command {next} was next"
                ));
            }
            Reply::Waiting(_) if sequence == next && !session.waiting.contains(&sequence) => {
                return Err(format!(
                    "{slot} has command {sequence} of ordered session {id} wait at index {position}, \
                     where it was next"
                ));
            }
            Reply::Waiting(_) => drop(session.waiting.insert(sequence)),
            // Whoever gave it may not do that any more: it is to come again, or to be skipped.
            Reply::Refused(_) => drop(session.waiting.remove(&sequence)),
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for OrderedSessions {
    fn name(&self) -> &'static str {
        "ordered_sessions"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => self.applied(entry),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::machine::SessionNumber;

    use super::super::testing::{applied, applied_batch, judge, ok, pos, refused, session_opened};
    use super::*;

    fn opened() -> AppliedEntry {
        let mut reply = session_opened(1, 1000);
        if let Reply::SessionOpened { ordered, .. } = &mut reply {
            *ordered = true;
        }
        AppliedEntry { command: None, ..applied(0, pos(1, 1), "", reply) }
    }

    fn entry(index: u64, commands: &[(u64, Reply)]) -> AppliedEntry {
        let all: Vec<_> =
            commands.iter().map(|(n, reply)| (Some((1, *n)), "x", reply.clone())).collect();
        applied_batch(0, pos(index, 1), &all)
    }

    fn waits(sequence: u64) -> (u64, Reply) {
        (sequence, Reply::Waiting(SessionNumber { session_id: 1, sequence }))
    }

    fn runs(sequence: u64) -> (u64, Reply) {
        (sequence, ok("a"))
    }

    #[test]
    fn gaps_that_close_are_fine() {
        let entries = [
            opened(),
            entry(2, &[waits(3), waits(2)]),
            entry(3, &[waits(3)]),
            entry(4, &[runs(1), waits(4), runs(2), runs(3), runs(4)]),
            entry(5, &[runs(5)]),
        ];
        let facts: Vec<Fact<'_>> = entries.iter().map(Fact::Applied).collect();
        assert_eq!(judge(&mut OrderedSessions::default(), &facts), Ok(()));
    }

    #[test]
    fn what_is_overtaken_or_left_waiting_is_found() {
        let finds = |entries: &[AppliedEntry], what: &str| {
            let facts: Vec<Fact<'_>> = entries.iter().map(Fact::Applied).collect();
            refused(&mut OrderedSessions::default(), &facts, what);
        };
        finds(&[opened(), entry(2, &[runs(2)])], "where command 1 was next");
        finds(&[opened(), entry(2, &[waits(1)])], "where it was next");
        let skipped = [opened(), entry(2, &[waits(3)]), entry(3, &[runs(1), runs(3)])];
        finds(&skipped, "where command 2 was next");
        finds(&[opened(), entry(2, &[waits(2)]), entry(3, &[runs(1)])], "still waits");
    }
}
