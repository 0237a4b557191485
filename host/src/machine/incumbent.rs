//! Which module is active, and since when.

use std::fmt;

use raft_host_proto::stored;

use crate::types::{Index, ModuleHash};

/// A module that is active, and since when. To go back to a module makes another incumbent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incumbent {
    /// The module.
    pub hash: ModuleHash,
    /// Index of its activation.
    pub activated_at: Index,
}

impl Incumbent {
    /// As entries name it.
    pub fn to_log(self) -> stored::Incumbent {
        stored::Incumbent {
            module_hash: self.hash.0.to_vec().into(),
            activated_at: self.activated_at.0,
        }
    }

    /// As entries name it.
    ///
    /// # Errors
    /// The hash is none.
    pub fn from_log(wire: &stored::Incumbent) -> Result<Incumbent, String> {
        let hash = module_hash(&wire.module_hash)?;
        Ok(Incumbent { hash, activated_at: Index(wire.activated_at) })
    }
}

impl fmt::Display for Incumbent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {} since index {}", self.hash.short(), self.activated_at)
    }
}

pub(super) fn module_hash(bytes: &[u8]) -> Result<ModuleHash, String> {
    ModuleHash::try_from(bytes)
        .map_err(|_| format!("a module's hash has 32 bytes, this one has {}", bytes.len()))
}
