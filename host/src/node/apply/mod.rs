//! One group's machine at work: applies committed entries in order, answers queries between them, has
//! snapshots taken, and knows whether its state can be trusted.
//!
//! Everything here happens on one thread (or step by step); a guest may take its time on it.

mod ahead;
mod answers;
mod beside;
mod core;
mod error;
mod evidence;
mod judge;
mod modules;
mod parked;
mod parts;
mod policy;
mod queries;
mod shadow;
mod stored;
mod trust;
mod witness;

pub(super) use self::core::ApplyLoop;
pub(super) use self::parts::ApplyParts;
pub(super) use self::stored::{LoadError, restore, save, try_save};
pub(super) use self::trust::Trust;
pub use self::trust::{DigestCounters, DigestStatus, Doubt, Quarantine};
pub use self::witness::Witness;
