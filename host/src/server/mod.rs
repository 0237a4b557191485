//! A whole server in one call: stores, loader, transport, node and services, put together and
//! taken apart in the right order. The command line, the demo and tests start theirs here.
//!
//! Knows every room but `cli`; it decides how a node begins (forms a cluster, joins one, comes
//! back) and nothing of what happens once it runs.
//!
//! ```text
//!   bind ─► look at the data directory ─► check the plugin │ ask to join
//!        ─► open the directory ─► intent, identity, first snapshot ─► node ─► services
//!        ─► propose the plugin │ ask for promotion ─► (a new cluster's probation) ─► intent is done
//! ```
//!
//! What can be refused is refused before anything is written. What is interrupted later is
//! completed by the next start: the [`intent`] file says what is left to do.

mod adopt;
mod autopilot;
mod backups;
mod certificate;
mod descriptors;
mod disk;
mod enroll;
mod form;
mod home;
mod intent;
mod join;
mod late;
mod local;
mod memory;
mod plugin;
mod probation;
mod promote;
mod recover;
mod release;
mod relocate;
mod restore;
mod running;
mod scrub;
mod services;
#[cfg(feature = "museum")]
mod tamper;
mod wish;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

pub use self::form::{Resumed, form_in, resume};
pub use self::home::{EmptyHome, Home};
pub use self::intent::Intent;
pub use self::recover::{RecoverFailure, Recovered, inspect_dir, recover, verify};
#[cfg(feature = "museum")]
pub(crate) use self::release::offer_level;
pub(crate) use self::release::{offer_engine, offered_engine, report_version};
pub use self::restore::{RestoreFailure, Restored, restore};
pub(crate) use self::restore::{backup_loader, open_backup};
pub use self::running::{Began, RunningServer, SHUTDOWN_GRACE, start};
pub(crate) use self::services::count_dropped_guest_lines;
use crate::api::JoinTicket;
use crate::audit::AuditError;
use crate::certs::NewcomerError;
use crate::config::ConfigError;
use crate::fsm::HostFailure;
use crate::storage::StorageError;
use crate::tls::TlsFailure;
use crate::types::{ClusterId, NodeId};
use crate::wasm::CompiledModules;

/// How a node is to begin. A restart needs nothing.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    /// Form a cluster that runs this module.
    pub plugin: Option<PathBuf>,
    /// Join a cluster.
    pub join: Option<Join>,
    /// With `plugin`: the state that it begins with, as some module's `snapshot` wrote it.
    pub import: Option<PathBuf>,
    /// Shared with others in this process that compile the same modules.
    pub modules: CompiledModules,
}

/// Whom to join, and as what.
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// Members to ask, `HOST:PORT`.
    pub seeds: Vec<String>,
    /// Stay a learner.
    pub learner: bool,
    /// The id to have; otherwise the cluster draws one.
    pub node_id: Option<NodeId>,
    /// What lets it in that has no certificate.
    pub ticket: Option<JoinTicket>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Settings that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two ways to begin at once.
    #[error(
        "--plugin and --join exclude each other: --plugin forms a new cluster, --join enters an \
         existing one and gets the plugin from there"
    )]
    PluginAndJoin,
    /// No way to begin.
    #[error(
        "{place} holds no node yet: form a new cluster with --plugin FILE, or enter an existing \
         one with --join ADDR"
    )]
    NothingToStart {
        /// The data directory, or what stands for it.
        place: String,
    },
    /// The plugin cannot be read.
    #[error("cannot read the plugin {}: {source}", path.display())]
    PluginUnreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The plugin is not acceptable.
    #[error("the plugin {} is refused: {reason}", path.display())]
    PluginRefused {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The plugin passed every check and still did not become active.
    #[error(
        "the plugin {} was not activated: {reason}; the cluster is formed and waits for a plugin: \
         start again with one that works",
        path.display()
    )]
    PluginNotActivated {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The state that the plugin was to begin with is not one.
    #[error("the state {} is refused: {reason}", path.display())]
    ImportRefused {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A cluster was being made of a file, and nothing says what is missing.
    #[error(
        "{place} is where a restore or an import was interrupted: nothing in it can be used; delete it \
         and do that again"
    )]
    HalfFounded {
        /// The data directory.
        place: String,
    },
    /// The address is taken.
    #[error(
        "the address {address} is in use: is another raft-host running? Choose another one with \
         {flag}"
    )]
    AddressInUse {
        /// As configured.
        address: String,
        /// Where it comes from.
        flag: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with {flag}")]
    Listen {
        /// As configured.
        address: String,
        /// Where it comes from.
        flag: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    /// The certificate is not for the address of this node.
    #[error("{0}")]
    CertificateAddress(String),
    /// The certificate is not of this node.
    #[error(
        "{place} is of node {node} of cluster {cluster}, and the certificate (tls.certificate) is of node \
         {found_node} of cluster {found_cluster}: {}", certificates_for(*cluster, *node, *found_cluster)
    )]
    CertificateOfAnother {
        /// The data directory.
        place: String,
        /// Its cluster.
        cluster: ClusterId,
        /// Its node.
        node: NodeId,
        /// The cluster of the certificate.
        found_cluster: ClusterId,
        /// The node of the certificate.
        found_node: NodeId,
    },
    /// The certificate is of a node that cannot do that.
    #[error("the certificate (tls.certificate) is of node {node}: {reason}")]
    CertificateUnfit {
        /// The node of the certificate.
        node: NodeId,
        /// What is wrong with that.
        reason: String,
    },
    /// There is no socket on this machine.
    #[error("cannot listen on the socket {}: {reason}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// No member could be reached.
    #[error("none of {seeds} could be asked to let this node join: {reason}")]
    JoinUnreachable {
        /// The addresses asked.
        seeds: String,
        /// What the last one said.
        reason: String,
    },
    /// A member refused.
    #[error("{seed} does not let this node join: {reason}")]
    JoinRefused {
        /// The address asked.
        seed: String,
        /// Its words.
        reason: String,
    },
    /// No member could be asked for a certificate.
    #[error("none of {seeds} could be asked to sign this node's certificate: {reason}")]
    EnrollUnreachable {
        /// The addresses asked.
        seeds: String,
        /// What the last one said.
        reason: String,
    },
    /// A member refused, or is none.
    #[error("{seed} does not sign this node's certificate: {reason}")]
    EnrollRefused {
        /// The address asked.
        seed: String,
        /// The cause.
        reason: String,
    },
    /// The files of a node that joins with a token.
    #[error(transparent)]
    Newcomer(#[from] NewcomerError),
    /// The data belongs elsewhere.
    #[error(
        "{place} belongs to cluster {own}, but {seed} belongs to cluster {other}: to join that \
         one, choose another --data-dir; to restart this node, leave --join away"
    )]
    OtherCluster {
        /// The data directory.
        place: String,
        /// Its cluster.
        own: ClusterId,
        /// The address asked.
        seed: String,
        /// Its cluster.
        other: ClusterId,
    },
    /// The intent file is damaged.
    #[error(
        "{} is damaged ({reason}): it says what an interrupted start has left to do. If this \
         node was just being created, delete the data directory and start again",
        path.display()
    )]
    BadIntent {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// No state to go on from.
    #[error(
        "{place} holds no state that can be read, and no member gave it one ({reason}). Nothing that it voted \
         or acknowledged is lost: start it again with --join HOST:PORT of a member that serves"
    )]
    NoState {
        /// The data directory.
        place: String,
        /// What the last member said.
        reason: String,
    },
    /// A start was interrupted so early that nothing says how it began.
    #[error(
        "{place} was left half created: an earlier start did not get far enough to be completed. \
         It holds nothing yet; delete it and start again"
    )]
    HalfCreated {
        /// The data directory.
        place: String,
    },
    /// Nothing can be noted of who changes what.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// This machine cannot run modules.
    #[error(transparent)]
    Host(#[from] HostFailure),
    /// The node.
    #[error(transparent)]
    Node(#[from] crate::node::StartError),
    /// Something else of this machine.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A task broke; a bug.
    #[error("a task of the server ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ServeError {
    /// Whether all that is missing is a state, which a member can give.
    fn wants_state(&self) -> bool {
        matches!(self, ServeError::Node(crate::node::StartError::NoOlderState { .. }))
    }

    /// Whether the data directory must not be used any more: to start again does not help.
    pub fn is_data_unusable(&self) -> bool {
        use crate::consensus::RecoveryError;
        use crate::node::StartError;
        matches!(
            self,
            ServeError::Storage(StorageError::LostPart(_))
                | ServeError::Node(StartError::Storage(StorageError::LostPart(_)))
                | ServeError::Node(StartError::Recovery(RecoveryError::LostEntries { .. }))
        )
    }
}

/// How to get what a node lacks that was given another one's certificate.
fn certificates_for(cluster: ClusterId, node: NodeId, found: ClusterId) -> String {
    match cluster == found {
        true => {
            format!("`raft-host certs node` makes one for it, with --id {node} if need be")
        }
        // One certificate would not do: the clients' name the other cluster as well.
        false => format!(
            "`restore` and `recover` make a new cluster, which needs certificates of its own for all nodes and \
             clients: `raft-host certs init DIR --cluster-id {cluster}` makes them"
        ),
    }
}

/// Takes the address before anything else is touched.
async fn bind(address: &str, flag: &'static str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let listener = TcpListener::bind(address).await.map_err(|source| {
        let address = address.to_owned();
        if source.kind() == std::io::ErrorKind::AddrInUse {
            ServeError::AddressInUse { address, flag }
        } else {
            ServeError::Listen { address, flag, source }
        }
    })?;
    let bound = listener.local_addr().map_err(|source| ServeError::Listen {
        address: address.to_owned(),
        flag,
        source,
    })?;
    Ok((listener, bound))
}
