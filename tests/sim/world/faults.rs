//! Executes the plan: what goes wrong, and what operators do meanwhile.

use raft_host::types::{Level, NodeId, Space};

use super::operators::Goal;
use super::{Event, Mend, Stage, World};
use crate::sim::disk::FileKind;
use crate::sim::host::{Doom, State};
use crate::sim::network::Link;
use crate::sim::observe::{Micros, Slot};
use crate::sim::plan::{Action, Boundary, Pick};
use crate::sim::trace::Who;

impl World {
    pub(super) fn begin_faults(&mut self) {
        self.enter(Stage::Faults);
        let now = self.now();
        self.hire_clients();
        for (at, planned) in self.plan.actions.iter().enumerate() {
            self.queue.at(Micros(now.0 + planned.at.0), Event::Action(at));
        }
    }

    /// Something else than a hung disk is wrong, for so long at least.
    pub(super) fn disturb(&mut self, for_us: u64) {
        self.disturbed_until = self.disturbed_until.max(Micros(self.now().0 + for_us));
    }

    /// Whether its disk has not answered for so long that this node, which has had all the time to
    /// notice, must not lead: whatever else is wrong. It may if it knows of no other voter.
    pub(super) fn must_not_lead(&self, slot: Slot) -> bool {
        let now = self.now();
        let host = &self.hosts[slot.0];
        let (Some(since), Some(node)) = (host.stuck_since(now), host.node()) else { return false };
        let conf_state = node.status().conf_state;
        let others = conf_state.voters.len() > 1 || !conf_state.voters_outgoing.is_empty();
        // Its clock may run slow.
        others && now.0 > since.max(host.paused_until).0 + 2 * self.bounds().election.0
    }

    /// Whether nothing but its disk has been wrong for so long that this node must have left
    /// leading to others, and one of them must serve.
    pub(super) fn must_yield(&self, slot: Slot) -> bool {
        let now = self.now();
        let Some(since) = self.hosts[slot.0].stuck_since(now) else { return false };
        let voters = &self.conf_state.voters;
        let able = |node: &&NodeId| {
            let host = self.by_node.get(node).map(|slot| &self.hosts[slot.0]);
            host.is_some_and(|host| {
                host.is_up() && !host.is_paused(now) && host.stalled_until <= now
            })
        };
        let is_alone = self.operators_are_done()
            && self.conf_state.voters_outgoing.is_empty()
            && !self.plan.shape.compares_digests()
            && voters.iter().filter(able).count() > voters.len() / 2;
        let since = since.max(self.disturbed_until);
        // Two of these would do without the network's usual losses.
        is_alone && now.0 > since.0 + 3 * self.bounds().election.0 + 2_000_000
    }

    fn pick(&self, pick: Pick) -> Option<Slot> {
        let living = self.living();
        (!living.is_empty()).then(|| living[(pick.0 % living.len() as u64) as usize])
    }

    /// Operators of a cluster under fire give up after a while.
    pub(super) fn operator_patience_us(&self) -> Option<u64> {
        Some(self.plan.shape.node.election_ms * 20_000)
    }

    pub(super) fn act(&mut self, at: usize) {
        if !self.is_stormy() {
            return;
        }
        let planned = self.plan.actions[at].clone();
        let now = self.now();
        let number = planned.number;
        let name = |node| self.pick(node).map_or("nobody".to_owned(), |slot| slot.to_string());
        let words = planned.action.words(name);
        self.trace.line(now, Who::World, format_args!("#{number}: {words}"));
        self.counters.fault(planned.action.name());
        if !matches!(planned.action, Action::HangLeadersDisk { .. }) {
            self.disturb(planned.action.lasts_us());
        }
        self.act_on_network(&planned.action);
        self.act_on_host(&planned.action);
        self.act_as_operator(&planned.action);
    }

    fn act_on_network(&mut self, action: &Action) {
        match *action {
            Action::Partition { sides, for_us } => {
                let side = |slot: Slot| sides >> (slot.0 % 64) & 1;
                let links = self.links(|from, to| side(from) != side(to));
                self.cut(links, for_us);
            }
            Action::Isolate { node, inbound, outbound, for_us } => {
                let Some(node) = self.pick(node) else { return };
                let links =
                    self.links(|from, to| (from == node && outbound) || (to == node && inbound));
                self.cut(links, for_us);
            }
            Action::CutLink { from, to, both_ways, for_us } => {
                let (Some(a), Some(b)) = (self.pick(from), self.pick(to)) else { return };
                let links = self
                    .links(|from, to| (from, to) == (a, b) || (both_ways && (to, from) == (a, b)));
                self.cut(links, for_us);
            }
            Action::SlowLink { from, to, delay_us, for_us } => {
                let (Some(from), Some(to)) = (self.pick(from), self.pick(to)) else { return };
                self.network.slow_down((from, to), delay_us);
                self.queue.after(for_us, Event::Mend(Mend::Speed((from, to), delay_us)));
            }
            Action::Weather { quality, for_us } => {
                let number = self.number();
                self.network.begin_weather(number, quality);
                self.queue.after(for_us, Event::Mend(Mend::Weather(number)));
            }
            Action::ResetConnections { node } => {
                let Some(node) = self.pick(node) else { return };
                self.reset_connections(node);
            }
            _ => {}
        }
    }

    fn links(&self, is_one: impl Fn(Slot, Slot) -> bool) -> Vec<Link> {
        let slots = || self.hosts.iter().map(|host| host.slot);
        slots()
            .flat_map(|from| slots().map(move |to| (from, to)))
            .filter(|(from, to)| from != to && is_one(*from, *to))
            .collect()
    }

    fn cut(&mut self, links: Vec<Link>, for_us: u64) {
        self.network.cut(&links);
        self.queue.after(for_us, Event::Mend(Mend::Links(links)));
    }

    pub(super) fn mend(&mut self, mend: Mend) {
        if !self.is_stormy() {
            // Everything was mended already.
            return;
        }
        match mend {
            Mend::Links(links) => self.network.mend(&links),
            Mend::Speed(link, delay_us) => self.network.speed_up(link, delay_us),
            Mend::Weather(number) => self.network.end_weather(number),
            Mend::Space(slot) => {
                // Of two squeezes at a time the longer counts.
                if self.hosts[slot.0].space.2 <= self.now() {
                    self.ease(slot);
                }
            }
            Mend::Disk(slot) => self.hosts[slot.0].disk.set_capacity(u64::MAX),
        }
    }

    fn act_on_host(&mut self, action: &Action) {
        let now = self.now();
        match *action {
            Action::Kill { node, power_loss, when, down_us } => {
                let Some(slot) = self.pick(node) else { return };
                if when == Boundary::Now {
                    return self.crash(slot, power_loss, Some(down_us));
                }
                let host = &mut self.hosts[slot.0];
                if host.is_up() {
                    host.doom = Some(Doom { when, power_loss, down_us });
                    let life = host.life;
                    let patience = self.plan.shape.node.election_ms * 1_000;
                    self.queue.after(patience, Event::Doom(slot, life));
                }
            }
            Action::KillAll { power_loss, down_us } => {
                for slot in self.living() {
                    self.crash(slot, power_loss, Some(down_us));
                }
            }
            Action::Pause { node, for_us } => {
                let Some(slot) = self.pick(node) else { return };
                let until = self.in_time(for_us);
                self.hosts[slot.0].pause(until);
                self.forget_probes(slot);
            }
            Action::ClockJump { node, by_ms } => {
                let Some(slot) = self.pick(node) else { return };
                self.note_clocks();
                self.hosts[slot.0].clock.jump(now, by_ms);
                self.note_clocks();
            }
            Action::ClockDrift { node, ppm } => {
                let Some(slot) = self.pick(node) else { return };
                self.hosts[slot.0].clock.drift(now, ppm);
            }
            Action::StallDisk { node, for_us } => {
                let Some(slot) = self.pick(node) else { return };
                let until = self.in_time(for_us);
                self.hosts[slot.0].stall(now, until);
            }
            Action::HangLeadersDisk { for_us } => {
                let Some(slot) = self.leader() else { return };
                let until = self.in_time(for_us);
                self.hosts[slot.0].stall(now, until);
                self.trace.line(now, Who::Host(slot), format_args!("disk: hangs"));
            }
            Action::StallMachine { node, for_us } => {
                let Some(slot) = self.pick(node) else { return };
                let until = self.in_time(for_us);
                self.hosts[slot.0].stall_machine(until);
            }
            Action::SlowDisk { node, fsync_us, for_us } => {
                let Some(slot) = self.pick(node) else { return };
                self.hosts[slot.0].slow_down_disk(now, Micros(now.0 + for_us), fsync_us);
            }
            Action::FlipBit { node, at } => self.flip_bit(node, at),
            Action::PlanRecovery { nodes, power_loss } => {
                self.plan_recovery(nodes, power_loss, None);
            }
            Action::Recover { nodes, power_loss, return_of } => {
                self.plan_recovery(nodes, power_loss, Some(return_of));
            }
            Action::Backup { node } => {
                let Some(slot) = self.pick(node) else { return };
                self.take_backup(slot);
            }
            Action::Restore { choice, exported, return_of } => {
                self.restore_beside(choice, exported, return_of);
            }
            _ => self.act_on_disk(action),
        }
    }

    /// So long from now, but not after everything is mended: what waits then waits until then.
    fn in_time(&self, for_us: u64) -> Micros {
        let end = self.stage_since.0 + self.plan.shape.faults_us;
        Micros((self.now().0 + for_us).min(end))
    }

    fn act_on_disk(&mut self, action: &Action) {
        let now = self.now();
        match *action {
            Action::FailSync { node, down_us } => {
                let Some(slot) = self.pick(node) else { return };
                let host = &mut self.hosts[slot.0];
                host.disk.fail_syncs(1);
                host.down_us = down_us;
            }
            Action::FillDisk { node, spare_bytes, for_us } => {
                let Some(slot) = self.pick(node) else { return };
                let host = &mut self.hosts[slot.0];
                host.disk.set_capacity(host.disk.used_bytes() + spare_bytes);
                // It cannot start again before there is space.
                host.down_us = for_us + 1_000;
                self.queue.after(for_us, Event::Mend(Mend::Disk(slot)));
            }
            Action::LittleSpace { node, critical, spare_bytes, for_us } => {
                let Some(slot) = self.pick(node) else { return };
                self.squeeze(slot, critical, spare_bytes, for_us);
            }
            Action::LittleSpaceForAll { critical, spare_bytes, for_us } => {
                for slot in self.living() {
                    self.squeeze(slot, critical, spare_bytes, for_us);
                }
            }
            Action::Rot { node } => {
                let Some(slot) = self.pick(node).filter(|slot| self.is_expendable(*slot)) else {
                    return;
                };
                let rotten = self.hosts[slot.0].disk.rot(self.disk_random.generator(), true);
                if let Some(event) = rotten {
                    self.trace.line(now, Who::Host(slot), format_args!("disk: {event}"));
                    self.hosts[slot.0].tampered = Some(event.to_string());
                }
            }
            Action::MisdirectWrite { node } | Action::LoseWrite { node } => {
                let Some(slot) = self.pick(node).filter(|slot| self.is_expendable(*slot)) else {
                    return;
                };
                let is_lost = matches!(action, Action::LoseWrite { .. });
                let host = &mut self.hosts[slot.0];
                match is_lost {
                    true => host.disk.lose_next_write(FileKind::Append),
                    false => host.disk.misdirect_next_write(FileKind::Append),
                }
                host.is_lying = true;
            }
            _ => {}
        }
    }

    /// Others fill a disk, and the node sees how much is left.
    fn squeeze(&mut self, slot: Slot, critical: bool, spare_bytes: u64, for_us: u64) {
        let space = if critical { Space::Critical } else { Space::Low };
        let until = Micros(self.now().0 + for_us);
        let host = &mut self.hosts[slot.0];
        host.space = (space, spare_bytes, until.max(host.space.2));
        self.report_space(slot);
        self.queue.at(self.hosts[slot.0].space.2, Event::Mend(Mend::Space(slot)));
    }

    /// There is room on a disk again.
    pub(super) fn ease(&mut self, slot: Slot) {
        if self.hosts[slot.0].space.0 != Space::Ample {
            self.hosts[slot.0].space = (Space::Ample, u64::MAX, Micros(0));
            self.report_space(slot);
        }
    }

    /// As a node's own look at its disk does.
    pub(super) fn report_space(&mut self, slot: Slot) {
        let (now, (space, free, _)) = (self.now(), self.hosts[slot.0].space);
        let Some(running) = self.hosts[slot.0].running() else { return };
        running.node.handle().report_space(space, free);
        self.trace.line(now, Who::Host(slot), format_args!("disk: {space:?}, {free} bytes left"));
        self.wake(slot);
    }

    /// Whether the cluster gets over the loss of this disk.
    fn is_expendable(&self, slot: Slot) -> bool {
        !self.is_to_be_promoted(slot)
            && self.conf_state.voters_outgoing.is_empty()
            && self.suffices_without(slot)
    }

    fn act_as_operator(&mut self, action: &Action) {
        let patience = self.operator_patience_us();
        match *action {
            Action::Replace { node } => {
                let Some(slot) = self.pick(node).filter(|slot| self.is_expendable(*slot)) else {
                    return;
                };
                let was_voter = self.conf_state.is_voter(self.hosts[slot.0].node);
                self.crash(slot, true, None);
                self.hosts[slot.0].state = State::Broken;
                self.begin(Goal::Replace { slot, was_voter }, None);
            }
            Action::Rejoin { node } => {
                let Some(slot) = self.pick(node).filter(|slot| self.is_expendable(*slot)) else {
                    return;
                };
                let was_voter = self.conf_state.is_voter(self.hosts[slot.0].node);
                self.crash(slot, true, None);
                self.hosts[slot.0].state = State::Broken;
                self.begin_rejoin(slot, was_voter);
            }
            Action::Move { node } => {
                let Some(slot) = self.pick(node) else { return };
                let number = self.number();
                let address = format!("moved{number}:1");
                let by_deputy = self.plan.shape.rights && number.is_multiple_of(2);
                self.begin(Goal::Move { slot, address, by_deputy }, patience);
            }
            Action::StartTwice { node } => {
                let Some(slot) = self.pick(node) else { return };
                self.start_twice(slot);
            }
            Action::Join { promote } => self.begin_join(promote, None),
            Action::Remove { node } => {
                let Some(slot) = self.pick(node) else { return };
                self.begin(Goal::Remove { slot }, patience);
            }
            Action::Transfer { to } => {
                let Some(slot) = self.pick(to) else { return };
                let node = self.hosts[slot.0].node;
                for slot in self.living() {
                    if let Some(running) = self.hosts[slot.0].running() {
                        running.node.transfer_leadership(Some(node));
                        self.wake(slot);
                    }
                }
            }
            Action::Install { node, next, down_us } => {
                let Some(slot) = self.pick(node) else { return };
                let program = if next { super::programs::NEXT } else { Level::CURRENT };
                self.install(slot, program, down_us);
            }
            Action::RaiseLevel => self.begin(Goal::RaiseLevel, patience),
            Action::MakeJoinToken { ttl_ms } => self.make_join_token(ttl_ms, patience),
            Action::EndJoinToken { choice } => self.end_join_token(choice, patience),
            Action::BringToken { choice, are_two } => self.bring_token(choice, are_two),
            Action::SetRights { client, choice } => self.change_rights(client, choice, patience),
            Action::Snapshot { node } => {
                let Some(slot) = self.pick(node) else { return };
                self.begin(Goal::Snapshot { slot }, patience);
            }
            Action::Upgrade { version } if self.guest.name() != "native" => {
                self.begin(Goal::Upgrade { version }, patience);
            }
            Action::SetLimits { choice } => self.begin(Goal::SetLimits { choice }, patience),
            Action::SetKeys { choice } => self.begin(Goal::SetKeys { choice }, patience),
            Action::UpgradeSigned { version, choice } if self.guest.name() != "native" => {
                self.begin(Goal::UpgradeSigned { version, choice }, patience);
            }
            Action::UpgradeRehearsed { version, choice } if self.guest.name() != "native" => {
                self.begin(Goal::UpgradeRehearsed { version, choice }, patience);
            }
            Action::Shadow { node, version, for_us } if self.guest.name() == "registers" => {
                let Some(slot) = self.pick(node) else { return };
                self.begin_shadow(slot, version, for_us);
            }
            Action::Rewind => self.begin(Goal::Rewind, patience),
            Action::TryRewind { nodes, undoes } => self.try_rewind(nodes, undoes, patience),
            Action::SettleUpgrade => self.begin(Goal::SettleUpgrade, patience),
            Action::Renew { ahead } => self.begin(Goal::Renew { ahead }, patience),
            _ => {}
        }
    }
}
