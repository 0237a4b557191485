//! The time that entries are stamped with.
//!
//! ```text
//!   time = where the log is + monotonic time since, within what a majority's clocks allow
//!
//!     behind what they allow   goes to its lower end at once: days of downtime are followed
//!     ahead of it              goes on at half the speed until they have caught up
//!     no agreement             goes on by monotonic time
//! ```
//!
//! So no wall clock enters the log by itself, and time neither stands still nor goes back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::agreement::Interval;
use super::hands::MonotonicClock;

/// See the module. All times since the Unix epoch.
pub(in super::super) struct LogClock {
    steady: MonotonicClock,
    hand: Mutex<Hand>,
}

#[derive(Clone, Copy)]
struct Hand {
    time_us: i64,
    /// By the monotonic clock.
    at: Duration,
    is_slowed: bool,
    /// How often it was put forward on purpose.
    sets: u64,
}

/// How the clock stood to what was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steered {
    /// It was behind by so much, and went there. In microseconds.
    pub(super) skipped_us: i64,
    /// It is ahead by so much.
    pub(super) ahead_us: i64,
}

impl LogClock {
    /// A clock that is nowhere yet.
    pub(in super::super) fn new(steady: MonotonicClock) -> LogClock {
        let hand = Hand { time_us: 0, at: steady(), is_slowed: false, sets: 0 };
        LogClock { steady, hand: Mutex::new(hand) }
    }

    /// The time now, in milliseconds.
    pub(in super::super) fn now_ms(&self) -> u64 {
        let mut hand = self.hand();
        self.move_on(&mut hand);
        (hand.time_us / 1_000).max(0) as u64
    }

    /// The log has come to this time.
    pub(in super::super) fn follow(&self, log_ms: u64) {
        let mut hand = self.hand();
        self.move_on(&mut hand);
        let log_us = i64::try_from(log_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
        hand.time_us = hand.time_us.max(log_us);
    }

    /// An operator says that it is this time now.
    pub(in super::super) fn put_forward(&self, log_ms: u64) {
        self.follow(log_ms);
        self.hand().sets += 1;
    }

    /// How often that happened since the process started.
    pub(super) fn sets(&self) -> u64 {
        self.hand().sets
    }

    /// A majority's clocks agree that it is some time of this interval now.
    pub(super) fn steer(&self, allowed: Interval) -> Steered {
        let mut hand = self.hand();
        self.move_on(&mut hand);
        let skipped_us = (allowed.low - hand.time_us).max(0);
        hand.time_us += skipped_us;
        let ahead_us = (hand.time_us - allowed.high).max(0);
        hand.is_slowed = ahead_us > 0;
        Steered { skipped_us, ahead_us }
    }

    /// Nobody says any more that the clock is ahead.
    pub(super) fn release(&self) {
        let mut hand = self.hand();
        self.move_on(&mut hand);
        hand.is_slowed = false;
    }

    fn move_on(&self, hand: &mut Hand) {
        let passed = (self.steady)().saturating_sub(hand.at).as_micros() as u64;
        let counted = if hand.is_slowed { passed / 2 } else { passed };
        hand.time_us = hand.time_us.saturating_add_unsigned(counted);
        // Not to the moment itself: many looks would lose many parts of a microsecond.
        hand.at += Duration::from_micros(passed);
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        // Nothing panics while it is held, and a poisoned one is whole.
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock and the milliseconds of its monotonic time.
    fn clock() -> (LogClock, Arc<AtomicU64>) {
        let passed = Arc::new(AtomicU64::new(5_000));
        let hands = Arc::clone(&passed);
        let steady = Arc::new(move || Duration::from_millis(hands.load(Ordering::Relaxed)));
        (LogClock::new(steady), passed)
    }

    fn allowed(low_ms: i64, high_ms: i64) -> Interval {
        Interval { low: low_ms * 1_000, high: high_ms * 1_000 }
    }

    #[test]
    fn without_agreement_only_monotonic_time_passes_from_where_the_log_is() {
        let (clock, passed) = clock();
        clock.follow(1_000_000);
        passed.fetch_add(250, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 1_000_250);
        clock.follow(1_000_100);
        assert_eq!(clock.now_ms(), 1_000_250, "it does not go back");
        clock.follow(1_000_900);
        assert_eq!(clock.now_ms(), 1_000_900);
    }

    #[test]
    fn what_most_clocks_agree_on_is_followed_forward_at_once() {
        let (clock, passed) = clock();
        clock.follow(1_000_000);
        let steered = clock.steer(allowed(90_000_000, 90_000_020));
        assert_eq!(steered, Steered { skipped_us: 89_000_000_000, ahead_us: 0 });
        passed.fetch_add(10, Ordering::Relaxed);
        assert_eq!(clock.steer(allowed(90_000_005, 90_000_030)).skipped_us, 0, "within: stays");
        assert_eq!(clock.now_ms(), 90_000_010);
    }

    #[test]
    fn a_log_that_is_ahead_goes_on_at_half_the_speed_until_the_clocks_have_caught_up() {
        let (clock, passed) = clock();
        clock.follow(1_000_000);
        assert_eq!(clock.steer(allowed(0, 999_000)).ahead_us, 1_000_000);
        passed.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 1_000_500);
        assert_eq!(clock.steer(allowed(1_000, 1_000_000)).ahead_us, 500_000);
        passed.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(clock.steer(allowed(2_000, 1_001_000)).ahead_us, 0);
        passed.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 1_002_000);
        clock.steer(allowed(0, 1));
        clock.release();
        passed.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 1_003_000, "and nobody knows when nobody agrees");
    }
}
