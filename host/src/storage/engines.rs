//! The engines that can keep a log (`--storage-engine`), in one table.
//!
//! Whoever adds one writes a [`LogStore`] with its [`LogEngine`], and a line in [`ENGINES`]: the names that are
//! accepted, the help, what `IDENTITY` may say and what stopped nodes are read with follow from that.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::raft_engine::RaftEngine;
use super::sled::Sled;
use super::{DiskRoom, LogStore, StorageConfig, StorageError};

/// The default comes first.
const ENGINES: [&dyn LogEngine; 3] = [&RaftEngine, &Sled, &Memory];

/// Opens logs of one kind.
pub(super) trait LogEngine: Sync {
    /// How people name it.
    fn name(&self) -> &'static str;

    /// How `IDENTITY` names it. Persisted: never changed, and not used again for another.
    fn number(&self) -> u32;

    /// What it is, for people, in some words.
    fn summary(&self) -> &'static str;

    /// Whether what it stores survives the process. One for which that is not so gets no directory.
    fn is_durable(&self) -> bool {
        true
    }

    /// Opens or creates the log in a directory of its own.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset, when what is stored is not what was written; `Io`.
    /// `room`: of the disk that the directory is on.
    fn open(
        &self,
        dir: &Path,
        config: &StorageConfig,
        room: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError>;
}

/// One of the engines that there are.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Engine(&'static dyn LogEngine);

impl Engine {
    /// All of them, the default first.
    pub fn all() -> impl Iterator<Item = Engine> {
        ENGINES.into_iter().map(Engine)
    }

    /// How people name it.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// What it is, for people.
    pub fn summary(self) -> &'static str {
        self.0.summary()
    }

    /// Whether what it stores survives the process. If not, it takes no data directory.
    pub fn is_durable(self) -> bool {
        self.0.is_durable()
    }

    pub(super) fn number(self) -> u32 {
        self.0.number()
    }

    pub(super) fn of_number(number: u32) -> Option<Engine> {
        Engine::all().find(|engine| engine.number() == number)
    }

    pub(super) fn open(
        self,
        dir: &Path,
        config: &StorageConfig,
        room: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError> {
        self.0.open(dir, config, room)
    }
}

impl Default for Engine {
    fn default() -> Engine {
        Engine(ENGINES[0])
    }
}

impl PartialEq for Engine {
    fn eq(&self, other: &Engine) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Engine {}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A storage engine that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown storage engine {0:?}: choose one of {known}", known = ENGINES.map(|engine| engine.name()).join(", "))]
pub struct UnknownEngine(String);

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Engine::all()
            .find(|engine| engine.name() == text)
            .ok_or_else(|| UnknownEngine(text.to_owned()))
    }
}

impl TryFrom<String> for Engine {
    type Error = UnknownEngine;

    fn try_from(text: String) -> Result<Engine, UnknownEngine> {
        text.parse()
    }
}

impl From<Engine> for String {
    fn from(engine: Engine) -> String {
        engine.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn engines_are_told_apart_by_name_and_by_number() {
        for engine in Engine::all() {
            assert_eq!(engine.to_string().parse(), Ok(engine));
            assert_eq!(Engine::of_number(engine.number()), Some(engine));
            let stored = serde_json::to_value(engine).expect("a name");
            assert_eq!(stored, engine.name());
            assert_eq!(serde_json::from_value::<Engine>(stored).expect("a name"), engine);
        }
        let numbers: BTreeSet<u32> = Engine::all().map(Engine::number).collect();
        assert_eq!(numbers.len(), ENGINES.len());
        assert_eq!(Engine::of_number(0), None);
        let words = "rocksdb".parse::<Engine>().expect_err("unknown").to_string();
        for word in ["rocksdb", "raft-engine, sled, memory"] {
            assert!(words.contains(word), "{words}");
        }
    }

    /// What is in data directories.
    #[test]
    fn an_engine_keeps_its_number() {
        let numbered = Engine::all().map(|engine| (engine.number(), engine.name()));
        let numbered: Vec<_> = numbered.collect();
        assert_eq!(numbered, [(1, "raft-engine"), (2, "sled"), (3, "memory")]);
        assert_eq!(Engine::default().name(), "raft-engine");
    }
}
