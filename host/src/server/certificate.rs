//! The certificate of this node: read, and held against what the node is.

use std::sync::Arc;

use super::home::place;
use super::{Join, ServeError};
use crate::config::Config;
use crate::storage::NodeIdentity;
use crate::tls::Tls;

/// Reads the files for TLS.
pub(super) async fn open_tls(config: &Config) -> Result<Option<Arc<Tls>>, ServeError> {
    let config = config.tls.clone();
    Ok(tokio::task::spawn_blocking(move || Tls::open(&config)).await??)
}

/// The certificate must be of the node whose data is there.
pub(super) fn check_owner(
    config: &Config,
    owner: NodeIdentity,
    tls: &Tls,
) -> Result<(), ServeError> {
    if (owner.cluster, owner.node) == (tls.cluster(), tls.node()) {
        return Ok(());
    }
    Err(ServeError::CertificateOfAnother {
        place: place(config),
        cluster: owner.cluster,
        node: owner.node,
        found_cluster: tls.cluster(),
        found_node: tls.node(),
    })
}

/// A node with a certificate asks for the id of that.
pub(super) fn certified(join: &Join, tls: Option<&Tls>) -> Result<Join, ServeError> {
    let Some(node) = tls.map(Tls::node) else { return Ok(join.clone()) };
    if let Some(asked) = join.node_id.filter(|asked| *asked != node) {
        let reason = format!("it cannot join as node {asked} (--node-id)");
        return Err(ServeError::CertificateUnfit { node, reason });
    }
    Ok(Join { node_id: Some(node), ..join.clone() })
}
