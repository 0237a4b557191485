//! JSON commands and answers.

use serde::{Deserialize, Serialize};

use crate::{Answer, Rejection};

pub use crate::plain::Names;

/// Reads a command or a query. Types may borrow from it.
///
/// `what` begins the message of the rejection: `the command is malformed: …`.
///
/// ```
/// # use raft_fsm_sdk::json;
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Add<'a> { to: &'a str, amount: u64 }
///
/// let add: Add = json::parse("the command", br#"{"to":"alice","amount":3}"#)?;
/// assert_eq!((add.to, add.amount), ("alice", 3));
/// let error = json::parse::<Add>("the command", b"{").err().unwrap().to_string();
/// assert!(error.starts_with("the command is malformed: "), "{error}");
/// # Ok::<(), raft_fsm_sdk::Rejection>(())
/// ```
pub fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::display(format_args!("{what} is empty; it must be JSON")));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Rejection::display(format_args!("{what} is malformed: {error}")))
}

impl Answer {
    /// Answers with JSON. Fails where `serde_json` does: on maps whose keys are not strings.
    pub fn json<T: Serialize>(value: &T) -> Result<Answer, Rejection> {
        serde_json::to_vec(value).map(Answer::from).map_err(Rejection::display)
    }
}
