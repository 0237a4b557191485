//! Beginning a cluster with a state from a file: a backup, or what a guest has exported.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::ServeError;
use super::home::{EmptyHome, place};
use super::intent::Intent;
use super::plugin::Plugin;
use super::release;
use crate::backup::{BackupError, BackupFacts, BackupReader, wall_clock_ms};
use crate::config::Config;
use crate::fsm::SharedLoader;
use crate::machine::{FOUNDER, Import, Machine, PortableError};
use crate::node;
use crate::storage::DataDir;
use crate::transport::Identity;
use crate::types::{ClusterId, GroupId, LogPosition, Member};
use crate::wasm::CompiledModules;

/// Why a backup is not restored. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFailure {
    /// The file is not there, or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file cannot be used.
    #[error("{} {error}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: BackupError,
    },
    /// Somebody's data is there.
    #[error(
        "{place} holds a node's data already, and a backup is restored into an empty directory only: \
         give another --data-dir (nothing was changed)"
    )]
    Used {
        /// The data directory.
        place: String,
    },
    /// There is no place for it.
    #[error("{0}")]
    Impossible(String),
    /// The data directory.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A cluster that a backup has become.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub facts: BackupFacts,
    /// The new cluster.
    pub cluster: ClusterId,
    /// What its log begins after.
    pub position: LogPosition,
    /// Its only voter.
    pub founder: Member,
    /// Rights are in force there, as in the backup, so that nodes and clients need certificates.
    pub rights_in_force: bool,
}

/// Opens a backup, of whatever is in front of the reader.
pub(crate) fn open_backup(path: &Path) -> Result<BackupReader<BufReader<File>>, RestoreFailure> {
    let unreadable = |source| RestoreFailure::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    BackupReader::open(BufReader::with_capacity(1 << 20, file))
        .map_err(|error| RestoreFailure::Backup { path: path.to_owned(), error })
}

/// What restores backups: this program as a server.
pub(crate) fn backup_loader(config: &Config) -> Result<SharedLoader, ServeError> {
    Ok(release::loader(None, &CompiledModules::by_children(config.compiler.clone()))?)
}

/// Makes of a backup a new cluster of one voter, which begins when a server is started with the data
/// directory. Blocks, and needs the stack that guests do.
///
/// # Errors
/// See [`RestoreFailure`].
pub fn restore(config: &Config, path: &Path) -> Result<Restored, RestoreFailure> {
    let founder = Member { id: FOUNDER, address: config.advertised_or_listened() };
    crate::types::check_address(&founder.address).map_err(|error| {
        let words = format!("{} cannot be dialled: {error}; give --advertise", founder.address);
        RestoreFailure::Impossible(words)
    })?;
    if !config.storage_engine.unwrap_or_default().is_durable() {
        let words = "the storage engine keeps nothing, so there is nothing to restore into";
        return Err(RestoreFailure::Impossible(words.to_owned()));
    }
    let reader = open_backup(path)?;
    refuse_used(config)?;
    let facts = reader.facts().clone();
    let unusable = |error| RestoreFailure::Backup { path: path.to_owned(), error };
    let mut machine = reader.restore(backup_loader(config)?).map_err(unusable)?;
    let cluster = ClusterId(rand::random());
    let origin = facts.origin(machine.time_ms());
    let position = machine
        .reincarnate(cluster, founder.clone(), origin)
        .map_err(RestoreFailure::Impossible)?;
    found(config, cluster, position, &mut machine)?;
    let rights_in_force = machine.info().access.is_in_force();
    Ok(Restored { facts, cluster, position, founder, rights_in_force })
}

fn refuse_used(config: &Config) -> Result<(), RestoreFailure> {
    if !DataDir::is_some_nodes(&config.data_dir) {
        return Ok(());
    }
    let place = place(config);
    match Intent::peek(&config.data_dir)? {
        Some(Intent::Found) => Err(ServeError::HalfFounded { place }.into()),
        _ => Err(RestoreFailure::Used { place }),
    }
}

fn found(
    config: &Config,
    cluster: ClusterId,
    position: LogPosition,
    machine: &mut Machine,
) -> Result<(), ServeError> {
    let empty = EmptyHome::lock(config)?;
    empty.found(config, (cluster, position), machine, None).map(drop)
}

/// The state that a new cluster's plugin is to begin with, from a file.
#[derive(Clone, Debug)]
pub(super) struct Portable {
    path: PathBuf,
    bytes: Bytes,
}

impl Portable {
    /// Reads the file, if the limits allow that much.
    pub(super) fn read(path: &Path, max: u64) -> Result<Portable, ServeError> {
        let unreadable = |source| ServeError::Io {
            action: format!("reading the state {}", path.display()),
            source,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        let (path, length) = (path.to_owned(), bytes.len() as u64);
        if length > max {
            let reason = format!(
                "it has more than the {max} bytes that limits.snapshot_max_bytes allows: set that \
                 in the configuration file"
            );
            return Err(ServeError::ImportRefused { path, reason });
        }
        Ok(Portable { path, bytes: bytes.into() })
    }

    /// The machine of a new cluster that begins with this state. Slow: off the runtime's threads, on a
    /// stack that guests can run on.
    pub(super) fn machine(
        self,
        plugin: &Plugin,
        identity: &Identity,
        config: &Config,
        loader: SharedLoader,
    ) -> Result<Machine, ServeError> {
        let limits = config.limits.clone();
        let mut machine = node::first_machine(identity, GroupId::MAIN, limits, loader);
        if let Some(admin) = config.founding_admin() {
            machine.bootstrap_access(admin);
        }
        let import = Import {
            time_ms: wall_clock_ms(),
            module: plugin.bytes.clone(),
            label: plugin.label.clone(),
            portable: self.bytes,
        };
        match machine.import(&import) {
            Ok(()) => Ok(machine),
            Err(PortableError::Host(failure)) => Err(failure.into()),
            Err(error) => {
                Err(ServeError::ImportRefused { path: self.path, reason: error.to_string() })
            }
        }
    }
}
