//! Going back from an activation, and going ahead of one: what the machine keeps of the past for both, and
//! until when.

use std::sync::Arc;

use bytes::Bytes;
use raft_host_proto::stored;

use super::again::Again;
use super::ahead::{AheadJob, Feed, copy_of};
use super::core::{Machine, State};
use super::incumbent::{Incumbent, module_hash};
use super::kept::{Commands, Executed, Fork, Kept};
use super::reply::{Applied, ForkInfo, Reply, Rewound, WayBack};
use super::take_over::TakeOver;
use crate::fsm::{Fsm, HostFailure, Limits};
use crate::museum::{self, Exhibit};
use crate::types::{Index, ModuleHash};

/// How long a fork is kept by the log's clock, in milliseconds: whoever made it is gone.
pub(super) const FORK_TTL_MS: u64 = 3_600_000;

/// An instance that has gone back, and what that came to.
type WentBack = (Box<dyn Fsm>, Rewound);

impl State {
    /// Lets go what is kept for too long by now.
    pub(super) fn expire_kept(&mut self) {
        let now_ms = self.time_ms;
        self.kept.take_if(|kept| kept.expires_ms <= now_ms);
        if self.fork.as_ref().is_some_and(|fork| fork.kept.expires_ms <= now_ms) {
            self.forget_fork();
        }
    }

    /// Keeps a command, where anything is kept; and drops what has become too much.
    fn keep(&mut self, executed: &Arc<Executed>) {
        let max = self.limits.upgrade_keep_bytes;
        if let Some(kept) = &mut self.kept {
            kept.commands.push(Arc::clone(executed));
            if kept.commands.bytes() > max {
                self.kept = None;
            }
        }
        if let Some(fork) = &mut self.fork {
            fork.kept.commands.push(Arc::clone(executed));
            if fork.kept.commands.bytes() > max {
                self.forget_fork();
            }
        }
    }

    pub(super) fn forget_fork(&mut self) {
        self.fork = None;
        self.modules.set_taking_over(None);
    }

    /// After an accepted change of limits.
    pub(super) fn on_limits(&mut self, index: Index, previous: &Limits) {
        let limits = &self.limits;
        let for_upgrades = Limits {
            upgrade_keep_bytes: limits.upgrade_keep_bytes,
            upgrade_keep_ms: limits.upgrade_keep_ms,
            activation_fuel: limits.activation_fuel,
            ..previous.clone()
        };
        if *limits != for_upgrades {
            self.on_rules(index);
            return;
        }
        let (bytes, ms) = (limits.upgrade_keep_bytes, limits.upgrade_keep_ms);
        self.kept.take_if(|kept| ms == 0 || kept.commands.bytes() > bytes);
        // Its instance was made under other bounds, here or elsewhere.
        self.forget_fork();
    }

    /// After a change of what decides how commands end: what executes them again would come to other ends.
    pub(super) fn on_rules(&mut self, index: Index) {
        self.rules_changed_at = index;
        self.kept = None;
        self.forget_fork();
    }

    pub(super) fn way_back(&self) -> Option<WayBack> {
        self.kept.as_ref().map(|kept| WayBack {
            module: kept.module,
            activated_at: kept.activated_at(),
            expires_ms: kept.expires_ms,
            commands: kept.commands.len(),
            bytes: kept.commands.bytes(),
        })
    }

    pub(super) fn fork_info(&self) -> Option<ForkInfo> {
        self.fork.as_ref().map(|Fork { kept, next }| ForkInfo {
            module: kept.module,
            next_module: *next,
            index: kept.index,
            expires_ms: kept.expires_ms,
            commands: kept.commands.len(),
            bytes: kept.commands.bytes(),
        })
    }
}

impl Machine {
    /// Whether anybody wants to know of commands that were executed.
    pub(super) fn is_keeping(&self) -> bool {
        self.state.kept.is_some() || self.state.fork.is_some()
    }

    /// Keeps a command that the guest has just executed.
    pub(super) fn keep(&mut self, executed: Executed) {
        let executed = Arc::new(executed);
        self.state.keep(&executed);
        if self.state.fork.is_none() {
            self.feed = None;
        }
        if self.feed.as_ref().is_some_and(|feed| feed.send(executed).is_err()) {
            self.feed = None;
        }
    }

    /// Keeps the state as it is for a module that is to take over.
    pub(super) fn fork(
        &mut self,
        index: Index,
        request: &stored::ForkState,
    ) -> Result<Applied, HostFailure> {
        let refused = |reason| Ok(Applied::without_guest(Reply::ForkRefused(reason)));
        let next = match module_hash(&request.module_hash) {
            Ok(next) => next,
            Err(reason) => return refused(reason),
        };
        let replaces = match request.replaces.as_ref().map(Incumbent::from_log).transpose() {
            Ok(replaces) => replaces,
            Err(reason) => return refused(reason),
        };
        let active = self.state.modules.incumbent();
        if active != replaces {
            return Ok(Applied::without_guest(Reply::ActivationSuperseded { active }));
        }
        if self.state.modules.bytes(next).is_none() {
            return refused(format!(
                "module {next} is not here, or not completely: upload it (again) first"
            ));
        }
        let Some(kept) = self.keep_state(index, FORK_TTL_MS)? else {
            return refused("no module is active, so there is no state to keep".to_owned());
        };
        self.drop_fork();
        self.state.fork = Some(Fork { kept, next });
        self.state.modules.set_taking_over(Some(next));
        self.refresh_module_infos();
        Ok(Applied::without_guest(Reply::Forked { index, module: next }))
    }

    /// The guest's state as it is, after the entry at `index`.
    fn keep_state(&mut self, index: Index, keep_ms: u64) -> Result<Option<Kept>, HostFailure> {
        let Some(guest) = self.guest_digest()? else { return Ok(None) };
        let fsm = self.fsm.as_mut().expect("it was just digested");
        Ok(Some(Kept {
            module: fsm.module(),
            index,
            time_ms: self.state.time_ms,
            expires_ms: self.state.time_ms.saturating_add(keep_ms),
            image: fsm.capture()?.into(),
            guest,
            commands: Commands::default(),
        }))
    }

    /// Drops the fork, and what this node makes of it.
    pub(super) fn drop_fork(&mut self) {
        self.state.forget_fork();
        self.feed = None;
        self.ahead = None;
    }

    /// Before the active module is replaced: keeps what it takes to go back to it.
    pub(super) fn keep_way_back(&mut self, way: TakeOver) -> Result<(), HostFailure> {
        let keep_ms = self.state.limits.upgrade_keep_ms;
        match way {
            // The state from before is still one that leads here.
            TakeOver::Renew { .. } => {}
            TakeOver::Rewind => self.state.kept = None,
            _ if keep_ms == 0 => self.state.kept = None,
            _ => self.state.kept = self.keep_state(self.state.applied, keep_ms)?,
        }
        Ok(())
    }

    /// Whether a module can come back as if it had never been replaced.
    pub(super) fn check_way_back(&self, module: ModuleHash) -> Result<(), String> {
        match &self.state.kept {
            Some(kept) if kept.module == module => Ok(()),
            Some(kept) => Err(format!(
                "what is kept is the state of module {}, and not of {module}",
                kept.module
            )),
            None => Err("no state from before the last activation is kept any more: its time is \
                         over, more commands followed than upgrade_keep_bytes allows, limits or the \
                         engine profile have changed, or it was confirmed; the module can be \
                         activated as any other"
                .to_owned()),
        }
    }

    /// An instance of the module that was replaced, with the state that it would have otherwise.
    pub(super) fn rewind(
        &mut self,
        index: Index,
        module: &Bytes,
        applied: &mut Applied,
    ) -> Result<Result<WentBack, String>, HostFailure> {
        let context = self.context(index);
        let kept = self.state.kept.as_ref().expect("the caller has looked");
        let limits = &self.state.limits;
        let copy = copy_of(&self.loader, module, limits, context, &*kept.image)?;
        let mut fsm = match copy {
            Ok(copy) => copy,
            Err(reason) => return Ok(Err(reason)),
        };
        let (mut again, fuel_max) = (Again::default(), limits.activation_fuel);
        let is_short = museum::is_on(Exhibit::RewindWithoutTheLast);
        let count = kept.commands.len().saturating_sub(is_short.into()) as usize;
        for executed in kept.commands.iter().take(count) {
            let cluster = self.state.cluster;
            if let Err(reason) = again.execute(&mut *fsm, cluster, executed, fuel_max, applied)? {
                return Ok(Err(reason));
            }
        }
        let Again { commands, differing, first, .. } = again;
        Ok(Ok((fsm, Rewound { commands, differing, first })))
    }

    /// Drops what is kept for a way back from an activation.
    pub(super) fn settle(&mut self, request: &stored::SettleUpgrade) -> Reply {
        let activation = Index(request.activated_at);
        let settled = self.state.kept.take_if(|kept| {
            kept.activated_at() == activation || museum::is_on(Exhibit::ConfirmedTooEarly)
        });
        Reply::UpgradeSettled { was_open: settled.is_some() }
    }

    /// Somebody who makes the instance ahead that is to take over from the fork, on another thread; if
    /// there is a fork. Whoever was at that before is told no more.
    pub fn ahead_job(&mut self) -> Option<AheadJob> {
        let fork = self.state.fork.as_ref()?;
        let (job, feed) = self.job_of(fork);
        self.feed = Some(feed);
        self.ahead = None;
        #[cfg(feature = "museum")]
        let job = match museum::is_on(Exhibit::AheadOfTheFork) {
            true => self.mistaken(job),
            false => job,
        };
        Some(job)
    }

    #[cfg(feature = "museum")]
    fn mistaken(&mut self, mut job: AheadJob) -> AheadJob {
        let image = self.fsm.as_mut().and_then(|fsm| fsm.capture().ok());
        if let Some(image) = image {
            job.mistake(image.into());
        }
        job
    }

    /// Takes an instance that was made ahead, for an activation that may come. It changes how long that
    /// takes, and nothing else.
    pub fn take_ahead(&mut self, job: AheadJob) {
        let fits = self.state.fork.as_ref().is_some_and(|fork| job.is_of(fork));
        self.ahead = fits.then(|| Box::new(job));
    }

    pub(super) fn job_of(&self, fork: &Fork) -> (AheadJob, Feed) {
        let modules = [fork.kept.module, fork.next]
            .map(|hash| self.state.modules.bytes(hash).expect("both are held"));
        let State { cluster, limits, .. } = &self.state;
        AheadJob::new(fork, modules, *cluster, limits.clone(), Arc::clone(&self.loader))
    }
}
