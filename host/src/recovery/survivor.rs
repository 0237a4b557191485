//! What a node that is left holds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::document::Document;
use crate::types::{
    ClusterId, ConfState, Index, LogPosition, Member, ModuleHash, NodeId, StateDigest, Term,
};

/// An entry of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The term of who wrote it first: what decides between two logs.
    pub term: Term,
    /// Where it is.
    pub index: Index,
}

impl From<LogPosition> for Place {
    fn from(LogPosition { index, term }: LogPosition) -> Place {
        Place { term, index }
    }
}

impl From<Place> for LogPosition {
    fn from(Place { index, term }: Place) -> LogPosition {
        LogPosition { index, term }
    }
}

/// What a stopped node holds, as `recover inspect` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivor {
    /// Whose data it is.
    #[serde(rename = "cluster_id")]
    pub cluster: ClusterId,
    /// Whose data it is.
    #[serde(rename = "node_id")]
    pub node: NodeId,
    /// Where it was found.
    pub data_dir: String,
    /// When, by that machine's clock, in milliseconds since the Unix epoch.
    pub inspected_ms: u64,
    /// The newest term that the node knew.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// What its log begins after.
    pub begins_after: Place,
    /// The newest snapshot that can be read.
    pub snapshot: Place,
    /// The last entry that it knew to be committed.
    pub committed: Place,
    /// The last entry that it holds.
    pub last: Place,
    /// The first entry of each term that the log holds, the newest of them.
    pub terms: Vec<Place>,
    /// Members as of `last`.
    pub members: Vec<Member>,
    /// The configuration as of `committed`, then each that the log makes of it.
    pub configurations: Vec<ConfState>,
    /// The module that is active as of `last`.
    pub module: Option<ModuleHash>,
    /// Of the state as of `committed`.
    pub digest_committed: StateDigest,
    /// Of the state as of `last`.
    pub digest: StateDigest,
    /// The node once kept a state that had gone wrong.
    pub has_evidence: bool,
}

impl Document for Survivor {
    const KIND: &'static str = "survivor";
}

impl Survivor {
    /// Whether it holds the same as another look at it found, whenever and by whatever way to it.
    pub fn is_unchanged(&self, now: &Survivor) -> bool {
        let Survivor { data_dir, inspected_ms, .. } = self;
        let now =
            Survivor { data_dir: data_dir.clone(), inspected_ms: *inspected_ms, ..now.clone() };
        *self == now
    }

    /// The configuration as of the last entry.
    pub fn configuration(&self) -> &ConfState {
        self.configurations.last().expect("a survivor has one")
    }

    /// The term of an entry that its log or its snapshot holds, if it is known.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last.index {
            return None;
        }
        if index == self.begins_after.index {
            return Some(self.begins_after.term);
        }
        let run = self.terms.iter().rev().find(|first| first.index <= index)?;
        Some(run.term)
    }
}

/// Whether the voters that are not among these nodes are a majority by themselves.
pub(super) fn is_quorum_without(nodes: &BTreeSet<NodeId>, configuration: &ConfState) -> bool {
    let others = configuration.nodes().difference(nodes).copied().collect();
    configuration.is_quorum(&others)
}
