//! The plugin that a server is started with.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::ServeError;
use crate::audit::{Audit, Event};
use crate::fsm::{FsmLoader, Limits};
use crate::node::{NodeHandle, Upgrade, UpgradeFailure};
use crate::signing::{ModuleSignature, SignatureFile};
use crate::types::ModuleHash;

/// A plugin's bytes, as read from a file.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    pub(super) path: PathBuf,
    pub(super) bytes: Bytes,
    pub(super) hash: ModuleHash,
    /// Name of the file without directory and extension.
    pub(super) label: String,
}

impl Plugin {
    /// Reads the file; of one that is too long only so much that the check sees it.
    pub(super) fn read(path: &Path, limits: &Limits) -> Result<Plugin, ServeError> {
        let unreadable = |source| ServeError::PluginUnreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(limits.module_max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let label = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(Plugin {
            path: path.to_owned(),
            hash: ModuleHash::of(&bytes),
            bytes: bytes.into(),
            label: label.unwrap_or_default(),
        })
    }

    /// Checks it as a cluster would. Slow: off the runtime's threads.
    pub(super) async fn check(
        &self,
        loader: Arc<dyn FsmLoader>,
        limits: Limits,
    ) -> Result<(), ServeError> {
        let bytes = self.bytes.clone();
        tokio::task::spawn_blocking(move || loader.check(&bytes, &limits)).await??.map_err(
            |refused| ServeError::PluginRefused {
                path: self.path.clone(),
                reason: refused.to_string(),
            },
        )
    }

    /// Makes it the module of a cluster that has none yet.
    pub(super) async fn activate(
        &self,
        handle: &NodeHandle,
        audit: Option<&Audit>,
    ) -> Result<(), ServeError> {
        let upgrade = Upgrade {
            module: self.bytes.clone(),
            label: self.label.clone(),
            signatures: self.signatures(handle).await?,
            ..Upgrade::default()
        };
        match handle.upgrade(upgrade).await {
            Ok(upgraded) => {
                tracing::info!(
                    plugin = %self.path.display(), hash = %self.hash.short(),
                    index = %upgraded.index, "the plugin is active"
                );
                if let Some(audit) = audit {
                    let what = format!("{:?} {}", self.label, self.hash);
                    let event = Event::of_node("modules.activate", "start", what);
                    audit.note(Event { index: Some(upgraded.index.0), ..event }, None);
                }
                Ok(())
            }
            Err(UpgradeFailure::Refused(refused)) => Err(ServeError::PluginRefused {
                path: self.path.clone(),
                reason: refused.to_string(),
            }),
            Err(failure) => Err(ServeError::PluginNotActivated {
                path: self.path.clone(),
                reason: failure.to_string(),
            }),
        }
    }

    /// Those in the file beside it, where the cluster asks for some.
    async fn signatures(&self, handle: &NodeHandle) -> Result<Vec<ModuleSignature>, ServeError> {
        let view = handle.machine().borrow().clone();
        let file = SignatureFile::beside(&self.path);
        if view.is_none_or(|view| view.info.keys.threshold() == 0) || !file.exists() {
            return Ok(Vec::new());
        }
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || SignatureFile::read(&path)).await?;
        let read = read.map_err(|error| ServeError::PluginNotActivated {
            path: self.path.clone(),
            reason: format!("{}: {error}", file.display()),
        })?;
        // There may be those of an earlier build.
        let of_it = read.signatures.into_iter().filter(|signed| signed.module == self.hash);
        Ok(of_it.map(|signed| signed.signature).collect())
    }
}
