//! `raft-host stage`: brings a module in without activating it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit};
use super::input::{label_of, read_module};
use super::output::{Output, hex, print_json, print_text, short_hash};
use super::remote::{self, RemoteArgs};

/// Every voter checks and compiles the module.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Brings a module in without activating it: the cluster checks it, and every node compiles it.
///
/// It stays until two others were brought in after it. `raft-host rehearse HASH` tries it, and
/// `raft-host activate HASH` makes it the active one.
#[derive(Args, Clone, Debug)]
pub(super) struct StageArgs {
    /// The module: a .wasm file.
    file: PathBuf,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &StageArgs) -> Ended {
    let module = Bytes::from(read_module(&args.file)?);
    let label = label_of(&args.file);
    let answer = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        client.stage(module).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("the module"))?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&answer))?,
        Output::Table => print_text(&to_text(&answer, &label))?,
    }
    Ok(Exit::Done)
}

/// What a person is told.
pub(super) fn to_text(answer: &v1::StageModuleResponse, label: &str) -> String {
    let hash = short_hash(&answer.module_hash);
    let held = if answer.already_held { "the cluster held it already" } else { "staged" };
    let ready = match answer.ready.as_slice() {
        [] => "no voter has compiled it yet".to_owned(),
        ready => format!("compiled by {}", nodes(ready)),
    };
    let mut text = format!("{label} {hash}: {held}, {ready}");
    for v1::NotReady { node_id, why } in &answer.not_ready {
        text.push_str(&format!("\n  not by node {node_id}: {why}"));
    }
    text
}

/// `node 1` or `nodes 1, 2`.
pub(super) fn nodes(ids: &[u64]) -> String {
    let list = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let word = if ids.len() == 1 { "node" } else { "nodes" };
    format!("{word} {list}")
}

/// What a script is told.
fn to_json(answer: &v1::StageModuleResponse) -> Value {
    let not_ready = answer.not_ready.iter();
    let not_ready = not_ready.map(|not| json!({ "node_id": not.node_id, "why": not.why }));
    json!({
        "module_hash": hex(&answer.module_hash),
        "already_held": answer.already_held,
        "ready": answer.ready,
        "not_ready": not_ready.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_that_have_not_compiled_it_are_named_with_the_reason() {
        let mut answer = v1::StageModuleResponse {
            module_hash: vec![0xab; 32].into(),
            already_held: false,
            ready: vec![1, 3],
            not_ready: vec![v1::NotReady { node_id: 2, why: "it does not answer".to_owned() }],
        };
        assert_eq!(
            to_text(&answer, "kv"),
            "kv abababababab: staged, compiled by nodes 1, 3\n  not by node 2: it does not answer"
        );
        assert_eq!(to_json(&answer)["not_ready"][0]["node_id"], 2);
        answer.ready.clear();
        answer.already_held = true;
        assert!(to_text(&answer, "kv").contains("held it already, no voter"));
    }
}
