//! The modules that a machine holds, beside its commands.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored::{self, entry::Body};

use crate::fsm::SharedLoader;
use crate::machine::{Machine, ModuleInfo, bounded_label};
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

/// Compiles the modules that the machine holds beside its commands, so that an activation need not
/// wait.
pub(super) fn prepare(machine: &Machine, loader: &SharedLoader) {
    let info = machine.info();
    let unprepared = |module: &&ModuleInfo| !loader.is_prepared(module.hash, &info.limits);
    let missing: Vec<Bytes> = info
        .modules
        .iter()
        .filter(unprepared)
        .filter_map(|module| machine.module_bytes(module.hash))
        .collect();
    if missing.is_empty() {
        return;
    }
    let (loader, limits) = (Arc::clone(loader), info.limits.clone());
    let spawned = std::thread::Builder::new().name("module-compiler".into()).spawn(move || {
        for bytes in missing {
            // Only a head start: activation checks again and says what is wrong.
            if let Err(error) = loader.check(&bytes, &limits) {
                tracing::warn!(%error, "compiling a module ahead of its activation failed");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to compile a module ahead of its activation");
    }
}
