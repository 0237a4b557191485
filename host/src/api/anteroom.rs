//! What a port answers before its node serves: that it does not yet, and what it is at.
//!
//! A node that starts may take long: it asks a cluster to take it in, or reads what it has on its
//! disk. Whoever asks it meanwhile hears so at once and can ask another one, instead of waiting for
//! a connection that nobody accepts. Everything is refused alike, peers included, without effect. Only that
//! the process lives is said to who asks for it: to start it again would not make it faster.

use std::io;
use std::sync::Arc;

use axum::Router;
use futures::stream::Empty;
use raft_host_proto::v1::Reason;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::config::ApiConfig;
use super::connections::Table;
use super::failure::Failure;
use super::health::LIVENESS;
use super::server::{HEADERS_BYTES_MAX, bounds};
use crate::tls::Tls;

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
    pub fn open(
        listener: TcpListener,
        config: &ApiConfig,
        tls: Option<&Arc<Tls>>,
    ) -> io::Result<(Anteroom, TcpListener)> {
        let listener = listener.into_std()?;
        let own = TcpListener::from_std(listener.try_clone()?)?;
        let (doing, words) = watch::channel("it looks at its data directory".to_owned());
        let cut = CancellationToken::new();
        let table = Table::new(bounds(config, tls));
        let incoming = super::io::accept(own, Arc::clone(&table), cut.clone(), tls.cloned());
        let health = HealthServer::new(Starting(words.clone()));
        let refuse = move || {
            let refusal = refusal(&words);
            async move { refusal.into_http::<axum::body::Body>() }
        };
        let streams = config.max_concurrent_streams;
        let task = tokio::spawn(async move {
            let serving = Server::builder()
                .http2_max_header_list_size(HEADERS_BYTES_MAX)
                .max_concurrent_streams(streams)
                .add_routes(Routes::from(Router::new().fallback(refuse)).add_service(health))
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

fn refusal(doing: &watch::Receiver<String>) -> Status {
    let words = format!("this node is starting: {}", *doing.borrow());
    Failure::none(Reason::NotReady, words).into_status()
}

/// The health of a process that starts.
struct Starting(watch::Receiver<String>);

#[tonic::async_trait]
impl Health for Starting {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service == LIVENESS {
            true => {
                Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving as i32 }))
            }
            false => Err(refusal(&self.0)),
        }
    }

    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    /// It would have to begin anew soon.
    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(refusal(&self.0))
    }
}
