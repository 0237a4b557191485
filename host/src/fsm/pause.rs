//! Where long work on a guest can be held up for others' sake, in the midst of a call as well: between the parts of
//! what it reads and writes.
//!
//! Nothing happens there unless whoever began the work on this thread said so.

use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Pauses, or not, and says for how long it did.
type Pause = Box<dyn FnMut() -> Duration>;

thread_local! {
    static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
    static PAUSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Takes it away when the work ends, however it does.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        PAUSE.replace(None);
        PAUSED.set(Duration::ZERO);
    }
}

/// Does work that may be held up by `pause`, which is called often.
pub fn during<T>(pause: impl FnMut() -> Duration + 'static, work: impl FnOnce() -> T) -> T {
    PAUSE.replace(Some(Box::new(pause)));
    let _installed = Installed;
    work()
}

/// A moment at which this thread's work can be held up.
pub fn here() {
    PAUSE.with_borrow_mut(|pause| {
        if let Some(pause) = pause {
            PAUSED.set(PAUSED.get() + pause());
        }
    });
}

/// For how long the work was held up until now.
pub fn paused() -> Duration {
    PAUSED.get()
}

#[cfg(test)]
mod tests {
    use super::super::{Pile, Written};
    use super::*;

    const PAUSE: Duration = Duration::from_secs(3);

    #[test]
    fn work_is_held_up_where_it_reads_and_writes_and_nobody_elses_is() {
        let work = || {
            here();
            let mut written = Written::kept();
            for part in [b"a", b"b"] {
                written.take(part).expect("there is memory");
            }
            written.into_pile().take(&mut [0; 1]);
            paused()
        };
        assert_eq!(work(), Duration::ZERO);
        assert_eq!(during(|| PAUSE, work), 4 * PAUSE);
        assert_eq!(work(), Duration::ZERO);
        let other = during(|| PAUSE, || std::thread::spawn(work).join());
        assert_eq!(other.expect("it ends"), Duration::ZERO);
    }

    #[test]
    fn work_that_panics_leaves_nothing_behind() {
        let panics = || during(|| PAUSE, || panic!("broken"));
        std::panic::catch_unwind(panics).expect_err("it panics");
        here();
        assert_eq!(paused(), Duration::ZERO);
        assert_eq!(Pile::default().take(&mut [0; 1]), 0);
    }
}
