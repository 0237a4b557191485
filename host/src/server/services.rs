//! What a server answers on its port.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::home::Home;
use crate::config::Config;
use crate::node::NodeHandle;
use crate::transport::grpc::GrpcTransport;

pub(super) struct ServiceFacts {}

impl ServiceFacts {
    pub(super) fn new(_: &Config, _: &Home) -> ServiceFacts { ServiceFacts {} }
}

pub(super) async fn serve(
    _listener: TcpListener,
    _handle: NodeHandle,
    _transport: Arc<GrpcTransport>,
    _facts: ServiceFacts,
    closing: CancellationToken,
    _broken: watch::Sender<Option<String>>,
) {
    closing.cancelled().await;
}
