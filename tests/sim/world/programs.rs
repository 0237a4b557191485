//! Which program a host's node is: one that offers this level, or one that offers the next. Operators
//! install one or the other, too early and too late.

use std::sync::Arc;

use raft_host::fsm::{Offering, SharedLoader};
use raft_host::machine::Reply;
use raft_host::types::Level;

use super::World;
use crate::sim::observe::{AppliedEntry, Fact, Slot};
use crate::sim::trace::Who;

/// What the newer program offers.
pub(in crate::sim) const NEXT: Level = Level(Level::CURRENT.0 + 1);

impl World {
    /// What runs guests on a host.
    pub(super) fn loader_of(&self, slot: Slot) -> SharedLoader {
        match self.hosts[slot.0].program {
            Level::CURRENT => Arc::clone(&self.loader),
            level => {
                let loader = Arc::clone(&self.loader);
                Arc::new(Offering { loader, profiles: Vec::new(), level })
            }
        }
    }

    /// The newest that there is.
    pub(super) fn newest_loader(&self) -> SharedLoader {
        let loader = Arc::clone(&self.loader);
        Arc::new(Offering { loader, profiles: Vec::new(), level: NEXT })
    }

    /// From its next start on a host runs another program, and it starts soon.
    pub(super) fn install(&mut self, slot: Slot, program: Level, down_us: u64) {
        self.crash(slot, false, Some(down_us));
        self.hosts[slot.0].program = program;
        let now = self.now();
        self.trace.line(now, Who::Host(slot), format_args!("gets the program of level {program}"));
    }

    /// Whether a host's program cannot run any more, so that its node must stop, or not start.
    pub(super) fn is_outdated(&self, slot: Slot) -> bool {
        self.hosts[slot.0].program < self.level
    }

    /// Whoever looks after an outdated host gives it the newer program.
    pub(super) fn update_program(&mut self, slot: Slot) {
        if self.is_outdated(slot) {
            self.hosts[slot.0].program = NEXT;
            self.counters.updates += 1;
        }
    }

    pub(super) fn note_level(&mut self, entry: &AppliedEntry) {
        if let Reply::LevelSet { level, .. } = entry.reply
            && level > self.level
        {
            self.level = level;
            self.counters.levels += 1;
        }
    }

    pub(super) fn note_program(&mut self, slot: Slot) {
        let host = &self.hosts[slot.0];
        let (node, level) = (host.node, host.program);
        self.fact(&Fact::Program { node, level });
    }

    /// The program of a new host: any, before the level is raised, and then one that offers it.
    pub(super) fn program_of_newcomer(&self, task: u64) -> Level {
        let is_next = self.plan.shape.levels && task % 2 == 1;
        if is_next || self.level >= NEXT { NEXT } else { Level::CURRENT }
    }
}
