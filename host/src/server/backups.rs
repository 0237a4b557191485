//! Backups on schedule: of the nodes that have a directory for them, one takes each.
//!
//! Nothing of this is agreed on: before it takes one, a node asks the other members what they have and who else
//! could. That two nodes take the same one at times costs a file.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use raft_host_proto::v1;
use tokio_util::sync::CancellationToken;

use super::release;
use crate::api::status_of;
use crate::audit::{Audit, Event};
use crate::backup::{
    BackupBoard, BackupFacts, BackupWriter, NewFile, SavedBackup, list, path_in, prune,
    wall_clock_ms,
};
use crate::consensus::Role;
use crate::node::{MachineCopy, NodeHandle};
use crate::tls::NodeDialer;
use crate::types::{ClusterId, Member, NodeId};

/// Between two looks, at most and at least; in between, a twentieth of the time between backups.
const LOOK_MAX: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(200);

/// A node that takes backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    node: NodeId,
    leads: bool,
    is_running: bool,
    /// Its last attempt failed.
    has_failed: bool,
    /// When the newest was saved that it has, in milliseconds since the Unix epoch.
    last_ms: Option<u64>,
}

/// Takes backups until `end`.
pub(super) async fn take(
    handle: NodeHandle,
    dialer: NodeDialer,
    board: Arc<BackupBoard>,
    audit: Option<Arc<Audit>>,
    end: CancellationToken,
) {
    let Some(dir) = board.config().directory.clone() else { return };
    let cluster = handle.identity().cluster;
    let known = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || find(&dir, cluster)).await
    };
    match known.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(last) => board.update(|report| {
            report.newest_ms = last.as_ref().map(|last| last.facts.saved_ms);
            report.last = last;
        }),
        Err(error) => {
            let words = format!("the directory {} cannot be used: {error}", dir.display());
            tracing::error!("{words}; backups are tried all the same");
            board.update(|report| {
                report.failure = Some(words);
                report.failed_ms = wall_clock_ms();
            });
        }
    }
    let every = Duration::from_millis(board.config().every_ms);
    let pause = (every / 20).clamp(LOOK_MIN, LOOK_MAX);
    loop {
        tokio::time::sleep(pause).await;
        board.forgive(wall_clock_ms());
        if is_my_turn(&handle, &dialer, &board).await {
            let saved = attempt(&handle, &board, &dir, &end).await;
            if let Some((saved, audit)) = saved.zip(audit.as_ref()) {
                audit.note(of_backup(&saved), None);
            }
        }
    }
}

/// The newest in a directory, which is made if it is not there.
fn find(dir: &Path, cluster: ClusterId) -> io::Result<Option<SavedBackup>> {
    std::fs::create_dir_all(dir)?;
    Ok(list(dir, cluster)?.pop())
}

async fn is_my_turn(handle: &NodeHandle, dialer: &NodeDialer, board: &BackupBoard) -> bool {
    let Some(view) = handle.machine().borrow().clone() else { return false };
    let me = handle.identity().node;
    let others = view.members.values().filter(|member| member.id != me);
    let cluster = handle.identity().cluster;
    let asked = join_all(others.map(|member| ask(member, cluster, dialer))).await;
    let mut candidates: Vec<Candidate> = asked.into_iter().flatten().collect();
    let report = board.report();
    candidates.push(Candidate {
        node: me,
        leads: handle.leadership().borrow().role == Role::Leader,
        is_running: report.is_running,
        has_failed: report.failure.is_some(),
        last_ms: report.last.map(|last| last.facts.saved_ms),
    });
    let newest_ms = candidates.iter().filter_map(|candidate| candidate.last_ms).max();
    board.update(|report| report.newest_ms = report.newest_ms.max(newest_ms));
    let newest_ms = board.report().newest_ms;
    taker(&candidates, newest_ms, wall_clock_ms(), board.config().every_ms) == Some(me)
}

/// Who takes the next one, if it is due: of those whose last attempt did not fail the one with the lowest id,
/// and the leader last, which has the most to do. A failure is forgiven after a while.
fn taker(
    candidates: &[Candidate],
    newest_ms: Option<u64>,
    now_ms: u64,
    every_ms: u64,
) -> Option<NodeId> {
    let is_due = newest_ms.is_none_or(|newest| now_ms.saturating_sub(newest) >= every_ms);
    if !is_due || candidates.iter().any(|candidate| candidate.is_running) {
        return None;
    }
    let order = |it: &&Candidate| (it.has_failed, it.leads, it.node);
    candidates.iter().min_by_key(order).map(|candidate| candidate.node)
}

/// `None`: it takes no backups, or does not answer.
async fn ask(member: &Member, cluster: ClusterId, dialer: &NodeDialer) -> Option<Candidate> {
    let status = status_of(member, cluster, dialer).await?;
    let backup = status.backup.as_ref()?;
    let leads = status.group("").is_some_and(|group| group.role() == v1::Role::Leader);
    Some(Candidate {
        node: member.id,
        leads,
        is_running: backup.running,
        has_failed: !backup.last_error.is_empty(),
        last_ms: backup.last.as_ref().map(|last| last.saved_ms),
    })
}

fn of_backup(saved: &SavedBackup) -> Event {
    let event = Event::of_node("backup.save", "schedule", saved.file.display().to_string());
    Event { index: Some(saved.facts.position.index.0), ..event }
}

async fn attempt(
    handle: &NodeHandle,
    board: &BackupBoard,
    dir: &Path,
    end: &CancellationToken,
) -> Option<SavedBackup> {
    board.update(|report| report.is_running = true);
    let saved = save(handle, board, dir, end).await;
    match &saved {
        Ok(saved) => tracing::info!(
            file = %saved.file.display(), index = %saved.facts.position.index, bytes = saved.bytes,
            "backup saved"
        ),
        Err(error) => tracing::error!("no backup was saved: {error}"),
    }
    let done = saved.as_ref().ok().cloned();
    board.update(|report| {
        report.is_running = false;
        match saved {
            Ok(saved) => {
                report.newest_ms = report.newest_ms.max(Some(saved.facts.saved_ms));
                report.last = Some(saved);
                report.failure = None;
                report.saved += 1;
            }
            Err(error) => {
                report.failure = Some(error);
                report.failed_ms = wall_clock_ms();
                report.failed += 1;
            }
        }
    });
    done
}

async fn save(
    handle: &NodeHandle,
    board: &BackupBoard,
    dir: &Path,
    end: &CancellationToken,
) -> Result<SavedBackup, String> {
    let copy = handle.copy().await?;
    let (node, version) = (handle.identity().node, release::version());
    let facts = BackupFacts::of(&copy.state, copy.position, copy.digest, node, version);
    let (dir, keep, end) = (dir.to_owned(), board.config().keep, end.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let saved = write(&dir, facts, &copy, end)
            .map_err(|error| format!("writing to {}: {error}", dir.display()))?;
        // The backup is there; what is too much stays until the next one.
        if let Err(error) = prune(&dir, saved.facts.cluster, keep) {
            tracing::warn!(directory = %dir.display(), %error, "old backups were not removed");
        }
        Ok(saved)
    });
    writing.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn write(
    dir: &Path,
    facts: BackupFacts,
    copy: &MachineCopy,
    end: CancellationToken,
) -> io::Result<SavedBackup> {
    std::fs::create_dir_all(dir)?;
    let path = path_in(dir, &facts);
    let file = Endable { file: NewFile::create(&path)?, end };
    let mut writer = BackupWriter::begin(file, &facts)?;
    copy.state.write_to(&mut writer)?;
    let (bytes, Endable { file, .. }) = writer.finish()?;
    file.finish()?;
    Ok(SavedBackup { file: path, bytes, facts })
}

/// A file that is given up when the node stops.
struct Endable {
    file: NewFile,
    end: CancellationToken,
}

impl Write for Endable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.end.is_cancelled() {
            true => Err(io::Error::other("this node stops")),
            false => self.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_it_when_it_is_due_and_another_one_if_that_fails() {
        let node = |id| Candidate {
            node: NodeId(id),
            leads: id == 1,
            is_running: false,
            has_failed: false,
            last_ms: None,
        };
        let mut all = [node(3), node(1), node(2)];
        let due = |all: &[Candidate], newest| taker(all, newest, 100_000, 10_000);
        assert_eq!(due(&all, None), Some(NodeId(2)), "not the leader");
        assert_eq!(due(&all, Some(90_001)), None, "too early");
        assert_eq!(due(&all, Some(90_000)), Some(NodeId(2)));
        // A clock that is ahead delays it, and no more than that.
        assert_eq!(due(&all, Some(200_000)), None);
        all[2].has_failed = true;
        assert_eq!(due(&all, None), Some(NodeId(3)));
        all[0].has_failed = true;
        assert_eq!(due(&all, None), Some(NodeId(1)));
        all[1].has_failed = true;
        assert_eq!(due(&all, None), Some(NodeId(2)), "all over again");
        all[0].is_running = true;
        assert_eq!(due(&all, None), None);
        assert_eq!(due(&[], None), None);
    }
}
