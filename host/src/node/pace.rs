//! How long writes have taken lately: a sliding minute, for people.
//!
//! The histogram of the metrics counts from the start of the process, so what was slow an hour ago is in
//! it for ever, and what is slow now shows only in the difference of two readings.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The minute is looked at in so many parts; the oldest goes at once.
const PARTS: usize = 12;
const PART: Duration = Duration::from_secs(5);
/// Each doubling is divided into so many; what is told is too long by at most an eighth.
const DIVISIONS_LOG2: u32 = 3;
const DOUBLINGS: usize = 27;
const BUCKETS: usize = (DOUBLINGS + 1) << DIVISIONS_LOG2;
/// So much of the writes may take longer than the 99th percentile.
const TAIL: u64 = 100;

#[derive(Debug)]
struct Part {
    /// Counted from the beginning.
    number: u64,
    counts: [u32; BUCKETS],
}

/// See the module.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    parts: Mutex<Vec<Part>>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { began: Instant::now(), parts: Mutex::default() }
    }
}

impl Pace {
    /// Something has ended, and took so long.
    pub(super) fn observe(&self, took: Duration) {
        self.observe_at(self.began.elapsed(), took);
    }

    /// What at most the hundredth part took longer than in the last minute, but one always may. `None`
    /// when there were fewer than two.
    pub fn p99(&self) -> Option<Duration> {
        self.p99_at(self.began.elapsed())
    }

    fn observe_at(&self, now: Duration, took: Duration) {
        let number = part_of(now);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let place = number as usize % PARTS;
        while parts.len() <= place {
            parts.push(Part { number: u64::MAX, counts: [0; BUCKETS] });
        }
        let part = &mut parts[place];
        if part.number != number {
            *part = Part { number, counts: [0; BUCKETS] };
        }
        let count = &mut part.counts[bucket_of(took)];
        *count = count.saturating_add(1);
    }

    fn p99_at(&self, now: Duration) -> Option<Duration> {
        let number = part_of(now);
        let mut counts = [0_u64; BUCKETS];
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent =
            |part: &&Part| number.checked_sub(part.number).is_some_and(|age| age < PARTS as u64);
        for part in parts.iter().filter(is_recent) {
            counts.iter_mut().zip(part.counts).for_each(|(sum, count)| *sum += u64::from(count));
        }
        drop(parts);
        let all: u64 = counts.iter().sum();
        let mut beyond = (all / TAIL).max(1);
        for (bucket, count) in counts.iter().enumerate().rev() {
            match beyond.checked_sub(*count) {
                Some(left) => beyond = left,
                None => return Some(end_of(bucket)),
            }
        }
        None
    }
}

fn part_of(now: Duration) -> u64 {
    now.as_secs() / PART.as_secs()
}

fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2();
    // The bits behind the first one.
    let rest = (micros << DIVISIONS_LOG2 >> doubling) as usize & ((1 << DIVISIONS_LOG2) - 1);
    (((doubling as usize) << DIVISIONS_LOG2) + rest).min(BUCKETS - 1)
}

fn end_of(bucket: usize) -> Duration {
    let (doubling, rest) = (bucket >> DIVISIONS_LOG2, bucket & ((1 << DIVISIONS_LOG2) - 1));
    let eighths = (1_u64 << DIVISIONS_LOG2) + rest as u64 + 1;
    Duration::from_micros((eighths << doubling) >> DIVISIONS_LOG2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_told_is_too_long_by_an_eighth_at_most() {
        for micros in (1..200_000).step_by(37).chain([60_000_000]) {
            let took = Duration::from_micros(micros);
            let told = end_of(bucket_of(took));
            assert!(told >= took && told <= took + took / 8 + MS / 1000, "{took:?}: {told:?}");
        }
        assert!(end_of(bucket_of(Duration::MAX)) > Duration::from_secs(100));
    }

    #[test]
    fn one_in_a_hundred_may_be_slow_and_one_always() {
        let pace = Pace::default();
        let now = Duration::from_secs(7);
        assert_eq!(pace.p99_at(now), None);
        pace.observe_at(now, 900 * MS);
        assert_eq!(pace.p99_at(now), None, "one says nothing");
        for _ in 0..100 {
            pace.observe_at(now, MS);
        }
        assert!(pace.p99_at(now).expect("enough") < 2 * MS, "one of a hundred is the hiccup");
        pace.observe_at(now, 800 * MS);
        let slow = pace.p99_at(now).expect("enough");
        assert!((800 * MS..=900 * MS).contains(&slow), "{slow:?}");
    }

    #[test]
    fn what_is_older_than_a_minute_counts_no_more() {
        let pace = Pace::default();
        let at = Duration::from_secs;
        for second in 0..200 {
            pace.observe_at(at(second), if second < 60 { 700 * MS } else { MS });
        }
        assert!(pace.p99_at(at(199)).expect("enough") < 2 * MS);
        assert_eq!(pace.p99_at(at(300)), None, "nothing was written for a minute");
    }
}
