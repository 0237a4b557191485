//! `raft-host token`: what principals prove themselves by.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use raft_host_proto::v1::access_change::Change;
use serde_json::json;

use super::{change_and_say, list, parse_name, table};
use crate::cli::exit::{Ended, Exit, Failure};
use crate::cli::output::{Output, human_time, print_json, print_text};
use crate::cli::remote::{self, RemoteArgs};
use crate::config::parse_lifetime;

/// Lists tokens, makes and revokes them.
///
/// A token is a secret: whoever has it may do what its principal may. The cluster keeps a hash of it.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(in crate::cli) struct TokenArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(in crate::cli) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Lists tokens, without what proves them (the default).
    List,
    /// Makes a token and shows it, this once.
    Create {
        /// The principal that it stands for: 1 to 64 letters, digits and any of . _ @ -
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        name: String,
        /// Makes the principal, too, which may do this; may be repeated.
        #[arg(long = "role", value_name = "ROLE", value_parser = parse_name)]
        roles: Vec<String>,
        /// How long it lives by the log's clock, such as 12h or 30d [default: until it is revoked].
        #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
        ttl: Option<Duration>,
        /// For people who read the list: at most 64 bytes.
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        /// Writes it to a new file that only its owner can read, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Ends a token.
    Revoke {
        /// Its number, as the list shows it.
        id: u64,
    },
}

pub(in crate::cli) fn run(args: &TokenArgs) -> Ended {
    let remote = &args.remote;
    match &args.action {
        None | Some(Action::List) => list(remote, table::tokens_json, table::tokens),
        Some(Action::Create { name, roles, ttl, note, out }) => {
            let wish = Wish { name, roles, ttl: *ttl, note };
            create(remote, &wish, out.as_deref())
        }
        Some(Action::Revoke { id }) => {
            change_and_say(remote, Change::RevokeToken(*id), &format!("token {id} is revoked"))
        }
    }
}

/// What a token is to be.
struct Wish<'a> {
    name: &'a str,
    roles: &'a [String],
    ttl: Option<Duration>,
    note: &'a str,
}

fn create(remote: &RemoteArgs, wish: &Wish<'_>, out: Option<&Path>) -> Ended {
    // Before anything is made that could not be kept.
    let file = out.map(new_file).transpose()?;
    let ttl_ms = wish.ttl.map_or(0, |ttl| ttl.as_millis().try_into().unwrap_or(u64::MAX).max(1));
    let made = remote::block_on(async {
        let client = remote.client().await?;
        let made = client.create_token(wish.name, wish.roles.to_vec(), ttl_ms, wish.note).await;
        made.map_err(|error| remote::failure(&error).about("making the token"))
    });
    let made = match made {
        Ok(made) => made,
        Err(failure) => {
            if let Some(path) = out {
                // An empty file is in the way of the next attempt.
                let _ = std::fs::remove_file(path);
            }
            return Err(failure);
        }
    };
    if let (Some(mut file), Some(path)) = (file, out) {
        let written = writeln!(file, "{}", made.token).and_then(|()| file.sync_all());
        written.map_err(|error| {
            let (path, index) = (path.display(), made.index);
            Failure::new(format!(
                "{path}: {error}; token {index} is made and lost: revoke it with `raft-host token revoke {index}`"
            ))
        })?;
    }
    match remote.output {
        Output::Json => print_json(&json!({
            "id": made.index,
            "principal": made.principal,
            "name": wish.name,
            "expires_ms": made.expires_ms,
            "token": out.is_none().then_some(&made.token),
            "file": out.map(|path| path.display().to_string()),
        }))?,
        Output::Table => {
            let ends = match made.expires_ms {
                0 => "until it is revoked".to_owned(),
                ms => format!("until {} (UTC)", human_time(ms)),
            };
            print_text(&match out {
                Some(path) => format!(
                    "token {} of {}, {ends}, is in {}",
                    made.index,
                    wish.name,
                    path.display()
                ),
                None => format!(
                    "{}\n\ntoken {} of {}, {ends}: nothing shows it again",
                    made.token, made.index, wish.name
                ),
            })?;
        }
    }
    Ok(Exit::Done)
}

/// Nothing that is there is written over.
fn new_file(path: &Path) -> Result<std::fs::File, Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| Failure::new(format!("{}: {error}; nothing was changed", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_tokens_file_is_new_and_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let file = new_file(&path).expect("it is new");
        let mode = file.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let failure = new_file(&path).expect_err("it is there");
        assert!(failure.message.contains("nothing was changed"), "{}", failure.message);
    }
}
