//! Asking a cluster for this node's first certificate, with a join token.
//!
//! ```text
//!   key, nonce on disk ─► any member, known by the fingerprint in the token ─► certificate and CAs on disk
//!     ─► joins as every node with a certificate, by the same nonce ─► has its data ─► the nonce is forgotten
//! ```
//!
//! A start that ends anywhere in between is gone on with by the next one, with the same token.

use std::path::PathBuf;
use std::time::SystemTime;

use raft_host_proto::peer;
use raft_host_proto::peer::enrollment_client::EnrollmentClient;
use raft_host_proto::v1::{ErrorDetail, Reason};
use tokio::time::Instant;
use tonic::Status;

use super::join::{self, PATIENCE, PAUSE_MAX, PAUSE_MIN};
use super::{Join, ServeError};
use crate::api::JoinTicket;
use crate::certs::{Newcomer, NewcomerError};
use crate::config::{Config, ConfigError};
use crate::storage::DataDir;
use crate::tls::{FirstContact, TlsConfig};
use crate::types::{ClusterId, JoinNonce, NodeId};

/// A member may not have heard yet of a token that was just made.
const NEWS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// The folder with this node's files for TLS, if they are in one.
fn folder(tls: &TlsConfig) -> Option<PathBuf> {
    let dir = tls.certificate.as_deref()?.parent()?;
    let mut in_it = TlsConfig::default();
    in_it.use_folder(dir);
    let is_so = (&tls.certificate, &tls.key, &tls.peer_ca)
        == (&in_it.certificate, &in_it.key, &in_it.peer_ca);
    is_so.then(|| dir.to_owned())
}

/// Gets this node a certificate, if it comes with a token and has neither that nor data. `address`: where others
/// dial it, and something listens.
pub(super) async fn certify(config: &Config, join: &Join, address: &str) -> Result<(), ServeError> {
    let Some(ticket) = &join.ticket else { return Ok(()) };
    let Some(dir) = folder(&config.tls) else {
        let problem = "a join token gets this node its key, its certificate and the CA: say with --tls DIR where these \
                       are to be";
        return Err(ConfigError::Invalid(vec![problem.to_owned()]).into());
    };
    if DataDir::is_some_nodes(&config.data_dir) {
        tracing::info!("this node has its data already: the join token is not looked at");
        return Ok(());
    }
    let Some(newcomer) = blocking(move || Newcomer::prepare(&dir)).await? else {
        tracing::info!("this node has its certificate already: the join token is not looked at");
        return Ok(());
    };
    let request = peer::EnrollRequest {
        secret: ticket.secret().to_vec().into(),
        request: newcomer.request()?.into(),
        join: Some(join::request(None, address, JoinNonce(newcomer.nonce()), true)),
        hosts: more_hosts(config, address),
    };
    let (seed, answer) = ask(join, ticket, &request).await?;
    let refuse =
        |reason: &str| ServeError::EnrollRefused { seed: seed.clone(), reason: reason.to_owned() };
    let cluster = ClusterId::try_from(&answer.cluster_id[..])
        .map_err(|_| refuse("its answer makes no sense (the cluster's id)"))?;
    let node = NodeId(answer.node_id);
    let (certificate, ca) = (answer.certificate, answer.ca);
    blocking(move || newcomer.accept(cluster, node, &certificate, &ca, SystemTime::now())).await?;
    tracing::info!(%cluster, %node, "the cluster has signed this node's certificate");
    Ok(())
}

/// What this node is known by while it joins; drawn anew unless it has come with a token.
pub(super) async fn nonce(config: &Config) -> Result<JoinNonce, ServeError> {
    let Some(dir) = folder(&config.tls) else { return Ok(JoinNonce(rand::random())) };
    let known = blocking(move || Newcomer::joining(&dir)).await?;
    Ok(JoinNonce(known.unwrap_or_else(rand::random)))
}

/// It has its data: whoever loses that is another node, and must not pass for this one. Blocks.
pub(super) fn has_joined(config: &Config) -> Result<(), ServeError> {
    Ok(folder(&config.tls).as_deref().map_or(Ok(()), Newcomer::has_joined)?)
}

/// The host at which clients dial this node, where other nodes dial another one.
fn more_hosts(config: &Config, address: &str) -> Vec<String> {
    let host = |address: &str| {
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    };
    let of_clients = config.advertise.as_deref().map(host);
    of_clients.filter(|of_clients| *of_clients != host(address)).into_iter().collect()
}

async fn ask(
    join: &Join,
    ticket: &JoinTicket,
    request: &peer::EnrollRequest,
) -> Result<(String, peer::EnrollResponse), ServeError> {
    let contact = FirstContact::new(ticket.ca())?;
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let mut reason = String::new();
        for seed in &join.seeds {
            let status = match attempt(&contact, seed, request).await {
                Ok(answer) => return Ok((seed.clone(), answer)),
                Err(status) => status,
            };
            if let Some(reason) = contact.doubt() {
                return Err(ServeError::EnrollRefused { seed: seed.clone(), reason });
            }
            let is_unknown = ErrorDetail::of(&status)
                .is_some_and(|detail| detail.reason() == Reason::JoinTokenUnknown);
            let may_pass =
                join::may_pass(&status) || (is_unknown && began.elapsed() < NEWS_PATIENCE);
            if !may_pass {
                let reason = status.message().to_owned();
                return Err(ServeError::EnrollRefused { seed: seed.clone(), reason });
            }
            reason = format!("{seed}: {}", join::words(&status));
        }
        if began.elapsed() + pause > PATIENCE {
            return Err(ServeError::EnrollUnreachable { seeds: join.seeds.join(", "), reason });
        }
        tracing::warn!(%reason, "the cluster cannot sign this node's certificate yet; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(
    contact: &FirstContact,
    seed: &str,
    request: &peer::EnrollRequest,
) -> Result<peer::EnrollResponse, Status> {
    let channel = join::channel(contact.dialer(), seed)?;
    Ok(EnrollmentClient::new(channel).enroll(request.clone()).await?.into_inner())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NewcomerError> + Send + 'static,
) -> Result<T, ServeError> {
    Ok(tokio::task::spawn_blocking(work).await??)
}
