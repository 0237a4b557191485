//! The client library: what applications and the command line use.
//!
//! ```text
//!   Client ──► Endpoints (lazy channels, the current one rotates on failure)
//!     ├─ Cluster, once                 whose id every later request carries
//!     ├─ admin calls                   one call, retried only when that is safe
//!     ├─ query                         the same over a stream, which all callers share
//!     ├─ apply ──────────────────────┐ likewise, over another
//!     └─ open_session ──► Session ───┘ exactly once: retried until a deadline
//!                           └─ pipeline ──► many commands in flight over one stream
//! ```
//!
//! Any node takes any request, so the client knows nothing of leaders: when a node fails it
//! asks the next one. What it does know is whether a failed command may have happened
//! ([`Effect`]), and it never repeats such a command outside of a session.

mod admin;
mod cluster;
mod endpoints;
mod error;
mod kept;
mod pipeline;
mod retry;
mod session;
mod shared;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

use self::cluster::Unanswered;
use self::endpoints::Endpoints;
use self::retry::{Repeat, Timed};
use self::shared::{Commands, Queries, Shared};
use crate::dial::ClientTls;
use crate::v1;
use crate::v1::client_client::ClientClient;
use crate::{MESSAGE_MAX_BYTES, Secret};

pub use self::admin::UpgradeOptions;
pub use self::cluster::{BadClusterId, ClusterId};
pub use self::error::{ClientError, Effect};
pub use self::pipeline::{PipelineOptions, PipelineResult, PipelineResults, PipelineSender};
pub use self::session::{OrderedSession, Session};

/// How patient a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The cluster to talk to; endpoints of others are not asked. `None`: the one of the node that
    /// answers first.
    pub cluster: Option<ClusterId>,
    /// The name of the group that requests are for; empty: "main", the only one today.
    pub group: String,
    /// For one TCP connection to be made.
    pub connect_timeout: Duration,
    /// For one attempt of a request that may be repeated; then another node is asked.
    pub attempt_timeout: Duration,
    /// For a request with all its attempts; nodes are told, and give up in time to say whether it
    /// had an effect.
    pub deadline: Duration,
    /// For an admin request, which may wait for replication or compilation.
    pub admin_deadline: Duration,
    /// Longest pause before the second attempt; doubles with each further one.
    pub backoff_min: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// How often an idle-looking connection is probed; it is given up after as long again.
    pub keepalive: Duration,
    /// Ask how many pages of memory each command writes.
    pub count_pages: bool,
    /// Whom to trust, and what to show, where TLS is spoken; `None`: none is. An endpoint may say otherwise with
    /// `http://` or `https://`.
    pub tls: Option<ClientTls>,
    /// Shown with each request, where nobody but the node can read it: over TLS, over a Unix socket, and to this
    /// machine.
    pub token: Option<Secret>,
    /// The token is shown also where others may read it.
    pub insecure_token: bool,
    /// Commands of concurrent calls of `apply` travel together, over a stream that the client keeps
    /// open while it is used, and so do queries. Otherwise each is a request of its own.
    pub sharing: bool,
}

/// What the answer to a query must reflect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryOptions {
    /// Everything that was acknowledged before, or whatever the asked node has applied.
    pub consistency: v1::Consistency,
    /// At least this entry, which the node waits for; 0: none.
    pub min_index: u64,
    /// With [`v1::Consistency::Stale`]: how long ago the answer may have been overtaken.
    pub max_staleness: Option<Duration>,
}

impl Default for QueryOptions {
    fn default() -> QueryOptions {
        let consistency = v1::Consistency::Linearizable;
        QueryOptions { consistency, min_index: 0, max_staleness: None }
    }
}

impl ClientOptions {
    fn apply_request(
        &self,
        command: Bytes,
        session: Option<v1::SessionCommand>,
    ) -> v1::ApplyRequest {
        let (group, count_pages) = (self.group.clone(), self.count_pages);
        v1::ApplyRequest { group, command, session, count_pages }
    }
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            cluster: None,
            group: String::new(),
            connect_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(60),
            admin_deadline: Duration::from_secs(600),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            keepalive: Duration::from_secs(5),
            count_pages: false,
            tls: None,
            token: None,
            insecure_token: false,
            sharing: true,
        }
    }
}

/// A client of one cluster. Clones share connections, and which cluster it is. However many tasks
/// apply commands or ask questions, these travel together; none waits for others.
///
/// It stays with the cluster that it has talked to first, or that its options name: an endpoint that
/// belongs to another one is left alone, with a warning in the log, for a minute at a time. If all
/// do, requests fail with [`ClientError::Refused`].
///
/// ```no_run
/// # async fn example() -> Result<(), raft_host_proto::ClientError> {
/// use raft_host_proto::client::{Client, ClientOptions};
///
/// let client = Client::connect(["127.0.0.1:7400"], ClientOptions::default())?;
/// let session = client.open_session(None).await?;
/// let response = session.apply("a command that must happen once").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    endpoints: Arc<Endpoints>,
    /// Set once.
    cluster: Arc<OnceLock<ClusterId>>,
    /// Held while a node is asked for it.
    asked: Arc<Mutex<Option<Unanswered>>>,
    commands: Arc<Shared<Commands>>,
    queries: Arc<Shared<Queries>>,
    options: Arc<ClientOptions>,
}

impl Client {
    /// A client of the cluster that `endpoints` (`host:port`, the same behind `http://` or
    /// `https://`, or `unix:PATH`) belong to.
    /// Connects when first used.
    ///
    /// # Errors
    ///
    /// [`ClientError::Invalid`] for an endpoint that cannot be read, or none at all, and for files for TLS that
    /// cannot be used.
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        let endpoints = Arc::new(Endpoints::new(endpoints, &options)?);
        let cluster = Arc::new(options.cluster.map_or_else(OnceLock::new, OnceLock::from));
        let commands = Arc::new(Shared::new(shared::IDLE));
        let queries = Arc::new(Shared::new(shared::IDLE));
        let asked = Arc::default();
        Ok(Client { endpoints, cluster, asked, commands, queries, options: Arc::new(options) })
    }

    /// Applies a command and answers when it is durable and applied.
    ///
    /// Repeats it only when it surely had no effect. Use a [`Session`] for commands that must
    /// happen exactly once.
    ///
    /// # Errors
    ///
    /// [`ClientError::effect`] says whether the command may have happened.
    pub async fn apply(&self, command: impl Into<Bytes>) -> Result<v1::ApplyResponse, ClientError> {
        let command = command.into();
        let request = || self.options.apply_request(command.clone(), None);
        let applied = self.apply_counting(Repeat::WithoutEffect, request).await;
        applied.map_err(|(error, _)| error)
    }

    /// Asks the state machine a question.
    ///
    /// # Errors
    ///
    /// When no node answered in time, or the question was refused.
    pub async fn query(
        &self,
        query: impl Into<Bytes>,
        consistency: v1::Consistency,
    ) -> Result<v1::QueryResponse, ClientError> {
        self.query_with(query, QueryOptions { consistency, ..QueryOptions::default() }).await
    }

    /// As [`Client::query`], with bounds on what the answer reflects.
    ///
    /// # Errors
    ///
    /// When no node answered in time, or the question was refused.
    pub async fn query_with(
        &self,
        query: impl Into<Bytes>,
        options: QueryOptions,
    ) -> Result<v1::QueryResponse, ClientError> {
        let QueryOptions { consistency, min_index, max_staleness } = options;
        let request = v1::QueryRequest {
            group: self.options.group.clone(),
            query: query.into(),
            consistency: consistency.into(),
            min_index,
            max_staleness_ms: max_staleness
                .map(|max| u64::try_from(max.as_millis()).unwrap_or(u64::MAX)),
        };
        self.query_shared(request).await
    }

    /// Opens a session for exactly-once commands. It is kept alive until it is dropped, and ends
    /// when the cluster has not heard from it for `ttl`; `None`: the cluster's default.
    ///
    /// # Errors
    ///
    /// When no node opened one in time.
    pub async fn open_session(&self, ttl: Option<Duration>) -> Result<Session, ClientError> {
        let opened = self.open(ttl, false).await?;
        Ok(Session::new(self.clone(), opened))
    }

    /// As [`Client::open_session`], a session that applies its commands in the order in which they are
    /// submitted.
    ///
    /// # Errors
    ///
    /// When no node opened one in time, or the cluster's version knows none.
    pub async fn open_ordered_session(
        &self,
        ttl: Option<Duration>,
    ) -> Result<OrderedSession, ClientError> {
        let opened = self.open(ttl, true).await?;
        let is_ordered = opened.ordered;
        let session = Session::new(self.clone(), opened);
        if is_ordered {
            return Ok(OrderedSession::new(session));
        }
        // Nobody needs it; if it is not closed, it expires.
        if let Err(error) = session.close().await {
            tracing::debug!(%error, "a session that is of no use was not closed");
        }
        Err(ClientError::Refused {
            code: tonic::Code::Unimplemented,
            message: "the cluster runs a version of raft-host that knows no ordered sessions"
                .into(),
            effect: Effect::None,
            detail: None,
        })
    }

    async fn open(
        &self,
        ttl: Option<Duration>,
        ordered: bool,
    ) -> Result<v1::OpenSessionResponse, ClientError> {
        let ttl_ms = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let request = v1::OpenSessionRequest { group: self.options.group.clone(), ttl_ms, ordered };
        // Always safe to repeat: a session that nobody knows of expires.
        self.call(Repeat::Always, self.options.deadline, |channel| {
            let request = request.clone();
            async move { grpc(channel).open_session(request).await }
        })
        .await
    }

    /// The options it was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }
}

fn grpc(channel: Timed) -> ClientClient<Timed> {
    ClientClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}
