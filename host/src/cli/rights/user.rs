//! `raft-host user`: principals and their roles.

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use raft_host_proto::v1::access_change::Change;

use super::{access, change_and_say, list, parse_name, table};
use crate::cli::exit::{Ended, Failure};
use crate::cli::remote::{self, RemoteArgs};

/// Lists principals, makes and removes them, and changes their roles.
///
/// A principal is known by a client certificate with its name, or by a token.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(in crate::cli) struct UserArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(in crate::cli) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Lists principals and their roles (the default).
    List,
    /// Makes a principal.
    Add {
        /// Its name: 1 to 64 letters, digits and any of . _ @ -
        #[arg(value_parser = parse_name)]
        name: String,
        /// What it may do; may be repeated.
        #[arg(long = "role", required = true, value_name = "ROLE", value_parser = parse_name)]
        roles: Vec<String>,
    },
    /// Gives a principal other roles, in place of those that it has.
    Set {
        /// Its name.
        #[arg(value_parser = parse_name)]
        name: String,
        /// What it may do; may be repeated.
        #[arg(long = "role", required = true, value_name = "ROLE", value_parser = parse_name)]
        roles: Vec<String>,
    },
    /// Removes a principal, with its tokens and sessions.
    Remove {
        /// Its name.
        #[arg(value_parser = parse_name)]
        name: String,
        /// Remove it: without this, says what would happen.
        #[arg(long)]
        yes: bool,
    },
}

pub(in crate::cli) fn run(args: &UserArgs) -> Ended {
    let remote = &args.remote;
    match &args.action {
        None | Some(Action::List) => list(remote, table::principals_json, table::principals),
        Some(Action::Add { name, roles }) => {
            put(remote, name, roles, true, &format!("{name} is made"))
        }
        Some(Action::Set { name, roles }) => set(remote, name, roles),
        Some(Action::Remove { name, yes }) => {
            if !yes {
                return Err(Failure::new(format!(
                    "nothing was changed. {name} would be gone, and with it its tokens and sessions; whoever \
                     gets the name later is somebody else. Then say so with --yes"
                )));
            }
            let change = Change::RemovePrincipal(name.clone());
            change_and_say(remote, change, &format!("{name} is removed"))
        }
    }
}

/// One that is not there is none to change.
fn set(remote: &RemoteArgs, name: &str, roles: &[String]) -> Ended {
    let known = remote::block_on(access(remote))?;
    if !known.principals.iter().any(|principal| principal.name == name) {
        let words = format!("there is no principal {name}: `raft-host user add` makes one");
        return Err(Failure::new(words));
    }
    put(remote, name, roles, false, &format!("{name} has other roles"))
}

fn put(remote: &RemoteArgs, name: &str, roles: &[String], must_be_new: bool, done: &str) -> Ended {
    let (name, roles) = (name.to_owned(), roles.to_vec());
    let put = Change::PutPrincipal(v1::PutPrincipal { name, roles, must_be_new });
    change_and_say(remote, put, done)
}
