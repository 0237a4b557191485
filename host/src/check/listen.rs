//! Hears what a guest logs. Guests' lines go to `tracing`, on the thread that calls them;
//! nothing about the guest changes because somebody listens.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::script::Level;

/// A line of a guest.
pub(super) type LogLine = (Level, String);

/// Runs something and collects the guests' lines meanwhile.
pub(super) fn listening<T>(run: impl FnOnce() -> T) -> (T, Vec<LogLine>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let ear = Ear { lines: Arc::clone(&lines) };
    let result = tracing::subscriber::with_default(ear, run);
    let heard = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    (result, heard)
}

/// Runs something and lets nobody hear the guests' lines meanwhile.
pub(super) fn without_listening<T>(run: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), run)
}

struct Ear {
    lines: Arc<Mutex<Vec<LogLine>>>,
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == "guest"
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            _ => Level::Debug,
        };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((level, message.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
