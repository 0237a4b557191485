//! The reference model: what the guest must answer and show, worked out without any guest.
//!
//! ```text
//!   committed entries ──► Replay ──► Model: key → (index, value)*
//!                           │
//!                           └─ what the guest answered, compared with what the model says
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use raft_host::machine::Reply;
use raft_host::types::{Index, ModuleHash, Outcome, Position};

use super::observe::{Answered, Fact};
use crate::history::{Action, Answer, Value};

/// How the run's guest understands commands.
pub trait Guest: Sync {
    /// What a command means; `None`: nothing that the model knows, and it changes no key.
    fn decode(&self, command: &[u8]) -> Option<ModelCommand>;

    /// What the guest said to an action; `None`: that is no answer to it.
    fn answer(&self, action: Action, outcome: &Outcome) -> Option<Answer>;

    /// Whether `new` has another answer to what `old` answered so. That they do the same to the state is
    /// given.
    fn answers_otherwise(&self, old: ModuleHash, new: ModuleHash, outcome: &Outcome) -> bool;
}

/// A command as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCommand {
    /// The key it is about.
    pub key: String,
    /// What it does.
    pub effect: Effect,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Acts on the key.
    Act(Action),
    /// Is answered by a trap and leaves no trace.
    Trap,
    /// Leaves no trace; its answer is not looked at.
    Nothing,
}

/// The values of all keys at all indexes.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Ascending by index; of those at one index the last is what anybody may see.
    keys: BTreeMap<String, Vec<(Index, Value)>>,
}

impl Model {
    /// The value of a key once the entry at `index` is applied.
    pub fn value(&self, key: &str, index: Index) -> Value {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|(at, _)| *at <= index);
        versions[..after].last().and_then(|(_, value)| *value)
    }

    /// Every key that ever had a value, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Does what a command of the entry at `index` says; commands come in the order of their
    /// positions.
    pub fn act(&mut self, index: Index, key: &str, action: Action) -> Answer {
        let versions = self.keys.get(key);
        let old = versions.and_then(|versions| versions.last()).and_then(|(_, value)| *value);
        let (new, answer) = step(old, action);
        if new != old {
            match self.keys.get_mut(key) {
                Some(versions) => versions.push((index, new)),
                None => {
                    self.keys.insert(key.to_owned(), vec![(index, new)]);
                }
            }
        }
        answer
    }
}

/// What an action makes of a value, and the answer to it.
fn step(old: Value, action: Action) -> (Value, Answer) {
    match action {
        Action::Read => (old, Answer::Value(old)),
        Action::Write(value) => (Some(value), Answer::Done),
        Action::Delete => (None, Answer::Matched(old.is_some())),
        Action::CompareAndSet(expected, value) if old == expected => {
            (Some(value), Answer::Matched(true))
        }
        Action::CompareAndSet(..) => (old, Answer::Matched(false)),
        Action::Add(amount) => {
            let sum = Some(old.unwrap_or(0).wrapping_add(amount));
            (sum, Answer::Value(sum))
        }
    }
}

/// A replay that several invariants look at; whoever sees a fact first takes it in.
pub type SharedReplay = Rc<RefCell<Replay>>;

/// The committed sequence, replayed on the model as it is first applied by any node.
pub struct Replay {
    guest: &'static dyn Guest,
    model: Model,
    /// Up to here the sequence is known.
    applied: Index,
    wrong: Option<String>,
}

impl Replay {
    /// Nothing applied yet.
    pub fn new(guest: &'static dyn Guest) -> Replay {
        Replay { guest, model: Model::default(), applied: Index(0), wrong: None }
    }

    /// As [`Replay::new`], to be shared.
    pub fn shared(guest: &'static dyn Guest) -> SharedReplay {
        Rc::new(RefCell::new(Replay::new(guest)))
    }

    /// Takes in what is first applied by this fact, if anything is.
    pub fn observe(&mut self, fact: &Fact<'_>) {
        match fact {
            Fact::Applied(entry) if entry.position.index > self.applied => {
                self.applied = entry.position.index;
                for (position, answered) in entry.answers() {
                    if let Err(wrong) = self.apply(position, &answered) {
                        self.wrong.get_or_insert(wrong);
                    }
                }
            }
            Fact::Membership { position, .. } => self.applied = self.applied.max(position.index),
            _ => {}
        }
    }

    /// The model up to [`Replay::applied`].
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Up to here the sequence is known.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The first answer that was not the model's, once.
    pub fn take_wrong(&mut self) -> Option<String> {
        self.wrong.take()
    }

    fn apply(&mut self, position: Position, answered: &Answered) -> Result<(), String> {
        let Reply::Command(outcome) = &answered.reply else { return Ok(()) };
        // A retry was executed where its original was.
        if matches!(outcome, Outcome::Duplicate(_)) {
            return Ok(());
        }
        let Some((_, bytes)) = &answered.command else {
            return Err(format!("index {position} is no command and was answered {outcome:?}"));
        };
        let Some(ModelCommand { key, effect }) = self.guest.decode(bytes) else { return Ok(()) };
        match effect {
            Effect::Act(action) => self.act(position, &key, action, outcome),
            Effect::Trap if matches!(outcome, Outcome::Trapped(_)) => Ok(()),
            Effect::Trap => Err(format!(
                "the command at index {position} should have trapped and was answered {outcome:?}"
            )),
            Effect::Nothing => Ok(()),
        }
    }

    fn act(
        &mut self,
        position: Position,
        key: &str,
        action: Action,
        outcome: &Outcome,
    ) -> Result<(), String> {
        let before = self.model.value(key, position.index);
        let expected = self.model.act(position.index, key, action);
        if self.guest.answer(action, outcome) == Some(expected) {
            return Ok(());
        }
        Err(format!(
            "{action:?} on {key:?} = {before:?} at index {position} was answered {outcome:?} and \
             should have been answered {expected:?}"
        ))
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("applied", &self.applied).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_value_of_every_index() {
        let mut model = Model::default();
        let mut act = |index, action| model.act(Index(index), "k", action);
        assert_eq!(act(1, Action::Delete), Answer::Matched(false));
        assert_eq!(act(2, Action::Write(5)), Answer::Done);
        assert_eq!(act(3, Action::Add(2)), Answer::Value(Some(7)));
        assert_eq!(act(4, Action::CompareAndSet(Some(5), 1)), Answer::Matched(false));
        assert_eq!(act(5, Action::CompareAndSet(Some(7), 1)), Answer::Matched(true));
        assert_eq!(act(6, Action::Read), Answer::Value(Some(1)));
        assert_eq!(act(7, Action::Delete), Answer::Matched(true));
        assert_eq!(act(8, Action::CompareAndSet(None, 9)), Answer::Matched(true));
        let values: Vec<Value> = (0..=9).map(|index| model.value("k", Index(index))).collect();
        let expected =
            [None, None, Some(5), Some(7), Some(7), Some(1), Some(1), None, Some(9), Some(9)];
        assert_eq!(values, expected);
        assert_eq!(model.value("other", Index(9)), None);
        assert_eq!(model.keys().collect::<Vec<_>>(), ["k"]);
    }
}
