//! The switch of the museum, one per thread.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Exhibit;

thread_local! {
    static ON: Cell<Option<Exhibit>> = const { Cell::new(None) };
    static HOST_TIME_MS: Cell<u64> = const { Cell::new(0) };
}

/// Puts the thread's former exhibit back when dropped.
#[must_use = "the exhibit is on until this is dropped"]
#[derive(Debug)]
pub struct Guard {
    before: Option<Exhibit>,
    /// Belongs to the thread that made it.
    not_send: PhantomData<*const ()>,
}

/// Switches one exhibit on, or all off, for this thread, until the guard is dropped.
pub fn exhibit(exhibit: Option<Exhibit>) -> Guard {
    Guard { before: ON.replace(exhibit), not_send: PhantomData }
}

impl Drop for Guard {
    fn drop(&mut self) {
        ON.set(self.before);
    }
}

/// Whether this thread shall make that mistake.
#[inline]
pub fn is_on(exhibit: Exhibit) -> bool {
    ON.get() == Some(exhibit)
}

/// What [`Exhibit::HostTimeInApply`] takes for the time: the last
/// [`set_host_time_ms`] of this thread.
pub fn host_time_ms() -> u64 {
    HOST_TIME_MS.get()
}

/// Sets the clock of the node that this thread is about to run, in milliseconds since the
/// Unix epoch.
pub fn set_host_time_ms(now_ms: u64) {
    HOST_TIME_MS.set(now_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_exhibits_are_off_until_one_is_switched_on() {
        assert!(Exhibit::ALL.iter().all(|exhibit| !is_on(*exhibit)));
        let guard = exhibit(Some(Exhibit::LogNotSynced));
        let on: Vec<&Exhibit> = Exhibit::ALL.iter().filter(|exhibit| is_on(**exhibit)).collect();
        assert_eq!(on, [&Exhibit::LogNotSynced]);
        drop(guard);
        assert!(!is_on(Exhibit::LogNotSynced));
    }

    #[test]
    fn a_guard_puts_back_what_was_on_before() {
        let _outer = exhibit(Some(Exhibit::UnconfirmedRead));
        {
            let _inner = exhibit(Some(Exhibit::LogNotSynced));
            let _off = exhibit(None);
            assert!(!is_on(Exhibit::LogNotSynced) && !is_on(Exhibit::UnconfirmedRead));
        }
        assert!(is_on(Exhibit::UnconfirmedRead));
    }

    #[test]
    fn another_thread_keeps_its_own_switch_and_clock() {
        let _guard = exhibit(Some(Exhibit::HostTimeInApply));
        set_host_time_ms(7);
        let elsewhere = std::thread::spawn(|| (is_on(Exhibit::HostTimeInApply), host_time_ms()));
        assert_eq!(elsewhere.join().unwrap(), (false, 0));
        assert_eq!((is_on(Exhibit::HostTimeInApply), host_time_ms()), (true, 7));
    }
}
