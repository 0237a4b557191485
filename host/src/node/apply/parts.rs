//! What an apply loop is made of.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use tokio::sync::watch;

use super::trust::Trust;
use crate::fsm::SharedLoader;
use crate::machine::Machine;
use crate::node::ahead::AheadBoard;
use crate::node::answer::MachineView;
use crate::node::clock::LogClock;
use crate::node::compilations::Compilations;
use crate::node::message::{EventSender, Job, SaveJob};
use crate::node::metrics::NodeMetrics;
use crate::node::roster::Roster;
use crate::node::stop::StopSignal;
use crate::node::work::Jobs;
use crate::storage::{SnapshotMeta, SnapshotStore};
use crate::types::{ClusterId, GroupId};

/// See the module.
pub(in crate::node) struct ApplyParts {
    pub(in crate::node) cluster: ClusterId,
    pub(in crate::node) group: GroupId,
    pub(in crate::node) machine: Option<Machine>,
    /// The snapshot that it is of.
    pub(in crate::node) snapshot: Option<SnapshotMeta>,
    pub(in crate::node) loader: SharedLoader,
    pub(in crate::node) compilations: Arc<Compilations>,
    pub(in crate::node) ahead: Arc<AheadBoard>,
    pub(in crate::node) snapshots: Arc<dyn SnapshotStore>,
    pub(in crate::node) jobs: Receiver<Job>,
    /// The other end of the same queue.
    pub(in crate::node) own_jobs: Sender<Job>,
    pub(in crate::node) events: EventSender,
    pub(in crate::node) saver: Sender<SaveJob>,
    pub(in crate::node) roster: Arc<Roster>,
    pub(in crate::node) view: watch::Sender<Option<Arc<MachineView>>>,
    pub(in crate::node) trust: Trust,
    pub(in crate::node) log_clock: Arc<LogClock>,
    /// Compile modules that have become complete before they are activated.
    pub(in crate::node) compile_ahead: bool,
    /// Answer queries on a thread of their own while an activation runs.
    pub(in crate::node) beside: bool,
    pub(in crate::node) stop: StopSignal,
    pub(in crate::node) metrics: Arc<NodeMetrics>,
    pub(in crate::node) work: Jobs,
}
