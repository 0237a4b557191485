//! Which cluster answers. Every answer says so, and a request that is meant for another cluster is
//! refused before anything of it is read.
//!
//! An address may come to belong to another cluster: a node that lost its data and is started with its
//! old command line forms one. Clients send the id of the cluster that they know, and so do nodes with
//! what they pass to their leader.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::middleware::Next;
use raft_host_proto::v1::Reason;
use raft_host_proto::{CLUSTER_KEY, FORWARDED_KEY, v1};

use super::context::Context;
use super::convert::{bytes, cluster_from_wire};
use super::failure::Failure;
use crate::node::NodeHandle;
use crate::types::{ClusterId, Origin};

/// The middleware.
pub(super) async fn check(
    State(handle): State<NodeHandle>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let ours = handle.identity().cluster;
    let origins = || {
        let view = handle.machine().borrow().clone();
        view.map(|view| Arc::clone(&view.info.origins)).unwrap_or_default()
    };
    let mut response = match refusal(ours, origins, request.headers()) {
        Some(failure) => failure.into_status().into_http(),
        None => next.run(request).await,
    };
    let value = HeaderValue::try_from(ours.to_string()).expect("digits are ASCII");
    response.headers_mut().insert(CLUSTER_KEY, value);
    response
}

/// Why a request with these headers is none for this cluster, if it is none. A cluster that was restored
/// knows those that it comes from.
fn refusal(
    ours: ClusterId,
    origins: impl Fn() -> Arc<Vec<Origin>>,
    headers: &HeaderMap,
) -> Option<Failure> {
    let mut meant = headers.get_all(CLUSTER_KEY).iter();
    meant.find_map(|value| {
        let parsed = value.to_str().ok().and_then(|text| text.parse::<ClusterId>().ok());
        let Some(theirs) = parsed else {
            let words = format!(
                "the metadata {CLUSTER_KEY} must be the id of a cluster: 32 hexadecimal digits"
            );
            return Some(Failure::none(Reason::InvalidRequest, words));
        };
        if theirs == ours {
            return None;
        }
        let passed_on = headers.contains_key(FORWARDED_KEY);
        let origin = origins().iter().rev().find(|origin| origin.cluster == theirs).copied();
        if let Some(Origin { position, .. }) = origin.filter(|_| !passed_on) {
            let words = format!(
                "the request is meant for cluster {theirs}, and this is cluster {ours}, which was made of that \
                 as of entry {} (restored from a backup, or recovered after a loss): what came after it is \
                 not here, and sessions of before are not known; begin anew with this cluster's id",
                position.index
            );
            return Some(Failure::none(Reason::ClusterRestored, words).about(position.index.0));
        }
        Some({
            // A node that passes a request on looks for its leader again.
            let reason = match passed_on {
                true => Reason::NotLeader,
                false => Reason::OtherCluster,
            };
            let words = format!(
                "this node belongs to cluster {ours}, and the request is meant for cluster {theirs}: \
                 check the addresses, or whether a data directory was emptied"
            );
            Failure::none(reason, words)
        })
    })
}

/// Answers which cluster this is; a node that nobody should ask does not say.
pub(super) fn name(context: &Context) -> Result<v1::ClusterResponse, Failure> {
    if context.handle.is_unconfirmed() {
        let words = context.handle.not_serving().unwrap_or_default();
        return Err(Failure::none(Reason::Unconfirmed, words));
    }
    Ok(v1::ClusterResponse { cluster_id: bytes(context.handle.identity().cluster.0) })
}

/// A person says that this cluster is meant to be. Durable when this returns.
pub(super) async fn confirm(
    context: &Context,
    request: v1::ConfirmRequest,
) -> Result<v1::ConfirmResponse, Failure> {
    let ours = context.handle.identity().cluster;
    let meant =
        cluster_from_wire("the id of the cluster that is meant to be", &request.cluster_id)?;
    if meant != ours {
        let words = format!("this node belongs to cluster {ours}, not to {meant}");
        return Err(Failure::none(Reason::OtherCluster, words));
    }
    let rivals = context.handle.rivals().borrow().clone();
    if !rivals.is_on_probation {
        return Ok(v1::ConfirmResponse { was_unconfirmed: false });
    }
    let was_unconfirmed = rivals.is_unconfirmed();
    let confirm = Arc::clone(&context.info.confirm);
    let confirmed = tokio::task::spawn_blocking(move || confirm()).await;
    confirmed.map_err(|error| error.to_string()).flatten().map_err(|error| {
        Failure::none(Reason::Internal, format!("the confirmation was not written down: {error}"))
    })?;
    context.handle.end_probation();
    tracing::info!(cluster = %ours, was_unconfirmed, "a person has confirmed this cluster");
    Ok(v1::ConfirmResponse { was_unconfirmed })
}

/// For the status page.
pub(super) fn rival_to_wire(context: &Context) -> Option<v1::Rival> {
    let rivals = context.handle.rivals().borrow().clone();
    let (rival, silent) = rivals.rival()?;
    Some(v1::Rival {
        cluster_id: bytes(rival.cluster.0),
        node_id: rival.node.0,
        address: rival.address.clone(),
        dialled_address: rival.dialled.clone(),
        silent_ms: silent.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        hellos: rivals.hellos,
        unconfirmed: rivals.is_unconfirmed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, LogPosition, Term};

    #[test]
    fn only_a_request_for_another_cluster_is_refused_and_by_both_names() {
        let (ours, other) = (ClusterId([1; 16]), ClusterId([2; 16]));
        let headers = |values: &[&str], forwarded: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CLUSTER_KEY, value.parse().expect("ASCII"));
            }
            if forwarded {
                headers.insert(FORWARDED_KEY, HeaderValue::from_static("1"));
            }
            headers
        };
        let (our_id, other_id) = (ours.to_string(), other.to_string());
        let restored = ClusterId([3; 16]);
        let position = LogPosition { index: Index(41), term: Term(2) };
        let origin = Origin { cluster: restored, position, time_ms: 0 };
        let origins = || Arc::new(vec![origin]);
        let refused =
            |values: &[&str], forwarded| refusal(ours, origins, &headers(values, forwarded));
        assert_eq!(refused(&[], false), None);
        assert_eq!(refused(&[&our_id], false), None);
        let failure = refused(&[&our_id, &other_id], false).expect("one of them is not ours");
        assert_eq!(failure.reason(), Reason::OtherCluster);
        assert_eq!(failure.effect(), v1::Effect::None);
        assert!(failure.message().contains(&our_id) && failure.message().contains(&other_id));
        let failure = refused(&[&other_id], true).expect("passed on");
        assert!(failure.worth_rerouting(), "{failure:?}");
        let restored = restored.to_string();
        let failure = refused(&[&restored], false).expect("of before");
        assert_eq!(failure.reason(), Reason::ClusterRestored);
        let words = "which was made of that as of entry 41";
        assert!(failure.message().contains(words), "{failure:?}");
        assert_eq!(refused(&[&restored], true).expect("passed on").reason(), Reason::NotLeader);
        for nonsense in ["", "c1", "x"] {
            let failure = refused(&[nonsense], false).expect("no id");
            assert_eq!(failure.reason(), Reason::InvalidRequest);
        }
    }
}
