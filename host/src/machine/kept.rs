//! A state of the past that is kept, and the commands that the guest has executed since.
//!
//! ```text
//!   ─── entry 41 ─── 42 ─── 43 ─── 44 ───►
//!            │       └── executed since: position, clock, who, bytes, what came of it
//!            └ image: shares what has not changed since with whoever runs
//! ```
//!
//! Of two states of the past there may be one each: that from just before an activation, so that the module
//! from before can come back, and one that a module's instance begins with which is to take over. Commands
//! that are kept for both are there once. What they may take is bounded by replicated limits, in bytes and
//! by the log's clock.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored;
use sha2::{Digest as _, Sha256};

use super::convert;
use crate::fsm::Image;
use crate::types::{ActorName, Index, ModuleHash, Outcome, Position, StateDigest};

/// What a command counts besides its bytes and those of its answer: about what it takes in memory.
pub const EXECUTED_OVERHEAD_BYTES: u64 = 256;
/// Commands that lie together.
const BLOCK: usize = 1024;
/// Begins what is hashed.
const TAG: &[u8] = b"raft-host executed 1";

/// A command that the guest executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Where it is in the log.
    pub position: Position,
    /// The log's clock there.
    pub time_ms: u64,
    /// Who gave it, as the guest saw it.
    pub actor: ActorName,
    /// Its bytes.
    pub data: Bytes,
    /// What came of it.
    pub outcome: Outcome,
}

impl Executed {
    /// As snapshots hold it.
    pub(super) fn to_record(&self) -> stored::SnapshotExecuted {
        stored::SnapshotExecuted {
            index: self.position.index.0,
            ordinal: self.position.ordinal,
            time_ms: self.time_ms,
            actor_name: self.actor.as_str().to_owned(),
            data: self.data.clone(),
            outcome: Some(convert::outcome_to_record(&self.outcome)),
        }
    }

    /// Reads what [`Executed::to_record`] made.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_record(record: stored::SnapshotExecuted) -> Result<Executed, String> {
        let stored::SnapshotExecuted { index, ordinal, time_ms, actor_name, data, outcome } =
            record;
        let outcome = outcome.as_ref().and_then(convert::outcome_from_record);
        Ok(Executed {
            position: Position { index: Index(index), ordinal },
            time_ms,
            actor: match actor_name.as_str() {
                "" => ActorName::NONE,
                name => name.parse().map_err(|error| format!("who gave a command: {error}"))?,
            },
            data,
            outcome: outcome.ok_or("a command without an outcome")?,
        })
    }

    fn cost_bytes(&self) -> u64 {
        let answer = match &self.outcome {
            Outcome::Ok(answer) | Outcome::Rejected(answer) => answer.len(),
            Outcome::Trapped(_) | Outcome::Duplicate(_) => 0,
        };
        (self.data.len() + answer) as u64 + EXECUTED_OVERHEAD_BYTES
    }
}

/// Commands that were executed one after the other. A clone shares all but the last few.
#[derive(Clone)]
pub(super) struct Commands {
    full: Vec<Arc<Vec<Arc<Executed>>>>,
    last: Arc<Vec<Arc<Executed>>>,
    bytes: u64,
    digest: StateDigest,
}

impl Default for Commands {
    fn default() -> Commands {
        let digest = StateDigest([0; 32]);
        Commands { full: Vec::new(), last: Arc::default(), bytes: 0, digest }
    }
}

impl Commands {
    pub(super) fn push(&mut self, executed: Arc<Executed>) {
        let mut hasher = Sha256::new_with_prefix(TAG);
        hasher.update(self.digest.0);
        for number in
            [executed.position.index.0, executed.position.ordinal.into(), executed.time_ms]
        {
            hasher.update(number.to_le_bytes());
        }
        let outcome = convert::outcome_to_record(&executed.outcome).encode_to_vec();
        for bytes in [executed.actor.as_str().as_bytes(), &executed.data, &outcome] {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        self.digest = StateDigest(hasher.finalize().into());
        self.bytes += executed.cost_bytes();
        let last = Arc::make_mut(&mut self.last);
        last.push(executed);
        if last.len() == BLOCK {
            self.full.push(std::mem::take(&mut self.last));
        }
    }

    pub(super) fn len(&self) -> u64 {
        (self.full.len() * BLOCK + self.last.len()) as u64
    }

    /// As `upgrade_keep_bytes` counts them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Over all of them, in order.
    pub(super) fn digest(&self) -> StateDigest {
        self.digest
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Executed>> {
        self.full.iter().chain([&self.last]).flat_map(|block| block.iter())
    }
}

/// See the module. A clone is cheap.
#[derive(Clone)]
pub(super) struct Kept {
    /// Whose state it is.
    pub(super) module: ModuleHash,
    /// It is the state after this entry.
    pub(super) index: Index,
    /// The log's clock when it was kept.
    pub(super) time_ms: u64,
    /// When it is dropped by the log's clock.
    pub(super) expires_ms: u64,
    pub(super) image: Arc<dyn Image>,
    /// Of the state.
    pub(super) guest: StateDigest,
    /// Those since.
    pub(super) commands: Commands,
}

/// A state that a module's instance begins with which is to take over.
#[derive(Clone)]
pub(super) struct Fork {
    pub(super) kept: Kept,
    /// The module.
    pub(super) next: ModuleHash,
}

impl Kept {
    /// The entry behind it. Of what is kept for a way back: the activation.
    pub(super) fn activated_at(&self) -> Index {
        self.index.next()
    }

    /// All but image and commands.
    pub(super) fn to_record(&self, next: Option<ModuleHash>) -> stored::SnapshotKept {
        let hash = |hash: ModuleHash| Bytes::copy_from_slice(&hash.0);
        stored::SnapshotKept {
            module_hash: hash(self.module),
            index: self.index.0,
            expires_ms: self.expires_ms,
            guest_digest: self.guest.0.to_vec().into(),
            command_count: self.commands.len(),
            command_bytes: self.commands.bytes(),
            commands_digest: self.commands.digest().0.to_vec().into(),
            next_module: next.map(hash).unwrap_or_default(),
            time_ms: self.time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::types::TrapKind;

    fn executed(index: u64, data: &[u8], outcome: Outcome) -> Executed {
        Executed {
            position: Position::first(Index(index)),
            time_ms: 5,
            actor: ActorName::NONE,
            data: Bytes::copy_from_slice(data),
            outcome,
        }
    }

    #[test]
    fn a_clone_is_what_it_was_however_many_follow() {
        let mut commands = Commands::default();
        let mut clones = Vec::new();
        for index in 1..3 * BLOCK as u64 {
            if index % 700 == 1 {
                clones.push((index - 1, commands.clone()));
            }
            commands.push(executed(index, b"x", Outcome::Ok(vec![1, 2])).into());
            assert_eq!(commands.len(), index);
            assert_eq!(commands.bytes(), index * (3 + EXECUTED_OVERHEAD_BYTES));
        }
        for (len, clone) in clones {
            assert_eq!(clone.len(), len);
            assert!(clone.iter().map(|it| it.position.index.0).eq(1..=len));
        }
    }

    #[test]
    fn each_part_of_each_command_counts() {
        let digest = |all: &[Executed]| {
            let mut commands = Commands::default();
            all.iter().for_each(|executed| commands.push(executed.clone().into()));
            commands.digest()
        };
        let one = executed(7, b"ab", Outcome::Ok(b"c".to_vec()));
        let others = [
            executed(8, b"ab", Outcome::Ok(b"c".to_vec())),
            executed(7, b"a", Outcome::Ok(b"bc".to_vec())),
            executed(7, b"ab", Outcome::Rejected(b"c".to_vec())),
            executed(7, b"ab", Outcome::Trapped(TrapKind::Exit)),
            Executed { time_ms: 6, ..one.clone() },
            Executed { actor: "a".parse().unwrap(), ..one.clone() },
        ];
        for other in others {
            assert_ne!(digest(from_ref(&other)), digest(from_ref(&one)), "{other:?}");
            assert_eq!(Executed::from_record(other.to_record()), Ok(other));
        }
        let twice = executed(9, b"x", Outcome::Ok(Vec::new()));
        assert_ne!(digest(&[one.clone(), twice.clone()]), digest(&[twice, one]));
    }

    #[test]
    fn a_command_takes_about_what_it_counts() {
        // Behind an `Arc`, and a pointer to it.
        let takes = (size_of::<Executed>() + 3 * size_of::<usize>()) as u64;
        let counts = EXECUTED_OVERHEAD_BYTES;
        assert!((counts / 2..=counts).contains(&takes), "{takes}");
    }
}
