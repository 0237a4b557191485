//! Who is a member of a group and who was, for those who must decide before its event loop is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::transport::Standing;
use crate::types::{ClusterId, Index, Member, NodeId, Origin};

/// Who is a member and who was, as far as this node has applied. Empty until it has a state.
#[derive(Default)]
pub(super) struct Roster(RwLock<Option<Known>>);

struct Known {
    members: Arc<BTreeMap<NodeId, Member>>,
    /// Every id below that is not in `members` belonged to a node that was removed.
    next: NodeId,
    /// Up to where that was applied.
    as_of: Index,
    /// What the cluster was made of, oldest first.
    origins: Arc<Vec<Origin>>,
}

impl Roster {
    pub(super) fn update(
        &self,
        members: Arc<BTreeMap<NodeId, Member>>,
        next: NodeId,
        as_of: Index,
        origins: Arc<Vec<Origin>>,
    ) {
        let mut known = self.0.write().expect("no code panics while it holds this lock");
        *known = Some(Known { members, next, as_of, origins });
    }

    pub(super) fn standing(&self, node: NodeId) -> Standing {
        let known = self.0.read().expect("no code panics while it holds this lock");
        match &*known {
            Some(known) if known.members.contains_key(&node) => Standing::Member,
            Some(known) if node < known.next => Standing::Removed,
            Some(known) if node.0 - known.next.0 < NEWCOMERS => Standing::Newcomer,
            Some(_) => Standing::Stranger,
            None => Standing::Member,
        }
    }

    pub(super) fn removal_of(&self, node: NodeId) -> Option<Index> {
        let known = self.0.read().expect("no code panics while it holds this lock");
        let gone = |known: &&Known| node < known.next && !known.members.contains_key(&node);
        known.as_ref().filter(gone).map(|known| known.as_of)
    }

    /// As of which entry the cluster was made of that one.
    pub(super) fn origin_of(&self, cluster: ClusterId) -> Option<Index> {
        let known = self.0.read().expect("no code panics while it holds this lock");
        let origin = known.as_ref()?.origins.iter().rev().find(|origin| origin.cluster == cluster);
        origin.map(|origin| origin.position.index)
    }
}

/// Ids that may have been given out since this node last heard of members: so many may have
/// joined while it was away.
const NEWCOMERS: u64 = 1 << 20;
