//! Where lines come from: an editor on a terminal, or a pipe.

use std::borrow::Cow;
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context as _;
use reedline::{
    Emacs, ExternalPrinter, FileBackedHistory, KeyCode, KeyModifiers, Prompt, PromptEditMode,
    PromptHistorySearch, Reedline, ReedlineEvent, Signal, default_emacs_keybindings,
};
use tokio::sync::{mpsc, oneshot};

use super::line::NODES;
use super::screen::Screen;

/// Lines that are remembered between sessions.
const HISTORY_LINES: usize = 1_000;

/// What somebody did.
pub(super) enum Input {
    /// A line; the next one is asked for when the sender is used or dropped.
    Line(String, oneshot::Sender<()>),
    /// There will be no more.
    End,
}

/// What the prompt shows besides the line.
#[derive(Default)]
pub(super) struct Standing {
    /// Nodes that run.
    pub(super) alive: AtomicUsize,
}

/// An editor on the terminal, with a key for each node.
pub(super) fn editor(
    history: &Path,
    printer: ExternalPrinter<String>,
    ending: Arc<AtomicBool>,
) -> anyhow::Result<Reedline> {
    let history = FileBackedHistory::with_file(HISTORY_LINES, history.to_owned())
        .context("opening the history")?;
    let mut keys = default_emacs_keybindings();
    for (number, digit) in (1..=NODES).zip('1'..) {
        let toggle = || ReedlineEvent::ExecuteHostCommand(format!(":toggle {number}"));
        keys.add_binding(KeyModifiers::NONE, KeyCode::F(number as u8), toggle());
        keys.add_binding(KeyModifiers::ALT, KeyCode::Char(digit), toggle());
    }
    Ok(Reedline::create()
        .with_history(Box::new(history))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_external_printer(printer)
        .with_break_signal(ending))
}

/// Reads lines from the editor until it ends. Blocks.
pub(super) fn edit(
    mut editor: Reedline,
    name: &str,
    standing: &Standing,
    screen: &Screen,
    input: &mpsc::Sender<Input>,
) {
    loop {
        let sign = Sign { name, alive: standing.alive.load(Ordering::Relaxed) };
        screen.set_editing(true);
        let read = editor.read_line(&sign);
        screen.set_editing(false);
        let line = match read {
            Ok(Signal::Success(line) | Signal::HostCommand(line)) => line,
            Ok(_) => break,
            Err(error) => {
                screen.say(&format!("the terminal cannot be read: {error}"));
                break;
            }
        };
        if !hand_over(line, input) {
            return;
        }
    }
    // Nobody listens if it was the other side that ended.
    let _ = input.blocking_send(Input::End);
}

/// Reads lines from standard input until it ends. Blocks.
pub(super) fn read_pipe(screen: &Screen, input: &mpsc::Sender<Input>) {
    for line in std::io::stdin().lock().lines() {
        match line {
            Ok(line) => {
                if !hand_over(line, input) {
                    return;
                }
            }
            Err(error) => {
                screen.say(&format!("standard input cannot be read: {error}"));
                break;
            }
        }
    }
    // Nobody listens if it was the other side that ended.
    let _ = input.blocking_send(Input::End);
}

/// Whether somebody took it.
fn hand_over(line: String, input: &mpsc::Sender<Input>) -> bool {
    let (done, wait) = oneshot::channel();
    if input.blocking_send(Input::Line(line, done)).is_err() {
        return false;
    }
    // Dropped without a word: done as well.
    let _ = wait.blocking_recv();
    true
}

/// `counter 3/3> `
struct Sign<'a> {
    name: &'a str,
    alive: usize,
}

impl Prompt for Sign<'_> {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        match self.alive {
            0 => self.name.into(),
            alive if alive > NODES / 2 => format!("{} {alive}/{NODES}", self.name).into(),
            alive => format!("{} {alive}/{NODES} no quorum", self.name).into(),
        }
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        "> ".into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        ". ".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(search: {}) ", search.term).into()
    }
}
