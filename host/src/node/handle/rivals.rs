//! Members of other clusters that dial this node, as operators see them.

use tokio::sync::watch;

use super::core::NodeHandle;
use crate::node::rivals::RivalStatus;
use crate::types::Rival;

impl NodeHandle {
    /// What is known of members of other clusters that dial this node; changes can be awaited.
    pub fn rivals(&self) -> watch::Receiver<RivalStatus> {
        self.shared.rivals.watch()
    }

    /// Whether this node serves nobody until a person confirms its cluster.
    pub fn is_unconfirmed(&self) -> bool {
        self.shared.rivals.is_unconfirmed()
    }

    /// This node's cluster was formed a short while ago; before an earlier start of the node ended,
    /// this rival had dialled it, if any.
    pub fn begin_probation(&self, disputed_by: Option<Rival>) {
        self.shared.rivals.set_probation(true, disputed_by);
    }

    /// This node's cluster is meant to be, whoever dials.
    pub fn end_probation(&self) {
        self.shared.rivals.set_probation(false, None);
    }
}
