//! A level is raised only to what the program of every member offered a moment before it was proposed.

use std::collections::{BTreeMap, BTreeSet};

use raft_host::machine::{BodyKind, Reply};
use raft_host::types::{ConfState, Index, Level, LogPosition, NodeId};

use super::Invariant;
use crate::sim::observe::{Fact, Micros};

/// Longest elections for which an offer may have been on its way, or its reader paused.
const ELECTIONS: u64 = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct LevelOffered {
    /// Of each node: since when it ran which program.
    programs: BTreeMap<NodeId, Vec<(Micros, Level)>>,
    members: BTreeSet<NodeId>,
    members_as_of: Index,
    /// When an entry that raises the level was first on a disk.
    proposed: BTreeMap<LogPosition, Micros>,
    /// The level, and since which index.
    raised: Option<(Level, Index)>,
    longest_election: Micros,
}

impl LevelOffered {
    fn members_are(&mut self, index: Index, conf_state: &ConfState) {
        if index > self.members_as_of {
            self.members_as_of = index;
            self.members = conf_state.nodes().into_iter().collect();
        }
    }

    /// Whether a node ran a program that offers the level at some time in between.
    fn offered(&self, node: NodeId, level: Level, from: Micros, to: Micros) -> bool {
        let Some(programs) = self.programs.get(&node) else { return false };
        programs.iter().enumerate().any(|(at, (since, offered))| {
            let until = programs.get(at + 1).map_or(Micros(u64::MAX), |(next, _)| *next);
            *offered >= level && *since <= to && until >= from
        })
    }

    fn check(&self, position: LogPosition, level: Level, now: Micros) -> Result<(), String> {
        let proposed = self.proposed.get(&position).copied().unwrap_or(now);
        let from = Micros(proposed.0.saturating_sub(ELECTIONS * self.longest_election.0));
        let missing: Vec<String> = self
            .members
            .iter()
            .filter(|node| !self.offered(**node, level, from, proposed))
            .map(NodeId::to_string)
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "entry {} raises the level to {level}, which the program of node {} did not offer",
                position.index,
                missing.join(", ")
            )),
        }
    }
}

impl Invariant for LevelOffered {
    fn name(&self) -> &'static str {
        "level_offered"
    }

    fn observe(&mut self, now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Program { node, level } => {
                self.programs.entry(*node).or_default().push((now, *level));
            }
            Fact::Survey(survey) => self.longest_election = survey.bounds.election,
            Fact::Membership { position, conf_state, .. } => {
                self.members_are(position.index, conf_state);
            }
            Fact::Persisted { entries, .. } => {
                for entry in entries.iter() {
                    if BodyKind::of(&entry.data) == BodyKind::SetLevel {
                        let position = LogPosition { index: entry.index, term: entry.term };
                        self.proposed.entry(position).or_insert(now);
                    }
                }
            }
            Fact::Applied(entry) => {
                let Reply::LevelSet { level, previous } = entry.reply else { return Ok(()) };
                let index = entry.position.index;
                if level < previous {
                    return Err(format!(
                        "entry {index} lowers the level from {previous} to {level}"
                    ));
                }
                let is_known = self.raised.is_some_and(|(_, known)| index <= known);
                if level != previous && !is_known {
                    self.raised = Some((level, index));
                    return self.check(entry.position, level, now);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, judge, pos, refused};
    use super::*;
    use crate::sim::observe::{AppliedEntry, Slot};

    fn raising(to: u32) -> AppliedEntry {
        let reply = Reply::LevelSet { level: Level(to), previous: Level(1) };
        applied(0, pos(7, 1), "", reply)
    }

    fn program(node: u64, level: u32) -> Fact<'static> {
        Fact::Program { node: NodeId(node), level: Level(level) }
    }

    fn members<'a>(conf_state: &'a ConfState) -> Fact<'a> {
        Fact::Membership { slot: Slot(0), position: pos(3, 1), conf_state }
    }

    #[test]
    fn every_member_must_have_offered_it() {
        let voters = [NodeId(1), NodeId(2)].into_iter().collect();
        let conf_state = ConfState { voters, ..ConfState::default() };
        let entry = raising(2);
        let start = || vec![program(1, 2), program(2, 1), program(3, 1), members(&conf_state)];
        let mut facts = start();
        facts.push(Fact::Applied(&entry));
        refused(&mut LevelOffered::default(), &facts, "program of node 2 did not offer");
        let mut facts = start();
        facts.extend([program(2, 2), Fact::Applied(&entry)]);
        assert_eq!(judge(&mut LevelOffered::default(), &facts), Ok(()));
    }

    #[test]
    fn it_is_never_lowered() {
        let reply = Reply::LevelSet { level: Level(1), previous: Level(2) };
        let entry = applied(0, pos(7, 1), "", reply);
        refused(&mut LevelOffered::default(), &[Fact::Applied(&entry)], "lowers the level");
    }
}
