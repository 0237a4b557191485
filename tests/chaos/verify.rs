//! After the faults: everything heals, everybody agrees, nothing was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use raft_host_proto::dial::{ClientTls, Dialer};
use raft_host_proto::v1;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::nemesis::Cluster;
use super::node::{client_of, slow_fsync};
use super::workload::keys;
use crate::history::Value;

/// In which everything must be healthy again, and must agree, on a loaded machine.
const BOUND: Duration = Duration::from_secs(180);

/// Heals what is broken, kills and restarts all nodes, waits until all are healthy members with
/// the same state, and reads every key from every node. Returns how long it took until the
/// last was healthy.
pub(super) async fn verify(cluster: &Arc<Cluster>) -> anyhow::Result<Duration> {
    heal(cluster).await?;
    cluster.events.note("verifying", "everything is healed; all nodes are killed and restarted");
    let began = Instant::now();
    for node in &cluster.nodes {
        node.lock().await.kill()?;
    }
    for node in &cluster.nodes {
        cluster.restart(&mut *node.lock().await)?;
    }
    all_healthy(cluster, began + BOUND).await?;
    let healthy = began.elapsed();
    cluster.events.note("verifying", &format!("all healthy after {healthy:?}"));
    members_are_the_nodes(cluster, Instant::now() + BOUND).await?;
    same_index(cluster, Instant::now() + BOUND).await?;
    same_values(cluster).await?;
    Ok(healthy)
}

async fn heal(cluster: &Arc<Cluster>) -> anyhow::Result<()> {
    cluster.network.heal(true);
    for node in &cluster.nodes {
        let mut node = node.lock().await;
        node.signal("CONT")?;
        slow_fsync(&node.fsync_file(), Duration::ZERO)?;
        if let Some(disk) = &node.disk {
            disk.free()?;
        }
        node.program.clone_from(&cluster.programs[0]);
    }
    cluster.restart_ended().await
}

async fn all_healthy(cluster: &Arc<Cluster>, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let mut sick = Vec::new();
        for (at, listen) in cluster.listens.iter().enumerate() {
            if !is_healthy(&listen.to_string(), cluster.tls.as_ref()).await {
                sick.push(format!("node-{}", at + 1));
            }
        }
        if sick.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not healthy {BOUND:?} after the restart of all: {}", sick.join(", "));
        }
        cluster.restart_ended().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What `grpc.health.v1` says.
async fn is_healthy(address: &str, tls: Option<&ClientTls>) -> bool {
    let tuned = |endpoint: Endpoint| {
        endpoint.timeout(Duration::from_secs(3)).connect_timeout(Duration::from_secs(1))
    };
    let way = Dialer::of(tls).ok().and_then(|dialer| dialer.way(address).ok());
    let Some(way) = way else { return false };
    let Ok(channel) = way.tuned(tuned).connect().await else { return false };
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|answer| answer.get_ref().status == ServingStatus::Serving as i32)
}

/// Waits until all nodes are voters; members that no node answers for, because their join was
/// cut short, are removed.
async fn members_are_the_nodes(cluster: &Arc<Cluster>, deadline: Instant) -> anyhow::Result<()> {
    let client = cluster.client(0)?;
    loop {
        let mut ids = Vec::new();
        for listen in &cluster.listens {
            ids.extend(
                client_of(*listen, cluster.tls.as_ref())
                    .status()
                    .await
                    .map(|status| status.node_id),
            );
        }
        let complete = ids.len() == cluster.nodes.len();
        let members = client.members().await.map(|answer| answer.members).unwrap_or_default();
        let voters = members.iter().filter(|member| member.is_voter());
        let all_vote = voters.filter(|member| ids.contains(&member.node_id)).count() == ids.len();
        if complete && all_vote && members.len() == ids.len() {
            return Ok(());
        }
        if complete && all_vote {
            for ghost in members.iter().filter(|member| !ids.contains(&member.node_id)) {
                let id = ghost.node_id;
                cluster.events.note("ghost", &format!("id {id}, whose join was cut short"));
                if let Err(error) = client.remove_member(id).await {
                    cluster.events.note("not removed", &error.to_string());
                }
            }
        }
        if Instant::now() > deadline {
            bail!("after {BOUND:?} the nodes {ids:?} have the members {members:?}");
        }
        cluster.restart_ended().await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn same_index(cluster: &Arc<Cluster>, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let mut seen = Vec::new();
        for listen in &cluster.listens {
            let status = client_of(*listen, cluster.tls.as_ref()).status().await.ok();
            let group = status.and_then(|status| status.group("").cloned());
            seen.push(group.map(|group| (group.applied_index, group.module)));
        }
        if let Some(Some(first)) = seen.first()
            && seen.iter().all(|other| other.as_ref() == Some(first))
        {
            let index = first.0;
            cluster.events.note("verifying", &format!("all nodes have applied index {index}"));
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("after {BOUND:?} the nodes have not applied the same: {seen:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Reads every key from every node, for the history and from the node's own state.
async fn same_values(cluster: &Arc<Cluster>) -> anyhow::Result<()> {
    let recorder = &cluster.recorder;
    let keys = keys(&recorder.history()?);
    let mut first: BTreeMap<&String, Value> = BTreeMap::new();
    for (at, listen) in cluster.listens.iter().enumerate() {
        let client = super::workload::client(&[*listen], 0, cluster.tls.as_ref())?;
        let process = 1_000_000_000 + at as u64;
        for key in &keys {
            let read = recorder.read(process, &client, key).await?;
            let value = read.with_context(|| format!("node-{} does not answer", at + 1))?;
            let query = serde_json::json!({"op": "get", "key": key}).to_string();
            let local = client.query(query, v1::Consistency::Stale).await?;
            let local = recorder.value_of(key, local.outcome);
            let expected = *first.entry(key).or_insert(value);
            if value != expected || local != Some(expected) {
                recorder.anomaly(format!(
                    "{key} is {expected:?} on node-1, {value:?} and locally {local:?} on node-{}",
                    at + 1
                ));
            }
        }
    }
    cluster.events.note("verifying", &format!("{} keys read from every node", keys.len()));
    Ok(())
}
