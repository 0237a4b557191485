//! What clients asked and were told, and whether a correct store could have told them that.
//!
//! Knows nothing of Raft, of the simulator or of processes: only operations on keys with a
//! start and an end. The simulator and the chaos tests both record into it.
//!
//! ```text
//!   checker      is there an order that explains what clients saw?
//!   json_lines   the same history in a file, for checkers of other people too (FORMAT.md)
//! ```

pub mod checker;
pub mod json_lines;
#[cfg(test)]
mod tests;

use std::fmt;

/// The value of a key; `None`: there is no such key.
pub type Value = Option<i64>;

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The value.
    Read,
    /// Set the value.
    Write(i64),
    /// Remove the key.
    Delete,
    /// Set the value to the second if it is the first.
    CompareAndSet(Value, i64),
    /// Add to the value, an absent one being 0.
    Add(i64),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// To `Read` and `Add`: the value (after adding).
    Value(Value),
    /// To `Write`.
    Done,
    /// To `Delete`: whether there was such a key. To `CompareAndSet`: whether it matched.
    Matched(bool),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It happened, at one moment between start and end.
    Answered(Answer),
    /// It surely did not happen and never will.
    Failed,
    /// It may have happened at any time since its start, or may still.
    Unknown,
}

/// One operation of one client on one key. Times are in nanoseconds since the start of the
/// recording, of one clock for all clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client; does one operation at a time.
    pub process: u64,
    /// The key.
    pub key: String,
    /// Asked.
    pub action: Action,
    /// Told.
    pub outcome: Outcome,
    /// When it was asked.
    pub start_ns: u64,
    /// When the client was told; of `Unknown`: when it stopped waiting.
    pub end_ns: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} {:?} {:?} -> {:?} [{}, {}]",
            self.process, self.key, self.action, self.outcome, self.start_ns, self.end_ns
        )
    }
}
