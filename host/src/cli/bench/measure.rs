//! What a benchmark counts, and how the result reads.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::output::{facts, human_count};

/// Longest latency that is told apart from longer ones.
const LATENCY_MAX_US: u64 = 120_000_000;
/// Clients share these, so that they rarely wait for each other.
const SHARDS: usize = 8;
/// Different error messages that are kept; they have no bound of their own.
const ERRORS_KEPT: usize = 8;

/// When is measured: operations that end within count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Interval {
    /// Begins after the warm-up.
    pub(super) fn after(warmup: Duration, length: Duration) -> Interval {
        let from = Instant::now() + warmup;
        Interval { from, to: from + length }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.to
    }

    fn contains(&self, moment: Instant) -> bool {
        (self.from..self.to).contains(&moment)
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ok,
    Rejected,
    Trapped,
    /// It has no outcome; why.
    Failed(String),
}

/// What some clients have counted.
struct Counts {
    latency_us: Histogram<u64>,
    rejected: u64,
    trapped: u64,
    failed: u64,
    errors: BTreeMap<String, u64>,
}

impl Counts {
    fn new() -> Counts {
        Counts {
            latency_us: Histogram::new_with_max(LATENCY_MAX_US, 3)
                .expect("bounds and digits are constants that fit"),
            rejected: 0,
            trapped: 0,
            failed: 0,
            errors: BTreeMap::new(),
        }
    }
}

/// Where all clients of a benchmark count.
pub(super) struct Recorder {
    interval: Interval,
    shards: Vec<Mutex<Counts>>,
}

impl Recorder {
    pub(super) fn new(interval: Interval) -> Recorder {
        let shards = std::iter::repeat_with(|| Mutex::new(Counts::new())).take(SHARDS).collect();
        Recorder { interval, shards }
    }

    pub(super) fn interval(&self) -> &Interval {
        &self.interval
    }

    /// Counts `count` operations of a client that began and ended together.
    pub(super) fn record(
        &self,
        client: usize,
        began: Instant,
        ended: Instant,
        ending: Ending,
        count: u64,
    ) {
        if count == 0 || !self.interval.contains(ended) {
            return;
        }
        let mut counts =
            self.shards[client % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        match ending {
            Ending::Ok => {}
            Ending::Rejected => counts.rejected += count,
            Ending::Trapped => counts.trapped += count,
            Ending::Failed(reason) => {
                counts.failed += count;
                if counts.errors.len() < ERRORS_KEPT || counts.errors.contains_key(&reason) {
                    *counts.errors.entry(reason).or_default() += count;
                }
                return;
            }
        }
        let latency = (ended - began).as_micros().min(u128::from(LATENCY_MAX_US)) as u64;
        counts.latency_us.saturating_record_n(latency.max(1), count);
    }

    /// Adds everything up.
    pub(super) fn result(&self) -> Measured {
        let mut sum = Counts::new();
        for shard in &self.shards {
            let counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
            sum.latency_us.add(&counts.latency_us).expect("all have the same bounds");
            sum.rejected += counts.rejected;
            sum.trapped += counts.trapped;
            sum.failed += counts.failed;
            for (reason, count) in &counts.errors {
                *sum.errors.entry(reason.clone()).or_default() += count;
            }
        }
        Measured {
            seconds: (self.interval.to - self.interval.from).as_secs_f64(),
            operations: sum.latency_us.len(),
            rejected: sum.rejected,
            trapped: sum.trapped,
            failed: sum.failed,
            errors: sum.errors,
            latency_us: sum.latency_us,
        }
    }
}

/// The result of a benchmark, or of several rounds of one together.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    seconds: f64,
    /// Operations with an outcome, whatever it is.
    operations: u64,
    rejected: u64,
    trapped: u64,
    /// Operations without an outcome; not part of `operations`.
    pub(super) failed: u64,
    errors: BTreeMap<String, u64>,
    latency_us: Histogram<u64>,
}

impl Measured {
    /// Adds another round.
    pub(super) fn add(&mut self, other: &Measured) {
        self.seconds += other.seconds;
        self.operations += other.operations;
        self.rejected += other.rejected;
        self.trapped += other.trapped;
        self.failed += other.failed;
        for (reason, count) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += count;
        }
        self.latency_us.add(&other.latency_us).expect("all have the same bounds");
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Operations a second.
    pub(super) fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The first error's words, for a benchmark that measured nothing else.
    pub(super) fn any_error(&self) -> Option<&str> {
        self.errors.keys().next().map(String::as_str)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "seconds": self.seconds,
            "operations": self.operations,
            "per_second": (self.per_second() * 10.0).round() / 10.0,
            "rejected": self.rejected,
            "trapped": self.trapped,
            "failed": self.failed,
            "errors": self.errors,
            "latency_ms": {
                "mean": (self.latency_us.mean()).round() / 1_000.0,
                "p50": self.latency_ms(0.5),
                "p90": self.latency_ms(0.9),
                "p99": self.latency_ms(0.99),
                "p99_9": self.latency_ms(0.999),
                "max": self.latency_us.max() as f64 / 1_000.0,
            },
        })
    }

    pub(super) fn to_text(&self) -> String {
        let latency = format!(
            "p50 {:.3} ms   p90 {:.3} ms   p99 {:.3} ms   p99.9 {:.3} ms   max {:.3} ms",
            self.latency_ms(0.5),
            self.latency_ms(0.9),
            self.latency_ms(0.99),
            self.latency_ms(0.999),
            self.latency_us.max() as f64 / 1_000.0,
        );
        let mut pairs = vec![
            ("throughput", format!("{} a second", human_count(self.per_second().round() as u64))),
            ("latency", latency),
            ("operations", format!("{} in {:.1} s", human_count(self.operations), self.seconds)),
        ];
        let counts =
            [("rejected", self.rejected), ("trapped", self.trapped), ("failed", self.failed)];
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            pairs.push((name, human_count(count)));
        }
        for (reason, count) in &self.errors {
            pairs.push(("error", format!("{} × {reason}", human_count(*count))));
        }
        facts(&pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_within_the_interval_counts() {
        let from = Instant::now();
        let interval = Interval { from, to: from + Duration::from_secs(2) };
        let recorder = Recorder::new(interval);
        let at = |ms| from + Duration::from_millis(ms);
        recorder.record(0, from, at(0), Ending::Ok, 1);
        recorder.record(1, at(100), at(110), Ending::Ok, 97);
        recorder.record(2, at(100), at(300), Ending::Rejected, 2);
        recorder.record(9, at(100), at(300), Ending::Failed("busy".into()), 3);
        recorder.record(0, at(100), at(2_000), Ending::Ok, 50);
        if let Some(before) = from.checked_sub(Duration::from_millis(1)) {
            recorder.record(0, before, before, Ending::Ok, 50);
        }
        let measured = recorder.result();
        let value = measured.to_json();
        assert_eq!(value["operations"], 100);
        assert_eq!(value["per_second"], 50.0);
        assert_eq!(value["rejected"], 2);
        assert_eq!(value["failed"], 3);
        assert_eq!(value["errors"]["busy"], 3);
        let p50 = value["latency_ms"]["p50"].as_f64().expect("a number");
        assert!((9.9..10.1).contains(&p50), "{p50}");
        let p99 = value["latency_ms"]["p99_9"].as_f64().expect("a number");
        assert!((199.0..201.0).contains(&p99), "{p99}");
        assert!(measured.to_text().contains("throughput  50 a second"), "{}", measured.to_text());
    }

    #[test]
    fn rounds_add_up() {
        let from = Instant::now();
        let recorder = Recorder::new(Interval { from, to: from + Duration::from_secs(1) });
        recorder.record(0, from, from, Ending::Ok, 10);
        let mut sum = recorder.result();
        sum.add(&recorder.result());
        assert_eq!(sum.operations(), 20);
        assert!((sum.per_second() - 10.0).abs() < 1e-9);
    }
}
