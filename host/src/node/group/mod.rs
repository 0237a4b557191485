//! One group's part in consensus: proposals, reads, members, digests, clocks, levels.
//!
//! State without threads, queues or disks: a [`Group`] is told what happened, and says at the end of a
//! turn what it wants done ([`Output`]). The shell has it done; in the simulator another one does.
//! What it shows to others while it works (who leads, whether the disk is stuck) stands in watched cells.

mod core;
mod digests;
mod levels;
mod lingering;
mod members;
mod newcomers;
mod pack;
mod proposals;
mod reads;
mod removal;
mod space;
mod waiters;

pub(super) use self::core::{Group, GroupParts, Output};
pub use self::levels::LevelStatus;
