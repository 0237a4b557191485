//! What a cluster may put into its log.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A cluster's level: which kinds of entries, fields and behaviours its log and snapshots may have.
/// Replicated, and never lowered. A program offers one level, and knows all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u32);

impl Level {
    /// Of the first release.
    pub const FIRST: Level = Level(1);
    /// What this program offers. What comes with a level is proposed at that level only; each new
    /// kind of entry, field of a persisted message or change of what one does takes the next.
    pub const CURRENT: Level = Level::FIRST;
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Level {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Level, ParseIntError> {
        text.parse().map(Level)
    }
}
