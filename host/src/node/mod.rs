//! The runtime shell: drives a replica with a real clock, disk, sockets and threads.
//!
//! Thin on purpose: what matters to correctness lives in `consensus` and `machine`, where the
//! simulator reaches it. Knows nothing of gRPC services or the command line.
//!
//! ```text
//!  NodeHandle ─┐                        ┌─► log writer: merge, one write, one fsync ─► Persisted
//!  Inbox ──────┼─► event loop (Replica) ┼─► apply thread (Machine) ─► replies, Applied
//!  clock ──────┘                        │        └─► snapshot thread ─► SnapshotSaved
//!                                       ├─► log reader: what memory no longer has ─► LogRead
//!                                       └─► Transport
//! ```
//!
//! Bytes in the queues are bounded where they enter ([`budget`]); what does not fit is refused
//! as busy (requests) or dropped (peer messages, which Raft sends again).

mod apply;
mod batches;
mod beside;
mod budget;
mod clock;
mod config;
mod digests;
mod event_loop;
mod evidence;
mod halt;
mod handle;
mod inbox;
mod judge;
mod levels;
mod limits;
mod log_reader;
mod log_writer;
mod membership;
mod metrics;
mod newcomers;
mod pack;
mod parked;
mod recovery;
mod removal;
mod rivals;
mod room;
mod snapshots;
mod standing;
mod start;
mod stepped;
mod stop;
#[cfg(test)]
mod tests;
mod trust;
mod upgrade;
mod waiter;
mod waiters;
mod work;

pub use apply::Witness;
pub use batches::SubmitBatch;
pub use budget::{Budget, Charge};
pub use clock::{ClockFailure, ClockSet, ClockStatus};
pub use config::{DigestConfig, ENTRY_OVERHEAD_BYTES, NodeConfig, SnapshotConfig};
pub use handle::{
    Committed, Consistency, Leadership, MachineView, NodeHandle, ProposeFailure, ProposeResult,
    QueryFailure, Submit,
};
pub use inbox::NodeInbox;
pub use levels::{LevelRefused, LevelSet, LevelStatus};
pub use limits::{EngineFailure, EngineSet, LimitsFailure, LimitsSet};
pub use membership::MembershipFailure;
pub use metrics::{
    Applies, BUCKETS_SECONDS, Counter, Durations, Ending, NodeMetrics, NotAsked, NotRun, PerEnding,
    Queries, Refusal,
};
pub use rivals::RivalStatus;
pub use room::{GuestMemory, MachineMemory};
pub use start::{
    Environment, Node, NodeChannel, NodeOptions, StartError, WallClock, bootstrap, channel,
};
pub use stepped::SteppedNode;
pub use stop::{StopReason, Stragglers};
pub use trust::{DigestCounters, DigestStatus, Doubt, Quarantine};
pub use upgrade::{Upgrade, UpgradeFailure, Upgraded};
pub use waiter::{ChargedAnswer, ReplySink};
pub use work::{Activity, JobKind, MonotonicClock};
