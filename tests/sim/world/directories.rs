//! Data directories: opened by each start, made by the first, and their contents replaced by a recovery. The power
//! may go between any two operations of that.

use std::sync::Arc;

use raft_host::machine::{FOUNDER, Machine};
use raft_host::node::StartError;
use raft_host::storage::{DataDir, Engine, NodeIdentity, StorageError};
use raft_host::transport::Identity;
use raft_host::types::{ClusterId, LogPosition};

use super::World;
use crate::sim::disk::{Crash, SimDisk};
use crate::sim::homes::{self, Beginning, Founded, Opened};
use crate::sim::observe::{Citizen, Fact, Slot};
use crate::sim::random::Random;
use crate::sim::trace::Who;

/// Out of a thousand times that a directory is opened, those in which the power goes meanwhile.
const CUTS_PER_MILLE: u64 = 100;
/// A start changes less often than that.
const OPERATIONS: u64 = 40;
/// Of a recovery.
const TAG: &str = "plan";
/// The host that forms the cluster.
const FIRST: Slot = Slot(0);
/// Nobody loses power more often in one recovery.
const CUTS_MAX: usize = 6;

/// What a directory says that is this node's.
pub(super) fn whose(citizen: Citizen) -> NodeIdentity {
    let Citizen { cluster, node } = citizen;
    NodeIdentity { cluster, node, engine: Engine::default() }
}

/// Whether it is the directory that is not as it should be, and not what its stores hold.
pub(in crate::sim) fn is_of_directory(error: &StorageError) -> bool {
    matches!(error, StorageError::LostPart(_) | StorageError::ForeignData(_))
}

fn owner(dir: &DataDir) -> Option<Citizen> {
    dir.identity().map(|NodeIdentity { cluster, node, .. }| Citizen { cluster, node })
}

impl World {
    /// Opens a host's data directory as a start does. At times the power goes meanwhile, and it is opened again.
    pub(super) fn open_home(&mut self, slot: Slot) -> Result<Opened, StartError> {
        if self.cuts.per_mille(CUTS_PER_MILLE) {
            self.note_disk(slot);
            self.hosts[slot.0].disk.die_after(self.cuts.below(OPERATIONS));
            // It is open, or was refused, or the power went; what follows looks at each.
            drop(self.try_home(slot));
            let host = &mut self.hosts[slot.0];
            let is_cut = host.disk.is_dead();
            let crash = if is_cut { Crash::PowerLoss } else { Crash::Kill };
            // What struck until then is over with that start.
            host.take_disk_events(|_| {});
            let event = host.crash_disk(self.disk_random.generator(), crash);
            if is_cut {
                let now = self.now();
                self.counters.fault("power loss in a start");
                self.trace.line(
                    now,
                    Who::Host(slot),
                    format_args!("loses power while it starts ({event})"),
                );
            }
        }
        self.try_home(slot)
    }

    fn try_home(&mut self, slot: Slot) -> Result<Opened, StartError> {
        let (identity, loader) = (self.identity(slot), self.loader_of(slot));
        let node = identity.node;
        let of_slot = Citizen { cluster: self.cluster, node };
        let may_be = match self.hosts[slot.0].owner {
            Some(owner) => vec![Some(owner)],
            None => vec![None, Some(of_slot)],
        };
        let opened = self.hosts[slot.0].disk.data_dir();
        self.note_directory(slot, &may_be, opened.as_ref().map(owner));
        let dir = opened?;
        let (shape, host) = (&self.plan.shape, &self.hosts[slot.0]);
        let beginning = match slot {
            FIRST => Beginning::Forms(&shape.limits),
            _ => Beginning::Joins(&host.introduced),
        };
        let opened = homes::open(dir, &identity, &beginning, &shape.storage, &loader);
        match &opened {
            Ok(_) => self.hosts[slot.0].owner = Some(of_slot),
            Err(StartError::Storage(error)) if is_of_directory(error) => {
                self.note_directory(slot, &[Some(of_slot)], Err(error));
            }
            Err(_) => {}
        }
        opened
    }

    /// What a start has left to do is done once its node has a state.
    pub(super) fn settle_homes(&mut self) {
        for at in 0..self.hosts.len() {
            let (now, slot) = (self.now(), Slot(at));
            let Some(running) = self.hosts[at].running().filter(|running| running.is_settling)
            else {
                continue;
            };
            if running.node.stop_reason().is_some() || running.node.machine().is_none() {
                continue;
            }
            match running.home.intent_done() {
                Ok(()) => running.is_settling = false,
                // It is tried again, or the next start looks at it.
                Err(error) => {
                    let why = self.hosts[at].disk.describe(&error);
                    self.trace.line(now, Who::Host(slot), format_args!("disk: {why}"));
                }
            }
            self.note_disk(slot);
        }
    }

    /// A second process is started with the directory of a node that runs.
    pub(super) fn start_twice(&mut self, slot: Slot) {
        if !self.hosts[slot.0].is_up() {
            return;
        }
        if self.hosts[slot.0].disk.data_dir().is_ok() {
            let what = format!("two processes have the data directory of {slot}");
            self.violate("directory_whole", what);
        }
        self.note_disk(slot);
    }

    /// Shows what a directory says, unless its disk is at an end or cannot be read or written.
    fn note_directory(
        &mut self,
        slot: Slot,
        may_be: &[Option<Citizen>],
        found: Result<Option<Citizen>, &StorageError>,
    ) {
        let host = &self.hosts[slot.0];
        if host.disk.is_dead() || matches!(found, Err(StorageError::Io { .. })) {
            return;
        }
        let (place, is_excused) = (slot.to_string(), host.is_excused() || host.is_untrustworthy);
        let words = found.map_err(|error| host.disk.describe(error));
        let found = words.as_ref().map(|found| *found).map_err(String::as_str);
        self.fact(&Fact::Directory { place: &place, may_be, found, is_excused });
    }

    /// Puts a new cluster's first node in the place of what a stopped node has left, as a recovery does. The
    /// power goes a few times.
    pub(super) fn succeed(
        &mut self,
        disk: &SimDisk,
        cluster: ClusterId,
        position: LogPosition,
        mut machine: Machine,
    ) -> Result<(), String> {
        let mut random = Random::stream(self.plan.seed, "successions", self.now().0);
        let words = |error: StorageError| disk.describe(error);
        let before = disk.data_dir().map_err(words)?;
        let (old, new) = (owner(&before), Some(Citizen { cluster, node: FOUNDER }));
        drop(before);
        let (mut may_be, mut cuts) = (vec![old, new], 0);
        let place = format!("what becomes cluster {cluster}");
        loop {
            if cuts < CUTS_MAX && random.per_mille(800) {
                disk.die_after(random.magnitude(1, 200));
            }
            let done = self.try_succession(disk, cluster, position, &mut machine);
            if !disk.is_dead() {
                disk.crash(random.generator(), Crash::Kill);
                done?;
                break;
            }
            cuts += 1;
            disk.crash(random.generator(), Crash::PowerLoss);
            drop(disk.take_events());
            let found = disk.data_dir().map(|dir| owner(&dir)).map_err(words);
            match &found {
                // Nobody is to open it before the recovery goes on.
                Err(why) if why.contains("was interrupted") => continue,
                Ok(found) if *found == new => may_be = vec![new],
                _ => {}
            }
            self.show_recovered(&place, &may_be, &found);
        }
        let found = disk.data_dir().map(|dir| owner(&dir)).map_err(words);
        self.show_recovered(&place, &[new], &found);
        let aside = disk.succession(TAG).map_err(words)?.aside();
        let kept = disk.data_dir_at(&aside).map_err(words)?;
        self.show_recovered(&place, &[old], &Ok(owner(&kept)));
        match kept.expect(Some(cluster), None, Engine::default()) {
            Ok(()) => {
                Err("what a recovery has put aside is taken for the new cluster's".to_owned())
            }
            Err(_) => kept.open_stores(&self.plan.shape.storage).map(drop).map_err(words),
        }
    }

    /// Founds a cluster on an empty disk, as a restore does, or an import. The power goes a few times; whoever did it
    /// looks what there is, and does it again: in an empty directory if that is what a start says.
    pub(super) fn found_on(
        &mut self,
        disk: &mut SimDisk,
        (identity, position): (&Identity, LogPosition),
        machine: &mut Machine,
        imports: bool,
    ) -> Result<(), String> {
        let mut random = Random::stream(self.plan.seed, "foundings", self.now().0);
        let cluster = identity.cluster;
        let new = Some(Citizen { cluster, node: identity.node });
        let (plan, loader) = (Arc::clone(&self.plan), self.newest_loader());
        let storage = &plan.shape.storage;
        let place = format!("what becomes cluster {cluster}");
        for cuts in 0.. {
            if cuts < CUTS_MAX && random.per_mille(700) {
                disk.die_after(random.magnitude(1, 100));
            }
            let dir = disk.data_dir();
            let done = dir
                .map_err(StartError::from)
                .and_then(|dir| homes::found(dir, (cluster, position), machine, imports, storage));
            let is_cut = disk.is_dead();
            if let (Err(error), false) = (&done, is_cut) {
                return Err(format!("founding another cluster: {}", disk.describe(error)));
            }
            let is_told = done.is_ok();
            let loses_power = is_cut || random.per_mille(500);
            let crash = if loses_power { Crash::PowerLoss } else { Crash::Kill };
            disk.crash(random.generator(), crash);
            drop(disk.take_events());
            let opened = disk.data_dir().map_err(|error| disk.describe(error));
            let found = opened.as_ref().map(owner).map_err(String::clone);
            let may_be: &[Option<Citizen>] = if is_told { &[new] } else { &[None, new] };
            self.show_recovered(&place, may_be, &found);
            let dir = opened?;
            if dir.identity().is_none() {
                continue;
            }
            match homes::look_at_founded(dir, identity, storage, &loader) {
                Ok(Founded::Whole) => break,
                Ok(Founded::Half) if is_told => {
                    let why = "a start takes what was founded, and told to be, for half of it";
                    self.show_recovered(&place, &[new], &Err(why.to_owned()));
                    return Err(why.to_owned());
                }
                Ok(Founded::Half) => {
                    *disk = SimDisk::new(random.number()).expect("a temporary directory");
                }
                Err(error) => return Err(disk.describe(error)),
            }
        }
        disk.crash(random.generator(), Crash::Kill);
        Ok(())
    }

    fn show_recovered(
        &mut self,
        place: &str,
        may_be: &[Option<Citizen>],
        found: &Result<Option<Citizen>, String>,
    ) {
        let found = found.as_ref().map(|found| *found).map_err(String::as_str);
        self.fact(&Fact::Directory { place, may_be, found, is_excused: false });
    }

    fn try_succession(
        &self,
        disk: &SimDisk,
        cluster: ClusterId,
        position: LogPosition,
        machine: &mut Machine,
    ) -> Result<(), String> {
        let words = |error: StorageError| disk.describe(error);
        let mut succession = disk.succession(TAG).map_err(words)?;
        if succession.is_done() {
            return Ok(());
        }
        if succession.wants_contents() {
            let fresh = succession.fresh().map_err(words)?;
            let dir = disk.data_dir_at(&fresh).map_err(words)?;
            homes::found(dir, (cluster, position), machine, false, &self.plan.shape.storage)
                .map_err(|error| format!("founding another cluster: {}", disk.describe(error)))?;
        }
        succession.complete().map_err(words)
    }
}
