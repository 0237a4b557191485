//! What a node does by itself about members and leadership: chores that act only while it leads.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{voters_on_duty, voters_with_quick_disks};
use crate::audit::{Audit, Event};
use crate::autopilot::{AutopilotBoard, AutopilotChange, Decision, Facts, MemberFacts, decide};
use crate::consensus::{ReplicaStatus, Role};
use crate::node::NodeHandle;
use crate::tls::NodeDialer;

/// Between two looks, at most and at least; in between, a twentieth of the time that makes a member dead.
const LOOK_MAX: Duration = Duration::from_secs(10);
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Between two looks at how slow the own disk is.
const SLOW_LOOK: Duration = Duration::from_secs(2);
/// What that is a percentile of.
const SLOW_WINDOW: Duration = Duration::from_secs(60);

/// Removes members that are dead, one at a time, if the configuration says so.
pub(super) async fn act(handle: NodeHandle, board: Arc<AutopilotBoard>, audit: Option<Arc<Audit>>) {
    let after = Duration::from_millis(board.config().remove_dead_after_ms);
    if after.is_zero() {
        return;
    }
    let pause = (after / 20).clamp(LOOK_MIN, LOOK_MAX);
    let mut told = None;
    loop {
        tokio::time::sleep(pause).await;
        // A node that has stopped decides nothing any more.
        let Ok(status) = handle.status().await else { return };
        let waits = match decide(board.config(), &facts(&handle, &status)) {
            Decision::Nothing(stay) => {
                stay.map(|stay| ((stay.node, stay.why.clone()), stay.to_string()))
            }
            Decision::Remove { node, votes, reason } => match handle.remove(node, false).await {
                Ok(()) => {
                    board.count(match votes {
                        true => AutopilotChange::RemovedVoter,
                        false => AutopilotChange::RemovedLearner,
                    });
                    tracing::warn!(%node, "autopilot: removed the node: {reason}");
                    if let Some(audit) = &audit {
                        let what = format!("node {node}: {reason}");
                        audit.note(Event::of_node("members.remove", "autopilot", what), None);
                    }
                    None
                }
                Err(error) => {
                    let error = error.to_string();
                    let words = format!("{reason}; but it was not removed: {error}");
                    Some(((node, error), words))
                }
            },
        };
        let (what, words) = waits.unzip();
        if what != told
            && let Some(words) = &words
        {
            tracing::warn!("autopilot: {words}");
        }
        told = what;
        board.wait_for(words);
    }
}

/// What the leader knows of its members; of nobody, on any other node.
fn facts(handle: &NodeHandle, status: &ReplicaStatus) -> Facts {
    if status.role != Role::Leader {
        return Facts { members: Vec::new(), is_changing: true };
    }
    let me = handle.identity().node;
    let tick = handle.config().tick();
    let time = |ticks: u64| tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
    let digests = handle.digests().borrow().clone();
    let differs = |node| {
        let verdict = digests.verdict.as_ref();
        verdict.is_some_and(|verdict| verdict.differing().any(|it| it == node))
    };
    let members = status.peers.iter().map(|peer| {
        let is_heard = peer.node == me || peer.recently_active;
        MemberFacts {
            node: peer.node,
            votes: status.conf_state.is_voter(peer.node),
            silent: time(peer.silent_ticks.unwrap_or(peer.known_ticks)),
            is_well: is_heard && !differs(peer.node),
        }
    });
    Facts {
        members: members.collect(),
        is_changing: status.is_new_leader
            || status.transferring
            || !status.conf_state.voters_outgoing.is_empty(),
    }
}

/// Hands leadership over as long as this node leads and its disk is slow. The percentile is one of the last minute,
/// so nothing is done again before that is another one.
pub(super) async fn leave_slow_disk(
    handle: NodeHandle,
    dialer: NodeDialer,
    board: Arc<AutopilotBoard>,
) {
    let limit = Duration::from_millis(handle.config().slow_sync_ms);
    if !board.config().leave_slow_disk || limit.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(SLOW_LOOK).await;
        let is_slow = handle.disk().is_some_and(|disk| disk.is_slow);
        if !is_slow || handle.leadership().borrow().role != Role::Leader {
            continue;
        }
        let quick = voters_with_quick_disks(&handle, &dialer, limit).await;
        if quick.is_empty() {
            continue;
        }
        match handle.transfer_to_one_of(&quick).await {
            Ok(to) => {
                tracing::warn!(%to, "autopilot: this node's disk is slow, and leadership is handed over");
            }
            Err(error) => {
                tracing::warn!(%error, "autopilot: this node's disk is slow, and it leads all the same");
            }
        }
        tokio::time::sleep(SLOW_WINDOW).await;
    }
}

/// Hands leadership over that came to a node which is off duty because nobody else was there to lead, as soon as
/// somebody is.
pub(super) async fn be_relieved(handle: NodeHandle, dialer: NodeDialer) {
    let pause = Duration::from_millis(handle.config().election_ms) * 2;
    loop {
        tokio::time::sleep(pause).await;
        if !handle.is_off_duty() || handle.leadership().borrow().role != Role::Leader {
            continue;
        }
        let on_duty = voters_on_duty(&handle, &dialer).await;
        if on_duty.is_empty() || !handle.is_off_duty() {
            continue;
        }
        match handle.transfer_to_one_of(&on_duty).await {
            Ok(to) => tracing::info!(%to, "this node is drained, and handed leadership over"),
            Err(error) => tracing::info!(%error, "this node is drained, and leads all the same"),
        }
    }
}
