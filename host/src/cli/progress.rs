//! How far long work is, for people.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::output::human_bytes;

/// A line on a terminal's standard error that tells how many bytes there were; silent elsewhere.
pub(super) struct Progress {
    what: &'static str,
    began: Instant,
    told: Instant,
    is_shown: bool,
}

const PAUSE: Duration = Duration::from_millis(200);

impl Progress {
    pub(super) fn begin(what: &'static str) -> Progress {
        let now = Instant::now();
        Progress { what, began: now, told: now, is_shown: std::io::stderr().is_terminal() }
    }

    /// So many bytes until now.
    pub(super) fn tell(&mut self, bytes: u64) {
        if self.is_shown && self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            self.print(&line(self.what, bytes, self.began.elapsed()));
        }
    }

    fn print(&self, line: &str) {
        // A terminal that is gone needs none.
        let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown && self.told > self.began {
            self.print("");
        }
    }
}

fn line(what: &str, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = (bytes as f64 / seconds) as u64;
    format!("{what}: {} in {:.0} s ({}/s)", human_bytes(bytes), seconds, human_bytes(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_size_time_and_rate() {
        let line = line("saving", 10 << 20, Duration::from_secs(5));
        assert_eq!(line, "saving: 10.0 MiB in 5 s (2.0 MiB/s)");
    }
}
