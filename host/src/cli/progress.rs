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
