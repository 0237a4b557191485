//! How the rest of the process talks to a running node: a handle to one group of it.

mod access;
mod batches;
mod clock;
mod core;
mod drain;
mod duty;
mod keys;
mod levels;
mod limits;
mod membership;
mod mending;
mod queues;
mod rivals;
mod upgrade;

pub use self::access::{AccessFailure, AccessSet};
pub use self::batches::SubmitBatch;
pub use self::clock::{ClockFailure, ClockSet};
pub use self::core::{NodeHandle, Submit};
pub(super) use self::core::{QueueLimits, Shared};
pub use self::drain::Drained;
pub use self::keys::{KeysFailure, KeysSet};
pub use self::levels::LevelSet;
pub use self::limits::{EngineFailure, EngineSet, LimitsFailure, LimitsSet};
pub use self::membership::MembershipFailure;
pub use self::queues::Queue;
pub use self::upgrade::{Upgrade, UpgradeFailure, Upgraded};
