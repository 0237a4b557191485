//! `raft-host drain` and `raft-host undrain`: maintenance of one node.

use clap::Args;
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// Takes the asked node off duty, for maintenance of its machine.
///
/// It hands leadership over and does not lead while others can, and it is not ready (/readyz and
/// gRPC's health say so), so load balancers send clients elsewhere. It goes on voting, following and
/// forwarding. `raft-host undrain` ends that, and so does a restart, which does not remember it.
#[derive(Args, Clone, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// Puts the asked node back on duty, after `raft-host drain`.
#[derive(Args, Clone, Debug)]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn drain(args: &DrainArgs) -> Ended {
    change(&args.remote, true)
}

pub(super) fn undrain(args: &UndrainArgs) -> Ended {
    change(&args.remote, false)
}

fn change(remote: &RemoteArgs, drains: bool) -> Ended {
    // The library asks whichever answers first.
    if remote.endpoints.len() != 1 {
        let word = if drains { "drained" } else { "put back on duty" };
        return Err(Failure::usage(format!(
            "which node is to be {word}? Name one with --endpoint; {} are given",
            remote.endpoints.len()
        )));
    }
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        let (answer, what) = match drains {
            true => (client.drain().await, "the drain"),
            false => (client.undrain().await, "the return to duty"),
        };
        answer.map_err(|error| remote::failure(&error).about(what))
    })?;
    match remote.output {
        Output::Json => print_json(&to_json(&answer, drains))?,
        Output::Table => print_text(&to_text(&answer, drains))?,
    }
    Ok(Exit::Done)
}

fn to_json(answer: &v1::DrainResponse, drains: bool) -> Value {
    json!({
        "node_id": answer.node_id,
        "drained": drains,
        "unchanged": answer.unchanged,
        "leader_id": answer.leader_id,
    })
}

fn to_text(answer: &v1::DrainResponse, drains: bool) -> String {
    let leader = match answer.leader_id {
        0 => "no leader is known".to_owned(),
        id if id == answer.node_id => "it leads".to_owned(),
        id => format!("node {id} leads"),
    };
    let what = match (drains, answer.unchanged) {
        (true, false) => "is drained",
        (true, true) => "was drained already",
        (false, false) => "is back on duty",
        (false, true) => "was on duty already",
    };
    format!("node {} {what}; {leader}", answer.node_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_which_node_it_was_and_who_leads() {
        let answer = v1::DrainResponse { node_id: 2, unchanged: false, leader_id: 3 };
        assert_eq!(to_text(&answer, true), "node 2 is drained; node 3 leads");
        assert_eq!(to_text(&answer, false), "node 2 is back on duty; node 3 leads");
        let answer = v1::DrainResponse { unchanged: true, leader_id: 2, ..answer };
        assert_eq!(to_text(&answer, true), "node 2 was drained already; it leads");
        let answer = v1::DrainResponse { leader_id: 0, ..answer };
        assert_eq!(to_text(&answer, false), "node 2 was on duty already; no leader is known");
        assert_eq!(to_json(&answer, true)["drained"], true);
    }
}
