//! The thread that looks how long apply loops have been at one job.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::node::stop::{StopOnPanic, Stops};
use crate::node::work::Work;

/// Looks in the time that makes a job slow.
const LOOKS: u32 = 4;
const LOOK_MIN: Duration = Duration::from_millis(10);

/// A thread that looks at what it was told of until it is dropped.
pub(super) struct Watchdog {
    works: Arc<Mutex<Vec<Weak<Work>>>>,
    /// Dropped first: that ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// `slow_ms`: what makes a job slow; 0: nothing, and there is no thread.
    pub(super) fn spawn(slow_ms: u64, stops: Stops) -> std::io::Result<Watchdog> {
        let works = Arc::<Mutex<Vec<Weak<Work>>>>::default();
        let (mut end, mut thread) = (None, None);
        if slow_ms > 0 {
            let (sender, ended) = channel();
            let pause = (Duration::from_millis(slow_ms) / LOOKS).max(LOOK_MIN);
            let looked_at = Arc::clone(&works);
            let watching = move || {
                let _guard = StopOnPanic(stops, "watchdog");
                watch(&looked_at, pause, &ended);
            };
            thread = Some(std::thread::Builder::new().name("watchdog".into()).spawn(watching)?);
            end = Some(sender);
        }
        Ok(Watchdog { works, end, thread })
    }

    /// Looks at one more, for as long as it is there.
    pub(super) fn add(&self, work: &Arc<Work>) {
        self.works.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(work));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has stopped the node already.
            let _ = thread.join();
        }
    }
}

fn watch(works: &Mutex<Vec<Weak<Work>>>, pause: Duration, ended: &Receiver<()>) {
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        works.lock().unwrap_or_else(PoisonError::into_inner).retain(|work| {
            let work = work.upgrade();
            work.inspect(|work| work.look()).is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::metrics::NodeMetrics;

    #[test]
    fn the_watchdog_ends_when_it_is_dropped_and_lets_go_of_what_is_gone() {
        let clock = Arc::new(|| Duration::ZERO);
        let work = Arc::new(Work::new(clock, 1, Arc::<NodeMetrics>::default()));
        let watchdog = Watchdog::spawn(1, Stops::default()).expect("a thread");
        watchdog.add(&work);
        let works = Arc::clone(&watchdog.works);
        drop(work);
        while !works.lock().expect("lock").is_empty() {
            std::thread::sleep(LOOK_MIN);
        }
        drop(watchdog);
        assert_eq!(Arc::strong_count(&works), 1, "the thread has let go of it");
    }

    #[test]
    fn without_a_threshold_there_is_no_thread() {
        let watchdog = Watchdog::spawn(0, Stops::default()).expect("no thread is needed");
        assert!(watchdog.thread.is_none());
    }
}
