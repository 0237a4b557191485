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

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module};

use super::unchecked;
use crate::types::ModuleHash;

const MAGIC: &[u8; 8] = b"RHGCWASM";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 8 + 4 + 32 + 32 + 8 + 32;

/// Ends the names of files with compiled code.
const SUFFIX: &str = ".compiled";
/// Begins the names of files that are being written.
const WRITING: &str = "writing-";
/// Modules that were compiled here and that nobody holds yet, perhaps never: a check comes before
/// the module is given to the cluster.
const UNHELD_MAX: usize = 2;

/// A directory of compiled modules. It is one process's.
pub(super) struct CompiledCache {
    directory: PathBuf,
    /// The latest that were compiled in this process, oldest first.
    latest: Mutex<VecDeque<ModuleHash>>,
}

impl CompiledCache {
    /// Creates the directory if it does not exist.
    pub(super) fn open(directory: PathBuf) -> io::Result<CompiledCache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let cache = CompiledCache { directory, latest: Mutex::default() };
        // Left by a process that died.
        cache.delete(|name| name.starts_with(WRITING));
        Ok(cache)
    }

    /// Deletes the code of all modules but these and the latest few.
    pub(super) fn retain(&self, modules: &[ModuleHash]) {
        let kept: Vec<String> = {
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            modules.iter().chain(&*latest).map(ToString::to_string).collect()
        };
        self.delete(|name| {
            let module = name.strip_suffix(SUFFIX).and_then(|name| name.split('-').next());
            module.is_some_and(|module| !kept.iter().any(|kept| kept == module))
        });
    }

    /// Deletes files by name. What cannot be deleted stays: it costs space and nothing else.
    fn delete(&self, unwanted: impl Fn(&str) -> bool) {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                let path = self.directory.display();
                return tracing::warn!(%path, %error, "cannot list compiled code");
            }
        };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let is_unwanted =
                path.file_name().and_then(|name| name.to_str()).is_some_and(&unwanted);
            if is_unwanted && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete compiled code");
            }
        }
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
        {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.retain(|other| *other != module);
            latest.push_back(module);
            if latest.len() > UNHELD_MAX {
                latest.pop_front();
            }
        }
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
            let mut file = tempfile::Builder::new().prefix(WRITING).tempfile_in(&self.directory)?;
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
        self.directory.join(format!("{module}-{profile}{SUFFIX}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_deleted_but_for_the_latest_few() {
        let directory = tempfile::tempdir().expect("created");
        let engine = Engine::default();
        let compiled = Module::from_binary(&engine, b"\0asm\x01\0\0\0").expect("it is sound");
        let (profile, other_profile) = ([1; 32], [2; 32]);
        let module = |number: u8| ModuleHash([number; 32]);
        let torn = directory.path().join(format!("{WRITING}abc"));
        fs::write(&torn, "half").expect("written");
        let cache = CompiledCache::open(directory.path().to_owned()).expect("opened");
        assert!(!torn.exists(), "a process that died left it");
        for number in 1..=5 {
            cache.store(&profile, module(number), &compiled);
        }
        cache.store(&other_profile, module(1), &compiled);
        let foreign = directory.path().join("notes.txt");
        fs::write(&foreign, "somebody's").expect("written");
        let there = |cache: &CompiledCache, number| cache.path(&profile, module(number)).exists();

        cache.retain(&[module(2)]);
        let left: Vec<u8> = (1..=5).filter(|number| there(&cache, *number)).collect();
        assert_eq!(left, [1, 2, 5], "1 and 5 are the latest, 2 is held");
        assert!(foreign.exists(), "it is none of ours");

        let cache = CompiledCache::open(directory.path().to_owned()).expect("opened");
        cache.retain(&[module(2)]);
        let left: Vec<u8> = (1..=5).filter(|number| there(&cache, *number)).collect();
        assert_eq!(left, [2], "after a restart nothing is on its way");
        assert!(cache.load(&engine, &profile, module(2)).is_some());
    }
}
