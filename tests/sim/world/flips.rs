//! Bits that flip in the memory of guests, and where they get to: snapshots of such a memory carry
//! them to restarts and to other nodes.

use std::collections::{BTreeMap, BTreeSet};

use raft_host::machine::Reply;
use raft_host::types::{GroupId, Index, NodeId};

use super::World;
use crate::sim::host::State;
use crate::sim::observe::{AppliedEntry, Digest, Fact, Slot};
use crate::sim::plan::Pick;
use crate::sim::trace::Who;

/// What may be wrong, and what surely is not. A state counts as tainted until it is replaced, or
/// until it is seen to be as one that is not.
#[derive(Default)]
pub(super) struct Flips {
    /// States of nodes that run: from which index on.
    live: BTreeMap<Slot, Index>,
    /// Snapshots on disks.
    snapshots: BTreeSet<(Slot, Index)>,
    /// At each digest point: what a node without taint had.
    sound: BTreeMap<Index, Digest>,
    /// At each digest point: what tainted nodes had.
    doubtful: BTreeMap<Index, Vec<(Slot, Digest)>>,
    /// There was one at all.
    pub(super) any: bool,
    /// Half of the voters or more were tainted once.
    pub(super) is_overwhelmed: bool,
    /// An operator has asked for a last comparison.
    pub(super) is_compared: bool,
}

impl Flips {
    /// Whether a snapshot on a host's disk carries a flipped bit.
    pub(super) fn is_bad(&self, slot: Slot, index: Index) -> bool {
        self.snapshots.contains(&(slot, index))
    }

    /// A snapshot came from another host.
    pub(super) fn received(&mut self, slot: Slot, index: Index, is_bad: bool) {
        match is_bad {
            true => self.snapshots.insert((slot, index)),
            false => self.snapshots.remove(&(slot, index)),
        };
    }
}

impl World {
    /// Flips a bit, unless half of the voters' states would be doubtful.
    pub(super) fn flip_bit(&mut self, node: Pick, at: u64) {
        let living = self.living();
        if living.is_empty() {
            return;
        }
        let slot = living[(node.0 % living.len() as u64) as usize];
        if !self.bears_taint(Some(slot), true) {
            return;
        }
        let Some(running) = self.hosts[slot.0].running() else { return };
        let Some(index) = running.node.machine().map(|machine| machine.applied_index()) else {
            return;
        };
        if running.node.flip_bit(at) {
            self.flips.any = true;
            self.counters.fault("bit flipped");
            self.taint(slot, Some(index));
        }
    }

    /// Whether more than half of the voters are sound, also with this one tainted.
    fn bears_taint(&self, with: Option<Slot>, counts_snapshots: bool) -> bool {
        let state = &self.conf_state;
        let voters: BTreeSet<NodeId> =
            state.voters.union(&state.voters_outgoing).copied().collect();
        let is_sound = |node: &&NodeId| {
            let Some(slot) = self.by_node.get(node) else { return true };
            let is_up = self.hosts[slot.0].is_up();
            let on_disk = self.flips.snapshots.iter().any(|(other, _)| other == slot);
            let is_bad = self.flips.live.contains_key(slot)
                || on_disk && (counts_snapshots || !is_up)
                || with == Some(*slot);
            !is_bad
        };
        let is_voter = with.is_none_or(|slot| voters.contains(&self.hosts[slot.0].node));
        !is_voter || voters.iter().filter(is_sound).count() * 2 > voters.len()
    }

    /// A node's state is tainted from an index on, or is not any more.
    fn taint(&mut self, slot: Slot, since: Option<Index>) {
        let was = match since {
            Some(index) => self.flips.live.insert(slot, index),
            None => self.flips.live.remove(&slot),
        };
        if was.is_some() != since.is_some() {
            self.fact(&Fact::Tainted { slot, is_tainted: since.is_some() });
        }
        if self.flips.any && !self.flips.is_overwhelmed && !self.bears_taint(None, false) {
            self.flips.is_overwhelmed = true;
            self.counters.overwhelmed += 1;
        }
    }

    /// A node has the state of a snapshot on its disk.
    pub(super) fn taint_as_snapshot(&mut self, slot: Slot, index: Index) {
        let is_bad = self.flips.is_bad(slot, index);
        self.taint(slot, is_bad.then_some(index));
    }

    /// What a node had at a digest point, tells whether the flipped bit is still there.
    pub(super) fn compare_with_sound(&mut self, entry: &AppliedEntry) {
        let (Reply::DigestTaken { index, .. }, Some(digest)) = (&entry.reply, entry.digest) else {
            return;
        };
        let slot = entry.slot;
        let cleared: Vec<Slot> = if self.flips.live.contains_key(&slot) {
            self.flips.doubtful.entry(*index).or_default().push((slot, digest));
            let is_sound = self.flips.sound.get(index) == Some(&digest);
            is_sound.then_some(slot).into_iter().collect()
        } else {
            self.flips.sound.insert(*index, digest);
            let doubtful = self.flips.doubtful.remove(index).unwrap_or_default();
            doubtful
                .into_iter()
                .filter(|(_, other)| *other == digest)
                .map(|(slot, _)| slot)
                .collect()
        };
        for slot in cleared {
            if self.flips.live.get(&slot).is_some_and(|since| since < index) {
                self.taint(slot, None);
            }
        }
    }

    /// Indices of the snapshots on a node's disk.
    pub(super) fn snapshots_of(&mut self, slot: Slot) -> BTreeSet<Index> {
        let stores = self.stores(slot);
        let list = stores.and_then(|stores| stores.snapshots.list(GroupId::MAIN).ok());
        list.unwrap_or_default().iter().map(|meta| meta.index).collect()
    }

    /// A node has saved a snapshot, perhaps; these were there before.
    pub(super) fn note_saved(&mut self, slot: Slot, before: &BTreeSet<Index>) {
        let now = self.snapshots_of(slot);
        for index in now.difference(before).copied() {
            let is_bad = self.flips.live.get(&slot).is_some_and(|since| *since <= index);
            self.flips.received(slot, index, is_bad);
            self.fact(&Fact::SnapshotSaved { slot, index });
        }
        self.flips.snapshots.retain(|(other, index)| *other != slot || now.contains(index));
    }

    /// Shows what became of a node's trust in its state.
    pub(super) fn note_trust(&mut self, slot: Slot, is_judged: bool) {
        let State::Up(running) = &mut self.hosts[slot.0].state else { return };
        let digests = running.node.handle().digests().borrow().clone();
        let before = std::mem::replace(&mut running.digests, digests.clone());
        if let Some(last) = digests.last.as_ref().filter(|last| before.last.as_ref() != Some(last))
        {
            self.fact(&Fact::Digested { slot, point: last.index, digest: last.digest });
        }
        if before.doubt != digests.doubt {
            let since = digests.doubt.as_ref().map(|doubt| doubt.since);
            self.fact(&Fact::Doubt { slot, since });
            let words = if since.is_some() { "is in doubt" } else { "is no more in doubt" };
            let now = self.now();
            self.trace.line(now, Who::Host(slot), format_args!("{words}"));
            self.counters.doubts += u64::from(since.is_some());
            self.forget_probes(slot);
        }
        let is_new = before.quarantine.is_some() != digests.quarantine.is_some();
        if is_judged || is_new {
            let quarantine = digests.quarantine.as_ref().map(|it| (it.since, it.point));
            self.fact(&Fact::Trust { slot, quarantine });
        }
        if is_new {
            let now = self.now();
            match &digests.quarantine {
                Some(why) => {
                    let (point, since) = (why.point, why.since);
                    self.trace.line(
                        now,
                        Who::Host(slot),
                        format_args!("is quarantined by {since} about {point}"),
                    );
                    self.counters.quarantines += 1;
                    self.forget_probes(slot);
                }
                None => {
                    self.trace.line(now, Who::Host(slot), format_args!("is trusted again"));
                    self.counters.healed += 1;
                }
            }
        }
    }
}
