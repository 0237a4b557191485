//! `raft-host confirm`: a new cluster is meant to be.

use clap::Args;
use raft_host_proto::client::ClusterId;
use serde_json::json;

use super::exit::{Ended, Exit};
use super::output::{Output, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// Says that a cluster that was just formed is meant to be.
///
/// A new cluster whose node has the address of another cluster's member serves nobody: it may be that
/// member, started without its data. `raft-host status` of the node says so, and names both clusters.
#[derive(Args, Clone, Debug)]
pub(super) struct ConfirmArgs {
    /// The new cluster, as `raft-host status` of its node shows it: 32 hexadecimal digits.
    cluster: ClusterId,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &ConfirmArgs) -> Ended {
    let mut remote = args.remote.clone();
    remote.cluster_id = Some(args.cluster);
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        let confirmed = client.confirm_cluster().await;
        confirmed.map_err(|error| remote::failure(&error).about("the confirmation"))
    })?;
    let cluster = args.cluster;
    match remote.output {
        Output::Json => print_json(&json!({
            "cluster_id": cluster.to_string(),
            "was_unconfirmed": answer.was_unconfirmed,
        }))?,
        Output::Table if answer.was_unconfirmed => {
            print_text(&format!("cluster {cluster} is confirmed; its node serves clients now"))?;
        }
        Output::Table => print_text(&format!("cluster {cluster} is confirmed; it served already"))?,
    }
    Ok(Exit::Done)
}
