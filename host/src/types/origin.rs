//! Where a restored cluster comes from.

use super::{ClusterId, LogPosition};

/// A backup that a cluster was restored from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The cluster that was backed up.
    pub cluster: ClusterId,
    /// The last entry that the backup contains.
    pub position: LogPosition,
    /// The log's clock there, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}
