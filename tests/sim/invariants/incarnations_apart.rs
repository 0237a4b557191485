//! Two incarnations of a cluster have nothing to do with each other: no message of one comes in at the other, no
//! entry of one is applied by the other, and who was left behind is told so.

use raft_host::types::{ClusterId, Index, LogPosition, Term};

use super::Invariant;
use super::notes::{Fingerprint, Map, at, fingerprint};
use crate::sim::observe::{AppliedEntry, Citizen, Digest, Fact, Micros, Restored};

/// See the module.
#[derive(Debug, Default)]
pub struct IncarnationsApart {
    /// The clusters beside this one, by id: what they were made of, and what their logs begin after; `None` for
    /// one that has a log of its own.
    made: Map<ClusterId, (ClusterId, Option<LogPosition>)>,
    /// What the nodes of a cluster have applied.
    entries: Map<(ClusterId, Index), (Term, Option<Fingerprint>)>,
    digests: Map<(ClusterId, Index), Digest>,
}

impl IncarnationsApart {
    fn begins(&mut self, made: &Restored) {
        let begins = made.digest.is_some().then_some(made.begins);
        self.made.insert(made.cluster, (made.of, begins));
        // Of the nodes that come back beside it, on copies: what they do has no consequences for others.
        let of = made.of;
        self.entries.retain(|(cluster, _), _| *cluster != of);
        self.digests.retain(|(cluster, _), _| *cluster != of);
    }

    fn executed(
        &mut self,
        of: Citizen,
        position: LogPosition,
        entry: Option<&AppliedEntry>,
    ) -> Result<(), String> {
        let Citizen { cluster, .. } = of;
        match self.made.get(&cluster) {
            Some((_, Some(begins))) if position.index <= begins.index => {
                return Err(format!(
                    "{of}, which begins at {}, applied {}",
                    at(*begins),
                    at(position)
                ));
            }
            Some(_) => {}
            None => {
                let beyond = self.made.values().find_map(|(old, begins)| {
                    begins.filter(|begins| *old == cluster && position.index > begins.index)
                });
                if let Some(begins) = beyond {
                    return Err(format!(
                        "{of} applied {}, and that is an entry of those who begin at {}",
                        at(position),
                        at(begins)
                    ));
                }
            }
        }
        let data = entry.map(|entry| fingerprint(&[&entry.data]));
        let seen = (position.term, data);
        let first = *self.entries.entry((cluster, position.index)).or_insert(seen);
        if first != seen {
            return Err(format!("{of} applied another entry than others at {}", at(position)));
        }
        let digest = entry.and_then(|entry| entry.digest);
        digest.map_or(Ok(()), |digest| self.has(of, position, digest))
    }

    fn has(&mut self, of: Citizen, position: LogPosition, digest: Digest) -> Result<(), String> {
        let known = *self.digests.entry((of.cluster, position.index)).or_insert(digest);
        match known == digest {
            true => Ok(()),
            false => Err(format!("{of} has another state than others at {}", at(position))),
        }
    }
}

impl Invariant for IncarnationsApart {
    fn name(&self) -> &'static str {
        "incarnations_apart"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Restored(made) | Fact::Founded(made) => {
                self.begins(made);
                Ok(())
            }
            Fact::LetIn { by, from } if by.cluster != from.cluster => {
                Err(format!("{by} let {from} in"))
            }
            Fact::TurnedAway { by, from, knows: true, is_told } => {
                match self.made.get(&by.cluster) {
                    Some((of, Some(_))) if *of == from.cluster && !is_told => {
                        Err(format!("{by} did not tell {from} that it was left behind"))
                    }
                    _ => Ok(()),
                }
            }
            Fact::Executed { of, position, entry } => self.executed(*of, *position, *entry),
            Fact::TookOver { of, position, digest } => self.has(*of, *position, *digest),
            Fact::ToldBeside { of, index, term } => match self.entries.get(&(*of, *index)) {
                Some((applied, _)) if applied == term => Ok(()),
                _ => Err(format!(
                    "a client of cluster {of} was told of entry {index} of term {term}, which nobody has applied"
                )),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::NodeId;

    use super::super::testing::{self, judge, ok, pos, refused};
    use super::*;

    const OLD: ClusterId = ClusterId([1; 16]);
    const NEW: ClusterId = ClusterId([2; 16]);

    fn node(cluster: ClusterId, node: u64) -> Citizen {
        Citizen { cluster, node: NodeId(node) }
    }

    fn made() -> Restored {
        Restored {
            of: OLD,
            position: pos(9, 2),
            digest: Some([1; 16]),
            values: Vec::new(),
            cluster: NEW,
            begins: pos(1_000, 3),
            members: 1,
            sessions: 0,
            has_rights: false,
            origin: Some((OLD, pos(9, 2))),
        }
    }

    fn after(facts: &[Fact<'_>], words: Option<&str>) {
        let made = made();
        let mut invariant = IncarnationsApart::default();
        assert_eq!(judge(&mut invariant, &[Fact::Restored(&made)]), Ok(()));
        match words {
            Some(words) => refused(&mut invariant, facts, words),
            None => assert_eq!(judge(&mut invariant, facts), Ok(())),
        }
    }

    #[test]
    fn only_nodes_of_a_cluster_speak_to_each_other() {
        after(&[Fact::LetIn { by: node(NEW, 1), from: node(NEW, 2) }], None);
        after(&[Fact::LetIn { by: node(OLD, 1), from: node(OLD, 2) }], None);
        after(&[Fact::LetIn { by: node(NEW, 1), from: node(OLD, 2) }], Some("let node 2"));
        after(&[Fact::LetIn { by: node(OLD, 1), from: node(NEW, 2) }], Some("let node 2"));
    }

    #[test]
    fn who_was_left_behind_is_told_so_by_those_who_know() {
        let away = |by, from, knows, is_told| Fact::TurnedAway { by, from, knows, is_told };
        let (new, old) = (node(NEW, 1), node(OLD, 1));
        after(&[away(new, old, true, true), away(new, old, false, false)], None);
        after(&[away(old, new, true, false)], None);
        after(&[away(new, old, true, false)], Some("did not tell"));
    }

    #[test]
    fn no_entry_of_one_is_applied_by_the_other() {
        let executed =
            |of, index, term| Fact::Executed { of, position: pos(index, term), entry: None };
        after(&[executed(node(NEW, 1), 1_001, 4), executed(node(OLD, 1), 12, 3)], None);
        after(&[executed(node(NEW, 1), 12, 3)], Some("applied index 12"));
        after(&[executed(node(OLD, 1), 1_001, 4)], Some("of those who begin"));
        let facts = [executed(node(NEW, 1), 1_001, 4), executed(node(NEW, 2), 1_001, 5)];
        after(&facts, Some("another entry"));
    }

    #[test]
    fn a_client_is_told_of_what_was_applied() {
        let entry = testing::applied(0, pos(1_001, 4), "a", ok("a"));
        let told = |term| Fact::ToldBeside { of: NEW, index: Index(1_001), term: Term(term) };
        let executed =
            || Fact::Executed { of: node(NEW, 1), position: pos(1_001, 4), entry: Some(&entry) };
        after(&[executed(), told(4)], None);
        after(&[executed(), told(5)], Some("which nobody has applied"));
        after(&[told(4)], Some("which nobody has applied"));
    }
}
