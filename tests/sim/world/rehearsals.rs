//! Operators who upgrade with a receipt, ahead, and back again: each step after a look at what the leader
//! has applied, as people would do it, and none of them asks what the others are at.

use bytes::Bytes;
use raft_host::machine::{Incumbent, MachineInfo, Receipt, Reply, TakeOver, Way};
use raft_host::node::{ActivateModule, RehearsalFailure, Request, RewindTrial};
use raft_host::types::{Index, ModuleHash, NodeId};

use super::World;
use super::operators::Goal;
use super::rounds::RoundWish;
use crate::sim::calls::Ask;
use crate::sim::observe::{Fact, Slot};

/// What an operator does next.
pub(super) enum Step {
    /// That.
    Ask(Box<Ask>),
    /// Has the voters rehearse that.
    Rehearse(RoundWish),
    /// Nothing yet.
    Wait,
    /// Nothing any more, and why.
    End(&'static str),
}

/// Versions of a module that operators know.
const VERSIONS: u64 = 6;
/// Attempts that an operator lets commands follow a fork before the activation.
const PATIENCE: u64 = 3;

fn ask(request: Request) -> Step {
    Step::Ask(Box::new(Ask::Propose(request)))
}

impl World {
    /// The next step, by what the leader has applied.
    pub(super) fn step_of_upgrade(&mut self, number: u64, leader: Slot, goal: &Goal) -> Step {
        let view = self.hosts[leader.0].node().and_then(|node| {
            let view = node.handle().machine().borrow().clone();
            view.map(|view| view.info.clone())
        });
        let Some(info) = view else { return Step::Wait };
        let active = info.active.as_ref();
        let Some(active) =
            active.map(|it| Incumbent { hash: it.hash, activated_at: it.activated_at })
        else {
            return Step::Wait;
        };
        let Some(task) = self.tasks.get_mut(&number) else { return Step::Wait };
        if let Some(round) = task.round.take() {
            return self.end_round(number, *round);
        }
        // Decided once, whatever happens until it is done.
        let replaces = *task.replaces.get_or_insert(Some(active));
        let attempt = task.attempt;
        match *goal {
            Goal::UpgradeRehearsed { .. } if task.is_refused => {
                Step::End("its rehearsal refuses it")
            }
            Goal::UpgradeRehearsed { version, choice } => {
                self.step_of_rehearsed(version, choice, attempt, replaces, &info)
            }
            Goal::Rewind => match &info.way_back {
                _ if replaces != Some(active) => Step::End("something else is active"),
                Some(way) => {
                    let module = self.known_module(way.module);
                    self.activate(module, way.module, replaces, TakeOver::Rewind, None)
                }
                None => Step::End("there is no way back"),
            },
            Goal::SettleUpgrade => match (task.confirms, &info.way_back) {
                // Whatever has become of it meanwhile.
                (Some(activated_at), _) => ask(Request::SettleUpgrade { activated_at }),
                (None, Some(way)) => {
                    task.confirms = Some(way.activated_at);
                    Step::Wait
                }
                (None, None) => Step::End("there is no way back"),
            },
            Goal::Renew { ahead } => {
                if replaces != Some(active) {
                    return Step::End("something else is active");
                }
                let fork = fork_for(&info, active.hash);
                match (ahead, fork) {
                    (true, None) => ask(Request::ForkState { module: active.hash, replaces }),
                    (true, Some(_)) if !attempt.is_multiple_of(PATIENCE) => Step::Wait,
                    (_, fork) => {
                        let fork = fork.filter(|_| ahead);
                        let module = self.known_module(active.hash);
                        let way = TakeOver::Renew { fork };
                        self.activate(module, active.hash, replaces, way, None)
                    }
                }
            }
            _ => unreachable!("no other goal is about upgrades in steps"),
        }
    }

    fn step_of_rehearsed(
        &self,
        version: u64,
        choice: u64,
        attempt: u64,
        replaces: Option<Incumbent>,
        info: &MachineInfo,
    ) -> Step {
        let module = self.guest.module(version);
        let hash = ModuleHash::of(&module);
        let (true, Some(incumbent)) = (Some(hash) != replaces.map(|it| it.hash), replaces) else {
            return Step::End("it is active");
        };
        if info.modules.iter().all(|held| held.hash != hash) {
            let chunk_bytes = self.plan.shape.chunk_bytes;
            return Step::Ask(Box::new(Ask::BringIn { module, chunk_bytes }));
        }
        // Some rely on whatever receipt there is, and some make receipts up.
        let makes_up = choice % 8 < 3;
        let is_careless = choice.is_multiple_of(8);
        let bad = choice % 8 == 1;
        let fits = |it: &&Receipt| {
            it.module == hash && it.replaces == incumbent && (it.refused == 0 || bad)
        };
        let receipt = info.receipts.iter().rfind(|it| is_careless || fits(it));
        let Some(receipt) = receipt else {
            let active = info.active.as_ref().map(|active| active.activated_at);
            if !makes_up && active != Some(incumbent.activated_at) {
                return Step::End("something else is active");
            }
            if !makes_up {
                return Step::Rehearse(RoundWish { module: hash, choice: choice / 64 });
            }
            return ask(Request::RecordReceipt(Box::new(Receipt {
                index: Index(0),
                module: hash,
                replaces: incumbent,
                way: Way::Snapshot,
                base: incumbent.activated_at,
                until: info.applied,
                commands: 0,
                refused: u64::from(bad),
                allowed: u64::from(choice % 8 == 2),
                allowances: Vec::new(),
                report_hash: [0; 32],
                voters: self.conf_state.voters.iter().copied().collect::<Vec<NodeId>>(),
            })));
        };
        let ahead = (choice / 8).is_multiple_of(2) && (makes_up || receipt.allowed == 0);
        let fork = fork_for(info, hash).filter(|_| ahead);
        if ahead && fork.is_none() {
            return ask(Request::ForkState { module: hash, replaces });
        }
        if ahead && !attempt.is_multiple_of(PATIENCE) {
            return Step::Wait;
        }
        let way = TakeOver::Snapshot { fork };
        self.activate(Some(module), hash, replaces, way, Some(receipt.index))
    }

    fn activate(
        &self,
        bytes: Option<Bytes>,
        module: ModuleHash,
        replaces: Option<Incumbent>,
        take_over: TakeOver,
        receipt: Option<Index>,
    ) -> Step {
        ask(Request::ActivateModule(ActivateModule {
            module,
            label: "simulated".to_owned(),
            replaces,
            take_over,
            receipt,
            signatures: bytes.map(|bytes| self.signed_by_all(&bytes)).unwrap_or_default(),
        }))
    }

    /// Several nodes are asked what undoing the last upgrade would change; whoever asked the first of them may do it
    /// then.
    pub(super) fn try_rewind(&mut self, nodes: u64, undoes: bool, patience_us: Option<u64>) {
        let mut undoes = undoes;
        for slot in self.living() {
            if nodes >> (slot.0 % 64) & 1 == 1 {
                self.begin(
                    Goal::TryRewind { slot, undoes: std::mem::take(&mut undoes) },
                    patience_us,
                );
            }
        }
    }

    /// Whether a node says that the last upgrade can be undone.
    pub(super) fn has_way_back(&self, slot: Slot) -> bool {
        let node = self.hosts[slot.0].node();
        let view = node.and_then(|node| node.handle().machine().borrow().clone());
        view.is_some_and(|view| view.info.way_back.is_some())
    }

    /// Shows what a node has found; it has applied the same since.
    pub(super) fn note_trial(&mut self, slot: Slot, tried: &Result<RewindTrial, RehearsalFailure>) {
        let machine = self.hosts[slot.0].running().and_then(|running| running.node.machine());
        let Some(info) = machine.map(|machine| machine.info()) else { return };
        let until = info.applied;
        match tried {
            Ok(trial) => {
                let expires_ms = info.way_back.as_ref().map_or(0, |way| way.expires_ms);
                self.fact(&Fact::RewindTried { slot, trial, expires_ms });
            }
            Err(RehearsalFailure::NoWayBack(why)) => {
                self.fact(&Fact::NoWayBack { slot, until, why });
            }
            // Nothing was tried.
            Err(_) => {}
        }
    }

    /// The bytes of a module that operators know.
    fn known_module(&self, hash: ModuleHash) -> Option<Bytes> {
        let mut versions = (0..VERSIONS).map(|version| self.guest.module(version));
        versions.find(|module| ModuleHash::of(module) == hash)
    }

    /// What an operator hears at the end; `None`: there is more to do.
    pub(super) fn upgrade_is_over(&mut self, reply: &Reply) -> Option<String> {
        match reply {
            Reply::Activated { rewound, .. } => {
                match rewound {
                    Some(_) => self.counters.rewinds += 1,
                    None => self.counters.upgrades += 1,
                }
                Some("done".to_owned())
            }
            Reply::AlreadyActive { .. } | Reply::UpgradeSettled { .. } => Some("done".to_owned()),
            Reply::ActivationSuperseded { .. } => Some("superseded".to_owned()),
            Reply::ReceiptStale(why)
            | Reply::ReceiptRefused(why)
            | Reply::ForkRefused(why)
            | Reply::ActivationFailed(why)
            | Reply::NotSigned(why) => Some(format!("refused: {why}")),
            _ => None,
        }
    }
}

/// The fork that is kept for a module.
fn fork_for(info: &MachineInfo, module: ModuleHash) -> Option<Index> {
    let fork = info.fork.as_ref()?;
    (fork.next_module == module).then_some(fork.index)
}
