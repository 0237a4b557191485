//! `raft-host modules`: what the cluster runs and ran.

use clap::Args;
use raft_host_proto::v1;
use serde_json::{Value, json};

use super::exit::{Ended, Exit};
use super::output::{
    Output, hex, human_bytes, human_count, human_time, print_json, print_text, short_hash, table,
};
use super::remote::{self, RemoteArgs};
use crate::signing::PublicKey;

/// Lists the modules that the cluster holds, and when each became active.
#[derive(Args, Clone, Debug)]
pub(super) struct ModulesArgs {
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &ModulesArgs) -> Ended {
    let answer = remote::block_on(async {
        let client = args.remote.client().await?;
        client.modules().await.map_err(|error| remote::failed_question(&error))
    })?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&answer))?,
        Output::Table => print_text(&to_text(&answer))?,
    }
    Ok(Exit::Done)
}

fn to_text(answer: &v1::ModulesResponse) -> String {
    if answer.modules.is_empty() {
        return "the cluster has no module yet: give it one with `raft-host upgrade FILE`".into();
    }
    let modules: Vec<Vec<String>> = answer
        .modules
        .iter()
        .map(|module| {
            let state = match (module.active, module.is_state) {
                (true, _) => "active",
                (_, true) => "portable state",
                _ => "kept",
            };
            vec![
                short_hash(&module.hash),
                module.label.clone(),
                human_bytes(module.size_bytes),
                state.to_owned(),
            ]
        })
        .collect();
    let history: Vec<Vec<String>> = answer
        .history
        .iter()
        .map(|activation| {
            vec![
                activation.index.to_string(),
                human_time(activation.time_ms),
                short_hash(&activation.module_hash),
                activation.label.clone(),
                match activation.by.as_str() {
                    "" => "-".to_owned(),
                    by => by.to_owned(),
                },
                signers(activation).join(", "),
            ]
        })
        .collect();
    let modules = table(&["module", "label", "size", "state"], &modules);
    let is_signed = answer.history.iter().any(|activation| !activation.signers.is_empty());
    let mut headers = vec!["index", "activated (utc)", "module", "label", "by", "signed by"];
    let mut history = history;
    if !is_signed {
        headers.pop();
        history.iter_mut().for_each(|row| row.truncate(headers.len()));
    }
    let mut text = format!("{modules}\n\n{}", table(&headers, &history));
    if !answer.receipts.is_empty() {
        let headers = [
            "receipt",
            "module",
            "instead of",
            "entries",
            "commands",
            "refused",
            "allowed",
            "nodes",
        ];
        let rows: Vec<Vec<String>> = answer.receipts.iter().map(receipt_row).collect();
        text.push_str(&format!("\n\n{}", table(&headers, &rows)));
    }
    if let Some(way_back) = &answer.way_back {
        text.push_str(&format!("\n\n{}", way_back_text(way_back)));
    }
    text
}

fn receipt_row(receipt: &v1::Receipt) -> Vec<String> {
    let range = receipt.range.unwrap_or_default();
    let replaces = receipt.replaces.as_ref().map_or(&[][..], |it| &it.module_hash);
    let allowed = match receipt.allowances.as_slice() {
        [] => receipt.allowed.to_string(),
        allowances => format!("{} ({})", receipt.allowed, allowances.join(", ")),
    };
    vec![
        receipt.index.to_string(),
        short_hash(&receipt.module_hash),
        short_hash(replaces),
        format!("{} to {}", range.base + 1, range.until),
        receipt.commands.to_string(),
        receipt.refused.to_string(),
        allowed,
        receipt.voters.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    ]
}

/// How the last activation can be undone.
fn way_back_text(way_back: &v1::WayBack) -> String {
    format!(
        "the activation at index {} can be undone until {} (utc) by the log's clock: {} takes its place again, and \
         executes the {} commands since ({}); see `raft-host upgrade --rollback` and `--confirm`",
        way_back.activated_at,
        human_time(way_back.expires_ms),
        short_hash(&way_back.module_hash),
        human_count(way_back.commands),
        human_bytes(way_back.bytes)
    )
}

/// Ids of the keys that had signed it.
fn signers(activation: &v1::Activation) -> Vec<String> {
    let id = |key: &bytes::Bytes| PublicKey::from_bytes(key).map(|key| key.id().to_string());
    activation.signers.iter().filter_map(|key| id(key).ok()).collect()
}

fn to_json(answer: &v1::ModulesResponse) -> Value {
    let modules = answer.modules.iter().map(|module| {
        json!({
            "hash": hex(&module.hash),
            "label": module.label,
            "size_bytes": module.size_bytes,
            "active": module.active,
            "is_state": module.is_state,
        })
    });
    let history = answer.history.iter().map(|activation| {
        json!({
            "index": activation.index,
            "module_hash": hex(&activation.module_hash),
            "time_ms": activation.time_ms,
            "label": activation.label,
            "signers": signers(activation),
            "by": activation.by,
        })
    });
    let receipts = answer.receipts.iter().map(|receipt| {
        let range = receipt.range.unwrap_or_default();
        let replaces = receipt.replaces.clone().unwrap_or_default();
        json!({
            "index": receipt.index,
            "module_hash": hex(&receipt.module_hash),
            "replaces": {
                "module_hash": hex(&replaces.module_hash),
                "activated_at": replaces.activated_at,
            },
            "range": { "base": range.base, "until": range.until },
            "commands": receipt.commands,
            "refused": receipt.refused,
            "allowed": receipt.allowed,
            "allowances": receipt.allowances,
            "report_hash": hex(&receipt.report_hash),
            "voters": receipt.voters,
        })
    });
    let way_back = answer.way_back.as_ref().map(|way_back| {
        json!({
            "module_hash": hex(&way_back.module_hash),
            "activated_at": way_back.activated_at,
            "expires_ms": way_back.expires_ms,
            "commands": way_back.commands,
            "bytes": way_back.bytes,
        })
    });
    json!({
        "modules": modules.collect::<Vec<_>>(),
        "history": history.collect::<Vec<_>>(),
        "receipts": receipts.collect::<Vec<_>>(),
        "way_back": way_back,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SecretKey;

    #[test]
    fn modules_and_their_activations_are_two_tables() {
        let answer = v1::ModulesResponse {
            modules: vec![v1::ModuleInfo {
                hash: vec![0xab; 32].into(),
                size_bytes: 40 << 10,
                label: "kv.wasm".into(),
                active: true,
                ..Default::default()
            }],
            history: vec![v1::Activation {
                index: 5,
                module_hash: vec![0xab; 32].into(),
                time_ms: 1_709_251_199_999,
                label: "kv.wasm".into(),
                signers: Vec::new(),
                by: "ann".into(),
            }],
            ..Default::default()
        };
        let expected = "\
MODULE        LABEL    SIZE      STATE
abababababab  kv.wasm  40.0 KiB  active

INDEX  ACTIVATED (UTC)      MODULE        LABEL    BY
    5  2024-02-29 23:59:59  abababababab  kv.wasm  ann";
        let text = to_text(&answer);
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>(),
            "\n{text}"
        );
        assert_eq!(to_json(&answer)["history"][0]["index"], 5);
        let mut signed = answer;
        let key = SecretKey::from_seed([1; 32]).public();
        signed.history[0].signers.push(key.to_bytes().to_vec().into());
        let id = key.id().to_string();
        let text = to_text(&signed);
        assert!(text.contains("SIGNED BY") && text.contains(&id), "{text}");
        assert_eq!(to_json(&signed)["history"][0]["signers"][0], id);
        assert!(to_text(&v1::ModulesResponse::default()).contains("upgrade FILE"));
    }
}
