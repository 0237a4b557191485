//! How a node is left in order.

use std::time::{Duration, Instant};

use super::core::NodeHandle;
use crate::consensus::{ReplicaStatus, Role};

/// A leader that has heard of no majority for so many heartbeats finishes nothing any more.
const SILENT_HEARTBEATS: u64 = 5;
/// How a node was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// What was in flight was finished, or given the time for it.
    InOrder,
    /// Nobody is left to finish what is in flight: it cannot end well, however long it is waited for.
    Abandoned,
}

/// Between two looks at what is in flight.
const LOOK: Duration = Duration::from_millis(5);

impl NodeHandle {
    /// Refuses new requests, hands leadership over when somebody can take it, and waits for
    /// what is in flight, all within `drain_ms`, and no longer than somebody is there to finish it. A node that
    /// has stopped has nothing to wait for.
    pub async fn drain(&self) -> Drained {
        let shared = &self.shared;
        shared.draining.send_replace(true);
        if shared.stop.is_given() {
            return Drained::InOrder;
        }
        let finished = async {
            if shared.leadership.borrow().role == Role::Leader {
                match self.transfer_leadership(None).await {
                    Ok(to) => tracing::info!(%to, "handed leadership over"),
                    Err(error) => tracing::info!(%error, "leadership not handed over"),
                }
            }
            while shared.budget.in_use() > 0 && !shared.stop.is_given() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = finished => Drained::InOrder,
            () = self.abandoned() => {
                tracing::warn!(
                    "the other voters are gone, so what was in flight when the node stopped was not \
                     finished"
                );
                Drained::Abandoned
            }
            () = tokio::time::sleep(Duration::from_millis(shared.config.drain_ms)) => {
                tracing::warn!("requests were still in flight when the node stopped");
                Drained::InOrder
            }
        }
    }

    /// Returns when nobody is left to finish what is in flight, as when all nodes are stopped at once.
    async fn abandoned(&self) {
        let config = self.config();
        let heartbeat = Duration::from_millis(config.heartbeat_ms);
        let (silence, patience) =
            (heartbeat * SILENT_HEARTBEATS as u32, Duration::from_millis(config.election_ms));
        let mut leaderless: Option<Instant> = None;
        loop {
            tokio::time::sleep(heartbeat / 2).await;
            // A node that has stopped finishes nothing.
            let Ok(status) = self.status().await else { return };
            if status.role == Role::Leader && self.hears_no_majority(&status, silence) {
                return;
            }
            match status.leader {
                Some(_) => leaderless = None,
                None if leaderless.get_or_insert_with(Instant::now).elapsed() >= patience => return,
                None => {}
            }
        }
    }

    /// Of a leader that had the time to hear of them.
    fn hears_no_majority(&self, status: &ReplicaStatus, silence: Duration) -> bool {
        let me = self.identity().node;
        let voters = &status.conf_state.voters;
        let is_heard = |voter| {
            let silent = status.peer(voter).and_then(|peer| peer.silent_ticks);
            voter == me || silent.is_some_and(|ticks| self.ticks(ticks) < silence)
        };
        let heard = voters.iter().filter(|voter| is_heard(**voter)).count();
        !status.is_new_leader && heard * 2 <= voters.len()
    }
}
