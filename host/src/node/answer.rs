//! What callers are told: what became of a proposal, of a query, of the leadership.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::budget::Charge;
use super::rivals::UNCONFIRMED;
use crate::consensus::{ConfChangeError, Role};
use crate::machine::{
    CommandRefused, Denied, MachineInfo, MachineSnapshot, QueryReply, QueryResult, Reply,
};
use crate::text::human_bytes;
use crate::types::{
    ConfState, Exceeded, Index, JoinNonce, Level, LogPosition, Member, ModuleHash, NodeId,
    Position, Space, StateDigest, Term,
};

/// A proposal that was applied.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Of the command, or of the entry if that holds none.
    pub position: Position,
    /// Term of its entry.
    pub term: Term,
    /// The machine's answer.
    pub reply: Reply,
    /// Fuel that the guest used.
    pub fuel_used: u64,
    /// For people: details of a trap.
    pub trap_message: Option<String>,
    /// Pages of memory that the guest wrote, if that was asked for and this host can tell.
    pub pages_dirtied: Option<u64>,
    /// How long this node took to apply it.
    pub apply_duration: Duration,
}

/// Why a proposal has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFailure {
    /// Ask that node instead. It surely did not happen.
    #[error("this node is not the leader")]
    NotLeader(Option<Member>),
    /// A queue is full. It surely did not happen.
    #[error("the node is busy: too many bytes are in flight; try again in a moment")]
    Busy(Exceeded),
    /// Too long for one entry. It surely did not happen.
    #[error("{bytes} bytes are too many: an entry holds at most {max} (node.max_entry_bytes)")]
    TooLarge {
        /// Length of the entry.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// No batch. It surely did not happen.
    #[error("{commands} commands are no batch: an entry holds 1 to {max} of them")]
    BatchSize {
        /// How many there are.
        commands: usize,
        /// The bound.
        max: usize,
    },
    /// Another leader's entry took its place. It surely did not happen.
    #[error("a new leader replaced the entry before it was committed")]
    Superseded,
    /// The membership change makes no sense now. It surely did not happen.
    #[error(transparent)]
    ConfChange(#[from] ConfChangeError),
    /// Not all members offer the level. It surely did not happen.
    #[error(transparent)]
    Level(Box<LevelRefused>),
    /// Whoever asked for it may not do it. It surely did not happen.
    #[error("{0}; nothing was done")]
    Denied(Box<Denied>),
    /// The node is shutting down. It surely did not happen.
    #[error("this node is shutting down")]
    Stopping,
    /// The node's state is not trusted, and it leads no longer than it must. It surely did not
    /// happen.
    #[error(
        "this node is quarantined: its state differs from its cluster's; it hands leadership over \
         and gets a fresh state"
    )]
    Quarantined,
    /// The replicas disagree, and nothing says yet who is right. It surely did not happen.
    #[error(
        "this cluster's replicas disagree, and nothing says yet which state is right: it answers \
         nothing until a voter that is missing is back (status says more)"
    )]
    InDoubt,
    /// Nobody has confirmed this node's cluster. It surely did not happen.
    #[error("{UNCONFIRMED}")]
    Unconfirmed,
    /// There is little space left for what would be appended. It surely did not happen.
    #[error(transparent)]
    NoSpace(Box<NoSpace>),
    /// It may have happened, or may still happen.
    #[error("{0}; the command may have been applied, or may still be")]
    Unknown(String),
}

impl Committed {
    /// Itself, unless it says that whoever asked for it may not do it.
    ///
    /// # Errors
    /// [`ProposeFailure::Denied`].
    pub(super) fn unless_denied(self) -> ProposeResult {
        match self.reply {
            Reply::Refused(CommandRefused::Denied(denied)) => Err(ProposeFailure::Denied(denied)),
            _ => Ok(self),
        }
    }
}

impl ProposeFailure {
    /// Whether it surely did not happen and never will.
    pub fn surely_not_applied(&self) -> bool {
        !matches!(self, ProposeFailure::Unknown(_))
    }
}

/// Whose disks have too little space left for new commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// This node's own.
    Own,
    /// Those of so many voters that the others are no majority.
    Voters(BTreeSet<NodeId>),
}

/// Why nothing new is taken: it goes on by itself when there is space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum NoSpace {
    #[error(
        "the disk of node {node}, which leads, has {} left, and below {} no new commands are taken \
         (storage.low_space_bytes); queries and changes of the members are. Make room on it, or hand \
         leadership to a node that has some: it goes on by itself",
        human_bytes(*.free),
        human_bytes(*.low)
    )]
    Leader { node: NodeId, free: u64, low: u64 },
    #[error(
        "the disks of most voters have little space left (nodes {}), so no new commands are taken; \
         queries and changes of the members are. Make room on them (`raft-host status` says how \
         much they have): it goes on by itself",
        .nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
    )]
    Voters { nodes: BTreeSet<NodeId> },
}

/// How much room a node's disk has left, and how quick it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// What that means.
    pub space: Space,
    /// What the node can still write, in bytes.
    pub free: u64,
    /// All of it, in bytes.
    pub total: u64,
    /// Below this it is low, in bytes; 0: nobody looks.
    pub low: u64,
    /// Below this it is critical, in bytes.
    pub critical: u64,
    /// Held in reserve, in bytes.
    pub reserve: u64,
    /// The 99th percentile of the log's writes in the last minute, if there were enough.
    pub sync_p99: Option<Duration>,
    /// That is longer than `node.slow_sync_ms`.
    pub is_slow: bool,
    /// Why somebody should look.
    pub alarm: Option<String>,
}

/// Why a level is not raised. It surely is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the level stays {current}: a member whose program does not offer level {wanted} would stop. {}: \
     start a version of raft-host that offers it on each of them, or remove the member, and try again",
    words(.missing)
)]
pub struct LevelRefused {
    /// The level in force.
    pub current: Level,
    /// What it was to become.
    pub wanted: Level,
    /// Members in the way, and what they offer; `None`: not heard from lately.
    pub missing: Vec<(NodeId, Option<Level>)>,
}

fn words(missing: &[(NodeId, Option<Level>)]) -> String {
    let word = |(node, offered): &(NodeId, Option<Level>)| match offered {
        Some(level) => format!("node {node} offers {level}"),
        None => format!("node {node} has not said lately what it offers"),
    };
    missing.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The answer to a proposal.
pub type ProposeResult = Result<Committed, ProposeFailure>;

/// How fresh a query's answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every command acknowledged before the query was asked.
    Linearizable,
    /// Whatever this node has applied.
    Stale,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum QueryFailure {
    #[error("the node is busy: too many bytes are in flight; try again in a moment")]
    Busy(Exceeded),
    #[error("this node is shutting down")]
    Stopping,
    #[error("this node stopped")]
    Stopped,
    #[error(
        "this node is quarantined: its state differs from its cluster's, so it answers nothing \
         until it has a fresh one; ask another node"
    )]
    Quarantined,
    #[error(
        "this cluster's replicas disagree, and nothing says yet which state is right: it answers \
         nothing until a voter that is missing is back (status says more)"
    )]
    InDoubt,
    #[error("{UNCONFIRMED}")]
    Unconfirmed,
}

pub(super) struct QueryJob {
    /// Nothing is asked of the guest: what matters is that everything is applied by now.
    pub(super) is_barrier: bool,
    pub(super) query: Bytes,
    pub(super) reply: oneshot::Sender<Result<QueryReply, QueryFailure>>,
    pub(super) _charge: Charge,
}

impl QueryJob {
    /// Answers at once what needs no guest; gives back what does.
    pub(super) fn pass(self, applied: Index) -> Option<QueryJob> {
        if !self.is_barrier {
            return Some(self);
        }
        let result = QueryResult::NoModule;
        // A caller that went away does not want the answer any more.
        let _ =
            self.reply.send(Ok(QueryReply { result, fuel_used: 0, trap_message: None, applied }));
        None
    }
}

/// Who leads, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// What this node is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader, when known; with its address, when that is known too.
    pub leader: Option<Member>,
}

/// What the machine looked like after the last batch of entries.
#[derive(Clone, Debug)]
pub struct MachineView {
    /// The machine's facts.
    pub info: MachineInfo,
    /// The members, by id.
    pub members: Arc<BTreeMap<NodeId, Member>>,
    /// Of the members that asked to be taken in themselves, the nonce that they did it with.
    pub joins: Arc<BTreeMap<NodeId, JoinNonce>>,
    /// The configuration at `info.applied`.
    pub conf_state: Arc<ConfState>,
    /// The id that the next new member gets.
    pub next_node_id: NodeId,
    /// The bytes of the modules that the machine holds.
    pub modules: Arc<BTreeMap<ModuleHash, Bytes>>,
}

/// Something that must be so for clients to send requests to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, for probes.
    pub name: &'static str,
    /// Why it is not so, for people.
    pub failure: Option<&'static str>,
}

/// The whole state as of one index, detached from the machine.
pub struct MachineCopy {
    /// The last entry that it contains.
    pub position: LogPosition,
    /// The state.
    pub state: MachineSnapshot,
    /// The state's digest.
    pub digest: StateDigest,
}

/// Fixed cost of a request in the byte budget, for its bookkeeping.
pub(super) const REQUEST_OVERHEAD_BYTES: u64 = 256;

/// What to say of an answer that belongs to something else than what was asked. No machine gives one, whatever
/// happened in between: a build with assertions stops here.
pub fn unexpected(reply: &Reply) -> String {
    debug_assert!(false, "an answer that does not belong to what was asked: {reply:?}");
    format!("unexpected answer of the machine: {reply:?}")
}

pub(super) fn stopped_unknown() -> ProposeFailure {
    ProposeFailure::Unknown("this node stopped".into())
}
