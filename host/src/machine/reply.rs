//! What the machine answers.

use std::sync::Arc;

use super::access::{Access, AccessRefused, Denied};
use super::incumbent::Incumbent;
use super::keys::Keys;
use super::receipts::Receipt;
use super::verdict::Verdict;
use crate::fsm::{EngineProfile, Limits};
use crate::signing::{ModuleSignature, PublicKey};
use crate::types::{
    Actor, ActorName, ClusterId, Event, Exceeded, Index, Level, ModuleHash, Origin, Outcome,
    Position, PrincipalId, StateDigest, TokenId,
};

/// What came of a command, or of an entry that holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer: the same on every replica.
    pub reply: Reply,
    /// Fuel that the guest used; 0 when it did not run.
    pub fuel_used: u64,
    /// What the guest emitted, in order.
    pub events: Vec<Event>,
    /// Details of a trap for people. Of this node only: never part of `reply`.
    pub trap_message: Option<String>,
    /// Pages of memory that the guest wrote, if that was asked for with
    /// [`super::Machine::count_pages`] and this host can tell. Of this node only.
    pub pages_dirtied: Option<u64>,
    /// The command had waited in its ordered session: it is none of those that its entry holds.
    pub waited: Option<SessionNumber>,
}

/// A command by its session and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber {
    /// The session.
    pub session_id: u64,
    /// The sequence number.
    pub sequence: u64,
}

impl Applied {
    pub(super) fn without_guest(reply: Reply) -> Applied {
        Applied {
            reply,
            fuel_used: 0,
            events: Vec::new(),
            trap_message: None,
            pages_dirtied: None,
            waited: None,
        }
    }

    /// With so much fuel more.
    pub(super) fn with_fuel(self, more: u64) -> Applied {
        Applied { fuel_used: self.fuel_used.saturating_add(more), ..self }
    }
}

/// The answer to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The no-op of a new leader.
    Nothing,
    /// What became of a command.
    Command(Outcome),
    /// A command came before its turn in an ordered session, and is executed when that comes: then
    /// [`Applied::waited`] tells it.
    Waiting(SessionNumber),
    /// A command came before any module was active; nothing happened.
    NoModule,
    /// The command was not run.
    Refused(CommandRefused),
    /// A session is open.
    SessionOpened {
        /// Its id: the index of the entry.
        id: u64,
        /// How long it lives without being used, after clamping.
        ttl_ms: u64,
        /// With so many unacknowledged responses it takes no commands.
        responses_max: u64,
        /// With so many bytes of them it takes no commands.
        responses_max_bytes: u64,
        /// It executes its commands in the order of their numbers.
        ordered: bool,
    },
    /// A session lives on for as long.
    SessionKept {
        /// In milliseconds of the log's clock.
        ttl_ms: u64,
    },
    /// The session is closed, or was gone already.
    SessionClosed,
    /// A part of a module is stored. `received == total`: the module is complete and its hash
    /// verified.
    ChunkStored {
        /// Bytes that the machine has, from the start of the module.
        received: u64,
        /// Size of the module.
        total: u64,
    },
    /// A part of a module was not taken, and why.
    ChunkRefused(String),
    /// A module is active from the next entry on.
    Activated {
        /// Index of the activation: the same on every node.
        index: Index,
        /// The module.
        hash: ModuleHash,
        /// The module that it replaces.
        previous: Option<ModuleHash>,
        /// It came back as if it had never been replaced.
        rewound: Option<Rewound>,
    },
    /// The module was active before; nothing changed.
    AlreadyActive {
        /// Index at which it became active.
        index: Index,
        /// The module.
        hash: ModuleHash,
    },
    /// Another module than the one that was to be replaced is active, or the same one again;
    /// nothing changed.
    ActivationSuperseded {
        /// What is active.
        active: Option<Incumbent>,
    },
    /// The module was not activated, and why; the old one, if any, goes on as if nothing had
    /// been tried.
    ActivationFailed(String),
    /// The module was not activated, because it lacks signatures of keys that the cluster trusts;
    /// what is missing. Nothing changed.
    NotSigned(String),
    /// The module was not activated, because the receipt of its rehearsal fits no more, and why. Nothing
    /// changed.
    ReceiptStale(String),
    /// The receipt of a rehearsal is kept.
    ReceiptRecorded {
        /// Index of the entry, by which activations name it.
        index: Index,
    },
    /// It is not, and why.
    ReceiptRefused(String),
    /// The state after this entry is kept for a module that is to take over, with the commands from here on.
    Forked {
        /// Index of the entry, by which activations name it.
        index: Index,
        /// The module.
        module: ModuleHash,
    },
    /// It is not kept, and why.
    ForkRefused(String),
    /// There is no way back from an activation any more.
    UpgradeSettled {
        /// There was one until now.
        was_open: bool,
    },
    /// Keys of publishers and their threshold hold from the next entry on.
    KeysSet(Keys),
    /// They were not changed, and why.
    KeysRefused(String),
    /// The limits hold from the next entry on.
    LimitsSet {
        /// All of them, now.
        limits: Box<Limits>,
        /// All of them, before.
        previous: Box<Limits>,
    },
    /// The limits were not changed, and why; everything goes on as if nothing had been tried.
    LimitsRefused(String),
    /// The engine profile holds from the next entry on, for nodes that offer it.
    EngineSet {
        /// The profile, now.
        engine: EngineProfile,
        /// The profile, before.
        previous: EngineProfile,
    },
    /// What was to be the engine profile is none, and why; nothing changed.
    EngineRefused(String),
    /// The level holds from the next entry on, for nodes that offer it.
    LevelSet {
        /// The level, now.
        level: Level,
        /// The level, before; the same if it was not to be raised.
        previous: Level,
    },
    /// The log's clock was put forward. In milliseconds since the Unix epoch.
    ClockSet {
        /// Now.
        time_ms: u64,
        /// Before.
        previous_ms: u64,
    },
    /// The log's clock was not set, and why.
    ClockRefused(String),
    /// Who may do what is changed from the next entry on.
    AccessSet {
        /// The principal that was made.
        principal: Option<PrincipalId>,
        /// The token that was made, and when it ends by the log's clock (0: never).
        token: Option<(TokenId, u64)>,
    },
    /// Nothing was changed of who may do what, and why.
    AccessRefused(AccessRefused),
    /// The state was digested: the same on every replica whose state is the same.
    DigestTaken {
        /// The point.
        index: Index,
        /// Of machine and guest.
        digest: StateDigest,
    },
    /// What the members found at a digest point.
    DigestJudged(Box<Verdict>),
}

/// Why a command was not run by the entry that held it. Deterministic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefused {
    /// The session expired, was closed, or never existed. An earlier attempt of the
    /// same command may have happened.
    #[error(
        "the session has expired or does not exist; whether an earlier attempt of this command \
         was applied is no longer known: open a new session"
    )]
    SessionExpired,
    /// The sequence number is at or below what the client acknowledged. An earlier attempt of the
    /// same command may have happened.
    #[error(
        "the sequence number is at or below the acknowledged one, so its answer is no longer \
         kept; an earlier attempt of this command may have been applied"
    )]
    SequenceTooOld,
    /// The session has the answer of another command under this number.
    #[error(
        "sequence number {sequence} of this session was used for another command; this one was not \
         applied: give every command a number of its own"
    )]
    SequenceReused {
        /// The number.
        sequence: u64,
    },
    /// The session keeps as many answers as it may. The command never ran, and may come again.
    #[error(
        "the session keeps {responses} answers and waiting commands with {bytes} bytes that its \
         client has not acknowledged, as many as it may; the command was not applied: acknowledge answers, then \
         send it again"
    )]
    SessionFull {
        /// Answers that it keeps.
        responses: u64,
        /// Their bytes.
        bytes: u64,
        /// The bound that they have reached.
        exceeded: Exceeded,
    },
    /// All sessions together keep as much as they may. The command never ran, and may come again.
    #[error(
        "all sessions together keep {bytes} bytes of answers and waiting commands that their clients \
         have not acknowledged, as many as they may; the command was not applied: send it again in a while"
    )]
    SessionsFull {
        /// Bytes that they keep.
        bytes: u64,
        /// The bound that they have reached.
        max: u64,
    },
    /// There are as many sessions as there may be.
    #[error(
        "there are {max} sessions, as many as there may be; none was opened: try again when some \
         were closed or have expired"
    )]
    TooManySessions {
        /// The bound.
        max: u64,
    },
    /// The command is longer than the cluster allows.
    #[error("the command has {bytes} bytes and the cluster allows {max}")]
    TooLarge {
        /// Length of the command.
        bytes: u64,
        /// Longest allowed.
        max: u64,
    },
    /// Whoever asked for it may not do it, as of the entry's index.
    #[error("{0}; nothing was done")]
    Denied(Box<Denied>),
    /// The entry does not mean anything.
    #[error("malformed entry: {0}")]
    Malformed(String),
}

impl CommandRefused {
    /// Whether no attempt of the command can have happened.
    pub fn surely_not_applied(&self) -> bool {
        match self {
            CommandRefused::SessionExpired | CommandRefused::SequenceTooOld => false,
            CommandRefused::SequenceReused { .. }
            | CommandRefused::SessionFull { .. }
            | CommandRefused::SessionsFull { .. }
            | CommandRefused::TooManySessions { .. }
            | CommandRefused::TooLarge { .. }
            | CommandRefused::Denied(_)
            | CommandRefused::Malformed(_) => true,
        }
    }

    /// Whether the same command may be taken later.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            CommandRefused::SessionFull { .. }
                | CommandRefused::SessionsFull { .. }
                | CommandRefused::TooManySessions { .. }
        )
    }
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryReply {
    /// How it ended.
    pub result: QueryResult,
    /// Fuel that the guest used.
    pub fuel_used: u64,
    /// Details of a trap for people.
    pub trap_message: Option<String>,
    /// The answer reflects all entries up to and including this one.
    pub applied: Index,
}

/// How a query ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryResult {
    /// The guest answered, refused or trapped; never `Duplicate`.
    Answer(Outcome),
    /// No module is active yet.
    NoModule,
    /// The active module does not export `query`.
    NoQueryExport,
    /// The query is longer than the cluster allows.
    TooLarge {
        /// Length of the query.
        bytes: u64,
        /// Longest allowed.
        max: u64,
    },
    /// This host lacked what it takes to run it; says what. Another node may answer, or this one
    /// a moment later.
    Unanswered(String),
}

/// The machine's facts, for status pages. Owned, and cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineInfo {
    /// Index of the last applied entry.
    pub applied: Index,
    /// The log's clock there, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The active module.
    pub active: Option<ActiveModule>,
    /// Size of the guest's memory now, in bytes.
    pub guest_memory_bytes: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Bytes of answers that they keep for retries, and of commands that wait in them.
    pub session_bytes: u64,
    /// Budgets of the guest.
    pub limits: Limits,
    /// What must run the guest.
    pub engine: EngineProfile,
    /// What the log may hold.
    pub level: Level,
    /// Complete modules that the machine holds, ascending by hash.
    pub modules: Arc<Vec<ModuleInfo>>,
    /// Activations, oldest first; only the latest are kept.
    pub history: Arc<Vec<ActivationInfo>>,
    /// What the cluster was restored from, oldest first; empty: it was formed.
    pub origins: Arc<Vec<Origin>>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose signatures modules need.
    pub keys: Keys,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Receipts of rehearsals, oldest first; only the latest are kept.
    pub receipts: Arc<Vec<Receipt>>,
    /// Index of the last entry that changed the engine profile or limits, but for those of upgrades.
    pub rules_changed_at: Index,
    /// How the last activation can be undone.
    pub way_back: Option<WayBack>,
    /// The state that is kept for a module that is to take over.
    pub fork: Option<ForkInfo>,
}

/// What is kept of the module that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// The module.
    pub module: ModuleHash,
    /// Index of the activation that replaced it.
    pub activated_at: Index,
    /// When it is dropped by the log's clock, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Commands since.
    pub commands: u64,
    /// Their bytes, as `upgrade_keep_bytes` counts them.
    pub bytes: u64,
}

/// A state that is kept for a module that is to take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkInfo {
    /// The module whose state it is.
    pub module: ModuleHash,
    /// The one that is to take over.
    pub next_module: ModuleHash,
    /// Index of the entry that made it.
    pub index: Index,
    /// When it is dropped by the log's clock, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Commands since.
    pub commands: u64,
    /// Their bytes, as `upgrade_keep_bytes` counts them.
    pub bytes: u64,
}

/// How a module came back that had been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// Commands that it executed, which the other module had executed before.
    pub commands: u64,
    /// Those whose outcome is another one than was told then.
    pub differing: u64,
    /// The first of those.
    pub first: Option<Position>,
}

/// The module that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveModule {
    /// Its hash.
    pub hash: ModuleHash,
    /// Its name, for people.
    pub label: String,
    /// Index of the activation.
    pub activated_at: Index,
    /// Whether it can answer queries.
    pub has_query: bool,
}

/// A complete module that the machine holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Its hash.
    pub hash: ModuleHash,
    /// Its size.
    pub size_bytes: u64,
    /// Its name as of its last activation; empty when it never was active.
    pub label: String,
    /// Whether it runs now.
    pub active: bool,
    /// Signatures that it was activated with.
    pub signatures: Vec<ModuleSignature>,
    /// It is no module but a portable state for one.
    pub is_state: bool,
}

/// One activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationInfo {
    /// Index of the entry.
    pub index: Index,
    /// The module.
    pub hash: ModuleHash,
    /// The log's clock at the entry.
    pub time_ms: u64,
    /// The module's name, for people.
    pub label: String,
    /// Publishers who had signed it and were trusted.
    pub signers: Vec<PublicKey>,
    /// Who asked for it, as far as that was known.
    pub actor: Actor,
    /// What that principal was called then.
    pub actor_name: ActorName,
}
