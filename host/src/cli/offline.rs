//! State that no node runs: a stopped node's directory, a backup; and rehearsals on it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::exit::Failure;
use super::progress::Steps;
use super::upgrade::progress_words;
use crate::config::Config;
use crate::fsm::SharedLoader;
use crate::machine::{Machine, Way};
use crate::rehearsal::{
    Chosen, First, Floor, Plan, Progress, RehearsalError, Report, RetainedLog, Wanted,
    activates_after, choose, compacted, first_difference, last_time_ms, rehearse,
};
use crate::replay::{ReplayError, Replayer};
use crate::server::{backup_loader, open_backup};
use crate::storage::{DataDir, StorageConfig, StorageError, Stores};
use crate::types::{ClusterId, GroupId, Index, NodeId};

/// To draw each entry costs more than to execute most of them.
const STEPS_SHOWN: u64 = 64;

/// What runs guests here, and compiles them as a server does: in processes that may use only so much.
pub(super) fn loader() -> Result<SharedLoader, Failure> {
    backup_loader(&Config::default()).map_err(|error| Failure::new(error.to_string()))
}

/// A node that does not run, locked so that it stays so.
pub(super) struct Stopped {
    /// For people.
    pub(super) name: String,
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    stores: Stores,
    place: PathBuf,
    /// Dropped after the stores that are in it.
    _scratch: tempfile::TempDir,
    _dir: DataDir,
}

impl Stopped {
    pub(super) fn open(path: &Path) -> Result<Stopped, Failure> {
        let storage = |error: StorageError| Failure::new(error.to_string());
        let dir = DataDir::lock_stopped(path).map_err(storage)?;
        let identity = dir.identity().expect("a stopped node's directory has one");
        let scratch = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("no temporary directory: {error}")))?;
        let stores = dir.open_copies(&StorageConfig::default(), scratch.path()).map_err(storage)?;
        let name = format!("node {} ({})", identity.node, path.display());
        let (node, cluster, place) = (identity.node, identity.cluster, path.to_owned());
        Ok(Stopped { name, node, cluster, stores, place, _scratch: scratch, _dir: dir })
    }

    /// Begins with the newest state at or before an index, or the oldest.
    pub(super) fn replayer(
        &self,
        loader: &SharedLoader,
        from: Option<Index>,
    ) -> Result<Replayer, Failure> {
        let (stores, loader) = (self.stores.clone(), Arc::clone(loader));
        let replayer = Replayer::new(stores, self.cluster, GroupId::MAIN, loader, from);
        let mut replayer = replayer.map_err(|error| self.failed(&error))?;
        replayer.look_at(evidence(&self.place.join("evidence"))?);
        Ok(replayer)
    }

    fn failed(&self, error: &ReplayError) -> Failure {
        Failure::new(format!("{}: {error}", self.place.display()))
    }

    /// Rehearses on what the node retains. `wanted` gets the log's clock at the end.
    pub(super) fn rehearse(
        &self,
        candidate: &Candidate,
        wanted: impl FnOnce(u64) -> Wanted,
    ) -> Result<Rehearsed, Failure> {
        let begun = Instant::now();
        let stopwatch = || begun.elapsed();
        let report = self.tried(candidate, wanted, |machine, mut entries, plan, tell| {
            rehearse(machine, &mut entries, plan, &stopwatch, tell)
        })?;
        Ok(self.rehearsed(report, begun))
    }

    /// The same up to the first command that is answered otherwise.
    pub(super) fn first_difference(
        &self,
        candidate: &Candidate,
        wanted: Wanted,
    ) -> Result<(Rehearsed, Option<First>), Failure> {
        let begun = Instant::now();
        let stopwatch = || begun.elapsed();
        let (report, first) = self.tried(
            candidate,
            |_| wanted,
            |machine, mut entries, plan, tell| {
                first_difference(machine, &mut entries, plan, &stopwatch, tell)
            },
        )?;
        Ok((self.rehearsed(report, begun), first))
    }

    fn rehearsed(&self, report: Report, begun: Instant) -> Rehearsed {
        Rehearsed { report, of: self.name.clone(), node: self.node, elapsed: begun.elapsed() }
    }

    /// Tries a module on the range that is wanted, or on so much of it as the active one has executed.
    fn tried<T>(
        &self,
        candidate: &Candidate,
        wanted: impl FnOnce(u64) -> Wanted,
        attempt: impl Fn(
            Machine,
            RetainedLog,
            &Plan,
            &mut dyn FnMut(Progress) -> bool,
        ) -> Result<T, RehearsalError>,
    ) -> Result<T, Failure> {
        let loader = loader()?;
        let reach = Replayer::reach(&self.stores, GroupId::MAIN);
        let (oldest, last) = reach.map_err(|error| self.failed(&error))?;
        let mut floor = Floor { state: oldest, activated: None };
        let refused = |error| refused(&error);
        let log = &self.stores.log;
        let now_ms = last_time_ms(&**log, GroupId::MAIN, oldest, last).map_err(refused)?;
        let wanted = wanted(now_ms.unwrap_or(0));
        loop {
            let chosen = choose(&self.stores, GroupId::MAIN, floor, last, wanted);
            let Chosen { base, until, short } = chosen.map_err(refused)?;
            if let Some(more) = &short
                && (wanted.names_its_base() || !self.activates_after(oldest, last)?)
            {
                return Err(self.compacted(oldest, more));
            }
            let machine = self.replayer(&loader, Some(base))?.into_machine();
            let entries = RetainedLog::new(Arc::clone(log), GroupId::MAIN, last);
            let steps = Steps::begin("rehearsing");
            let mut tell = |progress: Progress| {
                let Progress { index, until, commands, differences } = progress;
                if index.0.is_multiple_of(STEPS_SHOWN) {
                    let done = index.0.saturating_sub(base.0);
                    steps.say(done, until.0 - base.0, progress_words(commands, differences));
                }
                true
            };
            match attempt(machine, entries, &candidate.plan(base, until), &mut tell) {
                // Another module executed the beginning.
                Err(RehearsalError::ActiveSince { since })
                    if since > oldest && !wanted.names_its_base() =>
                {
                    floor.activated = Some(since);
                }
                Err(error) => return Err(refused(error)),
                Ok(found) => {
                    if let Some(more) = &short {
                        return Err(self.compacted(oldest, more));
                    }
                    return Ok(found);
                }
            }
        }
    }
}

impl Stopped {
    /// Whether another module may have been active when that state was stored.
    fn activates_after(&self, oldest: Index, last: Index) -> Result<bool, Failure> {
        let found = activates_after(&*self.stores.log, GroupId::MAIN, oldest, last);
        found.map_err(|error| refused(&error))
    }

    fn compacted(&self, oldest: Index, wanted: &str) -> Failure {
        let error = compacted(&self.stores, GroupId::MAIN, oldest, wanted.to_owned());
        refused(&error.unwrap_or_else(|unreadable| unreadable))
    }
}

/// A module that is to be tried.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) module: Bytes,
    pub(super) label: String,
    pub(super) way: Way,
    pub(super) queries: Vec<Bytes>,
    /// See [`Plan::classes`].
    pub(super) classes: Vec<String>,
}

impl Candidate {
    fn plan(&self, base: Index, until: Index) -> Plan {
        let Candidate { module, label, way, queries, classes } = self.clone();
        Plan { base, until, module, label, way, queries, classes }
    }
}

/// What a rehearsal here found.
pub(super) struct Rehearsed {
    pub(super) report: Report,
    /// Whose state it was, for people.
    pub(super) of: String,
    pub(super) node: NodeId,
    pub(super) elapsed: Duration,
}

/// Restores a backup: whose state it is, for people, the node that made it, and the machine.
pub(super) fn restored(path: &Path) -> Result<(String, NodeId, Machine), Failure> {
    let failed = |error: &dyn Display| Failure::new(format!("{} {error}", path.display()));
    let reader = open_backup(path).map_err(|error| Failure::new(error.to_string()))?;
    let (node, index) = (reader.facts().node, reader.facts().position.index);
    let machine = reader.restore(loader()?).map_err(|error| failed(&error))?;
    Ok((format!("the backup {} of index {index}", path.display()), node, machine))
}

/// Rehearses without any command: migration, queries and checks.
pub(super) fn rehearse_state(
    (of, node, machine): (String, NodeId, Machine),
    candidate: &Candidate,
) -> Result<Rehearsed, Failure> {
    let begun = Instant::now();
    let at = machine.applied_index();
    let plan = candidate.plan(at, at);
    let stopwatch = || begun.elapsed();
    let report = rehearse(machine, &mut NoEntries, &plan, &stopwatch, &mut |_| true);
    let report = report.map_err(|error| refused(&error))?;
    Ok(Rehearsed { report, of, node, elapsed: begun.elapsed() })
}

struct NoEntries;

impl crate::rehearsal::Entries for NoEntries {
    fn entry(&mut self, index: Index) -> Result<crate::types::LogEntry, RehearsalError> {
        Err(RehearsalError::BeyondEnd { until: index, last: index })
    }
}

fn refused(error: &RehearsalError) -> Failure {
    match error {
        RehearsalError::NoClasses(_) | RehearsalError::UnknownClass { .. } => {
            Failure::usage(format!("--allow: {error}"))
        }
        _ => Failure::new(error.to_string()),
    }
}

/// The quarantined states that a node kept, by the index of their last entry.
fn evidence(dir: &Path) -> Result<BTreeMap<Index, PathBuf>, Failure> {
    let unreadable =
        |path: &Path, error: &dyn Display| Failure::new(format!("{}: {error}", path.display()));
    let places = match std::fs::read_dir(dir) {
        Ok(places) => places,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(dir, &error)),
    };
    let mut found = BTreeMap::new();
    for place in places {
        let place = place.map_err(|error| unreadable(dir, &error))?.path();
        // One that a crash left half written is not evidence.
        if place.extension().is_some() {
            continue;
        }
        let report = place.join("report.json");
        let text = std::fs::read(&report).map_err(|error| unreadable(&report, &error))?;
        let text: Value =
            serde_json::from_slice(&text).map_err(|error| unreadable(&report, &error))?;
        let index = text["state_index"]
            .as_u64()
            .ok_or_else(|| unreadable(&report, &"it has no state_index"))?;
        found.insert(Index(index), place.join("state.snapshot"));
    }
    Ok(found)
}
