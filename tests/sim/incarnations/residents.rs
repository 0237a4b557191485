//! The nodes: started, stepped, killed, and taken from their address for others.

use std::sync::{Arc, PoisonError};

use raft_host::consensus::Role;
use raft_host::node::{Environment, NodeOptions, StartError, SteppedNode, StopReason, channel};
use raft_host::transport::Identity;
use raft_host::types::{ClusterId, GroupId, Index, Member, NodeId};

use super::{Scene, Show};
use crate::sim::calls::Answered;
use crate::sim::disk::{Crash, SimDisk};
use crate::sim::homes::{self, Beginning, Opened};
use crate::sim::host::{Host, Running, SimTransport, State};
use crate::sim::observe::{Citizen, Fact, Micros, Slot};
use crate::sim::witness::{Recorder, Seen};
use crate::sim::world::is_of_directory;

/// A node of one incarnation or the other.
pub(super) struct Resident {
    pub(super) host: Host,
    pub(super) cluster: ClusterId,
    /// It is started again then, if it is down.
    back: Option<Micros>,
}

/// Out of a thousand rounds, those in which a node dies.
const DEATHS_PER_MILLE: u64 = 12;
/// Out of a thousand rounds, those in which another node takes the place of one at its address.
const CHANGES_PER_MILLE: u64 = 12;
/// Out of a thousand steps, those that something else comes before.
const PAUSES_PER_MILLE: u64 = 150;
/// No more of a node's steps in a round.
const STEPS: usize = 40;

impl Resident {
    pub(super) fn citizen(&self) -> Citizen {
        Citizen { cluster: self.cluster, node: self.host.node }
    }

    pub(super) fn identity(&self) -> Identity {
        let (node, address) = (self.host.node, self.host.address.clone());
        Identity { cluster: self.cluster, node, address }
    }

    pub(super) fn applied(&mut self) -> Option<Index> {
        let running = self.host.running()?;
        running.node.machine().map(|machine| machine.applied_index())
    }
}

impl Scene<'_> {
    /// A node with what its disk holds. It starts when the scene begins, or with [`Scene::start`].
    pub(in crate::sim) fn settle(
        &mut self,
        identity: Identity,
        disk: SimDisk,
        introduced: Vec<Member>,
    ) -> usize {
        let at = self.residents.len();
        let mut host = Host::new(Slot(at), identity.node, identity.address, disk);
        host.introduced = introduced;
        self.residents.push(Resident { host, cluster: identity.cluster, back: None });
        at
    }

    pub(super) fn is_new(&self, at: usize) -> bool {
        self.residents[at].cluster == self.beginning.cluster
    }

    /// Who is at home at an address.
    pub(super) fn at_home(&self, address: &str) -> Option<usize> {
        self.residents.iter().position(|it| it.host.is_up() && it.host.address == address)
    }

    /// Starts a node on what its disk holds, unless somebody is at its address or it has had its time.
    pub(super) fn start(&mut self, at: usize, show: Show<'_>) {
        let address = self.residents[at].host.address.clone();
        let is_down = matches!(self.residents[at].host.state, State::Down);
        if !is_down || self.at_home(&address).is_some() {
            return;
        }
        match self.try_start(at) {
            Ok(()) => self.take_notes(at, show),
            Err(StartError::Removed(_)) => self.residents[at].host.state = State::Retired,
            Err(error) => {
                let why = self.residents[at].host.disk.describe(&error);
                let who = self.residents[at].citizen();
                let invariant = match &error {
                    StartError::Storage(error) if is_of_directory(error) => "directory_whole",
                    _ => "excused_stops",
                };
                self.fail(invariant, format!("{who} does not start: {why}"));
            }
        }
    }

    fn try_start(&mut self, at: usize) -> Result<(), StartError> {
        let (plan, now) = (self.plan, self.now);
        let resident = &mut self.residents[at];
        let identity = resident.identity();
        let host = &mut resident.host;
        host.life += 1;
        host.clock.set(now);
        let beginning = Beginning::Joins(&host.introduced);
        let dir = host.disk.data_dir()?;
        let Opened { home, introduced } =
            homes::open(dir, &identity, &beginning, &plan.shape.storage, &self.loader)?;
        let options = NodeOptions {
            identity,
            group: GroupId::MAIN,
            config: plan.shape.node.clone(),
            consensus: plan.shape.consensus.clone(),
            stores: home.stores().clone(),
            loader: Arc::clone(&self.loader),
            introduced,
            evidence: None,
        };
        let environment = Environment {
            wall_clock_ms: host.clock.reader(),
            steady_clock: host.clock.steady_reader(),
            monotonic_clock: Arc::new(|| std::time::Duration::ZERO),
            seed: self.random.number(),
            incarnation: host.life,
            compile_ahead: false,
            beside: false,
        };
        let (inbox, node_channel) = channel(&plan.shape.node);
        let transport = SimTransport::default();
        let (notes, early) = (Arc::clone(&self.notes), Arc::clone(&self.early));
        let recorder = Recorder::new(Slot(at), notes, early, plan.shape.digest_every, None);
        let node = SteppedNode::start(
            options,
            node_channel,
            Arc::new(transport.clone()),
            environment,
            Box::new(recorder),
        )?;
        host.state = State::Up(Box::new(Running::new(node, inbox, transport, home)));
        resident.back = None;
        Ok(())
    }

    /// Ends a node's process, or its machine.
    pub(super) fn kill(&mut self, at: usize, power_loss: bool, back_us: u64) {
        let resident = &mut self.residents[at];
        if !resident.host.is_up() {
            return;
        }
        let running = std::mem::replace(&mut resident.host.state, State::Down);
        let crash = if power_loss { Crash::PowerLoss } else { Crash::Kill };
        resident.host.disk.crash(self.random.generator(), crash);
        resident.back = Some(Micros(self.now.0 + back_us));
        drop(running);
        for other in &mut self.residents {
            if let Some(running) = other.host.running() {
                running.introduced.retain(|slot| slot.0 != at);
            }
        }
    }

    pub(super) fn set_clocks(&mut self) {
        let now = self.now;
        for resident in &mut self.residents {
            resident.host.clock.set(now);
        }
    }

    pub(super) fn step_all(&mut self, show: Show<'_>) {
        for at in 0..self.residents.len() {
            if self.residents[at].back.is_some_and(|back| back <= self.now) {
                self.start(at, show);
            }
            let Some(running) = self.residents[at].host.running() else { continue };
            running.node.turn(true);
            for _ in 0..STEPS {
                let pauses = self.is_stormy && self.random.per_mille(PAUSES_PER_MILLE);
                if pauses || !self.step(at) {
                    break;
                }
            }
            self.take_notes(at, show);
            self.look_at(at);
            self.post(at);
            self.poll(at, show);
        }
    }

    /// The next steps of a node's threads; whether there was any.
    fn step(&mut self, at: usize) -> bool {
        let Some(running) = self.residents[at].host.running() else { return false };
        let node = &mut running.node;
        let mut has_moved = running.writing.take().is_some_and(|_| {
            node.finish_write();
            true
        });
        running.writing = node.begin_write().cloned();
        has_moved |= running.writing.is_some();
        if node.has_log_read() {
            node.read_log();
            has_moved = true;
        }
        if node.has_job() {
            node.apply_next();
            has_moved = true;
        }
        if node.has_save() {
            node.save_next();
            has_moved = true;
        }
        if node.purge_due() {
            node.purge();
            has_moved = true;
        }
        if node.has_events() {
            node.turn(false);
            has_moved = true;
        }
        has_moved && node.stop_reason().is_none()
    }

    fn look_at(&mut self, at: usize) {
        let Some(running) = self.residents[at].host.running() else { return };
        let accused = std::mem::take(&mut running.transport.outbox().accused);
        let reason = running.node.stop_reason();
        let who = self.residents[at].citizen();
        if let Some((peer, why)) = accused.first() {
            self.fail("nobody_accused", format!("{who} says of node {peer}: {why}"));
        }
        match reason {
            None => {}
            // It may have been, in its own cluster.
            Some(StopReason::Removed) if !self.is_new(at) => {
                self.kill(at, false, 0);
                self.residents[at].host.state = State::Retired;
            }
            Some(reason) => {
                let why = self.residents[at].host.disk.describe(format!("{reason:?}"));
                self.fail("excused_stops", format!("{who} stops: {why}"));
            }
        }
    }

    fn take_notes(&mut self, at: usize, show: Show<'_>) {
        let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        let of = self.residents[at].citizen();
        for seen in notes {
            match seen {
                Seen::Applied(entry) => {
                    let (position, entry) = (entry.position, Some(&*entry));
                    show(&Fact::Executed { of, position, entry });
                }
                Seen::Membership(_, position, _) => {
                    show(&Fact::Executed { of, position, entry: None });
                }
                Seen::Installed(_, position, digest, _) => {
                    show(&Fact::TookOver { of, position, digest });
                }
                Seen::Rewound(..) | Seen::WouldBe(..) => {}
            }
        }
    }

    /// Answers that are there.
    fn poll(&mut self, at: usize, show: Show<'_>) {
        let Some(running) = self.residents[at].host.running() else { return };
        let mut answers = Vec::new();
        running.calls.retain_mut(|call| match call.poll() {
            Some(answer) => {
                answers.push((call.owner, answer));
                false
            }
            None => true,
        });
        for (owner, answer) in answers {
            self.hear(owner, answer, show);
        }
    }

    /// Deaths, and others who come back at the address of whoever is there.
    pub(super) fn let_something_go_wrong(&mut self, show: Show<'_>) {
        let election_us = self.plan.shape.node.election_ms * 1_000;
        let count = self.residents.len() as u64;
        if self.random.per_mille(DEATHS_PER_MILLE) {
            let (at, power_loss) = (self.random.below(count), self.random.per_mille(600));
            let back_us = self.random.magnitude(1_000, election_us * 3);
            self.kill(at as usize, power_loss, back_us);
        }
        if self.random.per_mille(CHANGES_PER_MILLE) {
            let comes = self.random.below(count) as usize;
            let address = self.residents[comes].host.address.clone();
            if let Some(goes) = self.at_home(&address).filter(|goes| *goes != comes) {
                let back_us = self.random.magnitude(election_us / 4, election_us * 4);
                let power_loss = self.random.per_mille(500);
                self.kill(goes, power_loss, back_us);
                self.start(comes, show);
            }
        }
    }

    /// All of the new cluster's nodes are where they belong, and those of the old one where there is room.
    pub(super) fn mend(&mut self, show: Show<'_>) {
        self.is_stormy = false;
        for at in 0..self.residents.len() {
            let address = self.residents[at].host.address.clone();
            if self.is_new(at)
                && let Some(other) = self.at_home(&address).filter(|other| !self.is_new(*other))
            {
                self.kill(other, false, u64::MAX / 4);
            }
        }
        for new in [true, false] {
            for at in 0..self.residents.len() {
                if self.is_new(at) == new {
                    self.start(at, show);
                }
            }
        }
    }

    /// The new cluster's leader, as operators find out by asking around.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let node = self.residents[*at].host.node();
            self.is_new(*at) && node.is_some_and(|node| node.role() == Role::Leader)
        };
        let term = |at: &usize| self.residents[*at].host.node().map(SteppedNode::term);
        (0..self.residents.len()).filter(leads).max_by_key(term)
    }

    /// Whether all of the new cluster's members have applied the same.
    pub(super) fn agrees(&mut self) -> bool {
        let mut seen: Vec<Option<Index>> = Vec::new();
        for at in 0..self.residents.len() {
            if self.is_new(at) {
                seen.push(self.residents[at].applied());
            }
        }
        seen.iter().all(|applied| applied.is_some() && *applied == seen[0])
    }

    /// Whose node it is, in the new cluster.
    pub(super) fn of_new(&self, node: NodeId) -> Option<usize> {
        (0..self.residents.len())
            .find(|at| self.is_new(*at) && self.residents[*at].host.node == node)
    }

    /// A question to a node broke off.
    pub(super) fn is_gone(answer: &Answered) -> bool {
        matches!(answer, Answered::Unreachable | Answered::BrokenOff)
    }
}
