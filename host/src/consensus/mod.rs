//! Raft, as a pure step function: inputs in, effects out.
//!
//! Wraps raft-rs (the only room that knows it). Owns no clock, disk, socket, thread or
//! randomness: ticks, messages and completions are handed in; messages to send, batches to
//! persist and entries to apply are handed out. The node executes them for real, the
//! simulator in virtual time. It asks the log store for bounds and terms, which are in memory, and
//! for entries only when it starts: later it has others read what it no longer has in memory.
//!
//! ```text
//!   Input ──► Replica::step ──► raft-rs ──► Replica::effects ──► Effects
//!             (any number of inputs)        writes   ─► log writer ─► Input::Persisted
//!                                           apply    ─► apply thread ─► Input::Applied
//!                                           messages ─► transport
//!                                           log_reads ─► log reader ─► Input::LogRead
//! ```
//!
//! What must hold, and is asserted: messages that promise durability leave only after the
//! write they depend on; entries are handed to apply in order, once, and only when committed
//! and durable here.

mod config;
mod convert;
mod effects;
#[cfg(test)]
mod harness;
mod logger;
mod membership;
mod offers;
mod offline;
mod recovery;
mod replica;
mod status;
mod store;

pub use config::{ConsensusConfig, ReplicaConfig};
pub use effects::{
    ApplyTask, Care, CommittedEntry, Effects, Input, LogRead, LogReader, Proposal, ProposalId,
    ProposalReply, ProposeError, ReadId, ReadReady, Write, WriteNumber,
};
pub use membership::{ConfChangeError, MEMBERS_MAX};
pub use offline::Configuration;
pub use recovery::{RecoveryError, bootstrap_write, reconcile};
pub use replica::{Nonsense, Replica, ReplicaError};
pub use status::{PeerProgress, ProgressState, Quorum, ReplicaStatus, Role};
