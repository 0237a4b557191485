//! What a rehearsal found: the same on every node for the same range.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::kind::Kind;
use crate::machine::{Held, Incumbent, Way};
use crate::types::{Index, ModuleHash, Position};

/// How much more fuel commands may use before that is a difference: half of them, in thousandths.
pub const FUEL_MEDIAN_PERMILLE: u64 = 2_000;
/// And the worst one.
pub const FUEL_WORST_PERMILLE: u64 = 10_000;
/// How much more memory the guest may need before that is a difference, in thousandths.
pub const MEMORY_PERMILLE: u64 = 2_000;

/// What a rehearsal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The new module.
    pub module: ModuleHash,
    /// What it would replace.
    pub replaces: Incumbent,
    /// How it took the state over,
    pub way: Way,
    /// after this entry.
    pub base: Index,
    /// The last entry that both executed.
    pub until: Index,
    /// Executed by both.
    pub commands: u64,
    /// How many differences there are, by kind and class; ascending.
    pub counts: Vec<Count>,
    /// The first ones of each kind, in the order of the kinds.
    pub differences: Vec<Difference>,
    /// Fuel of the new module's commands.
    pub fuel: FuelRatio,
    /// Memory of the guests.
    pub memory: MemoryFound,
    /// Size of the old module's portable snapshot at the base, in bytes.
    pub snapshot_before_bytes: u64,
    /// Of the new module's there.
    pub snapshot_bytes: u64,
    /// Fuel of the old module's `snapshot` there.
    pub snapshot_fuel: u64,
    /// Fuel of the rest of the migration.
    pub restore_fuel: u64,
    /// Whether the old module takes back the new one's state at the end; if not, why.
    pub way_back: Result<(), String>,
    /// Whether the old module names classes of commands.
    pub names_classes: bool,
    /// What the migration took here. Of this node only: no part of [`Report::hash`].
    pub switch: Duration,
}

/// Differences of a kind and a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The kind.
    pub kind: Kind,
    /// Of the commands; empty if they have none, and [`OTHERS`] if there were too many.
    pub class: String,
    /// How many.
    pub count: u64,
}

/// The class of what is counted together because there were too many classes; no name of a class.
pub const OTHERS: &str = "(others)";

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its kind.
    pub kind: Kind,
    /// Of the command; empty if it has none.
    pub class: String,
    /// Of the command; `None`: it is none of a command.
    pub position: Option<Position>,
    /// The command or query, or its beginning.
    pub input: Bytes,
    /// There was more of it.
    pub input_cut: bool,
    /// What the old module says, for people; cut.
    pub old: String,
    /// What the new one says.
    pub new: String,
}

/// The first command that the two modules answer otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Its place.
    pub position: Position,
    /// All of it; `None`: the entry holds no command.
    pub command: Option<Held>,
    /// Fuel of the old module.
    pub old_fuel: u64,
    /// Of the new one.
    pub new_fuel: u64,
}

/// Fuel of the new module's commands in thousandths of the old one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FuelRatio {
    /// Half of the commands use no more; 0: nothing was measured.
    pub median_permille: u64,
    /// All of them use no more.
    pub worst_permille: u64,
    /// The first one of those that use the most.
    pub worst_at: Option<Position>,
}

/// Memory of the guests, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFound {
    /// The new module's at the end.
    pub bytes: u64,
    /// The old one's.
    pub before_bytes: u64,
    /// By how much the new one's has grown since the base.
    pub growth: u64,
    /// By how much the old one's has.
    pub before_growth: u64,
    /// How much more the new module needs, or takes while it runs, in thousandths; little is taken for nothing.
    pub permille: u64,
}

impl Report {
    /// Over everything that is the same on every node.
    pub fn hash(&self) -> [u8; 32] {
        let mut canon = Canon(Sha256::new_with_prefix(b"raft-host rehearsal 1"));
        canon.bytes(&self.module.0);
        canon.bytes(&self.replaces.hash.0);
        canon.numbers([self.replaces.activated_at.0, self.base.0, self.until.0, self.commands]);
        canon.numbers([self.counts.len() as u64]);
        for Count { kind, class, count } in &self.counts {
            canon.bytes(kind.name().as_bytes());
            canon.bytes(class.as_bytes());
            canon.numbers([*count]);
        }
        canon.numbers([self.differences.len() as u64]);
        for Difference { kind, class, position, input, input_cut, old, new } in &self.differences {
            canon.bytes(kind.name().as_bytes());
            canon.bytes(class.as_bytes());
            canon.position(*position);
            canon.bytes(input);
            canon.numbers([u64::from(*input_cut)]);
            canon.bytes(old.as_bytes());
            canon.bytes(new.as_bytes());
        }
        let FuelRatio { median_permille, worst_permille, worst_at } = self.fuel;
        canon.numbers([median_permille, worst_permille]);
        canon.position(worst_at);
        let MemoryFound { bytes, before_bytes, growth, before_growth, permille } = self.memory;
        canon.numbers([bytes, before_bytes, growth, before_growth, permille]);
        canon.numbers([self.snapshot_before_bytes, self.snapshot_bytes]);
        canon.numbers([self.snapshot_fuel, self.restore_fuel, u64::from(self.names_classes)]);
        match &self.way_back {
            Ok(()) => canon.numbers([1]),
            Err(reason) => {
                canon.numbers([0]);
                canon.bytes(reason.as_bytes());
            }
        }
        match self.way {
            Way::Snapshot => {}
            Way::PortableState(state) => canon.bytes(&state.0),
            Way::Image => canon.bytes(b"image"),
        }
        canon.0.finalize().into()
    }
}

/// Writes so that no two reports read the same.
struct Canon(Sha256);

impl Canon {
    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.0.update(number.to_le_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.numbers([bytes.len() as u64]);
        self.0.update(bytes);
    }

    fn position(&mut self, position: Option<Position>) {
        match position {
            None => self.numbers([0]),
            Some(at) => self.numbers([1, at.index.0, u64::from(at.ordinal)]),
        }
    }
}
