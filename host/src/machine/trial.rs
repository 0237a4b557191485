//! What a rehearsal or a shadow does to a machine of its own, and no entry does: another module goes on from the state
//! as it is, entries that are none of the guest's business are passed over, and guests are asked what a
//! cluster asks only in an activation.

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored;

use super::access;
use super::ahead::copy_of;
use super::batch::{self, Read};
use super::calls::{Budget, settle};
use super::core::{Machine, outcome_of};
use super::modules::{StoredModule, bounded_label};
use super::receipts::Way;
use super::reply::{ActivationInfo, Applied, Reply, SessionNumber};
use super::snapshot::MachineSnapshot;
use crate::fsm::{Call, Context, Fsm, HostFailure, Pile, SharedLoader, Written};
use crate::types::{Actor, ActorName, Index, ModuleHash, Outcome, Position};

/// What the guests used while one took over from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Fuel of both together.
    pub fuel_used: u64,
}

/// A guest's portable snapshot.
#[derive(Debug)]
pub struct Portable {
    /// What it wrote.
    pub written: Written,
    /// Fuel that it used.
    pub fuel_used: u64,
}

/// A command as an entry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What the guest gets.
    pub data: Bytes,
    /// Who gave it.
    pub actor: Actor,
    /// Its place in a session.
    pub session: Option<SessionNumber>,
}

/// The commands that an encoded entry holds, in their order; none if it holds something else.
///
/// # Errors
///
/// [`HostFailure`]: this version does not know what it holds.
pub fn commands_of(index: Index, data: &Bytes) -> Result<Vec<Held>, HostFailure> {
    let Read::Batch { commands, .. } = batch::read(index, data)? else { return Ok(Vec::new()) };
    let held = commands.into_iter().map(|command| Held {
        // A command of nobody that can be read is not executed.
        actor: access::actor_from_log(command.actor.as_ref()).unwrap_or(Actor::Nobody),
        session: command.session.as_ref().map(|session| SessionNumber {
            session_id: session.session_id,
            sequence: session.sequence,
        }),
        data: command.data,
    });
    Ok(held.collect())
}

/// An encoded entry that holds one command of nobody.
pub fn command_entry(data: Bytes, time_ms: u64) -> Bytes {
    let body = stored::Command { data, session: None, actor: None }.into();
    stored::Entry { time_ms, actor: None, body: Some(body) }.encode_to_vec().into()
}

/// When an encoded entry was proposed, in milliseconds since the Unix epoch; `None` if it does not say.
pub fn time_of(data: &Bytes) -> Option<u64> {
    let entry = stored::Entry::decode(data.clone()).ok()?;
    (entry.time_ms > 0).then_some(entry.time_ms)
}

impl MachineSnapshot {
    /// A machine in this state, with an instance of its own; without what is kept for a way back or a module
    /// that is to take over.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: this host cannot make one.
    pub fn into_machine(self, loader: &SharedLoader) -> Result<Machine, HostFailure> {
        let MachineSnapshot { mut state, image } = self;
        (state.kept, state.fork) = (None, None);
        let context = Context {
            cluster: state.cluster,
            position: Position::first(state.applied),
            time_ms: state.time_ms,
            actor: ActorName::NONE,
        };
        let fsm = match (state.modules.incumbent(), image) {
            (Some(active), Some(image)) => {
                let module = state.modules.bytes(active.hash).expect("the active module is kept");
                let copy = copy_of(loader, &module, &state.limits, context, &*image)?;
                let copy = copy.map_err(|reason| {
                    HostFailure(format!("the active module cannot be copied: {reason}"))
                })?;
                Some(copy)
            }
            _ => None,
        };
        Ok(Machine::assemble(state, fsm, SharedLoader::clone(loader)))
    }
}

impl Machine {
    /// A second machine, in which `module` goes on from the state as it is, or from what `way` says, as if the last
    /// applied entry had activated it. If the module does not take over, the reason. This machine stays as it is.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the machine must be dropped.
    pub fn successor(
        &mut self,
        module: &Bytes,
        label: &str,
        way: Way,
    ) -> Result<Result<(Machine, Migrated), String>, HostFailure> {
        let (index, hash) = (self.state.applied, ModuleHash::of(module));
        if let Way::PortableState(state) = way
            && self.state.modules.state_bytes(state).is_none()
        {
            let reason = format!("the portable state {state} is not here, or not completely");
            return Ok(Err(reason));
        }
        let mut applied = Applied::without_guest(Reply::Nothing);
        let fsm = match self.start(index, module, way.into(), &mut applied)? {
            Ok(fsm) => fsm,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut state = self.state.clone();
        (state.kept, state.fork) = (None, None);
        state.modules.stored.entry(hash).or_insert_with(|| StoredModule {
            bytes: module.clone(),
            label: bounded_label(label),
            completed_at: index,
            ever_activated: false,
            signatures: Vec::new(),
            is_state: false,
        });
        let activation = ActivationInfo {
            index,
            hash,
            time_ms: self.state.time_ms,
            label: bounded_label(label),
            signers: Vec::new(),
            actor: Actor::Nobody,
            actor_name: ActorName::NONE,
        };
        state.modules.activate(activation, Vec::new());
        let successor = Machine::assemble(state, Some(fsm), self.loader.clone());
        Ok(Ok((successor, Migrated { fuel_used: applied.fuel_used })))
    }

    /// Drops what is kept for a way back, and for a module that is to take over.
    pub fn forget_kept(&mut self) {
        self.state.kept = None;
        self.drop_fork();
        self.refresh_module_infos();
    }

    /// Passes over the entry at `index`; the log's clock goes on all the same.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Machine::applied_index`].
    pub fn skip(&mut self, index: Index, data: &Bytes) {
        self.check_next(index);
        if let Some(time_ms) = time_of(data) {
            self.state.move_clock(time_ms);
        }
        self.state.applied = index;
    }

    /// Why a cluster with these limits would refuse `module` at its door, if it would. Compiles it.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: this host cannot tell.
    pub fn refuses(&self, module: &[u8]) -> Result<Option<String>, HostFailure> {
        let checked = self.loader.check(module, &self.state.limits)?;
        Ok(checked.err().map(|refused| refused.to_string()))
    }

    /// Has the guest write its portable snapshot, of which `written` keeps what it is to keep; or says why it cannot.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the machine must be dropped.
    pub fn portable(
        &mut self,
        mut written: Written,
    ) -> Result<Result<Portable, String>, HostFailure> {
        let context = self.context(self.state.applied);
        match &mut self.fsm {
            None => Ok(Err("no module is active".to_owned())),
            Some(fsm) => {
                let call = fsm.snapshot_into(context, &mut written)?;
                Ok(self.settle_portable(call, written))
            }
        }
    }

    /// Gives a portable snapshot to a fresh instance of `module`, has that write its own, of which `written` keeps what
    /// it is to keep, and drops it; or says what went wrong. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the machine must be dropped.
    pub fn through(
        &self,
        module: &[u8],
        portable: Pile,
        mut written: Written,
    ) -> Result<Result<Portable, String>, HostFailure> {
        let (context, limits) = (self.context(self.state.applied), &self.state.limits);
        let mut fresh: Box<dyn Fsm> = match self.loader.instantiate(module, limits, context)? {
            Ok(fresh) => fresh,
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        let call = fresh.restore_from(context, portable)?;
        let budget = Budget::restore(&self.state.limits);
        let mut applied = Applied::without_guest(Reply::Nothing);
        if let Err(reason) = settle("`restore` of the module", budget, call, &mut applied) {
            return Ok(Err(reason));
        }
        let call = fresh.snapshot_into(context, &mut written)?;
        Ok(self.settle_portable(call, written))
    }

    fn settle_portable(&self, call: Call, written: Written) -> Result<Portable, String> {
        let budget = Budget::snapshot(&self.state.limits);
        let mut applied = Applied::without_guest(Reply::Nothing);
        settle("`snapshot` of the module", budget, call, &mut applied)?;
        Ok(Portable { written, fuel_used: applied.fuel_used })
    }

    /// Has the guest check the rules of its own state; `None` if it has no check.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the machine must be dropped.
    pub fn check_state(&mut self) -> Result<Option<Outcome>, HostFailure> {
        let context = self.context(self.state.applied);
        match &mut self.fsm {
            Some(fsm) if fsm.has_check() => Ok(Some(outcome_of(fsm.check(context)?.result).0)),
            _ => Ok(None),
        }
    }

    /// Whether the active module names classes of commands.
    pub fn names_classes(&self) -> bool {
        self.fsm.as_ref().is_some_and(|fsm| fsm.has_classes())
    }

    /// Which class the active module says that a command is of, in the state as it is now.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the machine must be dropped.
    pub fn class_of(
        &mut self,
        position: Position,
        command: &Held,
    ) -> Result<Option<String>, HostFailure> {
        let context = self.context_of(position, command.actor);
        match &mut self.fsm {
            Some(fsm) if fsm.has_classes() => {
                Ok(fsm.classify(context, &command.data)?.class().map(str::to_owned))
            }
            _ => Ok(None),
        }
    }

    /// A command that waits for its turn in an ordered session.
    pub fn waiting_command(&self, number: SessionNumber) -> Option<Held> {
        let waiting = self.state.sessions.waiting(number)?;
        Some(Held { data: waiting.data.clone(), actor: waiting.actor, session: Some(number) })
    }

    /// All commands that wait in a session.
    pub fn waiting_in(&self, session_id: u64) -> Vec<Held> {
        let waiting = self.state.sessions.waiting_in(session_id);
        let held = waiting.map(|(sequence, waiting)| Held {
            data: waiting.data.clone(),
            actor: waiting.actor,
            session: Some(SessionNumber { session_id, sequence }),
        });
        held.collect()
    }

    /// Size of the guest's memory now, in bytes.
    pub fn guest_memory_bytes(&self) -> u64 {
        self.fsm.as_ref().map_or(0, |fsm| fsm.memory_bytes())
    }
}
