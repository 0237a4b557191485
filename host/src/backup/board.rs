//! What a node tells of the backups that it takes by itself.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{BackupConfig, BackupFacts};

/// A backup in this node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBackup {
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it says of itself.
    pub facts: BackupFacts,
}

/// How it is with a node's backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// One is being saved.
    pub is_running: bool,
    /// The newest in this node's directory.
    pub last: Option<SavedBackup>,
    /// When the newest was saved that this node knows of, by whichever node, in milliseconds since the
    /// Unix epoch.
    pub newest_ms: Option<u64>,
    /// Why the last attempt of this node failed, if it did, and that was not long ago.
    pub failure: Option<String>,
    /// When that was, in milliseconds since the Unix epoch.
    pub failed_ms: u64,
    /// Backups saved since the start.
    pub saved: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
}

/// Written by who takes backups, read by who tells of them.
#[derive(Debug)]
pub struct BackupBoard {
    config: BackupConfig,
    /// When this process began, in milliseconds since the Unix epoch.
    began_ms: u64,
    report: Mutex<BackupReport>,
}

impl BackupBoard {
    /// Nothing is known yet.
    pub fn new(config: BackupConfig, now_ms: u64) -> BackupBoard {
        BackupBoard { config, began_ms: now_ms, report: Mutex::default() }
    }

    /// As configured.
    pub fn config(&self) -> &BackupConfig {
        &self.config
    }

    /// How it is now.
    pub fn report(&self) -> BackupReport {
        self.lock().clone()
    }

    /// Something changed.
    pub fn update(&self, change: impl FnOnce(&mut BackupReport)) {
        change(&mut self.lock());
    }

    /// Forgets a failure when three times the time between two backups has passed: then this node is as good as
    /// any other to try again.
    pub fn forgive(&self, now_ms: u64) {
        let mut report = self.lock();
        if now_ms.saturating_sub(report.failed_ms) >= self.config.every_ms.saturating_mul(3) {
            report.failure = None;
        }
    }

    /// Why somebody should look; twice the time between two backups has passed without one.
    pub fn alarm(&self, now_ms: u64) -> Option<String> {
        let report = self.lock();
        let since = report.newest_ms.unwrap_or(self.began_ms);
        let age = now_ms.saturating_sub(since);
        if age < self.config.every_ms.saturating_mul(2) {
            return None;
        }
        let what = match report.newest_ms {
            Some(_) => "the newest backup of the cluster is",
            None => "there has been no backup of the cluster for",
        };
        let old = if report.newest_ms.is_some() { " old" } else { "" };
        let why = report.failure.as_ref().map_or(String::new(), |why| format!(": {why}"));
        Some(format!("{what} {}{old}{why}", span(age)))
    }

    fn lock(&self) -> MutexGuard<'_, BackupReport> {
        // Nothing that can panic half way runs under this lock.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the largest unit that is not 0.
fn span(ms: u64) -> String {
    let (minute, hour, day) = (60_000, 3_600_000, 86_400_000);
    match ms {
        ms if ms >= 2 * day => format!("{} days", ms / day),
        ms if ms >= 2 * hour => format!("{} hours", ms / hour),
        ms if ms >= 2 * minute => format!("{} minutes", ms / minute),
        ms => format!("{} seconds", ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_time_without_a_backup_is_an_alarm_that_says_why() {
        let config = BackupConfig { every_ms: 3_600_000, ..BackupConfig::default() };
        let board = BackupBoard::new(config, 1_000);
        assert_eq!(board.alarm(7_200_999), None);
        let none = "there has been no backup of the cluster for 2 hours";
        assert_eq!(board.alarm(7_201_000).as_deref(), Some(none));
        board.update(|report| {
            report.newest_ms = Some(7_000_000);
            report.failure = Some("the disk is full".to_owned());
            report.failed_ms = 14_000_000;
        });
        assert_eq!(board.alarm(7_201_000), None);
        let old = "the newest backup of the cluster is 2 hours old: the disk is full";
        assert_eq!(board.alarm(14_199_999), None);
        assert_eq!(board.alarm(14_200_000).as_deref(), Some(old));
        board.forgive(24_799_999);
        assert!(board.report().failure.is_some());
        board.forgive(24_800_000);
        assert_eq!(board.report().failure, None);
    }
}
