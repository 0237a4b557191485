//! The museum of deliberate bugs: what the simulator must be able to find.
//!
//! Each exhibit is one plausible mistake, switched on for the calling thread only (the
//! simulator runs all code of its nodes on one thread) and built only with the cargo feature
//! `museum`. Without the feature [`is_on`] is `false` at compile time and every hook is gone.
//!
//! A hook reads `if museum::is_on(Exhibit::X)` and stands where somebody could really have made
//! that mistake. Whoever changes the code around it keeps the mistake possible, or takes the
//! exhibit out of the museum together with its regression seed.

#[cfg(feature = "museum")]
mod switch;

#[cfg(feature = "museum")]
pub use switch::{Guard, exhibit, host_time_ms, is_on, set_host_time_ms};

/// Whether the mistake is to be made. Never, without the feature.
#[cfg(not(feature = "museum"))]
#[inline]
pub const fn is_on(_: Exhibit) -> bool {
    false
}

/// The time that [`Exhibit::HostTimeInApply`] uses. Nobody asks without the feature.
#[cfg(not(feature = "museum"))]
#[inline]
pub const fn host_time_ms() -> u64 {
    0
}

/// What an exhibit violates, in the words of the simulator's invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one leader per term.
    OneLeaderPerTerm,
    /// Two logs with an entry of the same index and term agree up to it.
    LogMatching,
    /// What is committed is in the log of every later leader.
    LeaderCompleteness,
    /// Machines that have applied the same index have the same digest.
    StateMachineSafety,
    /// Nothing acknowledged is ever lost.
    NothingLost,
    /// Each command of a session executes once.
    ExactlyOnce,
    /// Reads and writes of each key are linearizable.
    Linearizable,
    /// A module activates at one index everywhere.
    OneActivation,
    /// A node that reports healthy serves.
    HealthyServes,
    /// Nothing grows without bound.
    BoundedGrowth,
    /// Every entry is applied by a program that offers the engine profile in force at its index.
    EngineHonoured,
    /// A level is raised only to what the program of every member offered a moment before.
    LevelOffered,
    /// After faults stop, every node makes progress within a bound.
    Progress,
    /// A node whose state differs from the majority's at a digest point is quarantined from the
    /// verdict until it has a fresh state; a node whose state does not differ never is.
    DigestsAgree,
    /// A quarantined node answers no query or command, and neither takes nor sends a snapshot.
    QuarantineKeepsQuiet,
    /// After faults stop, every quarantine ends within a bound, with a state that agrees.
    QuarantineHeals,
    /// A leader whose disk does not answer leads no longer than that is borne, and another serves.
    HungDiskYields,
    /// The log's clock never shows more than what the clocks of a majority of the voters showed,
    /// and the time since.
    ClockWithinMajority,
    /// No node sends what makes no sense to its receiver.
    NobodyAccused,
    /// The commands of an ordered session execute in the order of their numbers.
    OrderedSessions,
    /// Whatever a plan for a recovery promises to keep is kept.
    RecoveryKeeps,
    /// What is active was signed, when it was activated, by as many keys that the cluster trusted then
    /// as it asked for.
    ModulesSigned,
    /// Nothing is executed of somebody who may not do it as of the entry's index.
    RightsAtIndex,
    /// What is activated is what its receipt names, and a cluster that goes back is one that never upgraded.
    UpgradesAsPromised,
    /// A restored cluster begins with what the old one had at the backup's index, and shares no name with it.
    RestoreKeeps,
    /// No node lets a message of another incarnation reach its replica.
    IncarnationsApart,
    /// A data directory is what it was before a step or after it, whenever the power goes.
    DirectoryWhole,
    /// All who rehearse the same find the same, and it is what happened and would have.
    ReceiptsEqual,
    /// Nodes let members in, and turn those away who were removed.
    MembersOnly,
    /// A join token lets one node in.
    TokensOnce,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Invariant; 30] = [
        Invariant::OneLeaderPerTerm,
        Invariant::LogMatching,
        Invariant::LeaderCompleteness,
        Invariant::StateMachineSafety,
        Invariant::NothingLost,
        Invariant::ExactlyOnce,
        Invariant::Linearizable,
        Invariant::OneActivation,
        Invariant::HealthyServes,
        Invariant::BoundedGrowth,
        Invariant::EngineHonoured,
        Invariant::LevelOffered,
        Invariant::Progress,
        Invariant::DigestsAgree,
        Invariant::QuarantineKeepsQuiet,
        Invariant::QuarantineHeals,
        Invariant::HungDiskYields,
        Invariant::ClockWithinMajority,
        Invariant::NobodyAccused,
        Invariant::OrderedSessions,
        Invariant::RecoveryKeeps,
        Invariant::ModulesSigned,
        Invariant::RightsAtIndex,
        Invariant::UpgradesAsPromised,
        Invariant::RestoreKeeps,
        Invariant::IncarnationsApart,
        Invariant::DirectoryWhole,
        Invariant::ReceiptsEqual,
        Invariant::MembersOnly,
        Invariant::TokensOnce,
    ];

    /// In kebab-case.
    pub fn name(self) -> &'static str {
        match self {
            Invariant::OneLeaderPerTerm => "one-leader-per-term",
            Invariant::LogMatching => "log-matching",
            Invariant::LeaderCompleteness => "leader-completeness",
            Invariant::StateMachineSafety => "state-machine-safety",
            Invariant::NothingLost => "nothing-lost",
            Invariant::ExactlyOnce => "exactly-once",
            Invariant::Linearizable => "linearizable",
            Invariant::OneActivation => "one-activation",
            Invariant::HealthyServes => "healthy-serves",
            Invariant::BoundedGrowth => "bounded-growth",
            Invariant::EngineHonoured => "engine-honoured",
            Invariant::LevelOffered => "level-offered",
            Invariant::Progress => "progress",
            Invariant::DigestsAgree => "digests-agree",
            Invariant::QuarantineKeepsQuiet => "quarantine-keeps-quiet",
            Invariant::QuarantineHeals => "quarantine-heals",
            Invariant::HungDiskYields => "hung-disk-yields",
            Invariant::ClockWithinMajority => "clock-within-majority",
            Invariant::NobodyAccused => "nobody-accused",
            Invariant::OrderedSessions => "ordered-sessions",
            Invariant::RecoveryKeeps => "recovery-keeps",
            Invariant::ModulesSigned => "modules-signed",
            Invariant::RightsAtIndex => "rights-at-index",
            Invariant::UpgradesAsPromised => "upgrades-as-promised",
            Invariant::RestoreKeeps => "restore-keeps",
            Invariant::IncarnationsApart => "incarnations-apart",
            Invariant::DirectoryWhole => "directory-whole",
            Invariant::MembersOnly => "members-only",
            Invariant::TokensOnce => "tokens-once",
            Invariant::ReceiptsEqual => "receipts-equal",
        }
    }
}

/// What a simulation must contain for an exhibit to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nodes restart with what their disk holds.
    Restarts,
    /// A crash takes writes with it that no fsync has covered.
    PowerLoss,
    /// An fsync of the log fails, and the node goes down later.
    FailedFsync,
    /// A leader's disk does not answer for many election timeouts.
    HungDisks,
    /// The network splits, or delays messages beyond an election.
    Partitions,
    /// Nodes' clocks differ.
    ClockSkew,
    /// Members come, change their vote or go.
    MembershipChanges,
    /// Followers lag so far that they are sent snapshots.
    InstalledSnapshots,
    /// The sending of snapshots fails.
    LostSnapshots,
    /// Single messages are lost.
    LostMessages,
    /// Messages and queues are bounded in bytes so tightly that a run reaches the bounds.
    SmallMessages,
    /// Machines lag far behind what is committed.
    SlowApply,
    /// Clients send a session's command again.
    Retries,
    /// An entry holds several commands.
    Batches,
    /// Linearizable reads are asked of followers.
    FollowerReads,
    /// Modules are replaced.
    Upgrades,
    /// The engine profile changes, and nodes restart with programs that offer the new one.
    EngineChanges,
    /// Nodes restart with programs that offer different levels.
    Levels,
    /// Modules are uploaded in several chunks, with snapshots taken between them.
    ChunkedUploads,
    /// The cluster's limits differ from the defaults, and commands reach them.
    TightLimits,
    /// The state machine is a wasm module.
    Wasm,
    /// Commands trap.
    Traps,
    /// The run is long enough for many snapshots.
    ManySnapshots,
    /// Digest points, and bits that flip in a node's state.
    BitFlips,
    /// Keys of publishers are trusted and revoked, and modules signed with them.
    Keys,
    /// Clients act as principals, whose rights change.
    Rights,
    /// Clusters are made of backups and of what is left of others, whose nodes come back.
    Incarnations,
}

/// One row per exhibit: variant, name, invariants (the most telling one first), needs, story.
macro_rules! exhibits {
    ($(
        $variant:ident $name:literal trips [$($trips:ident),+] needs [$($needs:ident),*]
        $story:literal
    )+) => {
        /// A mistake that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Exhibit {
            $(#[doc = $story] $variant,)+
        }

        impl Exhibit {
            /// All of them.
            pub const ALL: &[Exhibit] = &[$(Exhibit::$variant),+];

            /// In kebab-case.
            pub fn name(self) -> &'static str {
                match self { $(Exhibit::$variant => $name,)+ }
            }

            /// What is broken, and where the like was seen.
            pub fn story(self) -> &'static str {
                match self { $(Exhibit::$variant => $story,)+ }
            }

            /// The invariants that it violates, the most telling one first. Another one of
            /// these, or a node that stops itself, may be what shows first.
            pub fn trips(self) -> &'static [Invariant] {
                match self { $(Exhibit::$variant => &[$(Invariant::$trips),+],)+ }
            }

            /// What a simulation must contain for it to show.
            pub fn needs(self) -> &'static [Need] {
                match self { $(Exhibit::$variant => &[$(Need::$needs),*],)+ }
            }
        }
    };
}

exhibits! {
    AcknowledgedBeforeFsync "acknowledged-before-fsync"
    trips [NothingLost, LeaderCompleteness, OneLeaderPerTerm] needs [PowerLoss]
    "A follower's answers leave before the write that they promise is durable. (Jepsen: NATS \
     2.12.1 lost acknowledged messages that way.)"

    VoteForgottenAtRestart "vote-forgotten-at-restart"
    trips [OneLeaderPerTerm] needs [Restarts, Partitions]
    "A node that restarts keeps its term but not the vote it cast in it, and votes again. \
     (RethinkDB issue 5289: a member came back under its old id with its Raft state wiped.)"

    HardStateOnlyWithEntries "hard-state-only-with-entries"
    trips [OneLeaderPerTerm] needs [Restarts, Partitions]
    "Term and vote are written only together with entries, so a vote without entries is promised \
     before it is durable."

    ConfChangeWhenAppended "conf-change-when-appended"
    trips [StateMachineSafety, OneLeaderPerTerm, Progress] needs [MembershipChanges, Partitions]
    "A membership change counts from the moment it is appended and is not taken back when the \
     entry is replaced. (Ongaro's 2015 note on single-server changes tells a relative's story.)"

    UnconfirmedRead "unconfirmed-read"
    trips [Linearizable] needs [Partitions]
    "A leader answers reads without asking a quorum whether it still is one. (Jepsen: etcd and \
     Consul, 2014, both read stale values so; Jepsen: Redis-Raft 1b3fbf6 did as well.)"

    UncheckedPreviousTerm "unchecked-previous-term"
    trips [LogMatching, StateMachineSafety] needs [Partitions]
    "A follower appends entries without comparing the term of the entry before them, so a \
     replaced leader's uncommitted entry stays below the next leader's."

    TailForgottenAtRestart "tail-forgotten-at-restart"
    trips [LeaderCompleteness, NothingLost] needs [Restarts]
    "A node that restarts drops what its log holds beyond the commit index it had recorded, as \
     if that could not be committed."

    LogNeverCompacted "log-never-compacted"
    trips [BoundedGrowth] needs [ManySnapshots]
    "Snapshots are taken, but the log before them is kept for ever."

    LostSnapshotUnreported "lost-snapshot-unreported"
    trips [Progress] needs [LostSnapshots]
    "Nobody tells the leader that a snapshot did not arrive, so it waits for an acknowledgement \
     for ever and sends that follower nothing more. (The documentation of etcd's raft warns of \
     this limbo at ReportSnapshot.)"

    DamagedSnapshotOffered "damaged-snapshot-offered"
    trips [Progress] needs [InstalledSnapshots]
    "A leader whose newest snapshot cannot be read tries to send it again and again, so whoever \
     needs it never catches up. (Found by a seed that rots a sector of it.)"

    LogNotSynced "log-not-synced"
    trips [NothingLost, LeaderCompleteness, OneLeaderPerTerm] needs [PowerLoss]
    "The log is written without fsync and called durable. (Jepsen: NATS 2.12.1: by default it \
     called fsync every two minutes.)"

    FailedSyncIgnored "failed-sync-ignored"
    trips [NothingLost, LeaderCompleteness, Progress] needs [FailedFsync]
    "A failed fsync of the log is taken for success, and the next one is believed. (PostgreSQL's \
     fsyncgate, 2018, was a failed fsync tried again.)"

    SnapshotNotSynced "snapshot-not-synced"
    trips [Progress] needs [PowerLoss]
    "A snapshot is renamed into place before its content is durable, and the log is compacted \
     behind it; after a power loss the node refuses the broken file and cannot start."

    SnapshotsNeverDropped "snapshots-never-dropped"
    trips [BoundedGrowth] needs [ManySnapshots]
    "Superseded snapshots stay on disk."

    SessionsNotRestored "sessions-not-restored"
    trips [StateMachineSafety] needs [Restarts, InstalledSnapshots]
    "A machine restored from a snapshot has no sessions: it refuses commands that its peers run."

    ResponsesNotRestored "responses-not-restored"
    trips [ExactlyOnce, StateMachineSafety] needs [Restarts, InstalledSnapshots, Retries]
    "A machine restored from a snapshot knows its sessions but not what they have done: a retry \
     runs again there."

    OutcomeNotRemembered "outcome-not-remembered"
    trips [ExactlyOnce, Linearizable] needs [Retries]
    "A session does not remember its commands' outcomes, so every retry runs again."

    ResponsesForgotten "responses-forgotten"
    trips [ExactlyOnce, NothingLost] needs [Retries]
    "A session that keeps as many answers as it may forgets the lowest one, as if its client had \
     acknowledged it: a command below that never ran is refused for ever as too old. (Ours, until a \
     file of commands with long answers lost some of them over two transfers of leadership.)"

    BatchRetriedTwice "batch-retried-twice"
    trips [ExactlyOnce, Linearizable] needs [Batches, Retries]
    "The sessions of a batch's commands are looked at before the first of them is executed, so a \
     command that the batch holds twice is executed twice."

    OrderedGapSkipped "ordered-gap-skipped"
    trips [OrderedSessions] needs [Batches, Retries]
    "The end of an entry lets the first command run that waits in an ordered session, without looking \
     whether it is the next one: what is missing in between is overtaken."

    BatchHalfUndone "batch-half-undone"
    trips [Linearizable, StateMachineSafety] needs [Batches, Wasm, Traps]
    "A trap takes back what the commands before it in the same entry have done since the last \
     checkpoint, although they were answered: whole entries are repeated, and not commands."

    HostTimeInApply "host-time-in-apply"
    trips [StateMachineSafety] needs [ClockSkew]
    "Applying an entry reads the node's own clock instead of the time in the entry."

    ChunksNotRestored "chunks-not-restored"
    trips [OneActivation, StateMachineSafety] needs [InstalledSnapshots, ChunkedUploads, Upgrades]
    "A machine restored from a snapshot has lost the chunks of unfinished uploads: it refuses the \
     rest of the module, and later its activation."

    ActivationRedated "activation-redated"
    trips [OneActivation] needs [Restarts, InstalledSnapshots, Upgrades]
    "A machine restored from a snapshot believes that its module was activated at the snapshot's \
     index."

    LimitsNotRestored "limits-not-restored"
    trips [StateMachineSafety] needs [Restarts, InstalledSnapshots, TightLimits]
    "A machine restored from a snapshot has the default limits instead of its cluster's, and \
     runs what its peers refuse."

    EngineIgnored "engine-ignored"
    trips [EngineHonoured] needs [EngineChanges]
    "A node whose program does not offer the cluster's new engine profile goes on applying with \
     what it has. (Any chain whose nodes upgrade at their leisure: Ethereum clients that missed a \
     hard fork went on by the old rules.)"

    EngineNotRestored "engine-not-restored"
    trips [EngineHonoured, StateMachineSafety] needs [EngineChanges, Restarts]
    "A machine restored from a snapshot believes that its cluster's engine profile is the one that \
     its own program offers."

    EngineChangedLate "engine-changed-late"
    trips [EngineHonoured, StateMachineSafety] needs [EngineChanges]
    "A node that must stop for a new engine profile first applies the rest of the batch that the \
     change came in, so that it counts from another index there."

    LevelRaisedEarly "level-raised-early"
    trips [LevelOffered] needs [Levels]
    "A leader raises the level when its own program offers a higher one, and does not wait until all \
     members do. The others stop, or read what they do not know."

    UnknownFieldIgnored "unknown-field-ignored"
    trips [StateMachineSafety] needs [Levels, Restarts]
    "A node whose program does not offer the cluster's level goes on, and passes over the fields that \
     it does not know, as a decoder of protobuf messages does by itself."

    TrapKeptAfterCheckpoint "trap-kept-after-checkpoint"
    trips [StateMachineSafety, Linearizable] needs [Wasm, Traps]
    "A trap is not undone when no command succeeded between the last checkpoint and it: there \
     seems to be nothing to repeat. Nodes take their checkpoints at different indexes."

    ImageStartSkipped "image-start-skipped"
    trips [StateMachineSafety, NothingLost] needs [Wasm, Restarts, InstalledSnapshots]
    "Loading an image of a module's memory fills what the memory has grown by and forgets what \
     has changed in the pages that the module began with."

    GrownMemoryKept "grown-memory-kept"
    trips [StateMachineSafety] needs [Wasm, Traps]
    "A command that grows memory, writes there and traps is undone up to where memory ended \
     before; memory that grows again shows what it wrote."

    CountedPagesForgotten "counted-pages-forgotten"
    trips [StateMachineSafety, Linearizable] needs [Wasm, Traps]
    "Counting the pages that a command writes takes them off the kernel's list of written pages, \
     and a later undo puts back only what is on the list."

    DigestOfLastCheckpoint "digest-of-last-checkpoint"
    trips [StateMachineSafety] needs [Wasm]
    "A digest looks at the blocks that the last checkpoint changed, as if it were taken at every \
     checkpoint. Nodes take their checkpoints at different indexes."

    ImageBlocksShared "image-blocks-shared"
    trips [StateMachineSafety, NothingLost] needs [Wasm, Restarts, InstalledSnapshots]
    "A checkpoint that is taken while a snapshot is being written changes the blocks that the \
     snapshot still has to write."

    FuelOfHost "fuel-of-host"
    trips [StateMachineSafety] needs []
    "The fuel of a command depends on the host a little, as when an engine counts it otherwise. The \
     states are equal, and for as long as no budget runs out so are the answers."

    LeadersClockTrusted "leaders-clock-trusted"
    trips [ClockWithinMajority] needs [ClockSkew]
    "The leader's clock goes into the log as it is. One leader whose clock says next decade ends all \
     sessions, and the log's time stands still for ten years. (Until this was found, ours did.)"

    StartClockKept "start-clock-kept"
    trips [ClockWithinMajority] needs [ClockSkew, MembershipChanges]
    "The only voter goes by what its clock showed when its process started, although others voted in \
     between. If that was years ahead and is mended long since, a cluster that shrinks to one voter \
     jumps there for good."

    PastNotRestored "past-not-restored"
    trips [StateMachineSafety] needs [Restarts, InstalledSnapshots]
    "Snapshots leave out the running hash over what came out before them, so nodes that were \
     restored have other digests than those that were not."

    SupersededAsDone "superseded-as-done"
    trips [NothingLost, Linearizable] needs [Partitions]
    "A client that waits for an index is answered when any entry is applied there, even another \
     leader's. (Jepsen: Redis-Raft 1b3fbf6 lost updates and told of aborted ones.)"

    UnsettledAsDone "unsettled-as-done"
    trips [Progress] needs [PowerLoss, MembershipChanges]
    "A change of the voters is told to be done as soon as the leader has applied it. After a loss \
     of power nobody may know that it is committed, and who was told has thrown a disk away that \
     the voters before it need."

    UnboundedAppends "unbounded-appends"
    trips [Progress] needs [SmallMessages]
    "Entries for a peer are joined into one message whatever they come to, and a message larger than \
     the transport takes is dropped: who is far behind never catches up. (etcd issue 3436, 2015: \
     appends beyond gRPC's limit; our own until raft-rs's `batch_append` was turned off.)"

    CompactionRunsAway "compaction-runs-away"
    trips [Progress] needs [InstalledSnapshots, ManySnapshots]
    "The log is compacted behind a snapshot that a peer is still being sent, so that it needs \
     another one when it has that, without end. (TiKV and CockroachDB hold their logs back for \
     that.)"

    UnboundedApplyQueue "unbounded-apply-queue"
    trips [BoundedGrowth] needs [SlowApply]
    "Committed entries are taken from the log into memory however far behind the machine is."

    UnpersistedLeads "unpersisted-leads"
    trips [Progress] needs [MembershipChanges]
    "The only voter that is left campaigns before its disk has its log, and leads at once: raft-rs \
     asserts that it does not."

    TruncatedAsSuperseded "truncated-as-superseded"
    trips [NothingLost, ExactlyOnce] needs [Partitions]
    "A client is told that its command surely does not happen as soon as its entry is replaced in \
     one log. Another node may still have it, lead later, and commit it (Raft, figure 8)."

    ReadBeforeApplied "read-before-applied"
    trips [Linearizable] needs [FollowerReads]
    "A read whose index a quorum confirmed is answered before the machine has applied that index."

    ReadAskedOnce "read-asked-once"
    trips [HealthyServes, Progress] needs [LostMessages, Partitions]
    "A read whose question to the leader is lost, or falls on a leader too new to answer, is not \
     asked again: the node is healthy, and its reads hang."

    StuckDiskUnwatched "stuck-disk-unwatched"
    trips [HungDiskYields, Progress] needs [HungDisks]
    "Nobody watches the log writer: a leader whose fsync never returns sends heartbeats, which need \
     no disk, and leads for ever. Reported of etcd (sick disks of cloud machines) and others."

    FirstVoteIsTruth "first-vote-is-truth"
    trips [DigestsAgree] needs [BitFlips]
    "The first digest of a verdict is taken for the right one instead of the majority's: one \
     node that went wrong has all others quarantined."

    DigestAtReport "digest-at-report"
    trips [DigestsAgree] needs [BitFlips]
    "The state is digested when the report is made up instead of at the digest point. What was \
     applied together with the point has changed it by then, on some nodes."

    QuarantineAnswers "quarantine-answers"
    trips [QuarantineKeepsQuiet, Linearizable] needs [BitFlips]
    "A quarantined node goes on answering queries and commands."

    QuarantinedSnapshots "quarantined-snapshots"
    trips [QuarantineKeepsQuiet] needs [BitFlips, InstalledSnapshots]
    "A quarantined node goes on taking snapshots of its state, and sends them to others while it \
     still leads."

    QuarantineLiftedUnhealed "quarantine-lifted-unhealed"
    trips [DigestsAgree] needs [BitFlips]
    "The next digest point ends a quarantine, as if asking anew were enough, although the state is \
     still the wrong one."

    DoubtAnswers "doubt-answers"
    trips [QuarantineKeepsQuiet, Linearizable] needs [BitFlips]
    "Two voters whose states differ go on answering while the third, which would decide, is down."

    IncumbentUnchecked "incumbent-unchecked"
    trips [OneActivation] needs [Upgrades]
    "An activation does not say what it is to replace, so one that comes late undoes what was \
     decided after it, and of two at once both are told that they are done."

    ReceiptUnchecked "receipt-unchecked"
    trips [UpgradesAsPromised] needs [Upgrades]
    "An activation does not look at the receipt that it relies on: a module that was rehearsed in the \
     place of another one, or found to answer differently, is activated all the same."

    KeptNotInSnapshot "kept-not-in-snapshot"
    trips [StateMachineSafety, UpgradesAsPromised] needs [Upgrades, Restarts]
    "A snapshot says that there is a way back, and does not hold the commands that it leads over: a node \
     that restarts before it is taken forgets those from before."

    AheadOfTheFork "ahead-of-the-fork"
    trips [StateMachineSafety, OneActivation] needs [Upgrades]
    "A node that makes a module's instance ahead begins with the state as it finds it, and not with that \
     of the fork, so commands in between count twice."

    WaitedNotKept "waited-not-kept"
    trips [UpgradesAsPromised] needs [Upgrades]
    "What is kept for a way back are the commands of entries, but not those that had waited in ordered \
     sessions for their turn."

    StagedPartTwice "staged-part-twice"
    trips [UpgradesAsPromised] needs [ChunkedUploads, Upgrades]
    "Parts of a module are put behind each other as they come, and the whole is not hashed: when an upload \
     begins again, a part is there twice, and the end is missing."

    RehearsalFromAnotherBase "rehearsal-from-another-base"
    trips [ReceiptsEqual] needs [Upgrades, ManySnapshots]
    "A voter has the new module begin with the state that it has stored, and does not execute what comes \
     between that and where the leader said that all begin."

    ReportWithALocalPart "report-with-a-local-part"
    trips [ReceiptsEqual] needs [Upgrades, ManySnapshots]
    "The report says which stored state the rehearsal began with, which is each node's own, and its hash \
     covers that: voters never agree for long."

    ReceiptOfAMinority "receipt-of-a-minority"
    trips [ReceiptsEqual] needs [Upgrades, Restarts]
    "Whoever was asked to rehearse is counted among those who found the report, whether or not there was an \
     answer."

    RewindWithoutTheLast "rewind-without-the-last"
    trips [UpgradesAsPromised] needs [Upgrades]
    "A module that comes back does not execute the last of the commands that were kept for it."

    ConfirmedTooEarly "confirmed-too-early"
    trips [UpgradesAsPromised] needs [Upgrades]
    "To confirm an upgrade ends whatever way back there is. Words about one upgrade that come late take the \
     way back from the next one."

    ShadowGoesOn "shadow-goes-on"
    trips [ReceiptsEqual] needs [Upgrades]
    "A module in the shadow of another one is compared with whatever is active, also after another \
     activation, and so with a module that nobody asked about."

    QuarantinedLeads "quarantined-leads"
    trips [QuarantineHeals, Progress] needs [BitFlips]
    "A quarantined leader keeps leading, so nobody can give it a fresh state."

    ReseedAskedOnce "reseed-asked-once"
    trips [QuarantineHeals, Progress] needs [BitFlips, Partitions]
    "A request for a fresh state is not withdrawn when another leader is elected that cannot \
     fulfil it. raft-rs 0.7 confirms no entries meanwhile, so the new leader may never commit \
     what it would have to."

    CommitUnbounded "commit-unbounded"
    trips [NobodyAccused] needs [LostMessages]
    "A leader's heartbeats tell its commit index to all followers, instead of the part of it that \
     each is known to have. (Why etcd's bcastHeartbeat takes the minimum with the match index.)"

    AskedForOthers "asked-for-others"
    trips [NobodyAccused] needs [Partitions]
    "A follower that is asked for a read index hands the question on to the leader in the name of \
     who asked, as raft-rs does by itself. The leader breaks the follower's stream for it; or, \
     when who asked has been removed, the follower is told that it was, and stops."

    AddressIsIdentity "address-is-identity"
    trips [NobodyAccused] needs [MembershipChanges]
    "A learner that lost its data and joins again under its address gets its old id back. The \
     leader believes that it has what its predecessor acknowledged, and tells it of commits beyond \
     its log. (Node 2 of 3 with an empty directory died in a loop of panics.)"

    RecoveryOfLongest "recovery-of-longest"
    trips [RecoveryKeeps] needs [Partitions]
    "A recovery makes the new cluster of the longest log that is left, whatever the terms: a deposed \
     leader has written more than the others agreed on since. (What people do by hand who look at file \
     sizes.)"

    RevokedKeyAccepted "revoked-key-accepted"
    trips [ModulesSigned] needs [Upgrades, Keys]
    "Whether a publisher's key was revoked is asked at the door only. What was proposed before the \
     revocation and committed after it, or is replayed, is activated all the same."
    RightsAtTheDoorOnly "rights-at-the-door-only"
    trips [RightsAtIndex] needs [Rights]
    "Who may do what is asked where a request comes in, and not where its entry is applied. A node that \
     has not heard yet that a right was taken away lets its owner go on."

    MembersJudgedAtTheDoor "members-judged-at-the-door"
    trips [RightsAtIndex] needs [Rights, MembershipChanges]
    "Whether somebody may change the members is asked where the request comes in, and nobody looks whether \
     that has changed when the change goes into the log."

    AccessNotInSnapshot "access-not-in-snapshot"
    trips [RightsAtIndex, StateMachineSafety] needs [Rights, Restarts, InstalledSnapshots]
    "A machine restored from a snapshot knows no principals, no tokens and no roles, and that rights are \
     not in force."

    SessionsReborn "sessions-reborn"
    trips [RestoreKeeps] needs [Incarnations]
    "A cluster that is made of a backup goes on with the sessions of the one before. A client that was told \
     of a command after the backup sends it again and is told that its number is free."

    IncarnationUnchecked "incarnation-unchecked"
    trips [IncarnationsApart] needs [Incarnations]
    "A door that does not ask of which cluster a peer is. After a recovery the ids of nodes begin again, so \
     one that was left behind passes for a member. (etcd's members refuse by cluster id for that; a cluster \
     that was restored under its old id mixes.)"

    TrialOfAnswersOnly "trial-of-answers-only"
    trips [UpgradesAsPromised] needs [Upgrades]
    "A trial of the way back that compares what commands answer, and takes those that the module before refuses, or \
     that break it, for the same. The operator goes back, and clients find refused what they had been told was done. \
     (Tools that diff the traffic of two versions often drop what ended with an error.)"

    TokenSpentLast "token-spent-last"
    trips [TokensOnce] needs [Rights, MembershipChanges]
    "A leader that lets a newcomer in and then notes that its token is spent. Until it has, only it knows, and if it \
     is not the leader any more by then, nobody does: the token lets another node in. (Whatever is counted after it \
     is given out, as coupons in shops on the web, is given out twice under load.)"

    RemovedComesIn "removed-comes-in"
    trips [MembersOnly] needs [MembershipChanges]
    "A door that asks of which cluster a peer is, and not whether it is a member still. A node that was removed \
     while it was cut off comes back, campaigns, and nobody tells it that it is none. (What a server that was removed \
     does to a cluster is in section 4.2.3 of the dissertation on Raft.)"

    IdentityNotSynced "identity-not-synced"
    trips [DirectoryWhole] needs [Incarnations, PowerLoss]
    "A file of the data directory is renamed into place, and its directory is not synced: a node votes, and \
     after a power loss nobody knows whose the votes are."
}

/// There is no exhibit of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no exhibit is called {0:?}")]
pub struct UnknownExhibit(String);

impl std::str::FromStr for Exhibit {
    type Err = UnknownExhibit;

    fn from_str(name: &str) -> Result<Exhibit, UnknownExhibit> {
        let found = Exhibit::ALL.iter().find(|exhibit| exhibit.name() == name);
        found.copied().ok_or_else(|| UnknownExhibit(name.to_owned()))
    }
}

impl std::fmt::Display for Exhibit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_lead_back_to_their_exhibits() {
        for exhibit in Exhibit::ALL {
            assert_eq!(exhibit.name().parse(), Ok(*exhibit));
            assert!(exhibit.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            assert!(!exhibit.story().is_empty());
        }
        assert!("no-such-thing".parse::<Exhibit>().is_err());
    }

    #[test]
    fn every_invariant_has_an_exhibit_that_trips_it_first() {
        for invariant in Invariant::ALL {
            let tripped = Exhibit::ALL.iter().any(|exhibit| exhibit.trips()[0] == invariant);
            assert!(tripped, "{invariant:?}");
        }
    }

    #[test]
    #[cfg(not(feature = "museum"))]
    fn without_the_feature_nothing_can_be_on() {
        const { assert!(!is_on(Exhibit::LogNotSynced)) };
    }
}
