//! How modules arrive, and how one takes the place of another.

use std::sync::Arc;

use bytes::Bytes;
use raft_host_proto::stored;

use super::calls::{Budget, portable_of, restore_bytes, restore_portable, settle};
use super::core::Machine;
use super::incumbent::{Incumbent, module_hash};
use super::keys::signatures_from_log;
use super::modules::{At, Chunk, Sizes, bounded_label};
use super::reply::{ActivationInfo, Applied, Reply};
use super::take_over::TakeOver;
use crate::fsm::{Fsm, HostFailure};
use crate::museum::{self, Exhibit};
use crate::types::{Actor, Index, ModuleHash};

impl Machine {
    pub(super) fn store_chunk(&mut self, index: Index, chunk: &stored::ModuleChunk) -> Reply {
        let hash = match module_hash(&chunk.module_hash) {
            Ok(hash) => hash,
            Err(reason) => return Reply::ChunkRefused(reason),
        };
        let (total, is_state) = (chunk.total_bytes, chunk.portable_state);
        let part = Chunk { hash, total, offset: chunk.offset, data: &chunk.data, is_state };
        let sizes = Sizes::of(&self.state.limits);
        let at = At { index, time_ms: self.state.time_ms };
        match self.state.modules.store_chunk(at, part, sizes) {
            Ok(received) => {
                if received == total {
                    self.refresh_module_infos();
                }
                Reply::ChunkStored { received, total }
            }
            Err(reason) => Reply::ChunkRefused(reason),
        }
    }

    pub(super) fn activate(
        &mut self,
        index: Index,
        actor: Actor,
        request: &stored::ActivateModule,
    ) -> Result<Applied, HostFailure> {
        let failed = |reason| Ok(Applied::without_guest(Reply::ActivationFailed(reason)));
        let hash = match module_hash(&request.module_hash) {
            Ok(hash) => hash,
            Err(reason) => return failed(reason),
        };
        let replaces = match request.replaces.as_ref().map(Incumbent::from_log).transpose() {
            Ok(replaces) => replaces,
            Err(reason) => return failed(reason),
        };
        let way = match TakeOver::of(request) {
            Ok(way) => way,
            Err(reason) => return failed(reason),
        };
        let active = self.state.modules.incumbent();
        let is_renewal = matches!(way, TakeOver::Renew { .. });
        // A renewal that is done has made another incumbent.
        if let Some(active) = active.filter(|active| active.hash == hash)
            && !(is_renewal && replaces == Some(active))
        {
            let reply = Reply::AlreadyActive { index: active.activated_at, hash };
            return Ok(Applied::without_guest(reply));
        }
        if active != replaces && !museum::is_on(Exhibit::IncumbentUnchecked) {
            return Ok(Applied::without_guest(Reply::ActivationSuperseded { active }));
        }
        if is_renewal && active.map(|active| active.hash) != Some(hash) {
            return failed(format!("module {hash} is not active, so it cannot be renewed"));
        }
        let previous = active.map(|active| active.hash);
        let Some(module) = self.state.modules.bytes(hash) else {
            return failed(format!(
                "module {hash} is not here, or not completely: upload it (again) first"
            ));
        };
        if request.receipt != 0
            && let Err(reason) = self.valid_receipt(Index(request.receipt), hash, active, way)
        {
            return Ok(Applied::without_guest(Reply::ReceiptStale(reason)));
        }
        if let Err(reason) = self.check_way(hash, way, request.receipt) {
            return failed(reason);
        }

        let label = bounded_label(&request.label);
        let signatures = match signatures_from_log(&request.signatures) {
            Ok(signatures) => signatures,
            Err(error) => return failed(error.to_string()),
        };
        let signed = match self.check_signed(hash, &label, &signatures) {
            Ok(signed) => signed,
            Err(reason) => return Ok(Applied::without_guest(Reply::NotSigned(reason))),
        };

        let mut applied = Applied::without_guest(Reply::Nothing);
        let (started, rewound) = match way {
            TakeOver::Rewind => match self.rewind(index, &module, &mut applied)? {
                Ok((fsm, rewound)) => (Ok(fsm), Some(rewound)),
                Err(reason) => (Err(reason), None),
            },
            way => (self.start(index, &module, way, &mut applied)?, None),
        };
        applied.reply = match started {
            Ok(fsm) => {
                assert_eq!(fsm.module(), hash, "the loader made an instance of something else");
                self.keep_way_back(way)?;
                // The old instance is gone before the new one's copy is made that a trap goes back to.
                self.fsm.insert(fsm).prepare()?;
                let signers = signed.iter().map(|signature| signature.key).collect();
                let activation = ActivationInfo {
                    index,
                    hash,
                    time_ms: self.state.time_ms,
                    label,
                    signers,
                    actor,
                    actor_name: self.state.access.name_of(actor),
                };
                self.state.modules.activate(activation, signed);
                // Only now: until then it holds the module.
                self.drop_fork();
                if let TakeOver::PortableState(state) = way {
                    self.state.modules.drop_state(state);
                }
                self.refresh_module_infos();
                Reply::Activated { index, hash, previous, rewound }
            }
            Err(reason) => {
                // It would fail again.
                if way.fork().is_some() {
                    self.drop_fork();
                    self.refresh_module_infos();
                }
                Reply::ActivationFailed(reason)
            }
        };
        Ok(applied)
    }

    /// Whether there is what a module is to begin with.
    fn check_way(&self, module: ModuleHash, way: TakeOver, receipt: u64) -> Result<(), String> {
        if let Some(at) = way.fork() {
            let fork = self.state.fork.as_ref();
            let fork = fork.filter(|fork| fork.kept.index == at && fork.next == module);
            if fork.is_none() {
                return Err(format!(
                    "the fork at index {at} for the module is not kept any more: another one took its \
                     place, limits or the engine profile have changed, or more commands followed \
                     than upgrade_keep_bytes allows; ask again"
                ));
            }
        }
        match way {
            TakeOver::Snapshot { fork: Some(_) } => {
                let receipt = self.state.receipts.iter().find(|it| it.index == Index(receipt));
                match receipt.is_some_and(|receipt| receipt.allowed == 0) {
                    true => Ok(()),
                    false => Err("an instance that is made ahead executes commands in the place of \
                                  the active module, so it needs a receipt of a rehearsal in which \
                                  nothing differed; without a fork the module takes over the state as \
                                  it is"
                        .to_owned()),
                }
            }
            TakeOver::Rewind => self.check_way_back(module),
            TakeOver::PortableState(state) if self.state.modules.state_bytes(state).is_none() => {
                Err(format!(
                    "the portable state {state} is not here, or not completely: upload it (again) first"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Makes an instance of `module` that goes on where the active one is, without touching
    /// that; or where a new cluster begins, if there is none or its state is given up. `applied` gets the fuel,
    /// events and trap message of what the guests did.
    pub(super) fn start(
        &mut self,
        index: Index,
        module: &Bytes,
        way: TakeOver,
        applied: &mut Applied,
    ) -> Result<Result<Box<dyn Fsm>, String>, HostFailure> {
        if way.fork().is_some() {
            return self.start_from_fork(applied);
        }
        let context = self.context(index);
        let mut fresh = match self.loader.instantiate(module, &self.state.limits, context)? {
            Ok(fresh) => fresh,
            Err(reason) => return Ok(Err(reason.to_string())),
        };
        let (limits, new) = (&self.state.limits, &mut *fresh);
        let started = match (way, self.fsm.as_mut()) {
            (TakeOver::PortableState(state), _) => {
                let state = self.state.modules.state_bytes(state).expect("the caller has looked");
                restore_bytes(new, state.into(), context, limits, applied)?
            }
            (TakeOver::Nothing, _) | (_, None) => {
                let call = new.init(context)?;
                let settled = settle("`init` of the module", Budget::init(limits), call, applied);
                settled.map(|(_, events)| applied.events = events)
            }
            (TakeOver::Image, Some(_)) if !new.has_take_over() => {
                Err("the module cannot take over another one's memory: it has no export `adopt`"
                    .to_owned())
            }
            (TakeOver::Image, Some(active)) => {
                let image = active.capture()?;
                let call = new.take_over(context, &*image)?;
                let settled =
                    settle("`adopt` of the new module", Budget::restore(limits), call, applied);
                settled.map(|(_, events)| applied.events = events)
            }
            (_, Some(active)) => match portable_of(&mut **active, context, limits, applied)? {
                Ok(portable) => restore_portable(new, portable, context, limits, applied)?,
                Err(reason) => Err(reason),
            },
        };
        Ok(started.map(|()| fresh))
    }

    /// With the instance that was made ahead, if one was; else with one that is made now.
    fn start_from_fork(
        &mut self,
        applied: &mut Applied,
    ) -> Result<Result<Box<dyn Fsm>, String>, HostFailure> {
        let fork = self.state.fork.as_ref().expect("the caller has looked");
        let commands = fork.kept.commands.len();
        let ahead = self.ahead.take().filter(|job| job.is_of(fork));
        let finished = match ahead.map(|job| job.finish(commands)).transpose()?.flatten() {
            Some(finished) => Some(finished),
            None => self.job_of(fork).0.finish(commands)?,
        };
        let (done, started) = finished.expect("it was told of all commands");
        applied.fuel_used = applied.fuel_used.saturating_add(done.fuel_used);
        if started.is_ok() {
            applied.events = done.events;
        }
        applied.trap_message = done.trap_message;
        Ok(started)
    }

    /// What the loader's instances are of, and how many bytes a module has: kept so that `info` is cheap.
    pub(super) fn refresh_module_infos(&mut self) {
        self.module_infos = Arc::new(self.state.modules.infos());
    }
}
