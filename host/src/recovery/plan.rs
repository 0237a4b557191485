//! Which survivor a new cluster is made of, and what that keeps and loses.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::survivor::{Survivor, is_quorum_without};
use crate::museum::{self, Exhibit};
use crate::types::{ClusterId, ConfState, Index, Member, NodeId};

/// Why survivors make no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to plan with.
    #[error("a plan is made of what at least one node holds")]
    Nobody,
    /// They have nothing in common.
    #[error(
        "node {} is of cluster {}, and node {} of cluster {}: a plan is made of one cluster's nodes",
        .nodes[0], .clusters[0], .nodes[1], .clusters[1]
    )]
    Clusters {
        /// Whose they are.
        nodes: [NodeId; 2],
        /// The clusters.
        clusters: [ClusterId; 2],
    },
    /// One of them may be older.
    #[error(
        "node {0} was inspected twice: leave the older file away, or that of a copy of its data directory"
    )]
    Twice(NodeId),
    /// One of them is not what it was, or was never a part of this cluster.
    #[error(
        "node {} and node {} do not hold the same at index {index}: {what}; raft-host replay DIR --against DIR \
         finds where they part. Leave the file of the one that is wrong away",
        .nodes[0], .nodes[1]
    )]
    Disagree {
        /// Who holds what.
        nodes: [NodeId; 2],
        /// Where.
        index: Index,
        /// In words.
        what: &'static str,
    },
    /// Nothing has to be recovered.
    #[error(
        "nodes {0} are a majority of the voters: start them, and the cluster serves again, with nothing lost. \
         If one of them can never be started, leave its file away"
    )]
    Majority(String),
    /// Not a node of the cluster any more.
    #[error(
        "node {0} is not a voter by what it holds itself, and no voter is here: its data may be old, or end \
         anywhere; --accept-loss makes a plan of it all the same"
    )]
    NoVoter(NodeId),
    /// A loss that was not accepted.
    #[error(
        "this plan may lose commands that were acknowledged; --accept-loss makes it all the same"
    )]
    Loss(Box<Plan>),
}

/// What `recover apply` does, as `recover plan` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Names it; drawn at random.
    pub id: String,
    /// By the planning machine's clock, in milliseconds since the Unix epoch.
    pub planned_ms: u64,
    /// Whose data the new cluster is made of.
    pub chosen: Survivor,
    /// The others that were looked at.
    pub others: Vec<Survivor>,
    /// Members that were not.
    pub missing: Vec<Member>,
    /// Whether those that are missing were able to agree on more without any of those that are here.
    pub may_lose: bool,
    /// Whether somebody has accepted that.
    pub loss_accepted: bool,
}

impl Document for Plan {
    const KIND: &'static str = "recovery plan";
}

impl Plan {
    /// Chooses the survivor whose log is the most advanced, as voters choose their leader (Raft §5.4.1).
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn of(
        survivors: Vec<Survivor>,
        accept_loss: bool,
        id: String,
        planned_ms: u64,
    ) -> Result<Plan, PlanError> {
        check(&survivors)?;
        let mut others = survivors;
        // Of two that hold the same, the one with the lower id.
        others.sort_by_key(|survivor| (std::cmp::Reverse(survivor.last), survivor.node));
        if museum::is_on(Exhibit::RecoveryOfLongest) {
            others.sort_by_key(|survivor| std::cmp::Reverse(survivor.last.index));
        }
        if others.is_empty() {
            return Err(PlanError::Nobody);
        }
        let chosen = others.remove(0);
        others.sort_by_key(|survivor| survivor.node);
        others.iter().try_for_each(|other| holds_committed(&chosen, other))?;
        let here: BTreeSet<NodeId> =
            others.iter().chain([&chosen]).map(|survivor| survivor.node).collect();
        let configuration = chosen.configuration();
        // One that the log ends with may never come into force, and then the one before counts.
        if chosen.configurations.iter().all(|conf| conf.is_quorum(&here)) {
            return Err(PlanError::Majority(list(&here)));
        }
        let is_gone = |member: &&Member| !here.contains(&member.id);
        let missing: Vec<Member> = chosen.members.iter().filter(is_gone).cloned().collect();
        // Whichever of them counts: entries behind the committed ones may not have been agreed on.
        let known = others.iter().chain([&chosen]).flat_map(|survivor| &survivor.configurations);
        let may_lose = known.into_iter().any(|conf: &ConfState| is_quorum_without(&here, conf));
        if !configuration.voters.iter().any(|voter| here.contains(voter)) && !accept_loss {
            return Err(PlanError::NoVoter(chosen.node));
        }
        let plan =
            Plan { id, planned_ms, chosen, others, missing, may_lose, loss_accepted: accept_loss };
        if may_lose && !accept_loss {
            return Err(PlanError::Loss(Box::new(plan)));
        }
        Ok(plan)
    }

    /// The last entry that is kept for certain: the last that any of those that are here knew to be committed;
    /// all that are here, where nothing can be lost.
    pub fn certain(&self) -> Index {
        match self.may_lose {
            true => self.known_committed(),
            false => self.chosen.last.index,
        }
    }

    /// The last entry that any of those that are here knew to be committed.
    pub fn known_committed(&self) -> Index {
        let all = self.others.iter().chain([&self.chosen]);
        // Raft's leader has them all.
        all.map(|survivor| survivor.committed.index)
            .max()
            .unwrap_or_default()
            .min(self.chosen.last.index)
    }

    /// Nodes that are of no use for the new cluster as they are.
    pub fn left_behind(&self) -> Vec<NodeId> {
        let others = self.others.iter().map(|survivor| survivor.node);
        let mut all: Vec<NodeId> =
            others.chain(self.missing.iter().map(|member| member.id)).collect();
        all.sort_unstable();
        all
    }

    /// What the plan does, in sentences: one a line.
    pub fn words(&self) -> Vec<String> {
        let Plan { chosen, others, missing, .. } = self;
        let configuration = chosen.configuration();
        let voters = configuration.voters.len();
        let here: BTreeSet<NodeId> =
            others.iter().chain([chosen]).map(|survivor| survivor.node).collect();
        let gone: BTreeSet<NodeId> = missing.iter().map(|member| member.id).collect();
        let are = |set: &BTreeSet<NodeId>, what: &str| match set.len() {
            0 => format!("none is {what}"),
            1 => format!("{} is {what}", list(set)),
            _ => format!("{} are {what}", list(set)),
        };
        let mut words = vec![format!(
            "Cluster {} has {voters} voter{} (node {}): {}, and {}.",
            chosen.cluster,
            if voters == 1 { "" } else { "s" },
            list(&configuration.voters),
            are(&here, "here"),
            are(&gone, "not here"),
        )];
        let last = chosen.last;
        let mut knows = format!(
            "Node {} holds the most: its log ends with entry {} of term {}",
            chosen.node, last.index, last.term
        );
        for other in others {
            let Survivor { node, last, .. } = other;
            knows.push_str(&format!(
                ", that of node {node} with {} of term {}",
                last.index, last.term
            ));
        }
        words.push(knows + ".");
        let (certain, known) = (self.certain(), self.known_committed());
        words.push(format!("Kept for certain: every entry up to {certain}."));
        if self.may_lose {
            if last.index > known {
                words.push(format!(
                    "Kept as node {} has them: entries {} to {}. Whether they were agreed on is not known \
                     here: those that are not here may have put others in their place.",
                    chosen.node,
                    known.next(),
                    last.index
                ));
            }
            words.push(format!(
                "May be lost: whatever was acknowledged after entry {}. Those that are not here could agree \
                 without those that are; on how much they did, nobody here can know.",
                last.index
            ));
        } else {
            words.push(
                "Lost: nothing that was acknowledged, since each majority had a voter that is here."
                    .to_owned(),
            );
            if last.index > known {
                words.push(format!(
                    "Of entries {} to {} it is not known whether they were agreed on; they take effect.",
                    known.next(),
                    last.index
                ));
            }
        }
        let behind: BTreeSet<NodeId> = self.left_behind().into_iter().collect();
        if !behind.is_empty() {
            words.push(format!(
                "Left behind: node {}. The new cluster refuses them as they are: delete their data directories, \
                 and have them join it.",
                list(&behind)
            ));
        }
        let evidence = others.iter().chain([chosen]).filter(|survivor| survivor.has_evidence);
        words.extend(evidence.map(|survivor| {
            format!(
                "Node {} once kept a state that had gone wrong: raft-host replay {} says whether what it \
                 holds is right.",
                survivor.node, survivor.data_dir
            )
        }));
        words
    }
}

/// Whether they can be of one cluster, and hold nothing that contradicts another.
fn check(survivors: &[Survivor]) -> Result<(), PlanError> {
    for (at, one) in survivors.iter().enumerate() {
        for other in &survivors[at + 1..] {
            if one.cluster != other.cluster {
                let (nodes, clusters) = ([one.node, other.node], [one.cluster, other.cluster]);
                return Err(PlanError::Clusters { nodes, clusters });
            }
            if one.node == other.node {
                return Err(PlanError::Twice(one.node));
            }
            let nodes = [one.node, other.node];
            if one.committed == other.committed && one.digest_committed != other.digest_committed {
                let what = "the state after the same entries is another one";
                return Err(PlanError::Disagree { nodes, index: one.committed.index, what });
            }
            let (less, more) = match one.committed.index <= other.committed.index {
                true => (one, other),
                false => (other, one),
            };
            holds_committed(more, less)?;
        }
    }
    Ok(())
}

/// Whether a log holds what another node knew to be committed.
fn holds_committed(log: &Survivor, other: &Survivor) -> Result<(), PlanError> {
    let committed = other.committed;
    match log.term_at(committed.index) {
        Some(term) if term != committed.term => {
            let what = "that entry is committed, and is of another term";
            let nodes = [log.node, other.node];
            Err(PlanError::Disagree { nodes, index: committed.index, what })
        }
        _ => Ok(()),
    }
}

/// "1, 2 and 3".
fn list(nodes: &BTreeSet<NodeId>) -> String {
    let mut words: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    let last = words.pop().unwrap_or_default();
    match words.is_empty() {
        true => last,
        false => format!("{} and {last}", words.join(", ")),
    }
}
