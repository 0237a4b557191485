//! A node stops by itself only with a reason that it was given from outside.

use super::Invariant;
use crate::sim::observe::{Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct ExcusedStops;

impl Invariant for ExcusedStops {
    fn name(&self) -> &'static str {
        "excused_stops"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Stopped { slot, reason, is_excused: false } => {
                Err(format!("{slot} stopped though nothing was done to it: {reason}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, refused};
    use super::*;
    use crate::sim::observe::Slot;

    #[test]
    fn a_node_stops_only_with_an_excuse() {
        let stopped =
            |is_excused| Fact::Stopped { slot: Slot(0), reason: "fsync failed", is_excused };
        assert_eq!(judge(&mut ExcusedStops, &[stopped(true)]), Ok(()));
        refused(&mut ExcusedStops, &[stopped(false)], "fsync failed");
    }
}
