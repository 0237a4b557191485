//! A quarantined node answers no query or command, and neither takes nor sends a snapshot. A node in
//! doubt answers nothing and takes no snapshot, either.

use raft_host::types::Index;

use super::Invariant;
use super::notes::Map;
use crate::sim::observe::{Fact, Micros, Slot};

/// See the module.
#[derive(Debug, Default)]
pub struct QuarantineKeepsQuiet {
    /// Since the verdict at this index.
    quarantined: Map<Slot, Index>,
    /// Likewise.
    in_doubt: Map<Slot, Index>,
}

impl Invariant for QuarantineKeepsQuiet {
    fn name(&self) -> &'static str {
        "quarantine_keeps_quiet"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Trust { slot, quarantine: Some((since, _)) } => {
                self.quarantined.insert(slot, since);
            }
            Fact::Trust { slot, quarantine: None } => {
                self.quarantined.remove(&slot);
            }
            Fact::Doubt { slot, since: Some(since) } => {
                self.in_doubt.insert(slot, since);
            }
            Fact::Doubt { slot, since: None } => {
                self.in_doubt.remove(&slot);
            }
            Fact::Started { slot, .. } => {
                self.quarantined.remove(&slot);
                self.in_doubt.remove(&slot);
            }
            Fact::Answered { slot, what } if self.in_doubt.contains_key(&slot) => {
                return Err(format!("{slot} is in doubt and answered a {what}"));
            }
            Fact::SnapshotSaved { slot, index }
                if self.in_doubt.get(&slot).is_some_and(|since| *since <= index) =>
            {
                return Err(format!("{slot} is in doubt and took a snapshot at {index}"));
            }
            Fact::Answered { slot, what } if self.quarantined.contains_key(&slot) => {
                return Err(format!("{slot} is quarantined and answered a {what}"));
            }
            // One that was being written when the verdict came is older than that.
            Fact::SnapshotSaved { slot, index }
                if self.quarantined.get(&slot).is_some_and(|since| *since <= index) =>
            {
                return Err(format!("{slot} is quarantined and took a snapshot at {index}"));
            }
            Fact::SnapshotSent { slot, index } if self.quarantined.contains_key(&slot) => {
                return Err(format!("{slot} is quarantined and sent its snapshot at {index}"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, refused};
    use super::*;

    const N: Slot = Slot(1);

    fn trust(since: Option<u64>) -> Fact<'static> {
        Fact::Trust { slot: N, quarantine: since.map(|since| (Index(since), Index(1))) }
    }

    fn answered() -> Fact<'static> {
        Fact::Answered { slot: N, what: "query" }
    }

    #[test]
    fn a_quarantined_node_answers_nothing_and_hands_no_state_on() {
        let saved = |index| Fact::SnapshotSaved { slot: N, index: Index(index) };
        let fine = [answered(), saved(2), trust(Some(5)), saved(4), trust(None), answered()];
        assert_eq!(judge(&mut QuarantineKeepsQuiet::default(), &fine), Ok(()));
        let wrong = [trust(Some(5)), answered()];
        refused(&mut QuarantineKeepsQuiet::default(), &wrong, "answered a query");
        refused(&mut QuarantineKeepsQuiet::default(), &[trust(Some(5)), saved(5)], "took");
        let sent = Fact::SnapshotSent { slot: N, index: Index(3) };
        refused(&mut QuarantineKeepsQuiet::default(), &[trust(Some(5)), sent], "sent");
    }

    #[test]
    fn a_node_in_doubt_answers_nothing_and_keeps_nothing() {
        let doubt = |since: Option<u64>| Fact::Doubt { slot: N, since: since.map(Index) };
        let saved = |index| Fact::SnapshotSaved { slot: N, index: Index(index) };
        let fine = [answered(), doubt(Some(5)), saved(4), doubt(None), answered(), saved(6)];
        assert_eq!(judge(&mut QuarantineKeepsQuiet::default(), &fine), Ok(()));
        let wrong = [doubt(Some(5)), answered()];
        refused(&mut QuarantineKeepsQuiet::default(), &wrong, "is in doubt and answered");
        refused(&mut QuarantineKeepsQuiet::default(), &[doubt(Some(5)), saved(5)], "took");
    }
}
