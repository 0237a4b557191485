//! A rate limit for the log lines of guests.
//!
//! The limits of the cluster bound what one command may log; a thousand commands a second could
//! still bury everything else that the node has to say, or fill its disk. The lines are of this
//! node only, so a clock may decide which of them are written. The guest cannot tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::config::LogConfig;
use crate::server::count_dropped_guest_lines;

/// What the wasm room calls the lines of guests.
const TARGET: &str = "guest";
/// How often dropped lines are reported.
const REPORT_PAUSE: Duration = Duration::from_secs(5);

type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// A layer that lets so many lines of guests through, and what knows of the others.
pub(super) fn limit(config: &LogConfig) -> (Limit, GuestLines) {
    let started = Instant::now();
    limit_by(config, Box::new(move || started.elapsed()))
}

fn limit_by(config: &LogConfig, clock: Clock) -> (Limit, GuestLines) {
    let dropped = Arc::<AtomicU64>::default();
    let bucket = (config.guest_lines_per_second > 0).then(|| Bucket {
        per_second: config.guest_lines_per_second,
        burst: config.guest_lines_burst,
        state: Mutex::new((config.guest_lines_burst.saturating_mul(NANOS), Duration::ZERO)),
        clock,
    });
    (Limit { bucket, dropped: Arc::clone(&dropped) }, GuestLines { dropped })
}

/// A line costs as much as comes in in one second at a rate of one.
const NANOS: u64 = 1_000_000_000;

/// A token bucket.
struct Bucket {
    per_second: u64,
    burst: u64,
    /// What is in it, in billionths of a line, and when that was so.
    state: Mutex<(u64, Duration)>,
    clock: Clock,
}

impl Bucket {
    fn take(&self) -> bool {
        let now = (self.clock)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (had, since) = *state;
        let passed = u64::try_from(now.saturating_sub(since).as_nanos()).unwrap_or(u64::MAX);
        let most = self.burst.saturating_mul(NANOS);
        let has = had.saturating_add(passed.saturating_mul(self.per_second)).min(most);
        let (left, taken) = has.checked_sub(NANOS).map_or((has, false), |left| (left, true));
        *state = (left, now);
        taken
    }
}

/// See [`limit`].
pub(super) struct Limit {
    /// `None`: no limit.
    bucket: Option<Bucket>,
    dropped: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let Some(bucket) = &self.bucket else { return true };
        if event.metadata().target() != TARGET || bucket.take() {
            return true;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        count_dropped_guest_lines(1);
        false
    }
}

/// Tells of lines that were dropped.
pub(crate) struct GuestLines {
    dropped: Arc<AtomicU64>,
}

impl GuestLines {
    /// Says every few seconds how many lines were dropped since it last did, if any were.
    pub(crate) async fn report(self) {
        loop {
            tokio::time::sleep(REPORT_PAUSE).await;
            self.report_once();
        }
    }

    fn report_once(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                "{dropped} lines of the guest were dropped: more than log.guest_lines_per_second"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{EnvFilter, fmt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn lines(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().expect("lock"));
            String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Written;

        fn make_writer(&'a self) -> Written {
            self.clone()
        }
    }

    #[test]
    fn lines_of_guests_are_limited_and_those_of_the_node_are_not() {
        let config =
            LogConfig { guest_lines_per_second: 2, guest_lines_burst: 3, ..LogConfig::default() };
        let ms = Arc::<AtomicU64>::default();
        let hands = Arc::clone(&ms);
        let clock = move || Duration::from_millis(hands.load(Ordering::Relaxed));
        let (limit, guest_lines) = limit_by(&config, Box::new(clock));
        let written = Written::default();
        let layer = fmt::layer().with_writer(written.clone()).without_time().with_ansi(false);
        let filter = EnvFilter::new("info");
        let subscriber = tracing_subscriber::registry().with(filter).with(limit).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            for line in 0..10 {
                // Not written anyway, so it takes nothing from the others.
                tracing::debug!(target: "guest", "quiet {line}");
                tracing::info!(target: "guest", "line {line}");
                tracing::info!("own {line}");
            }
            let lines = written.lines();
            let of_guest = lines.iter().filter(|line| line.contains("guest: line")).count();
            assert_eq!((of_guest, lines.len()), (3, 13), "{lines:?}");
            guest_lines.report_once();
            guest_lines.report_once();
            let lines = written.lines();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains("7 lines of the guest were dropped"), "{lines:?}");

            ms.store(1_000, Ordering::Relaxed);
            for line in 0..10 {
                tracing::info!(target: "guest", "line {line}");
            }
            assert_eq!(written.lines().len(), 2, "two came in within a second");
        });
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        let config = LogConfig { guest_lines_per_second: 0, ..LogConfig::default() };
        let (limit, _) = limit_by(&config, Box::new(|| Duration::ZERO));
        assert!(limit.bucket.is_none());
    }
}
