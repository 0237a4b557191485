//! What all services share, and the search for the leader.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::MAIN_GROUP;
use raft_host_proto::v1::Reason;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::config::ApiConfig;
use super::failure::Failure;
use super::forward::Forwarder;
use super::freshness::Freshness;
use super::process::ProcessFacts;
use super::traffic::Traffic;
use crate::audit::Audit;
use crate::autopilot::AutopilotBoard;
use crate::backup::BackupBoard;
use crate::consensus::Role;
use crate::node::{Budget, Leadership, NodeHandle, ProposeFailure};
use crate::storage::ScrubBoard;
use crate::tls::{NodeDialer, Tls};
use crate::types::{Member, NodeId};

/// What the node itself does not know or do: facts for the status page, and what is written down.
#[derive(Clone)]
pub struct NodeInfo {
    /// Version of raft-host.
    pub version: String,
    /// Name of the log store.
    pub storage: String,
    /// Measures the data directory. May block; 0 when there is none.
    pub data_dir_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Measures the process. May block.
    pub process: Arc<dyn Fn() -> ProcessFacts + Send + Sync>,
    /// Log lines of guests that were too many.
    pub guest_lines_dropped: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Bytes that wait to be sent, by peer.
    pub peer_queues: Arc<dyn Fn() -> BTreeMap<NodeId, u64> + Send + Sync>,
    /// What comes in is counted here, and shown from here.
    pub traffic: Arc<Traffic>,
    /// What is spoken on its ports, if that is TLS.
    pub tls: Option<Arc<Tls>>,
    /// Makes connections to other nodes.
    pub dialer: NodeDialer,
    /// What it says of the backups that it takes by itself, if it does.
    pub backups: Option<Arc<BackupBoard>>,
    /// What the cluster may do by itself about its members, and what this node has done of that.
    pub autopilot: Arc<AutopilotBoard>,
    /// Where it is noted who changed what, if anywhere.
    pub audit: Option<Arc<Audit>>,
    /// What it says of its looks at its own disk, if it takes any.
    pub scrubs: Option<Arc<ScrubBoard>>,
    /// Writes down that this cluster is meant to be: see
    /// [`NodeHandle::begin_probation`]. May block.
    pub confirm: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeInfo")
            .field("version", &self.version)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

/// How much of a name that is none an error repeats.
const GROUP_QUOTE_CHARS: usize = 64;

/// Shared by the services of one port.
pub(super) struct Context {
    pub(super) handle: NodeHandle,
    pub(super) config: ApiConfig,
    pub(super) info: NodeInfo,
    pub(super) forwarder: Forwarder,
    pub(super) freshness: Freshness,
    /// For commands of streams without an answer.
    pub(super) pending: Budget,
    /// For answers of streams that have not left.
    pub(super) answers: Budget,
    /// For the one copy of the state that may be made at a time.
    pub(super) copying: Arc<Semaphore>,
    /// For the one rehearsal that this node may lead at a time.
    pub(super) rehearsing: Arc<Semaphore>,
    /// The server takes no new calls and long-lived ones should end.
    pub(super) stopping: CancellationToken,
}

/// Where a request for the leader goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Here,
    There(Member),
    /// Nobody leads, or nobody knows where.
    Nowhere,
}

/// What may be done about a request whose leader was replaced before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Ask the next leader: doing it twice is doing it once.
    Harmless,
    /// Give up, without knowing what became of it.
    Harmful,
}

/// Another leader was elected, and the one that was asked has not answered.
struct Replaced;

/// Shortest and longest pause before the leader is looked for again.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

impl Context {
    /// Only the main group is served today.
    pub(super) fn check_group(&self, group: &str) -> Result<(), Failure> {
        if group.is_empty() || group == MAIN_GROUP {
            return Ok(());
        }
        let name: String = group.chars().take(GROUP_QUOTE_CHARS).collect();
        Err(Failure::none(
            Reason::NoSuchGroup,
            format!(
                "there is no group {name:?}: this cluster has {MAIN_GROUP:?} only, also called \"\""
            ),
        ))
    }

    /// Returns when this node has applied all that is committed by now.
    pub(super) async fn after_all_committed(&self) -> Result<(), Failure> {
        let began = Instant::now();
        match tokio::time::timeout(self.election_patience(), self.handle.barrier()).await {
            Ok(passed) => {
                passed?;
                self.freshness.note(began);
                Ok(())
            }
            Err(_) => {
                let words = "no leader confirmed that it leads: look at `raft-host status`";
                Err(Failure::none(Reason::NoLeader, words))
            }
        }
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.config.request_timeout_ms)
    }

    /// How long a leader may be missing before requests fail: it takes up to two election
    /// timeouts to notice that one is gone, and as long to agree on another.
    pub(super) fn election_patience(&self) -> Duration {
        Duration::from_millis(self.handle.config().election_ms.saturating_mul(4))
    }

    pub(super) fn route(&self) -> Route {
        self.route_for(&self.handle.leadership().borrow())
    }

    pub(super) fn route_for(&self, leadership: &Leadership) -> Route {
        match &leadership.leader {
            _ if leadership.role == Role::Leader => Route::Here,
            Some(leader)
                if leader.id != self.handle.identity().node && !leader.address.is_empty() =>
            {
                Route::There(leader.clone())
            }
            _ => Route::Nowhere,
        }
    }

    /// How long a leader that was replaced may still answer: it has applied what the next one
    /// commits after a heartbeat, if it is well.
    pub(super) fn grace(&self, again: Again) -> Duration {
        let config = self.handle.config();
        Duration::from_millis(match again {
            Again::Harmless => config.heartbeat_ms.saturating_mul(2),
            Again::Harmful => config.election_ms,
        })
    }

    /// Awaits the answer of a leader, but not for long when another one is elected meanwhile.
    async fn while_it_leads<T>(
        &self,
        asked: &Member,
        again: Again,
        answer: impl Future<Output = T>,
    ) -> Result<T, Replaced> {
        let mut leadership = self.handle.leadership();
        let replaced = async {
            let is_other =
                |now: &Leadership| now.leader.as_ref().is_some_and(|leader| leader.id != asked.id);
            if leadership.wait_for(is_other).await.is_err() {
                // This node has stopped; the answer may still come.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.grace(again)).await;
        };
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            () = replaced => Err(Replaced),
        }
    }

    /// Does something that only the leader can do: here, or by passing it on. What surely did
    /// not happen is tried again, until the leader is found or patience ends.
    pub(super) async fn on_leader<T, H, HF, R, RF>(
        &self,
        caller: &Caller,
        patience: Duration,
        here: H,
        there: R,
    ) -> Result<T, Failure>
    where
        H: Fn() -> HF,
        HF: Future<Output = Result<T, Failure>>,
        R: Fn(Member) -> RF,
        RF: Future<Output = Result<T, Failure>>,
    {
        self.on_leaders(caller, patience, Again::Harmful, here, there).await
    }

    /// As [`Context::on_leader`], of something that may be asked of one leader after the other.
    pub(super) async fn on_leaders<T, H, HF, R, RF>(
        &self,
        caller: &Caller,
        patience: Duration,
        again: Again,
        here: H,
        there: R,
    ) -> Result<T, Failure>
    where
        H: Fn() -> HF,
        HF: Future<Output = Result<T, Failure>>,
        R: Fn(Member) -> RF,
        RF: Future<Output = Result<T, Failure>>,
    {
        if self.handle.is_unconfirmed() {
            // Waiting helps nobody: only a person ends it.
            return Err(ProposeFailure::Unconfirmed.into());
        }
        let give_up = caller.deadline.min(Instant::now() + patience);
        let mut leadership = self.handle.leadership();
        let mut pause = PAUSE_MIN;
        let mut is_in_doubt = false;
        loop {
            let route = self.route_for(&leadership.borrow_and_update());
            let result = match route {
                Route::Here => here().await,
                Route::There(leader) if !caller.forwarded => {
                    let answer = there(leader.clone());
                    match self.while_it_leads(&leader, again, answer).await {
                        Ok(result) => result,
                        Err(Replaced) if again == Again::Harmless => {
                            is_in_doubt = true;
                            continue;
                        }
                        Err(Replaced) => Err(Failure::replaced()),
                    }
                }
                Route::There(leader) => Err(not_leader_but(&leader)),
                Route::Nowhere => Err(no_leader()),
            };
            match result {
                Err(failure) if failure.worth_rerouting() && !caller.forwarded => {
                    if Instant::now() + pause >= give_up {
                        return Err(failure.in_doubt(is_in_doubt));
                    }
                    tokio::select! {
                        // A closed watch says nothing; then only the pause counts.
                        Ok(()) = leadership.changed() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                other => return other.map_err(|failure| failure.in_doubt(is_in_doubt)),
            }
        }
    }
}

/// There is nobody to pass a request to.
pub(super) fn no_leader() -> Failure {
    Failure::none(
        Reason::NoLeader,
        "no leader is known: an election is under way, or most voters cannot be reached",
    )
}

/// A passed-on request found another leader; whoever passed it on looks again.
pub(super) fn not_leader_but(leader: &Member) -> Failure {
    Failure::none(
        Reason::NotLeader,
        format!("this node does not lead any more; node {} at {} does", leader.id, leader.address),
    )
    .led_by(leader, 0)
}
