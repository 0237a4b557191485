//! What a node does between opening its stores and starting its replica.

use crate::museum::{self, Exhibit};
use crate::storage::{GroupWrite, LogStore, SnapshotMeta, StorageError};
use crate::types::{GroupId, HardState, Index, LogPosition};

/// Why a node's log and snapshots do not make a replica. The node must not start.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Entries between the snapshot and the log are missing.
    #[error(
        "the log of group {group} starts after index {log_start}, but the newest snapshot \
         covers only up to index {snapshot}: entries are missing; restore the snapshot files, \
         or remove this node from the cluster and let it join again with an empty data directory"
    )]
    Gap {
        /// The group.
        group: GroupId,
        /// The log's start.
        log_start: Index,
        /// The newest snapshot; 0 for none.
        snapshot: Index,
    },
    /// The log lost entries that were known to be committed.
    #[error(
        "the log of group {group} ends at index {last}, but index {commit} was committed: \
         entries were lost; remove this node from the cluster and let it join again with an \
         empty data directory"
    )]
    LostEntries {
        /// The group.
        group: GroupId,
        /// Where the log ends.
        last: Index,
        /// The commit index recorded.
        commit: Index,
    },
}

/// The first write of a new cluster's first node: an empty log behind the bootstrap snapshot.
pub fn bootstrap_write(snapshot: LogPosition) -> GroupWrite {
    GroupWrite {
        reset_to: Some(snapshot),
        hard_state: Some(HardState { term: snapshot.term, vote: None, commit: snapshot.index }),
        ..Default::default()
    }
}

/// Compares the log with the newest snapshot. Returns the write that makes them fit, if one is
/// needed: a crash can come between "the snapshot file is there" and "the log begins after it".
///
/// # Errors
/// When they cannot fit.
pub fn reconcile(
    log: &dyn LogStore,
    group: GroupId,
    snapshot: Option<&SnapshotMeta>,
) -> Result<Option<GroupWrite>, RecoveryError> {
    let start = log.start(group)?;
    let last = log.last_index(group)?;
    let hard_state = log.hard_state(group)?;
    let covered = snapshot.map_or(LogPosition::default(), SnapshotMeta::position);

    if start.index > covered.index {
        return Err(RecoveryError::Gap { group, log_start: start.index, snapshot: covered.index });
    }
    let log_has_it = covered.index <= last && log.term(group, covered.index)? == covered.term;
    if !log_has_it {
        // The snapshot came from a leader and is committed; what the log holds is older, or
        // conflicts and was never committed.
        return Ok(Some(GroupWrite {
            reset_to: Some(covered),
            hard_state: Some(raise(hard_state, covered)),
            ..Default::default()
        }));
    }
    if hard_state.commit > last {
        return Err(RecoveryError::LostEntries { group, last, commit: hard_state.commit });
    }
    let raised = raise(hard_state, covered);
    Ok((raised != hard_state)
        .then(|| GroupWrite { hard_state: Some(raised), ..Default::default() }))
}

/// The hard state may be older than the snapshot. A vote is forgotten only together with the
/// term it was cast in, and no vote was cast in a term that this node never recorded.
fn raise(state: HardState, snapshot: LogPosition) -> HardState {
    let commit = state.commit.max(snapshot.index);
    if snapshot.term > state.term {
        HardState { term: snapshot.term, vote: None, commit }
    } else {
        let vote = state.vote.filter(|_| !museum::is_on(Exhibit::VoteForgottenAtRestart));
        HardState { commit, vote, ..state }
    }
}
