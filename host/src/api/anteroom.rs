//! What a port answers before its node serves: that it does not yet, and what it is at.
//!
//! A node that starts may take long: it asks a cluster to take it in, or reads what it has on its
//! disk. Whoever asks it meanwhile hears so at once and can ask another one, instead of waiting for
//! a connection that nobody accepts. Everything is refused alike, peers included, without effect.

use std::io;
use std::sync::Arc;

use axum::Router;
use raft_host_proto::v1::Reason;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;

use super::config::ApiConfig;
use super::connections::Table;
use super::failure::Failure;
use super::server::{HEADERS_BYTES_MAX, bounds};

/// Answers until it is dropped; what comes after that waits for the next one who accepts.
pub struct Anteroom {
    doing: watch::Sender<String>,
    _task: AbortOnDropHandle<()>,
    _cut: DropGuard,
}

impl Anteroom {
    /// Answers those that connect to `listener`, which stays usable.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn open(listener: TcpListener, config: &ApiConfig) -> io::Result<(Anteroom, TcpListener)> {
        let listener = listener.into_std()?;
        let own = TcpListener::from_std(listener.try_clone()?)?;
        let (doing, words) = watch::channel("it looks at its data directory".to_owned());
        let cut = CancellationToken::new();
        let table = Table::new(bounds(config));
        let incoming = super::io::accept(own, Arc::clone(&table), cut.clone());
        let refuse = move || {
            let words = format!("this node is starting: {}", *words.borrow());
            async move {
                Failure::none(Reason::NotReady, words).into_status().into_http::<axum::body::Body>()
            }
        };
        let streams = config.max_concurrent_streams;
        let task = tokio::spawn(async move {
            let serving = Server::builder()
                .http2_max_header_list_size(HEADERS_BYTES_MAX)
                .max_concurrent_streams(streams)
                .add_routes(Routes::from(Router::new().fallback(refuse)))
                .serve_with_incoming(incoming);
            tokio::select! {
                served = serving => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "nobody is told that this node is starting");
                    }
                }
                () = table.keep_swept() => {}
            }
        });
        let anteroom =
            Anteroom { doing, _task: AbortOnDropHandle::new(task), _cut: cut.drop_guard() };
        Ok((anteroom, TcpListener::from_std(listener)?))
    }

    /// What the node is at from now on, to go after "this node is starting: ".
    pub fn say(&self, doing: String) {
        self.doing.send_replace(doing);
    }
}
