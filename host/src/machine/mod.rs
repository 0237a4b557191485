//! The replicated machine around the application's state machine: a pure function of the log.
//!
//! It gives the plugin what every application needs and no plugin should write twice: a clock
//! that the log carries, exactly-once sessions, modules that arrive in the log and are switched
//! at one index, the limits of the guest and who may do what as replicated state that the log may change. A
//! snapshot holds all of it.
//!
//! ```text
//!   (index, entry) ──► Machine::apply ──► clock ──► sessions ──► fsm ──► Applied { reply, events }
//!                          │                │   each command of a batch      one for each
//!                          │                └─ modules (chunks, activation)
//!                          ├─ digest point ──► digest of machine and guest, for this node to report
//!                          └─ capture ──► MachineSnapshot ──► bytes ──► Machine::restore
//! ```
//!
//! Every replica must come to the same bits. So this room knows no wall clock, no randomness,
//! no order that depends on hashing, no threads and no files; of the protocol it knows only the
//! messages that entries and snapshots hold. It does not know raft-rs, wasmtime or sockets.

mod access;
mod activation;
mod again;
mod ahead;
mod batch;
mod calls;
mod clock;
mod convert;
mod core;
mod digest;
mod engine;
mod incarnation;
mod incumbent;
mod kept;
mod keys;
mod kind;
mod level;
mod limits;
mod membership;
mod modules;
mod past;
mod preview;
mod receipts;
mod records;
mod rehearsed;
mod reply;
mod restore;
mod restore_kept;
mod rights;
mod sessions;
mod signed;
mod snapshot;
mod summary;
mod take_over;
mod trial;
mod verdict;
mod way_back;

#[cfg(test)]
mod test_fsm;
#[cfg(test)]
mod tests;

pub use self::access::{
    ADMIN, Access, AccessChange, AccessRefused, BUILT_IN, BuiltIn, Class, Denied, Grant,
    JOIN_TOKEN_TTL_MAX_MS, JoinToken, NOTE_MAX_BYTES, Newcomer, Principal, SecretHash, Token,
    TokenEnd,
};
pub(crate) use self::access::{actor_to_log, change_to_log};
pub use self::ahead::{Ahead, AheadJob};
pub use self::batch::BATCH_COMMANDS_MAX;
pub use self::clock::TIME_MAX_MS;
pub(crate) use self::convert::limit_change_to_log;
pub(crate) use self::core::MachineBystander;
pub use self::core::{Machine, Tap};
pub use self::digest::TakenDigest;
pub use self::incarnation::{Exported, FOUNDER, INCARNATION, Import, PortableError};
pub use self::incumbent::Incumbent;
pub use self::kept::{EXECUTED_OVERHEAD_BYTES, Executed};
pub(crate) use self::keys::signature_to_log;
pub use self::keys::{KEY_CHANGES_MAX, KEYS_MAX, KeyChange, Keys, TrustedKey};
pub use self::kind::BodyKind;
pub use self::level::Unsupported;
#[cfg(feature = "museum")]
pub(crate) use self::level::rehearsal;
pub(crate) use self::modules::bounded_label;
pub use self::modules::{CHUNK_MAX_BYTES, LABEL_MAX_BYTES};
pub use self::preview::RewindPreview;
pub use self::receipts::{ALLOWANCE_MAX_BYTES, ALLOWANCES_MAX, RECEIPTS_MAX, Receipt, Way};
pub use self::reply::{
    ActivationInfo, ActiveModule, Applied, CommandRefused, ForkInfo, MachineInfo, ModuleInfo,
    QueryReply, QueryResult, Reply, Rewound, SessionNumber, WayBack,
};
pub use self::restore::RestoreError;
pub use self::snapshot::MachineSnapshot;
pub use self::summary::MachineSummary;
pub use self::take_over::TakeOver;
pub use self::trial::{Held, Migrated, Portable, command_entry, commands_of, time_of};
pub(crate) use self::verdict::truth;
pub use self::verdict::{Verdict, Vote};
