//! How the answer of the state machine is shown.

use std::io::Write as _;
use std::time::Duration;

use raft_host_proto::v1::{self, outcome::Kind};
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{
    AnswerForm, Output, answer_fields, human_count, print_answer, print_json, readable,
};
use crate::types::TrapKind;

/// An answer to a command or a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) duplicate: bool,
    /// Of the command's entry, or what the query's answer reflects.
    pub(super) index: u64,
    pub(super) fuel_used: u64,
    pub(super) trap_message: String,
    /// Of the command's entry.
    pub(super) applied: Option<AppliedFacts>,
    /// Of a query: how old the answer may be, if the node knows.
    pub(super) age_ms: Option<Option<u64>>,
    /// Of a query of a state that was.
    pub(super) past: Option<PastFacts>,
}

/// What is known of an answer from a state that was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PastFacts {
    /// The last of the entry's commands that the answer reflects; `None`: all of them.
    pub(super) ordinal: Option<u32>,
    /// The entry after which the state was that it was made from.
    pub(super) base_index: u64,
}

/// What is known of a command besides its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AppliedFacts {
    /// Which of its entry's commands it is.
    pub(super) ordinal: u32,
    pub(super) term: u64,
    /// If it was asked for and the node can tell.
    pub(super) pages_dirtied: Option<u64>,
    /// On the node that answered.
    pub(super) apply_duration: Duration,
}

/// How to show an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShowOptions {
    pub(super) output: Output,
    pub(super) form: AnswerForm,
    pub(super) verbose: bool,
}

impl Answer {
    /// The answer to a command.
    pub(super) fn of_apply(response: v1::ApplyResponse) -> Result<Answer, Failure> {
        let v1::ApplyResponse { outcome, position, fuel_used, trap_message, term, .. } = response;
        let position = position.unwrap_or_default();
        let answer = Answer::new(outcome, position.index, fuel_used, trap_message)?;
        let applied = AppliedFacts {
            ordinal: position.ordinal,
            term,
            pages_dirtied: response.pages_dirtied,
            apply_duration: Duration::from_nanos(response.apply_duration_ns),
        };
        Ok(Answer { applied: Some(applied), ..answer })
    }

    /// The answer to a query.
    pub(super) fn of_query(response: v1::QueryResponse) -> Result<Answer, Failure> {
        let v1::QueryResponse { outcome, applied_index, fuel_used, trap_message, age_ms } =
            response;
        let answer = Answer::new(outcome, applied_index, fuel_used, trap_message)
            .map_err(|failure| Failure { exit: Exit::Failed, ..failure })?;
        Ok(Answer { age_ms: Some(age_ms), ..answer })
    }

    /// The answer to a query of a state that was.
    pub(super) fn of_query_at(response: v1::QueryAtResponse) -> Result<Answer, Failure> {
        let v1::QueryAtResponse { answer, ordinal, base_index } = response;
        let answer = Answer::of_query(answer.unwrap_or_default())?;
        Ok(Answer { age_ms: None, past: Some(PastFacts { ordinal, base_index }), ..answer })
    }

    fn new(
        outcome: Option<v1::Outcome>,
        index: u64,
        fuel_used: u64,
        trap_message: String,
    ) -> Result<Answer, Failure> {
        let outcome = outcome.unwrap_or_default();
        let Some(kind) = outcome.kind else {
            return Err(Failure {
                exit: Exit::Unknown,
                ..Failure::new(
                    "the server's answer has no outcome; does it run another version of raft-host?",
                )
            });
        };
        let duplicate = outcome.duplicate;
        let (applied, age_ms, past) = (None, None, None);
        Ok(Answer { kind, duplicate, index, fuel_used, trap_message, applied, age_ms, past })
    }

    /// The exit code of this answer.
    pub(super) fn exit(&self) -> Exit {
        match self.kind {
            Kind::Ok(_) => Exit::Done,
            Kind::Rejected(_) => Exit::Rejected,
            Kind::Trapped(_) => Exit::Trapped,
        }
    }

    /// Prints the answer: what the state machine said to stdout, that it refused to stderr.
    pub(super) fn show(&self, options: ShowOptions) -> Ended {
        match options.output {
            Output::Json => print_json(&self.to_json())?,
            Output::Table => {
                if let Kind::Ok(answer) = &self.kind {
                    print_answer(answer, options.form)?;
                }
                if let Some(text) = self.complaint() {
                    to_stderr(&text);
                }
                if options.verbose {
                    to_stderr(&self.details());
                }
            }
        }
        Ok(self.exit())
    }

    /// What people are told of an answer that is not `Ok`.
    pub(super) fn complaint(&self) -> Option<String> {
        match &self.kind {
            Kind::Ok(_) => None,
            Kind::Rejected(reason) if reason.is_empty() => Some("rejected without a reason".into()),
            Kind::Rejected(reason) => Some(format!("rejected: {}", readable(reason).trim_end())),
            Kind::Trapped(number) => {
                let mut text = format!("trapped: the state machine {}", describe_trap(*number));
                if !self.trap_message.is_empty() {
                    text.push('\n');
                    text.push_str(self.trap_message.trim_end());
                }
                Some(text)
            }
        }
    }

    fn details(&self) -> String {
        let mut text = format!("index {}, fuel {}", self.index, human_count(self.fuel_used));
        if let Some(facts) = &self.applied {
            let pages = facts.pages_dirtied.map_or("unknown".to_owned(), human_count);
            text.push_str(&format!(
                ", ordinal {}, pages dirtied {pages}, term {}, applied in {:?}",
                facts.ordinal, facts.term, facts.apply_duration
            ));
        }
        if let Some(PastFacts { ordinal, base_index }) = self.past {
            let ordinal = ordinal.map_or(String::new(), |ordinal| format!(", ordinal {ordinal}"));
            text.push_str(&format!("{ordinal}, made from the state after entry {base_index}"));
        }
        if self.duplicate {
            text.push_str(", answered from the session");
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let (outcome, bytes) = match &self.kind {
            Kind::Ok(answer) => ("ok", &answer[..]),
            Kind::Rejected(reason) => ("rejected", &reason[..]),
            Kind::Trapped(_) => ("trapped", &b""[..]),
        };
        let (answer, encoding) = answer_fields(bytes);
        let mut value = json!({
            "outcome": outcome,
            "answer": answer,
            "answer_encoding": encoding,
            "duplicate": self.duplicate,
            "index": self.index,
            "fuel_used": self.fuel_used,
        });
        if let Some(facts) = &self.applied {
            value["ordinal"] = json!(facts.ordinal);
            value["term"] = json!(facts.term);
            value["pages_dirtied"] = json!(facts.pages_dirtied);
            value["apply_duration_ns"] = json!(facts.apply_duration.as_nanos() as u64);
        }
        if let Some(age_ms) = self.age_ms {
            value["age_ms"] = json!(age_ms);
        }
        if let Some(PastFacts { ordinal, base_index }) = self.past {
            value["ordinal"] = json!(ordinal);
            value["base_index"] = json!(base_index);
        }
        if let Kind::Trapped(number) = self.kind {
            value["trap"] = json!({
                "kind": trap_kind(number),
                "description": describe_trap(number),
                "message": self.trap_message,
            });
        }
        value
    }
}

fn trap_kind(number: i32) -> Option<TrapKind> {
    u8::try_from(number).ok().and_then(TrapKind::from_u8)
}

/// What the state machine did, for people.
pub(super) fn describe_trap(number: i32) -> &'static str {
    trap_kind(number).map_or("trapped in a way this version does not know", TrapKind::describe)
}

fn to_stderr(text: &str) {
    // Nobody is left to tell when stderr is gone; the exit code still says it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind) -> Answer {
        Answer {
            kind,
            duplicate: false,
            index: 9,
            fuel_used: 12_345,
            trap_message: String::new(),
            applied: None,
            age_ms: None,
            past: None,
        }
    }

    #[test]
    fn each_outcome_has_its_exit_code_and_its_words() {
        let ok = answer(Kind::Ok("done".into()));
        assert_eq!((ok.exit(), ok.complaint()), (Exit::Done, None));
        let rejected = answer(Kind::Rejected("no such key\n".into()));
        assert_eq!(rejected.exit(), Exit::Rejected);
        assert_eq!(rejected.complaint().as_deref(), Some("rejected: no such key"));
        let mut trapped = answer(Kind::Trapped(v1::TrapKind::OutOfFuel.into()));
        trapped.trap_message = "in apply".into();
        assert_eq!(trapped.exit(), Exit::Trapped);
        assert_eq!(
            trapped.complaint().as_deref(),
            Some("trapped: the state machine ran out of fuel\nin apply")
        );
        assert_eq!(trapped.details(), "index 9, fuel 12,345");
    }

    #[test]
    fn details_of_a_command_say_what_it_cost() {
        let response = v1::ApplyResponse {
            outcome: Some(v1::Outcome { kind: Some(Kind::Ok("x".into())), duplicate: false }),
            position: Some(v1::Position { index: 9, ordinal: 4 }),
            fuel_used: 1_000,
            term: 3,
            pages_dirtied: Some(2),
            apply_duration_ns: 1_500,
            ..Default::default()
        };
        let answer = Answer::of_apply(response.clone()).expect("an outcome");
        assert_eq!(
            answer.details(),
            "index 9, fuel 1,000, ordinal 4, pages dirtied 2, term 3, applied in 1.5µs"
        );
        let value = answer.to_json();
        assert_eq!((&value["term"], &value["pages_dirtied"]), (&json!(3), &json!(2)));
        assert_eq!(value["apply_duration_ns"], 1_500);
        let blind = v1::ApplyResponse { pages_dirtied: None, ..response };
        let answer = Answer::of_apply(blind).expect("an outcome");
        assert!(answer.details().contains("pages dirtied unknown"), "{}", answer.details());
        assert_eq!(answer.to_json()["pages_dirtied"], Value::Null);
    }

    #[test]
    fn json_names_the_outcome_and_the_trap() {
        let value = answer(Kind::Ok(vec![0xff].into())).to_json();
        assert_eq!(value["outcome"], "ok");
        assert_eq!(value["answer"], "ff");
        assert_eq!(value["answer_encoding"], "hex");
        let value = answer(Kind::Trapped(v1::TrapKind::BadStatus.into())).to_json();
        assert_eq!(value["trap"]["kind"], "bad_status");
        let value = answer(Kind::Trapped(999)).to_json();
        assert_eq!(value["trap"]["kind"], Value::Null);
    }

    #[test]
    fn an_answer_without_outcome_has_an_unknown_effect() {
        let failure = Answer::of_apply(v1::ApplyResponse::default()).expect_err("no outcome");
        assert_eq!(failure.exit, Exit::Unknown);
    }
}
