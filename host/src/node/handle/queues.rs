//! What waits in a node, in bytes, for people.

use super::core::NodeHandle;
use crate::consensus::ReplicaStatus;

/// What waits somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// What waits, as a metric's label.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
    /// With how much no more is taken; `None`: the bounds of other queues are its own.
    pub max_bytes: Option<u64>,
}

impl NodeHandle {
    /// What waits in this node. Without a `status`, what only that tells is left out.
    pub fn queues(&self, status: Option<&ReplicaStatus>) -> Vec<Queue> {
        let shared = &self.shared;
        let queue = |name, bytes, max_bytes| Queue { name, bytes, max_bytes };
        let (budget, inbox, limits) = (&shared.budget, &shared.inbox, shared.queue_limits);
        let mut queues = vec![
            queue("in_flight", budget.in_use(), Some(budget.max())),
            queue("inbox", inbox.in_use(), Some(inbox.max())),
            queue("log", shared.metrics.log_waiting_bytes.get(), None),
        ];
        if let Some(status) = status {
            let (uncommitted, unapplied) = (status.uncommitted_bytes, status.unapplied_bytes);
            queues.extend([
                queue("uncommitted", uncommitted, Some(limits.uncommitted_bytes)),
                queue("unapplied", unapplied, Some(limits.unapplied_bytes)),
            ]);
        }
        queues
    }
}
