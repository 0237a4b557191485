//! What the simulator sees of a cluster: the facts that the invariants judge.
//!
//! Facts are named after what they say, not after who finds them out; an invariant sees all of
//! them in the order in which they happened.

use bytes::Bytes;
use raft_host::consensus::Role;
use raft_host::machine::{Reply, SecretHash};
use raft_host::node::RewindTrial;
use raft_host::recovery::Plan;
use raft_host::rehearsal::Report;
use raft_host::transport::grpc::Refused;
use raft_host::types::{
    Actor, ClusterId, ConfState, Index, JoinNonce, Level, LogEntry, LogPosition, ModuleHash,
    NodeId, Position, StateDigest, Term,
};

use super::shadow::{Comparison, WouldBe};
use crate::history::Operation;

/// Virtual time in microseconds since the start of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

/// A host of the simulated cluster: a disk, a clock, and perhaps a node. Its node has one id
/// for as long as the host lives; a node that is replaced gets another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A node began to run, on what its disk holds.
    Started {
        /// Where.
        slot: Slot,
        /// Its id.
        node: NodeId,
        /// Its term and vote as the stores gave them back, before it did anything: what it must
        /// never contradict.
        term: Term,
        /// Whom it voted for in that term.
        vote: Option<NodeId>,
        /// Where its log ends.
        last: LogPosition,
        /// What its machine was restored to; 0 when it has none yet.
        applied: Index,
        /// The restored machine's active module.
        module: Option<ModuleHash>,
        /// Where that was activated, as the machine says.
        activated: Option<Index>,
    },
    /// The cluster is about to be formed.
    Formed {
        /// Its id.
        cluster: ClusterId,
    },
    /// A node starts, as a program that offers this level.
    Program {
        /// Its id.
        node: NodeId,
        /// The program's.
        level: Level,
    },
    /// A guest was brought back whose module had been replaced.
    Rewound {
        /// Where.
        slot: Slot,
        /// At which entry.
        index: Index,
        /// It, and the one that was never replaced.
        found: Comparison,
    },
    /// An entry was executed by a guest whose module was never replaced, beside a node's.
    WouldBe {
        /// Where.
        slot: Slot,
        /// What that came to.
        would_be: &'a WouldBe,
    },
    /// A node has tried what undoing the last upgrade would change.
    RewindTried {
        /// Where.
        slot: Slot,
        /// What it found.
        trial: &'a RewindTrial,
        /// When it cannot be undone any more, by the log's clock in milliseconds.
        expires_ms: u64,
    },
    /// A node says that the last upgrade cannot be undone.
    NoWayBack {
        /// Where.
        slot: Slot,
        /// As of this entry.
        until: Index,
        /// Its words.
        why: &'a str,
    },
    /// A node has rehearsed a module.
    Rehearsed {
        /// Where.
        slot: Slot,
        /// Its id.
        node: NodeId,
        /// The module was to take over after this entry, and to execute those up to that one.
        range: (Index, Index),
        /// How many queries it was to ask.
        queries: usize,
        /// What it found.
        report: &'a Report,
    },
    /// A module that ran in the shadow of a node's machine has ended.
    Shadowed {
        /// Where.
        slot: Slot,
        /// What it found.
        found: &'a Report,
    },
    /// A node was killed, or its host lost power.
    Crashed {
        /// Where.
        slot: Slot,
    },
    /// A node stopped by itself.
    Stopped {
        /// Where.
        slot: Slot,
        /// Its words.
        reason: &'a str,
        /// The simulator did something to its disk, or removed it, that explains it.
        is_excused: bool,
    },
    /// A node says that messages of another make no sense.
    Accused {
        /// Who says so.
        slot: Slot,
        /// Of whom.
        peer: NodeId,
        /// Its words.
        why: &'a str,
        /// The simulator did something to a disk of the two that explains it.
        is_excused: bool,
    },
    /// A newcomer asks to be taken in and shows a join token.
    TokenShown {
        /// Of the token's secret.
        hash: SecretHash,
        /// The newcomer's.
        nonce: JoinNonce,
    },
    /// A newcomer was told that it was taken in with a join token.
    TokenTold {
        /// Of the token's secret.
        hash: SecretHash,
        /// As which node.
        node: NodeId,
    },
    /// The door of a node has let somebody's message in, or has not.
    AtTheDoor {
        /// Where.
        slot: Slot,
        /// Who lives there.
        node: NodeId,
        /// Who sends.
        from: NodeId,
        /// Whom it is meant for.
        wanted: NodeId,
        /// Why it does not come in.
        refused: Option<&'a Refused>,
        /// The simulator did something to a disk of the two that explains it.
        is_excused: bool,
    },
    /// A node's role or term is another one than before.
    Role {
        /// Where.
        slot: Slot,
        /// Its id.
        node: NodeId,
        /// Now.
        role: Role,
        /// Now.
        term: Term,
        /// Where its log ends.
        last: LogPosition,
        /// Term of an entry of its log, while it is there.
        log: &'a dyn LogView,
    },
    /// A batch became durable in a node's log.
    Persisted {
        /// Where.
        slot: Slot,
        /// Its id.
        node: NodeId,
        /// The new entries; what was stored from the first of them on is replaced.
        entries: &'a [LogEntry],
        /// The position before the first of `entries`, as the node's log has it.
        previous: Option<LogPosition>,
        /// The log before `to` was dropped and starts after it: a snapshot covers it.
        reset_to: Option<LogPosition>,
        /// Term and vote from now on, when they are part of the batch.
        hard_state: Option<(Term, Option<NodeId>)>,
    },
    /// The disk failed while it wrote a batch, and the node must stop: the batch may be there
    /// or not when it starts again. The fields are those of `Persisted`.
    WriteFailed {
        /// Where.
        slot: Slot,
        /// The new entries.
        entries: &'a [LogEntry],
        /// The log was to be dropped, to start after this.
        reset_to: Option<LogPosition>,
        /// Term and vote, when they are part of the batch.
        hard_state: Option<(Term, Option<NodeId>)>,
    },
    /// A node sent its vote: a response to `RequestVote` that does not refuse left it (pre-votes
    /// do not count). It need not arrive.
    Voted {
        /// Where.
        slot: Slot,
        /// The message's term.
        term: Term,
        /// Whom the message goes to.
        candidate: NodeId,
    },
    /// A node applied a normal entry.
    Applied(&'a AppliedEntry),
    /// Somebody asks for a member to be dialled at an address that nobody had before.
    MoveAsked {
        /// The address.
        address: &'a str,
        /// Who asks.
        actor: Actor,
    },
    /// A node applied a membership change.
    Membership {
        /// Where.
        slot: Slot,
        /// Of the entry.
        position: LogPosition,
        /// What results.
        conf_state: &'a ConfState,
    },
    /// A node replaced its machine by that of a snapshot.
    Installed {
        /// Where.
        slot: Slot,
        /// What the snapshot covers.
        position: LogPosition,
        /// Digest of the installed machine.
        digest: Digest,
        /// Its active module.
        module: Option<ModuleHash>,
        /// Where that was activated, as the machine says.
        activated: Option<Index>,
    },
    /// Somebody has made a plan for the case that all other nodes are gone.
    Planned {
        /// The plan.
        plan: &'a Plan,
        /// Digest of the state that the new cluster would begin with.
        digest: Digest,
    },
    /// A data directory was opened.
    Directory {
        /// Where it is.
        place: &'a str,
        /// Whose it may be; `None`: nobody's.
        may_be: &'a [Option<Citizen>],
        /// Whose it is, or why it was refused.
        found: Result<Option<Citizen>, &'a str>,
        /// The simulator did something to its disk that explains a refusal.
        is_excused: bool,
    },
    /// A cluster was made of a backup, or of what was exported, to run beside this one.
    Restored(&'a Restored),
    /// A cluster was made of what a survivor's disk holds, as in a recovery, to run beside this one.
    Founded(&'a Restored),
    /// A node beside this cluster let somebody speak to it.
    LetIn {
        /// It.
        by: Citizen,
        /// Whom.
        from: Citizen,
    },
    /// A node beside this cluster let somebody not speak to it.
    TurnedAway {
        /// It.
        by: Citizen,
        /// Whom.
        from: Citizen,
        /// It has a state.
        knows: bool,
        /// It said that the other was left behind.
        is_told: bool,
    },
    /// A node beside this cluster applied an entry.
    Executed {
        /// It.
        of: Citizen,
        /// Of the entry.
        position: LogPosition,
        /// What it made of it, unless that was a membership change.
        entry: Option<&'a AppliedEntry>,
    },
    /// A node beside this cluster replaced its machine by that of a snapshot.
    TookOver {
        /// It.
        of: Citizen,
        /// What the snapshot covers.
        position: LogPosition,
        /// Digest of the installed machine.
        digest: Digest,
    },
    /// A client of a cluster beside this one was told that its command was committed.
    ToldBeside {
        /// The cluster.
        of: ClusterId,
        /// Where it was committed, as the client was told.
        index: Index,
        /// As the client was told.
        term: Term,
    },
    /// A client was told that its command was committed.
    Acknowledged {
        /// Session and sequence number, when it had any.
        session: Option<(u64, u64)>,
        /// Where it was committed, as the client was told.
        position: LogPosition,
        /// Which of the entry's commands it is, as the client was told.
        ordinal: u32,
        /// The entry's command.
        command: &'a Bytes,
        /// What the client was told.
        reply: &'a Reply,
    },
    /// A client's query was answered.
    Queried {
        /// Where.
        slot: Slot,
        /// The key it asked for.
        key: &'a str,
        /// What it was told.
        value: Option<i64>,
        /// The index that the answer is as of.
        applied: Index,
        /// Whether it was to see all that was acknowledged before it was asked.
        is_linearizable: bool,
        /// Highest index acknowledged to any client when it was asked.
        asked_after: Index,
    },
    /// A node that reported itself healthy was asked something.
    Probed {
        /// Where.
        slot: Slot,
        /// When it was asked.
        asked: Micros,
        /// Whether it answered within the bound.
        is_answered: bool,
        /// It reported itself healthy all the time, was not paused or slowed, and (for
        /// linearizable probes) was connected to a majority of voters all the time.
        was_healthy: bool,
    },
    /// A bit flipped in a node's state, or the state came from one in which a bit had; or that is
    /// over.
    Tainted {
        /// Where.
        slot: Slot,
        /// Now.
        is_tainted: bool,
    },
    /// A node has digested its state at a point, for its report.
    Digested {
        /// Where.
        slot: Slot,
        /// The point.
        point: Index,
        /// What it found.
        digest: StateDigest,
    },
    /// What the clocks of the voters allow the log's clock to be now.
    Clocks {
        /// More than half of the voters' clocks show this or more, in milliseconds since the Unix
        /// epoch.
        latest_ms: u64,
    },
    /// Whether a node trusts its state, after a step in which that, or a verdict, was news.
    Trust {
        /// Where.
        slot: Slot,
        /// Index of the verdict by which it does not, and of the digest point.
        quarantine: Option<(Index, Index)>,
    },
    /// Whether a node knows of replicas that disagree without a majority, and waits for one.
    Doubt {
        /// Where.
        slot: Slot,
        /// Index of the verdict by which it does.
        since: Option<Index>,
    },
    /// A node answered a query or a proposal from its state.
    Answered {
        /// Where.
        slot: Slot,
        /// What, for people.
        what: &'static str,
    },
    /// A node wrote a snapshot of its own state.
    SnapshotSaved {
        /// Where.
        slot: Slot,
        /// What it covers.
        index: Index,
    },
    /// A node sent a snapshot to another.
    SnapshotSent {
        /// Where.
        slot: Slot,
        /// What it covers.
        index: Index,
    },
    /// All nodes at a moment; comes every second or so of virtual time.
    Survey(&'a Survey),
    /// The run is over.
    End(&'a End<'a>),
}

/// A node of one incarnation or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Citizen {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id there.
    pub node: NodeId,
}

impl std::fmt::Display for Citizen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster)
    }
}

/// What a cluster that was made of a backup, an export or a survivor's disk begins with.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The cluster that it was made of.
    pub of: ClusterId,
    /// The last entry of that one that it contains.
    pub position: LogPosition,
    /// Digest of the state before it was another cluster's; `None`: the guest's portable state is all of it.
    pub digest: Option<Digest>,
    /// The value of every key.
    pub values: Vec<(String, Option<i64>)>,
    /// The new cluster.
    pub cluster: ClusterId,
    /// What its log begins after.
    pub begins: LogPosition,
    /// How many members it has.
    pub members: usize,
    /// How many sessions.
    pub sessions: u64,
    /// Rights are in force there.
    pub has_rights: bool,
    /// What it says that it was made of.
    pub origin: Option<(ClusterId, LogPosition)>,
}

/// Looks into a node's log.
pub trait LogView: std::fmt::Debug {
    /// The term of the entry at `index`; `None` when it is compacted or not there.
    fn term(&self, index: Index) -> Option<Term>;
    /// The position that the log starts after (what a snapshot covers).
    fn start(&self) -> LogPosition;
}

/// Digest of a machine: sessions, modules, members and the guest's memory.
pub type Digest = [u8; 16];

/// An entry and what one node's machine made of it.
#[derive(Clone, Debug)]
pub struct AppliedEntry {
    /// Where.
    pub slot: Slot,
    /// Of the entry.
    pub position: LogPosition,
    /// The encoded entry.
    pub data: Bytes,
    /// How many commands it holds.
    pub commands: usize,
    /// How many commands had waited for it in ordered sessions.
    pub released: usize,
    /// Its first command, if it has one: its session and sequence number, and its bytes.
    pub command: Option<(Option<(u64, u64)>, Bytes)>,
    /// The machine's answer to that, or to what else the entry holds.
    pub reply: Reply,
    /// What the guest used for it.
    pub fuel_used: u64,
    /// Of topics and data of all events that it emitted, in order.
    pub events: u32,
    /// What came of the commands behind the first, in order, and of those that had waited.
    pub behind: Vec<Answered>,
    /// The log's clock after the entry, in milliseconds.
    pub time_ms: u64,
    /// The active module after the entry.
    pub module: Option<ModuleHash>,
    /// Of the machine after the entry, for one entry in so many (the same for all nodes), and for
    /// all digest points.
    pub digest: Option<Digest>,
}

impl AppliedEntry {
    /// What came of each command of the entry, or of what else it holds, by position.
    pub fn answers(&self) -> impl Iterator<Item = (Position, Answered)> + '_ {
        let first = Answered {
            command: self.command.clone(),
            reply: self.reply.clone(),
            fuel_used: self.fuel_used,
            events: self.events,
        };
        let index = self.position.index;
        let all = std::iter::once(first).chain(self.behind.iter().cloned());
        (0..).zip(all).map(move |(ordinal, answered)| (Position { index, ordinal }, answered))
    }
}

/// A command and what one node's machine made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// As in [`AppliedEntry`].
    pub command: Option<(Option<(u64, u64)>, Bytes)>,
    /// The machine's answer.
    pub reply: Reply,
    /// What the guest used.
    pub fuel_used: u64,
    /// Of topics and data of all events emitted, in order.
    pub events: u32,
}

/// What the simulator does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Things go wrong.
    Faults,
    /// Everything has been mended; clients go on.
    Calm,
}

/// All nodes at a moment.
#[derive(Clone, Debug)]
pub struct Survey {
    /// When.
    pub at: Micros,
    /// What the simulator does.
    pub phase: Phase,
    /// When this phase began.
    pub since: Micros,
    /// By slot.
    pub nodes: Vec<NodeSurvey>,
    /// Bounds of the run, for the invariants on growth.
    pub bounds: Bounds,
}

/// How large things may become in a run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries after the last snapshot before the next is due, plus the trailing ones.
    pub log_entries: u64,
    /// The next snapshot also waits for entries of so many percent of the last one's bytes.
    pub growth_percent: u64,
    /// Entries kept behind a snapshot.
    pub trailing_logs: u64,
    /// Snapshots kept.
    pub snapshots: usize,
    /// Bytes of a log file.
    pub log_file_bytes: u64,
    /// Most bytes of entries that a leader leaves uncommitted.
    pub uncommitted_bytes: u64,
    /// Most bytes of entries that wait in memory to be applied.
    pub unapplied_bytes: u64,
    /// Time for electing a leader when nothing is wrong.
    pub election: Micros,
}

/// One node at a moment.
#[derive(Clone, Debug)]
pub struct NodeSurvey {
    /// Where.
    pub slot: Slot,
    /// Its id.
    pub node: NodeId,
    /// It runs.
    pub is_up: bool,
    /// It runs, but its process is stopped for a while.
    pub is_paused: bool,
    /// The leader's configuration (or the newest that anybody applied) has it.
    pub is_member: bool,
    /// What health checks report; false when it is not up.
    pub is_healthy: bool,
    /// Its role.
    pub role: Option<Role>,
    /// Its term.
    pub term: Term,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// First index of its log.
    pub first_index: Index,
    /// Last index of its log.
    pub last_index: Index,
    /// Highest index that it knows to be committed.
    pub commit: Index,
    /// Highest index that its machine has applied.
    pub applied: Index,
    /// Index of its newest snapshot.
    pub snapshot: Index,
    /// Bytes of entries that wait in its memory to be applied.
    pub unapplied_bytes: u64,
    /// Snapshots on its disk.
    pub snapshots: usize,
    /// Bytes of its log files.
    pub log_bytes: u64,
    /// Bytes of its newest snapshot.
    pub snapshot_bytes: u64,
    /// Bytes on its disk.
    pub disk_bytes: u64,
    /// Sessions that its machine holds.
    pub sessions: u64,
    /// It does not trust its state.
    pub is_quarantined: bool,
    /// Its disk has not answered for so long that it must have left leading to others.
    pub must_not_lead: bool,
    /// Its disk has not answered for so long, with nothing else wrong, that somebody else must lead
    /// and serve.
    pub must_yield: bool,
    /// It stopped by itself; why.
    pub stopped: Option<String>,
}

/// The end of a run, after faults have stopped and the calm time is over.
#[derive(Debug)]
pub struct End<'a> {
    /// The last survey.
    pub survey: &'a Survey,
    /// What clients asked and were told.
    pub history: &'a [Operation],
    /// When everything had been mended.
    pub mended: Micros,
    /// When after that all members were up, healthy, and had applied the same index, and every
    /// client had a command answered; `None`: not until the end.
    pub converged: Option<Micros>,
    /// What kept it from converging, in words, if it did not.
    pub missing: &'a str,
    /// The bound for that.
    pub bound: Micros,
    /// Digest of every member's machine at the end, at the same index if it converged.
    pub digests: &'a [(Slot, Index, Digest)],
    /// At some time there were bits flipped, or states made of such, on half of the voters or
    /// more: nobody can tell any more which state is right.
    pub is_overwhelmed: bool,
    /// The final value of every key on every member.
    pub values: &'a [(Slot, String, Option<i64>)],
}
