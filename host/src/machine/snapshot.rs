//! A machine's snapshot, and the bytes it is written as.
//!
//! ```text
//!   magic            8 bytes  "RFHMACHN"
//!   version          u32      2
//!   header           record   SnapshotHeader: position, clock, limits, engine, level, members, …
//!   sessions         records  SnapshotSession, ascending by id
//!   modules          each     SnapshotModule, then a stream with its bytes; ascending by hash
//!   uploads          each     SnapshotUpload, then a stream with the bytes so far; likewise
//!   image            stream   of the active module's instance; left out when there is none
//!   way back         stream   image of the state that is kept, then its commands: SnapshotExecuted;
//!                             left out when the header has none
//!   fork             likewise
//!   end              record   "end"
//! ```
//!
//! Records and streams: see `records.rs`. The same state makes the same bytes on every replica.

use std::io::{self, Write};
use std::ops::Range;

use raft_host_proto::stored;

use super::core::State;
use super::kept::Kept;
use super::keys::signature_to_log;
use super::receipts::Receipt;
use super::reply::ActivationInfo;
use super::sessions::{Owner, Session};
use super::{access, convert, records};
use crate::fsm::Image;
use crate::museum::{self, Exhibit};
use crate::types::{ConfState, Index, ModuleHash};

pub(super) const MAGIC: [u8; 8] = *b"RFHMACHN";
pub(super) const VERSION: u32 = 2;
pub(super) const END: &[u8] = b"end";

/// Everything that a machine held at one index, detached from it.
pub struct MachineSnapshot {
    pub(super) state: State,
    /// Present exactly when a module is active.
    pub(super) image: Option<Box<dyn Image>>,
}

impl MachineSnapshot {
    /// Index of the last entry that it contains.
    pub fn applied_index(&self) -> Index {
        self.state.applied
    }

    /// The configuration at that index.
    pub fn conf_state(&self) -> &ConfState {
        &self.state.membership.conf_state
    }

    /// Ranges of the guest's memory, in bytes, in which another snapshot of the same module
    /// differs; ascending.
    pub fn differing_memory(&self, other: &MachineSnapshot) -> Vec<Range<u64>> {
        match (&self.image, &other.image) {
            (Some(ours), Some(theirs)) => ours.differing_memory(&**theirs),
            _ => Vec::new(),
        }
    }

    /// Writes it in the format that [`super::Machine::restore`] reads.
    ///
    /// # Errors
    ///
    /// Those of `out`, and of the image.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        records::write_message(out, &header(&self.state))?;
        for (id, session) in self.state.sessions.iter() {
            records::write_message(out, &session_record(id, session))?;
        }
        self.write_modules(out)?;
        if let Some(image) = &self.image {
            let mut stream = records::StreamWriter::new(out);
            image.write_to(&mut stream)?;
            stream.finish()?;
        }
        if let Some(kept) = &self.state.kept {
            write_kept(out, kept)?;
        }
        if let Some(fork) = &self.state.fork {
            write_kept(out, &fork.kept)?;
        }
        records::write_record(out, END)
    }

    fn write_modules(&self, out: &mut dyn Write) -> io::Result<()> {
        for (hash, module) in &self.state.modules.stored {
            let record = stored::SnapshotModule {
                hash: hash_bytes(*hash),
                label: module.label.clone(),
                completed_at: module.completed_at.0,
                ever_activated: module.ever_activated,
                size_bytes: module.bytes.len() as u64,
                signatures: module.signatures.iter().map(signature_to_log).collect(),
                portable_state: module.is_state,
            };
            records::write_message(out, &record)?;
            records::write_blob(out, &module.bytes)?;
        }
        for (hash, upload) in &self.state.modules.uploads {
            let record = stored::SnapshotUpload {
                hash: hash_bytes(*hash),
                total_bytes: upload.total,
                last_chunk_at: upload.last_chunk.index.0,
                received_bytes: upload.received().len() as u64,
                last_chunk_ms: upload.last_chunk.time_ms,
                portable_state: upload.is_state,
            };
            records::write_message(out, &record)?;
            records::write_blob(out, upload.received())?;
        }
        Ok(())
    }
}

fn write_kept(out: &mut dyn Write, kept: &Kept) -> io::Result<()> {
    let mut stream = records::StreamWriter::new(out);
    kept.image.write_to(&mut stream)?;
    stream.finish()?;
    if museum::is_on(Exhibit::KeptNotInSnapshot) {
        return Ok(());
    }
    for executed in kept.commands.iter() {
        records::write_message(out, &executed.to_record())?;
    }
    Ok(())
}

pub(super) fn header(state: &State) -> stored::SnapshotHeader {
    let members = &state.membership.members;
    stored::SnapshotHeader {
        cluster_id: state.cluster.0.to_vec().into(),
        group: state.group.0,
        applied_index: state.applied.0,
        time_ms: state.time_ms,
        limits: Some(convert::limits_to_record(&state.limits)),
        session_limits: Some(convert::session_limits_to_record(state.sessions.limits())),
        members: members
            .values()
            .map(|member| stored::SnapshotMember {
                id: member.id.0,
                address: member.address.clone(),
                join_nonce: state
                    .membership
                    .joins
                    .get(&member.id)
                    .map(|nonce| bytes::Bytes::copy_from_slice(&nonce.0))
                    .unwrap_or_default(),
            })
            .collect(),
        conf_state: Some(convert::conf_state_to_record(&state.membership.conf_state)),
        highest_node_id: state.membership.highest_id.0,
        history: state.modules.history.iter().map(activation_record).collect(),
        previous_module: state.modules.previous.map(hash_bytes).unwrap_or_default(),
        session_count: state.sessions.len(),
        module_count: state.modules.stored.len() as u64,
        upload_count: state.modules.uploads.len() as u64,
        engine: state.engine.as_str().to_owned(),
        past: state.past.digest().0.to_vec().into(),
        level: state.level.0,
        origins: state.origins.iter().map(convert::origin_to_record).collect(),
        keys: state.keys.to_record(),
        access: access::to_record(&state.access),
        receipts: state.receipts.iter().map(Receipt::to_record).collect(),
        rules_changed_at: state.rules_changed_at.0,
        kept: state.kept.as_ref().map(|kept| kept.to_record(None)),
        fork: state.fork.as_ref().map(|fork| fork.kept.to_record(Some(fork.next))),
    }
}

fn activation_record(activation: &ActivationInfo) -> stored::SnapshotActivation {
    stored::SnapshotActivation {
        index: activation.index.0,
        module_hash: hash_bytes(activation.hash),
        time_ms: activation.time_ms,
        label: activation.label.clone(),
        signers: activation.signers.iter().map(|key| key.to_bytes().to_vec().into()).collect(),
        actor: access::actor_to_log(activation.actor),
        actor_name: activation.actor_name.as_str().to_owned(),
    }
}

fn session_record(id: u64, session: &Session) -> stored::SnapshotSession {
    stored::SnapshotSession {
        id,
        ttl_ms: session.ttl_ms,
        expires_at_ms: session.expires_at_ms,
        last_used: session.last_used.0,
        acknowledged: session.acknowledged,
        completed: session
            .completed
            .iter()
            .map(|(sequence, response)| stored::SnapshotResponse {
                sequence: *sequence,
                outcome: Some(response.outcome.clone()),
                command_hash: bytes::Bytes::copy_from_slice(&response.command),
            })
            .collect(),
        ordered: session.ordered,
        waiting: session
            .waiting
            .iter()
            .map(|(sequence, waiting)| stored::SnapshotWaiting {
                sequence: *sequence,
                data: waiting.data.clone(),
                skip: waiting.is_skip(),
                actor: access::actor_to_log(waiting.actor),
            })
            .collect(),
        owner: session.owner.map_or(0, Owner::to_record),
    }
}

fn hash_bytes(hash: ModuleHash) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&hash.0)
}
