//! Modules in the shadow of a node's machine: an operator wants one, the node executes what it has when there is time,
//! and its time is over at some point; unless the node dies, or is told otherwise before.

use super::{Event, World};
use crate::sim::host::Shadowing;
use crate::sim::observe::{Fact, Micros, Slot};
use crate::sim::random::Random;

/// Entries that it executes at a time, at most.
const ENTRIES: u64 = 8;
/// Longest pause between two looks.
const PAUSE_US: u64 = 200_000;

impl World {
    /// One at a time on a node.
    pub(super) fn begin_shadow(&mut self, slot: Slot, version: u64, for_us: u64) {
        let module = self.guest.module(version);
        let (seed, life) = (self.plan.seed, self.hosts[slot.0].life);
        let Some(running) = self.hosts[slot.0].running() else { return };
        if running.shadow.is_none() {
            let random = Random::stream(seed ^ life, "shadow", slot.0 as u64);
            running.shadow = Some(Shadowing { module, for_us, running: None, random });
            self.queue.after(1, Event::Shadow(slot, life));
        }
    }

    /// A step of it.
    pub(super) fn shadow(&mut self, slot: Slot) {
        let (now, life) = (self.now(), self.hosts[slot.0].life);
        let Some(host) = self.hosts[slot.0].running() else { return };
        let Some(mut shadowing) = host.shadow.take() else { return };
        let Shadowing { module, for_us, running, random } = &mut shadowing;
        if running.is_none() && host.node.stop_reason().is_none() {
            // One that does not begin is none.
            let Ok(begun) = host.node.shadow(module) else { return };
            *running = Some((begun, Micros(now.0 + *for_us)));
        }
        let Some((shadow, ends)) = running else { return };
        let mut has_more = true;
        for _ in 0..random.below(ENTRIES) {
            has_more = has_more && shadow.step().expect("this host executes it");
        }
        let is_over = now >= *ends || !has_more && shadow.is_over();
        if !is_over {
            let pause = random.between(1, PAUSE_US);
            host.shadow = Some(shadowing);
            return self.queue.after(pause, Event::Shadow(slot, life));
        }
        let Some((shadow, _)) = shadowing.running else { return };
        let found = shadow.end().expect("this host executes it");
        if let Some((found, _)) = &found {
            self.fact(&Fact::Shadowed { slot, found });
        }
    }
}
