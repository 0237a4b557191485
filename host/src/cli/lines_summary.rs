//! What became of a file of commands: counted while they are answered, told at the end.

use std::time::Duration;

use raft_host_proto::v1::outcome::Kind;
use serde_json::{Value, json};

use super::answer::describe_trap;
use super::exit::{Exit, Failure};
use super::output::{facts, human_bytes, human_count, human_duration, readable_line};

/// Rejections and traps that are shown with their line; the others are only counted.
const SHOWN: usize = 5;
/// Longest reason that is shown.
const REASON_CHARS: usize = 160;

/// Counts answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) applied: u64,
    pub(super) rejected: u64,
    pub(super) trapped: u64,
    /// Refused by the cluster before the state machine saw them, such as too long ones.
    pub(super) refused: u64,
    /// Of all of the above: answered from the session, because a first answer was lost.
    pub(super) duplicates: u64,
    pub(super) blank: u64,
    pub(super) bytes: u64,
    pub(super) fuel_used: u64,
    /// Lowest and highest index of an answered command.
    pub(super) indexes: Option<(u64, u64)>,
    pub(super) elapsed: Duration,
    problems: Vec<Problem>,
}

/// A line that was not applied.
#[derive(Clone, Debug, PartialEq)]
struct Problem {
    line: u64,
    outcome: &'static str,
    reason: String,
}

/// One answer, with the line that it is for.
#[derive(Clone, Debug)]
pub(super) struct LineAnswer {
    pub(super) line: u64,
    pub(super) bytes: u64,
    pub(super) index: u64,
    pub(super) fuel_used: u64,
    pub(super) duplicate: bool,
    pub(super) kind: Kind,
}

impl Summary {
    /// Counts an answer.
    pub(super) fn add(&mut self, answer: LineAnswer) {
        self.bytes += answer.bytes;
        self.fuel_used += answer.fuel_used;
        self.duplicates += u64::from(answer.duplicate);
        let (low, high) = self.indexes.unwrap_or((answer.index, answer.index));
        self.indexes = Some((low.min(answer.index), high.max(answer.index)));
        match answer.kind {
            Kind::Ok(_) => self.applied += 1,
            Kind::Rejected(reason) => {
                self.rejected += 1;
                self.note(answer.line, "rejected", || readable_line(&reason, REASON_CHARS));
            }
            Kind::Trapped(number) => {
                self.trapped += 1;
                self.note(answer.line, "trapped", || format!("it {}", describe_trap(number)));
            }
        }
    }

    /// Counts a line that the cluster would not even give to the state machine.
    pub(super) fn refuse(&mut self, line: u64, reason: &str) {
        self.refused += 1;
        self.note(line, "refused", || readable_line(reason.as_bytes(), REASON_CHARS));
    }

    fn note(&mut self, line: u64, outcome: &'static str, reason: impl Fn() -> String) {
        if self.problems.len() < SHOWN {
            self.problems.push(Problem { line, outcome, reason: reason() });
        }
    }

    /// Lines with an answer.
    pub(super) fn answered(&self) -> u64 {
        self.applied + self.rejected + self.trapped + self.refused
    }

    /// The worst that happened.
    pub(super) fn exit(&self) -> Exit {
        match (self.trapped, self.rejected + self.refused) {
            (1.., _) => Exit::Trapped,
            (0, 1..) => Exit::Rejected,
            (0, 0) => Exit::Done,
        }
    }

    fn per_second(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// For people.
    pub(super) fn to_text(&self) -> String {
        let mut pairs = vec![("applied", human_count(self.applied))];
        let counts = [
            ("rejected", self.rejected),
            ("trapped", self.trapped),
            ("refused", self.refused),
            ("duplicates", self.duplicates),
            ("blank lines", self.blank),
        ];
        pairs.extend(counts.into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k, human_count(n))));
        pairs.push((
            "took",
            format!(
                "{}, {} commands and {} a second",
                human_duration(self.elapsed),
                human_count(self.per_second().round() as u64),
                human_bytes((self.bytes as f64 / self.elapsed.as_secs_f64().max(0.001)) as u64),
            ),
        ));
        let mut text = facts(&pairs);
        for problem in &self.problems {
            let Problem { line, outcome, reason } = problem;
            text.push_str(&format!("\nline {line}: {outcome}: {reason}"));
        }
        let others = (self.answered() - self.applied).saturating_sub(self.problems.len() as u64);
        if others > 0 {
            text.push_str(&format!("\n… and {} more", human_count(others)));
        }
        text
    }

    /// For scripts.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "applied": self.applied,
            "rejected": self.rejected,
            "trapped": self.trapped,
            "refused": self.refused,
            "duplicates": self.duplicates,
            "blank_lines": self.blank,
            "bytes": self.bytes,
            "fuel_used": self.fuel_used,
            "first_index": self.indexes.map(|(low, _)| low),
            "last_index": self.indexes.map(|(_, high)| high),
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": (self.per_second() * 10.0).round() / 10.0,
            "problems": self.problems.iter().map(Problem::to_json).collect::<Vec<_>>(),
        })
    }

    /// Completes the failure that ended the import early: what is in, and where to go on.
    pub(super) fn interrupted(&self, failure: Failure, first_unanswered: Option<u64>) -> Failure {
        let place = match first_unanswered {
            Some(line) => format!(", the first line without an answer is {line}"),
            None => String::new(),
        };
        let message = format!(
            "{} ({} commands were answered before that{place})",
            failure.message,
            human_count(self.answered())
        );
        let effect = match failure.exit {
            Exit::Unknown => "commands without an answer may have been applied, or may still be",
            _ => "commands without an answer were not applied",
        };
        Failure { message, effect: effect.to_owned(), ..failure }
    }
}

impl Problem {
    fn to_json(&self) -> Value {
        json!({ "line": self.line, "outcome": self.outcome, "reason": self.reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: u64, kind: Kind) -> LineAnswer {
        LineAnswer { line, bytes: 100, index: 10 + line, fuel_used: 7, duplicate: false, kind }
    }

    #[test]
    fn a_summary_counts_and_shows_the_first_problems_with_their_lines() {
        let mut summary = Summary::default();
        summary.add(answer(1, Kind::Ok("".into())));
        summary.add(LineAnswer { duplicate: true, ..answer(2, Kind::Ok("".into())) });
        for line in 3..10 {
            summary.add(answer(line, Kind::Rejected("no\nway".into())));
        }
        summary.elapsed = Duration::from_secs(3);
        assert_eq!(summary.exit(), Exit::Rejected);
        let text = summary.to_text();
        assert!(text.contains("applied     2"), "{text}");
        assert!(text.contains("duplicates  1"), "{text}");
        assert!(text.contains("3.0s, 3 commands and 300 B a second"), "{text}");
        assert!(text.contains("line 3: rejected: no way"), "{text}");
        assert!(text.ends_with("… and 2 more"), "{text}");
        let value = summary.to_json();
        assert_eq!(value["rejected"], 7);
        assert_eq!((&value["first_index"], &value["last_index"]), (&json!(11), &json!(19)));
        assert_eq!(value["problems"].as_array().map(Vec::len), Some(5));
    }

    #[test]
    fn a_trap_is_worse_than_a_rejection_and_nothing_is_fine() {
        let mut summary = Summary::default();
        assert_eq!(summary.exit(), Exit::Done);
        assert!(summary.to_text().contains("applied  0"));
        summary.add(answer(1, Kind::Rejected("no".into())));
        summary.add(answer(2, Kind::Trapped(1)));
        assert_eq!(summary.exit(), Exit::Trapped);
        assert!(summary.to_text().contains("line 2: trapped: it ran out of fuel"));
        summary.refuse(3, "the command has 9 bytes and the cluster allows 8");
        assert!(summary.to_text().contains("line 3: refused: the command has 9"));
        assert_eq!((summary.refused, summary.answered()), (1, 3));
    }

    #[test]
    fn an_interrupted_import_says_where_it_stopped() {
        let mut summary = Summary::default();
        summary.add(answer(1, Kind::Ok("".into())));
        let failure = Failure { exit: Exit::Unknown, ..Failure::new("the cluster is gone") };
        let failure = summary.interrupted(failure, Some(2));
        assert_eq!(
            failure.message,
            "the cluster is gone (1 commands were answered before that, the first line without \
             an answer is 2)"
        );
        assert!(failure.effect.starts_with("commands without an answer may have been"));
    }
}
