//! Histories in files: one JSON object per line, one line per operation. `FORMAT.md` beside this
//! file describes it to people who want to judge a history with a checker of their own.

use std::io::{self, BufRead, Write};

use serde_json::{Map, Value as Json, json};

use super::{Action, Answer, Operation, Outcome, Value};

/// Why a line is no operation.
#[derive(Debug)]
pub enum ReadError {
    /// The file could not be read.
    Io(io::Error),
    /// A line is not in the format.
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Io(error) => write!(f, "cannot read the history: {error}"),
            ReadError::Line { number, why } => write!(f, "line {number}: {why}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Writes operations as they end.
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, one call per line; buffer it if that is slow.
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// Adds one operation.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&mut self, operation: &Operation) -> io::Result<()> {
        let mut line = to_json(operation).to_string();
        line.push('\n');
        self.out.write_all(line.as_bytes())
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a whole history. Blank lines are skipped.
///
/// # Errors
/// See [`ReadError`].
pub fn read(input: impl BufRead) -> Result<Vec<Operation>, ReadError> {
    let mut operations = Vec::new();
    for (at, line) in input.lines().enumerate() {
        let line = line.map_err(ReadError::Io)?;
        if line.trim().is_empty() {
            continue;
        }
        let operation = serde_json::from_str(&line)
            .map_err(|error| error.to_string())
            .and_then(|json: Json| from_json(&json))
            .map_err(|why| ReadError::Line { number: at + 1, why })?;
        operations.push(operation);
    }
    Ok(operations)
}

fn to_json(operation: &Operation) -> Json {
    let mut line = Map::new();
    line.insert("process".into(), json!(operation.process));
    line.insert("start_ns".into(), json!(operation.start_ns));
    line.insert("end_ns".into(), json!(operation.end_ns));
    line.insert("key".into(), json!(operation.key));
    let (op, arguments) = match operation.action {
        Action::Read => ("read", vec![]),
        Action::Write(value) => ("write", vec![("value", json!(value))]),
        Action::Delete => ("delete", vec![]),
        Action::CompareAndSet(expected, value) => {
            ("cas", vec![("expected", json!(expected)), ("value", json!(value))])
        }
        Action::Add(amount) => ("add", vec![("amount", json!(amount))]),
    };
    line.insert("op".into(), json!(op));
    line.extend(arguments.into_iter().map(|(name, value)| (name.into(), value)));
    let (outcome, result) = match operation.outcome {
        Outcome::Answered(Answer::Value(value)) => ("ok", Some(json!(value))),
        Outcome::Answered(Answer::Done) => ("ok", None),
        Outcome::Answered(Answer::Matched(matched)) => ("ok", Some(json!(matched))),
        Outcome::Failed => ("failed", None),
        Outcome::Unknown => ("unknown", None),
    };
    line.insert("outcome".into(), json!(outcome));
    line.extend(result.map(|result| ("result".into(), result)));
    Json::Object(line)
}

fn from_json(line: &Json) -> Result<Operation, String> {
    let number = |name: &str| {
        let value = line.get(name).and_then(Json::as_u64);
        value.ok_or_else(|| format!("`{name}` must be a whole number from 0 on"))
    };
    let integer = |name: &str| {
        let value = line.get(name).and_then(Json::as_i64);
        value.ok_or_else(|| format!("`{name}` must be a whole number"))
    };
    let nullable = |name: &str| match line.get(name) {
        Some(Json::Null) => Ok(None),
        Some(_) => integer(name).map(Some),
        None => Err(format!("`{name}` must be a whole number or null")),
    };
    let text = |name: &str| {
        let value = line.get(name).and_then(Json::as_str);
        value.ok_or_else(|| format!("`{name}` must be a string"))
    };
    let matched = || {
        let value = line.get("result").and_then(Json::as_bool);
        value.ok_or_else(|| "`result` must be true or false".to_owned())
    };
    let action = match text("op")? {
        "read" => Action::Read,
        "write" => Action::Write(integer("value")?),
        "delete" => Action::Delete,
        "cas" => Action::CompareAndSet(nullable("expected")?, integer("value")?),
        "add" => Action::Add(integer("amount")?),
        other => return Err(format!("unknown operation {other:?}")),
    };
    let outcome = match text("outcome")? {
        "ok" => Outcome::Answered(match action {
            Action::Read => Answer::Value(nullable("result")?),
            Action::Write(_) => Answer::Done,
            Action::Delete | Action::CompareAndSet(..) => Answer::Matched(matched()?),
            Action::Add(_) => Answer::Value(Value::Some(integer("result")?)),
        }),
        "failed" => Outcome::Failed,
        "unknown" => Outcome::Unknown,
        other => return Err(format!("unknown outcome {other:?}")),
    };
    Ok(Operation {
        process: number("process")?,
        key: text("key")?.to_owned(),
        action,
        outcome,
        start_ns: number("start_ns")?,
        end_ns: number("end_ns")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, outcome: Outcome) -> Operation {
        Operation { process: 3, key: "a \"b\"\n".into(), action, outcome, start_ns: 5, end_ns: 9 }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = |value| Outcome::Answered(Answer::Value(value));
        let matched = |matched| Outcome::Answered(Answer::Matched(matched));
        let history = [
            operation(Action::Read, value(None)),
            operation(Action::Read, value(Some(i64::MIN))),
            operation(Action::Read, Outcome::Unknown),
            operation(Action::Write(i64::MAX), Outcome::Answered(Answer::Done)),
            operation(Action::Write(-1), Outcome::Failed),
            operation(Action::Delete, matched(false)),
            operation(Action::CompareAndSet(None, 1), matched(true)),
            operation(Action::CompareAndSet(Some(4), 1), Outcome::Unknown),
            operation(Action::Add(2), value(Some(7))),
        ];
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file);
        for operation in &history {
            writer.write(operation).expect("a vector can be written");
        }
        writer.flush().expect("a vector can be written");
        assert_eq!(read(file.as_slice()).expect("in the format"), history);
        assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), history.len());
    }

    #[test]
    fn the_examples_in_the_document_are_in_the_format() {
        let document = include_str!("FORMAT.md");
        let examples: Vec<&str> =
            document.lines().map(str::trim).filter(|line| line.starts_with("{\"")).collect();
        assert!(examples.len() >= 8, "{examples:?}");
        for example in examples {
            let read = read(example.as_bytes()).unwrap_or_else(|why| panic!("{example}: {why}"));
            let written: Json = serde_json::from_str(example).expect("JSON");
            assert_eq!(to_json(&read[0]), written, "{example}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        let good = "{\"process\":1,\"start_ns\":0,\"end_ns\":1,\"key\":\"a\",\"op\":\"read\",\
            \"outcome\":\"ok\",\"result\":null}";
        assert_eq!(read(good.as_bytes()).expect("in the format").len(), 1);
        let wrong = [
            ("\"read\"", "\"reed\"", "unknown operation"),
            ("\"ok\"", "\"okay\"", "unknown outcome"),
            (",\"result\":null", "", "result"),
            ("\"start_ns\":0", "\"start_ns\":-1", "start_ns"),
            ("\"read\"", "\"write\"", "value"),
            ("}", "", "EOF"),
        ];
        for (from, to, expected) in wrong {
            let text = format!("{good}\n\n{}", good.replace(from, to));
            let said = read(text.as_bytes()).expect_err(to).to_string();
            assert!(said.starts_with("line 3: ") && said.contains(expected), "{said}");
        }
    }
}
