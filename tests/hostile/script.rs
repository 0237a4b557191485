//! What a hostile guest's header says that will happen, and whether it does.
//!
//! Lines of the header that begin with `;; > ` are steps, taken one after the other on a node that
//! ran a healthy guest before. What is not said there is checked anyway: see `finish`.
//!
//! ```text
//! ;; > upgrade => active                     the node takes the module
//! ;; > upgrade => refused "words"            the check before replication says so
//! ;; > upgrade => failed "words"             the activation says so, and the old module goes on
//! ;; > apply "command" => ok "answer"
//! ;; > apply "command" => ok                 whatever the answer is
//! ;; > apply "command" => rejected "reason"
//! ;; > apply "command" => trapped out_of_fuel
//! ;; > query "question" => …                 as for apply
//! ;; > leave => active                       an upgrade back to the healthy guest
//! ;; > leave => failed "words"               which the guest does not let go
//! ;; > abandon => active                     as leave, and the guest's state is given up
//! ;; > snapshot                              the node takes a snapshot
//! ;; > restart                               the node restarts
//! ```

use raft_host::node::UpgradeFailure;
use raft_host::types::{Outcome, TrapKind};

use super::node::LoneNode;

/// A step with its expectation.
#[derive(Clone, Debug)]
struct Step {
    verb: String,
    argument: String,
    expected: String,
    words: Option<String>,
}

/// The steps of a header.
pub struct Script {
    steps: Vec<Step>,
}

/// The healthy guest, and its state before the hostile one came.
pub struct Healthy<'a> {
    /// Its module.
    pub module: &'a [u8],
}

impl Script {
    /// Reads a header.
    ///
    /// # Panics
    /// If there is no step, or one that means nothing.
    pub fn parse(text: &str) -> Script {
        let steps: Vec<Step> =
            text.lines().filter_map(|line| line.strip_prefix(";; > ")).map(parse_step).collect();
        assert!(!steps.is_empty(), "the header expects nothing");
        Script { steps }
    }

    /// Plays it on a node that runs the healthy guest.
    ///
    /// # Panics
    /// At the first thing that goes otherwise.
    pub fn play(&self, node: &mut LoneNode, healthy: &Healthy<'_>, module: &[u8]) {
        let mut hostile_is_active = false;
        let mut may_leave = true;
        for step in &self.steps {
            let found = match step.verb.as_str() {
                "upgrade" => told(node.upgrade(module)),
                "leave" => told(node.upgrade(healthy.module)),
                "abandon" => told(node.upgrade_with(healthy.module, true)),
                "apply" => outcome(&node.apply(step.argument.as_bytes())),
                "query" => outcome(&node.query(step.argument.as_bytes())),
                "snapshot" => {
                    node.take_snapshot();
                    continue;
                }
                "restart" => {
                    node.restart();
                    continue;
                }
                other => panic!("{other:?} is no step"),
            };
            assert_eq!(found.0, step.expected, "{step:?}: {}", found.1);
            if let Some(words) = &step.words {
                assert!(found.1.contains(words.as_str()), "{step:?}: {}", found.1);
            }
            match (step.verb.as_str(), found.0.as_str()) {
                ("upgrade", "active") => hostile_is_active = true,
                ("leave" | "abandon", "active") => hostile_is_active = false,
                ("leave", _) => may_leave = false,
                _ => {}
            }
        }
        finish(node, healthy, hostile_is_active, may_leave);
    }
}

/// Whatever happened: the node starts again from its log and from a snapshot, leaves the hostile
/// guest behind if that lets go, and the healthy one counts.
fn finish(node: &mut LoneNode, healthy: &Healthy<'_>, hostile_is_active: bool, may_leave: bool) {
    node.restart();
    node.take_snapshot();
    node.restart();
    if hostile_is_active {
        if !may_leave {
            return;
        }
        node.upgrade(healthy.module).expect("the healthy guest comes back");
    }
    let count = |outcome: Outcome| match outcome {
        Outcome::Ok(bytes) => u64::from_le_bytes(bytes.try_into().expect("a number")),
        other => panic!("the healthy guest: {other:?}"),
    };
    let before = count(node.query(b""));
    assert_eq!(count(node.apply(b"")), before + 1);
    node.restart();
    assert_eq!(count(node.query(b"")), before + 1);
}

fn told(result: Result<raft_host::node::Upgraded, UpgradeFailure>) -> (String, String) {
    match result {
        Ok(_) => ("active".to_owned(), String::new()),
        Err(UpgradeFailure::Refused(reason)) => ("refused".to_owned(), reason.to_string()),
        Err(UpgradeFailure::NotActivated(reason)) => ("failed".to_owned(), reason),
        Err(other) => panic!("{other}"),
    }
}

fn outcome(outcome: &Outcome) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match outcome {
        Outcome::Ok(bytes) => ("ok".to_owned(), text(bytes)),
        Outcome::Rejected(bytes) => ("rejected".to_owned(), text(bytes)),
        Outcome::Trapped(kind) => (format!("trapped {}", name(*kind)), String::new()),
        Outcome::Duplicate(_) => panic!("no sessions here"),
    }
}

fn name(kind: TrapKind) -> String {
    let name = serde_json::to_value(kind).expect("a kind is a word");
    name.as_str().expect("a kind is a word").to_owned()
}

fn parse_step(line: &str) -> Step {
    let (act, expected) = match line.split_once(" => ") {
        Some((act, expected)) => (act, expected),
        None => (line, ""),
    };
    let (verb, argument) = split_quoted(act);
    let (expected, words) = split_quoted(expected);
    Step { verb, argument: argument.unwrap_or_default(), expected, words }
}

/// `word "text"`, of which the text may be missing.
fn split_quoted(text: &str) -> (String, Option<String>) {
    match text.split_once(" \"") {
        None => (text.trim().to_owned(), None),
        Some((word, quoted)) => {
            let quoted = quoted.trim_end().strip_suffix('"');
            let quoted = quoted.unwrap_or_else(|| panic!("{text:?} lacks a closing quote"));
            (word.trim().to_owned(), Some(quoted.to_owned()))
        }
    }
}
