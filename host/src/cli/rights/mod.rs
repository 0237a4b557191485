//! Who may do what: `raft-host rights`, `user`, `role` and `token`.

pub(super) mod role;
pub(super) mod table;
pub(super) mod token;
pub(super) mod user;

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use raft_host_proto::v1::access_change::Change;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// Says whether rights are in force, and who has which.
///
/// While they are not, everybody who reaches the cluster may do everything. Make a principal with the role
/// admin first (`raft-host token create --name NAME --role admin`), then enable them.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct RightsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Shows principals, their roles and tokens (the default).
    Show,
    /// From now on nobody may do what no role allows.
    ///
    /// Whoever shows no token and no certificate may do nothing then, this command included.
    Enable {
        /// Enable them: without this, says what would happen.
        #[arg(long)]
        yes: bool,
    },
    /// From now on everybody may do everything. Principals, roles and tokens stay.
    Disable {
        /// Disable them: without this, says what would happen.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: &RightsArgs) -> Ended {
    match &args.action {
        None | Some(Action::Show) => list(&args.remote, table::to_json, table::to_text),
        Some(Action::Enable { yes }) => set(&args.remote, true, *yes),
        Some(Action::Disable { yes }) => set(&args.remote, false, *yes),
    }
}

/// All of it, as of now.
async fn access(remote: &RemoteArgs) -> Result<v1::AccessResponse, Failure> {
    let client = remote.client().await?;
    client.access().await.map_err(|error| remote::failed_question(&error))
}

/// Makes changes, all or none.
async fn change(remote: &RemoteArgs, change: Change) -> Result<v1::SetAccessResponse, Failure> {
    let client = remote.client().await?;
    let changes = vec![v1::AccessChange { change: Some(change) }];
    let set = client.set_access(changes).await;
    set.map_err(|error| remote::failure(&error).about("the change of rights"))
}

/// Makes one change and says that it is made.
fn change_and_say(remote: &RemoteArgs, wanted: Change, done: &str) -> Ended {
    let answer = remote::block_on(change(remote, wanted))?;
    match remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "principal": answer.principal,
        }))?,
        Output::Table => print_text(&format!("{done} (index {})", answer.index))?,
    }
    Ok(Exit::Done)
}

/// Shows a part of it.
fn list(
    remote: &RemoteArgs,
    json: fn(&v1::AccessResponse) -> Value,
    text: fn(&v1::AccessResponse) -> String,
) -> Ended {
    let access = remote::block_on(access(remote))?;
    match remote.output {
        Output::Json => print_json(&json(&access))?,
        Output::Table => print_text(&text(&access))?,
    }
    Ok(Exit::Done)
}

fn set(remote: &RemoteArgs, in_force: bool, yes: bool) -> Ended {
    if !yes {
        let (access, who) = remote::block_on(async {
            let client = remote.client().await?;
            let who = client.who_am_i().await.map_err(|error| remote::failed_question(&error))?;
            Ok((access(remote).await?, who))
        })?;
        return Err(Failure::new(unconfirmed(&access, &who, in_force)));
    }
    let done = match in_force {
        true => "rights are in force: nobody may do what no role allows",
        false => "rights are not in force: everybody may do everything",
    };
    change_and_say(remote, Change::InForce(in_force), done)
}

fn unconfirmed(access: &v1::AccessResponse, who: &v1::WhoAmIResponse, in_force: bool) -> String {
    if access.in_force == in_force {
        let word = if in_force { "in force" } else { "not in force" };
        return format!("rights are {word} already; nothing was changed");
    }
    if !in_force {
        return "nothing was changed. Everybody who reaches the cluster could do everything. Then say so \
                with --yes"
            .to_owned();
    }
    let admins: Vec<&str> = access
        .principals
        .iter()
        .filter(|principal| principal.roles.iter().any(|role| role == "admin"))
        .map(|principal| principal.name.as_str())
        .collect();
    let you = match (who.local, who.name.as_str()) {
        (true, _) => "you are at a node's socket, which may do everything".to_owned(),
        (false, "") => "you are nobody that the cluster knows, and could do nothing".to_owned(),
        (false, name) => format!("you are {name}, with the roles {}", who.roles.join(", ")),
    };
    format!(
        "nothing was changed. Nobody could do any more what no role allows: {you}. Who could change that \
         again: {}. Then say so with --yes",
        match admins.is_empty() {
            true => "nobody (make a principal with the role admin first)".to_owned(),
            false => admins.join(", "),
        }
    )
}

/// The name of a principal or role, as the cluster takes it.
fn parse_name(text: &str) -> Result<String, String> {
    let name: crate::types::ActorName =
        text.parse().map_err(|error: crate::types::NoName| error.to_string())?;
    Ok(name.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_rights_are_enabled_a_person_reads_who_may_still_do_what() {
        let nobody = v1::WhoAmIResponse::default();
        let mut access = v1::AccessResponse::default();
        let text = unconfirmed(&access, &nobody, true);
        assert!(text.contains("you are nobody") && text.contains("role admin first"), "{text}");
        access.principals.push(v1::PrincipalInfo {
            id: 5,
            name: "root".to_owned(),
            roles: vec!["admin".to_owned()],
        });
        let ann = v1::WhoAmIResponse {
            name: "ann".to_owned(),
            roles: vec!["reader".to_owned()],
            ..nobody
        };
        let text = unconfirmed(&access, &ann, true);
        assert!(text.contains("you are ann, with the roles reader"), "{text}");
        assert!(text.contains("change that again: root"), "{text}");
        assert!(unconfirmed(&access, &ann, false).contains("not in force already"));
        access.in_force = true;
        assert!(unconfirmed(&access, &ann, false).contains("could do everything"));
    }
}
