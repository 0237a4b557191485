//! Asking a cluster to take this node in.

use std::time::Duration;

use raft_host_proto::dial::Dialer;
use raft_host_proto::peer::membership_client::MembershipClient;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::{peer, v1};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{Join, ServeError};
use crate::transport::PROTOCOLS;
use crate::types::{ClusterId, JoinNonce, Member, NodeId};

/// How long one attempt may take: the cluster commits a membership change meanwhile.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long dialing may take.
const DIAL: Duration = Duration::from_secs(3);
/// First pause between rounds through all addresses; doubles up to [`PAUSE_MAX`].
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(200);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Nodes with lower ids are waited for so long.
const ORDER_PATIENCE: Duration = Duration::from_secs(15);
/// A cluster that nobody can reach for so long is not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What the cluster answered.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) members: Vec<Member>,
}

/// Asks one address after the other until one takes this node in.
pub(super) async fn ask(
    dialer: &Dialer,
    join: &Join,
    address: &str,
    // One for all attempts: whoever took this node in already knows it by that.
    nonce: JoinNonce,
) -> Result<Admission, ServeError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let began = tokio::time::Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let out_of_order = began.elapsed() >= ORDER_PATIENCE;
        let mut reason = String::new();
        for seed in &join.seeds {
            match attempt(dialer, seed, join, address, nonce, out_of_order).await {
                Ok(admission) => return Ok(admission),
                Err(status) if !may_pass(&status) => {
                    let reason = status.message().to_owned();
                    return Err(ServeError::JoinRefused { seed: seed.clone(), reason });
                }
                Err(status) => reason = format!("{seed}: {}", words(&status)),
            }
        }
        if tokio::time::Instant::now() + pause > deadline {
            return Err(ServeError::JoinUnreachable { seeds: join.seeds.join(", "), reason });
        }
        tracing::warn!(%reason, "the cluster cannot take this node in yet; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The cluster that the addresses belong to: `expected` if any of them does, else by the first that
/// answers. All are asked at once: when a whole cluster is restarted, each node finds the others
/// listening but silent.
pub(super) async fn cluster_at(
    dialer: &Dialer,
    seeds: &[String],
    expected: ClusterId,
) -> Option<(String, ClusterId)> {
    first_to_answer(dialer, seeds, expected, DIAL).await
}

async fn first_to_answer(
    dialer: &Dialer,
    seeds: &[String],
    expected: ClusterId,
    patience: Duration,
) -> Option<(String, ClusterId)> {
    let mut asked: JoinSet<_> =
        seeds.iter().map(|seed| cluster_of(dialer.clone(), seed.clone(), patience)).collect();
    let mut other = None;
    while let Some(answer) = asked.join_next().await {
        let Ok(Some(found)) = answer else { continue };
        if found.1 == expected {
            return Some(found);
        }
        other = other.or(Some(found));
    }
    other
}

async fn cluster_of(
    dialer: Dialer,
    seed: String,
    patience: Duration,
) -> Option<(String, ClusterId)> {
    let mut client = client(&dialer, &seed).ok()?;
    let mut request = Request::new(v1::StatusRequest::default());
    request.set_timeout(patience);
    match client.status(request).await {
        Ok(answer) => {
            let status = answer.into_inner();
            if status.rival.is_some_and(|rival| rival.unconfirmed) {
                tracing::debug!(%seed, "nobody has confirmed the cluster that answers there");
                return None;
            }
            let cluster = ClusterId::try_from(&status.cluster_id[..]).ok()?;
            Some((seed, cluster))
        }
        Err(status) => {
            tracing::debug!(%seed, reason = status.message(), "not reachable");
            None
        }
    }
}

/// A request that any other cluster refuses: an address may have come to belong to another one.
pub(super) fn meant_for<T>(cluster: ClusterId, message: T) -> Request<T> {
    let mut request = Request::new(message);
    raft_host_proto::mean_for(&mut request, cluster.0);
    request
}

/// A lazy connection.
pub(super) fn client(dialer: &Dialer, address: &str) -> Result<AdminClient<Channel>, Status> {
    Ok(AdminClient::new(channel(dialer, address)?))
}

pub(super) fn channel(dialer: &Dialer, address: &str) -> Result<Channel, Status> {
    let way = dialer.way(address).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(way.tuned(|endpoint| endpoint.connect_timeout(DIAL).timeout(ATTEMPT)).connect_lazy())
}

/// What a node without data asks.
pub(super) fn request(
    id: Option<NodeId>,
    address: &str,
    nonce: JoinNonce,
    out_of_order: bool,
) -> peer::JoinRequest {
    peer::JoinRequest {
        address: address.to_owned(),
        node_id: id.map_or(0, |id| id.0),
        protocol_min: *PROTOCOLS.start(),
        protocol_max: *PROTOCOLS.end(),
        level: super::release::offered_level().0,
        nonce: nonce.0.to_vec().into(),
        out_of_order,
        ..Default::default()
    }
}

async fn attempt(
    dialer: &Dialer,
    seed: &str,
    join: &Join,
    address: &str,
    nonce: JoinNonce,
    out_of_order: bool,
) -> Result<Admission, Status> {
    let request = request(join.node_id, address, nonce, out_of_order);
    let answer = MembershipClient::new(channel(dialer, seed)?).join(request).await?.into_inner();
    admission(answer).map_err(|what| {
        // Another answer is not to be expected.
        let words = format!("its answer makes no sense ({what}); is it a raft-host?");
        Status::failed_precondition(words)
    })
}

fn admission(answer: peer::JoinResponse) -> Result<Admission, &'static str> {
    let cluster = ClusterId::try_from(&answer.cluster_id[..]).map_err(|_| "the cluster's id")?;
    if answer.node_id == 0 {
        return Err("no node id");
    }
    let members = answer
        .members
        .into_iter()
        .map(|member| Member { id: NodeId(member.node_id), address: member.address })
        .collect();
    Ok(Admission { cluster, node: NodeId(answer.node_id), members })
}

/// "Connection refused" rather than what the layers above say about it.
pub(super) fn words(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = match std::error::Error::source(status) {
        Some(source) => source,
        None => return status.message().to_owned(),
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Whether asking again may help: nobody there, no leader yet, another change under way, a connection
/// that broke (which this side reports, in whatever words).
pub(super) fn may_pass(status: &Status) -> bool {
    let is_local = std::error::Error::source(status).is_some();
    let is_unsaid = status.metadata().get(raft_host_proto::EFFECT_KEY).is_none();
    let is_broken = is_unsaid && matches!(status.code(), Code::Unknown | Code::Internal);
    is_local
        || is_broken
        || matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Aborted
                | Code::ResourceExhausted
        )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A seed that closes connections half way, as one that is just being restarted.
    #[tokio::test]
    async fn a_connection_that_breaks_is_no_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let seed = listener.local_addr().expect("bound").to_string();
        let breaking = async {
            loop {
                let (mut stream, _) = listener.accept().await.expect("somebody asks");
                // The preface of HTTP/2 at least, so that it is a connection and then none.
                let mut request = [0; 24];
                let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut request).await;
                read.expect("a preface");
            }
        };
        let join = Join { seeds: vec![seed.clone()], ..Join::default() };
        let (dialer, nonce) = (Dialer::plain(), JoinNonce([1; 16]));
        tokio::select! {
            answer = attempt(&dialer, &seed, &join, "127.0.0.1:1", nonce, true) => {
                let status = answer.expect_err("nobody answers");
                assert!(may_pass(&status), "{status:?}");
            }
            () = breaking => {}
        }
        let said = Status::internal("a bug");
        let mut said_so = said.clone();
        said_so.metadata_mut().insert(raft_host_proto::EFFECT_KEY, "none".parse().expect("ASCII"));
        assert!(may_pass(&said) && !may_pass(&said_so));
        assert!(!may_pass(&Status::invalid_argument("no")));
    }

    /// A cluster of five that was started again with `--join` lost twelve seconds: each node
    /// waited for one silent node after the other.
    #[tokio::test]
    async fn a_silent_address_does_not_keep_the_others_from_being_asked() {
        let (mut silent, mut seeds) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            seeds.push(listener.local_addr().expect("bound").to_string());
            silent.push(listener);
        }
        let expected = ClusterId([1; 16]);
        let asking =
            async move { first_to_answer(&Dialer::plain(), &seeds, expected, ATTEMPT).await };
        let all_asked = async {
            let mut connections = Vec::new();
            for listener in &silent {
                connections.push(listener.accept().await.expect("somebody asks").0);
            }
            let mut request = [0; 4096];
            while let Ok(count) = connections[0].try_read(&mut request) {
                assert_ne!(count, 0, "the first was given up before the last was asked");
            }
        };
        tokio::select! {
            found = asking => panic!("gave up before all were asked: {found:?}"),
            () = all_asked => {}
        }
    }
}
