//! The modules that a machine holds, beside its commands.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored::{self, entry::Body};

use crate::machine::{Machine, ModuleInfo, Reply, bounded_label};
use crate::types::ModuleHash;

/// What an activation makes active, for people.
pub(super) fn module_name(entry: &Bytes) -> String {
    let Ok(stored::Entry { body: Some(Body::ActivateModule(activate)), .. }) =
        stored::Entry::decode(&entry[..])
    else {
        return String::new();
    };
    match ModuleHash::try_from(&activate.module_hash[..]) {
        Ok(hash) if activate.label.is_empty() => hash.short(),
        _ => bounded_label(&activate.label),
    }
}

/// The modules that the machine holds.
pub(super) fn held(machine: &Machine) -> BTreeMap<ModuleHash, Bytes> {
    let bytes = |module: &ModuleInfo| Some((module.hash, machine.module_bytes(module.hash)?));
    machine.info().modules.iter().filter_map(bytes).collect()
}

/// Whether the machine may hold other modules after this answer, or run them otherwise.
pub(super) fn may_be_others(reply: &Reply) -> bool {
    match reply {
        Reply::ChunkStored { received, total } => received == total,
        Reply::Activated { .. } | Reply::LimitsSet { .. } => true,
        _ => false,
    }
}
