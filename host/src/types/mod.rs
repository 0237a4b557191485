//! The vocabulary that every room shares: newtypes and plain records, no logic.
//!
//! Knows nothing of raft-rs, wasmtime, protobuf or sockets.

mod access;
mod actor_name;
mod address;
mod exceeded;
mod ids;
mod level;
mod log;
mod membership;
mod message;
mod origin;
mod outcome;
mod snapshot;
mod space;

pub use access::{Actor, NoRight, PrincipalId, Right, TokenId};
pub use actor_name::{ActorName, NAME_MAX_BYTES, NoName};
pub use address::{ADDRESS_MAX_BYTES, AddressError, check_address};
pub use exceeded::Exceeded;
pub use ids::{ClusterId, GroupId, Index, JoinNonce, ModuleHash, NodeId, StateDigest, Term};
pub use level::Level;
pub use log::{EntryKind, HardState, LogEntry, LogPosition, Position};
pub use membership::{ConfChange, ConfChangeOp, ConfState, Member, Rival};
pub use message::{MessageKind, PeerMessage};
pub use origin::Origin;
pub use outcome::{Event, Outcome, TrapKind};
pub use snapshot::{SnapshotFate, SnapshotMeta};
pub use space::Space;
