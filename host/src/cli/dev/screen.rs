//! Where dev writes. Lines that come while somebody types appear above what is typed.

use std::io::Write as _;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};

/// Lines that may wait for the editor to print them. What is more is in the log file only.
pub(super) const WAITING_LINES: usize = 4_096;

/// Standard output, shared by all tasks.
pub(super) struct Screen {
    state: Mutex<State>,
    colours: bool,
}

struct State {
    /// There is one if there is an editor.
    above: Option<SyncSender<String>>,
    /// The editor owns the terminal.
    editing: bool,
}

impl Screen {
    pub(super) fn new(above: Option<SyncSender<String>>) -> Screen {
        let colours = above.is_some() && std::env::var_os("NO_COLOR").is_none();
        Screen { state: Mutex::new(State { above, editing: false }), colours }
    }

    /// Shows lines.
    pub(super) fn say(&self, text: &str) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.above.as_ref().filter(|_| state.editing) {
            Some(above) => {
                for line in text.trim_end_matches('\n').split('\n') {
                    if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                        above.try_send(line.to_owned())
                    {
                        break;
                    }
                }
            }
            None => {
                let mut out = std::io::stdout().lock();
                // Nobody is left to tell when standard output is gone.
                let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
                let _ = out.flush();
            }
        }
    }

    /// The editor takes the terminal, or gives it back.
    pub(super) fn set_editing(&self, editing: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).editing = editing;
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.colour("2", text)
    }

    pub(super) fn red(&self, text: &str) -> String {
        self.colour("31", text)
    }

    pub(super) fn green(&self, text: &str) -> String {
        self.colour("32", text)
    }

    fn colour(&self, code: &str, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        // Each line by itself: the editor may come between them.
        let lines: Vec<_> =
            text.lines().map(|line| format!("\u{1b}[{code}m{line}\u{1b}[0m")).collect();
        lines.join("\n")
    }
}
