//! What a node sends it says in its own name: a peer refuses anything else, and the stream that
//! brought it with all that was on it.

use super::Invariant;
use crate::sim::observe::{Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct SpeaksForItself;

impl Invariant for SpeaksForItself {
    fn name(&self) -> &'static str {
        "speaks_for_itself"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Posted { slot, node, from, kind } if from != node => Err(format!(
                "{slot} is node {node} and sends a {kind:?} in the name of node {from}"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::{MessageKind, NodeId};

    use super::super::testing::{judge, refused};
    use super::*;
    use crate::sim::observe::Slot;

    #[test]
    fn a_message_in_the_name_of_another_node_is_wrong() {
        let posted = |from| Fact::Posted {
            slot: Slot(0),
            node: NodeId(1),
            from: NodeId(from),
            kind: MessageKind::ReadIndex,
        };
        assert_eq!(judge(&mut SpeaksForItself, &[posted(1)]), Ok(()));
        refused(&mut SpeaksForItself, &[posted(2)], "in the name of node 2");
    }
}
