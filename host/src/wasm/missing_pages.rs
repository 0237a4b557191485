//! What a process says when the system does not have a page that it has promised.
//!
//! A guest's memory is promised as a whole and given page by page, at the first touch. When the
//! system has none left to give (strict accounting, a full file system) or loses one (failing
//! hardware), it sends SIGBUS to whoever touches it, at any instruction, from where there is no way
//! back. wasmtime on Linux leaves that signal alone, so it never becomes a trap, which would be an
//! outcome: the process ends. Here it is made to say why.
#![expect(unsafe_code, reason = "a signal handler")]

use std::sync::Once;
use std::{mem, ptr};

const NO_PAGE: &str = "raft-host: SIGBUS: the system has no memory for a page that it has \
    promised; this process ends. See the limits of its control group, `vm.overcommit_memory`, and \
    the free memory\n";
const LOST_PAGE: &str = "raft-host: SIGBUS: the hardware has lost a page of memory; this process \
    ends. The system's log says which memory fails\n";

/// From then on this process says so before it ends by a SIGBUS.
pub(super) fn tell() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeros is a valid `sigaction`. The handler is async-signal-safe: it makes two
        // system calls.
        let done = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            action.sa_sigaction = on_bus_error as *const () as usize;
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
        };
        // The process ends just the same.
        if done != 0 {
            tracing::warn!("a missing page of memory will end this process without a word");
        }
    });
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid `siginfo_t`. The text is static. With the default action
    // back in place the instruction that failed is repeated, and the process ends as it would have.
    unsafe {
        let lost = matches!((*info).si_code, libc::BUS_MCEERR_AR | libc::BUS_MCEERR_AO);
        let text = if lost { LOST_PAGE } else { NO_PAGE };
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &raw const default, ptr::null_mut());
    }
}
