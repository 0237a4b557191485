//! `raft-host keys`: keys of publishers, made here and trusted by the cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use raft_host_proto::v1::key_change::Change;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::input::read_key_text;
use super::output::{Output, facts, hex, print_json, print_text, table};
use super::remote::{self, RemoteArgs};
use crate::signing::{KeyId, PublicKey, SecretKey};
use crate::types::ActorName;

/// Makes keys that modules are signed with, and says whose signatures the cluster asks for.
///
/// With a threshold of N, a module is activated only if N different trusted keys have signed it
/// (`raft-host sign`). Without one, nothing is asked for.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Shows the cluster's keys and its threshold (the default).
    List,
    /// Makes a key and writes its secret part to a new file that nobody else may read. Asks nobody.
    Generate {
        /// Where to; never overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Prints the public part of a key. Asks nobody.
    Public {
        /// The file with the secret part.
        file: PathBuf,
    },
    /// Has the cluster trust a key.
    Add {
        /// Whose it is: letters, digits and any of . _ @ -
        name: ActorName,
        /// The public key, 64 hexadecimal digits; or a file with it, or with the secret key.
        #[arg(value_name = "PUBLIC|FILE")]
        key: String,
        /// By the same change: modules need the signatures of so many keys from then on.
        #[arg(long, value_name = "N")]
        threshold: Option<u32>,
    },
    /// Has the cluster trust a key no more, for ever.
    Revoke {
        /// Its id, as `raft-host keys list` shows it.
        id: KeyId,
        /// By the same change: modules need the signatures of so many keys from then on.
        #[arg(long, value_name = "N")]
        threshold: Option<u32>,
    },
    /// Has modules need the signatures of so many trusted keys; 0: of none.
    Threshold {
        /// How many.
        #[arg(value_name = "N")]
        signatures: u32,
    },
}

impl KeysArgs {
    /// Whether a cluster is asked at all.
    pub(super) fn asks_cluster(&self) -> bool {
        !matches!(self.action, Some(Action::Generate { .. } | Action::Public { .. }))
    }
}

pub(super) fn run(args: &KeysArgs) -> Ended {
    let remote = &args.remote;
    let then = |threshold: &Option<u32>| threshold.map(Change::Threshold);
    match &args.action {
        None | Some(Action::List) => list(remote),
        Some(Action::Generate { out }) => generate(out, remote.output),
        Some(Action::Public { file }) => {
            let key = SecretKey::read(file).map_err(|error| Failure::new(error.to_string()))?;
            print_key(key.public(), remote.output)
        }
        Some(Action::Add { name, key, threshold }) => {
            let public_key = public_key(key)?.to_bytes().to_vec().into();
            let add = v1::PublisherKey { public_key, name: name.as_str().to_owned() };
            set(remote, |_| Ok(Change::Add(add)), then(threshold))
        }
        Some(Action::Revoke { id, threshold }) => {
            set(remote, |keys| Ok(Change::Revoke(find(keys, *id)?)), then(threshold))
        }
        Some(Action::Threshold { signatures }) => {
            set(remote, |_| Ok(Change::Threshold(*signatures)), None)
        }
    }
}

fn generate(out: &Path, output: Output) -> Ended {
    let failed = |error: crate::signing::SecretError| Failure::new(error.to_string());
    let key = SecretKey::generate().map_err(failed)?;
    key.write_new(out).map_err(failed)?;
    print_key(key.public(), output)
}

fn print_key(key: PublicKey, output: Output) -> Ended {
    let (id, key) = (key.id().to_string(), key.to_string());
    match output {
        Output::Json => print_json(&json!({ "id": id, "public_key": key }))?,
        Output::Table => print_text(&facts(&[("id", id), ("public key", key)]))?,
    }
    Ok(Exit::Done)
}

/// From the command line, or from a file that it names.
fn public_key(argument: &str) -> Result<PublicKey, Failure> {
    if let Ok(key) = argument.parse() {
        return Ok(key);
    }
    let path = Path::new(argument);
    if !path.exists() {
        let digits = argument.len() == 64 && argument.bytes().all(|it| it.is_ascii_hexdigit());
        return Err(match argument.parse::<PublicKey>() {
            Err(error) if digits => Failure::usage(error.to_string()),
            _ => Failure::usage(format!(
                "{argument:?} is neither a public key (64 hexadecimal digits) nor a file"
            )),
        });
    }
    let text = read_key_text(path)?;
    match text.trim().parse() {
        Ok(key) => Ok(key),
        Err(_) => {
            let key = SecretKey::read(path).map_err(|_| {
                Failure::new(format!(
                    "{argument} holds neither a public key (64 hexadecimal digits) nor a secret one"
                ))
            })?;
            Ok(key.public())
        }
    }
}

/// The key that people call so.
fn find(keys: &v1::KeysResponse, id: KeyId) -> Result<bytes::Bytes, Failure> {
    let is_it = |key: &&v1::TrustedKey| key_id(&key.public_key) == id.to_string();
    let found = keys.keys.iter().find(is_it).map(|key| key.public_key.clone());
    found.ok_or_else(|| {
        Failure::new(format!("the cluster has no key {id}: `raft-host keys list` shows them"))
    })
}

fn key_id(public_key: &[u8]) -> String {
    // One that this version takes for none is shown all the same.
    PublicKey::from_bytes(public_key).map_or_else(|_| hex(public_key), |key| key.id().to_string())
}

fn list(remote: &RemoteArgs) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        client.keys().await.map_err(|error| remote::failed_question(&error))
    })?;
    match remote.output {
        Output::Json => print_json(&json!({
            "applied_index": answer.applied_index,
            "threshold": answer.threshold,
            "keys": keys_json(&answer.keys),
        }))?,
        Output::Table => print_text(&to_text(answer.threshold, &answer.keys))?,
    }
    Ok(Exit::Done)
}

fn set(
    remote: &RemoteArgs,
    change: impl FnOnce(&v1::KeysResponse) -> Result<Change, Failure>,
    then: Option<Change>,
) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        let keys = client.keys().await.map_err(|error| remote::failed_question(&error))?;
        let changes = std::iter::once(change(&keys)?).chain(then).collect();
        client.set_keys(changes).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("the change of keys"))?;
    match remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "threshold": answer.threshold,
            "keys": keys_json(&answer.keys),
        }))?,
        Output::Table => print_text(&format!(
            "changed at index {}, from the next entry on:\n\n{}",
            answer.index,
            to_text(answer.threshold, &answer.keys)
        ))?,
    }
    Ok(Exit::Done)
}

fn to_text(threshold: u32, keys: &[v1::TrustedKey]) -> String {
    let trusted = keys.iter().filter(|key| key.revoked_at.is_none()).count();
    let asked = match (threshold, keys.is_empty()) {
        (0, true) => return "the cluster has no keys, and modules need no signatures".to_owned(),
        (0, false) => format!("modules need no signatures; {trusted} keys are trusted"),
        (1, _) => format!("modules need the signature of 1 of {trusted} trusted keys"),
        _ => format!("modules need the signatures of {threshold} of {trusted} trusted keys"),
    };
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let state = match key.revoked_at {
                None => "trusted".to_owned(),
                Some(index) => format!("revoked at {index}"),
            };
            let id = key_id(&key.public_key);
            vec![id, key.name.clone(), state, key.added_at.to_string(), hex(&key.public_key)]
        })
        .collect();
    let keys = table(&["key", "name", "state", "added at", "public key"], &rows);
    format!("{asked}\n\n{keys}")
}

fn keys_json(keys: &[v1::TrustedKey]) -> Value {
    let keys = keys.iter().map(|key| {
        json!({
            "id": key_id(&key.public_key),
            "public_key": hex(&key.public_key),
            "name": key.name,
            "added_at": key.added_at,
            "revoked_at": key.revoked_at,
        })
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(seed: u8, revoked_at: Option<u64>) -> v1::TrustedKey {
        let public_key = SecretKey::from_seed([seed; 32]).public().to_bytes().to_vec().into();
        v1::TrustedKey { public_key, name: "ci".to_owned(), added_at: 4, revoked_at }
    }

    #[test]
    fn people_read_how_many_signatures_of_which_keys() {
        assert!(to_text(0, &[]).contains("no keys"));
        let keys = [trusted(1, None), trusted(2, Some(9))];
        assert!(to_text(0, &keys).starts_with("modules need no signatures; 1 keys are trusted"));
        let text = to_text(1, &keys);
        assert!(
            text.starts_with("modules need the signature of 1 of 1 trusted keys\n\n"),
            "{text}"
        );
        assert!(text.contains("revoked at 9"), "{text}");
        let json = keys_json(&keys);
        assert_eq!(json[0]["revoked_at"], Value::Null);
        assert_eq!(json[1]["revoked_at"], 9);
        let id: KeyId = json[1]["id"].as_str().expect("text").parse().expect("an id");
        let answer = v1::KeysResponse { keys: keys.to_vec(), ..Default::default() };
        assert_eq!(find(&answer, id).ok(), Some(keys[1].public_key.clone()));
        let none = "0123456789abcdef".parse().expect("an id");
        assert!(find(&answer, none).expect_err("none").message.contains("no key 0123"));
    }

    #[test]
    fn a_key_to_trust_is_given_as_text_or_in_a_file() {
        let secret = SecretKey::from_seed([1; 32]);
        let dir = tempfile::tempdir().expect("a directory");
        let [pem, text, other] = ["key.pem", "key.pub", "other"].map(|name| dir.path().join(name));
        secret.write_new(&pem).expect("writable");
        std::fs::write(&text, format!("{}\n", secret.public())).expect("writable");
        std::fs::write(&other, "words").expect("writable");
        let read = |path: &Path| public_key(path.to_str().expect("UTF-8"));
        assert_eq!(public_key(&secret.public().to_string()).ok(), Some(secret.public()));
        assert_eq!(read(&pem).ok(), Some(secret.public()));
        assert_eq!(read(&text).ok(), Some(secret.public()));
        assert!(read(&other).expect_err("none").message.contains("neither a public key"));
        assert!(public_key("none").expect_err("none").message.contains("nor a file"));
        assert!(public_key(&"0".repeat(64)).expect_err("weak").message.contains("be trusted"));
    }
}
