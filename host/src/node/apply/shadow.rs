//! Feeds a shadow, if there is one: each entry with what the machine answered, until something ends it.

use crate::machine::{Applied, Incumbent, Machine, MachineSnapshot};
use crate::museum::{self, Exhibit};
use crate::node::shadow::{Room, ShadowEnd, ShadowFeed, ShadowSource, WAITING_MAX};
use crate::rehearsal::Answered;
use crate::types::{Index, LogEntry};

/// Whom the machine's answers are shown to.
#[derive(Default)]
pub(super) struct Shadowed {
    fed: Option<Fed>,
}

struct Fed {
    feed: ShadowFeed,
    /// What is active, which the answers are of.
    active: Option<Incumbent>,
    base: Index,
    /// Of the entry that is being applied.
    answers: Vec<Applied>,
    bytes: u64,
}

impl Shadowed {
    /// Shows what comes after the machine's state of now.
    pub(super) fn begin(&mut self, machine: &Machine) -> ShadowSource {
        let (feed, source) = ShadowFeed::new(WAITING_MAX);
        let (active, base) = (active(machine), machine.applied_index());
        self.fed = Some(Fed { feed, active, base, answers: Vec::new(), bytes: 0 });
        source
    }

    /// An answer of the entry that is being applied.
    pub(super) fn see(&mut self, applied: &Applied) {
        let Some(fed) = &mut self.fed else { return };
        fed.bytes += Answered::answer_bytes(applied);
        let room = Room { bytes: fed.bytes, commands: fed.answers.len() as u64 + 1 };
        match !fed.feed.has_ended() && fed.feed.has_room(room) {
            true => fed.answers.push(applied.clone()),
            false => self.fed = None,
        }
    }

    /// The machine has applied an entry. `doubted`: why its state is not trusted.
    pub(super) fn after(
        &mut self,
        machine: &Machine,
        entry: &LogEntry,
        doubted: impl FnOnce() -> Option<String>,
    ) {
        let Some(fed) = &mut self.fed else { return };
        let answers = std::mem::take(&mut fed.answers);
        fed.bytes = 0;
        if let Some(why) = fed.ending(machine, entry.index, doubted) {
            fed.feed.end(why);
            self.fed = None;
            return;
        }
        let memory_bytes = machine.guest_memory_bytes();
        if !fed.feed.put(Answered { entry: entry.clone(), answers, memory_bytes }) {
            self.fed = None;
        }
    }

    /// Whether somebody is shown what is applied.
    pub(super) fn is_fed(&self) -> bool {
        self.fed.as_ref().is_some_and(|fed| !fed.feed.has_ended())
    }

    /// Shows the machine's state of now, or says why not; nothing comes after it.
    pub(super) fn conclude(&mut self, state: Result<MachineSnapshot, String>) {
        match (self.fed.take(), state) {
            (None, _) => {}
            (Some(fed), Ok(state)) => fed.feed.conclude(state),
            (Some(fed), Err(why)) => fed.feed.end(ShadowEnd::Doubted(why)),
        }
    }

    /// Another state took the place of the machine's.
    pub(super) fn installed(&mut self, index: Index) {
        if let Some(fed) = self.fed.take() {
            fed.feed.end(ShadowEnd::Installed(index));
        }
    }
}

impl Fed {
    fn ending(
        &self,
        machine: &Machine,
        index: Index,
        doubted: impl FnOnce() -> Option<String>,
    ) -> Option<ShadowEnd> {
        if active(machine) != self.active && !museum::is_on(Exhibit::ShadowGoesOn) {
            return Some(ShadowEnd::Activated(index));
        }
        if machine.rules_changed_at() > self.base {
            return Some(ShadowEnd::RulesChanged(index));
        }
        doubted().map(ShadowEnd::Doubted)
    }
}

fn active(machine: &Machine) -> Option<Incumbent> {
    machine.active_module().map(|(hash, activated_at)| Incumbent { hash, activated_at })
}
