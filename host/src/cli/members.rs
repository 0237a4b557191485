//! `raft-host members`: who is in the cluster, and changing that.

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit};
use super::output::{Output, print_json, print_text, table};
use super::remote::{self, RemoteArgs};
use crate::types::check_address;

/// Lists and changes the members of the cluster.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct MembersArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Lists the members (the default).
    List,
    /// Adds a node as a learner: it follows the log and does not vote until it is promoted.
    Add {
        /// What other nodes dial: host:port.
        #[arg(value_parser = parse_address)]
        address: String,
        /// Its node id; the leader draws a fresh one if none is given.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        node_id: Option<u64>,
    },
    /// Turns a learner that has caught up into a voter.
    Promote {
        /// The node's id, as `raft-host members` lists it.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Removes a node. It stops by itself and cannot come back under its id.
    Remove {
        /// The node's id, as `raft-host members` lists it.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Even if no majority of the voters that stay has been heard from recently. If they do
        /// not come back, the cluster never serves again.
        #[arg(long)]
        force: bool,
    },
    /// Makes a voter a learner: it follows the log and does not vote until it is promoted again.
    Demote {
        /// The node's id, as `raft-host members` lists it.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Even if no majority of the voters that stay has been heard from recently. If they do
        /// not come back, the cluster never serves again.
        #[arg(long)]
        force: bool,
    },
    /// Removes a node and has a learner that has caught up vote in its place, by one change: there are never
    /// fewer voters.
    Replace {
        /// The node that is removed, as `raft-host members` lists it.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// The node that votes in its place.
        #[arg(long = "with", value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        successor: u64,
        /// Even if no majority of the voters after that has been heard from recently.
        #[arg(long)]
        force: bool,
    },
    /// Hands leadership to a voter: the given one, or the most up-to-date.
    Transfer {
        /// The node's id, as `raft-host members` lists it.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
}

const CHANGE: &str = "the membership change";

pub(super) fn run(args: &MembersArgs) -> Ended {
    let remote = &args.remote;
    let mut new = None;
    let (members, sentence) = remote::block_on(async {
        let client = remote.client().await?;
        let change = |error| remote::failure(&error).about(CHANGE);
        Ok(match &args.action {
            None | Some(Action::List) => {
                let members = client.members().await;
                (members.map_err(|error| remote::failed_question(&error))?, None)
            }
            Some(Action::Add { address, node_id }) => {
                let answer =
                    client.add_member(node_id.unwrap_or(0), address).await.map_err(change)?;
                let sentence = added(answer.node_id, address);
                new = Some(answer.node_id);
                (v1::MembersResponse { members: answer.members }, Some(sentence))
            }
            Some(Action::Promote { id }) => {
                let members = client.promote_member(*id).await.map_err(change)?;
                (members, Some(format!("node {id} is a voter now")))
            }
            Some(Action::Remove { id, force }) => {
                let removed = match force {
                    true => client.force_remove_member(*id).await,
                    false => client.remove_member(*id).await,
                };
                let members = removed.map_err(change)?;
                (members, Some(format!("node {id} is removed")))
            }
            Some(Action::Demote { id, force }) => {
                let members = client.demote_member(*id, *force).await.map_err(change)?;
                (members, Some(format!("node {id} is a learner now")))
            }
            Some(Action::Replace { id, successor, force }) => {
                let replaced = client.replace_member(*id, *successor, *force).await;
                let sentence =
                    format!("node {id} is removed, and node {successor} votes in its place");
                (replaced.map_err(change)?, Some(sentence))
            }
            Some(Action::Transfer { id }) => {
                let answer = client.transfer_leadership(id.unwrap_or(0)).await;
                let leader_id = answer
                    .map_err(|error| remote::failure(&error).about("the transfer of leadership"))?
                    .leader_id;
                // The list is for people only; the transfer is done without it.
                let members = client.members().await.unwrap_or_default();
                (members, Some(format!("node {leader_id} leads now")))
            }
        })
    })?;
    show(remote.output, &members, sentence.as_deref(), new)
}

/// What other nodes could dial; a scheme in front is tolerated.
fn parse_address(text: &str) -> Result<String, String> {
    let address = remote::parse_address(text)?;
    check_address(&address).map_err(|error| error.to_string())?;
    Ok(address)
}

fn added(node_id: u64, address: &str) -> String {
    format!(
        "added node {node_id} at {address} as a learner; `raft-host members promote {node_id}` \
         makes it a voter once it has caught up"
    )
}

/// `new`: the id of the member that was added.
fn show(
    output: Output,
    members: &v1::MembersResponse,
    sentence: Option<&str>,
    new: Option<u64>,
) -> Ended {
    match output {
        Output::Json => {
            let mut value = to_json(members);
            if let Some(new) = new {
                value["node_id"] = json!(new);
            }
            print_json(&value)?;
        }
        Output::Table => {
            let head = sentence.map_or(String::new(), |sentence| format!("{sentence}\n\n"));
            print_text(&(head + &to_text(members)))?;
        }
    }
    Ok(Exit::Done)
}

fn to_text(members: &v1::MembersResponse) -> String {
    let rows: Vec<Vec<String>> = members
        .members
        .iter()
        .map(|member| {
            let leader = if member.leader { "yes" } else { "" };
            vec![
                member.node_id.to_string(),
                member.address.clone(),
                kind_name(member.kind()).to_owned(),
                leader.to_owned(),
            ]
        })
        .collect();
    table(&["node", "address", "role", "leader"], &rows)
}

/// `voter`, `learner`, ...
pub(super) fn kind_name(kind: v1::member_info::Kind) -> &'static str {
    use v1::member_info::Kind;
    match kind {
        Kind::Unspecified => "unknown",
        Kind::Voter => "voter",
        Kind::Learner => "learner",
        Kind::Outgoing => "outgoing",
    }
}

fn to_json(members: &v1::MembersResponse) -> Value {
    let list = members.members.iter().map(|member| {
        json!({
            "node_id": member.node_id,
            "address": member.address,
            "role": kind_name(member.kind()),
            "leader": member.leader,
        })
    });
    json!({ "members": list.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_with_role_and_leader() {
        use v1::member_info::Kind;
        let member = |node_id, kind: Kind, leader| v1::MemberInfo {
            node_id,
            address: format!("n{node_id}:7400"),
            kind: kind.into(),
            leader,
        };
        let members = v1::MembersResponse {
            members: vec![member(1, Kind::Voter, true), member(12, Kind::Learner, false)],
        };
        assert_eq!(
            to_text(&members),
            "NODE  ADDRESS   ROLE     LEADER\n   1  n1:7400   voter    yes\n  12  n12:7400  learner"
        );
        assert_eq!(to_json(&members)["members"][1]["role"], "learner");
    }
}
