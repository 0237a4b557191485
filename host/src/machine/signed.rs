//! Where the machine asks whose signatures a module needs, and where that is changed.

use raft_host_proto::stored;

use super::core::{Machine, unknown_kind};
use super::keys::KeyChange;
use super::reply::{Applied, MachineInfo, Reply};
use crate::fsm::HostFailure;
use crate::signing::ModuleSignature;
use crate::types::{Index, ModuleHash};

impl Machine {
    /// Changes keys and threshold from the next entry on, or refuses and leaves everything as it is.
    pub(super) fn set_keys(
        &mut self,
        index: Index,
        request: &stored::SetKeys,
    ) -> Result<Applied, HostFailure> {
        let mut changes = Vec::with_capacity(request.changes.len());
        for record in &request.changes {
            match KeyChange::from_log(record).ok_or_else(|| unknown_kind(index))? {
                Ok(change) => changes.push(change),
                Err(reason) => return Ok(Applied::without_guest(Reply::KeysRefused(reason))),
            }
        }
        Ok(Applied::without_guest(match self.state.keys.changed(index, &changes) {
            Ok(keys) => {
                self.state.keys = keys.clone();
                Reply::KeysSet(keys)
            }
            Err(reason) => Reply::KeysRefused(reason),
        }))
    }

    /// The signatures of an activation that count, and those that the module was activated with before.
    pub(super) fn check_signed(
        &self,
        module: ModuleHash,
        label: &str,
        signatures: &[ModuleSignature],
    ) -> Result<Vec<ModuleSignature>, String> {
        let known = self.state.modules.stored.get(&module);
        let known = known.map_or(&[][..], |module| &module.signatures);
        let all: Vec<&ModuleSignature> = signatures.iter().chain(known).collect();
        self.state.keys.accept(self.state.cluster, module, label, &all)
    }
}

impl MachineInfo {
    /// Whether an activation under this label would lack signatures, as of now; says what is missing.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn check_signed(
        &self,
        module: ModuleHash,
        label: &str,
        signatures: &[ModuleSignature],
    ) -> Result<(), String> {
        let known = self.modules.iter().find(|held| held.hash == module);
        let known = known.map_or(&[][..], |held| &held.signatures);
        let all: Vec<&ModuleSignature> = signatures.iter().chain(known).collect();
        self.keys.accept(self.cluster, module, label, &all).map(drop)
    }
}
