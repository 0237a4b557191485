//! Registers: small, quick, and able to misbehave. See `registers.wat`.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use raft_host::types::{ModuleHash, Outcome};

use super::super::model::{self, ModelCommand};
use super::{Effect, Guest, original};
use crate::history::{Action, Answer, Value};

/// Versions that differ; compiled modules are kept, so there should not be too many.
const VERSIONS: u64 = 4;

/// What its answers end with: the same for two versions at a time.
fn shown(version: u64) -> u64 {
    version / 2
}

fn version_of(module: ModuleHash) -> Option<u64> {
    static HASHES: OnceLock<Vec<ModuleHash>> = OnceLock::new();
    let hash = |version| ModuleHash::of(&Registers.module(version));
    let hashes = HASHES.get_or_init(|| (0..VERSIONS).map(hash).collect());
    hashes.iter().position(|hash| *hash == module).map(|version| version as u64)
}

/// See the module.
pub(super) struct Registers;

impl Guest for Registers {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn module(&self, version: u64) -> Bytes {
        static MODULES: OnceLock<Mutex<BTreeMap<u64, Bytes>>> = OnceLock::new();
        let version = version % VERSIONS;
        let modules = MODULES.get_or_init(Mutex::default);
        let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = modules.entry(version).or_insert_with(|| {
            let text = include_str!("registers.wat")
                .replace("\"V\"", &format!("\"{}\"", shown(version)))
                .replace("\"N\"", &format!("\"{version}\""));
            wat::parse_str(text).expect("the guest is valid").into()
        });
        module.clone()
    }

    fn can(&self, _effect: Effect) -> bool {
        true
    }

    fn command(&self, key: u8, effect: Effect) -> Bytes {
        let (op, numbers): (u8, Vec<i64>) = match effect {
            Effect::Act(Action::Write(value)) => (1, vec![value]),
            Effect::Act(Action::Delete) => (2, vec![]),
            Effect::Act(Action::CompareAndSet(expected, value)) => {
                (3, vec![i64::from(expected.is_some()), expected.unwrap_or(0), value])
            }
            Effect::Act(Action::Add(delta)) => (4, vec![delta]),
            Effect::Act(Action::Read) => (5, vec![]),
            Effect::Trap => (6, vec![]),
            Effect::Spin => (7, vec![]),
            Effect::Grow => (8, vec![]),
            Effect::Reject => (9, vec![]),
            Effect::Clock => (10, vec![]),
            Effect::Random => (11, vec![]),
        };
        let mut bytes = vec![op, key];
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.into()
    }

    fn query(&self, key: u8) -> Bytes {
        vec![key].into()
    }

    fn value(&self, outcome: &Outcome) -> Option<Value> {
        read(outcome)
    }
}

fn read(outcome: &Outcome) -> Option<Value> {
    let Outcome::Ok(bytes) = original(outcome) else { return None };
    let (set, rest) = bytes.split_first()?;
    let value = i64::from_le_bytes(rest.get(..8)?.try_into().ok()?);
    Some((*set != 0).then_some(value))
}

impl model::Guest for Registers {
    fn decode(&self, command: &[u8]) -> Option<ModelCommand> {
        let (key, effect) = parse(command)?;
        Some(super::modelled(key, effect))
    }

    fn answer(&self, action: Action, outcome: &Outcome) -> Option<Answer> {
        let value = read(outcome)?;
        Some(match action {
            Action::Read | Action::Add(_) => Answer::Value(value),
            Action::Write(_) => Answer::Done,
            Action::Delete | Action::CompareAndSet(..) => Answer::Matched(value.is_some()),
        })
    }

    fn answers_otherwise(&self, old: ModuleHash, new: ModuleHash, outcome: &Outcome) -> bool {
        let shown = |module| version_of(module).map(shown);
        matches!(outcome, Outcome::Ok(_)) && shown(old) != shown(new)
    }
}

/// What a command of these bytes is meant to do.
fn parse(command: &[u8]) -> Option<(u8, Effect)> {
    let (&[op, key], rest) = command.split_first_chunk()?;
    let number = |at: usize| {
        let bytes = rest.get(at * 8..at * 8 + 8)?;
        Some(i64::from_le_bytes(bytes.try_into().ok()?))
    };
    let effect = match op {
        1 => Effect::Act(Action::Write(number(0)?)),
        2 => Effect::Act(Action::Delete),
        3 => {
            let expected = (number(0)? != 0).then_some(number(1)?);
            Effect::Act(Action::CompareAndSet(expected, number(2)?))
        }
        4 => Effect::Act(Action::Add(number(0)?)),
        5 => Effect::Act(Action::Read),
        6 => Effect::Trap,
        7 => Effect::Spin,
        8 => Effect::Grow,
        9 => Effect::Reject,
        10 => Effect::Clock,
        11 => Effect::Random,
        _ => return None,
    };
    Some((key, effect))
}
