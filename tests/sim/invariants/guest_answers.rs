//! The guest answers every executed command as the reference model does: what it was told
//! before has happened, and nothing else has.

use super::Invariant;
use crate::sim::model::SharedReplay;
use crate::sim::observe::{Fact, Micros};

/// See the module.
#[derive(Debug)]
pub struct GuestAnswers {
    replay: SharedReplay,
}

impl GuestAnswers {
    /// Judges by the model of `replay`.
    pub fn new(replay: SharedReplay) -> GuestAnswers {
        GuestAnswers { replay }
    }
}

impl Invariant for GuestAnswers {
    fn name(&self) -> &'static str {
        "guest_answers"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        let mut replay = self.replay.borrow_mut();
        replay.observe(fact);
        replay.take_wrong().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use raft_host::machine::Reply;
    use raft_host::types::{Outcome, TrapKind};

    use super::super::testing::{Words, applied, judge, ok, pos, refused};
    use super::*;
    use crate::sim::model::Replay;

    fn new() -> GuestAnswers {
        GuestAnswers::new(Replay::shared(&Words))
    }

    #[test]
    fn answers_follow_from_the_commands_before() {
        let trapped = || Reply::Command(Outcome::Trapped(TrapKind::OutOfFuel));
        let again = Reply::Command(Outcome::Duplicate(Box::new(Outcome::Ok(b"3".to_vec()))));
        let entries = [
            applied(0, pos(1, 1), "set k 1", ok("")),
            applied(0, pos(2, 1), "add k 2", ok("3")),
            applied(1, pos(2, 1), "add k 2", ok("3")),
            applied(0, pos(3, 1), "add k 2", again),
            applied(0, pos(4, 1), "trap k", trapped()),
            applied(0, pos(5, 1), "noop k", ok("whatever")),
            applied(0, pos(6, 1), "set k 9", Reply::NoModule),
            applied(0, pos(7, 1), "get k", ok("3")),
        ];
        let facts: Vec<Fact<'_>> = entries.iter().map(Fact::Applied).collect();
        assert_eq!(judge(&mut new(), &facts), Ok(()));
    }

    #[test]
    fn another_answer_than_the_models_is_found() {
        let set = applied(0, pos(1, 1), "set k 1", ok(""));
        let trapped = Reply::Command(Outcome::Trapped(TrapKind::OutOfFuel));
        let wrong = [
            (applied(0, pos(2, 1), "get k", ok("2")), "answered Value(Some(1))"),
            (applied(0, pos(2, 1), "get k", trapped), "answered Trapped"),
            (applied(0, pos(2, 1), "trap k", ok("")), "should have trapped"),
        ];
        for (entry, what) in wrong {
            refused(&mut new(), &[Fact::Applied(&set), Fact::Applied(&entry)], what);
        }
    }
}
