//! What a server answers on its port: clients, operators and peers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::home::Home;
use super::release;
use crate::api::{self, ApiConfig, NodeInfo, ProcessFacts, Sockets};
use crate::audit::Audit;
use crate::autopilot::AutopilotBoard;
use crate::backup::BackupBoard;
use crate::node::NodeHandle;
use crate::storage::{DataDir, ScrubBoard};
use crate::tls::Tls;
use crate::transport::NetworkTransport;

/// Serves until `closing`. When that ends early, `broken` says why.
pub(super) async fn serve(
    sockets: Sockets,
    handle: NodeHandle,
    transport: Arc<dyn NetworkTransport>,
    info: NodeInfo,
    config: ApiConfig,
    closing: CancellationToken,
    broken: watch::Sender<Option<String>>,
) {
    let shutdown = closing.clone().cancelled_owned();
    let ended = api::serve(sockets, handle, transport.routes(), info, config, shutdown).await;
    match ended {
        Ok(()) if closing.is_cancelled() => {}
        Ok(()) => {
            broken.send_replace(Some("the server ended by itself".to_owned()));
        }
        Err(error) => {
            broken.send_replace(Some(error.to_string()));
        }
    }
}

/// Serves metrics and health until `closing`. The node can do without them, so a failure is told
/// and nothing more.
pub(super) async fn serve_metrics(
    listener: TcpListener,
    handle: NodeHandle,
    info: NodeInfo,
    closing: CancellationToken,
) {
    if let Err(error) = api::serve_http(listener, handle, info, closing).await {
        tracing::error!(%error, "metrics and health are not served any more");
    }
}

/// Log lines of guests that were too many for the process's log.
static GUEST_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Counts log lines of guests that were not written, for the metrics.
pub(crate) fn count_dropped_guest_lines(lines: u64) {
    GUEST_LINES_DROPPED.fetch_add(lines, Ordering::Relaxed);
}

/// Facts for `raft-host status` and the metrics.
pub(super) fn info(
    home: &Arc<Home>,
    transport: &Arc<dyn NetworkTransport>,
    audit: Option<Arc<Audit>>,
    backups: Option<Arc<BackupBoard>>,
    autopilot: Arc<AutopilotBoard>,
    scrubs: Option<Arc<ScrubBoard>>,
    tls: Option<Arc<Tls>>,
) -> NodeInfo {
    let weak = Arc::downgrade(home);
    let transport = Arc::downgrade(transport);
    let confirming = Weak::clone(&weak);
    NodeInfo {
        version: release::version().to_owned(),
        storage: home.engine().to_string(),
        data_dir_bytes: Arc::new(move || {
            let home = weak.upgrade();
            let size = home.as_ref().and_then(|home| home.dir()).map(DataDir::size_bytes);
            match size {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => {
                    tracing::debug!(%error, "the data directory cannot be measured");
                    0
                }
                None => 0,
            }
        }),
        process: Arc::new(ProcessFacts::read),
        peer_queues: Arc::new(move || {
            transport.upgrade().map(|transport| transport.queued_bytes()).unwrap_or_default()
        }),
        traffic: Arc::default(),
        audit,
        dialer: tls.as_ref().map(|tls| tls.dialer()).unwrap_or_default(),
        tls,
        backups,
        autopilot,
        scrubs,
        guest_lines_dropped: Arc::new(|| GUEST_LINES_DROPPED.load(Ordering::Relaxed)),
        confirm: Arc::new(move || match confirming.upgrade() {
            Some(home) => home.intent_done().map_err(|error| error.to_string()),
            None => Err("this node stopped".to_owned()),
        }),
    }
}
