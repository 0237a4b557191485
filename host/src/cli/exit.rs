//! How a command ends: exit codes, and failures told in one sentence.

use std::io::Write as _;
use std::process::ExitCode;

use raft_host_proto::v1::Reason;
use serde_json::json;

use super::output::Output;

/// What `--help` says about exit codes.
pub(super) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  failed; nothing was changed
  2  wrong usage; nothing was tried
  3  the state machine rejected it, or a rehearsal found what nobody allowed;
     it changed nothing
  4  the state machine trapped; it was undone
  5  the effect is unknown: it may have happened, or may still happen
  6  no node or no leader could be reached in time; nothing was changed
  7  (server) the data directory lost something, or is older than its cluster
     knows: starting it again does not help; the message says what does";

/// The exit codes. Scripts depend on the numbers: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Exit {
    /// Done.
    Done = 0,
    /// Failed, and nothing was changed.
    Failed = 1,
    /// Wrong usage. clap uses the same number.
    Usage = 2,
    /// The state machine said no.
    Rejected = 3,
    /// The state machine broke and was undone.
    Trapped = 4,
    /// It may have happened.
    Unknown = 5,
    /// Nobody could be asked; nothing was changed.
    Unavailable = 6,
    /// The data directory must not be used any more.
    DataUnusable = 7,
}

impl Exit {
    fn name(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Rejected => "rejected",
            Exit::Trapped => "trapped",
            Exit::Unknown => "unknown_effect",
            Exit::Unavailable => "unavailable",
            Exit::DataUnusable => "data_unusable",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failure, as a person or a script is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// One sentence: what went wrong and what to do.
    pub(super) message: String,
    /// What the failure means for the thing that was asked; empty when nothing was to change.
    pub(super) effect: String,
    /// Why, where a node said it.
    pub(super) reason: Option<Reason>,
}

/// How commands of the command line end.
pub(super) type Ended = Result<Exit, Failure>;

impl Failure {
    /// Something went wrong before anything was changed.
    pub(super) fn new(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Failed, message: message.into(), effect: String::new(), reason: None }
    }

    /// Wrong usage that clap cannot see.
    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::new(message) }
    }

    /// States the effect on `subject`, such as "the command".
    pub(super) fn about(mut self, subject: &str) -> Failure {
        self.effect = match self.exit {
            Exit::Unknown => format!("{subject} may have been applied, or may still be"),
            _ => format!("{subject} was not applied"),
        };
        self
    }

    /// The text for people: the sentence, then the effect.
    pub(super) fn text(&self) -> String {
        let mut text = format!("error: {}", self.message);
        if !self.effect.is_empty() {
            text.push_str("\n       ");
            text.push_str(&self.effect);
        }
        text
    }

    /// The object for scripts.
    pub(super) fn json(&self) -> serde_json::Value {
        let effect = if self.exit == Exit::Unknown { "unknown" } else { "none" };
        json!({
            "error": {
                "exit_code": self.exit as u8,
                "kind": self.exit.name(),
                "message": self.message,
                "effect": effect,
                "reason": self.reason.map(Reason::name),
            }
        })
    }

    /// Prints to stderr in the chosen form.
    pub(super) fn report(&self, output: Output) {
        let text = match output {
            Output::Table => self.text(),
            Output::Json => self.json().to_string(),
        };
        // Nobody is left to tell when stderr is gone; the exit code still says it.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_help_are_the_numbers_of_the_code() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Rejected,
            Exit::Trapped,
            Exit::Unknown,
            Exit::Unavailable,
            Exit::DataUnusable,
        ];
        for (number, exit) in all.into_iter().enumerate() {
            assert_eq!(exit as usize, number);
            assert!(EXIT_CODES_HELP.contains(&format!("\n  {number}  ")), "{exit:?}");
        }
    }

    #[test]
    fn a_failure_states_its_effect_to_people_and_scripts() {
        let none = Failure::new("the disk is full; free some space").about("the command");
        assert_eq!(
            none.text(),
            "error: the disk is full; free some space\n       the command was not applied"
        );
        assert_eq!(none.json()["error"]["effect"], "none");
        let unknown = Failure { exit: Exit::Unknown, ..none }.about("the command");
        assert!(unknown.text().ends_with("the command may have been applied, or may still be"));
        assert_eq!(unknown.json()["error"]["effect"], "unknown");
        assert_eq!(unknown.json()["error"]["exit_code"], 5);
    }
}
