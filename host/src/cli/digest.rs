//! `raft-host digest`: whether all nodes have the same state.

use std::time::Duration;

use clap::Args;
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit};
use super::output::{Output, hex, print_json, print_text, short_hash, table};
use super::remote::{self, RemoteArgs};

/// Nodes that are slow, or gone, are waited for by the leader.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Has every node digest its state at one index of the log, and compares what they found.
///
/// Succeeds only when every member answers and all agree.
#[derive(Args, Clone, Debug)]
pub(super) struct DigestArgs {
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &DigestArgs) -> Ended {
    let answer = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        client.compare_digests().await.map_err(|error| remote::failed_question(&error))
    })?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&answer))?,
        Output::Table => print_text(&to_text(&answer))?,
    }
    Ok(if answer.all_agree { Exit::Done } else { Exit::Failed })
}

/// One node's part of a result.
fn node_to_json(node: &v1::NodeDigest) -> Value {
    json!({ "node_id": node.node_id, "digest": hex(&node.digest), "agrees": node.agrees })
}

/// The fields of a result; also part of `status -o json`.
pub(super) fn result_to_json(result: &v1::DigestResult) -> Value {
    json!({
        "point_index": result.point_index,
        "verdict_index": result.verdict_index,
        "digest": hex(&result.digest),
        "nodes": result.nodes.iter().map(node_to_json).collect::<Vec<_>>(),
    })
}

fn to_json(answer: &v1::DigestResponse) -> Value {
    let mut value = result_to_json(answer.result.as_ref().unwrap_or(&v1::DigestResult::default()));
    value["all_agree"] = json!(answer.all_agree);
    value
}

fn to_text(answer: &v1::DigestResponse) -> String {
    let Some(result) = &answer.result else { return "no result".to_owned() };
    let rows: Vec<Vec<String>> = result
        .nodes
        .iter()
        .map(|node| {
            let says = match (node.agrees, node.digest.is_empty(), result.digest.is_empty()) {
                (_, true, _) => "did not answer in time",
                (true, ..) => "agrees",
                (false, _, false) => "DIFFERS",
                (false, _, true) => "no majority",
            };
            vec![node.node_id.to_string(), short_hash(&node.digest), says.to_owned()]
        })
        .collect();
    let conclusion = match answer.all_agree {
        true => format!("all nodes agree at index {}", result.point_index),
        false => format!("not all nodes agree at index {}", result.point_index),
    };
    format!("{}\n\n{conclusion}", table(&["node", "digest", "result"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(nodes: &[(u64, u8, bool)], all_agree: bool) -> v1::DigestResponse {
        let nodes = nodes.iter().map(|(node_id, digest, agrees)| v1::NodeDigest {
            node_id: *node_id,
            digest: vec![*digest; 32 * usize::from(*digest != 0)].into(),
            agrees: *agrees,
        });
        let result = v1::DigestResult {
            point_index: 120,
            verdict_index: 121,
            digest: vec![0xab; 32].into(),
            nodes: nodes.collect(),
        };
        v1::DigestResponse { result: Some(result), all_agree }
    }

    #[test]
    fn the_table_says_who_differs_and_who_is_missing() {
        let text = to_text(&answer(&[(1, 0xab, true), (2, 0xcd, false), (3, 0, false)], false));
        for words in ["DIFFERS", "did not answer in time", "not all nodes agree at index 120"] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        let text = to_text(&answer(&[(1, 0xab, true), (2, 0xab, true)], true));
        assert!(text.ends_with("all nodes agree at index 120"), "{text}");
    }

    #[test]
    fn json_has_what_the_table_has() {
        let value = to_json(&answer(&[(1, 0xab, true), (2, 0xcd, false)], false));
        assert_eq!(value["all_agree"], false);
        assert_eq!(value["point_index"], 120);
        assert_eq!(value["nodes"][1]["agrees"], false);
    }
}
