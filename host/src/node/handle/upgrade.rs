//! Bringing a module into the log and making it active.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::NodeHandle;
use super::membership::MembershipFailure;
use crate::consensus::Role;
use crate::fsm::{Limits, ModuleRefused};
use crate::machine::{
    CHUNK_MAX_BYTES, Incumbent, Receipt, Reply, Rewound, TakeOver, bounded_label,
};
use crate::node::ahead::AheadStatus;
use crate::node::answer::{
    Committed, MachineView, ProposeFailure, ProposeResult, QueryFailure, stopped_unknown,
    unexpected,
};
use crate::node::compilations::Preparation;
use crate::node::request::{ActivateModule, ModuleChunk, Request};
use crate::node::waiter::ReplySink;
use crate::signing::ModuleSignature;
use crate::types::{Index, ModuleHash};

/// What an operator wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// The module that is to be active.
    pub module: Bytes,
    /// Its name, for people.
    pub label: String,
    /// What it is to replace, as the operator saw it; `None`: there is no module yet.
    pub replaces: Option<Incumbent>,
    /// How it gets its state.
    pub take_over: TakeOver,
    /// The receipt of the rehearsal that it relies on.
    pub receipt: Option<Index>,
    /// Of publishers.
    pub signatures: Vec<ModuleSignature>,
}

/// A module is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// Index of the activation, the same on every node.
    pub index: Index,
    /// The module.
    pub hash: ModuleHash,
    /// What it replaced.
    pub previous: Option<ModuleHash>,
    /// It was active before; nothing changed.
    pub already_active: bool,
    /// How long this node took to activate it, and commands waited.
    pub stall: Duration,
    /// What the module executed again, if it came back as if it had never been replaced.
    pub rewound: Option<Rewound>,
}

/// How far a node's instance is that is made ahead of an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AheadOfFork {
    /// This node has no such fork, or not any more.
    Gone,
    /// So many commands behind; `None`: the module is still taking the state over.
    Behind(Option<u64>),
    /// It cannot take over, and why.
    Refused(String),
}

/// Why a module was not activated. The old one goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeFailure {
    /// The module is not acceptable.
    #[error("the module is refused: {0}")]
    Refused(#[from] ModuleRefused),
    /// The machine refused it when it came to the activation.
    #[error("the module was not activated: {0}")]
    NotActivated(String),
    /// It relies on a receipt that does not fit.
    #[error("the module was not activated: {0}")]
    ReceiptStale(String),
    /// It lacks signatures.
    #[error("the module was not activated: {0}")]
    NotSigned(String),
    /// Something else is active than what was to be replaced.
    #[error(
        "the module was not activated, because it was to replace {}, but the cluster runs {} by \
         now: somebody else was faster, or this was a retry that came late. Nothing has changed; \
         look at `raft-host modules`, and ask again if the module is still wanted",
        name(.replaces), name(.active)
    )]
    Superseded {
        /// What was to be replaced.
        replaces: Option<Incumbent>,
        /// What is active.
        active: Option<Incumbent>,
    },
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
    /// This host cannot check modules; others may.
    #[error("this node cannot check the module: {0}")]
    Host(String),
}

/// Parts proposed at once.
const CHUNKS_IN_FLIGHT: usize = 4;

impl NodeHandle {
    /// Checks a module, replicates it in parts and activates it. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn upgrade(&self, upgrade: Upgrade) -> Result<Upgraded, UpgradeFailure> {
        self.bring_in(&upgrade.module).await?;
        self.activate(upgrade).await
    }

    /// Whether this node, as far as it has applied the log, would find the module's signatures too few:
    /// before it is compiled and replicated for nothing. The machine asks again.
    ///
    /// # Errors
    /// It would.
    pub fn check_signed(&self, upgrade: &Upgrade) -> Result<(), UpgradeFailure> {
        let Upgrade { module, label, signatures, .. } = upgrade;
        self.check_signed_by(ModuleHash::of(module), label, signatures)
    }

    /// As [`NodeHandle::check_signed`], of a module that the group holds.
    ///
    /// # Errors
    /// It would.
    pub fn check_signed_by(
        &self,
        module: ModuleHash,
        label: &str,
        signatures: &[ModuleSignature],
    ) -> Result<(), UpgradeFailure> {
        let Some(view) = self.shared.machine.borrow().clone() else { return Ok(()) };
        // Then nothing is activated.
        if is_active(&view, module) {
            return Ok(());
        }
        let checked = view.info.check_signed(module, &bounded_label(label), signatures);
        checked.map_err(UpgradeFailure::NotSigned)
    }

    /// Checks a module and replicates it in parts. All nodes compile it then, each on a thread
    /// beside its commands. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn bring_in(&self, module: &Bytes) -> Result<(), UpgradeFailure> {
        // Before it is compiled for nothing.
        self.check_space()?;
        let view = self.shared.machine.borrow().clone();
        if let Some(view) = view
            && !is_active(&view, ModuleHash::of(module))
        {
            self.check(module.clone(), view.info.limits.clone()).await?;
        }
        self.replicate_missing(module, CHUNK_MAX_BYTES, false).await
    }

    /// Whether the group holds a module, or a portable state, as far as this node has applied the log.
    pub fn holds(&self, hash: ModuleHash) -> bool {
        let view = self.shared.machine.borrow();
        view.as_ref().is_some_and(|view| view.info.modules.iter().any(|held| held.hash == hash))
    }

    /// Replicates a portable state in parts, for an activation that begins with it. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn bring_in_state(&self, state: &Bytes) -> Result<(), UpgradeFailure> {
        self.check_space()?;
        self.replicate_missing(state, CHUNK_MAX_BYTES, true).await
    }

    fn check_space(&self) -> Result<(), UpgradeFailure> {
        let is_leader = self.shared.leadership.borrow().role == Role::Leader;
        match self.no_space().filter(|_| is_leader) {
            Some(why) => Err(ProposeFailure::NoSpace(Box::new(why)).into()),
            None => Ok(()),
        }
    }

    /// Whether this node has checked and compiled a module, so that its activation is quick; begins with that, if
    /// the machine holds the module and nobody is at it.
    pub fn preparation(&self, module: ModuleHash) -> Preparation {
        let view = self.shared.machine.borrow().clone();
        let Some(view) = view else { return Preparation::Underway };
        self.shared.compilations.of(module, view.modules.get(&module), &view.info.limits)
    }

    /// The active module after all that is committed by now.
    ///
    /// # Errors
    /// See [`NodeHandle::barrier`].
    pub async fn incumbent_now(&self) -> Result<Option<Incumbent>, QueryFailure> {
        self.barrier().await?;
        Ok(self.incumbent())
    }

    /// The active module, as far as this node has applied the log.
    pub fn incumbent(&self) -> Option<Incumbent> {
        let view = self.shared.machine.borrow();
        let active = view.as_ref()?.info.active.as_ref()?;
        Some(Incumbent { hash: active.hash, activated_at: active.activated_at })
    }

    /// As [`NodeHandle::upgrade`], for a module that has been checked, in parts of
    /// `chunk_bytes` (at most [`CHUNK_MAX_BYTES`]).
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn upgrade_checked(
        &self,
        upgrade: Upgrade,
        chunk_bytes: usize,
    ) -> Result<Upgraded, UpgradeFailure> {
        self.replicate_missing(&upgrade.module, chunk_bytes, false).await?;
        self.activate(upgrade).await
    }

    /// As [`NodeHandle::bring_in`], for a module that has been checked, in parts of `chunk_bytes` (at most
    /// [`CHUNK_MAX_BYTES`]).
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn bring_in_checked(
        &self,
        module: &Bytes,
        chunk_bytes: usize,
    ) -> Result<(), UpgradeFailure> {
        self.replicate_missing(module, chunk_bytes, false).await
    }

    async fn replicate_missing(
        &self,
        module: &Bytes,
        chunk_bytes: usize,
        is_state: bool,
    ) -> Result<(), UpgradeFailure> {
        let hash = ModuleHash::of(module);
        let view = self.shared.machine.borrow().clone();
        let Some(view) = view else {
            return Err(ProposeFailure::NotLeader(None).into());
        };
        // Whether it is active already only the machine can say, at the entry's index: a leader that
        // has just started may not have applied what made another module active.
        match view.info.modules.iter().any(|held| held.hash == hash) {
            true => Ok(()),
            false => self.replicate(hash, module, chunk_bytes, is_state).await,
        }
    }

    /// Makes a module active that the group holds. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn activate(&self, upgrade: Upgrade) -> Result<Upgraded, UpgradeFailure> {
        let Upgrade { module, label, replaces, take_over, receipt, signatures } = upgrade;
        let module = ModuleHash::of(&module);
        self.activate_held(ActivateModule {
            module,
            label,
            replaces,
            take_over,
            receipt,
            signatures,
        })
        .await
    }

    /// As [`NodeHandle::activate`], in all ways that there are.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn activate_held(
        &self,
        activate: ActivateModule,
    ) -> Result<Upgraded, UpgradeFailure> {
        let replaces = activate.replaces;
        let committed = self.propose(Request::ActivateModule(activate)).await?;
        let stall = committed.apply_duration;
        match committed.reply {
            Reply::Activated { index, hash, previous, rewound } => {
                Ok(Upgraded { index, hash, previous, already_active: false, stall, rewound })
            }
            Reply::AlreadyActive { index, hash } => Ok(Upgraded {
                index,
                hash,
                previous: None,
                already_active: true,
                stall,
                rewound: None,
            }),
            Reply::ActivationSuperseded { active } => {
                Err(UpgradeFailure::Superseded { replaces, active })
            }
            Reply::NotSigned(reason) => Err(UpgradeFailure::NotSigned(reason)),
            Reply::ReceiptStale(reason) => Err(UpgradeFailure::ReceiptStale(reason)),
            Reply::ActivationFailed(reason) | Reply::ChunkRefused(reason) => {
                Err(UpgradeFailure::NotActivated(reason))
            }
            other => Err(UpgradeFailure::NotActivated(unexpected(&other))),
        }
    }

    /// Keeps the state as it is for a module that is to take over, and the commands from there on: every node begins
    /// to make its instance beside. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn fork(
        &self,
        module: ModuleHash,
        replaces: Option<Incumbent>,
    ) -> Result<Index, UpgradeFailure> {
        let committed = self.propose(Request::ForkState { module, replaces }).await?;
        match committed.reply {
            Reply::Forked { index, .. } => Ok(index),
            Reply::ActivationSuperseded { active } => {
                Err(UpgradeFailure::Superseded { replaces, active })
            }
            Reply::ForkRefused(reason) => Err(UpgradeFailure::NotActivated(reason)),
            other => Err(UpgradeFailure::NotActivated(unexpected(&other))),
        }
    }

    /// How far this node's instance is that begins with a fork.
    pub fn ahead(&self, fork: Index) -> AheadOfFork {
        let view = self.shared.machine.borrow().clone();
        let info = view.and_then(|view| view.info.fork.clone()).filter(|info| info.index == fork);
        let Some(info) = info else { return AheadOfFork::Gone };
        let status = self.shared.ahead.status();
        match status {
            AheadStatus { fork: of, .. } if of != fork => AheadOfFork::Behind(None),
            AheadStatus { refused: Some(why), .. } => AheadOfFork::Refused(why),
            AheadStatus { has_begun: false, .. } => AheadOfFork::Behind(None),
            AheadStatus { executed, .. } => {
                AheadOfFork::Behind(Some(info.commands.saturating_sub(executed)))
            }
        }
    }

    /// Writes down what came of a rehearsal; the index of its receipt. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn record_receipt(&self, receipt: Receipt) -> Result<Index, UpgradeFailure> {
        let replaces = Some(receipt.replaces);
        let committed = self.propose(Request::RecordReceipt(Box::new(receipt))).await?;
        match committed.reply {
            Reply::ReceiptRecorded { index } => Ok(index),
            Reply::ActivationSuperseded { active } => {
                Err(UpgradeFailure::Superseded { replaces, active })
            }
            Reply::ReceiptRefused(reason) => Err(UpgradeFailure::ReceiptStale(reason)),
            other => Err(UpgradeFailure::ReceiptStale(unexpected(&other))),
        }
    }

    /// Drops what is kept for a way back from an activation: the index of the entry, and whether there was
    /// something. Leader only.
    ///
    /// # Errors
    /// See [`ProposeFailure`].
    pub async fn settle_upgrade(
        &self,
        activated_at: Index,
    ) -> Result<(Index, bool), ProposeFailure> {
        let committed = self.propose(Request::SettleUpgrade { activated_at }).await?;
        let was_open = matches!(committed.reply, Reply::UpgradeSettled { was_open: true });
        Ok((committed.position.index, was_open))
    }

    /// Compiling takes long; off the runtime's threads.
    async fn check(&self, module: Bytes, limits: Limits) -> Result<(), UpgradeFailure> {
        let loader = Arc::clone(&self.shared.loader);
        let checked = tokio::task::spawn_blocking(move || loader.check(&module, &limits)).await;
        match checked {
            Ok(Ok(verdict)) => Ok(verdict?),
            Ok(Err(failure)) => Err(UpgradeFailure::Host(failure.to_string())),
            Err(panic) => Err(UpgradeFailure::Host(panic.to_string())),
        }
    }

    /// Returns when this leader has applied what its log holds now.
    async fn catch_up(&self) -> Result<(), UpgradeFailure> {
        self.view_of_leader().await.map_err(|failure| match failure {
            MembershipFailure::Propose(failure) => UpgradeFailure::Propose(failure),
            failure => UpgradeFailure::Host(failure.to_string()),
        })?;
        // Whatever the event loop was told until then has been taken in when it answers.
        self.status().await.map_err(|_| ProposeFailure::Stopping)?;
        Ok(())
    }

    async fn replicate(
        &self,
        hash: ModuleHash,
        module: &Bytes,
        chunk_bytes: usize,
        is_state: bool,
    ) -> Result<(), UpgradeFailure> {
        let offsets: Vec<usize> = (0..module.len()).step_by(chunk_bytes).collect();
        let (mut next, mut window, mut waited) = (0, CHUNKS_IN_FLIGHT, false);
        while next < offsets.len() {
            let mut answers = Vec::new();
            for offset in offsets.iter().skip(next).take(window) {
                let end = module.len().min(offset + chunk_bytes);
                let chunk = ModuleChunk {
                    module: hash,
                    total_bytes: module.len() as u64,
                    offset: *offset as u64,
                    data: module.slice(*offset..end),
                    is_state,
                };
                let (sender, receiver) = oneshot::channel();
                let request = Request::ModuleChunk(chunk);
                self.submit([(request, ReplySink::One(sender))]);
                answers.push(receiver);
            }
            let (mut stored, mut busy) = (0, None);
            for answer in answers {
                let answered: ProposeResult =
                    answer.await.unwrap_or_else(|_| Err(stopped_unknown()));
                let answered = answered.and_then(Committed::unless_denied);
                if busy.is_some() {
                    // It does not continue what was stored.
                    continue;
                }
                match answered.map(|committed| committed.reply) {
                    Ok(Reply::ChunkStored { .. }) => stored += 1,
                    Ok(Reply::ChunkRefused(reason)) => {
                        return Err(UpgradeFailure::NotActivated(reason));
                    }
                    Ok(other) => {
                        return Err(UpgradeFailure::NotActivated(unexpected(&other)));
                    }
                    Err(failure @ ProposeFailure::Busy(_)) => busy = Some(failure),
                    Err(failure) => return Err(failure.into()),
                }
            }
            next += stored;
            if let Some(busy) = busy {
                if stored == 0 && waited {
                    return Err(busy.into());
                }
                // So many fit at once, now or ever; none, and what is under way has to be done first.
                window = stored.max(1);
                waited = stored == 0;
                if waited {
                    self.catch_up().await?;
                }
            }
        }
        Ok(())
    }
}

fn name(incumbent: &Option<Incumbent>) -> String {
    incumbent.map_or_else(|| "no module".to_owned(), |it| it.to_string())
}

/// Whether the module is the active one, as far as this node has applied the log.
fn is_active(view: &MachineView, hash: ModuleHash) -> bool {
    view.info.active.as_ref().is_some_and(|active| active.hash == hash)
}
