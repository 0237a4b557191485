//! Making a new cluster of what a survivor holds, in its own data directory.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ServeError;
use super::home::EmptyHome;
use super::restore::backup_loader;
use crate::backup::wall_clock_ms;
use crate::config::Config;
use crate::fsm::SharedLoader;
use crate::machine::{FOUNDER, Machine};
use crate::recovery::{Document, Found, InspectError, Place, Plan, Survivor, Watch, inspect};
use crate::replay::{ReplayError, Replayer};
use crate::storage::{DataDir, StorageConfig, StorageError, Succession, write_atomically};
use crate::types::{ClusterId, GroupId, LogPosition, Member, Origin, StateDigest, check_address};

/// What became of a plan, in the new data directory.
const OUTCOME_FILE: &str = "RECOVERED";

/// See [`OUTCOME_FILE`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    plan: Plan,
    cluster: ClusterId,
    /// What the new log begins after.
    position: Place,
    founder: Member,
}

impl Document for Outcome {
    const KIND: &'static str = "recovery";
}

/// Why nothing was recovered, or why what was recovered is not right. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum RecoverFailure {
    /// The directory cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The plan is for another directory.
    #[error(
        "the plan is to make a new cluster of node {} of cluster {}, and {place} is {found}: apply it where \
         that node's data is ({})",
        .chosen.node, .chosen.cluster, .chosen.data_dir
    )]
    OtherNode {
        /// The directory.
        place: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        chosen: Box<Survivor>,
    },
    /// It is not what it was when the plan was made.
    #[error(
        "{place} is not as it was when it was inspected: it held entries up to {} of term {}, and now holds \
         some up to {} of term {}. Was the node started? Inspect the nodes that are left again, and make \
         another plan",
        .then.last.index, .then.last.term, .now.last.index, .now.last.term
    )]
    Changed {
        /// The directory.
        place: String,
        /// As inspected.
        then: Box<Survivor>,
        /// As found.
        now: Box<Survivor>,
    },
    /// It was never applied here.
    #[error("the plan {id} was not applied to {place}: nothing in it says so")]
    NotApplied {
        /// The directory.
        place: String,
        /// The plan.
        id: String,
    },
    /// The new cluster's state is another one.
    #[error(
        "{place} does not hold what the plan promised: the state has the digest {found}, and what is kept in \
         {} leads to {expected}. Do not start it; delete it, and make a plan with another node",
        aside.display()
    )]
    Wrong {
        /// The directory.
        place: String,
        /// Where the old contents are.
        aside: PathBuf,
        /// What they lead to.
        expected: StateDigest,
        /// What is there.
        found: StateDigest,
    },
    /// The node has gone on.
    #[error(
        "the state that {place} began with is not there any more: the node has run and taken others; this is \
         compared before it is started"
    )]
    MovedOn {
        /// The directory.
        place: String,
    },
    /// There is no place for it.
    #[error("{0}")]
    Impossible(String),
    /// A state cannot be computed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The data directory.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file besides.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// A cluster that a survivor has become.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The new cluster.
    pub cluster: ClusterId,
    /// What its log begins after.
    pub position: LogPosition,
    /// Its only voter.
    pub founder: Member,
    /// Where the old contents of the directory are.
    pub aside: PathBuf,
    /// It had been done before.
    pub was_done: bool,
}

/// Looks at the directory of a node that does not run. Blocks, and needs the stack that guests do.
///
/// # Errors
/// See [`RecoverFailure`].
pub fn inspect_dir(path: &Path, watch: Watch<'_>) -> Result<Survivor, RecoverFailure> {
    let dir = DataDir::lock_stopped(path)?;
    Ok(look(&dir, &loader()?, watch)?.survivor)
}

/// Makes a new cluster of one voter of the directory that the plan chose, which begins when a server is
/// started with it. `address`: the voter's [default: the one that it had]. What was there is kept beside it.
/// Interrupted, it goes on when it is called again; called again after that, it says what it has done.
/// Blocks, and needs the stack that guests do.
///
/// # Errors
/// See [`RecoverFailure`].
pub fn recover(
    path: &Path,
    plan: &Plan,
    address: Option<String>,
    watch: Watch<'_>,
) -> Result<Recovered, RecoverFailure> {
    let mut succession = Succession::begin(path, &plan.id)?;
    if succession.is_done() {
        return recovered(&succession, &plan.id, true);
    }
    if succession.wants_contents() {
        refuse_other(succession.dir(), plan)?;
        let loader = loader()?;
        let Found { survivor, mut machine } = look(succession.dir(), &loader, watch)?;
        if !plan.chosen.is_unchanged(&survivor) {
            let (then, now) = (Box::new(plan.chosen.clone()), Box::new(survivor));
            return Err(RecoverFailure::Changed { place: place(path), then, now });
        }
        let founder = Member { id: FOUNDER, address: founders_address(plan, address)? };
        let engine = succession.dir().identity().expect("its node was compared").engine;
        let fresh = succession.fresh()?;
        let config = Config {
            data_dir: fresh.clone(),
            advertise: Some(founder.address.clone()),
            storage_engine: Some(engine),
            ..Config::default()
        };
        let cluster = ClusterId(rand::random());
        let position = reincarnate(&mut machine, cluster, founder.clone(), plan)?;
        let empty = EmptyHome::lock(&config)?;
        drop(empty.found(&config, (cluster, position), &mut machine, None)?);
        let outcome = Outcome { plan: plan.clone(), cluster, position: position.into(), founder };
        write_atomically(&fresh.join(OUTCOME_FILE), outcome.to_text().as_bytes())?;
    }
    succession.complete()?;
    let done = Succession::begin(path, &plan.id)?;
    recovered(&done, &plan.id, false)
}

/// Whether the directory holds what the plan promised: computes the state once more from what was kept, and
/// compares it with the state that the new cluster begins with. Changes nothing. Blocks, and needs the stack that
/// guests do.
///
/// # Errors
/// See [`RecoverFailure`].
pub fn verify(
    path: &Path,
    plan: &Plan,
    watch: Watch<'_>,
) -> Result<(Recovered, StateDigest), RecoverFailure> {
    let done = Succession::begin(path, &plan.id)?;
    if !done.is_done() {
        return Err(RecoverFailure::NotApplied { place: place(path), id: plan.id.clone() });
    }
    let loader = loader()?;
    let recovered = recovered(&done, &plan.id, true)?;
    let Recovered { cluster, position, ref founder, ref aside, .. } = recovered;
    let mut expected = {
        let kept = DataDir::lock_stopped(aside)?;
        refuse_other(&kept, plan)?;
        let Found { survivor, machine } = look(&kept, &loader, watch)?;
        if !plan.chosen.is_unchanged(&survivor) {
            let (then, now) = (Box::new(plan.chosen.clone()), Box::new(survivor));
            return Err(RecoverFailure::Changed { place: place(aside), then, now });
        }
        machine
    };
    reincarnate(&mut expected, cluster, founder.clone(), plan)?;
    let expected = digest(&mut expected, position)?;
    let scratch = scratch()?;
    let stores = done.dir().open_copies(&StorageConfig::default(), scratch.path())?;
    let began = stores.snapshots.list(GroupId::MAIN)?;
    if !began.iter().any(|meta| meta.index == position.index) {
        return Err(RecoverFailure::MovedOn { place: place(path) });
    }
    let from = Some(position.index);
    let mut replayer = Replayer::new(stores, cluster, GroupId::MAIN, loader, from)?;
    let found = replayer.digest()?;
    if found != expected {
        let (place, aside) = (place(path), aside.clone());
        return Err(RecoverFailure::Wrong { place, aside, expected, found });
    }
    Ok((recovered, found))
}

fn reincarnate(
    machine: &mut Machine,
    cluster: ClusterId,
    founder: Member,
    plan: &Plan,
) -> Result<LogPosition, RecoverFailure> {
    let origin = Origin {
        cluster: plan.chosen.cluster,
        position: plan.chosen.last.into(),
        time_ms: machine.time_ms(),
    };
    machine.reincarnate(cluster, founder, origin).map_err(RecoverFailure::Impossible)
}

fn digest(machine: &mut Machine, at: LogPosition) -> Result<StateDigest, ReplayError> {
    let taken = machine.take_digest(at.index);
    taken.map(|taken| taken.digest).map_err(|source| ReplayError::Host { index: at.index, source })
}

/// What a succession that is done has led to, as the directory says.
fn recovered(done: &Succession, id: &str, was_done: bool) -> Result<Recovered, RecoverFailure> {
    let path = done.dir().path();
    let not_applied = || RecoverFailure::NotApplied { place: place(path), id: id.to_owned() };
    let outcome = Outcome::read(&path.join(OUTCOME_FILE)).map_err(|error| {
        tracing::debug!(%error, "what became of it is not there");
        not_applied()
    })?;
    let identity = done.dir().identity().ok_or_else(not_applied)?;
    if outcome.plan.id != id || outcome.cluster != identity.cluster {
        return Err(not_applied());
    }
    let (cluster, founder) = (outcome.cluster, outcome.founder);
    let aside = done.aside();
    Ok(Recovered { cluster, position: outcome.position.into(), founder, aside, was_done })
}

fn look(dir: &DataDir, loader: &SharedLoader, watch: Watch<'_>) -> Result<Found, RecoverFailure> {
    Ok(inspect(dir, loader, scratch()?.path(), wall_clock_ms(), watch)?)
}

fn refuse_other(dir: &DataDir, plan: &Plan) -> Result<(), RecoverFailure> {
    let chosen = &plan.chosen;
    let found = match dir.identity() {
        Some(identity) if (identity.cluster, identity.node) == (chosen.cluster, chosen.node) => {
            return Ok(());
        }
        Some(identity) => format!("that of node {} of cluster {}", identity.node, identity.cluster),
        None => "nobody's".to_owned(),
    };
    let chosen = Box::new(chosen.clone());
    Err(RecoverFailure::OtherNode { place: place(dir.path()), found, chosen })
}

fn founders_address(plan: &Plan, given: Option<String>) -> Result<String, RecoverFailure> {
    let chosen = &plan.chosen;
    let known = || {
        let member = chosen.members.iter().find(|member| member.id == chosen.node);
        member.map(|member| member.address.clone())
    };
    let address = given.or_else(known).ok_or_else(|| {
        let words = format!(
            "node {} is no member by what it holds, so its address is not known",
            chosen.node
        );
        RecoverFailure::Impossible(format!("{words}; give --advertise"))
    })?;
    check_address(&address).map_err(|error| {
        let words = format!("{address} cannot be dialled: {error}; give --advertise");
        RecoverFailure::Impossible(words)
    })?;
    Ok(address)
}

fn loader() -> Result<SharedLoader, ServeError> {
    backup_loader(&Config::default())
}

fn scratch() -> Result<tempfile::TempDir, RecoverFailure> {
    tempfile::tempdir().map_err(|source| RecoverFailure::Io {
        action: "making a temporary directory (TMPDIR)".to_owned(),
        source,
    })
}

fn place(path: &Path) -> String {
    path.display().to_string()
}
