//! The threads that share work which one thread need not do alone: queries, images.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Stack of a thread; as that of a node's apply thread, since queries run guests.
const STACK_BYTES: usize = 16 << 20;

/// Threads that start when they are first needed.
pub(super) struct Workers {
    threads: NonZeroUsize,
    pool: OnceLock<Option<ThreadPool>>,
}

impl Workers {
    /// # Panics
    ///
    /// If `threads` is zero.
    pub(super) fn new(threads: usize) -> Workers {
        let threads = NonZeroUsize::new(threads).expect("somebody has to work");
        Workers { threads, pool: OnceLock::new() }
    }

    /// One for each core.
    pub(super) fn of_this_machine() -> Workers {
        Workers::new(std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.get()
    }

    /// `None` if the caller is to do everything itself: one thread was asked for, or there is
    /// no memory for more.
    pub(super) fn pool(&self) -> Option<&ThreadPool> {
        if self.threads.get() == 1 {
            return None;
        }
        let start = || {
            let threads = ThreadPoolBuilder::new()
                .num_threads(self.threads.get())
                .stack_size(STACK_BYTES)
                .thread_name(|number| format!("guest-{number}"));
            match threads.build() {
                Ok(pool) => Some(pool),
                Err(error) => {
                    tracing::warn!(%error, "no threads to share work with: doing without");
                    None
                }
            }
        };
        self.pool.get_or_init(start).as_ref()
    }
}
