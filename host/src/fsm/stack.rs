//! The stack that guests run on.

use std::io;

use super::STACK_MAX_BYTES;

/// Guests run on the stack of the thread that calls them; address space only, until it is used.
pub const GUEST_STACK_BYTES: usize = 16 << 20;
const _: () = assert!(GUEST_STACK_BYTES as u64 > STACK_MAX_BYTES + (4 << 20), "see `Limits`");

/// Runs work that calls guests on a thread with a stack for them, and waits for it. A panic goes on in
/// the caller.
///
/// # Errors
///
/// The system has no thread to give.
pub fn on_guest_stack<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(GUEST_STACK_BYTES)
            .spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
