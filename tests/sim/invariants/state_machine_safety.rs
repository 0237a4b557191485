//! State machine safety (Raft §5.4.3): every node applies the same entries in the same order,
//! and every machine makes the same of them, bit for bit.

use std::collections::BTreeSet;

use raft_host::machine::Reply;
use raft_host::types::{ConfState, Index, LogPosition, ModuleHash, StateDigest, Term};

use super::Invariant;
use super::notes::{Fingerprint, Map, at, fingerprint};
use crate::sim::observe::{Answered, AppliedEntry, Digest, End, Fact, Micros, Slot};

/// What the first node made of an index.
#[derive(Debug)]
struct First {
    slot: Slot,
    term: Term,
    what: What,
}

#[derive(Debug)]
enum What {
    Normal {
        data: Fingerprint,
        reply: Reply,
        fuel_used: u64,
        events: u32,
        behind: Vec<Answered>,
        time_ms: u64,
        module: Option<ModuleHash>,
    },
    Membership(ConfState),
}

/// See the module.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    entries: Map<Index, First>,
    digests: Map<Index, (Slot, Digest)>,
    /// What each node's machine has applied.
    applied: Map<Slot, Index>,
    /// Nodes in whose state a bit flipped. Guests never look at it, so all but digests must agree.
    tainted: BTreeSet<Slot>,
    /// Nodes that do not trust their state: they take another of the index that they are at.
    quarantined: BTreeSet<Slot>,
}

impl StateMachineSafety {
    /// An index follows the one that a machine has applied.
    fn advance(&mut self, slot: Slot, position: LogPosition) -> Result<(), String> {
        match self.applied.insert(slot, position.index) {
            Some(before) if before.next() != position.index => {
                Err(format!("{slot} applied {} after index {before}", at(position)))
            }
            _ => Ok(()),
        }
    }

    fn normal(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let AppliedEntry { slot, position, .. } = *entry;
        self.advance(slot, position)?;
        let answered = 1 + entry.behind.len();
        if entry.commands.max(1) + entry.released != answered {
            return Err(format!(
                "{slot} gave {answered} answers to the {} commands of {}, and {} that had waited",
                entry.commands,
                at(position),
                entry.released
            ));
        }
        let seen = fingerprint(&[&entry.data]);
        let first = self.entries.entry(position.index).or_insert_with(|| First {
            slot,
            term: position.term,
            what: What::Normal {
                data: seen,
                reply: without_digest(&entry.reply),
                fuel_used: entry.fuel_used,
                events: entry.events,
                behind: entry.behind.clone(),
                time_ms: entry.time_ms,
                module: entry.module,
            },
        });
        first.same_term(slot, position)?;
        let What::Normal { data, reply, fuel_used, events, behind, time_ms, module } = &first.what
        else {
            return Err(differ(position.index, first.slot, slot, "kind", "membership", "normal"));
        };
        let index = position.index;
        let (one, other) = (first.slot, slot);
        same(index, one, other, "data", data, &seen)?;
        same(index, one, other, "clock", time_ms, &entry.time_ms)?;
        same(index, one, other, "reply", reply, &without_digest(&entry.reply))?;
        same(index, one, other, "fuel", fuel_used, &entry.fuel_used)?;
        same(index, one, other, "events", events, &entry.events)?;
        same(index, one, other, "answers behind the first", behind, &entry.behind)?;
        same(index, one, other, "active module", module, &entry.module)?;
        match entry.digest {
            Some(digest) => self.digest(slot, index, digest),
            None => Ok(()),
        }
    }

    fn membership(
        &mut self,
        slot: Slot,
        position: LogPosition,
        state: &ConfState,
    ) -> Result<(), String> {
        self.advance(slot, position)?;
        let first = self.entries.entry(position.index).or_insert_with(|| First {
            slot,
            term: position.term,
            what: What::Membership(state.clone()),
        });
        first.same_term(slot, position)?;
        match &first.what {
            What::Membership(before) => {
                same(position.index, first.slot, slot, "members", before, state)
            }
            What::Normal { .. } => {
                Err(differ(position.index, first.slot, slot, "kind", "normal", "membership"))
            }
        }
    }

    fn installed(
        &mut self,
        slot: Slot,
        position: LogPosition,
        digest: Digest,
    ) -> Result<(), String> {
        if let Some(before) = self.applied.insert(slot, position.index)
            && position.index <= before
            && !(self.quarantined.contains(&slot) && position.index == before)
        {
            return Err(format!(
                "{slot} had applied index {before} and went back to a snapshot of {}",
                at(position)
            ));
        }
        if let Some(first) = self.entries.get(&position.index) {
            first.same_term(slot, position)?;
        }
        self.digest(slot, position.index, digest)
    }

    fn digest(&mut self, slot: Slot, index: Index, digest: Digest) -> Result<(), String> {
        if self.tainted.contains(&slot) {
            return Ok(());
        }
        let (first, known) = *self.digests.entry(index).or_insert((slot, digest));
        if known == digest {
            return Ok(());
        }
        Err(differ(index, first, slot, "machine", &hex(known), &hex(digest)))
    }

    fn end(&mut self, end: &End<'_>) -> Result<(), String> {
        end.digests.iter().try_for_each(|(slot, index, digest)| self.digest(*slot, *index, *digest))
    }
}

/// What a node found at a digest point is its own affair, until there is a verdict.
fn without_digest(reply: &Reply) -> Reply {
    match reply {
        Reply::DigestTaken { index, .. } => {
            Reply::DigestTaken { index: *index, digest: StateDigest([0; 32]) }
        }
        reply => reply.clone(),
    }
}

impl First {
    fn same_term(&self, slot: Slot, position: LogPosition) -> Result<(), String> {
        same(position.index, self.slot, slot, "term", &self.term, &position.term)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    index: Index,
    one: Slot,
    other: Slot,
    what: &str,
    first: &T,
    second: &T,
) -> Result<(), String> {
    if first == second {
        return Ok(());
    }
    Err(differ(index, one, other, what, &format!("{first:?}"), &format!("{second:?}")))
}

fn differ(index: Index, one: Slot, other: Slot, what: &str, first: &str, second: &str) -> String {
    format!("{one} and {other} differ at index {index}: {what} {first} and {second}")
}

fn hex(digest: Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state_machine_safety"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Trust { slot, quarantine } => {
                match quarantine {
                    Some(_) => self.quarantined.insert(slot),
                    None => self.quarantined.remove(&slot),
                };
                Ok(())
            }
            Fact::Started { slot, applied, .. } => {
                self.quarantined.remove(&slot);
                self.applied.remove(&slot);
                // A node without a machine begins with a snapshot.
                if applied > Index(0) {
                    self.applied.insert(slot, applied);
                }
                Ok(())
            }
            Fact::Applied(entry) => self.normal(entry),
            Fact::Membership { slot, position, conf_state } => {
                self.membership(slot, position, conf_state)
            }
            Fact::Installed { slot, position, digest, .. } => {
                self.installed(slot, position, digest)
            }
            Fact::Tainted { slot, is_tainted } => {
                match is_tainted {
                    true => self.tainted.insert(slot),
                    false => self.tainted.remove(&slot),
                };
                Ok(())
            }
            Fact::End(end) => self.end(end),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        applied, applied_batch, end, judge, ok, pos, refused, restored, survey,
    };
    use super::*;
    use crate::sim::observe::Phase;

    fn with_digest(slot: usize, index: u64, digest: u8) -> AppliedEntry {
        AppliedEntry { digest: Some([digest; 16]), ..applied(slot, pos(index, 1), "x", ok("")) }
    }

    fn installed(slot: usize, index: u64, digest: u8) -> Fact<'static> {
        Fact::Installed {
            slot: Slot(slot),
            position: pos(index, 1),
            digest: [digest; 16],
            module: None,
            activated: None,
        }
    }

    #[test]
    fn equal_nodes_with_restarts_and_installs_are_fine() {
        let state = ConfState::default();
        let member =
            |slot| Fact::Membership { slot: Slot(slot), position: pos(3, 1), conf_state: &state };
        let (a, b) = (with_digest(0, 2, 7), applied(1, pos(4, 1), "y", ok("1")));
        let again = with_digest(0, 2, 7);
        let facts = [
            restored(0, 1, None),
            Fact::Applied(&a),
            member(0),
            restored(0, 1, None),
            Fact::Applied(&again),
            member(0),
            restored(1, 0, None),
            installed(1, 2, 7),
            member(1),
            Fact::Applied(&b),
        ];
        assert_eq!(judge(&mut StateMachineSafety::default(), &facts), Ok(()));
    }

    #[test]
    fn every_difference_between_two_nodes_is_found() {
        let one = applied(0, pos(1, 1), "x", ok("1"));
        let other = || AppliedEntry { slot: Slot(1), ..one.clone() };
        let differences = [
            ("term", AppliedEntry { position: pos(1, 2), ..other() }),
            ("data", AppliedEntry { data: "y".into(), ..other() }),
            ("reply", AppliedEntry { reply: ok("2"), ..other() }),
            ("fuel", AppliedEntry { fuel_used: 8, ..other() }),
            ("events", AppliedEntry { events: 1, ..other() }),
            ("clock", AppliedEntry { time_ms: 1, ..other() }),
            ("1 answers to the 2 commands", AppliedEntry { commands: 2, ..other() }),
            ("active module", AppliedEntry { module: Some(ModuleHash([1; 32])), ..other() }),
        ];
        for (what, entry) in differences {
            let facts = [Fact::Applied(&one), Fact::Applied(&entry)];
            refused(&mut StateMachineSafety::default(), &facts, what);
        }
    }

    #[test]
    fn commands_behind_the_first_are_compared_too() {
        let batch = |slot, second| {
            applied_batch(slot, pos(1, 1), &[(None, "x", ok("1")), (None, "y", second)])
        };
        let (one, same, other) = (batch(0, ok("2")), batch(1, ok("2")), batch(1, ok("3")));
        let facts = [Fact::Applied(&one), Fact::Applied(&same)];
        assert_eq!(judge(&mut StateMachineSafety::default(), &facts), Ok(()));
        let facts = [Fact::Applied(&one), Fact::Applied(&other)];
        refused(&mut StateMachineSafety::default(), &facts, "answers behind the first");
    }

    #[test]
    fn gaps_and_steps_back_are_found() {
        let (a, c) = (applied(0, pos(1, 1), "x", ok("")), applied(0, pos(3, 1), "x", ok("")));
        let facts = [Fact::Applied(&a), Fact::Applied(&c)];
        refused(&mut StateMachineSafety::default(), &facts, "after index 1");
        let facts = [restored(0, 5, None), installed(0, 5, 1)];
        refused(&mut StateMachineSafety::default(), &facts, "went back");
    }

    #[test]
    fn a_flipped_bit_excuses_another_digest_until_the_state_is_replaced_and_nothing_else() {
        let (a, b) = (with_digest(0, 2, 7), with_digest(1, 2, 8));
        let tainted = |is_tainted| Fact::Tainted { slot: Slot(1), is_tainted };
        let mut facts = vec![tainted(true), Fact::Applied(&b), Fact::Applied(&a)];
        assert_eq!(judge(&mut StateMachineSafety::default(), &facts), Ok(()));
        let later = [with_digest(0, 3, 7), with_digest(1, 3, 8)];
        facts.push(tainted(false));
        facts.extend(later.iter().map(Fact::Applied));
        refused(&mut StateMachineSafety::default(), &facts, "machine");
        let wrong = AppliedEntry { reply: ok("2"), ..b };
        let facts = [tainted(true), Fact::Applied(&a), Fact::Applied(&wrong)];
        refused(&mut StateMachineSafety::default(), &facts, "reply");
    }

    #[test]
    fn digests_of_installs_and_of_the_end_must_agree() {
        let a = with_digest(0, 2, 7);
        let facts = [Fact::Applied(&a), restored(1, 0, None), installed(1, 2, 8)];
        refused(&mut StateMachineSafety::default(), &facts, "machine");
        let survey = survey(0, Phase::Calm, vec![]);
        let mut end = end(&survey);
        let digests = [(Slot(0), Index(2), [1; 16]), (Slot(1), Index(2), [2; 16])];
        end.digests = &digests;
        refused(&mut StateMachineSafety::default(), &[Fact::End(&end)], "machine");
    }
}
