//! `raft-host level`: what the cluster's log may hold, and letting it hold more.

use std::time::Duration;

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, facts, human_duration, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// Shows the cluster's level, and raises it.
///
/// What a new version writes into the log comes with a level. When all members run a version that offers
/// a higher one, the leader raises the level by itself after a while (node.level_settle_ms); until then
/// the version before can be put back on every node, and after that on none.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct LevelArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Shows the level in force and what the members offer, as the leader knows it (the default).
    Show,
    /// Raises the level now. It is never lowered.
    ///
    /// Refused while a member does not offer it, or is not heard from within a few seconds.
    Raise {
        /// To this level [default: the highest that all members offer].
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
        /// Raise it: without this, says what would happen.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: &LevelArgs) -> Ended {
    match &args.action {
        None | Some(Action::Show) => show(&args.remote),
        Some(Action::Raise { to, yes }) => raise(&args.remote, *to, *yes),
    }
}

/// As the leader knows it, or else the node that answers.
async fn status(remote: &RemoteArgs) -> Result<(u64, v1::LevelStatus), Failure> {
    let client = remote.client().await?;
    let asked = client.status().await.map_err(|error| remote::failed_question(&error))?;
    let group = asked.group("").cloned().unwrap_or_default();
    let of_leader = match group.leader_id == asked.node_id || group.leader_address.is_empty() {
        true => None,
        false => leaders(remote, &group.leader_address).await,
    };
    let status = of_leader.unwrap_or(asked);
    let level = status.group("").and_then(|group| group.level.clone()).unwrap_or_default();
    Ok((status.node_id, level))
}

/// A leader that this machine does not reach knows more, but is not needed.
async fn leaders(remote: &RemoteArgs, address: &str) -> Option<v1::StatusResponse> {
    let ask = async {
        let mut admin = remote.admin(address).await.ok()?;
        admin.status(v1::StatusRequest::default()).await.ok()
    };
    let answer = tokio::time::timeout(remote.timeout(), ask).await.ok().flatten()?;
    Some(answer.into_inner())
}

fn show(remote: &RemoteArgs) -> Ended {
    let (node, level) = remote::block_on(status(remote))?;
    match remote.output {
        Output::Json => {
            let mut value = to_json(&level);
            value["node_id"] = json!(node);
            print_json(&value)?;
        }
        Output::Table => print_text(&to_text(node, &level))?,
    }
    Ok(Exit::Done)
}

fn raise(remote: &RemoteArgs, to: Option<u32>, yes: bool) -> Ended {
    let answer = remote::block_on(async {
        let mut to = to;
        if !yes {
            let (_, level) = status(remote).await?;
            let wanted = to.or(level.agreed).unwrap_or(level.level);
            if wanted > level.level {
                return Err(Failure::new(unconfirmed(level.level, wanted)));
            }
            // All members may offer more by the time that the leader looks, and nobody has said --yes.
            to = Some(wanted.max(1));
        }
        let client = remote.client().await?;
        client.raise_level(to).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("raising the level"))?;
    match remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "level": answer.level,
            "previous": answer.previous,
        }))?,
        Output::Table => print_text(&match answer.level == answer.previous {
            true => format!(
                "the level stays {}: `raft-host level` says what the members offer",
                answer.level
            ),
            false => format!(
                "raised at index {}: the level is {} (before: {})",
                answer.index, answer.level, answer.previous
            ),
        })?,
    }
    Ok(Exit::Done)
}

fn unconfirmed(current: u32, wanted: u32) -> String {
    format!(
        "nothing was changed. The level would go from {current} to {wanted}. From then on no node can \
         run a version that does not offer {wanted}, and there is no way back. Then say so with --yes"
    )
}

/// Also part of `status -o json`.
pub(super) fn to_json(level: &v1::LevelStatus) -> Value {
    json!({
        "level": level.level,
        "offered_by_node": level.offered,
        "members": level.members.iter().map(|member| json!({
            "node_id": member.node_id,
            "offered": member.offered,
        })).collect::<Vec<_>>(),
        "agreed": level.agreed,
        "raised_in_ms": level.raised_in_ms,
    })
}

fn to_text(node: u64, level: &v1::LevelStatus) -> String {
    let mut rows = vec![("level".to_owned(), level.level.to_string())];
    rows.push((format!("offered by node {node}"), level.offered.to_string()));
    for member in level.members.iter().filter(|member| member.node_id != node) {
        let offered =
            member.offered.map_or("not heard from lately".to_owned(), |level| level.to_string());
        rows.push((format!("offered by node {}", member.node_id), offered));
    }
    let next = match (level.agreed, level.raised_in_ms) {
        (Some(agreed), Some(ms)) => {
            let left = human_duration(Duration::from_millis(ms));
            format!("{agreed}, by itself in {left} or with `raft-host level raise`")
        }
        (Some(agreed), None) => format!("{agreed}, with `raft-host level raise`"),
        (None, _) if level.members.is_empty() => "only the leader knows".to_owned(),
        (None, _) => "none: not all members offer more".to_owned(),
    };
    rows.push(("next".to_owned(), next));
    let rows: Vec<(&str, String)> =
        rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: u64, offered: Option<u32>) -> v1::MemberLevel {
        v1::MemberLevel { node_id, offered }
    }

    #[test]
    fn the_text_says_who_is_in_the_way_and_what_comes() {
        let mut level = v1::LevelStatus {
            level: 1,
            offered: 2,
            members: vec![member(1, Some(2)), member(2, Some(1)), member(3, None)],
            ..Default::default()
        };
        assert_eq!(
            to_text(1, &level),
            "level              1\n\
             offered by node 1  2\n\
             offered by node 2  1\n\
             offered by node 3  not heard from lately\n\
             next               none: not all members offer more"
        );
        level.agreed = Some(2);
        level.raised_in_ms = Some(90_000);
        assert!(to_text(1, &level).contains("2, by itself in 1m 30s or with"), "{level:?}");
        level.raised_in_ms = None;
        assert!(to_text(1, &level).ends_with("2, with `raft-host level raise`"), "{level:?}");
        let alone = v1::LevelStatus { level: 1, offered: 1, ..Default::default() };
        assert!(to_text(2, &alone).ends_with("only the leader knows"));
    }
}
