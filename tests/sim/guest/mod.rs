//! The state machines that run in the simulated cluster, and what their bytes mean.
//!
//! A guest says how commands are encoded and how answers read; the clients and the reference
//! model know only keys and values.

mod kv;
mod registers;

use bytes::Bytes;
use raft_host::types::Outcome;

use super::model::{self, ModelCommand};
use crate::history::{Action, Value};

/// What a command is meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// As a client of the store would.
    Act(Action),
    /// Break after changing much; must leave no trace.
    Trap,
    /// Run out of fuel after changing much; must leave no trace.
    Spin,
    /// Be refused by the guest.
    Reject,
    /// Grow the memory.
    Grow,
    /// Note the entry's time.
    Clock,
    /// Note the entry's random number.
    Random,
}

/// A state machine of the simulated cluster. What its commands mean to the reference model, and
/// how its answers read, says [`model::Guest`].
pub trait Guest: model::Guest + Send {
    /// For people.
    fn name(&self) -> &'static str;

    /// The module of a version; versions count from 0 and there are any number of them, though
    /// the same may come again.
    fn module(&self, version: u64) -> Bytes;

    /// Whether it can do that at all.
    fn can(&self, effect: Effect) -> bool;

    /// The bytes of a command.
    fn command(&self, key: u8, effect: Effect) -> Bytes;

    /// The bytes of a query for a key's value.
    fn query(&self, key: u8) -> Bytes;

    /// The value that a query's outcome holds.
    fn value(&self, outcome: &Outcome) -> Option<Value>;
}

/// The guests, by name.
pub fn by_name(name: &str) -> Option<&'static dyn Guest> {
    let guests: [&'static dyn Guest; 3] = [&registers::Registers, &kv::NATIVE, &kv::WASM];
    guests.into_iter().find(|guest| guest.name() == name)
}

/// Name of a key in histories.
pub fn key_name(key: u8) -> String {
    format!("k{key}")
}

/// A command of a guest as the reference model sees it.
fn modelled(key: u8, effect: Effect) -> ModelCommand {
    let effect = match effect {
        Effect::Act(action) => model::Effect::Act(action),
        Effect::Trap | Effect::Spin => model::Effect::Trap,
        Effect::Reject | Effect::Grow | Effect::Clock | Effect::Random => model::Effect::Nothing,
    };
    ModelCommand { key: key_name(key), effect }
}

/// The first outcome behind duplicates.
pub fn original(outcome: &Outcome) -> &Outcome {
    match outcome {
        Outcome::Duplicate(first) => original(first),
        other => other,
    }
}
