//! How a node is left in order.

use std::time::Duration;

use super::core::NodeHandle;
use crate::consensus::Role;

impl NodeHandle {
    /// Refuses new requests, hands leadership over when somebody can take it, and waits for
    /// what is in flight, all within `drain_ms`. A node that has stopped has nothing to wait for.
    pub async fn drain(&self) {
        let shared = &self.shared;
        shared.draining.send_replace(true);
        if shared.stop.is_given() {
            return;
        }
        let patience = Duration::from_millis(shared.config.drain_ms);
        let drained = tokio::time::timeout(patience, async {
            if shared.leadership.borrow().role == Role::Leader {
                match self.transfer_leadership(None).await {
                    Ok(to) => tracing::info!(%to, "handed leadership over"),
                    Err(error) => tracing::info!(%error, "leadership not handed over"),
                }
            }
            while shared.budget.in_use() > 0 && !shared.stop.is_given() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!("requests were still in flight when the node stopped");
        }
    }
}
