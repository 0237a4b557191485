//! Log lines for machines: one JSON object each, in which a field has one type.
//!
//! Numbers are recorded as such in some places and as text in others, where they come in a type of
//! their own (`term = %term`). Whoever reads the lines would find both `"term":10` and `"term":"10"`.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields that are numbers however they are recorded.
const NUMBERS: &[&str] = &[
    "asked", "at", "by", "first", "from", "group", "index", "last", "leader", "node", "peer",
    "point", "term", "to", "verdict", "voters",
];

/// See the module.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Line(Map::new());
        line.0.insert("timestamp".to_owned(), time.into());
        line.0.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut line);
        line.0.insert("target".to_owned(), event.metadata().target().into());
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match text.parse::<u64>() {
            Ok(number) if NUMBERS.contains(&field.name()) => self.put(field, number),
            _ => self.put(field, text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::types::{NodeId, Term};

    #[test]
    fn a_field_has_the_same_type_in_every_line() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&written);
        let writer = move || {
            struct Into(Arc<Mutex<Vec<u8>>>);
            impl std::io::Write for Into {
                fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                    self.0.lock().expect("lock").write(bytes)
                }
                fn flush(&mut self) -> std::io::Result<()> {
                    Ok(())
                }
            }
            Into(Arc::clone(&into))
        };
        let layer = fmt::layer().with_writer(writer).event_format(JsonLines);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(term = %Term(10), leader = 3, "one");
            tracing::warn!(term = 11, leader = %NodeId(4), hash = %"123456789012", "two");
        });
        let bytes = std::mem::take(&mut *written.lock().expect("lock"));
        let lines: Vec<Value> = String::from_utf8(bytes)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!((&lines[0]["term"], &lines[0]["leader"]), (&10.into(), &3.into()));
        assert_eq!((&lines[1]["term"], &lines[1]["leader"]), (&11.into(), &4.into()));
        assert_eq!(lines[1]["hash"], "123456789012", "a hash is none, whatever its digits");
        assert_eq!((&lines[1]["level"], &lines[1]["message"]), (&"WARN".into(), &"two".into()));
        for field in ["timestamp", "target"] {
            assert!(lines[0][field].is_string(), "{field} is missing");
        }
    }
}
