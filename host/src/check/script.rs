//! Conformance scripts: what a state machine is asked, and what it must answer.
//! `guest-sdk/conformance/FORMAT.md` is the reference.

use crate::types::{ActorName, TrapKind};

/// Longest input that `apply-fill` and `query-fill` write.
const FILL_MAX_BYTES: usize = 64 << 20;

const STEPS: &str = "apply, apply-hex, apply-fill, query, query-hex, query-fill, classify, check, \
    state-version, restores, actor, advance, renew";
const EXPECTATIONS: &str = "ok, ok-hex, ok-any, ok-contains, ok-length, rejected, rejected-any, \
    rejected-contains, trapped, trapped-any, answered, event, event-none, log";

/// A script that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it is called in messages: the file's name.
    pub name: String,
    pub(super) steps: Vec<Step>,
}

/// One thing that is done, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) action: Action,
    pub(super) expectations: Vec<(usize, Expectation)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Apply(Vec<u8>),
    Query(Vec<u8>),
    Classify(Vec<u8>),
    Check,
    StateVersion,
    Restores(String),
    Actor(ActorName),
    Advance(u64),
    Renew,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// May hold `${index}` and `${time_ms}`.
    Ok(String),
    OkHex(Vec<u8>),
    OkAny,
    OkContains(String),
    OkLength(usize),
    Rejected(String),
    RejectedAny,
    RejectedContains(String),
    Trapped(TrapKind),
    TrappedAny,
    Answered,
    Event(String, String),
    EventNone,
    Log(Level, String),
}

impl Expectation {
    /// Whether it says how the call ended.
    pub(super) fn is_about_the_end(&self) -> bool {
        !matches!(self, Expectation::Event(..) | Expectation::EventNone | Expectation::Log(..))
    }
}

/// Weight of a line that a guest logs, as the ABI names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ScriptError {
    /// The script's name.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// The first line that is not what `FORMAT.md` allows.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Script, ScriptError> {
        let mut steps: Vec<Step> = Vec::new();
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = at + 1;
            let error =
                |message: String| ScriptError { file: name.to_owned(), line: number, message };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).map_err(|_| {
                error("this line is not UTF-8; write its bytes with apply-hex or ok-hex".into())
            })?;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match read_line(line).map_err(error)? {
                Line::Step(action) => {
                    steps.push(Step { line: number, action, expectations: Vec::new() });
                }
                Line::Expectation(expectation) => {
                    let step = steps.last_mut().ok_or_else(|| {
                        error("an expectation needs a step before it, such as `apply 5`".into())
                    })?;
                    check_fits(step, &expectation).map_err(error)?;
                    step.expectations.push((number, expectation));
                }
            }
        }
        if steps.is_empty() {
            let message = format!("the script has no step; write one of: {STEPS}");
            return Err(ScriptError { file: name.to_owned(), line: 1, message });
        }
        Ok(Script { name: name.to_owned(), steps })
    }

    /// Its commands, in order.
    pub(super) fn commands(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Apply(command) => Some(&command[..]),
            _ => None,
        })
    }

    /// Its queries, in order.
    pub(super) fn queries(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Query(query) => Some(&query[..]),
            _ => None,
        })
    }

    /// Whether it has the state machine break its own rules, and expects that.
    pub(super) fn breaks_rules(&self) -> bool {
        let is_broken = |(_, expectation): &(usize, Expectation)| {
            matches!(
                expectation,
                Expectation::Rejected(_)
                    | Expectation::RejectedAny
                    | Expectation::RejectedContains(_)
            )
        };
        let checks = self.steps.iter().filter(|step| step.action == Action::Check);
        checks.flat_map(|step| &step.expectations).any(is_broken)
    }
}

fn check_fits(step: &Step, expectation: &Expectation) -> Result<(), String> {
    let without_outcome = match step.action {
        Action::Advance(_) => Some("advance"),
        Action::Actor(_) => Some("actor"),
        Action::Apply(_)
        | Action::Query(_)
        | Action::Classify(_)
        | Action::Check
        | Action::StateVersion
        | Action::Restores(_)
        | Action::Renew => None,
    };
    if let Some(word) = without_outcome {
        return Err(format!("`{word}` has no outcome; put the expectation after a command"));
    }
    let lists = |wanted: fn(&Expectation) -> bool| step.expectations.iter().any(|(_, e)| wanted(e));
    match expectation {
        Expectation::Event(..) if lists(|e| *e == Expectation::EventNone) => {
            Err("`event` contradicts the `event-none` above it; keep one of them".to_owned())
        }
        Expectation::EventNone if lists(|e| matches!(e, Expectation::Event(..))) => {
            Err("`event-none` contradicts the `event` above it; keep one of them".to_owned())
        }
        _ => Ok(()),
    }
}

enum Line {
    Step(Action),
    Expectation(Expectation),
}

fn read_line(line: &str) -> Result<Line, String> {
    let (word, rest) = match line.split_once(' ') {
        Some((word, rest)) => (word, Some(rest)),
        None => (line, None),
    };
    let text = rest.unwrap_or_default();
    let alone = |line: Line| match rest {
        None => Ok(line),
        Some(_) => Err(format!("`{word}` stands alone; remove what follows it")),
    };
    let step = |action| Ok(Line::Step(action));
    let expect = |expectation| Ok(Line::Expectation(expectation));
    match word {
        "apply" => step(Action::Apply(text.as_bytes().to_vec())),
        "apply-hex" => step(Action::Apply(hex(text)?)),
        "apply-fill" => step(Action::Apply(fill(word, text)?)),
        "query" => step(Action::Query(text.as_bytes().to_vec())),
        "query-hex" => step(Action::Query(hex(text)?)),
        "query-fill" => step(Action::Query(fill(word, text)?)),
        "classify" => step(Action::Classify(text.as_bytes().to_vec())),
        "check" => alone(Line::Step(Action::Check)),
        "state-version" => alone(Line::Step(Action::StateVersion)),
        "restores" => step(Action::Restores(some(word, text)?)),
        "actor" => match text {
            "" => step(Action::Actor(ActorName::NONE)),
            name => step(Action::Actor(name.parse().map_err(|error| format!("{error}"))?)),
        },
        "advance" => match text.parse() {
            Ok(by_ms) => step(Action::Advance(by_ms)),
            Err(_) => {
                Err("write `advance MS`, milliseconds in decimal, such as `advance 1500`".into())
            }
        },
        "renew" => alone(Line::Step(Action::Renew)),
        "ok" => expect(Expectation::Ok(text.to_owned())),
        "ok-hex" => expect(Expectation::OkHex(hex(text)?)),
        "ok-any" => alone(Line::Expectation(Expectation::OkAny)),
        "ok-contains" => expect(Expectation::OkContains(some(word, text)?)),
        "ok-length" => match text.parse() {
            Ok(length) => expect(Expectation::OkLength(length)),
            Err(_) => {
                Err("write `ok-length COUNT`, bytes in decimal, such as `ok-length 32`".into())
            }
        },
        "rejected" => expect(Expectation::Rejected(text.to_owned())),
        "rejected-any" => alone(Line::Expectation(Expectation::RejectedAny)),
        "rejected-contains" => expect(Expectation::RejectedContains(some(word, text)?)),
        "trapped" => expect(Expectation::Trapped(trap_kind(text)?)),
        "trapped-any" => alone(Line::Expectation(Expectation::TrappedAny)),
        "answered" => alone(Line::Expectation(Expectation::Answered)),
        "event-none" => alone(Line::Expectation(Expectation::EventNone)),
        "event" => {
            let (topic, data) = text.split_once(' ').unwrap_or((text, ""));
            match topic {
                "" => Err("write `event TOPIC TEXT`".to_owned()),
                _ => expect(Expectation::Event(topic.to_owned(), data.to_owned())),
            }
        }
        "log" => {
            let (level, text) = text.split_once(' ').unwrap_or((text, ""));
            let level = match level {
                "error" => Level::Error,
                "warn" => Level::Warn,
                "info" => Level::Info,
                "debug" => Level::Debug,
                _ => return Err("write `log LEVEL TEXT` with error, warn, info or debug".into()),
            };
            expect(Expectation::Log(level, text.to_owned()))
        }
        _ => Err(format!(
            "`{word}` is neither a step ({STEPS}) nor an expectation ({EXPECTATIONS}); \
             a comment begins with #"
        )),
    }
}

fn some(word: &str, text: &str) -> Result<String, String> {
    match text {
        "" => Err(format!("`{word}` needs a text behind it")),
        text => Ok(text.to_owned()),
    }
}

fn trap_kind(text: &str) -> Result<TrapKind, String> {
    TrapKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<&str> = TrapKind::ALL.into_iter().map(TrapKind::name).collect();
        format!("`trapped` needs a kind, one of: {}; or write `trapped-any`", names.join(", "))
    })
}

fn fill(word: &str, text: &str) -> Result<Vec<u8>, String> {
    let usage = || format!("write `{word} COUNT HEX`, such as `{word} 1000 61`");
    let (count, pattern) = text.split_once(' ').ok_or_else(usage)?;
    let count: usize = count.parse().map_err(|_| usage())?;
    let pattern = hex(pattern)?;
    if pattern.is_empty() {
        return Err(usage());
    }
    if count > FILL_MAX_BYTES {
        return Err(format!(
            "`{word}` writes at most {FILL_MAX_BYTES} bytes; write a smaller COUNT"
        ));
    }
    let mut filled = pattern.repeat(count.div_ceil(pattern.len()));
    filled.truncate(count);
    Ok(filled)
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        Some(_) => Err("an odd number of hexadecimal digits; write two for each byte".to_owned()),
        None => Err("not hexadecimal; write digits 0-9 and a-f without spaces".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(script: &str) -> String {
        Script::parse("s.script", script.as_bytes()).expect_err("malformed").to_string()
    }

    #[test]
    fn text_is_taken_as_it_stands() {
        let script =
            Script::parse("s", b"# c\r\n\napply  a b \r\nok x\napply\nevent t \n").unwrap();
        assert_eq!(script.commands().collect::<Vec<_>>(), [&b" a b "[..], b""]);
        assert_eq!(script.steps[0].line, 3);
        assert_eq!(script.steps[0].expectations, [(4, Expectation::Ok("x".into()))]);
        let event = Expectation::Event("t".into(), String::new());
        assert_eq!(script.steps[1].expectations, [(6, event)]);
    }

    #[test]
    fn bytes_are_written_in_hexadecimal_or_repeated() {
        let script = Script::parse("s", b"apply-hex 00fF\nquery-fill 5 6162\napply-hex").unwrap();
        assert_eq!(script.commands().collect::<Vec<_>>(), [&[0, 255][..], b""]);
        assert_eq!(script.queries().collect::<Vec<_>>(), [b"ababa"]);
    }

    #[test]
    fn a_wrong_line_is_named_with_what_to_write_instead() {
        assert!(error("\naply 5").starts_with("s.script:2: `aply` is neither a step (apply, "));
        assert_eq!(
            error("ok 5"),
            "s.script:1: an expectation needs a step before it, such as `apply 5`"
        );
        assert!(error("apply-hex 0").contains("odd number"));
        assert!(error("apply-hex 0g").contains("not hexadecimal"));
        assert!(error("apply-fill 3").contains("write `apply-fill COUNT HEX`"));
        assert!(error("apply-fill 99999999999 61").contains("at most"));
        assert!(error("advance soon").contains("write `advance MS`"));
        assert!(error("advance 5\nok").contains("`advance` has no outcome"));
        assert!(error("actor a\nok").contains("`actor` has no outcome"));
        assert!(error("actor a b").contains("\"a b\" is no name"));
        assert!(error("apply\ntrapped hard").contains("out_of_fuel"));
        assert!(error("apply\nlog loud x").contains("error, warn, info or debug"));
        assert!(error("renew now").contains("stands alone"));
        assert!(error("check now").contains("stands alone"));
        assert!(error("restores").contains("needs a text"));
        assert!(error("apply\nevent a b\nevent-none").contains("contradicts"));
        assert!(error("# nothing").contains("no step"));
        let not_text = Script::parse("s", b"apply \xff").unwrap_err().to_string();
        assert!(not_text.contains("apply-hex"), "{not_text}");
    }
}
