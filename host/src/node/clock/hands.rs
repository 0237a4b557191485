//! What clocks are read from.

use std::sync::Arc;
use std::time::Duration;

/// Milliseconds since the Unix epoch.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Time since some moment, never going back.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;
