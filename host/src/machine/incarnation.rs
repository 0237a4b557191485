//! How a machine begins in another way than empty: restored from a backup, or with a state that
//! somebody exported.

use std::sync::Arc;

use bytes::Bytes;

use super::calls::{Budget, settle};
use super::core::Machine;
use super::membership::Membership;
use super::modules::{At, CHUNK_MAX_BYTES, Chunk, Modules, Sizes, bounded_label};
use super::reply::{ActivationInfo, Applied, Reply};
use super::sessions::Sessions;
use super::snapshot::MachineSnapshot;
use crate::fsm::{Context, Fsm, HostFailure, ImageError, Pile, SharedLoader, Written};
use crate::museum::{self, Exhibit};
use crate::types::{
    Actor, ActorName, ClusterId, ConfState, Index, LogPosition, Member, ModuleHash, NodeId, Origin,
    Position, Term,
};

/// The log of a restored cluster begins at a multiple of this, above all indexes of the cluster that
/// was backed up: no position, and no session, has the name that another had there.
pub const INCARNATION: u64 = 1_000_000_000_000;
/// Backups that a state remembers it came through; the oldest are forgotten.
pub(super) const ORIGINS_MAX: usize = 64;

/// Why no state can be exported, or imported.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// Nothing runs that has a state.
    #[error("no module is active yet, so there is nothing to export")]
    NoModule,
    /// The guest, or what it may use.
    #[error("{0}")]
    Guest(String),
    /// This host.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

/// A guest's own portable snapshot.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Of the last entry that it contains.
    pub index: Index,
    /// The module that wrote it.
    pub module: ModuleHash,
    /// The module's name, for people.
    pub label: String,
    /// What it wrote.
    pub bytes: Pile,
}

/// What a new cluster is to begin with.
#[derive(Clone, Debug)]
pub struct Import {
    /// Wall clock, in milliseconds since the Unix epoch: the log's clock begins there.
    pub time_ms: u64,
    /// The module that reads the state.
    pub module: Bytes,
    /// The module's name, for people.
    pub label: String,
    /// What some module's `snapshot` wrote.
    pub portable: Bytes,
}

impl Machine {
    /// Makes of a machine that was read from a backup the first of a new cluster with one voter.
    /// Nothing that named the old cluster is known any more: members, sessions, uploads. Who may do what
    /// stays. Returns the
    /// position that the new cluster's log begins after.
    ///
    /// # Errors
    ///
    /// A sentence, when there is no index above the backup's that a log can begin at.
    pub fn reincarnate(
        &mut self,
        cluster: ClusterId,
        founder: Member,
        origin: Origin,
    ) -> Result<LogPosition, String> {
        let LogPosition { index, term } = origin.position;
        let begin = (index.0 / INCARNATION + 1).checked_mul(INCARNATION);
        let begin = begin.ok_or_else(|| format!("no log can begin after entry {index}"))?;
        let position = LogPosition { index: Index(begin), term: Term(term.0 + 1) };
        let state = &mut self.state;
        state.cluster = cluster;
        let voters = [founder.id].into();
        state.membership = Membership::default();
        state.membership.set([founder], ConfState { voters, ..ConfState::default() });
        if !museum::is_on(Exhibit::SessionsReborn) {
            state.sessions = Sessions::new(state.sessions.limits().clone());
        }
        state.modules.uploads.clear();
        // Random numbers are others in another cluster: commands would not come to the same ends again.
        state.kept = None;
        state.forget_fork();
        let origins = Arc::make_mut(&mut state.origins);
        origins.push(origin);
        let forgotten = origins.len().saturating_sub(ORIGINS_MAX);
        origins.drain(..forgotten);
        state.applied = position.index;
        let applied = Applied::without_guest(Reply::Nothing);
        state.past.advance(Position::first(position.index), &applied);
        self.refresh_module_infos();
        Ok(position)
    }

    /// Gives a new machine a module, with a state that some module's `snapshot` wrote.
    ///
    /// # Errors
    ///
    /// The module is refused, or refuses that state.
    ///
    /// # Panics
    ///
    /// If the machine has a module.
    pub fn import(&mut self, import: &Import) -> Result<(), PortableError> {
        assert!(self.fsm.is_none(), "only a new machine can import a state");
        let (index, hash) = (self.state.applied, ModuleHash::of(&import.module));
        self.state.time_ms = import.time_ms;
        let context = self.context(index);
        let fresh = self.loader.instantiate(&import.module, &self.state.limits, context)?;
        let mut fresh = fresh.map_err(|reason| PortableError::Guest(reason.to_string()))?;
        let call = fresh.restore_from(context, import.portable.clone().into())?;
        let budget = Budget::restore(&self.state.limits);
        let mut applied = Applied::without_guest(Reply::Nothing);
        settle("`restore` of the module", budget, call, &mut applied)
            .map_err(PortableError::Guest)?;
        store(&mut self.state.modules, At { index, time_ms: import.time_ms }, &import.module)
            .map_err(PortableError::Guest)?;
        let label = bounded_label(&import.label);
        let activation = ActivationInfo {
            index,
            hash,
            time_ms: import.time_ms,
            label,
            signers: Vec::new(),
            actor: Actor::Nobody,
            actor_name: ActorName::NONE,
        };
        self.state.modules.activate(activation, Vec::new());
        self.fsm = Some(fresh);
        self.refresh_module_infos();
        Ok(())
    }
}

/// Keeps a complete module.
fn store(modules: &mut Modules, at: At, module: &[u8]) -> Result<(), String> {
    let (hash, total) = (ModuleHash::of(module), module.len() as u64);
    for (number, data) in module.chunks(CHUNK_MAX_BYTES).enumerate() {
        let offset = (number * CHUNK_MAX_BYTES) as u64;
        // The limits were asked when it was made to run.
        let part = Chunk { hash, total, offset, data, is_state: false };
        modules.store_chunk(at, part, Sizes { module: total, state: 0 })?;
    }
    Ok(())
}

impl MachineSnapshot {
    /// Has a copy of the guest write its own portable snapshot. The copy takes as much memory as the guest.
    ///
    /// # Errors
    ///
    /// There is no guest, or it cannot.
    pub fn export(&self, loader: &SharedLoader) -> Result<Exported, PortableError> {
        let active = self.state.modules.active().zip(self.image.as_ref());
        let (active, image) = active.ok_or(PortableError::NoModule)?;
        let module = self.state.modules.bytes(active.hash).expect("the active module is kept");
        let limits = &self.state.limits;
        let context = Context {
            cluster: self.state.cluster,
            position: Position::first(self.state.applied),
            time_ms: self.state.time_ms,
            actor: ActorName::NONE,
        };
        let copy = loader.instantiate_blank(&module, limits, context)?;
        let mut copy = copy.map_err(|reason| PortableError::Guest(reason.to_string()))?;
        copy.adopt(&**image).map_err(|error| match error {
            ImageError::Host(failure) => PortableError::Host(failure),
            error => PortableError::Guest(error.to_string()),
        })?;
        let bytes = portable(&mut *copy, context, self)?;
        let (index, module, label) = (self.state.applied, active.hash, active.label.clone());
        Ok(Exported { index, module, label, bytes })
    }

    /// Whose state it is.
    pub fn cluster(&self) -> ClusterId {
        self.state.cluster
    }
}

fn portable(
    copy: &mut dyn Fsm,
    context: Context,
    snapshot: &MachineSnapshot,
) -> Result<Pile, PortableError> {
    let limits = &snapshot.state.limits;
    let budget = Budget::snapshot(limits);
    let mut applied = Applied::without_guest(Reply::Nothing);
    let mut written = Written::kept();
    let call = copy.snapshot_into(context, &mut written)?;
    let settled = settle("`snapshot` of the module", budget, call, &mut applied);
    settled.map_err(PortableError::Guest)?;
    Ok(written.into_pile())
}

/// The only voter of a restored cluster. Ids are those of an incarnation, so they begin again.
pub const FOUNDER: NodeId = NodeId(1);
