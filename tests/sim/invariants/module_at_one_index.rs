//! Every node switches to the same module at the same index, and neither a restart nor an
//! install changes which module is active at an index.

use prost::Message as _;
use raft_host::machine::{Incumbent, Reply};
use raft_host::types::{Index, ModuleHash};
use raft_host_proto::stored::{self, entry::Body};

use super::Invariant;
use crate::sim::observe::{AppliedEntry, Fact, Micros, Slot};

/// See the module.
#[derive(Debug, Default)]
pub struct ModuleAtOneIndex {
    /// From which index on which module is active; ascending. The first is what the first node
    /// was seen with.
    changes: Vec<(Index, Option<ModuleHash>)>,
    /// Up to here `changes` is complete.
    seen: Index,
}

impl ModuleAtOneIndex {
    /// The last change up to `index`, if there was any.
    fn change(&self, index: Index) -> Option<(Index, Option<ModuleHash>)> {
        let after = self.changes.partition_point(|(at, _)| *at <= index);
        after.checked_sub(1).map(|at| self.changes[at])
    }

    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let (slot, index) = (entry.slot, entry.position.index);
        let before = self.change(Index(index.0.saturating_sub(1)));
        if index > self.seen {
            self.seen = index;
            let is_activation = matches!(entry.reply, Reply::Activated { .. });
            // A module that is renewed is active since then.
            if is_activation || before.is_none_or(|(_, module)| module != entry.module) {
                if before.is_some() && !is_activation {
                    return Err(format!(
                        "{slot} has {} after index {index}, which activated nothing; before it \
                         was {}",
                        name(entry.module),
                        name(before.and_then(|(_, module)| module))
                    ));
                }
                self.changes.push((index, entry.module));
            }
        }
        self.known(slot, index, entry.module)?;
        self.reply(entry, before)
    }

    /// An index that somebody has applied has one module.
    fn known(&self, slot: Slot, index: Index, module: Option<ModuleHash>) -> Result<(), String> {
        let Some((since, expected)) = self.change(index).filter(|_| index <= self.seen) else {
            return Ok(());
        };
        if module == expected {
            return Ok(());
        }
        Err(format!(
            "{slot} has {} at index {index}, others have {} since index {since}",
            name(module),
            name(expected)
        ))
    }

    /// A restored machine knows when its module was activated.
    fn dated(&self, slot: Slot, index: Index, activated: Option<Index>) -> Result<(), String> {
        let change = self.change(index).filter(|_| index <= self.seen);
        let (Some(change), Some(activated)) = (change, activated) else { return Ok(()) };
        let is_first = self.changes.first() == Some(&change);
        if activated == change.0 || (is_first && activated < change.0) {
            return Ok(());
        }
        Err(format!(
            "{slot} says at index {index} that its module was activated at {activated}, but it \
             was at {}",
            change.0
        ))
    }

    /// An activation replaces what whoever asked for it wanted it to replace.
    fn was_wanted(
        &self,
        entry: &AppliedEntry,
        before: Option<(Index, Option<ModuleHash>)>,
    ) -> bool {
        let (Some(replaces), Some(before)) = (replaces(&entry.data), before) else { return true };
        let is_first = self.changes.first() == Some(&before);
        match (replaces, before) {
            (None, (_, module)) => module.is_none(),
            (Some(replaces), (since, module)) => {
                module == Some(replaces.hash)
                    && (replaces.activated_at == since
                        || (is_first && replaces.activated_at < since))
            }
        }
    }

    /// What a node says of an activation fits the changes.
    fn reply(
        &self,
        entry: &AppliedEntry,
        before: Option<(Index, Option<ModuleHash>)>,
    ) -> Result<(), String> {
        let index = entry.position.index;
        let fits = match &entry.reply {
            Reply::Activated { index: at, hash, previous, .. } => {
                *at == index
                    && self.change(index) == Some((index, Some(*hash)))
                    && before.is_none_or(|(_, module)| module == *previous)
                    && self.was_wanted(entry, before)
            }
            Reply::AlreadyActive { index: at, hash } => {
                let is_first = self.changes.first().is_some_and(|first| Some(*first) == before);
                before.is_none_or(|(since, module)| {
                    module == Some(*hash) && (since == *at || (is_first && *at < since))
                })
            }
            _ => before.is_none() || before == self.change(index),
        };
        if fits {
            return Ok(());
        }
        Err(format!(
            "{} answered {:?} at index {index}, where the active module before is {}",
            entry.slot,
            entry.reply,
            name(before.and_then(|(_, module)| module))
        ))
    }
}

/// What an entry says that it replaces; `None` if it is no activation.
fn replaces(data: &[u8]) -> Option<Option<Incumbent>> {
    let entry = stored::Entry::decode(data).ok()?;
    let Body::ActivateModule(activate) = entry.body? else { return None };
    match activate.replaces {
        Some(replaces) => Incumbent::from_log(&replaces).ok().map(Some),
        None => Some(None),
    }
}

fn name(module: Option<ModuleHash>) -> String {
    module.map_or_else(|| "no module".to_owned(), |hash| format!("module {}", hash.short()))
}

impl Invariant for ModuleAtOneIndex {
    fn name(&self) -> &'static str {
        "module_at_one_index"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => self.applied(entry),
            Fact::Membership { position, .. } => {
                self.seen = self.seen.max(position.index);
                Ok(())
            }
            Fact::Installed { slot, position, module, activated, .. } => {
                self.known(slot, position.index, module)?;
                self.dated(slot, position.index, activated)
            }
            Fact::Started { slot, applied, module, activated, .. } if applied > Index(0) => {
                self.known(slot, applied, module)?;
                self.dated(slot, applied, activated)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, judge, ok, pos, refused, restored};
    use super::*;

    const ONE: ModuleHash = ModuleHash([1; 32]);
    const TWO: ModuleHash = ModuleHash([2; 32]);

    fn with(slot: usize, index: u64, reply: Reply, module: Option<ModuleHash>) -> AppliedEntry {
        AppliedEntry { module, ..applied(slot, pos(index, 1), "", reply) }
    }

    fn activated(index: u64, hash: ModuleHash, previous: Option<ModuleHash>) -> Reply {
        Reply::Activated { index: Index(index), hash, previous, rewound: None }
    }

    fn first_two() -> [AppliedEntry; 3] {
        [
            with(0, 1, Reply::NoModule, None),
            with(0, 2, activated(2, ONE, None), Some(ONE)),
            with(0, 3, ok(""), Some(ONE)),
        ]
    }

    fn finds(later: AppliedEntry, what: &str) {
        let before = first_two();
        let mut facts: Vec<Fact<'_>> = before.iter().map(Fact::Applied).collect();
        facts.push(Fact::Applied(&later));
        refused(&mut ModuleAtOneIndex::default(), &facts, what);
    }

    #[test]
    fn the_same_switches_everywhere_are_fine() {
        let already = Reply::AlreadyActive { index: Index(2), hash: ONE };
        let later = [
            with(0, 4, already, Some(ONE)),
            with(0, 5, Reply::ActivationFailed("no".to_owned()), Some(ONE)),
            with(0, 6, activated(6, TWO, Some(ONE)), Some(TWO)),
            with(1, 2, activated(2, ONE, None), Some(ONE)),
            with(1, 6, activated(6, TWO, Some(ONE)), Some(TWO)),
        ];
        let before = first_two();
        let mut facts: Vec<Fact<'_>> = before.iter().chain(&later).map(Fact::Applied).collect();
        facts.push(restored(1, 5, Some(ONE)));
        facts.push(restored(1, 6, Some(TWO)));
        facts.push(restored(2, 0, None));
        assert_eq!(judge(&mut ModuleAtOneIndex::default(), &facts), Ok(()));
    }

    #[test]
    fn a_switch_elsewhere_or_to_something_else_is_found() {
        finds(with(0, 4, ok(""), Some(TWO)), "activated nothing");
        finds(with(1, 2, activated(2, TWO, None), Some(TWO)), "others have");
        finds(with(1, 2, Reply::ActivationFailed("no".to_owned()), None), "others have");
        finds(with(1, 2, ok(""), Some(ONE)), "answered Command");
        finds(with(1, 3, activated(3, ONE, None), Some(ONE)), "answered Activated");
        finds(with(0, 4, activated(4, TWO, None), Some(TWO)), "answered Activated");
        let already = Reply::AlreadyActive { index: Index(3), hash: ONE };
        finds(with(0, 4, already, Some(ONE)), "answered AlreadyActive");
    }

    #[test]
    fn an_activation_that_was_to_replace_something_else_is_found() {
        let with_data = |replaces: Option<Incumbent>| {
            let activate = stored::ActivateModule {
                module_hash: TWO.0.to_vec().into(),
                replaces: replaces.map(Incumbent::to_log),
                ..Default::default()
            };
            let body = Some(Body::ActivateModule(activate));
            let data = stored::Entry { body, ..Default::default() }.encode_to_vec().into();
            AppliedEntry { data, ..with(0, 4, activated(4, TWO, Some(ONE)), Some(TWO)) }
        };
        let one = |at| Some(Incumbent { hash: ONE, activated_at: Index(at) });
        let before = first_two();
        let wanted = with_data(one(2));
        let mut facts: Vec<Fact<'_>> = before.iter().map(Fact::Applied).collect();
        facts.push(Fact::Applied(&wanted));
        assert_eq!(judge(&mut ModuleAtOneIndex::default(), &facts), Ok(()));
        finds(with_data(one(1)), "answered Activated");
        finds(with_data(None), "answered Activated");
        finds(
            with_data(Some(Incumbent { hash: TWO, activated_at: Index(2) })),
            "answered Activated",
        );
    }

    #[test]
    fn an_install_or_restart_with_another_module_is_found() {
        let before = first_two();
        let facts = || before.iter().map(Fact::Applied).collect::<Vec<_>>();
        let mut restart = facts();
        restart.push(restored(0, 2, None));
        refused(&mut ModuleAtOneIndex::default(), &restart, "others have");
        let mut install = facts();
        install.push(Fact::Installed {
            slot: Slot(1),
            position: pos(3, 1),
            digest: [0; 16],
            module: Some(TWO),
            activated: Some(Index(3)),
        });
        refused(&mut ModuleAtOneIndex::default(), &install, "others have");
        let mut redated = facts();
        let index = before[before.len() - 1].position.index;
        let module = before[before.len() - 1].module;
        redated.push(Fact::Installed {
            slot: Slot(1),
            position: pos(index.0, 1),
            digest: [0; 16],
            module,
            activated: Some(Index(index.0 + 1)),
        });
        refused(&mut ModuleAtOneIndex::default(), &redated, "was activated at");
    }
}
