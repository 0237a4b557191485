//! A command of a session is executed at most once, and its answer is always the first one.
//!
//! A session may end, and a session forgets answers; then a retry is refused and not executed.

use raft_host::machine::{CommandRefused, Reply};
use raft_host::types::{Index, Outcome, Position};

use super::Invariant;
use super::notes::{Map, Set};
use crate::sim::observe::{Answered, AppliedEntry, Fact, Micros, Slot};

/// See the module.
#[derive(Debug, Default)]
pub struct SessionsOnce {
    /// By session and sequence number: where it was executed and what came of it.
    executed: Map<(u64, u64), (Position, Outcome)>,
    opened: Map<u64, Index>,
    /// Sessions that a node said to be gone, and where.
    gone: Map<u64, Index>,
    /// Sequence numbers that a node said to be forgotten.
    forgotten: Set<(u64, u64)>,
}

impl SessionsOnce {
    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.position.index;
        if let Reply::SessionOpened { id, .. } = entry.reply {
            self.opened.insert(id, index);
            return Ok(());
        }
        entry
            .answers()
            .try_for_each(|(position, answered)| self.answered(entry.slot, position, &answered))
    }

    fn answered(
        &mut self,
        slot: Slot,
        position: Position,
        answered: &Answered,
    ) -> Result<(), String> {
        let Some((Some(id), _)) = answered.command else { return Ok(()) };
        match &answered.reply {
            Reply::Command(Outcome::Duplicate(original)) => {
                self.repeated(slot, position, id, original)
            }
            Reply::Command(outcome) => self.executed(slot, position, id, outcome),
            Reply::Refused(CommandRefused::SessionExpired) => {
                self.gone.entry(id.0).or_insert(position.index);
                Ok(())
            }
            Reply::Refused(CommandRefused::SequenceTooOld) => {
                self.forgotten.insert(id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn executed(
        &mut self,
        slot: Slot,
        position: Position,
        id: (u64, u64),
        outcome: &Outcome,
    ) -> Result<(), String> {
        let index = position.index;
        if let Some((first, _)) = self.executed.get(&id) {
            if *first == position {
                return Ok(());
            }
            return Err(format!(
                "{slot} executed command {} of session {} at index {position}, which was executed \
                 at index {first}",
                id.1, id.0
            ));
        }
        let is_open = self.opened.get(&id.0).is_some_and(|opened| *opened < index);
        let is_gone = self.gone.get(&id.0).is_some_and(|gone| *gone < index);
        if !is_open || is_gone || self.forgotten.contains(&id) {
            let why = match (is_open, is_gone) {
                (false, _) => "was never opened",
                (true, true) => "was gone",
                (true, false) => "had forgotten that command",
            };
            return Err(format!(
                "{slot} executed command {} of session {} at index {index}, but the session {why}",
                id.1, id.0
            ));
        }
        self.executed.insert(id, (position, outcome.clone()));
        Ok(())
    }

    fn repeated(
        &self,
        slot: Slot,
        position: Position,
        id: (u64, u64),
        original: &Outcome,
    ) -> Result<(), String> {
        match self.executed.get(&id) {
            Some((first, outcome)) if *first < position && outcome == original => Ok(()),
            Some((first, outcome)) => Err(format!(
                "{slot} answered command {} of session {} at index {position} as a retry with \
                 {original:?}; it was executed at index {first} with {outcome:?}",
                id.1, id.0
            )),
            None => Err(format!(
                "{slot} took command {} of session {} at index {position} for a retry, but it was \
                 never executed",
                id.1, id.0
            )),
        }
    }

    fn acknowledged(&self, id: (u64, u64), reply: &Reply) -> Result<(), String> {
        let Reply::Command(outcome) = reply else { return Ok(()) };
        let told = match outcome {
            Outcome::Duplicate(original) => original,
            outcome => outcome,
        };
        match self.executed.get(&id) {
            Some((_, outcome)) if outcome == told => Ok(()),
            Some((first, outcome)) => Err(format!(
                "the client was told {told:?} about command {} of session {}, which was executed \
                 at index {first} with {outcome:?}",
                id.1, id.0
            )),
            None => Err(format!(
                "the client was told {told:?} about command {} of session {}, which was never \
                 executed",
                id.1, id.0
            )),
        }
    }
}

impl Invariant for SessionsOnce {
    fn name(&self) -> &'static str {
        "sessions_once"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => self.applied(entry),
            Fact::Acknowledged { session: Some(id), reply, .. } => self.acknowledged(id, reply),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{applied, applied_batch, judge, ok, pos, refused, session_opened};
    use super::*;

    fn opened(index: u64) -> AppliedEntry {
        let reply = session_opened(index, 1000);
        AppliedEntry { command: None, ..applied(0, pos(index, 1), "", reply) }
    }

    fn command(slot: usize, index: u64, sequence: u64, reply: Reply) -> AppliedEntry {
        let command = Some((Some((1, sequence)), Bytes::new()));
        AppliedEntry { command, ..applied(slot, pos(index, 1), "", reply) }
    }

    fn retry(answer: &str) -> Reply {
        let original = Outcome::Ok(answer.as_bytes().to_vec());
        Reply::Command(Outcome::Duplicate(Box::new(original)))
    }

    fn check(entries: &[AppliedEntry]) -> Result<(), String> {
        let facts: Vec<Fact<'_>> = entries.iter().map(Fact::Applied).collect();
        judge(&mut SessionsOnce::default(), &facts)
    }

    fn finds(entries: &[AppliedEntry], what: &str) {
        let facts: Vec<Fact<'_>> = entries.iter().map(Fact::Applied).collect();
        refused(&mut SessionsOnce::default(), &facts, what);
    }

    #[test]
    fn retries_answered_like_the_first_time_are_fine() {
        let expired = Reply::Refused(CommandRefused::SessionExpired);
        let entries = [
            opened(1),
            command(0, 2, 1, ok("a")),
            command(1, 2, 1, ok("a")),
            command(0, 3, 1, retry("a")),
            command(0, 4, 2, Reply::NoModule),
            command(0, 5, 2, ok("b")),
            command(0, 6, 1, expired),
            command(1, 5, 2, ok("b")),
        ];
        assert_eq!(check(&entries), Ok(()));
    }

    #[test]
    fn a_second_execution_is_found_on_any_node() {
        let twice = [opened(1), command(0, 2, 1, ok("a")), command(0, 3, 1, ok("a"))];
        finds(&twice, "executed at index 2");
        let elsewhere = [
            opened(1),
            command(0, 2, 1, ok("a")),
            command(0, 3, 1, retry("a")),
            command(1, 3, 1, ok("a")),
        ];
        finds(&elsewhere, "n1 executed command 1");
    }

    #[test]
    fn a_retry_in_the_same_entry_is_answered_like_the_first_or_found() {
        let batch = |second| {
            let both = [(Some((1, 1)), "x", ok("a")), (Some((1, 1)), "x", second)];
            applied_batch(0, pos(2, 1), &both)
        };
        assert_eq!(check(&[opened(1), batch(retry("a"))]), Ok(()));
        finds(&[opened(1), batch(ok("a"))], "at index 2.1, which was executed at index 2");
        finds(&[opened(1), batch(retry("b"))], "as a retry");
    }

    #[test]
    fn an_altered_or_invented_retry_is_found() {
        let altered = [opened(1), command(0, 2, 1, ok("a")), command(0, 3, 1, retry("b"))];
        finds(&altered, "as a retry");
        finds(&[opened(1), command(0, 2, 1, retry("a"))], "never executed");
    }

    #[test]
    fn a_session_that_is_not_there_executes_nothing() {
        finds(&[command(0, 2, 1, ok("a"))], "never opened");
        let expired = Reply::Refused(CommandRefused::SessionExpired);
        let gone = [opened(1), command(0, 2, 1, expired), command(0, 3, 2, ok("a"))];
        finds(&gone, "was gone");
        let old = Reply::Refused(CommandRefused::SequenceTooOld);
        let forgotten = [opened(1), command(0, 2, 1, old), command(0, 3, 1, ok("a"))];
        finds(&forgotten, "had forgotten");
    }

    #[test]
    fn a_client_is_told_what_was_executed() {
        let (open, run) = (opened(1), command(0, 2, 1, ok("a")));
        let bytes = Bytes::new();
        for (reply, wrong) in [(ok("a"), None), (retry("a"), None), (ok("b"), Some("was told"))] {
            let told = Fact::Acknowledged {
                session: Some((1, 1)),
                position: pos(2, 1),
                ordinal: 0,
                command: &bytes,
                reply: &reply,
            };
            let facts = [Fact::Applied(&open), Fact::Applied(&run), told];
            match wrong {
                Some(what) => refused(&mut SessionsOnce::default(), &facts, what),
                None => assert_eq!(judge(&mut SessionsOnce::default(), &facts), Ok(())),
            }
        }
    }
}
