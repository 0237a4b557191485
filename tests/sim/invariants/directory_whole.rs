//! Whenever the power goes, a data directory is what it was before a step or after it: some node's or nobody's,
//! never foreign, never a member's without an identity, and never first one's and then another's.

use super::Invariant;
use super::notes::Map;
use crate::sim::observe::{Citizen, Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct DirectoryWhole {
    /// Whose a host's directory was.
    owners: Map<String, Citizen>,
}

fn name(owner: Option<Citizen>) -> String {
    owner.map_or_else(|| "nobody's".to_owned(), |owner| format!("that of {owner}"))
}

impl Invariant for DirectoryWhole {
    fn name(&self) -> &'static str {
        "directory_whole"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Directory { place, may_be, found, is_excused } = fact else { return Ok(()) };
        let found = match found {
            Ok(found) => *found,
            Err(_) if *is_excused => return Ok(()),
            Err(why) => return Err(format!("the data directory of {place} is refused: {why}")),
        };
        if !may_be.contains(&found) {
            let expected: Vec<String> = may_be.iter().map(|owner| name(*owner)).collect();
            return Err(format!(
                "the data directory of {place} is {}, and should be {}",
                name(found),
                expected.join(" or ")
            ));
        }
        let Some(found) = found.filter(|_| may_be.len() == 1) else { return Ok(()) };
        let known = *self.owners.entry((*place).to_owned()).or_insert(found);
        match known.cluster == found.cluster && known != found {
            true => {
                Err(format!("the data directory of {place} was that of {known}, and is {found}'s"))
            }
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::{ClusterId, NodeId};

    use super::super::testing::{judge, refused};
    use super::*;

    fn node(node: u64) -> Citizen {
        Citizen { cluster: ClusterId([1; 16]), node: NodeId(node) }
    }

    fn opened<'a>(
        may_be: &'a [Option<Citizen>],
        found: Result<Option<Citizen>, &'a str>,
    ) -> Fact<'a> {
        Fact::Directory { place: "n0", may_be, found, is_excused: false }
    }

    #[test]
    fn a_directory_is_what_it_was_before_or_after() {
        let (nobody, one, other) = (None, Some(node(1)), Some(node(2)));
        let (new, ours) = ([nobody, one], [one]);
        let good = [opened(&new, Ok(nobody)), opened(&new, Ok(one)), opened(&ours, Ok(one))];
        assert_eq!(judge(&mut DirectoryWhole::default(), &good), Ok(()));
        let invariant = DirectoryWhole::default;
        refused(&mut invariant(), &[opened(&ours, Ok(nobody))], "is nobody's, and should be");
        refused(&mut invariant(), &[opened(&new, Ok(other))], "is that of node 2");
        refused(&mut invariant(), &[opened(&new, Err("foreign"))], "is refused: foreign");
        let excused =
            Fact::Directory { place: "n0", may_be: &ours, found: Err("damaged"), is_excused: true };
        assert_eq!(judge(&mut invariant(), &[excused]), Ok(()));
    }

    #[test]
    fn nobody_is_first_one_and_then_another() {
        let (one, other) = ([Some(node(1))], [Some(node(2))]);
        let facts = [opened(&one, Ok(one[0])), opened(&other, Ok(other[0]))];
        refused(&mut DirectoryWhole::default(), &facts, "was that of node 1");
    }
}
