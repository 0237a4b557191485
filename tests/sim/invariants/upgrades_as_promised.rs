//! What is staged is what its parts make; what is activated with a receipt is what that names, in the place of what
//! it names, under the rules that it was found under; a confirmation ends the way back of the upgrade that it names and
//! no other; and a guest that is brought back is, bit for bit, one whose module was never replaced, after what trials of
//! that have said.
//!
//! Parts, receipts and rules are worked out from the entries alone; the guest that never was replaced is one of
//! the simulator's own.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use raft_host::machine::{Reply, Rewound};
use raft_host::types::{Index, ModuleHash};
use raft_host_proto::stored::{self, entry::Body, limit_change::Limit};

use super::Invariant;
use super::trials::Trials;
use crate::sim::observe::{AppliedEntry, Fact, Micros, Slot};

/// See the module.
#[derive(Debug, Default)]
pub struct UpgradesAsPromised {
    /// Up to here the entries are known.
    seen: Index,
    receipts: BTreeMap<Index, stored::RecordReceipt>,
    /// The last entry that may have changed how commands end.
    rules_changed_at: Index,
    /// Of each activation that relies on a receipt, what is wrong with that; if anything is.
    wrong: BTreeMap<Index, String>,
    /// Parts of modules that were taken.
    parts: BTreeMap<ModuleHash, Parts>,
    /// Modules of which all parts were, as far as is known.
    staged: BTreeSet<ModuleHash>,
    /// The last activation that replaced a module, and was not undone.
    replaced_at: Option<Index>,
    /// What nodes say that undoing an upgrade would change.
    trials: Trials,
    /// Upgrades that were undone, and what that came to, by where that was.
    undone: BTreeMap<Index, (Index, Rewound)>,
}

/// Of one module, by where they belong.
#[derive(Debug, Default)]
struct Parts {
    bytes: Vec<u8>,
    is_there: Vec<bool>,
}

impl Parts {
    fn put(&mut self, chunk: &stored::ModuleChunk) {
        let from = usize::try_from(chunk.offset).expect("it was taken");
        let to = from + chunk.data.len();
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
            self.is_there.resize(to, false);
        }
        self.bytes[from..to].copy_from_slice(&chunk.data);
        self.is_there[from..to].fill(true);
    }

    /// Why they are not so many bytes of that module.
    fn lack(&self, hash: ModuleHash, received: u64, total: u64) -> Option<String> {
        let there = self.is_there.iter().filter(|is_there| **is_there).count();
        if there as u64 != received {
            return Some(format!("{there} were proposed"));
        }
        if received < total {
            return None;
        }
        let found = ModuleHash::of(&self.bytes);
        (found != hash).then(|| format!("they make module {}", found.short()))
    }
}

impl UpgradesAsPromised {
    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.position.index;
        if index > self.seen {
            self.seen = index;
            let body = stored::Entry::decode(&entry.data[..]).ok().and_then(|entry| entry.body);
            match (body, &entry.reply) {
                (Some(Body::RecordReceipt(receipt)), Reply::ReceiptRecorded { .. }) => {
                    self.receipts.insert(index, receipt);
                }
                (Some(Body::SetLimits(set)), Reply::LimitsSet { limits, previous })
                    if limits != previous && set.changes.iter().any(is_rule) =>
                {
                    self.rules_changed_at = index;
                }
                (Some(Body::ActivateModule(activate)), reply) => {
                    if activate.receipt > 0 {
                        self.wrong.extend(self.judge(&activate).map(|why| (index, why)));
                    }
                    let (time_ms, replaced_at) = (entry.time_ms, self.replaced_at);
                    self.trials.activated(index, time_ms, replaced_at, &activate, reply)?;
                }
                (Some(Body::ModuleChunk(chunk)), Reply::ChunkStored { received, .. }) => {
                    self.staged(entry.slot, &chunk, *received)?;
                }
                (Some(Body::SettleUpgrade(settle)), Reply::UpgradeSettled { was_open: true })
                    if self.replaced_at != Some(Index(settle.activated_at)) =>
                {
                    return Err(format!(
                        "on {} what was said at index {index} of the activation at index {} ended the way back \
                         of another one",
                        entry.slot, settle.activated_at
                    ));
                }
                _ => {}
            }
            match entry.reply {
                Reply::Activated { rewound: Some(rewound), .. } => {
                    let replaced_at = self.replaced_at.take();
                    self.undone.extend(replaced_at.map(|at| (index, (at, rewound))));
                }
                Reply::Activated { hash, previous, .. } if previous != Some(hash) => {
                    self.replaced_at = Some(index);
                }
                _ => {}
            }
        }
        match (&entry.reply, self.wrong.get(&index)) {
            (Reply::Activated { hash, .. }, Some(why)) => Err(format!(
                "{} activated module {} at index {index}, and {why}",
                entry.slot,
                hash.short()
            )),
            _ => Ok(()),
        }
    }

    /// A part of a module was taken, and so many bytes of it are there now.
    fn staged(
        &mut self,
        slot: Slot,
        chunk: &stored::ModuleChunk,
        received: u64,
    ) -> Result<(), String> {
        let hash = <[u8; 32]>::try_from(&chunk.module_hash[..]).map(ModuleHash);
        let hash = hash.map_err(|_| format!("{slot} took a part of a module without a hash"))?;
        let (is_complete, is_first) = (received == chunk.total_bytes, chunk.offset == 0);
        if is_complete && self.staged.contains(&hash) {
            return Ok(());
        }
        // It may have been held once, or begun.
        self.staged.remove(&hash);
        let parts = self.parts.entry(hash).or_default();
        if is_first && received == chunk.data.len() as u64 {
            *parts = Parts::default();
        }
        parts.put(chunk);
        if let Some(why) = parts.lack(hash, received, chunk.total_bytes) {
            let module = hash.short();
            return Err(format!(
                "{slot} holds {received} bytes of module {module}, it says, but {why}"
            ));
        }
        if is_complete {
            self.parts.remove(&hash);
            self.staged.insert(hash);
        }
        Ok(())
    }

    /// Why a receipt is none for this activation.
    fn judge(&self, activate: &stored::ActivateModule) -> Option<String> {
        let at = activate.receipt;
        let Some(receipt) = self.receipts.get(&Index(at)) else {
            return Some(format!("nobody recorded a receipt at index {at}"));
        };
        let reasons = [
            (receipt.module_hash != activate.module_hash, "is of another module"),
            (receipt.replaces != activate.replaces, "compares with something else"),
            (receipt.refused > 0, "found differences that nothing allows"),
            (self.rules_changed_at > Index(receipt.until), "is of other rules"),
            (activate.fork > 0 && receipt.allowed > 0, "allows differences, and it begins ahead"),
        ];
        let wrong = reasons.into_iter().find(|(is_wrong, _)| *is_wrong)?;
        Some(format!("its receipt at index {at} {}", wrong.1))
    }
}

fn is_rule(change: &stored::LimitChange) -> bool {
    !matches!(
        change.limit,
        Some(Limit::UpgradeKeepBytes(_) | Limit::UpgradeKeepMs(_) | Limit::ActivationFuel(_))
    )
}

impl Invariant for UpgradesAsPromised {
    fn name(&self) -> &'static str {
        "upgrades_as_promised"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => return self.applied(entry),
            Fact::WouldBe { would_be, .. } => return self.trials.would_be(would_be),
            Fact::RewindTried { slot, trial, expires_ms } => {
                return self.trials.tried(slot, trial, expires_ms);
            }
            Fact::NoWayBack { slot, until, why } => return self.trials.refused(slot, until, why),
            Fact::Rewound { index, found, .. } if found.is == found.would_be => {
                let undone = self.undone.get(&index);
                let beside = |(activated_at, rewound): &(Index, Rewound)| {
                    self.trials.undone_beside((*activated_at, index), rewound)
                };
                return undone.map_or(Ok(()), beside);
            }
            Fact::Membership { position, .. } => self.seen = self.seen.max(position.index),
            Fact::Rewound { slot, index, found } if found.is != found.would_be => {
                return Err(format!(
                    "the guest of {slot} was brought back at index {index}, and is not the one that it \
                     would be if its module had never been replaced: {:?}, and not {:?}",
                    found.is, found.would_be
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_host::fsm::Limits;
    use raft_host::machine::Incumbent;
    use raft_host::types::StateDigest;

    use super::super::testing::{applied, judge, pos, refused};
    use super::*;
    use crate::sim::shadow::Comparison;

    const OLD: Incumbent = Incumbent { hash: ModuleHash([1; 32]), activated_at: Index(2) };
    const NEW: ModuleHash = ModuleHash([2; 32]);

    fn entry(slot: usize, index: u64, body: Body, reply: Reply) -> AppliedEntry {
        let data = stored::Entry { body: Some(body), ..Default::default() }.encode_to_vec();
        AppliedEntry { data: data.into(), ..applied(slot, pos(index, 1), "", reply) }
    }

    fn receipt() -> stored::RecordReceipt {
        stored::RecordReceipt {
            module_hash: NEW.0.to_vec().into(),
            replaces: Some(OLD.to_log()),
            until: 3,
            ..Default::default()
        }
    }

    fn recorded(receipt: stored::RecordReceipt) -> AppliedEntry {
        entry(0, 4, Body::RecordReceipt(receipt), Reply::ReceiptRecorded { index: Index(4) })
    }

    fn activation(index: u64) -> stored::ActivateModule {
        stored::ActivateModule {
            module_hash: NEW.0.to_vec().into(),
            replaces: Some(OLD.to_log()),
            receipt: index,
            ..Default::default()
        }
    }

    fn activated(slot: usize, entry_of: stored::ActivateModule) -> AppliedEntry {
        let reply = Reply::Activated {
            index: Index(6),
            hash: NEW,
            previous: Some(OLD.hash),
            rewound: None,
        };
        entry(slot, 6, Body::ActivateModule(entry_of), reply)
    }

    fn limits_set(limit: Limit) -> AppliedEntry {
        let change = stored::LimitChange { limit: Some(limit) };
        let body = Body::SetLimits(stored::SetLimits { changes: vec![change] });
        let previous = Box::new(Limits::default());
        let limits = Box::new(Limits { apply_fuel: 7, ..Limits::default() });
        entry(0, 5, body, Reply::LimitsSet { limits, previous })
    }

    fn facts<'a>(entries: &'a [AppliedEntry]) -> Vec<Fact<'a>> {
        entries.iter().map(Fact::Applied).collect()
    }

    #[test]
    fn activations_that_are_what_their_receipt_says_are_fine() {
        let entries = [
            recorded(receipt()),
            limits_set(Limit::ActivationFuel(7)),
            activated(0, activation(4)),
            activated(1, activation(4)),
        ];
        assert_eq!(judge(&mut UpgradesAsPromised::default(), &facts(&entries)), Ok(()));
        let stale = Reply::ReceiptStale("no".to_owned());
        let refusal = entry(0, 6, Body::ActivateModule(activation(3)), stale);
        let entries = [recorded(receipt()), refusal];
        assert_eq!(judge(&mut UpgradesAsPromised::default(), &facts(&entries)), Ok(()));
    }

    #[test]
    fn an_activation_that_its_receipt_is_not_of_is_found_on_every_node() {
        let other = stored::RecordReceipt { module_hash: vec![3; 32].into(), ..receipt() };
        let replaces = Some(Incumbent { activated_at: Index(1), ..OLD }.to_log());
        let earlier = stored::RecordReceipt { replaces, ..receipt() };
        let bad = stored::RecordReceipt { refused: 1, ..receipt() };
        let allowing = stored::RecordReceipt { allowed: 1, ..receipt() };
        let ahead = stored::ActivateModule { fork: 5, ..activation(4) };
        let rules = limits_set(Limit::ApplyFuel(7));
        let none = limits_set(Limit::ActivationFuel(7));
        for (receipt, between, asked, words) in [
            (other, &none, activation(4), "another module"),
            (earlier, &none, activation(4), "something else"),
            (bad, &none, activation(4), "nothing allows"),
            (allowing, &none, ahead, "begins ahead"),
            (receipt(), &rules, activation(4), "other rules"),
            (receipt(), &none, activation(3), "nobody recorded"),
        ] {
            let before = [
                recorded(receipt),
                between.clone(),
                entry(0, 6, Body::ActivateModule(asked.clone()), Reply::Nothing),
            ];
            let on_another = activated(1, asked);
            let mut facts = facts(&before);
            facts.push(Fact::Applied(&on_another));
            refused(&mut UpgradesAsPromised::default(), &facts, words);
        }
    }

    fn part(index: u64, offset: usize, data: &[u8], received: u64) -> AppliedEntry {
        let chunk = stored::ModuleChunk {
            module_hash: ModuleHash::of(b"abcd").0.to_vec().into(),
            total_bytes: 4,
            offset: offset as u64,
            data: data.to_vec().into(),
            ..Default::default()
        };
        let reply = Reply::ChunkStored { received, total: 4 };
        entry(0, index, Body::ModuleChunk(chunk), reply)
    }

    #[test]
    fn a_module_is_there_when_all_of_its_parts_are() {
        let again = [part(1, 0, b"ab", 2), part(2, 0, b"abc", 3), part(3, 3, b"d", 4)];
        assert_eq!(judge(&mut UpgradesAsPromised::default(), &facts(&again)), Ok(()));
        let twice = [part(1, 0, b"ab", 2), part(2, 0, b"ab", 4)];
        refused(&mut UpgradesAsPromised::default(), &facts(&twice), "but 2 were proposed");
        let others = [part(1, 0, b"ab", 2), part(2, 2, b"cx", 4)];
        refused(&mut UpgradesAsPromised::default(), &facts(&others), "they make module");
    }

    #[test]
    fn a_confirmation_is_of_the_activation_that_it_names() {
        let settled = |index, activated_at, was_open| {
            let body = Body::SettleUpgrade(stored::SettleUpgrade { activated_at });
            entry(0, index, body, Reply::UpgradeSettled { was_open })
        };
        let upgrade = || activated(0, stored::ActivateModule { receipt: 0, ..activation(4) });
        let well = [upgrade(), settled(7, 5, false), settled(8, 6, true)];
        assert_eq!(judge(&mut UpgradesAsPromised::default(), &facts(&well)), Ok(()));
        let wrong = [upgrade(), settled(7, 5, true)];
        let words = "ended the way back of another one";
        refused(&mut UpgradesAsPromised::default(), &facts(&wrong), words);
    }

    #[test]
    fn a_guest_that_comes_back_otherwise_is_found() {
        let digest = |byte| Some(StateDigest([byte; 32]));
        let fact = |would_be| {
            let found = Comparison { is: digest(1), would_be };
            [Fact::Rewound { slot: Slot(0), index: Index(9), found }]
        };
        assert_eq!(judge(&mut UpgradesAsPromised::default(), &fact(digest(1))), Ok(()));
        refused(&mut UpgradesAsPromised::default(), &fact(digest(2)), "never been replaced");
    }
}
