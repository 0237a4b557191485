//! How far long work is, for people.

use indicatif::{ProgressBar, ProgressStyle};

/// Tells on a terminal's standard error how many bytes there were; silent elsewhere. What is shown goes with it.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn begin(what: &'static str) -> Progress {
        let template = "{spinner} {msg}: {bytes} in {elapsed}, {bytes_per_sec}";
        let style = ProgressStyle::with_template(template).expect("a constant template");
        Progress(ProgressBar::new_spinner().with_style(style).with_message(what))
    }

    /// So many bytes until now.
    pub(super) fn tell(&self, bytes: u64) {
        self.0.set_position(bytes);
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The same for what goes on for a while: in words.
pub(super) struct Words(ProgressBar);

impl Words {
    pub(super) fn begin(what: &'static str) -> Words {
        let template = "{spinner} {prefix} for {elapsed}: {msg}";
        let style = ProgressStyle::with_template(template).expect("a constant template");
        Words(ProgressBar::new_spinner().with_style(style).with_prefix(what))
    }

    /// As it is now.
    pub(super) fn tell(&self, words: String) {
        self.0.set_message(words);
        self.0.tick();
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The same for work whose end is known: how many of how many entries.
pub(super) struct Steps(ProgressBar);

impl Steps {
    pub(super) fn begin(what: &'static str) -> Steps {
        let template = "{spinner} {msg}: entry {pos} of {len}, {elapsed}";
        let style = ProgressStyle::with_template(template).expect("a constant template");
        Steps(ProgressBar::new_spinner().with_style(style).with_message(what))
    }

    /// So far until now.
    pub(super) fn tell(&self, at: u64, end: u64) {
        // To draw it costs more than most steps.
        if at.is_multiple_of(256) {
            self.0.set_length(end);
            self.0.set_position(at);
        }
    }
}

impl Steps {
    /// So far until now, and what came of it.
    pub(super) fn say(&self, at: u64, end: u64, what: String) {
        self.0.set_length(end);
        self.0.set_position(at);
        self.0.set_message(what);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
