//! Compiled code on disk: a cache, never a source of truth. Whatever is wrong with it costs a
//! compilation and a warning, nothing else.
//!
//! ```text
//! magic "RHGCWASM" · version u32 · profile [32] · module [32] · code length u64
//! · SHA-256 of the code [32] · code
//! ```
//!
//! The checksum guards against damage, not against malice: who can write into the directory
//! can run code as the host. It is created for its owner only.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module};

use super::unchecked;
use crate::types::ModuleHash;

const MAGIC: &[u8; 8] = b"RHGCWASM";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 8 + 4 + 32 + 32 + 8 + 32;

/// A directory of compiled modules.
pub(super) struct CompiledCache {
    directory: PathBuf,
}

impl CompiledCache {
    /// Creates the directory if it does not exist.
    pub(super) fn open(directory: PathBuf) -> io::Result<CompiledCache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(CompiledCache { directory })
    }

    /// The compiled module, if it is there and sound. What is unsound is deleted.
    pub(super) fn load(
        &self,
        engine: &Engine,
        profile: &[u8; 32],
        module: ModuleHash,
    ) -> Option<Module> {
        let path = self.path(profile, module);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read compiled code");
                }
                return None;
            }
        };
        let loaded = check(&bytes, profile, module).and_then(|code| {
            unchecked::load_compiled(engine, code).map_err(|error| format!("{error:#}"))
        });
        match loaded {
            Ok(module) => Some(module),
            Err(reason) => {
                tracing::warn!(
                    path = %path.display(), reason, "discarding unusable compiled code"
                );
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot delete it");
                }
                None
            }
        }
    }

    /// Keeps a compiled module for the next start.
    pub(super) fn store(&self, profile: &[u8; 32], module: ModuleHash, compiled: &Module) {
        let path = self.path(profile, module);
        if let Err(error) = self.try_store(&path, profile, module, compiled) {
            tracing::warn!(path = %path.display(), error, "cannot keep compiled code");
        }
    }

    /// Keeps it if it is not here: it came from elsewhere.
    pub(super) fn complete(&self, profile: &[u8; 32], module: ModuleHash, compiled: &Module) {
        if !self.path(profile, module).exists() {
            self.store(profile, module, compiled);
        }
    }

    fn try_store(
        &self,
        path: &Path,
        profile: &[u8; 32],
        module: ModuleHash,
        compiled: &Module,
    ) -> Result<(), String> {
        let code = compiled.serialize().map_err(|error| format!("{error:#}"))?;
        let write = || -> io::Result<()> {
            // Visible under its name only when complete. Not synced: after a crash the
            // checksum tells.
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(MAGIC)?;
            file.write_all(&VERSION.to_le_bytes())?;
            file.write_all(profile)?;
            file.write_all(&module.0)?;
            file.write_all(&(code.len() as u64).to_le_bytes())?;
            file.write_all(&Sha256::digest(&code))?;
            file.write_all(&code)?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| error.to_string())
    }

    fn path(&self, profile: &[u8; 32], module: ModuleHash) -> PathBuf {
        let profile = ModuleHash(*profile).short();
        self.directory.join(format!("{module}-{profile}.compiled"))
    }
}

/// The code within a cache file, or what is wrong with the file.
fn check<'a>(bytes: &'a [u8], profile: &[u8; 32], module: ModuleHash) -> Result<&'a [u8], String> {
    let (head, code) = bytes.split_at_checked(HEAD_BYTES).ok_or("it is truncated")?;
    let expected = [
        (&MAGIC[..], "it is no file of compiled code"),
        (&VERSION.to_le_bytes()[..], "its version is unknown"),
        (&profile[..], "it was compiled for another engine profile"),
        (&module.0[..], "it belongs to another module"),
        (&(code.len() as u64).to_le_bytes()[..], "its length is wrong"),
        (&Sha256::digest(code)[..], "its checksum is wrong"),
    ];
    let mut rest = head;
    for (value, otherwise) in expected {
        rest = rest.strip_prefix(value).ok_or(otherwise)?;
    }
    Ok(code)
}
