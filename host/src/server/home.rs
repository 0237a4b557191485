//! Where a node's data lives: a locked data directory, or nothing but memory.

use std::path::{Path, PathBuf};

use super::ServeError;
use super::intent::Intent;
use crate::config::Config;
use crate::machine::{FOUNDER, Machine};
use crate::node;
use crate::storage::{DataDir, Engine, NodeIdentity, Stores};
use crate::types::{ClusterId, GroupId, Index, LogPosition, NodeId};

const LOCK_FILE: &str = "LOCK";

/// A node's stores, and the lock on them. Outlives the node.
pub struct Home {
    stores: Stores,
    engine: Engine,
    /// `None` for a node in memory.
    dir: Option<DataDir>,
}

/// A data directory that no node owns yet, locked; or none, for a node in memory.
pub struct EmptyHome {
    dir: Option<DataDir>,
    /// It did not exist before.
    created: bool,
}

impl EmptyHome {
    /// A directory that is nobody's.
    pub fn on(dir: DataDir) -> EmptyHome {
        EmptyHome { dir: Some(dir), created: false }
    }

    /// Locks the directory, creating it if it is missing. Blocks.
    pub(super) fn lock(config: &Config) -> Result<EmptyHome, ServeError> {
        if !config.storage_engine.unwrap_or_default().is_durable() {
            return Ok(EmptyHome { dir: None, created: false });
        }
        let created = !config.data_dir.exists();
        Ok(EmptyHome { dir: Some(DataDir::lock(&config.data_dir)?), created })
    }

    /// Makes it a node's, and says what the node has yet to do. Blocks.
    ///
    /// # Errors
    /// Those of the data directory.
    pub fn initialize(
        self,
        config: &Config,
        intent: &Intent,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Home, ServeError> {
        let engine = config.storage_engine.unwrap_or_default();
        let Some(mut dir) = self.dir else {
            let stores = Stores::without_directory(engine, &config.storage)?;
            return Ok(Home { stores, engine, dir: None });
        };
        intent.write(&dir)?;
        dir.initialize(NodeIdentity { cluster, node, engine })?;
        Ok(Home { stores: dir.open_stores(&config.storage)?, engine, dir: Some(dir) })
    }

    /// Makes it that of the first node of a cluster that begins with a state. Interrupted before its end, it says so
    /// at the next start. `left`: what the node has yet to do then. Blocks.
    ///
    /// # Errors
    /// Those of the data directory, or the state cannot be written.
    pub fn found(
        self,
        config: &Config,
        (cluster, position): (ClusterId, LogPosition),
        machine: &mut Machine,
        left: Option<&Intent>,
    ) -> Result<Home, ServeError> {
        let home = self.initialize(config, &Intent::Found, cluster, FOUNDER)?;
        node::found(home.stores(), GroupId::MAIN, position, machine)?;
        match left {
            Some(intent) => home.intend(intent)?,
            None => home.intent_done()?,
        }
        Ok(home)
    }

    /// Leaves things as they were found.
    pub(super) fn abandon(self) {
        let Some(dir) = self.dir.filter(|_| self.created) else { return };
        let path = dir.path().to_owned();
        drop(dir);
        // What is left of it is harmless: the next start takes it for an empty directory.
        let _ = std::fs::remove_file(path.join(LOCK_FILE));
        let _ = std::fs::remove_dir(&path);
    }
}

impl Home {
    /// Locks the data directory if it is some node's. Changes nothing. Blocks.
    pub(super) fn owned(config: &Config) -> Result<Option<(DataDir, NodeIdentity)>, ServeError> {
        if !DataDir::is_some_nodes(&config.data_dir) {
            return Ok(None);
        }
        let dir = DataDir::lock(&config.data_dir)?;
        if let Some(engine) = config.storage_engine {
            dir.expect(None, None, engine)?;
        }
        let identity = dir.identity();
        Ok(identity.map(|identity| (dir, identity)))
    }

    /// Opens the stores of a directory that is some node's, and says what its last start has left to do. Blocks.
    ///
    /// # Errors
    /// Those of the data directory, or what it has left to do cannot be read.
    pub fn open(
        config: &Config,
        dir: DataDir,
        identity: NodeIdentity,
    ) -> Result<(Home, Option<Intent>), ServeError> {
        let intent = Intent::read(&dir)?;
        let stores = dir.open_stores(&config.storage)?;
        Ok((Home { stores, engine: identity.engine, dir: Some(dir) }, intent))
    }

    /// What the node keeps its data in.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    pub(super) fn dir(&self) -> Option<&DataDir> {
        self.dir.as_ref()
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.dir.as_ref().map(DataDir::path)
    }

    /// Whether the stores hold nothing at all.
    pub(super) fn is_empty(&self) -> Result<bool, ServeError> {
        let group = GroupId::MAIN;
        Ok(self.stores.snapshots.list(group)?.is_empty()
            && self.stores.log.last_index(group)? == Index(0))
    }

    /// Says what the start has left to do from now on. Blocks.
    pub(super) fn intend(&self, intent: &Intent) -> Result<(), ServeError> {
        self.dir().map_or(Ok(()), |dir| intent.write(dir))
    }

    /// Nothing is left of what the start set out to do. Blocks.
    ///
    /// # Errors
    /// Those of the data directory: the next start looks at it again.
    pub fn intent_done(&self) -> Result<(), ServeError> {
        self.dir().map_or(Ok(()), Intent::done)
    }

    /// Where a state that went wrong is kept.
    pub(super) fn evidence_dir(&self) -> Option<PathBuf> {
        self.path().map(|path| path.join("evidence"))
    }

    /// Where compiled modules are kept.
    pub(super) fn compiled_dir(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(DataDir::module_cache_dir)
    }
}

/// The data directory in the words of a message.
pub(super) fn place(config: &Config) -> String {
    match config.storage_engine {
        Some(engine) if !engine.is_durable() => engine.to_string(),
        _ => config.data_dir.display().to_string(),
    }
}
