//! One port for clients, operators and peers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::peer::enrollment_server::EnrollmentServer;
use raft_host_proto::peer::membership_server::MembershipServer;
use raft_host_proto::v1::admin_server::AdminServer;
use raft_host_proto::v1::client_server::ClientServer;
use raft_host_proto::{MESSAGE_MAX_BYTES, v1};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::admin::AdminService;
use super::client::ClientService;
use super::config::ApiConfig;
use super::connections::{Bounds, Table};
use super::context::{Context, NodeInfo};
use super::door::{self, Door};
use super::enroll::{ENROLL_MAX_BYTES, EnrollmentService};
use super::forward::Forwarder;
use super::freshness::Freshness;
use super::guard::Guard;
use super::io::Sockets;
use super::membership::MembershipService;
use super::nodes::Gate;
use super::rates::Rates;
use super::traffic::Port;
use super::trailers::Books;
use super::{cluster, guard, health, io, nodes, rates, trailers};
use crate::node::{Budget, NodeHandle};
use crate::tls::Tls;

/// Why a server ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The descriptors built into this program cannot be served.
    #[error("starting gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("serving gRPC: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Commands of all streams that have no answer.
const STREAMS_PENDING_BYTES_MAX: u64 = 64 << 20;
/// Answers of all streams that have not left.
const STREAMS_ANSWERS_BYTES_MAX: u64 = 64 << 20;
/// HTTP/2's preface and an empty SETTINGS frame (RFC 9113 §3.4).
const HTTP2_GREETING_BYTES: u64 = 33;
/// Longest headers of a call.
pub(super) const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Calls that a client gave up before anybody has looked at them; with more its connection ends
/// (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 20;
/// Calls that were given up because their client broke the protocol; likewise.
const RESETS_MAX: usize = 256;
/// How soon a client that vanished is found out.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long calls may go on over a connection that was let go of because of its age. The client library lets go of
/// its own streams sooner.
const CONNECTION_GRACE: Duration = Duration::from_secs(150);
/// How long connections may take to notice that they were cut.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// What bounds the connections of a port.
pub(super) fn bounds(config: &ApiConfig, tls: Option<&Arc<Tls>>) -> Bounds {
    Bounds {
        most: config.max_connections,
        per_address: config.connections_per_address(),
        strangers: config.connections_of_strangers(),
        greeting_bytes: HTTP2_GREETING_BYTES,
        idle: Duration::from_millis(config.idle_timeout_ms),
        age: tls.map(|tls| tls.connection_age()),
    }
}

/// Serves a node until `shutdown` resolves, then lets calls finish for at most
/// `config.shutdown_ms` and cuts what is left.
///
/// Where there is TLS, connections are let go of when they are as old as its settings say.
///
/// `others` are services of other rooms for the same port: the peers'
/// (`NetworkTransport::routes`), or none (`Routes::default()`).
///
/// # Errors
/// See [`ApiError`].
pub async fn serve(
    sockets: impl Into<Sockets>,
    handle: NodeHandle,
    others: Routes,
    info: NodeInfo,
    config: ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ApiError> {
    let stopping = CancellationToken::new();
    let cut = CancellationToken::new();
    // Whichever way this function ends, no connection outlives it.
    let _stop_on_drop = (stopping.clone().drop_guard(), cut.clone().drop_guard());
    let books = Books { traffic: Arc::clone(&info.traffic), audit: info.audit.clone() };
    let guard = Guard::new(handle.clone());
    let demands_identity = Arc::new({
        let guard = guard.clone();
        move || guard.demands_identity()
    });
    let tls = info.tls.clone();
    let context = Arc::new(Context {
        forwarder: Forwarder::new(&config, handle.identity().cluster, info.dialer.clone()),
        freshness: Freshness::default(),
        pending: Budget::new(STREAMS_PENDING_BYTES_MAX),
        answers: Budget::new(STREAMS_ANSWERS_BYTES_MAX),
        copying: Arc::new(tokio::sync::Semaphore::new(1)),
        rehearsing: Arc::new(tokio::sync::Semaphore::new(1)),
        handle: handle.clone(),
        config: config.clone(),
        info,
        stopping: stopping.clone(),
    });
    let (reporter, health_service) = tonic_health::server::health_reporter();
    health::begin(&reporter, &handle).await;
    let routes = add_services(others, &context)?.add_service(health_service);
    let sockets = sockets.into();
    let table = Table::demanding(bounds(&config, tls.as_ref()), demands_identity);
    let door = Door::new(Arc::clone(&table));
    books.traffic.open(Port {
        table: Arc::clone(&table),
        door: Arc::clone(&door),
        pending: context.pending.clone(),
        answers: context.answers.clone(),
    });
    let door = axum::middleware::from_fn_with_state(door, door::pass);
    let rates = Rates::new(&config, Arc::clone(&table));
    let rates = axum::middleware::from_fn_with_state(rates, rates::limit);
    let guard = axum::middleware::from_fn_with_state(guard, guard::check);
    let cluster = axum::middleware::from_fn_with_state(handle.clone(), cluster::check);
    // Who is meant for another cluster does not get to the door.
    let trailers = axum::middleware::from_fn_with_state(books, trailers::label);
    let mut routes = routes.into_axum_router().layer(door).layer(rates).layer(guard).layer(cluster);
    if tls.is_some() || sockets.peers.is_some() {
        let gate = Gate::new(handle.clone(), tls.as_ref());
        routes = routes.layer(axum::middleware::from_fn_with_state(gate, nodes::check));
    }
    let routes = Routes::from(routes.layer(trailers));
    let mut server = Server::builder();
    if let Some(tls) = &tls {
        server = server
            .max_connection_age(tls.connection_age())
            .max_connection_age_grace(CONNECTION_GRACE);
    }
    let mut serving = pin!(
        server
            .initial_stream_window_size(config.window_bytes)
            .initial_connection_window_size(config.window_bytes.saturating_mul(2).min(1 << 30))
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .max_concurrent_streams(config.max_concurrent_streams)
            .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
            .http2_max_local_error_reset_streams(Some(RESETS_MAX))
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                io::accept(sockets, Arc::clone(&table), cut.clone(), tls),
                stopping.clone().cancelled_owned(),
            )
    );
    let reporting = async {
        tokio::join!(health::report(&reporter, &handle), health::report_life(&reporter, &handle));
        // The node is gone, and said so; the server ends when it is told to.
        std::future::pending::<()>().await;
    };
    let reporting = async { tokio::join!(reporting, table.keep_swept()).0 };
    let mut reporting = pin!(reporting);
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        result = &mut serving => return Ok(result?),
        () = &mut reporting => {}
        () = &mut shutdown => {}
    }
    stopping.cancel();
    let patience = Duration::from_millis(config.shutdown_ms);
    let ending = async {
        tokio::select! {
            result = &mut serving => result,
            () = &mut reporting => Ok(()),
        }
    };
    if let Ok(result) = tokio::time::timeout(patience, ending).await {
        return Ok(result?);
    }
    tracing::info!("cutting connections whose calls did not end in time");
    cut.cancel();
    match tokio::time::timeout(CUT_PATIENCE, serving).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            tracing::warn!("some connections did not notice that they were cut");
            Ok(())
        }
    }
}

fn add_services(others: Routes, context: &Arc<Context>) -> Result<Routes, ApiError> {
    let max = context.config.max_message_bytes;
    let client = ClientServer::new(ClientService { context: Arc::clone(context) })
        .max_decoding_message_size(max)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let admin = AdminServer::new(AdminService { context: Arc::clone(context) })
        .max_decoding_message_size(max)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let membership = MembershipServer::new(MembershipService { context: Arc::clone(context) });
    let enrollment = EnrollmentServer::new(EnrollmentService { context: Arc::clone(context) })
        .max_decoding_message_size(ENROLL_MAX_BYTES);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(others
        .add_service(client)
        .add_service(admin)
        .add_service(membership)
        .add_service(enrollment)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
