//! The HTTP face: `/metrics` for Prometheus, `/health` for load balancers, and probes.
//!
//! On an address of its own, so that a monitoring network can reach it without reaching the
//! services that change things.

mod audit;
mod metrics;
mod page;
mod probes;
mod text;
mod tls;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use raft_host_proto::v1::Reason;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::metrics::Scrape;
use super::connections::{Bounds, Table};
use super::context::NodeInfo;
use super::guard::Guard;
use super::io::{Acceptor, Connection, Presented};
use super::rights::{Asks, asked_by};
use crate::node::NodeHandle;
use crate::tls::Face as TlsFace;

/// Whoever scrapes needs one connection, and a request is one line and more.
const BOUNDS: Bounds = Bounds {
    most: METRICS_CONNECTIONS,
    per_address: METRICS_CONNECTIONS,
    strangers: METRICS_CONNECTIONS,
    greeting_bytes: 16,
    idle: Duration::from_secs(120),
    age: None,
};
/// Connections at once.
pub(crate) const METRICS_CONNECTIONS: usize = 64;

/// How long requests may go on after the server was asked to stop: they are short.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Face {
    handle: NodeHandle,
    info: Arc<NodeInfo>,
    table: Arc<Table>,
}

/// Serves all that until `closing`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_http(
    listener: TcpListener,
    handle: NodeHandle,
    info: NodeInfo,
    closing: CancellationToken,
) -> std::io::Result<()> {
    let table = Table::new(BOUNDS);
    let (kill, secured) = (closing.child_token(), info.tls.clone());
    let acceptor = Acceptor::new(listener.into(), Arc::clone(&table), kill, secured, TlsFace::Http);
    let router = router(handle, info, Arc::clone(&table));
    let router = router.into_make_service_with_connect_info::<Presented>();
    let serving = axum::serve(Doorway(acceptor), router)
        .with_graceful_shutdown(closing.clone().cancelled_owned());
    let out_of_patience = async {
        closing.cancelled().await;
        tokio::time::sleep(SHUTDOWN_PATIENCE).await;
    };
    tokio::select! {
        ended = serving.into_future() => ended,
        () = out_of_patience => Ok(()),
        () = table.keep_swept() => Ok(()),
    }
}

/// Counts connections as the other port does.
struct Doorway(Acceptor);

impl Listener for Doorway {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let connection = self.0.next().await;
        let from = connection.peer_address();
        (connection, from)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Doorway>> for Presented {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Presented {
        stream.io().presented()
    }
}

/// Who may see a page: as [`super::guard`] says it of calls.
async fn admit(
    State(guard): State<Guard>,
    ConnectInfo(presented): ConnectInfo<Presented>,
    request: Request,
    next: Next,
) -> Response {
    let asks = asked_by(request.uri().path()).unwrap_or(Asks::Nothing);
    match guard.admit(asks, &presented, request.headers()) {
        Ok(_) => next.run(request).await,
        Err(failure) => {
            let status = match failure.reason() {
                Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
                _ => StatusCode::FORBIDDEN,
            };
            (status, format!("{}\n", failure.message())).into_response()
        }
    }
}

fn router(handle: NodeHandle, info: NodeInfo, table: Arc<Table>) -> Router {
    let guard = Guard::new(handle.clone());
    let face = Face { handle, info: Arc::new(info), table };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/healthz", get(probes::healthy))
        .with_state(face)
        .layer(from_fn_with_state(guard, admit))
}

async fn metrics(State(face): State<Face>, headers: HeaderMap) -> impl IntoResponse {
    // Several lines of a header are one list (RFC 9110 §5.3).
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let accepted = accepted.collect::<Vec<_>>().join(",");
    match Scrape::of(face.handle, face.info, face.table.counts()).await.text() {
        Ok(page) if text::wants_open_metrics(&accepted) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, text::OPEN_METRICS)], page)
        }
        Ok(page) => (StatusCode::OK, [(header::CONTENT_TYPE, text::TEXT)], text::to_text(&page)),
        Err(error) => {
            let plain = "text/plain; charset=utf-8";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            (status, [(header::CONTENT_TYPE, plain)], format!("writing the metrics: {error}\n"))
        }
    }
}

async fn health(State(face): State<Face>) -> impl IntoResponse {
    let (status, body) = match face.handle.not_serving() {
        None => (StatusCode::OK, json!({ "serving": true })),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "serving": false, "reason": reason }))
        }
    };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}
