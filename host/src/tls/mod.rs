//! TLS of a node: what it shows and whom it trusts, in both directions, and the reading of new files while it
//! runs.
//!
//! ```text
//!   files ─► Loaded (checked as a whole) ─► new connections, those that are accepted and those that are dialled
//!     ▲          │ cannot be used
//!     │          └─► an alarm; what was read before stays
//!     └── looked at every second, and when somebody asks
//! ```
//!
//! A node has one certificate for both directions: its cluster and its id are in it. Old connections are let go
//! when they are [`TlsConfig::connection_age_ms`] old.

mod board;
mod config;
mod dialer;
mod loaded;
mod newcomer;
mod verifier;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use raft_host_proto::dial::{Dialer, TlsSource};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use self::board::Board;
pub use self::board::{HandshakeFailure, TlsReport};
pub use self::config::{TlsConfig, TlsMode};
pub use self::dialer::NodeDialer;
pub use self::loaded::TlsFailure;
use self::loaded::{Loaded, Stamps, stamps};
pub use self::newcomer::FirstContact;
use self::newcomer::JOIN_PROTOCOL;
use crate::certs::{AuthorityError, Host, NODE_DAYS, Request, Validity};
use crate::types::{ClusterId, NodeId};

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(1);

/// What is spoken on a port after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// gRPC: HTTP/2.
    Grpc,
    /// Metrics and health: HTTP/1.1. Nobody needs a certificate there.
    Http,
}

/// A connection that speaks TLS.
#[derive(Debug)]
pub struct Shaken<S> {
    /// What is said in it.
    pub stream: TlsStream<S>,
    /// A node that has no certificate yet: it was asked for none.
    pub is_newcomer: bool,
}

/// What a newcomer is given, in PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Its certificate.
    pub certificate: String,
    /// The CAs of nodes.
    pub trusted: String,
}

/// See the module.
pub struct Tls {
    config: TlsConfig,
    cluster: ClusterId,
    node: NodeId,
    current: RwLock<Arc<Loaded>>,
    source: Arc<TlsSource>,
    /// What was tried last, whether it could be used or not.
    tried: Mutex<Stamps>,
    board: Board,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. `None`: no TLS is spoken. Blocks.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(config: &TlsConfig) -> Result<Option<Arc<Tls>>, TlsFailure> {
        if config.mode == TlsMode::Off {
            return Ok(None);
        }
        let tried = stamps(config);
        let (loaded, client) = Loaded::read(config)?;
        let (cluster, node) = (loaded.cluster, loaded.node);
        Ok(Some(Arc::new(Tls {
            config: config.clone(),
            cluster,
            node,
            current: RwLock::new(Arc::new(loaded)),
            source: Arc::new(TlsSource::given(client)),
            tried: Mutex::new(tried),
            board: Board::default(),
        })))
    }

    /// The cluster of the certificate.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node of the certificate.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether everybody has to show a certificate.
    pub fn mode(&self) -> TlsMode {
        self.config.mode
    }

    /// A connection is let go when it is so old.
    pub fn connection_age(&self) -> Duration {
        Duration::from_millis(self.config.connection_age_ms)
    }

    /// Shakes hands with somebody who has connected.
    ///
    /// # Errors
    /// Why there is no TLS. The alert that says so has been written to the connection.
    pub async fn shake_hands<S>(
        &self,
        face: Face,
        stream: S,
    ) -> Result<Shaken<S>, (io::Error, Option<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let hello = match (&mut hello).await {
            Ok(hello) => hello,
            Err(error) => return Err((error, hello.take_io())),
        };
        let mut protocols = hello.client_hello().alpn().into_iter().flatten();
        let is_newcomer = face == Face::Grpc && protocols.any(|named| named == JOIN_PROTOCOL);
        drop(protocols);
        let current = self.current();
        let config = match face {
            Face::Grpc if is_newcomer => &current.joining,
            Face::Grpc => &current.grpc,
            Face::Http => &current.http,
        };
        let shaken = hello.into_stream(Arc::clone(config)).into_fallible().await;
        let stream = shaken.map_err(|(error, stream)| (error, Some(stream)))?;
        Ok(Shaken { stream, is_newcomer })
    }

    /// SHA-256 of the CA that this node's certificate is by: how newcomers know it. `None`: nobody can say.
    pub fn issuer(&self) -> Option<[u8; 32]> {
        self.current().issuer
    }

    /// Whether it signs certificates of newcomers.
    pub fn is_signing(&self) -> bool {
        self.current().authority.is_some()
    }

    /// Signs a newcomer's certificate as that of a node. `None`: this node keeps no CA.
    ///
    /// # Errors
    /// The CA refuses.
    pub fn sign(
        &self,
        request: &Request,
        node: NodeId,
        hosts: &[Host],
        now: SystemTime,
    ) -> Result<Option<Signed>, AuthorityError> {
        let current = self.current();
        let Some(authority) = &current.authority else { return Ok(None) };
        let now_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if authority.not_after() <= now_s {
            return Err(AuthorityError::Outlived);
        }
        let validity = Validity::days(now, NODE_DAYS)?.within(authority);
        let certificate = authority.sign_node(request, self.cluster, node, hosts, validity)?;
        Ok(Some(Signed { certificate, trusted: current.trusted.clone() }))
    }

    /// What this node dials others with.
    pub fn dialer(&self) -> NodeDialer {
        NodeDialer::secured(Dialer::secured(Arc::clone(&self.source)), self.cluster)
    }

    /// Whether those who dial this address (`HOST:PORT`) accept the certificate there.
    ///
    /// # Errors
    /// A sentence that says why they do not.
    pub fn check_address(&self, address: &str) -> Result<(), String> {
        self.current().check_address(address)
    }

    /// One more handshake was done.
    pub fn note_handshake(&self) {
        self.board.note_handshake();
    }

    /// One more handshake failed.
    pub fn note_failure(&self, failure: HandshakeFailure) {
        self.board.note_failure(failure);
    }

    /// For the status page and the metrics.
    pub fn report(&self) -> TlsReport {
        self.board.report(&self.current(), self.config.mode, SystemTime::now())
    }

    fn current(&self) -> Arc<Loaded> {
        // Nothing panics under this lock.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, whether they have changed or not. What cannot be used changes nothing. Blocks.
    pub fn reload(&self) {
        let now = stamps(&self.config);
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let read = Loaded::read(&self.config).and_then(|(loaded, client)| {
            loaded.replaces(self.cluster, self.node)?;
            Ok((loaded, client))
        });
        match read {
            Ok((loaded, client)) => {
                tracing::info!(
                    valid_until = loaded.facts.not_after,
                    "the files for TLS were read again: new connections use them"
                );
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                self.source.replace(client);
                self.board.note_reload(None);
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "the files for TLS have changed and cannot be used: going on with what was read before"
                );
                self.board.note_reload(Some(error.to_string()));
            }
        }
    }

    /// Looks at the files for ever, and says when the certificate is about to expire.
    pub async fn keep_fresh(self: Arc<Tls>) {
        let mut seen = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let this = Arc::clone(&self);
            let look = move || {
                this.board.warn_of_expiry(&this.current(), SystemTime::now());
                let now = stamps(&this.config);
                let is_news = now != *this.tried.lock().unwrap_or_else(PoisonError::into_inner);
                // Several files change, one after the other: they are read when all is quiet again.
                if is_news && seen.as_ref() == Some(&now) {
                    this.reload();
                }
                Some(now)
            };
            // Its only way to fail is a panic, which is on the log.
            seen = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
