//! All who rehearse the same module on the same entries come to the same report, whoever they are and whatever
//! has happened to them; what it says has happened and would have happened; and what a receipt says was found by
//! everybody whom it names. What a module in a node's shadow has found is as true.
//!
//! What has happened is known from the entries that nodes applied, and what another version would have answered
//! from the reference model: no guest is asked.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use raft_host::machine::Reply;
use raft_host::rehearsal::{Kind, Report};
use raft_host::types::{Index, ModuleHash, NodeId, Outcome, Position};
use raft_host_proto::stored::{self, entry::Body};

use super::Invariant;
use crate::sim::model::Guest;
use crate::sim::observe::{AppliedEntry, Fact, Micros, Slot};

/// A module, and the entries that it was rehearsed on.
type What = (ModuleHash, Index, Index);

/// What was found of that.
#[derive(Debug)]
struct Found {
    first: Slot,
    report: Report,
    by: BTreeSet<NodeId>,
}

/// See the module.
pub struct ReceiptsEqual {
    guest: &'static dyn Guest,
    /// Up to here the entries are known.
    seen: Index,
    /// What came of each command that a guest executed; ascending.
    executed: Vec<(Position, Outcome)>,
    found: BTreeMap<What, Found>,
}

impl ReceiptsEqual {
    /// For a run with this guest.
    pub fn new(guest: &'static dyn Guest) -> ReceiptsEqual {
        ReceiptsEqual { guest, seen: Index(0), executed: Vec::new(), found: BTreeMap::new() }
    }

    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.position.index;
        if index <= self.seen {
            return Ok(());
        }
        self.seen = index;
        for (position, answered) in entry.answers() {
            match answered.reply {
                // A retry was executed where its original was.
                Reply::Command(Outcome::Duplicate(_)) => {}
                Reply::Command(outcome) => self.executed.push((position, outcome)),
                _ => {}
            }
        }
        if !matches!(entry.reply, Reply::ReceiptRecorded { .. }) {
            return Ok(());
        }
        let body = stored::Entry::decode(&entry.data[..]).ok().and_then(|entry| entry.body);
        match body {
            Some(Body::RecordReceipt(receipt)) => self.recorded(index, &receipt),
            _ => Ok(()),
        }
    }

    fn recorded(&self, index: Index, receipt: &stored::RecordReceipt) -> Result<(), String> {
        // Made up by an operator.
        if receipt.report_hash.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let (base, until) = (Index(receipt.base), Index(receipt.until));
        let module = <[u8; 32]>::try_from(&receipt.module_hash[..]).map(ModuleHash);
        let found = module.ok().and_then(|module| self.found.get(&(module, base, until)));
        let Some(found) = found.filter(|it| it.report.hash()[..] == receipt.report_hash[..]) else {
            return Err(format!("nobody has found what the receipt at index {index} says"));
        };
        let others = receipt.voters.iter().filter(|voter| !found.by.contains(&NodeId(**voter)));
        let others: Vec<String> = others.map(u64::to_string).collect();
        if !others.is_empty() {
            return Err(format!(
                "the receipt at index {index} names nodes that have found nothing of the kind: {}",
                others.join(", ")
            ));
        }
        let differences = receipt.refused.saturating_add(receipt.allowed);
        let reported = found.report.counts.iter().map(|count| count.count).sum();
        if (receipt.commands, differences) != (found.report.commands, reported) {
            return Err(format!(
                "the receipt at index {index} says {} commands and {differences} differences, and the \
                 report {} and {reported}",
                receipt.commands, found.report.commands
            ));
        }
        Ok(())
    }

    fn rehearsed(
        &mut self,
        (slot, node): (Slot, NodeId),
        (base, until): (Index, Index),
        queries: usize,
        report: &Report,
    ) -> Result<(), String> {
        let found = self.found.entry((report.module, base, until)).or_insert_with(|| Found {
            first: slot,
            report: report.clone(),
            by: BTreeSet::new(),
        });
        if found.report.hash() != report.hash() {
            return Err(format!(
                "{slot} and {} have rehearsed module {} after index {base} up to {until}, and their reports \
                 differ: {report:?} and {:?}",
                found.first,
                report.module.short(),
                found.report
            ));
        }
        found.by.insert(node);
        let is_first = found.by.len() == 1;
        match is_first {
            true => self.is_true((base, until), queries, report).map_err(|why| {
                format!(
                    "{slot} has rehearsed module {} after index {base} up to {until}, and {why}",
                    report.module.short()
                )
            }),
            false => Ok(()),
        }
    }

    /// It ran beside the machine of one node.
    fn shadowed(&self, slot: Slot, found: &Report) -> Result<(), String> {
        let (base, until) = (found.base, found.until);
        self.is_true((base, until), 0, found).map_err(|why| {
            format!(
                "module {} was in the shadow of {slot} after index {base} up to {until}, and {why}",
                found.module.short()
            )
        })
    }

    fn is_true(
        &self,
        (base, until): (Index, Index),
        queries: usize,
        report: &Report,
    ) -> Result<(), String> {
        if (report.base, report.until) != (base, until) {
            return Err(format!("says after {} up to {}", report.base, report.until));
        }
        let count = |is_it: &dyn Fn(Kind) -> bool| -> u64 {
            report.counts.iter().filter(|it| is_it(it.kind)).map(|it| it.count).sum()
        };
        if count(&|kind| kind == Kind::Migration) > 0 {
            return Err("says that it does not take over, which each version does".to_owned());
        }
        let from = self.executed.partition_point(|(position, _)| position.index <= base);
        let to = self.executed.partition_point(|(position, _)| position.index <= until);
        let executed = &self.executed[from..to];
        if report.commands != executed.len() as u64 {
            return Err(format!("says {} commands of {}", report.commands, executed.len()));
        }
        let (old, new) = (report.replaces.hash, report.module);
        let differs = |outcome: &Outcome| self.guest.answers_otherwise(old, new, outcome);
        let mut otherwise = executed.iter().filter(|(_, outcome)| differs(outcome));
        let told = report.differences.iter().filter(|it| it.kind.is_of_commands());
        let first = (told.filter_map(|it| it.position).min(), otherwise.clone().next());
        let found = (count(&Kind::is_of_commands), otherwise.by_ref().count() as u64);
        if found.0 != found.1 || first.0 != first.1.map(|(position, _)| *position) {
            return Err(format!(
                "says that {} commands are answered otherwise, from {:?} on, and it is {}, from {:?} on",
                found.0, first.0, found.1, first.1
            ));
        }
        let expected = if differs(&Outcome::Ok(Vec::new())) { queries as u64 } else { 0 };
        let found = count(&|kind| kind == Kind::Query);
        match found == expected {
            true => Ok(()),
            false => Err(format!("says that {found} queries differ instead of {expected}")),
        }
    }
}

impl Invariant for ReceiptsEqual {
    fn name(&self) -> &'static str {
        "receipts_equal"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => self.applied(entry),
            Fact::Membership { position, .. } => {
                self.seen = self.seen.max(position.index);
                Ok(())
            }
            Fact::Rehearsed { slot, node, range, queries, report } => {
                self.rehearsed((slot, node), range, queries, report)
            }
            Fact::Shadowed { slot, found } => self.shadowed(slot, found),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::machine::Incumbent;
    use raft_host::rehearsal::{Count, Difference};

    use super::super::testing::{Words, applied, applied_batch, judge, node, ok, pos, refused};
    use super::*;

    const OLD: ModuleHash = ModuleHash([1; 32]);
    const NEW: ModuleHash = ModuleHash([2; 32]);
    const RANGE: (Index, Index) = (Index(3), Index(5));

    fn invariant() -> ReceiptsEqual {
        ReceiptsEqual::new(&Words)
    }

    /// One command before the range, and three in it, of which one is a retry and one traps.
    fn history() -> [AppliedEntry; 3] {
        use raft_host::types::TrapKind::Unreachable;
        let trapped = Reply::Command(Outcome::Trapped(Unreachable));
        let again = Reply::Command(Outcome::Duplicate(Box::new(Outcome::Ok(Vec::new()))));
        let batch =
            [(None, "trap k", trapped), (Some((1, 1)), "set k 1", again), (None, "get k", ok("1"))];
        [
            applied(0, pos(3, 1), "set k 1", ok("")),
            applied_batch(0, pos(4, 1), &batch),
            applied(0, pos(5, 1), "get k", ok("1")),
        ]
    }

    fn report() -> Report {
        let at = |index, ordinal| Position { index: Index(index), ordinal };
        let told = |position| Difference {
            kind: Kind::Reply,
            class: String::new(),
            position: Some(position),
            input: bytes::Bytes::new(),
            input_cut: false,
            old: String::new(),
            new: String::new(),
        };
        Report {
            module: NEW,
            way: Default::default(),
            replaces: Incumbent { hash: OLD, activated_at: Index(2) },
            base: RANGE.0,
            until: RANGE.1,
            commands: 3,
            counts: vec![
                Count { kind: Kind::Reply, class: String::new(), count: 2 },
                Count { kind: Kind::Query, class: String::new(), count: 1 },
            ],
            differences: vec![told(at(4, 2)), told(at(5, 0))],
            fuel: Default::default(),
            memory: Default::default(),
            snapshot_before_bytes: 0,
            snapshot_bytes: 0,
            snapshot_fuel: 0,
            restore_fuel: 0,
            way_back: Ok(()),
            names_classes: false,
            switch: Default::default(),
        }
    }

    fn rehearsed(slot: usize, report: &Report) -> Fact<'_> {
        Fact::Rehearsed { slot: Slot(slot), node: node(slot), range: RANGE, queries: 1, report }
    }

    fn receipt(report: &Report, voters: &[u64]) -> AppliedEntry {
        let receipt = stored::RecordReceipt {
            module_hash: NEW.0.to_vec().into(),
            base: RANGE.0.0,
            until: RANGE.1.0,
            commands: report.commands,
            refused: 1,
            allowed: 2,
            report_hash: report.hash().to_vec().into(),
            voters: voters.to_vec(),
            ..Default::default()
        };
        let body = Some(Body::RecordReceipt(receipt));
        let data = stored::Entry { body, ..Default::default() }.encode_to_vec();
        let recorded = Reply::ReceiptRecorded { index: Index(6) };
        AppliedEntry { data: data.into(), ..applied(0, pos(6, 1), "", recorded) }
    }

    #[test]
    fn reports_that_are_true_and_equal_are_fine_and_so_are_their_receipts() {
        let (history, report) = (history(), report());
        let recorded = receipt(&report, &[1, 2]);
        let mut facts: Vec<Fact<'_>> = history.iter().map(Fact::Applied).collect();
        facts.extend([rehearsed(0, &report), rehearsed(1, &report), Fact::Applied(&recorded)]);
        assert_eq!(judge(&mut invariant(), &facts), Ok(()));
    }

    #[test]
    fn two_that_differ_are_found_whoever_is_right() {
        let (history, report) = (history(), report());
        let other = Report { snapshot_bytes: 7, ..report.clone() };
        let mut facts: Vec<Fact<'_>> = history.iter().map(Fact::Applied).collect();
        facts.extend([rehearsed(0, &report), rehearsed(1, &other)]);
        refused(&mut invariant(), &facts, "their reports differ");
    }

    #[test]
    fn what_a_report_says_is_compared_with_what_happened() {
        let (history, right) = (history(), report());
        let without = |kind: Kind| {
            let mut report = report();
            report.counts.retain(|count| count.kind != kind);
            report
        };
        let late = Report { differences: right.differences[1..].to_vec(), ..right.clone() };
        let migrated = Count { kind: Kind::Migration, class: String::new(), count: 1 };
        for (report, words) in [
            (Report { base: Index(2), ..right.clone() }, "says after 2"),
            (Report { commands: 4, ..right.clone() }, "says 4 commands of 3"),
            (without(Kind::Reply), "0 commands are answered otherwise"),
            (late, "from Some"),
            (without(Kind::Query), "queries differ"),
            (Report { counts: vec![migrated], ..right.clone() }, "does not take over"),
        ] {
            let mut facts: Vec<Fact<'_>> = history.iter().map(Fact::Applied).collect();
            facts.push(rehearsed(0, &report));
            refused(&mut invariant(), &facts, words);
        }
    }

    #[test]
    fn what_was_found_in_a_shadow_is_compared_with_what_happened() {
        let (history, mut found) = (history(), report());
        let shadowed = |found: &Report| {
            let mut facts: Vec<Fact<'_>> = history.iter().map(Fact::Applied).collect();
            facts.push(Fact::Shadowed { slot: Slot(1), found });
            judge(&mut invariant(), &facts)
        };
        assert!(shadowed(&found).is_err_and(|why| why.contains("1 queries differ instead of 0")));
        found.counts.retain(|count| count.kind != Kind::Query);
        assert_eq!(shadowed(&found), Ok(()));
        found.commands += 1;
        assert!(shadowed(&found).is_err_and(|why| why.contains("in the shadow of n1")));
    }

    #[test]
    fn a_receipt_names_only_those_who_found_it() {
        let (history, report) = (history(), report());
        let other = Report { commands: 2, ..report.clone() };
        for (recorded, words) in [
            (receipt(&report, &[1, 2]), "found nothing of the kind: 2"),
            (receipt(&other, &[1]), "nobody has found"),
        ] {
            let mut facts: Vec<Fact<'_>> = history.iter().map(Fact::Applied).collect();
            facts.extend([rehearsed(0, &report), Fact::Applied(&recorded)]);
            refused(&mut invariant(), &facts, words);
        }
    }
}
