//! A key-value store: strings to strings, JSON commands and queries.
//!
//! `README.md` is the user's page. The modules are public for the second version of the
//! store, which reads this one's snapshots and answers in the same words.

pub mod answer;
mod key;
pub mod request;
pub mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Versions, Writer, json};

pub use crate::key::{Key, replace};
use crate::request::{Command, Query};

/// Keys in order, each with what is stored under it.
pub type Table<V> = BTreeMap<Key, V>;

/// The store.
#[derive(Default)]
pub struct Kv {
    table: Table<Box<str>>,
    /// The key that a command is about, for its memory: a command that overwrites allocates nothing.
    wanted: Key,
}

impl StateMachine for Kv {
    fn apply(&mut self, _: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        match Command::parse(command)? {
            Command::Set { key, value } => {
                self.put(&key, &value);
                Ok(answer::done())
            }
            Command::Delete { key } => {
                self.wanted.set(&key);
                let deleted = self.table.remove(&self.wanted).is_some();
                Ok(answer::deleted(deleted))
            }
            Command::Cas { key, expected, value } => {
                self.wanted.set(&key);
                let current = self.table.get(&self.wanted).map(|value| &**value);
                if current != expected.as_deref() {
                    return Ok(answer::mismatch(current));
                }
                self.put(&key, &value);
                Ok(answer::done())
            }
        }
    }

    fn query(&self, _: &Context, query: &[u8]) -> Result<Answer, Rejection> {
        match json::parse::<Query>("the query", query)? {
            Query::Get { key } => Ok(answer::get(self.table.get(&Key::from(&*key)))),
            Query::Range(range) => Ok(answer::range(range.of(&self.table), range.limit)),
            Query::Count {} => Ok(answer::count(self.table.len())),
        }
    }

    fn snapshot(&self, _: &Context, out: &mut Writer) {
        snapshot::write_v1(out, self.table.iter().map(|(key, value)| (&**key, &**value)));
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<Kv, Rejection> {
        let header = snapshot::Header::read(input)?;
        header.require_version_up_to(1)?;
        let table = snapshot::read_table(&header, input, snapshot::read_text)?;
        Ok(Kv { table, wanted: Key::default() })
    }
}

impl Versions for Kv {
    const STATE_VERSION: &'static str = "kv/1";
}

impl Kv {
    fn put(&mut self, key: &str, value: &str) {
        self.wanted.set(key);
        match self.table.get_mut(&self.wanted) {
            Some(stored) => replace(stored, value),
            None => drop(self.table.insert(std::mem::take(&mut self.wanted), value.into())),
        }
    }
}

#[cfg(feature = "module")]
raft_fsm_sdk::export!(Kv, versions);
