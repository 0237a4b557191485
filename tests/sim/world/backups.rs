//! Backups that operators take, and clusters that they make of them: beside this one, which goes on, on hosts
//! of their own.

use std::sync::Arc;

use bytes::Bytes;
use raft_host::backup::{BackupError, BackupReader};
use raft_host::machine::{FOUNDER, Import, Machine, PortableError, QueryResult};
use raft_host::node::{FIRST, first_machine};
use raft_host::transport::Identity;
use raft_host::types::{ClusterId, GroupId, Index, LogPosition, Member, Origin};

use super::World;
use crate::sim::calls::{Answered, Ask, Owner};
use crate::sim::disk::SimDisk;
use crate::sim::guest::key_name;
use crate::sim::incarnations::{Beginning, Scene, Told};
use crate::sim::observe::{Digest, Fact, Restored, Slot};
use crate::sim::trace::Who;
use crate::sim::witness;

/// What operators keep outside of the cluster.
#[derive(Default)]
pub(super) struct Backups {
    /// In the order in which they were taken.
    taken: Vec<Vec<u8>>,
    /// Clusters that were made so far.
    made: u64,
    /// Commands of sessions that clients were told of, and where. Of the last ones.
    told: Vec<(Index, Told)>,
}

/// No more of what clients were told is kept.
const TOLD: usize = 64;

impl Backups {
    /// A client was told of its command.
    pub(super) fn note_told(&mut self, index: Index, session: Option<(u64, u64)>, data: &Bytes) {
        let Some((session, sequence)) = session else { return };
        if self.told.len() == TOLD {
            self.told.remove(0);
        }
        self.told.push((index, (session, sequence, data.clone())));
    }
}

/// A cluster that is about to be made.
struct Made {
    machine: Machine,
    cluster: ClusterId,
    founder: Member,
    /// What its log begins after.
    position: LogPosition,
    restored: Restored,
}

impl World {
    pub(super) fn take_backup(&mut self, slot: Slot) {
        self.ask(slot, Owner::Backup, Ask::Backup);
    }

    pub(super) fn keep_backup(&mut self, answer: Answered) {
        let words = match answer {
            Answered::BackedUp(Ok(bytes)) => {
                self.backups.taken.push(bytes);
                format!("operator: has backup {}", self.backups.taken.len())
            }
            Answered::BackedUp(Err(why)) => format!("operator: has no backup: {why}"),
            _ => "operator: has no backup: nobody answers".to_owned(),
        };
        let now = self.now();
        self.trace.line(now, Who::World, format_args!("{words}"));
    }

    /// Makes a cluster of one of the backups, or of what is exported of it; nodes of this one come back beside it.
    pub(super) fn restore_beside(&mut self, choice: u64, exported: bool, return_of: u64) {
        let count = self.backups.taken.len() as u64;
        // What has a flipped bit somewhere is no backup of anything that is known.
        if count == 0 || self.flips.any {
            return;
        }
        let bytes = self.backups.taken[(choice % count) as usize].clone();
        self.refuse_damaged(&bytes, choice);
        let made = match self.read_backup(&bytes, exported) {
            Ok(Some(made)) => made,
            Ok(None) => return,
            Err(why) => return self.violate("restore_keeps", why),
        };
        self.fact(&Fact::Restored(&made.restored));
        let mut disk =
            SimDisk::new(self.plan.seed ^ self.backups.made).expect("a temporary directory");
        let Made { mut machine, cluster, founder, position, restored } = made;
        let identity = Identity { cluster, node: founder.id, address: founder.address.clone() };
        let begins = (&identity, position);
        if let Err(why) = self.found_on(&mut disk, begins, &mut machine, exported) {
            return self.violate("restore_keeps", why);
        }
        self.live_beside(disk, founder, &restored, return_of);
    }

    /// A backup that is cut short, or in which a bit has flipped, is refused.
    fn refuse_damaged(&mut self, bytes: &[u8], choice: u64) {
        let at = (choice >> 8) as usize % bytes.len();
        let damaged = match choice >> 60 {
            0..4 => bytes[..at].to_vec(),
            4..8 => {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << (choice >> 56 & 7);
                damaged
            }
            _ => return,
        };
        let read = BackupReader::open(&damaged[..]).and_then(BackupReader::to_end);
        if read.is_ok() {
            let what = format!("a backup that is damaged at byte {at} is taken for a good one");
            self.violate("restore_keeps", what);
        }
    }

    /// `None`: there is nothing that could be exported.
    fn read_backup(&mut self, bytes: &[u8], exported: bool) -> Result<Option<Made>, String> {
        let loader = self.newest_loader();
        let words = |error: BackupError| format!("a backup {error}");
        let reader = BackupReader::open(bytes).map_err(words)?;
        let facts = reader.facts().clone();
        let mut machine = reader.restore(Arc::clone(&loader)).map_err(words)?;
        let (cluster, founder) = self.next_incarnation();
        if exported {
            return self.import(&mut machine, cluster, founder);
        }
        let digest = witness::digest(&mut machine);
        let values = self.values_in(&mut machine)?;
        let origin = facts.origin(machine.time_ms());
        let position = machine.reincarnate(cluster, founder.clone(), origin)?;
        let restored =
            restored(&machine, facts.cluster, facts.position, (Some(digest), values), position);
        Ok(Some(Made { machine, cluster, founder, position, restored }))
    }

    /// A new cluster with the portable state of that machine.
    fn import(
        &mut self,
        of: &mut Machine,
        cluster: ClusterId,
        founder: Member,
    ) -> Result<Option<Made>, String> {
        let loader = self.newest_loader();
        let state = of.capture().map_err(|error| error.to_string())?;
        let exported = match state.export(&loader) {
            Ok(exported) => exported,
            Err(PortableError::NoModule | PortableError::Guest(_)) => return Ok(None),
            Err(PortableError::Host(why)) => return Err(format!("nothing is exported: {why}")),
        };
        let module = of.module_bytes(exported.module).ok_or("the module that runs is not there")?;
        let identity = Identity { cluster, node: founder.id, address: founder.address.clone() };
        let limits = of.info().limits;
        let mut machine = first_machine(&identity, GroupId::MAIN, limits, loader);
        let import = Import {
            time_ms: of.time_ms(),
            module,
            label: exported.label,
            portable: exported.bytes.into_vec().into(),
        };
        match machine.import(&import) {
            Ok(()) => {}
            // It may need more than it may use.
            Err(PortableError::Guest(_)) => return Ok(None),
            Err(why) => return Err(format!("what was exported is not imported: {why}")),
        }
        let values = self.values_in(&mut machine)?;
        let position = LogPosition { index: exported.index, ..LogPosition::default() };
        let restored = restored(&machine, self.cluster, position, (None, values), FIRST);
        Ok(Some(Made { machine, cluster, founder, position: FIRST, restored }))
    }

    /// The id of another cluster, and its only voter, who lives where a node of this one has lived.
    fn next_incarnation(&mut self) -> (ClusterId, Member) {
        self.backups.made += 1;
        let mut id = self.cluster.0;
        id[15] = 2;
        id[8..12].copy_from_slice(&(self.backups.made as u32).to_le_bytes());
        let address = self.hosts[0].address.clone();
        (ClusterId(id), Member { id: FOUNDER, address })
    }

    /// The value of every key, straight from a machine.
    fn values_in(&self, machine: &mut Machine) -> Result<Vec<(String, Option<i64>)>, String> {
        if machine.active_module().is_none() {
            return Ok(Vec::new());
        }
        let mut values = Vec::new();
        for key in 0..self.plan.shape.keys {
            let reply = machine.query(&self.guest.query(key)).map_err(|error| error.to_string())?;
            let value = match &reply.result {
                QueryResult::Answer(outcome) => self.guest.value(outcome),
                _ => None,
            };
            let value = value
                .ok_or_else(|| format!("{} cannot be read: {:?}", key_name(key), reply.result))?;
            values.push((key_name(key), value));
        }
        Ok(values)
    }

    /// The new cluster lives for a while, and nodes of this one come back beside it, on copies of their disks.
    fn live_beside(&mut self, disk: SimDisk, founder: Member, made: &Restored, return_of: u64) {
        if made.values.is_empty() || self.violation.is_some() {
            return;
        }
        let (now, cluster) = (self.now(), made.cluster);
        let told = self.backups.told.iter().rev().find(|(index, _)| *index <= made.position.index);
        let beginning = Beginning {
            cluster,
            values: made.values.iter().map(|(_, value)| *value).collect(),
            told: told.map(|(_, told)| told.clone()),
            has_rights: made.has_rights,
        };
        let (plan, number) = (Arc::clone(&self.plan), self.backups.made);
        let loader = self.newest_loader();
        let mut scene = Scene::new(&plan, self.guest, loader, beginning, (now, number));
        let identity = Identity { cluster, node: founder.id, address: founder.address };
        scene.settle(identity, disk, Vec::new());
        let back = self.who_comes_back(return_of);
        for slot in &back {
            let disk = self.stopped_copy(*slot, return_of >> 63 == 1);
            scene.settle(self.identity(*slot), disk, self.hosts[slot.0].introduced.clone());
        }
        let ended = scene.run(&mut |fact| self.fact(fact));
        let turned_away = scene.turned_away;
        self.trace.line(
            now,
            Who::World,
            format_args!(
                "operator: cluster {cluster} was made as of {}, beside {} nodes of this one, \
                 {turned_away} times somebody was turned away",
                made.position.index,
                back.len()
            ),
        );
        self.counters.fault("cluster made beside");
        if let Err((invariant, what)) = ended {
            self.violate(invariant, format!("beside, cluster {cluster}: {what}"));
        }
    }

    /// Of the nodes whose disks did what they said those with a bit in the number.
    fn who_comes_back(&self, return_of: u64) -> Vec<Slot> {
        let is_wanted = |slot: &Slot| {
            let host = &self.hosts[slot.0];
            let is_honest = !host.is_excused() && !host.is_untrustworthy;
            is_honest && return_of >> (slot.0 % 60) & 1 == 1
        };
        self.living().into_iter().filter(is_wanted).collect()
    }

    /// Makes a cluster of a survivor's state, as a recovery does; nodes of this one come back beside it.
    pub(super) fn recovered_beside(
        &mut self,
        mut machine: Machine,
        last: LogPosition,
        disk: &SimDisk,
        return_of: u64,
    ) -> Result<(), String> {
        let digest: Digest = witness::digest(&mut machine);
        let values = self.values_in(&mut machine)?;
        let (cluster, founder) = self.next_incarnation();
        let origin = Origin { cluster: self.cluster, position: last, time_ms: machine.time_ms() };
        let position = machine.reincarnate(cluster, founder.clone(), origin)?;
        let restored = restored(&machine, self.cluster, last, (Some(digest), values), position);
        self.fact(&Fact::Founded(&restored));
        self.succeed(disk, cluster, position, machine)?;
        self.live_beside(disk.clone(), founder, &restored, return_of);
        Ok(())
    }
}

/// What a machine that was made another cluster's begins with.
fn restored(
    machine: &Machine,
    of: ClusterId,
    position: LogPosition,
    (digest, values): (Option<Digest>, Vec<(String, Option<i64>)>),
    begins: LogPosition,
) -> Restored {
    let info = machine.info();
    Restored {
        of,
        position,
        digest,
        values,
        cluster: info.cluster,
        begins,
        members: machine.members().len(),
        sessions: info.sessions,
        has_rights: info.access.is_in_force(),
        origin: info.origins.last().map(|origin| (origin.cluster, origin.position)),
    }
}
