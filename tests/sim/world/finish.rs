//! Surveys and probes, and the end of a run: mend everything, and see whether the cluster
//! comes back.

use raft_host::consensus::Role;
use raft_host::machine::QueryResult;
use raft_host::node::Consistency;
use raft_host::types::{GroupId, Index};

use super::operators::Goal;
use super::{Event, Stage, World};
use crate::sim::calls::{Answered, Ask, Owner};
use crate::sim::guest::key_name;
use crate::sim::host::State;
use crate::sim::observe::{Digest, End, Fact, Micros, NodeSurvey, Phase, Slot, Survey};
use crate::sim::trace::Who;

/// A question to a node that reports itself healthy.
pub(super) struct Probe {
    number: u64,
    slot: Slot,
    asked: Micros,
    /// It must be answered by then.
    due: Micros,
    was_healthy: bool,
    is_answered: bool,
}

/// Time between two surveys.
const SURVEY_US: u64 = 1_000_000;

impl World {
    /// Looks at everything, about once a second; moves the run on.
    pub(super) fn survey(&mut self) {
        self.queue.after(SURVEY_US, Event::Survey);
        self.settle_homes();
        self.look_for_members();
        let survey = self.take_survey();
        self.note_clocks();
        self.fact(&Fact::Survey(&survey));
        self.forget_superseded();
        self.judge_probes(&survey);
        self.send_probes(&survey);
        let (now, since) = (self.now(), self.stage_since);
        let faults_us = self.plan.shape.faults_us;
        match self.stage {
            Stage::Growing => {}
            Stage::Faults if now.0 >= since.0 + faults_us => self.mend_everything(),
            Stage::Faults => self.replace_broken(),
            Stage::Calm => {
                self.replace_broken();
                if self.clients_are_done() && self.operators_are_done() {
                    let is_flipped = self.flips.any && !self.flips.is_overwhelmed;
                    if is_flipped && !std::mem::replace(&mut self.flips.is_compared, true) {
                        // So that nothing stays unnoticed.
                        self.begin(Goal::CompareDigests, None);
                    } else {
                        self.enter_settling();
                    }
                } else if now.0 > since.0 + self.progress_bound_us() {
                    self.finish(None);
                } else {
                    self.let_all_write_again();
                }
            }
            Stage::Settling => {
                if self.has_converged() {
                    self.finish(Some(now));
                } else if now.0 > self.mended_at().0 + self.progress_bound_us() {
                    self.finish(None);
                }
            }
        }
    }

    /// Generous: clients may have to wait for their patience, and broken nodes for others.
    fn progress_bound_us(&self) -> u64 {
        60_000_000 + self.plan.shape.node.election_ms * 60_000
    }

    fn mended_at(&self) -> Micros {
        self.mended.unwrap_or(self.stage_since)
    }

    fn enter_settling(&mut self) {
        let mended = self.mended_at();
        self.enter(Stage::Settling);
        self.mended = Some(mended);
    }

    fn mend_everything(&mut self) {
        self.enter(Stage::Calm);
        let now = self.now();
        self.mended = Some(now);
        self.network.mend_all();
        self.drop_removals();
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            host.doom = None;
            host.slow_disk = (Micros(0), 0);
            host.disk.set_capacity(u64::MAX);
            host.disk.fail_syncs(0);
            host.down_us = 100_000;
            let slot = host.slot;
            self.ease(slot);
            if matches!(self.hosts[at].state, State::Down) {
                self.queue.after(0, Event::Start(slot));
            }
        }
        self.replace_broken();
        self.let_all_write();
        self.rouse_clients();
    }

    fn take_survey(&mut self) -> Survey {
        let now = self.now();
        let nodes = (0..self.hosts.len()).map(|at| self.survey_node(Slot(at), now)).collect();
        Survey {
            at: now,
            phase: self.phase(),
            since: self.mended.unwrap_or(Micros(0)),
            nodes,
            bounds: self.bounds(),
        }
    }

    fn survey_node(&mut self, slot: Slot, now: Micros) -> NodeSurvey {
        let is_member = self.conf_state.contains(self.hosts[slot.0].node);
        let must_yield = self.must_yield(slot);
        let must_not_lead = self.must_not_lead(slot);
        let host = &mut self.hosts[slot.0];
        let mut survey = NodeSurvey {
            slot,
            node: host.node,
            is_up: host.is_up(),
            is_paused: host.is_paused(now),
            is_member,
            is_healthy: false,
            role: None,
            term: Default::default(),
            leader: None,
            first_index: Index(0),
            last_index: Index(0),
            commit: Index(0),
            applied: Index(0),
            snapshot: Index(0),
            unapplied_bytes: 0,
            snapshots: 0,
            log_bytes: host.disk.log_bytes(),
            snapshot_bytes: 0,
            disk_bytes: host.disk.used_bytes(),
            sessions: 0,
            is_quarantined: false,
            must_not_lead,
            must_yield,
            stopped: None,
        };
        let Some(running) = host.running() else { return survey };
        let node = &mut running.node;
        let status = node.status();
        survey.is_healthy = node.handle().is_serving();
        survey.is_quarantined = node.handle().is_quarantined();
        survey.role = Some(status.role);
        survey.term = status.term;
        survey.leader = status.leader;
        survey.first_index = status.first_index;
        survey.last_index = status.last_index;
        survey.commit = status.commit;
        survey.snapshot = status.snapshot;
        survey.unapplied_bytes = status.unapplied_bytes;
        if let Some(machine) = node.machine() {
            let info = machine.info();
            survey.applied = info.applied;
            survey.sessions = info.sessions;
        }
        let snapshots = node.stores().snapshots.list(GroupId::MAIN).unwrap_or_default();
        survey.snapshots = snapshots.len();
        survey.snapshot_bytes = snapshots.first().map_or(0, |meta| meta.size_bytes);
        survey
    }

    fn send_probes(&mut self, survey: &Survey) {
        let now = survey.at;
        let bound = survey.bounds.election.0 * 3 + 2_000_000;
        for node in &survey.nodes {
            if !node.is_healthy || node.is_paused {
                continue;
            }
            // In calm weather a healthy node must also find its leader.
            let settled = survey.phase == Phase::Calm && now.0 > survey.since.0 + 5_000_000;
            let consistency = if settled { Consistency::Linearizable } else { Consistency::Stale };
            let number = self.number();
            self.probes.push(Probe {
                number,
                slot: node.slot,
                asked: now,
                due: Micros(now.0 + bound),
                was_healthy: true,
                is_answered: false,
            });
            let ask = Ask::Query(self.guest.query(0), consistency);
            self.ask(node.slot, Owner::Probe(number), ask);
        }
    }

    pub(super) fn probe_hears(&mut self, number: u64, answer: &Answered) {
        let is_answer = matches!(answer, Answered::Queried(Ok(_)));
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.number == number) {
            probe.is_answered = is_answer;
        }
    }

    fn judge_probes(&mut self, survey: &Survey) {
        for probe in &mut self.probes {
            let node = &survey.nodes[probe.slot.0];
            probe.was_healthy &= node.is_healthy && !node.is_paused;
        }
        let (due, waiting): (Vec<Probe>, Vec<Probe>) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|probe| probe.is_answered || probe.due <= survey.at);
        self.probes = waiting;
        for probe in due {
            self.counters.probes += 1;
            self.fact(&Fact::Probed {
                slot: probe.slot,
                asked: probe.asked,
                is_answered: probe.is_answered,
                was_healthy: probe.was_healthy,
            });
        }
    }

    /// A node that was killed or paused need not answer what it was asked before.
    pub(super) fn forget_probes(&mut self, slot: Slot) {
        self.probes.retain(|probe| probe.slot != slot);
    }

    fn members(&self) -> Vec<Slot> {
        let nodes = self.conf_state.nodes();
        nodes.iter().filter_map(|node| self.by_node.get(node)).copied().collect()
    }

    fn has_converged(&mut self) -> bool {
        self.missing().is_empty()
    }

    /// What keeps the cluster from being well.
    fn missing(&mut self) -> String {
        let survey = self.take_survey();
        let mut missing = Vec::new();
        if self.busy_clients() > 0 {
            missing.push(format!("{} clients wait for an answer", self.busy_clients()));
        }
        if !self.operators_are_done() {
            missing.push(format!("operators are at it: {}", self.describe_tasks()));
        }
        let members = self.members();
        let nodes: Vec<&NodeSurvey> = members.iter().map(|slot| &survey.nodes[slot.0]).collect();
        let highest = nodes.iter().map(|node| node.commit.max(node.applied)).max();
        if !nodes.iter().any(|node| node.role == Some(Role::Leader)) {
            missing.push("nobody leads".to_owned());
        }
        for node in nodes {
            let slot = node.slot;
            if !node.is_up {
                missing.push(format!("{slot} is down"));
            } else if !node.is_healthy {
                missing.push(format!("{slot} is not healthy"));
            } else if Some(node.applied) != highest {
                let to = highest.unwrap_or_default();
                missing.push(format!("{slot} has applied {} of {to}", node.applied));
            }
        }
        missing.join("; ")
    }

    fn finish(&mut self, converged: Option<Micros>) {
        let missing = self.missing();
        let survey = self.take_survey();
        let mut digests: Vec<(Slot, Index, Digest)> = Vec::new();
        let mut values = Vec::new();
        for slot in self.members() {
            if !survey.nodes[slot.0].is_up {
                continue;
            }
            if let Some(digest) = self.digest(slot) {
                digests.push((slot, survey.nodes[slot.0].applied, digest));
            }
            for key in 0..self.plan.shape.keys {
                if let Some(value) = self.value(slot, key) {
                    values.push((slot, key_name(key), value));
                }
            }
        }
        let now = self.now();
        let words = if converged.is_some() { "converged" } else { "did not converge" };
        self.trace.line(now, Who::World, format_args!("{words} {missing}"));
        let history = std::mem::take(&mut self.history);
        let end = End {
            survey: &survey,
            history: &history,
            mended: self.mended_at(),
            converged,
            missing: &missing,
            bound: Micros(self.progress_bound_us()),
            digests: &digests,
            is_overwhelmed: self.flips.is_overwhelmed,
            values: &values,
        };
        self.fact(&Fact::End(&end));
        self.is_done = true;
    }

    /// A key's value on a node, straight from its machine.
    fn value(&mut self, slot: Slot, key: u8) -> Option<Option<i64>> {
        let query = self.guest.query(key);
        let machine = self.hosts[slot.0].running()?.node.machine()?;
        let reply = machine.query(&query).ok()?;
        let QueryResult::Answer(outcome) = &reply.result else { return None };
        self.guest.value(outcome)
    }
}
