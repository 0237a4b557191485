//! Raising the cluster's level, and whether a program can go on under what is in force.
//!
//! What an entry may hold depends on the level at its index. As with the engine profile, whether an
//! entry raises it must not depend on the program that applies it; whoever does not offer the new one
//! applies nothing more.

use raft_host_proto::stored;

use super::core::Machine;
use super::reply::{Applied, Reply};
use crate::fsm::{EngineUnsupported, FsmLoader};
use crate::types::Level;

/// What a state asks for and a program does not offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Another engine profile.
    #[error(transparent)]
    Engine(#[from] EngineUnsupported),
    /// A higher level.
    #[error("the cluster's level is {wanted}, and this program offers {offered}")]
    Level {
        /// The state's.
        wanted: Level,
        /// The program's.
        offered: Level,
    },
}

/// Whether the loader's program can apply what comes at a level.
pub(super) fn check(level: Level, loader: &dyn FsmLoader) -> Result<(), Unsupported> {
    let offered = loader.level();
    match level <= offered {
        true => Ok(()),
        false => Err(Unsupported::Level { wanted: level, offered }),
    }
}

impl Machine {
    /// The level that the next entry is applied at.
    pub fn level(&self) -> Level {
        self.state.level
    }

    /// Raises the level from the next entry on; one that is not above it changes nothing.
    pub(super) fn set_level(&mut self, request: &stored::SetLevel) -> Applied {
        let previous = self.state.level;
        let level = previous.max(Level(request.level));
        if level != previous {
            self.state.level = level;
            self.judge_program();
        }
        Applied::without_guest(Reply::LevelSet { level, previous })
    }
}

/// The level after this program's, which only a program of tests offers. So that a level gates
/// something before there is a second one, entries have one field more from it on, and what it says
/// goes into the running hash.
#[cfg(feature = "museum")]
pub(crate) mod rehearsal {
    use bytes::{Bytes, BytesMut};
    use prost::encoding::{self, WireType};

    use crate::types::Level;

    /// See the module.
    pub(crate) const NEXT: Level = Level(Level::CURRENT.0 + 1);
    /// One that no entry has: log.proto reserves it.
    const FIELD: u32 = 1000;

    fn field() -> Vec<u8> {
        let mut field = Vec::new();
        encoding::encode_key(FIELD, WireType::Varint, &mut field);
        encoding::encode_varint(1, &mut field);
        field
    }

    /// An entry as it is proposed at a level.
    pub(crate) fn put(entry: Bytes, level: Level) -> Bytes {
        if level < NEXT {
            return entry;
        }
        let mut longer = BytesMut::from(&entry[..]);
        longer.extend_from_slice(&field());
        longer.freeze()
    }

    /// The entry without the field, and whether it was there.
    pub(crate) fn take(entry: &Bytes, level: Level) -> (Bytes, bool) {
        match entry.strip_suffix(&field()[..]) {
            Some(rest) if level >= NEXT => (entry.slice(..rest.len()), true),
            _ => (entry.clone(), false),
        }
    }
}
