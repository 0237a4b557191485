//! Bringing a module into the log and making it active.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::NodeHandle;
use super::membership::MembershipFailure;
use crate::consensus::Role;
use crate::fsm::{Limits, ModuleRefused};
use crate::machine::{CHUNK_MAX_BYTES, Incumbent, Reply, bounded_label};
use crate::node::answer::{
    Committed, MachineView, ProposeFailure, ProposeResult, QueryFailure, stopped_unknown,
};
use crate::node::request::{ActivateModule, ModuleChunk, Request};
use crate::node::waiter::ReplySink;
use crate::signing::ModuleSignature;
use crate::types::{Index, ModuleHash};

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The module that is to be active.
    pub module: Bytes,
    /// Its name, for people.
    pub label: String,
    /// What it is to replace, as the operator saw it; `None`: there is no module yet.
    pub replaces: Option<Incumbent>,
    /// The state is given up and the module's `init` runs, as in a new cluster.
    pub discard_state: bool,
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
        let Some(view) = self.shared.machine.borrow().clone() else { return Ok(()) };
        let Upgrade { module, label, signatures, .. } = upgrade;
        let module = ModuleHash::of(module);
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
        if self.shared.leadership.borrow().role == Role::Leader
            && let Some(why) = self.no_space()
        {
            // Before it is compiled for nothing.
            return Err(ProposeFailure::NoSpace(Box::new(why)).into());
        }
        let view = self.shared.machine.borrow().clone();
        if let Some(view) = view
            && !is_active(&view, ModuleHash::of(module))
        {
            self.check(module.clone(), view.info.limits.clone()).await?;
        }
        self.replicate_missing(module, CHUNK_MAX_BYTES).await
    }

    /// Whether this node has checked and compiled a module, so that its activation is quick.
    pub fn is_prepared(&self, module: ModuleHash, limits: &Limits) -> bool {
        self.shared.loader.is_prepared(module, limits)
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
        self.replicate_missing(&upgrade.module, chunk_bytes).await?;
        self.activate(upgrade).await
    }

    async fn replicate_missing(
        &self,
        module: &Bytes,
        chunk_bytes: usize,
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
            false => self.replicate(hash, module, chunk_bytes).await,
        }
    }

    /// Makes a module active that the group holds. Leader only.
    ///
    /// # Errors
    /// See [`UpgradeFailure`].
    pub async fn activate(&self, upgrade: Upgrade) -> Result<Upgraded, UpgradeFailure> {
        let Upgrade { module, label, replaces, discard_state, signatures } = upgrade;
        let module = ModuleHash::of(&module);
        let activate = ActivateModule { module, label, replaces, discard_state, signatures };
        let committed = self.propose(Request::ActivateModule(activate)).await?;
        match committed.reply {
            Reply::Activated { index, hash, previous } => {
                Ok(Upgraded { index, hash, previous, already_active: false })
            }
            Reply::AlreadyActive { index, hash } => {
                Ok(Upgraded { index, hash, previous: None, already_active: true })
            }
            Reply::ActivationSuperseded { active } => {
                Err(UpgradeFailure::Superseded { replaces, active })
            }
            Reply::NotSigned(reason) => Err(UpgradeFailure::NotSigned(reason)),
            Reply::ActivationFailed(reason) | Reply::ChunkRefused(reason) => {
                Err(UpgradeFailure::NotActivated(reason))
            }
            other => Err(UpgradeFailure::NotActivated(format!("unexpected answer {other:?}"))),
        }
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
                        let text = format!("unexpected answer {other:?}");
                        return Err(UpgradeFailure::NotActivated(text));
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
