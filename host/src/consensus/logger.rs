//! Passes raft-rs's `slog` records on to `tracing`.

use std::fmt::Write as _;

use slog::{Drain, Key, Level, OwnedKVList, Record, Serializer, o};

use crate::types::{GroupId, NodeId};

struct TracingDrain;

/// Collects a record's key-values as text.
#[derive(Default)]
struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}

impl Drain for TracingDrain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, context: &OwnedKVList) -> Result<(), slog::Never> {
        use slog::KV as _;
        // raft-rs tells every step of an election at `info`; that is our `debug`.
        macro_rules! forward {
            ($level:ident) => {
                if tracing::enabled!(target: "raft", tracing::Level::$level) {
                    let mut pairs = Pairs::default();
                    // Writing to a string cannot fail.
                    let _ = record.kv().serialize(record, &mut pairs);
                    let _ = context.serialize(record, &mut pairs);
                    tracing::event!(
                        target: "raft", tracing::Level::$level, "{}{}", record.msg(), pairs.0
                    );
                }
            };
        }
        match record.level() {
            Level::Critical | Level::Error => forward!(ERROR),
            Level::Warning => forward!(WARN),
            Level::Info => forward!(DEBUG),
            Level::Debug | Level::Trace => forward!(TRACE),
        }
        Ok(())
    }
}

/// A logger for one replica.
pub(super) fn logger(node: NodeId, group: GroupId) -> slog::Logger {
    slog::Logger::root(TracingDrain, o!("node" => node.0, "group" => group.0))
}
