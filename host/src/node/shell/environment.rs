//! What a node takes from the world around it.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::node::clock::{MonotonicClock, WallClock};

/// See the module.
pub struct Environment {
    /// What this node tells its cluster when that agrees on the time.
    pub wall_clock_ms: WallClock,
    /// What durations are measured with, for people; it decides nothing.
    pub monotonic_clock: MonotonicClock,
    /// What the log's clock goes on by while clocks do not agree, and between two agreements.
    pub steady_clock: MonotonicClock,
    /// Seeds the election timeouts.
    pub seed: u64,
    /// Differs between any two starts of a node.
    pub incarnation: u64,
    /// Compile modules that have become complete on a thread of their own.
    pub compile_ahead: bool,
    /// Answer queries on a thread of their own while an activation runs.
    pub beside: bool,
}

impl Environment {
    /// The real world.
    pub(super) fn real() -> Environment {
        let started = Instant::now();
        let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH);
        let monotonic_clock: MonotonicClock = Arc::new(move || started.elapsed());
        Environment {
            wall_clock_ms: Arc::new(move || since_epoch().map_or(0, |t| t.as_millis() as u64)),
            steady_clock: Arc::clone(&monotonic_clock),
            monotonic_clock,
            seed: rand::random(),
            incarnation: rand::random(),
            compile_ahead: true,
            beside: true,
        }
    }
}
