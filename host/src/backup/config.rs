//! Backups that nodes take by themselves.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[backup]` part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// Where this node saves backups of its cluster; without it, it takes none by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Milliseconds from one backup of the cluster to the next, whichever node takes it.
    pub every_ms: u64,
    /// Backups of the cluster that this node keeps in its directory.
    pub keep: usize,
}

/// More often is replication, which there is already.
const EVERY_MIN_MS: u64 = 1_000;

impl Default for BackupConfig {
    fn default() -> BackupConfig {
        BackupConfig { directory: None, every_ms: 86_400_000, keep: 7 }
    }
}

impl BackupConfig {
    /// Says what cannot be.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        if self.every_ms < EVERY_MIN_MS {
            return Err(format!("backup.every_ms must not be less than {EVERY_MIN_MS}"));
        }
        match self.keep {
            0 => Err("backup.keep must not be 0: no backup would be left".to_owned()),
            _ => Ok(()),
        }
    }
}
