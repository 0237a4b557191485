//! What clients asked and were told could have happened one after the other, in real time; and
//! every query shows exactly the state that it says it shows.

use raft_host::types::Index;

use super::Invariant;
use crate::history::{self, checker};
use crate::sim::model::SharedReplay;
use crate::sim::observe::{Fact, Micros};

/// See the module.
#[derive(Debug)]
pub struct Linearizable {
    replay: SharedReplay,
}

impl Linearizable {
    /// Compares queries with the model of `replay`.
    pub fn new(replay: SharedReplay) -> Linearizable {
        Linearizable { replay }
    }

    fn value(&self, key: &str, value: history::Value, applied: Index) -> Result<(), String> {
        let replay = self.replay.borrow();
        if applied > replay.applied() {
            return Err(format!(
                "says that it is as of index {applied}, but nobody has applied more than index {}",
                replay.applied()
            ));
        }
        let expected = replay.model().value(key, applied);
        if value == expected {
            return Ok(());
        }
        Err(format!("shows {value:?}, but as of index {applied} the value is {expected:?}"))
    }
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "linearizable"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        self.replay.borrow_mut().observe(fact);
        match *fact {
            Fact::Queried { slot, key, value, applied, is_linearizable, asked_after } => {
                if is_linearizable && applied < asked_after {
                    return Err(format!(
                        "a linearizable query of {key:?} on {slot} shows index {applied}, but \
                         index {asked_after} was acknowledged before it was asked"
                    ));
                }
                self.value(key, value, applied)
                    .map_err(|wrong| format!("a query of {key:?} on {slot} {wrong}"))
            }
            Fact::End(end) => checker::check(end.history).map_err(|wrong| wrong.to_string()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Words, applied, judge, ok, pos, refused, survey};
    use super::*;
    use crate::history::{Action, Answer, Operation, Outcome};
    use crate::sim::model::Replay;
    use crate::sim::observe::{Phase, Slot};

    fn new() -> Linearizable {
        Linearizable::new(Replay::shared(&Words))
    }

    fn queried(
        value: history::Value,
        as_of: u64,
        is_linearizable: bool,
        after: u64,
    ) -> Fact<'static> {
        Fact::Queried {
            slot: Slot(1),
            key: "k",
            value,
            applied: Index(as_of),
            is_linearizable,
            asked_after: Index(after),
        }
    }

    #[test]
    fn a_query_shows_the_state_that_it_names_and_a_linearizable_one_nothing_old() {
        let one = applied(0, pos(1, 1), "set k 1", ok(""));
        let two = applied(0, pos(2, 1), "set k 2", ok(""));
        let facts = [
            Fact::Applied(&one),
            Fact::Applied(&two),
            queried(Some(2), 2, true, 2),
            queried(Some(1), 1, true, 1),
            queried(Some(1), 1, false, 2),
        ];
        assert_eq!(judge(&mut new(), &facts), Ok(()));
        let wrong = [
            (queried(Some(1), 1, true, 2), "was acknowledged before"),
            (queried(Some(1), 2, false, 0), "the value is Some(2)"),
            (queried(None, 1, false, 0), "the value is Some(1)"),
            (queried(Some(2), 3, false, 0), "nobody has applied"),
        ];
        for (query, what) in wrong {
            refused(&mut new(), &[Fact::Applied(&one), Fact::Applied(&two), query], what);
        }
    }

    #[test]
    fn the_history_of_the_clients_is_judged_at_the_end() {
        let operation = |action, answer, start_ns| Operation {
            process: 1,
            key: "k".to_owned(),
            action,
            outcome: Outcome::Answered(answer),
            start_ns,
            end_ns: start_ns + 1,
        };
        let survey = survey(0, Phase::Calm, vec![]);
        for (read, is_fine) in [(Some(1), true), (None, false)] {
            let history = [
                operation(Action::Write(1), Answer::Done, 0),
                operation(Action::Read, Answer::Value(read), 5),
            ];
            let mut end = testing::end(&survey);
            end.history = &history;
            assert_eq!(judge(&mut new(), &[Fact::End(&end)]).is_ok(), is_fine);
        }
    }
}
