//! `raft-host upgrade`: gives the cluster another module.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit};
use super::input::read_module;
use super::output::{Output, human_bytes, print_json, print_text, short_hash};
use super::remote::{self, RemoteArgs};

/// Every voter checks and compiles the module first.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Replaces the running module on all nodes at the same index of the log.
///
/// The new module takes over the state through the old one's `snapshot` and its own `restore`.
/// A module that the cluster refuses changes nothing; `raft-host check FILE` says beforehand.
#[derive(Args, Clone, Debug)]
pub(super) struct UpgradeArgs {
    /// The module: a .wasm file.
    file: PathBuf,
    /// A name for people, shown by `status` and `modules`; the file's name without .wasm if none is given.
    #[arg(long)]
    label: Option<String>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &UpgradeArgs) -> Ended {
    let module = Bytes::from(read_module(&args.file)?);
    let label = args.label.clone().unwrap_or_else(|| {
        args.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    });
    let size = module.len() as u64;
    let answer = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        client.upgrade(module, &label).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("the upgrade"))?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&answer))?,
        Output::Table => print_text(&to_text(&answer, &label, size))?,
    }
    Ok(Exit::Done)
}

fn to_text(answer: &v1::UpgradeResponse, label: &str, size: u64) -> String {
    let hash = short_hash(&answer.module_hash);
    if answer.already_active {
        return format!("{label} {hash} is active already, since index {}", answer.index);
    }
    let replaced = match short_hash(&answer.previous_hash).as_str() {
        "-" => "the cluster's first module".to_owned(),
        previous => format!("in place of {previous}"),
    };
    format!(
        "{label} {hash} ({}) is active from index {} on, {replaced}",
        human_bytes(size),
        answer.index
    )
}

fn to_json(answer: &v1::UpgradeResponse) -> Value {
    json!({
        "index": answer.index,
        "module_hash": answer.module_hash,
        "previous_hash": answer.previous_hash,
        "already_active": answer.already_active,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_where_and_in_place_of_what() {
        let mut answer = v1::UpgradeResponse {
            index: 42,
            module_hash: "ab".repeat(32),
            previous_hash: "cd".repeat(32),
            already_active: false,
        };
        assert_eq!(
            to_text(&answer, "kv2", 2_048),
            "kv2 abababababab (2.0 KiB) is active from index 42 on, in place of cdcdcdcdcdcd"
        );
        answer.previous_hash.clear();
        assert!(to_text(&answer, "kv", 1).ends_with("the cluster's first module"));
        answer.already_active = true;
        assert_eq!(to_text(&answer, "kv", 1), "kv abababababab is active already, since index 42");
    }
}
