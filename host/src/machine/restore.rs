//! Reading a machine's snapshot: nothing in it is believed before it is checked.

use std::io::{self, Read};
use std::sync::Arc;

use raft_host_proto::stored;

use super::access::{self, Access};
use super::convert;
use super::core::{Machine, State};
use super::incarnation::ORIGINS_MAX;
use super::keys::{KEYS_MAX, Keys, signatures_from_log};
use super::level::{self, Unsupported};
use super::membership::Membership;
use super::modules::{At, HISTORY_MAX, Modules, Sizes, StoredModule, UPLOADS_MAX, Upload};
use super::past::Past;
use super::receipts::{RECEIPTS_MAX, Receipt};
use super::records::{self, StreamReader};
use super::reply::ActivationInfo;
use super::sessions::{
    CommandHash, Owner, RestoredResponse, RestoredSession, RestoredWaiting, Sessions,
};
use super::snapshot::{END, MAGIC, VERSION};
use crate::fsm::{
    Context, EngineProfile, Fsm, HostFailure, ImageError, Limits, ModuleRefused, SharedLoader,
};
use crate::museum::{self, Exhibit};
use crate::signing::PublicKey;
use crate::types::{
    Actor, ActorName, ClusterId, GroupId, Index, JoinNonce, Level, Member, ModuleHash, NodeId,
    Origin, Position, StateDigest,
};

/// Longest header: bounds memory, far above any real one.
const HEADER_MAX_BYTES: usize = 64 << 20;
/// Longest other record but a session's: likewise.
const SMALL_MAX_BYTES: usize = 64 << 10;
/// More than what encoding adds to a session and to each of its responses.
const SESSION_OVERHEAD_BYTES: u64 = 1024;
const RESPONSE_OVERHEAD_BYTES: u64 = 64;
/// More modules than any version ever kept at once.
const MODULES_MAX: u64 = 64;

/// Why a snapshot cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The reader failed.
    #[error("reading the snapshot: {0}")]
    Io(#[source] io::Error),
    /// The bytes are damaged, or not a machine's snapshot.
    #[error("the snapshot is damaged or not a snapshot: {0}")]
    Invalid(String),
    /// Written by a version with another format.
    #[error(
        "the snapshot has format version {found} and this version of raft-host reads \
         {supported}: run the version that wrote it"
    )]
    Version {
        /// In the snapshot.
        found: u32,
        /// What this version reads.
        supported: u32,
    },
    /// It belongs to another cluster.
    #[error("the snapshot is of cluster {found}, this node belongs to cluster {expected}")]
    WrongCluster {
        /// This node's.
        expected: ClusterId,
        /// The snapshot's.
        found: ClusterId,
    },
    /// It belongs to another group.
    #[error("the snapshot is of group {found}, expected one of group {expected}")]
    WrongGroup {
        /// The group to be restored.
        expected: GroupId,
        /// The snapshot's.
        found: GroupId,
    },
    /// This program cannot go on where the snapshot ends.
    #[error("{0}{way_on}", way_on = way_on(.0))]
    Program(Unsupported),
    /// The active module, which the cluster once accepted, is not accepted here.
    #[error("this node refuses the snapshot's active module {hash}: {reason}")]
    Module {
        /// The module.
        hash: ModuleHash,
        /// Why.
        reason: ModuleRefused,
    },
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

/// What an operator can do.
fn way_on(unsupported: &Unsupported) -> String {
    let other = match unsupported {
        Unsupported::Engine(engine) => format!(
            ". If this is the version that the cluster is to move to, start the one from before \
             again and change the profile there: raft-host engine set {}",
            engine.offered
        ),
        Unsupported::Level { .. } => {
            "; a level is never lowered, so no older version can take this data over".to_owned()
        }
    };
    format!(
        ". To go on, start a version of raft-host that offers the former on this data directory{other}"
    )
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> RestoreError {
        match error.kind() {
            io::ErrorKind::InvalidData => RestoreError::Invalid(error.to_string()),
            io::ErrorKind::UnexpectedEof => RestoreError::Invalid("it ends too early".to_owned()),
            _ => RestoreError::Io(error),
        }
    }
}

impl Machine {
    /// Reads what [`super::MachineSnapshot::write_to`] wrote, up to the end of `input`. The
    /// machine goes on exactly as the captured one did.
    ///
    /// # Errors
    ///
    /// See [`RestoreError`].
    pub fn restore(
        input: &mut dyn Read,
        cluster: ClusterId,
        group: GroupId,
        loader: SharedLoader,
    ) -> Result<Machine, RestoreError> {
        let header = read_header(input)?;
        check_owner(&header, cluster, group)?;
        let mut state = state_from_header(&header, cluster, group, &loader)?;
        loader.supports(&state.engine).map_err(|engine| RestoreError::Program(engine.into()))?;
        // What follows may hold what only that level's programs know.
        if !museum::is_on(Exhibit::UnknownFieldIgnored) {
            level::check(state.level, &*loader).map_err(RestoreError::Program)?;
        }
        read_sessions(input, &header, &mut state)?;
        read_modules(input, &header, &mut state)?;
        let fsm = match state.modules.active() {
            Some(active) => Some(read_image(input, &state, active.hash, &loader)?),
            None => None,
        };
        state.read_kept(input, &header, &loader)?;
        if records::read_record(input, END.len())? != END {
            return Err(invalid("its end is not where it should be"));
        }
        if input.take(1).read_to_end(&mut Vec::new())? != 0 {
            return Err(invalid("there are more bytes after its end"));
        }
        Ok(Machine::assemble(state, fsm, loader))
    }
}

/// Reads what comes before everything of variable number.
pub(super) fn read_header(input: &mut dyn Read) -> Result<stored::SnapshotHeader, RestoreError> {
    read_magic(input)?;
    Ok(records::read_message(input, HEADER_MAX_BYTES)?)
}

fn read_magic(input: &mut dyn Read) -> Result<(), RestoreError> {
    let (mut magic, mut version) = ([0; 8], [0; 4]);
    input.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid("it does not begin with the mark of a raft-host machine"));
    }
    input.read_exact(&mut version)?;
    match u32::from_le_bytes(version) {
        VERSION => Ok(()),
        found => Err(RestoreError::Version { found, supported: VERSION }),
    }
}

fn check_owner(
    header: &stored::SnapshotHeader,
    cluster: ClusterId,
    group: GroupId,
) -> Result<(), RestoreError> {
    let found = ClusterId::try_from(header.cluster_id.as_ref())
        .map_err(|error| invalid(format!("cluster id: {error}")))?;
    if found != cluster {
        return Err(RestoreError::WrongCluster { expected: cluster, found });
    }
    if header.group != group.0 {
        return Err(RestoreError::WrongGroup { expected: group, found: GroupId(header.group) });
    }
    Ok(())
}

fn state_from_header(
    header: &stored::SnapshotHeader,
    cluster: ClusterId,
    group: GroupId,
    loader: &SharedLoader,
) -> Result<State, RestoreError> {
    let limits = header.limits.as_ref().ok_or_else(|| invalid("it has no limits"))?;
    let sessions = header.session_limits.as_ref();
    let sessions = sessions.ok_or_else(|| invalid("it has no limits of sessions"))?;
    Ok(State {
        cluster,
        group,
        applied: Index(header.applied_index),
        time_ms: header.time_ms,
        past: match museum::is_on(Exhibit::PastNotRestored) {
            true => Past::default(),
            false => StateDigest::try_from(&header.past[..])
                .map_err(|error| invalid(format!("its running hash: {error}")))?
                .into(),
        },
        limits: match museum::is_on(Exhibit::LimitsNotRestored) {
            true => Limits::default(),
            false => convert::limits_from_record(limits),
        },
        engine: match header.engine.as_str() {
            _ if museum::is_on(Exhibit::EngineNotRestored) => loader.engine(),
            text => EngineProfile::parse(text)
                .map_err(|error| invalid(format!("its engine profile {text:?}: {error}")))?,
        },
        level: match header.level {
            0 => return Err(invalid("it has no level")),
            level => Level(level),
        },
        membership: membership(header)?,
        sessions: Sessions::new(convert::session_limits_from_record(sessions)),
        modules: Modules {
            history: Arc::new(history(header)?),
            previous: match header.previous_module.as_ref() {
                [] => None,
                hash => Some(module_hash(hash)?),
            },
            ..Modules::default()
        },
        origins: Arc::new(origins(header)?),
        keys: Keys::from_record(header.keys.as_ref())
            .map_err(|error| invalid(format!("its keys: {error}")))?,
        access: Arc::new(match &header.access {
            Some(record) if !museum::is_on(Exhibit::AccessNotInSnapshot) => {
                access::from_record(record, Index(header.applied_index))
                    .map_err(|error| invalid(format!("who may do what: {error}")))?
            }
            _ => Access::default(),
        }),
        receipts: Arc::new(receipts(header)?),
        rules_changed_at: match header.rules_changed_at {
            index if index > header.applied_index => {
                return Err(invalid("limits that were changed after its end"));
            }
            index => Index(index),
        },
        kept: None,
        fork: None,
    })
}

fn receipts(header: &stored::SnapshotHeader) -> Result<Vec<Receipt>, RestoreError> {
    if header.receipts.len() > RECEIPTS_MAX {
        return Err(invalid("it holds too many receipts"));
    }
    let mut receipts: Vec<Receipt> = Vec::with_capacity(header.receipts.len());
    for stored::SnapshotReceipt { index, receipt } in &header.receipts {
        let receipt = receipt.as_ref().ok_or_else(|| invalid("a receipt that says nothing"))?;
        let receipt = Receipt::from_log(Index(*index), receipt).map_err(invalid)?;
        let is_first = receipts.last().is_none_or(|before| before.index < receipt.index);
        if !is_first || *index > header.applied_index {
            return Err(invalid("its receipts are out of order"));
        }
        receipts.push(receipt);
    }
    Ok(receipts)
}

fn actor(record: Option<&stored::Actor>) -> Result<Actor, RestoreError> {
    access::actor_from_log(record).map_err(invalid)
}

pub(super) fn origins(header: &stored::SnapshotHeader) -> Result<Vec<Origin>, RestoreError> {
    if header.origins.len() > ORIGINS_MAX {
        return Err(invalid("it came through too many backups"));
    }
    let read = header.origins.iter().map(convert::origin_from_record);
    read.collect::<Result<_, _>>().map_err(|error| invalid(format!("what it came from: {error}")))
}

fn membership(header: &stored::SnapshotHeader) -> Result<Membership, RestoreError> {
    let conf_state = header.conf_state.as_ref();
    let conf_state = conf_state.ok_or_else(|| invalid("it has no configuration"))?;
    let mut membership =
        Membership { highest_id: NodeId(header.highest_node_id), ..Membership::default() };
    let members = header
        .members
        .iter()
        .map(|member| Member { id: NodeId(member.id), address: member.address.clone() });
    membership.set(members, convert::conf_state_from_record(conf_state));
    for member in header.members.iter().filter(|member| !member.join_nonce.is_empty()) {
        let nonce = JoinNonce::try_from(&member.join_nonce[..])
            .map_err(|error| invalid(format!("the nonce of node {}: {error}", member.id)))?;
        membership.joins.insert(NodeId(member.id), nonce);
    }
    if membership.members.len() != header.members.len() {
        return Err(invalid("its members contradict its configuration"));
    }
    if membership.highest_id != NodeId(header.highest_node_id) {
        return Err(invalid("a member has an id above the highest one"));
    }
    Ok(membership)
}

pub(super) fn history(
    header: &stored::SnapshotHeader,
) -> Result<Vec<ActivationInfo>, RestoreError> {
    if header.history.len() > HISTORY_MAX {
        return Err(invalid("its history of activations is too long"));
    }
    let mut before = 0;
    let mut history = Vec::with_capacity(header.history.len());
    for activation in &header.history {
        if activation.index <= before || activation.index > header.applied_index {
            return Err(invalid("its history of activations is out of order"));
        }
        before = activation.index;
        history.push(ActivationInfo {
            index: Index(activation.index),
            hash: module_hash(&activation.module_hash)?,
            time_ms: activation.time_ms,
            label: activation.label.clone(),
            signers: signers(activation)?,
            actor: actor(activation.actor.as_ref())?,
            actor_name: match activation.actor_name.as_str() {
                "" => ActorName::NONE,
                name => name.parse().map_err(|error| invalid(format!("who acted: {error}")))?,
            },
        });
    }
    if museum::is_on(Exhibit::ActivationRedated)
        && let Some(active) = history.last_mut()
    {
        active.index = Index(header.applied_index);
    }
    Ok(history)
}

fn signers(activation: &stored::SnapshotActivation) -> Result<Vec<PublicKey>, RestoreError> {
    if activation.signers.len() > KEYS_MAX {
        return Err(invalid("an activation has too many signers"));
    }
    let read = activation.signers.iter().map(|key| PublicKey::from_bytes(key));
    read.collect::<Result<_, _>>().map_err(|error| invalid(format!("who signed: {error}")))
}

fn read_sessions(
    input: &mut dyn Read,
    header: &stored::SnapshotHeader,
    state: &mut State,
) -> Result<(), RestoreError> {
    let max = session_record_max(state);
    for _ in 0..header.session_count {
        let record: stored::SnapshotSession = records::read_message(input, max)?;
        let mut completed = Vec::with_capacity(record.completed.len());
        for response in record.completed {
            let outcome = response.outcome.unwrap_or_default();
            if convert::outcome_from_record(&outcome).is_none() {
                return Err(invalid(format!("session {} holds no real response", record.id)));
            }
            let command = CommandHash::try_from(&response.command_hash[..]).map_err(|_| {
                invalid(format!("session {} has a response to no command", record.id))
            })?;
            if !museum::is_on(Exhibit::ResponsesNotRestored) {
                let sequence = response.sequence;
                completed.push(RestoredResponse { sequence, command, outcome });
            }
        }
        let mut waiting = Vec::with_capacity(record.waiting.len());
        for stored::SnapshotWaiting { sequence, data, skip, actor: who } in record.waiting {
            waiting.push(RestoredWaiting { sequence, data, skip, actor: actor(who.as_ref())? });
        }
        let session = RestoredSession {
            ttl_ms: record.ttl_ms,
            expires_at_ms: record.expires_at_ms,
            last_used: Index(record.last_used),
            acknowledged: record.acknowledged,
            completed,
            ordered: record.ordered,
            waiting,
            owner: Owner::from_record(record.owner),
        };
        let in_order = record.id <= record.last_used && record.last_used <= header.applied_index;
        if museum::is_on(Exhibit::SessionsNotRestored) {
            continue;
        }
        if !in_order || !state.sessions.restore(record.id, session) {
            return Err(invalid(format!("session {} contradicts itself or others", record.id)));
        }
    }
    Ok(())
}

/// A session keeps its responses within its bounds, save for two: the one that reached the bound,
/// and the one right after the acknowledged number. They may be from a time when longer answers
/// were allowed. What waits in it is within the same bounds, save for the command that reached them.
fn session_record_max(state: &State) -> usize {
    let limits = state.sessions.limits();
    let longest = state.limits.output_max_bytes.max(Limits::OUTPUT_CEILING_BYTES);
    let bytes = SESSION_OVERHEAD_BYTES
        .saturating_add(
            limits.responses_max.saturating_add(2).saturating_mul(2 * RESPONSE_OVERHEAD_BYTES),
        )
        .saturating_add(limits.responses_max_bytes.saturating_mul(2))
        .saturating_add(longest.saturating_mul(2))
        .saturating_add(state.limits.input_max_bytes.max(Limits::INPUT_CEILING_BYTES));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn read_modules(
    input: &mut dyn Read,
    header: &stored::SnapshotHeader,
    state: &mut State,
) -> Result<(), RestoreError> {
    if header.module_count > MODULES_MAX || header.upload_count > UPLOADS_MAX as u64 {
        return Err(invalid("it claims more modules than a machine keeps"));
    }
    let sizes = Sizes::of(&state.limits);
    for _ in 0..header.module_count {
        let record: stored::SnapshotModule = records::read_message(input, SMALL_MAX_BYTES)?;
        let hash = module_hash(&record.hash)?;
        let is_state = record.portable_state;
        let bytes = read_module_bytes(input, record.size_bytes, sizes.max(is_state))?;
        if ModuleHash::of(&bytes) != hash {
            return Err(invalid(format!("the bytes of module {hash} do not match its hash")));
        }
        let module = StoredModule {
            bytes: bytes.into(),
            label: record.label,
            completed_at: Index(record.completed_at),
            ever_activated: record.ever_activated,
            signatures: signatures_from_log(&record.signatures)
                .map_err(|error| invalid(format!("the signatures of module {hash}: {error}")))?,
            is_state,
        };
        state.modules.stored.insert(hash, module);
    }
    for _ in 0..header.upload_count {
        let record: stored::SnapshotUpload = records::read_message(input, SMALL_MAX_BYTES)?;
        let hash = module_hash(&record.hash)?;
        let is_state = record.portable_state;
        let size_max = sizes.max(is_state);
        let mut received = read_module_bytes(input, record.received_bytes, size_max)?;
        if museum::is_on(Exhibit::ChunksNotRestored) {
            received.clear();
        }
        if record.received_bytes >= record.total_bytes || record.total_bytes > size_max {
            return Err(invalid(format!("the sizes of upload {hash} make no sense")));
        }
        let last_chunk = At { index: Index(record.last_chunk_at), time_ms: record.last_chunk_ms };
        let upload = Upload::resume(record.total_bytes, last_chunk, is_state, received);
        state.modules.uploads.insert(hash, upload);
    }
    let distinct = state.modules.stored.len() as u64 == header.module_count
        && state.modules.uploads.len() as u64 == header.upload_count;
    if distinct { Ok(()) } else { Err(invalid("it holds a module twice")) }
}

fn read_module_bytes(input: &mut dyn Read, size: u64, max: u64) -> Result<Vec<u8>, RestoreError> {
    if size > max {
        return Err(invalid(format!("a module of {size} bytes where {max} are allowed")));
    }
    Ok(records::read_blob(input, size)?)
}

pub(super) fn read_image(
    input: &mut dyn Read,
    state: &State,
    hash: ModuleHash,
    loader: &SharedLoader,
) -> Result<Box<dyn Fsm>, RestoreError> {
    let module = state.modules.bytes(hash);
    let module = module.ok_or_else(|| invalid(format!("active module {hash} is missing")))?;
    let position = Position::first(state.applied);
    let context = Context {
        cluster: state.cluster,
        position,
        time_ms: state.time_ms,
        actor: ActorName::NONE,
    };
    let mut fsm = loader
        .instantiate_blank(&module, &state.limits, context)?
        .map_err(|reason| RestoreError::Module { hash, reason })?;
    let mut stream = StreamReader::new(input);
    fsm.load_image(&mut stream).map_err(|error| match error {
        ImageError::Io(error) => error.into(),
        ImageError::Invalid(reason) => {
            invalid(format!("the image of the module's state: {reason}"))
        }
        ImageError::Host(failure) => RestoreError::Host(failure),
    })?;
    stream.finish()?;
    Ok(fsm)
}

pub(super) fn module_hash(bytes: &[u8]) -> Result<ModuleHash, RestoreError> {
    ModuleHash::try_from(bytes).map_err(|error| invalid(format!("module hash: {error}")))
}

pub(super) fn invalid(reason: impl Into<String>) -> RestoreError {
    RestoreError::Invalid(reason.into())
}
