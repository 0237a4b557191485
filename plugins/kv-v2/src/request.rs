//! What clients may say. Queries are the first version's.

use kv::request::{Text, present, required, unwanted};
use raft_fsm_sdk::{Rejection, json};
use serde::Deserialize;

/// A checked command.
pub(crate) enum Command<'a> {
    Set { key: Text<'a>, value: Text<'a>, ttl_ms: Option<u64> },
    Delete { key: Text<'a> },
    Cas { key: Text<'a>, expected: Option<Text<'a>>, value: Text<'a>, ttl_ms: Option<u64> },
    Expire { key: Text<'a>, ttl_ms: u64 },
    Persist { key: Text<'a> },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Set,
    Delete,
    Cas,
    Expire,
    Persist,
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
    ttl_ms: Option<u64>,
}

impl<'a> Command<'a> {
    /// Reads a command and checks that it has the fields of its operation and no others.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Command<'a>, Rejection> {
        let Flat { op, key, value, expected, ttl_ms } = json::parse("the command", bytes)?;
        if ttl_ms == Some(0) {
            return Err(Rejection::from("the command is malformed: `ttl_ms` must be at least 1"));
        }
        match op {
            Op::Set => {
                unwanted(&expected, "set", "expected")?;
                Ok(Command::Set { key, value: required(value, "set", "value")?, ttl_ms })
            }
            Op::Delete => {
                unwanted(&value, "delete", "value")?;
                unwanted(&expected, "delete", "expected")?;
                unwanted(&ttl_ms, "delete", "ttl_ms")?;
                Ok(Command::Delete { key })
            }
            Op::Cas => Ok(Command::Cas {
                key,
                expected: required(expected, "cas", "expected")?,
                value: required(value, "cas", "value")?,
                ttl_ms,
            }),
            Op::Expire => {
                unwanted(&value, "expire", "value")?;
                unwanted(&expected, "expire", "expected")?;
                Ok(Command::Expire { key, ttl_ms: required(ttl_ms, "expire", "ttl_ms")? })
            }
            Op::Persist => {
                unwanted(&value, "persist", "value")?;
                unwanted(&expected, "persist", "expected")?;
                unwanted(&ttl_ms, "persist", "ttl_ms")?;
                Ok(Command::Persist { key })
            }
        }
    }
}
