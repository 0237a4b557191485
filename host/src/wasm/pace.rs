//! When a checkpoint is worth its cost.
//!
//! Everything is counted in fuel, of which about three units are a nanosecond of a guest's work
//! (measured with the kv plugin).
//! A checkpoint costs a scan of the page table, which follows the size of memory, and then for
//! each page that was written a fault, a comparison and a copy. Let *C* be that cost for as
//! many pages as the last interval wrote. A checkpoint is due
//!
//! - when the commands since the last one have used [`FACTOR`] × *C*: checkpoints then cost
//!   no more than 1/[`FACTOR`] of the work, as long as intervals resemble each other;
//! - or when by the last interval's rate [`PAGES_MAX`] pages are written, if the scan is worth
//!   it: so that the one checkpoint that a snapshot begins with is short as well;
//! - or when the commands since, which are kept to be repeated, take much memory.
//!
//! A trap goes back to the checkpoint and repeats the commands since. If that was more work
//! than a checkpoint is now, *c* (the scan, and what was in fact written), one follows at once.
//! So a command takes part in at most one repetition that costs more than *c*. In a storm each
//! trapped command costs its own work and three times *c* at most: going back, repeating, and
//! the checkpoint. Only the first trap after a calm costs up to an interval's work besides,
//! which doubles what the commands of that interval cost, once.

use super::tracking::GRAIN_BYTES;

/// How many times the work since the last checkpoint must outweigh the next one.
pub(super) const FACTOR: u64 = 32;
/// The same for checkpoints that are only taken to keep them short.
const SHORT_FACTOR: u64 = 8;
/// And while an image holds on to the copy: each page that changes is then allocated anew, which
/// makes it five times as dear (7 to 10 µs, measured beside the threads that pack the image).
const SHORT_FACTOR_SHARED: u64 = 4;
/// And where the scan itself takes long.
const SHORT_FACTOR_COMPARED: u64 = 16;
/// Pages that one checkpoint may always have: a few milliseconds.
const PAGES_MAX: u64 = 1024;

/// Fuel that looking up one page of memory is worth, where the kernel tracks writes.
const SCAN_FUEL_PER_PAGE: u64 = 18;
/// The same where the page must be compared with its copy.
const COMPARE_FUEL_PER_PAGE: u64 = 1_500;
/// What one written page is worth: the fault of its first write.
const FAULT_FUEL_PER_PAGE: u64 = 4_500;
/// And its comparison and copy.
const COPY_FUEL_PER_PAGE: u64 = 3_000;

/// Bounds of what the commands to repeat may take.
const BUFFERED_BYTES_MIN: u64 = 8 << 20;
const BUFFERED_BYTES_MAX: u64 = 256 << 20;

/// What has happened since the last checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    /// Used by the commands since.
    pub(super) fuel: u64,
    /// What remembering them takes.
    pub(super) buffered_bytes: u64,
    /// Size of the guest's memory now.
    pub(super) memory_bytes: u64,
    /// An image holds on to the last checkpoint's copy.
    pub(super) is_shared: bool,
}

/// Learns from each checkpoint what the next may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    is_watched: bool,
    fuel_per_page: u64,
    /// Pages that the last interval wrote, and the fuel that it used.
    last_pages: u64,
    last_fuel: u64,
}

impl Pace {
    /// `is_watched`: the kernel tracks writes.
    pub(super) fn new(is_watched: bool) -> Pace {
        let fuel_per_page = if is_watched { SCAN_FUEL_PER_PAGE } else { COMPARE_FUEL_PER_PAGE };
        Pace { is_watched, fuel_per_page, last_pages: 0, last_fuel: 0 }
    }

    /// Only bounds what the commands since take.
    pub(super) fn rare() -> Pace {
        Pace { is_watched: false, fuel_per_page: u64::MAX, last_pages: 0, last_fuel: 0 }
    }

    /// Takes note of a checkpoint after `fuel` that found `pages` written.
    pub(super) fn learn(&mut self, fuel: u64, pages: u64) {
        self.last_pages = pages;
        self.last_fuel = fuel;
    }

    /// Whether a checkpoint should follow an ordinary command.
    pub(super) fn is_due(&self, since: Since) -> bool {
        let max_bytes = since.memory_bytes.clamp(BUFFERED_BYTES_MIN, BUFFERED_BYTES_MAX);
        since.buffered_bytes > max_bytes
            || since.fuel >= FACTOR.saturating_mul(self.cost(since.memory_bytes))
            || self.is_long(since)
    }

    /// Whether repeating the commands since, which have written `pages`, would take longer than
    /// a checkpoint now.
    pub(super) fn is_due_after_undo(&self, since: Since, pages: u64) -> bool {
        let copies = pages.saturating_mul(COPY_FUEL_PER_PAGE);
        since.fuel > self.scan_cost(since.memory_bytes).saturating_add(copies)
    }

    fn is_long(&self, since: Since) -> bool {
        let Some(pages) = since.fuel.saturating_mul(self.last_pages).checked_div(self.last_fuel)
        else {
            return false;
        };
        let work = since.fuel.saturating_add(pages.saturating_mul(FAULT_FUEL_PER_PAGE));
        let factor = match (self.is_watched, since.is_shared) {
            (false, _) => SHORT_FACTOR_COMPARED,
            (true, false) => SHORT_FACTOR,
            (true, true) => SHORT_FACTOR_SHARED,
        };
        pages >= PAGES_MAX && work >= factor.saturating_mul(self.scan_cost(since.memory_bytes))
    }

    /// What a checkpoint costs if as many pages were written as in the last interval.
    pub(super) fn cost(&self, memory_bytes: u64) -> u64 {
        let pages = self.last_pages.saturating_mul(FAULT_FUEL_PER_PAGE + COPY_FUEL_PER_PAGE);
        self.scan_cost(memory_bytes).saturating_add(pages)
    }

    fn scan_cost(&self, memory_bytes: u64) -> u64 {
        (memory_bytes / GRAIN_BYTES as u64).saturating_mul(self.fuel_per_page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(fuel: u64) -> Since {
        Since { fuel, buffered_bytes: 0, memory_bytes: 1 << 30, is_shared: false }
    }

    #[test]
    fn a_checkpoint_waits_until_the_work_outweighs_it() {
        let mut pace = Pace::new(true);
        let scan = pace.cost(1 << 30);
        assert!(!pace.is_due(since(FACTOR * scan - 1)));
        assert!(pace.is_due(since(FACTOR * scan)));
        pace.learn(FACTOR * scan, 1000);
        assert!(!pace.is_due(since(FACTOR * scan)));
        assert!(pace.is_due(since(FACTOR * (scan + 7_500_000))));
        assert!(!pace.is_due_after_undo(since(scan + 30_000), 10));
        assert!(pace.is_due_after_undo(since(scan + 30_001), 10));
    }

    #[test]
    fn commands_that_write_many_pages_are_checkpointed_earlier() {
        let mut pace = Pace::new(true);
        pace.learn(30_000_000, 100_000);
        assert!(!pace.is_due(since(300_000)));
        assert!(pace.is_due(since(9_000_000)));
    }

    #[test]
    fn an_image_makes_checkpoints_shorter() {
        let mut pace = Pace::new(true);
        pace.learn(10_000_000, 1_000);
        let alone = since(16_000_000);
        assert!(!pace.is_due(alone));
        assert!(pace.is_due(Since { is_shared: true, ..alone }));
        // But not when there is next to nothing to do.
        let little = Since { is_shared: true, ..since(9_000_000) };
        assert!(!pace.is_due(little));
    }

    #[test]
    fn many_small_commands_do_not_pile_up() {
        let pace = Pace::new(true);
        let mut since = since(0);
        since.buffered_bytes = BUFFERED_BYTES_MAX;
        assert!(!pace.is_due(since));
        since.buffered_bytes += 1;
        assert!(pace.is_due(since));
    }
}
