//! What can be tuned about storage.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
const SCRUB_EVERY_MIN_MS: u64 = 100;
const SCRUB_EVERY_MAX_MS: u64 = 366 * 24 * 60 * 60 * 1_000;

/// Sizes of files and caches. The defaults suit a node with one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// raft-engine: a log file is closed, and a new one begun, once it is this long. Small
    /// files give space back sooner; each change of files costs three fsyncs.
    pub log_file_bytes: u64,
    /// raft-engine: entries of a batch are compressed (LZ4) when they are longer than this
    /// together. 0: never.
    pub compress_above_bytes: u64,
    /// Memory for the newest entries, which followers and the apply thread read next.
    pub recent_entries_bytes: u64,
    /// sled: memory for its page cache.
    pub sled_cache_bytes: u64,
    /// With less free space than this on the disk of the data directory the node takes no new
    /// commands, and with less than half of it next to no entries; no more than an eighth of the disk
    /// counts. 0: nobody looks.
    pub low_space_bytes: u64,
    /// Held in the file RESERVE, for what frees space when the disk is full; no more than a quarter of
    /// what counts as low. 0: nothing.
    pub reserve_bytes: u64,
    /// From one look at everything that is stored to the next, in milliseconds; 0: never.
    pub scrub_every_ms: u64,
    /// What such a look reads in a second, at most.
    pub scrub_bytes_per_s: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            log_file_bytes: 2 * MIB,
            compress_above_bytes: 8 << 10,
            recent_entries_bytes: 16 * MIB,
            sled_cache_bytes: 32 * MIB,
            low_space_bytes: 128 * MIB,
            reserve_bytes: 32 * MIB,
            scrub_every_ms: 24 * 60 * 60 * 1_000,
            scrub_bytes_per_s: 10 * MIB,
        }
    }
}

impl StorageConfig {
    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// A sentence that names the setting, its value and the bounds.
    pub fn validate(&self) -> Result<(), String> {
        let bounded = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(format!("storage.{name} is {value}, but must be from {low} to {high} bytes"))
        };
        bounded("log_file_bytes", self.log_file_bytes, MIB, 1024 * MIB)?;
        bounded("compress_above_bytes", self.compress_above_bytes, 0, 1024 * MIB)?;
        bounded("recent_entries_bytes", self.recent_entries_bytes, 0, 64 * 1024 * MIB)?;
        bounded("sled_cache_bytes", self.sled_cache_bytes, MIB, 64 * 1024 * MIB)?;
        if self.low_space_bytes != 0 {
            bounded("low_space_bytes", self.low_space_bytes, MIB, MIB * MIB)?;
        }
        bounded("reserve_bytes", self.reserve_bytes, 0, 64 * 1024 * MIB)?;
        bounded("scrub_bytes_per_s", self.scrub_bytes_per_s, MIB, 64 * 1024 * MIB)?;
        let every = self.scrub_every_ms;
        if every != 0 && !(SCRUB_EVERY_MIN_MS..=SCRUB_EVERY_MAX_MS).contains(&every) {
            return Err(format!(
                "storage.scrub_every_ms is {every}, but must be 0 (never), or from {SCRUB_EVERY_MIN_MS} to \
                 {SCRUB_EVERY_MAX_MS} (a year)"
            ));
        }
        Ok(())
    }
}
