//! A node whose snapshots are all damaged, and whose log does not reach back to the beginning: a member gives
//! it a state.
//!
//! What it voted and acknowledged is in its log and beside it, and stays. Only the state is gone that the log goes
//! on from, and any committed state that is not older than the log's start is as good: a member's backup is one. So
//! this is what the node would have found if it had received that as a snapshot and stopped before its log began
//! after it.

use std::fs::File;
use std::io::{BufReader, Seek as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::dial::Dialer;
use raft_host_proto::v1;
use raft_host_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use super::home::{Home, place};
use super::join::{channel, meant_for};
use super::restore::backup_loader;
use super::{Join, ServeError};
use crate::backup::BackupReader;
use crate::config::Config;
use crate::fsm::on_guest_stack;
use crate::node;
use crate::storage::{NodeIdentity, Stores};
use crate::transport::MAX_SNAPSHOT_BYTES;
use crate::types::{ClusterId, GroupId, LogPosition};

/// Until the next part of a state comes.
const PART_PATIENCE: Duration = Duration::from_secs(60);

/// Asks one member after the other for a state, and keeps the first that will do.
pub(super) async fn a_state(
    config: &Config,
    join: &Join,
    dialer: &Dialer,
) -> Result<(), ServeError> {
    let opened = config.clone();
    let (home, owner) = tokio::task::spawn_blocking(move || open(&opened)).await??;
    let home = Arc::new(home);
    let mut reason = "no member was named".to_owned();
    for seed in &join.seeds {
        match one_of(config, &home, owner, dialer, seed).await {
            Ok(position) => {
                tracing::warn!(
                    from = seed, index = %position.index,
                    "this node's own states were damaged, and it goes on with a member's"
                );
                return Ok(());
            }
            Err(why) => {
                tracing::warn!(from = seed, "no state of a member: {why}");
                reason = format!("{seed}: {why}");
            }
        }
    }
    Err(ServeError::NoState { place: place(config), reason })
}

fn open(config: &Config) -> Result<(Home, NodeIdentity), ServeError> {
    let owned = Home::owned(config)?;
    let (dir, owner) = owned.ok_or_else(|| ServeError::NothingToStart { place: place(config) })?;
    Ok((Home::open(config, dir, owner)?.0, owner))
}

async fn one_of(
    config: &Config,
    home: &Arc<Home>,
    owner: NodeIdentity,
    dialer: &Dialer,
    seed: &str,
) -> Result<LogPosition, String> {
    let dir = home.path().unwrap_or(&config.data_dir).to_owned();
    let mut file = tempfile::tempfile_in(&dir).map_err(|error| error.to_string())?;
    let channel = channel(dialer, seed).map_err(|status| status.message().to_owned())?;
    fetch(AdminClient::new(channel), owner.cluster, &mut file).await?;
    let (config, stores) = (config.clone(), home.stores().clone());
    let work = move || {
        on_guest_stack("adopt", || keep(&config, &stores, owner.cluster, file))
            .map_err(|error| format!("no thread: {error}"))?
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// Writes what the member streams.
async fn fetch(
    mut client: AdminClient<Channel>,
    cluster: ClusterId,
    file: &mut File,
) -> Result<(), String> {
    let request = meant_for(cluster, v1::BackupRequest::default());
    let failed = |status: tonic::Status| status.message().to_owned();
    let mut parts = client.backup(request).await.map_err(failed)?.into_inner();
    let mut bytes = 0;
    loop {
        let next = tokio::time::timeout(PART_PATIENCE, parts.message()).await;
        let next = next.map_err(|_| format!("nothing came for {PART_PATIENCE:?}"))?;
        let Some(part) = next.map_err(failed)? else { break };
        bytes += part.data.len() as u64;
        if bytes > MAX_SNAPSHOT_BYTES {
            return Err(format!("its state has more than {MAX_SNAPSHOT_BYTES} bytes"));
        }
        file.write_all(&part.data).map_err(|error| format!("writing it: {error}"))?;
    }
    file.rewind().map_err(|error| format!("reading it again: {error}"))
}

/// Makes the newest snapshot of it, if the log goes on from there.
fn keep(
    config: &Config,
    stores: &Stores,
    cluster: ClusterId,
    file: File,
) -> Result<LogPosition, String> {
    let reader = BackupReader::open(BufReader::with_capacity(1 << 20, file));
    let reader = reader.map_err(|error| format!("what it sent {error}"))?;
    let facts = reader.facts().clone();
    if facts.cluster != cluster {
        return Err(format!("it is of cluster {}, and this node of {cluster}", facts.cluster));
    }
    let loader = backup_loader(config).map_err(|error| error.to_string())?;
    let mut machine = reader.restore(loader).map_err(|error| format!("what it sent {error}"))?;
    node::adopt(stores, GroupId::MAIN, facts.position, &mut machine)
        .map_err(|error| error.to_string())?;
    Ok(facts.position)
}
