//! What the apply loop is doing, for others to see.
//!
//! Fuel decides when a guest has had enough; this only tells people. The loop writes down each
//! job before it begins and wipes it when it is done. The watchdog thread, which a stepped node
//! does not have, says when one takes longer than `slow_apply_ms`, and the loop says when that
//! one is finished.
//!
//! ```text
//!   apply loop ─ begin(kind, index) ─► Work (number, kind, index, since) ◄─ look ─ watchdog
//!              ─ end ──────────────►                                        every quarter
//! ```

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::MonotonicClock;
use super::metrics::{JobKind, NodeMetrics};
use crate::types::Index;

/// The job that the apply loop is at. One thread writes, any may look.
///
/// `number` is 0 while the other fields change or mean nothing, and else a number that no other
/// job has: who reads the same number before and after them has read what belongs together.
#[derive(Debug, Default)]
struct Cell {
    number: AtomicU64,
    kind: AtomicU8,
    index: AtomicU64,
    since_nanos: AtomicU64,
    /// The last job that was found to be slow.
    reported: AtomicU64,
}

/// What the apply loop is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// What kind of job.
    pub kind: JobKind,
    /// The entry or snapshot that it is about.
    pub index: Index,
    /// What it is about, for people; empty if the kind says all.
    pub name: String,
    /// Since it began.
    pub lasting: Duration,
}

/// See the module.
pub(super) struct Work {
    cell: Cell,
    /// What the job of that number is about, if it has a name.
    name: Mutex<(u64, String)>,
    clock: MonotonicClock,
    /// `None`: nothing is slow.
    slow: Option<Duration>,
    metrics: Arc<NodeMetrics>,
}

/// A job under way, as whoever does it knows it.
#[must_use = "a job that is not ended goes on for ever"]
pub(super) struct JobTicket {
    number: u64,
    kind: JobKind,
    index: Index,
    began: Duration,
    /// When the part of it that is under way began.
    lap: Duration,
}

impl Work {
    pub(super) fn new(clock: MonotonicClock, slow_ms: u64, metrics: Arc<NodeMetrics>) -> Work {
        let slow = (slow_ms > 0).then(|| Duration::from_millis(slow_ms));
        Work { cell: Cell::default(), name: Mutex::default(), clock, slow, metrics }
    }

    fn begin(&self, number: u64, kind: JobKind, index: Index) -> JobTicket {
        let began = (self.clock)();
        let cell = &self.cell;
        cell.kind.store(kind as u8, Ordering::Relaxed);
        cell.index.store(index.0, Ordering::Relaxed);
        cell.since_nanos.store(nanos(began), Ordering::Relaxed);
        cell.number.store(number, Ordering::Release);
        JobTicket { number, kind, index, began, lap: began }
    }

    fn lap(&self, ticket: &mut JobTicket) -> Duration {
        let now = (self.clock)();
        now.saturating_sub(std::mem::replace(&mut ticket.lap, now))
    }

    fn end(&self, ticket: JobTicket) -> Duration {
        self.cell.number.store(0, Ordering::Relaxed);
        // What the next job writes must not be seen with this one's number.
        fence(Ordering::Release);
        let took = (self.clock)().saturating_sub(ticket.began);
        if self.slow.is_some_and(|slow| took >= slow) {
            self.found_slow(ticket.number, ticket.kind);
            tracing::warn!(
                job = ticket.kind.name(),
                index = %ticket.index,
                took_ms = took.as_millis() as u64,
                "a slow job of the apply thread has ended"
            );
        }
        took
    }

    /// What the loop is at, if it is at anything.
    pub(super) fn activity(&self) -> Option<Activity> {
        let (number, kind, index, since) = self.current()?;
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if name.0 == number { name.1.clone() } else { String::new() };
        Some(Activity { kind, index, name, lasting: (self.clock)().saturating_sub(since) })
    }

    /// The job under way: its number, kind, index, and when it began.
    fn current(&self) -> Option<(u64, JobKind, Index, Duration)> {
        let cell = &self.cell;
        let number = cell.number.load(Ordering::Acquire);
        let kind = cell.kind.load(Ordering::Relaxed);
        let index = Index(cell.index.load(Ordering::Relaxed));
        let since = Duration::from_nanos(cell.since_nanos.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let belong_together = number != 0 && cell.number.load(Ordering::Relaxed) == number;
        belong_together.then(|| (number, JobKind::ALL[usize::from(kind)], index, since))
    }

    /// Looks once. Says at most once of each job that it is slow.
    pub(super) fn look(&self) {
        let Some(slow) = self.slow else { return };
        let Some((number, kind, index, since)) = self.current() else { return };
        let so_far = (self.clock)().saturating_sub(since);
        if so_far >= slow && self.found_slow(number, kind) {
            tracing::warn!(
                job = kind.name(),
                %index,
                so_far_ms = so_far.as_millis() as u64,
                "the apply thread has been at one job for long; commands and queries wait"
            );
        }
    }

    /// Whether nobody has found it yet.
    fn found_slow(&self, number: u64, kind: JobKind) -> bool {
        let first = self.cell.reported.fetch_max(number, Ordering::Relaxed) < number;
        if first {
            self.metrics.on_slow(kind);
        }
        first
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl JobTicket {
    /// When it began, by the node's clock.
    pub(super) fn began(&self) -> Duration {
        self.began
    }
}

/// The writing end of a [`Work`].
pub(super) struct Jobs {
    work: Arc<Work>,
    /// Jobs begun.
    begun: u64,
}

impl Jobs {
    pub(super) fn new(work: Arc<Work>) -> Jobs {
        Jobs { work, begun: 0 }
    }

    /// As `begin`, for a job that may take long enough for people to ask about it.
    pub(super) fn begin_named(&mut self, kind: JobKind, index: Index, name: String) -> JobTicket {
        let number = self.begun + 1;
        *self.work.name.lock().unwrap_or_else(PoisonError::into_inner) = (number, name);
        self.begin(kind, index)
    }

    pub(super) fn begin(&mut self, kind: JobKind, index: Index) -> JobTicket {
        self.begun += 1;
        self.work.begin(self.begun, kind, index)
    }

    /// How long the part that ends now took; another one begins.
    pub(super) fn lap(&self, ticket: &mut JobTicket) -> Duration {
        self.work.lap(ticket)
    }

    /// How long it took.
    pub(super) fn end(&self, ticket: JobTicket) -> Duration {
        self.work.end(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that a test moves.
    fn hands() -> (Arc<AtomicU64>, MonotonicClock) {
        let ms = Arc::<AtomicU64>::default();
        let clock = Arc::clone(&ms);
        (ms, Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed))))
    }

    fn work(slow_ms: u64) -> (Arc<AtomicU64>, Arc<Work>, Jobs, Arc<NodeMetrics>) {
        let (ms, clock) = hands();
        let metrics = Arc::<NodeMetrics>::default();
        let work = Arc::new(Work::new(clock, slow_ms, Arc::clone(&metrics)));
        let jobs = Jobs::new(Arc::clone(&work));
        (ms, work, jobs, metrics)
    }

    #[test]
    fn a_slow_job_is_counted_once_however_often_the_watchdog_looks() {
        let (ms, work, mut jobs, metrics) = work(1_000);
        let ticket = jobs.begin(JobKind::Query, Index(7));
        work.look();
        assert_eq!(metrics.slow_jobs(JobKind::Query), 0);
        ms.store(1_000, Ordering::Relaxed);
        work.look();
        work.look();
        assert_eq!(metrics.slow_jobs(JobKind::Query), 1, "while it goes on");
        ms.store(5_000, Ordering::Relaxed);
        assert_eq!(jobs.end(ticket), Duration::from_secs(5));
        work.look();
        assert_eq!(metrics.slow_jobs(JobKind::Query), 1, "and not again at its end");
    }

    #[test]
    fn who_asks_is_told_what_goes_on_and_since_when() {
        let (ms, work, mut jobs, _) = work(0);
        assert_eq!(work.activity(), None);
        let ticket = jobs.begin_named(JobKind::Activate, Index(7), "kv_v2".to_owned());
        ms.store(12_000, Ordering::Relaxed);
        let activity = Activity {
            kind: JobKind::Activate,
            index: Index(7),
            name: "kv_v2".to_owned(),
            lasting: Duration::from_secs(12),
        };
        assert_eq!(work.activity(), Some(activity));
        jobs.end(ticket);
        assert_eq!(work.activity(), None);
        let ticket = jobs.begin(JobKind::Apply, Index(8));
        assert_eq!(work.activity().expect("one goes on").name, "", "the name was another job's");
        jobs.end(ticket);
    }

    #[test]
    fn a_slow_job_that_the_watchdog_missed_is_counted_at_its_end() {
        let (ms, work, mut jobs, metrics) = work(1_000);
        let quick = jobs.begin(JobKind::Apply, Index(1));
        jobs.end(quick);
        let ticket = jobs.begin(JobKind::Apply, Index(2));
        ms.store(2_000, Ordering::Relaxed);
        jobs.end(ticket);
        work.look();
        assert_eq!(metrics.slow_jobs(JobKind::Apply), 1);
    }

    #[test]
    fn without_a_threshold_nothing_is_slow() {
        let (ms, work, mut jobs, metrics) = work(0);
        let ticket = jobs.begin(JobKind::Capture, Index(1));
        ms.store(u64::MAX / 1_000_000, Ordering::Relaxed);
        work.look();
        jobs.end(ticket);
        assert_eq!(metrics.slow_jobs(JobKind::Capture), 0);
    }
}
