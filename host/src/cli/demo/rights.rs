//! What the demo shows of rights.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use raft_host_proto::client::{Client, ClientError};
use raft_host_proto::{Secret, v1};
use serde_json::json;
use tokio::time::Instant;

use super::cluster::Cluster;

/// Who may do what, and that nobody else does.
pub(super) async fn tell(
    cluster: &Cluster,
    admin: &Client,
    say: impl Fn(&str),
) -> anyhow::Result<()> {
    let stranger = cluster.stranger(1)?;
    ensure!(apply(&stranger).await.is_err(), "somebody without a certificate was let in");
    say("a client without a certificate gets no connection");
    let known = admin.who_am_i().await?;
    ensure!(known.in_force && known.name == "admin", "the certificate's principal: {known:?}");
    say("rights are in force since the first entry: the certificate of `admin` may do everything");
    let token = async |name: &str, role: &str| {
        let made = admin.create_token(name, vec![role.to_owned()], 0, "").await;
        anyhow::Ok(made.with_context(|| format!("making a token of {name}"))?)
    };
    let root = token("root", "admin").await?;
    let root = cluster.client_with(Secret::new(root.token))?;
    apply(&root).await.context("a token of an admin")?;
    say("one admin token was made; whoever shows it may do everything, too");
    let made = token("watcher", "reader").await?;
    let reader = cluster.client_with(Secret::new(made.token))?;
    let count = json!({ "op": "count" }).to_string();
    reader.query(count.clone(), v1::Consistency::Linearizable).await.context("a reader asks")?;
    match apply(&reader).await {
        Err(ClientError::Refused { code: tonic::Code::PermissionDenied, .. }) => {}
        other => bail!("a reader's command: {other:?}"),
    }
    say("a token of the role `reader` may ask, and its command is refused without effect");
    let change = v1::access_change::Change::RevokeToken(made.index);
    admin.set_access(vec![v1::AccessChange { change: Some(change) }]).await.context("revoking")?;
    // The node that is asked hears of it from the log.
    let given_up = Instant::now() + Duration::from_secs(1);
    while reader.query(count.clone(), v1::Consistency::Linearizable).await.is_ok() {
        ensure!(Instant::now() < given_up, "a revoked token was taken for a second");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say("revoked, it is good for nothing; nobody else noticed");
    Ok(())
}

async fn apply(client: &Client) -> Result<v1::ApplyResponse, ClientError> {
    client.apply(json!({ "op": "set", "key": "by", "value": "whom" }).to_string()).await
}
