//! What comes in, as metrics: calls, items of streams, connections, and what waits.

use std::collections::BTreeMap;
use std::fmt;

use super::page::{Labels, Page};
use crate::api::connections::Counts;
use crate::api::traffic::{APPLY_STREAM, CODES, Method, Outcomes, QUERY_STREAM, Traffic};
use crate::node::Queue;
use crate::types::NodeId;

fn by_method(name: &str) -> Labels {
    vec![("method", name.to_owned())]
}

/// Of a method that nobody has called yet only that it went well, no times; of all others every code, so
/// that the first failure is seen as an increase.
fn by_code<'a>(name: &'a str, outcomes: &Outcomes) -> impl Iterator<Item = (Labels, u64)> + 'a {
    let counts = outcomes.codes();
    let shown = if counts.iter().any(|count| *count > 0) { CODES.len() } else { 1 };
    CODES.into_iter().zip(counts).take(shown).map(move |(code, count)| {
        (vec![("method", name.to_owned()), ("code", code.to_owned())], count)
    })
}

pub(super) fn calls(page: &mut Page<'_>, traffic: &Traffic) -> fmt::Result {
    let methods = traffic.methods();
    page.counter(
        "raft_host_requests",
        "Calls of clients and operators that ended, by method and gRPC code. One that another node \
         passed on is counted there and here.",
        methods.iter().flat_map(|method| by_code(&method.name, &method.calls)),
    )?;
    let is_shown =
        |method: &&Method| !method.streams && method.calls.codes().iter().any(|count| *count > 0);
    page.durations_of(
        "raft_host_request_duration",
        "Time from the headers of a call to the end of its answer, by method; not of streams.",
        methods
            .iter()
            .filter(is_shown)
            .map(|method| (by_method(&method.name), &method.calls.durations)),
    )?;
    page.gauges(
        "raft_host_requests_active",
        "Calls that have not ended, by method.",
        methods.iter().map(|method| (by_method(&method.name), method.active())),
    )?;
    let streams = [(APPLY_STREAM, &traffic.commands), (QUERY_STREAM, &traffic.questions)];
    page.counter(
        "raft_host_stream_requests",
        "Commands and questions of streams that were answered, by the stream's method and the gRPC code \
         of their answer.",
        streams.into_iter().flat_map(|(name, outcomes)| by_code(name, outcomes)),
    )?;
    page.durations_of(
        "raft_host_stream_request_duration",
        "Time from when they were read until they had their answers.",
        streams.into_iter().map(|(name, outcomes)| (by_method(name), &outcomes.durations)),
    )
}

/// Those of the services' port, if it is served, and of the one for metrics.
pub(super) fn connections(
    page: &mut Page<'_>,
    services: Option<Counts>,
    metrics: Counts,
) -> fmt::Result {
    let listeners: Vec<_> = services
        .map(|counts| ("services", counts))
        .into_iter()
        .chain([("metrics", metrics)])
        .collect();
    let of = |listener: &str| vec![("listener", listener.to_owned())];
    page.gauges(
        "raft_host_connections",
        "Open connections; who has not introduced itself as a member is a client.",
        listeners.iter().flat_map(|(listener, counts)| {
            [("client", counts.clients), ("member", counts.members)].map(|(kind, count)| {
                let mut labels = of(listener);
                labels.push(("kind", kind.to_owned()));
                (labels, count)
            })
        }),
    )?;
    page.counter(
        "raft_host_connections_accepted",
        "Connections that were taken in.",
        listeners.iter().map(|(listener, counts)| (of(listener), counts.accepted)),
    )
}

pub(super) fn queues(
    page: &mut Page<'_>,
    node: &[Queue],
    port: &[Queue],
    peers: &BTreeMap<NodeId, u64>,
) -> fmt::Result {
    let all = || node.iter().chain(port);
    let of = |queue: &Queue| vec![("queue", queue.name.to_owned())];
    page.bytes_of(
        "raft_host_queue",
        "What waits somewhere in this node.",
        all().map(|queue| (of(queue), queue.bytes)),
    )?;
    page.bytes_of(
        "raft_host_queue_limit",
        "With how much no more is taken there, where that has a bound of its own.",
        all().filter_map(|queue| Some((of(queue), queue.max_bytes?))),
    )?;
    page.bytes_of(
        "raft_host_peer_queue",
        "Messages that wait to be sent to a peer.",
        peers.iter().map(|(peer, bytes)| (vec![("peer", peer.to_string())], *bytes)),
    )
}
