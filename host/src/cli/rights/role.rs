//! `raft-host role`: what principals may be allowed.

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use raft_host_proto::v1::access_change::Change;

use super::table::{self, parse_grant};
use super::{change_and_say, list, parse_name};
use crate::cli::exit::Ended;
use crate::cli::remote::RemoteArgs;

/// Lists roles, makes and removes them.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(in crate::cli) struct RoleArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(in crate::cli) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Lists roles and what they allow (the default).
    List,
    /// Makes a role, or gives one that is there other grants, in place of those that it has.
    Add {
        /// Its name: 1 to 64 letters, digits and any of . _ @ -
        #[arg(value_parser = parse_name)]
        name: String,
        /// What it allows, such as query, apply, apply:transfer (commands of that class, as the module
        /// names them) or query@main (in that group); may be repeated.
        #[arg(
            long = "grant",
            required = true,
            value_name = "RIGHT[:CLASS][@GROUP]",
            value_parser = parse_grant
        )]
        grants: Vec<v1::Grant>,
    },
    /// Removes a role that nobody has.
    Remove {
        /// Its name.
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

pub(in crate::cli) fn run(args: &RoleArgs) -> Ended {
    let remote = &args.remote;
    match &args.action {
        None | Some(Action::List) => list(remote, table::roles_json, table::roles),
        Some(Action::Add { name, grants }) => {
            let role = v1::PutRole { name: name.clone(), grants: grants.clone() };
            change_and_say(remote, Change::PutRole(role), &format!("role {name} is set"))
        }
        Some(Action::Remove { name }) => {
            let change = Change::RemoveRole(name.clone());
            change_and_say(remote, change, &format!("role {name} is removed"))
        }
    }
}
