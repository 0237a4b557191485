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
    /// Makes a token by which one node without a certificate gets into the cluster, and shows it, this once.
    ///
    /// On the new node: raft-host --join HOST:PORT --tls DIR --join-token-file FILE. It needs a member that keeps a
    /// CA (--tls-signing-ca), and the right `members`.
    Join {
        /// How long it lives by the log's clock, at most 30d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_lifetime)]
        ttl: Duration,
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
        /// It is a join token. A node that has come in by it stays.
        #[arg(long)]
        join: bool,
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
        Some(Action::Join { ttl, note, out }) => join(remote, *ttl, note, out.as_deref()),
        Some(Action::Revoke { id, join: true }) => revoke_join(remote, *id),
        Some(Action::Revoke { id, join: false }) => {
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
    let keeping = Keeping::begin(out)?;
    let ttl_ms = wish.ttl.map_or(0, millis);
    let made = remote::block_on(async {
        let client = remote.client().await?;
        let made = client.create_token(wish.name, wish.roles.to_vec(), ttl_ms, wish.note).await;
        made.map_err(|error| remote::failure(&error).about("making the token"))
    });
    let made = keeping.keep(made, |made| (made.index, &made.token))?;
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

fn join(remote: &RemoteArgs, ttl: Duration, note: &str, out: Option<&Path>) -> Ended {
    let keeping = Keeping::begin(out)?;
    let made = remote::block_on(async {
        let client = remote.client().await?;
        let made = client.create_join_token(millis(ttl), note).await;
        made.map_err(|error| remote::failure(&error).about("making the join token"))
    });
    let made = keeping.keep(made, |made| (made.index, &made.token))?;
    match remote.output {
        Output::Json => print_json(&json!({
            "id": made.index,
            "expires_ms": made.expires_ms,
            "token": out.is_none().then_some(&made.token),
            "file": out.map(|path| path.display().to_string()),
        }))?,
        Output::Table => {
            let ends = format!("for one node until {} (UTC)", human_time(made.expires_ms));
            print_text(&match out {
                Some(path) => {
                    format!("join token {}, {ends}, is in {}", made.index, path.display())
                }
                None => format!(
                    "{}\n\njoin token {}, {ends}: nothing shows it again",
                    made.token, made.index
                ),
            })?;
        }
    }
    Ok(Exit::Done)
}

fn revoke_join(remote: &RemoteArgs, id: u64) -> Ended {
    let done = remote::block_on(async {
        let client = remote.client().await?;
        let done = client.revoke_join_token(id).await;
        done.map_err(|error| remote::failure(&error).about("revoking the join token"))
    })?;
    match remote.output {
        Output::Json => print_json(&json!({ "index": done.index }))?,
        Output::Table => {
            print_text(&format!("join token {id} is revoked (index {})", done.index))?;
        }
    }
    Ok(Exit::Done)
}

fn millis(ttl: Duration) -> u64 {
    ttl.as_millis().try_into().unwrap_or(u64::MAX).max(1)
}

/// Where the secret of a token goes that is about to be made, if not to the screen.
struct Keeping<'a>(Option<(std::fs::File, &'a Path)>);

impl Keeping<'_> {
    /// Before anything is made that could not be kept.
    fn begin(out: Option<&Path>) -> Result<Keeping<'_>, Failure> {
        let file = out.map(new_file).transpose()?;
        Ok(Keeping(file.zip(out)))
    }

    fn keep<T>(
        self,
        made: Result<T, Failure>,
        shown: impl Fn(&T) -> (u64, &String),
    ) -> Result<T, Failure> {
        let Some((mut file, path)) = self.0 else { return made };
        let made = made.inspect_err(|_| {
            // An empty file is in the way of the next attempt.
            let _ = std::fs::remove_file(path);
        })?;
        let (index, token) = shown(&made);
        let written = writeln!(file, "{token}").and_then(|()| file.sync_all());
        written.map_err(|error| {
            let path = path.display();
            Failure::new(format!(
                "{path}: {error}; token {index} is made and lost: revoke it with `raft-host token revoke {index}`"
            ))
        })?;
        Ok(made)
    }
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
