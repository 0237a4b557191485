//! What could be recovered, if all but some nodes were gone for good this moment. Only copies of their disks
//! are touched, and the cluster goes on.

use std::io::Read;
use std::sync::Arc;

use raft_host::machine::{FOUNDER, Machine};
use raft_host::node::found;
use raft_host::recovery::{Found, InspectError, Plan, PlanError, Whose, inspect_stores};
use raft_host::storage::Stores;
use raft_host::types::{ClusterId, GroupId, LogPosition, Member, Origin};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::World;
use super::directories::{is_of_directory, whose};
use crate::sim::disk::{Crash, SimDisk};
use crate::sim::observe::{Citizen, Digest, Fact, Slot};
use crate::sim::trace::Who;
use crate::sim::witness;

/// The cluster that would be.
const NEW_CLUSTER: ClusterId = ClusterId([0x7e; 16]);

impl World {
    /// Stops copies of some nodes, as a kill or a loss of power does, and makes a plan of what they hold; then
    /// makes the new cluster of it.
    pub(super) fn plan_recovery(&mut self, nodes: u64, power_loss: bool, return_of: Option<u64>) {
        // A flipped bit in a snapshot is not to be told from what the log leads to.
        if self.flips.any {
            return;
        }
        let mut found = Vec::new();
        for slot in self.survivors(nodes) {
            match self.inspect(slot, power_loss) {
                Ok(Some(survivor)) => found.push(survivor),
                Ok(None) => {}
                Err(why) => {
                    return self
                        .violate("recovery_keeps", format!("{slot} cannot be inspected: {why}"));
                }
            }
        }
        let survivors = found.iter().map(|found| found.survivor.clone()).collect();
        let now = self.now();
        let plan = match Plan::of(survivors, true, "plan".to_owned(), 0) {
            Ok(plan) => plan,
            Err(PlanError::Nobody | PlanError::Majority(_)) => return,
            Err(why) => return self.violate("recovery_keeps", format!("no plan: {why}")),
        };
        self.counters.plans += 1;
        self.counters.plans_without_loss += u64::from(!plan.may_lose);
        let certain = plan.certain();
        self.trace.line(
            now,
            Who::World,
            format_args!(
                "recovery: node {} to entry {}, kept for certain to {certain}, may lose: {}",
                plan.chosen.node, plan.chosen.last.index, plan.may_lose
            ),
        );
        let chosen = found.into_iter().find(|found| found.survivor.node == plan.chosen.node);
        let mut machine = chosen.expect("one of them was chosen").machine;
        let digest = witness::digest(&mut machine);
        self.fact(&Fact::Planned { plan: &plan, digest });
        let last = plan.chosen.last.into();
        let made = match return_of {
            None => self.found_another(&plan, machine),
            Some(return_of) => {
                let chosen = self.by_node[&plan.chosen.node];
                let disk = self.stopped_copy(chosen, power_loss);
                self.recovered_beside(machine, last, &disk, return_of)
            }
        };
        if let Err(why) = made {
            self.violate("recovery_keeps", why);
        }
    }

    /// Hosts whose disks did what they said: of the voters at most as many as are no majority, of the others
    /// those with a bit in the number.
    fn survivors(&self, nodes: u64) -> Vec<Slot> {
        let is_honest = |slot: &Slot| {
            let host = &self.hosts[slot.0];
            !host.is_excused() && !host.is_untrustworthy
        };
        let mut left: Vec<Slot> = self.living().into_iter().filter(is_honest).collect();
        let first = nodes as usize % left.len().max(1);
        left.rotate_left(first);
        let voters = &self.conf_state.voters;
        let mut count = 0;
        left.retain(|slot| {
            if !voters.contains(&self.hosts[slot.0].node) {
                return nodes >> (slot.0 % 64) & 1 == 1;
            }
            count += 1;
            count * 2 <= voters.len()
        });
        left
    }

    /// What a node's disk holds if it is killed now, or loses power.
    pub(super) fn stopped_copy(&self, slot: Slot, power_loss: bool) -> SimDisk {
        let now = self.now().0;
        let copy = self.hosts[slot.0].disk.copy(now).expect("a temporary directory");
        let mut random = ChaCha8Rng::seed_from_u64(self.plan.seed ^ now ^ slot.0 as u64);
        copy.crash(&mut random, if power_loss { Crash::PowerLoss } else { Crash::Kill });
        copy
    }

    /// `None`: a node that has no state yet.
    fn inspect(&mut self, slot: Slot, power_loss: bool) -> Result<Option<Found>, String> {
        let (cluster, node, place) = (self.cluster, self.hosts[slot.0].node, slot.to_string());
        if self.hosts[slot.0].owner.is_none() {
            return Ok(None);
        }
        let copy = self.stopped_copy(slot, power_loss);
        let stores = self.open(&copy, Citizen { cluster, node })?;
        let whose = Whose { cluster, node, place, has_evidence: false };
        match inspect_stores(&stores, whose, &self.newest_loader(), 0, &|_, _| {}) {
            Ok(found) => Ok(Some(found)),
            Err(InspectError::Stateless { .. }) => Ok(None),
            Err(error) => Err(copy.describe(error)),
        }
    }

    pub(super) fn open(&mut self, disk: &SimDisk, owner: Citizen) -> Result<Stores, String> {
        disk.open_as(whose(owner), &self.plan.shape.storage).map_err(|error| {
            let words = disk.describe(&error);
            if is_of_directory(&error) {
                self.violate("directory_whole", format!("of a copy of {owner}: {words}"));
            }
            words
        })
    }

    /// Makes the new cluster of the plan's state on a disk that loses power at once, and reads it back.
    fn found_another(&mut self, plan: &Plan, mut machine: Machine) -> Result<(), String> {
        let origin = Origin {
            cluster: self.cluster,
            position: plan.chosen.last.into(),
            time_ms: machine.time_ms(),
        };
        let founder = Member { id: FOUNDER, address: "found:1".to_owned() };
        let position = machine.reincarnate(NEW_CLUSTER, founder.clone(), origin)?;
        let disk = SimDisk::new(self.plan.seed).expect("a temporary directory");
        let owner = Citizen { cluster: NEW_CLUSTER, node: FOUNDER };
        let stores = self.open(&disk, owner)?;
        found(&stores, GroupId::MAIN, position, &mut machine)
            .map_err(|error| format!("founding another cluster: {}", disk.describe(error)))?;
        drop(stores);
        disk.crash(&mut ChaCha8Rng::seed_from_u64(self.plan.seed), Crash::PowerLoss);
        let stores = self.open(&disk, owner)?;
        let (mut expected, mut found) = (machine, self.read_back(&stores, position)?);
        let [expected_digest, found_digest]: [Digest; 2] =
            [&mut expected, &mut found].map(witness::digest);
        if found_digest != expected_digest {
            return Err("the new cluster begins with another state".to_owned());
        }
        if !found.members().values().eq([&founder]) || found.applied_index() != position.index {
            return Err(format!("the new cluster begins with {:?}", found.members()));
        }
        if found.applied_index() <= plan.chosen.last.index {
            return Err("an index of the old cluster would be one of the new".to_owned());
        }
        Ok(())
    }

    fn read_back(&self, stores: &Stores, position: LogPosition) -> Result<Machine, String> {
        let start = stores.log.start(GroupId::MAIN).map_err(|error| error.to_string())?;
        let term = stores.log.hard_state(GroupId::MAIN).map_err(|error| error.to_string())?.term;
        if (start, term) != (position, position.term) {
            return Err(format!("the new log begins after {start:?} in term {term}"));
        }
        let (_, mut content) = stores
            .snapshots
            .open(GroupId::MAIN, position.index)
            .map_err(|error| format!("the new cluster's first snapshot: {error}"))?;
        let content: &mut dyn Read = &mut content;
        let loader = Arc::clone(&self.newest_loader());
        Machine::restore(content, NEW_CLUSTER, GroupId::MAIN, loader)
            .map_err(|error| format!("the new cluster's first snapshot: {error}"))
    }
}
