//! A node: groups, and the runtime shell that drives them with a real clock, disk, sockets and threads.
//!
//! Thin on purpose: what matters to correctness lives in `consensus` and `machine`, where the
//! simulator reaches it. Knows nothing of gRPC services or the command line.
//!
//! ```text
//!  handle ─┐                        ┌─► log writer: merge, one write, one fsync ─► Persisted
//!  inbox ──┼─► event loop (groups) ─┼─► apply (a machine a group) ─► replies, Applied
//!  tick ───┘                        │        └─► snapshot writer ─► SnapshotSaved
//!                                   ├─► log reader: what memory no longer has ─► LogRead
//!                                   └─► Transport
//!
//!  handle ──► group, apply ◄── shell          who may know whom; none of these is known by
//!      └──────────┴──────────────┴─► the rest  what is beside them in this room
//! ```
//!
//! Bytes in the queues are bounded where they enter ([`Budget`]); what does not fit is refused
//! as busy (requests) or dropped (peer messages, which Raft sends again).

mod ahead;
mod answer;
mod apply;
mod budget;
mod clock;
mod compilations;
mod config;
mod courtesy;
mod group;
mod handle;
mod message;
mod metrics;
mod pace;
mod priority;
mod request;
mod rivals;
mod room;
mod roster;
mod shadow;
mod shell;
mod standing;
mod stop;
#[cfg(test)]
mod tests;
mod waiter;
mod work;

pub use answer::{
    Check, Committed, Consistency, DiskStatus, Leadership, LevelRefused, MachineCopy, MachineView,
    NoSpace, ProposeFailure, ProposeResult, QueryFailure, unexpected,
};
pub use apply::{DigestCounters, DigestStatus, Doubt, Quarantine, Witness};
pub use budget::{Budget, Charge};
pub use clock::{ClockStatus, MonotonicClock, WallClock};
pub use compilations::Preparation;
pub use config::{DigestConfig, ENTRY_OVERHEAD_BYTES, NodeConfig, SnapshotConfig};
pub use group::LevelStatus;
pub use handle::{
    AccessFailure, AccessSet, Admission, AdmissionFailure, AheadOfFork, Candidate, ClockFailure,
    ClockSet, Drained, EngineFailure, EngineSet, KeysFailure, KeysSet, LevelSet, LimitsFailure,
    LimitsSet, MembershipFailure, Moment, NodeHandle, PastReply, Queue, RehearsalFailure,
    Rehearsed, RewindTrial, ShadowFound, ShadowRun, Submit, SubmitBatch, TravelFailure, Trying,
    Upgrade, UpgradeFailure, Upgraded,
};
pub use metrics::{
    Applies, BUCKETS_SECONDS, Counter, Durations, Ending, JobKind, NodeMetrics, NotAsked, NotRun,
    NotedDurations, PerEnding, Queries, Refusal, SessionEnd, Waiting,
};
pub use pace::Pace;
pub(crate) use priority::yield_to_others;
pub use request::{ActivateModule, Command, ModuleChunk, Request, SessionPosition};
pub use rivals::RivalStatus;
pub use room::{GuestMemory, MachineMemory};
pub use shadow::{Room, SHADOW_MAX, ShadowEnd, ShadowStatus};
pub use shell::{
    Environment, FIRST, GroupOptions, Node, NodeChannel, NodeInbox, NodeOptions, StartError,
    SteppedNode, SteppedShadow, Stragglers, adopt, bootstrap, channel, first_machine, found,
};
pub use stop::StopReason;
pub use waiter::{ChargedAnswer, ReplySink};
pub use work::Activity;
