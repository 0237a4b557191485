//! What clients may say.
//!
//! Commands are one flat JSON object rather than a tagged enum, because serde copies the
//! fields of a tagged enum before it knows the tag, and commands come by the ten thousand.

use std::borrow::Cow;
use std::ops::{Bound, Deref};

use raft_fsm_sdk::{Rejection, json};
use serde::{Deserialize, Deserializer};

use crate::Table;

/// A JSON string, borrowed from the command unless it has escapes.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A checked command.
#[derive(Debug, PartialEq)]
pub enum Command<'a> {
    /// Stores a value.
    Set {
        /// Where.
        key: Text<'a>,
        /// What.
        value: Text<'a>,
    },
    /// Removes a key.
    Delete {
        /// Which.
        key: Text<'a>,
    },
    /// Stores a value if the current one is as expected.
    Cas {
        /// Where.
        key: Text<'a>,
        /// The value that must be there; `None`: the key must not exist.
        expected: Option<Text<'a>>,
        /// What.
        value: Text<'a>,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Set,
    Delete,
    Cas,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat<'a> {
    op: Op,
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<Option<Text<'a>>>,
}

/// Tells `null` from a missing field.
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// The field, or a rejection that names it.
pub fn required<T>(field: Option<T>, op: &str, name: &str) -> Result<T, Rejection> {
    field.ok_or_else(|| Rejection::from(format!("the command is malformed: {op} needs `{name}`")))
}

/// Refuses a field that would be ignored.
pub fn unwanted<T>(field: &Option<T>, op: &str, name: &str) -> Result<(), Rejection> {
    match field {
        None => Ok(()),
        Some(_) => Err(Rejection::from(format!("the command is malformed: {op} has no `{name}`"))),
    }
}

impl<'a> Command<'a> {
    /// Reads a command and checks that it has the fields of its operation and no others.
    pub fn parse(bytes: &'a [u8]) -> Result<Command<'a>, Rejection> {
        if let Some(command) = Command::parse_plain(bytes) {
            return Ok(command);
        }
        let Flat { op, key, value, expected } = json::parse("the command", bytes)?;
        match op {
            Op::Set => {
                unwanted(&expected, "set", "expected")?;
                Ok(Command::Set { key, value: required(value, "set", "value")? })
            }
            Op::Delete => {
                unwanted(&value, "delete", "value")?;
                unwanted(&expected, "delete", "expected")?;
                Ok(Command::Delete { key })
            }
            Op::Cas => Ok(Command::Cas {
                key,
                expected: required(expected, "cas", "expected")?,
                value: required(value, "cas", "value")?,
            }),
        }
    }
}

impl<'a> Command<'a> {
    /// The commands that come by the ten thousand, if nothing about them is unusual.
    fn parse_plain(bytes: &'a [u8]) -> Option<Command<'a>> {
        const NAMES: json::Names<4> = json::Names::new(["op", "key", "value", "expected"]);
        let texts = NAMES.plain_texts(bytes)?;
        let text = |text| Text(Cow::Borrowed(text));
        match texts {
            [Some("set"), Some(key), Some(value), None] => {
                Some(Command::Set { key: text(key), value: text(value) })
            }
            [Some("delete"), Some(key), None, None] => Some(Command::Delete { key: text(key) }),
            [Some("cas"), Some(key), Some(value), Some(expected)] => {
                let expected = Some(text(expected));
                Some(Command::Cas { key: text(key), expected, value: text(value) })
            }
            _ => None,
        }
    }
}

/// A question.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Query<'a> {
    /// One value.
    Get {
        /// Its key.
        #[serde(borrow)]
        key: Text<'a>,
    },
    /// Values in the order of their keys (as UTF-8 bytes).
    #[serde(borrow)]
    Range(Range<'a>),
    /// How many keys there are.
    Count {},
}

/// Which keys; what is absent does not restrict.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Range<'a> {
    /// The first key.
    #[serde(borrow, default)]
    pub start: Option<Text<'a>>,
    /// The key before which to stop.
    #[serde(borrow, default)]
    pub end: Option<Text<'a>>,
    /// What all keys begin with.
    #[serde(borrow, default)]
    pub prefix: Option<Text<'a>>,
    /// Most entries to answer.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

fn default_limit() -> usize {
    100
}

impl Range<'_> {
    /// The entries of the range, without the limit.
    pub fn of<'t, V>(&'t self, table: &'t Table<V>) -> impl Iterator<Item = (&'t str, &'t V)> {
        let start = self.start.as_deref().unwrap_or("");
        let prefix = self.prefix.as_deref().unwrap_or("");
        let end = self.end.as_deref();
        table
            .range::<str, _>((Bound::Included(start.max(prefix)), Bound::Unbounded))
            .map(|(key, value)| (&**key, value))
            .take_while(move |(key, _)| key.starts_with(prefix) && end.is_none_or(|end| *key < end))
    }
}
