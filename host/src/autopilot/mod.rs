//! What a cluster does by itself about its members, as its configuration allows: which learner may vote, and
//! which member that is dead is removed.
//!
//! Decides and does nothing: facts go in, a decision comes out (`policy.rs`). Whoever leads looks at the facts
//! and acts (`server/autopilot.rs`), one change at a time; what it did and waits for is on a board.

mod board;
mod config;
mod policy;

pub use self::board::{AutopilotBoard, AutopilotChange};
pub use self::config::AutopilotConfig;
pub use self::policy::{Decision, Facts, MemberFacts, Stay, decide};
