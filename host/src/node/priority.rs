//! How much of the processor a thread gets when others want it too.

use std::cell::Cell;

thread_local! {
    static YIELDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread may have to wait long for a processor, so that it must do nothing that others wait for.
pub(super) fn yields_to_others() -> bool {
    YIELDS.get()
}

/// Has the system prefer all other threads to this one, for the processor and, with most schedulers, the disk.
pub(crate) fn yield_to_others() {
    YIELDS.set(true);
    be_the_last();
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call on a number, which nobody has wrapped here")]
fn be_the_last() {
    const LEAST: libc::c_int = 19;
    // SAFETY: it takes numbers; 0 is the calling thread. Where it is refused, the thread is as good as any.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAST) };
}

#[cfg(not(target_os = "linux"))]
fn be_the_last() {}
