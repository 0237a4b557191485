//! Tries a module on real state and real commands before a cluster runs it.
//!
//! Two machines execute the same entries: one goes on as it is, in the other the new module has taken the
//! state over. What they answer is compared, and so is what the new module makes of its own state.
//!
//! ```text
//!   stored state ──► old ──► base ───────────── entries ─────────────► until ─► queries, check, back
//!                             │ snapshot / restore                      │            │ compare
//!                             └──► new ──────── the same ─────────────► until ─► queries, check, twice
//! ```
//!
//! A *shadow* ([`Shadow`]) is the same for the commands that a node executes now, and has but one machine: what the
//! old module answers is what the node's own has answered.
//!
//! A pure function of state, entries and module, but for the time that the switch took: every node comes to
//! the same report. Knows no nodes, threads or clocks. Guests run on the caller's thread, which must have the
//! stack that they need.

mod allow;
mod answers;
mod asking;
mod classes;
mod compare;
mod engine;
mod fuel;
mod kind;
mod log;
mod report;
mod round;
mod shadow;
mod source;
mod takeover;
mod taking;
mod tally;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::allow::{ALLOWANCES_MAX, Allowances, BadAllowance, Verdict};
pub use self::answers::outcome_words;
pub use self::engine::{first_difference, rehearse};
pub use self::kind::Kind;
pub use self::log::{
    Chosen, Floor, RetainedLog, Wanted, activates_after, choose, compacted, last_time_ms, range,
};
pub use self::report::{
    Count, Difference, FUEL_MEDIAN_PERMILLE, FUEL_WORST_PERMILLE, First, FuelRatio,
    MEMORY_PERMILLE, MemoryFound, OTHERS, Report,
};
pub use self::round::{NoReceipt, Round};
pub use self::shadow::{Answered, Begun, Shadow};
pub use self::tally::{ByKind, INPUT_MAX_BYTES, TOLD_MAX};
use crate::consensus::ReplicaError;
use crate::fsm::HostFailure;
use crate::machine::Way;
use crate::storage::StorageError;
use crate::text::human_time;
use crate::types::{Index, LogEntry};

/// Most queries of a rehearsal.
pub const QUERIES_MAX: usize = 64;
/// What is rehearsed if nobody says how much: the last so many commands.
pub const LAST_COMMANDS: u64 = 10_000;

/// What is to be rehearsed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The new module takes over the state after this entry,
    pub base: Index,
    /// and this is the last one that both execute.
    pub until: Index,
    /// The new module.
    pub module: Bytes,
    /// Its name, for people.
    pub label: String,
    /// How it takes the state over.
    pub way: Way,
    /// Asked of both at the end; at most [`QUERIES_MAX`].
    pub queries: Vec<Bytes>,
    /// Classes of commands that are allowed to differ ([`Allowances::classes`]): the active module must know them.
    pub classes: Vec<String>,
}

/// Where the entries come from: they are asked for in ascending order, those of the range perhaps twice.
pub trait Entries {
    /// The entry at an index.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be read.
    fn entry(&mut self, index: Index) -> Result<LogEntry, RehearsalError>;

    /// Says that from now on none is asked for but those after `base`. What takes longest comes next.
    ///
    /// # Errors
    ///
    /// As for [`Entries::entry`].
    fn only_after(&mut self, _base: Index) -> Result<(), RehearsalError> {
        Ok(())
    }
}

/// How far a rehearsal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that was executed.
    pub index: Index,
    /// The last one that will be.
    pub until: Index,
    /// Commands that both have executed.
    pub commands: u64,
    /// Differences that were found.
    pub differences: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// It ends before it begins.
    #[error("the range ends at index {until}, before it begins at index {base}")]
    WrongRange {
        /// Where it was to begin.
        base: Index,
        /// Where it was to end.
        until: Index,
    },
    /// There is no such entry yet.
    #[error("the range ends at index {until}, and the last entry is at index {last}")]
    BeyondEnd {
        /// Where it was to end.
        until: Index,
        /// Where the log does.
        last: Index,
    },
    /// What it would begin with is gone.
    #[error(
        "the log begins at index {begins}, and the oldest retained state is at index {oldest}{}, which is too late for \
         {wanted}: ask for --all-retained, a later --since or fewer commands",
        time_words(*.time_ms)
    )]
    Compacted {
        /// What was asked for: an index, a time, or so many commands.
        wanted: String,
        /// The first entry.
        begins: Index,
        /// The oldest state.
        oldest: Index,
        /// The log's clock there, if that is known.
        time_ms: Option<u64>,
    },
    /// Nothing would be replaced.
    #[error("no module is active, so there is nothing to compare a new one with")]
    NoModule,
    /// Another module executed a part of the range.
    #[error(
        "the active module is active only since index {since}: the range must begin there or later"
    )]
    ActiveSince {
        /// Index of its activation.
        since: Index,
    },
    /// No cluster would take the module.
    #[error("a cluster would refuse the module: {0}")]
    Refused(String),
    /// More is asked than is answered.
    #[error("{0} queries are too many: a rehearsal asks at most {QUERIES_MAX}")]
    TooManyQueries(usize),
    /// A class is allowed, and there are none.
    #[error(
        "the active module names no classes of commands, so {0:?} is unknown: allow the whole kind, without a class"
    )]
    NoClasses(String),
    /// A class is allowed that no command is of.
    #[error("the active module names no command of the range {class:?}: {}", known_words(known))]
    UnknownClass {
        /// The class.
        class: String,
        /// Those that there are; not all if they are many.
        known: Vec<String>,
    },
    /// Whoever wanted it wants it no more.
    #[error("the rehearsal was cancelled; nothing was changed")]
    Cancelled,
    /// Consensus does not take a change of members.
    #[error(transparent)]
    Members(#[from] ReplicaError),
    /// The log cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// This host failed.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

fn time_words(time_ms: Option<u64>) -> String {
    time_ms.map_or(String::new(), |time_ms| format!(" ({} UTC)", human_time(time_ms)))
}

fn known_words(known: &[String]) -> String {
    match known {
        [] => "it names none a class; allow the whole kind".to_owned(),
        known => format!("its classes there are {}", known.join(", ")),
    }
}
