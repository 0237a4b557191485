//! The log of a session: everything in a file, the lines of the guest on the screen as well.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use anyhow::Context as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as lines};

use super::screen::Screen;

/// What the wasm room calls the lines of guests.
const TARGET: &str = "guest";
/// What the nodes call the threads that apply the log.
const APPLY_THREAD: &str = "apply";

/// Installs the process's subscriber.
pub(super) fn init(file: &Path, screen: &Arc<Screen>) -> anyhow::Result<()> {
    let file = File::options().create(true).append(true).open(file);
    let file = Mutex::new(file.context("creating the log file")?);
    tracing_subscriber::registry()
        .with(EnvFilter::new("warn,raft_host=info,guest=debug"))
        .with(lines::layer().with_ansi(false).with_writer(file))
        .with(GuestLines { screen: Arc::clone(screen), heard: Mutex::default() })
        .try_init()
        .context("starting the log")
}

/// Shows each line once: three nodes apply the same entry and log the same lines for it, so
/// the n-th line of an entry is shown when the first node writes it, and not again when
/// another does, or when a revived node applies its log once more.
struct GuestLines {
    screen: Arc<Screen>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Entry and number of the last line of each thread.
    last: HashMap<ThreadId, (u64, u64)>,
    /// The greatest of those.
    shown: (u64, u64),
}

impl Heard {
    fn is_new(&mut self, thread: ThreadId, index: u64) -> bool {
        let last = self.last.entry(thread).or_default();
        *last = if last.0 == index { (index, last.1 + 1) } else { (index, 1) };
        let is_new = *last > self.shown;
        self.shown = self.shown.max(*last);
        is_new
    }
}

impl<S: Subscriber> Layer<S> for GuestLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() != TARGET {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let thread = std::thread::current();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.name() == Some(APPLY_THREAD) && !heard.is_new(thread.id(), line.index) {
            return;
        }
        let (level, text) = (*event.metadata().level(), &line.text);
        let shown = format!("  {} {text}", level.as_str().to_lowercase());
        // Still locked: the next line, of another node perhaps, comes after this one.
        self.screen.say(&match level {
            Level::ERROR | Level::WARN => self.screen.red(&shown),
            _ => self.screen.dim(&shown),
        });
    }
}

#[derive(Default)]
struct Line {
    index: u64,
    text: String,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "index" {
            self.index = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.text, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_three_nodes_write_is_shown_once() {
        let mut heard = Heard::default();
        let ids: Vec<_> = (0..2)
            .map(|_| std::thread::spawn(|| std::thread::current().id()).join().expect("a thread"))
            .collect();
        assert!(heard.is_new(ids[0], 5) && heard.is_new(ids[0], 5), "two lines of one entry");
        assert!(!heard.is_new(ids[1], 5) && !heard.is_new(ids[1], 5), "from another node");
        assert!(heard.is_new(ids[1], 6), "whichever node is first");
        assert!(!heard.is_new(ids[0], 6));
    }
}
