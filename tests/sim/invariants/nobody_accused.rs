//! Nodes whose disks keep what they wrote send each other nothing that makes no sense, so whoever
//! checks for nonsense refuses nothing that a correct peer sends.

use super::Invariant;
use crate::sim::observe::{Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct NobodyAccused;

impl Invariant for NobodyAccused {
    fn name(&self) -> &'static str {
        "nobody_accused"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Accused { slot, peer, why, is_excused: false } => {
                Err(format!("{slot} says that node {peer} sends nonsense: {why}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::NodeId;

    use super::super::testing::{judge, refused};
    use super::*;
    use crate::sim::observe::Slot;

    #[test]
    fn a_node_is_accused_only_when_a_disk_lied() {
        let accused =
            |is_excused| Fact::Accused { slot: Slot(0), peer: NodeId(2), why: "no", is_excused };
        assert_eq!(judge(&mut NobodyAccused, &[accused(true)]), Ok(()));
        refused(&mut NobodyAccused, &[accused(false)], "node 2 sends nonsense: no");
    }
}
