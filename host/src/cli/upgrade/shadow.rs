//! `--shadow TIME` of `rehearse` and `upgrade`: a module beside the active one, on the cluster's live commands.

use std::time::Duration;

use raft_host_proto::v1::ErrorDetail;
use raft_host_proto::{Client, v1};
use serde_json::{Value, json};
use tonic::Streaming;

use super::rehearsal::{RehearsalArgs, report_json, report_lines};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{human_count, human_duration};
use crate::cli::progress::Words;
use crate::cli::remote;

/// Nodes say how far they are every second.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
pub(in crate::cli) fn request(
    module_hash: bytes::Bytes,
    duration: Duration,
    args: &RehearsalArgs,
) -> Result<v1::ShadowRequest, Failure> {
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (allow, queries) = (args.allow.clone(), args.read_queries()?);
    Ok(v1::ShadowRequest { module_hash, duration_ms, allow, queries, ..Default::default() })
}

/// Waits until it is over; on a terminal it shows how far it is. Whoever ends the program ends it.
pub(in crate::cli) async fn watch(
    client: &Client,
    request: v1::ShadowRequest,
) -> Result<v1::ShadowProgress, Failure> {
    let begun = client.shadow(request).await;
    let mut told = begun.map_err(|error| remote::failed_question(&error))?;
    let shown = Words::begin("in the shadow");
    loop {
        let progress = next(&mut told).await?;
        if progress.done {
            return Ok(progress);
        }
        let nodes: Vec<String> = progress.nodes.iter().map(under_way).collect();
        shown.tell(nodes.join("; "));
    }
}

async fn next(told: &mut Streaming<v1::ShadowProgress>) -> Result<v1::ShadowProgress, Failure> {
    let unavailable =
        |words: &str| Failure { exit: Exit::Unavailable, ..Failure::new(words.to_owned()) };
    match tokio::time::timeout(PATIENCE, told.message()).await {
        Ok(Ok(Some(progress))) => Ok(progress),
        Ok(Ok(None)) => Err(unavailable("the node broke off before the end; try again")),
        Ok(Err(status)) => {
            let reason = ErrorDetail::of(&status).map(|detail| detail.reason());
            Err(Failure { reason, ..Failure::new(remote::sentence(&status)) })
        }
        Err(_) => Err(unavailable("the node has said nothing for 30 s; try again")),
    }
}

fn under_way(node: &v1::ShadowOnNode) -> String {
    let id = node.node_id;
    match (&*node.why_not, node.running || node.report.is_some()) {
        ("", false) => format!("node {id}: taking over"),
        ("", true) => format!(
            "node {id}: {} commands, {} differences, {} behind",
            human_count(node.commands),
            human_count(node.differences),
            human_count(node.lag_commands)
        ),
        (why_not, _) => format!("node {id}: {why_not}"),
    }
}

/// What a person is told at the end.
pub(in crate::cli) fn to_text(progress: &v1::ShadowProgress) -> String {
    let mut lines = Vec::new();
    for node in &progress.nodes {
        let id = node.node_id;
        let Some(report) = &node.report else {
            let why_not = match &*node.why_not {
                "" => "others found what nobody has allowed before it was done",
                why_not => why_not,
            };
            lines.push(format!("nothing is known of node {id}: {why_not}"));
            continue;
        };
        let range = report.range.unwrap_or_default();
        lines.push(format!(
            "{} commands in the shadow on node {id}, from the state at index {} to index {} ({})",
            human_count(report.commands),
            range.base,
            range.until,
            human_duration(Duration::from_millis(node.elapsed_ms))
        ));
        lines.extend(report_lines(report, None));
        if !node.why_not.is_empty() {
            lines.push(format!("  it ended before its time: {}", node.why_not));
        }
    }
    lines.extend(progress.notes.iter().map(|note| format!("  note: {note}")));
    lines.push(format!("  {}", if progress.passed { "passed" } else { "refused" }));
    lines.join("\n")
}

/// What a script is told of it.
pub(in crate::cli) fn to_json(progress: &v1::ShadowProgress) -> Value {
    let nodes = progress.nodes.iter().map(|node| {
        json!({
            "node_id": node.node_id,
            "why_not": node.why_not,
            "elapsed_ms": node.elapsed_ms,
            "report": node.report.as_ref().map(report_json),
        })
    });
    json!({
        "passed": progress.passed,
        "nodes": nodes.collect::<Vec<_>>(),
        "notes": progress.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_told_with_what_it_found_and_why_it_ended_early() {
        let count = v1::DifferenceCount {
            kind: "reply".to_owned(),
            class: "interest".to_owned(),
            count: 2,
            allowed: false,
        };
        let report = v1::RehearsalReport {
            range: Some(v1::RehearsalRange { base: 7, until: 90 }),
            commands: 1_234,
            counts: vec![count],
            ..Default::default()
        };
        let why_not = "it could not keep up".to_owned();
        let progress = v1::ShadowProgress {
            nodes: vec![
                v1::ShadowOnNode {
                    node_id: 1,
                    report: Some(report),
                    why_not,
                    ..Default::default()
                },
                v1::ShadowOnNode { node_id: 2, why_not: "busy".to_owned(), ..Default::default() },
            ],
            done: true,
            ..Default::default()
        };
        let text = to_text(&progress);
        assert!(
            text.starts_with("1,234 commands in the shadow on node 1, from the state at index 7")
        );
        for part in [
            "reply:interest: 2 differences",
            "it ended before its time: it could not keep up",
            "nothing is known of node 2: busy",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("  refused"), "{text}");
        assert_eq!(to_json(&progress)["nodes"][0]["report"]["commands"], 1_234);
        let running = v1::ShadowOnNode { node_id: 3, running: true, ..Default::default() };
        assert_eq!(under_way(&running), "node 3: 0 commands, 0 differences, 0 behind");
    }
}
