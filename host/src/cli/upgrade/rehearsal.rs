//! What a rehearsal is asked for, and what it found, as `upgrade` and `rehearse` have it.

use std::io::IsTerminal as _;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use raft_host_proto::v1::{self, rehearse_request::Range};
use raft_host_proto::{Client, ClientError};
use serde_json::{Value, json};

use crate::cli::exit::Failure;
use crate::cli::input::parse_source;
use crate::cli::output::{
    answer_fields, hex, human_bytes, human_count, human_duration, readable_line, short_hash,
};
use crate::cli::progress::Steps;
use crate::cli::remote::parse_duration;
use crate::cli::stage::nodes;

/// Between two looks at how far it is.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);
/// How much of an input or an answer a line of text shows.
const SHOWN_CHARS: usize = 120;

/// What a rehearsal is to do.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rehearsal")]
pub(in crate::cli) struct RehearsalArgs {
    /// Rehearse the last so many commands, or all since the last activation; without it, 10,000 of those that are
    /// retained.
    #[arg(long, value_name = "COMMANDS", conflicts_with_all = ["since", "all_retained"])]
    pub(in crate::cli) last: Option<u64>,
    /// Rehearse the commands of the last TIME by the log's clock, such as 10m or 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "all_retained")]
    pub(in crate::cli) since: Option<Duration>,
    /// Rehearse all commands since the oldest state that every voter retains, or since the last activation.
    #[arg(long)]
    pub(in crate::cli) all_retained: bool,
    /// Ask both modules this at the end, and compare the answers; can be repeated. @FILE is a file's content.
    #[arg(long = "query", value_name = "QUERY")]
    pub(in crate::cli) queries: Vec<String>,
    /// A difference that is intended, such as reply, reply:transfer or fuel:3x; can be repeated.
    #[arg(long, value_name = "KIND[:CLASS]")]
    pub(in crate::cli) allow: Vec<String>,
}

impl RehearsalArgs {
    /// Whether anything is said.
    pub(super) fn are_given(&self) -> bool {
        self.last.is_some()
            || self.since.is_some()
            || self.all_retained
            || !self.queries.is_empty()
            || !self.allow.is_empty()
    }

    /// What is to be asked.
    pub(in crate::cli) fn read_queries(&self) -> Result<Vec<Bytes>, Failure> {
        self.queries.iter().map(|text| parse_source(text).read().map(Bytes::from)).collect()
    }

    /// `log_time_ms`: of the cluster.
    pub(in crate::cli) fn request(
        &self,
        module_hash: Bytes,
        log_time_ms: u64,
    ) -> Result<v1::RehearseRequest, Failure> {
        let queries = self.read_queries()?;
        let range = match (self.last, self.since, self.all_retained) {
            (Some(last), ..) => Some(Range::LastCommands(last)),
            (_, Some(since), _) => {
                let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                Some(Range::SinceMs(log_time_ms.saturating_sub(since_ms)))
            }
            (.., true) => Some(Range::AllRetained(true)),
            _ => None,
        };
        let allow = self.allow.clone();
        Ok(v1::RehearseRequest { module_hash, range, queries, allow, ..Default::default() })
    }
}

/// Has a cluster rehearse; on a terminal people see how far the asked node is. If the command is ended, so is the
/// rehearsal, on all nodes.
pub(in crate::cli) async fn rehearse(
    client: &Client,
    request: v1::RehearseRequest,
) -> Result<v1::RehearseResponse, ClientError> {
    let mut rehearsed = std::pin::pin!(client.rehearse(request));
    if !std::io::stderr().is_terminal() {
        return rehearsed.await;
    }
    let steps = Steps::begin("rehearsing");
    let look = async || {
        tokio::time::sleep(PROGRESS_PAUSE).await;
        client.status().await
    };
    loop {
        let status = tokio::select! {
            answer = &mut rehearsed => return answer,
            status = look() => status,
        };
        // Whoever cannot be asked now says what is wrong when it answers.
        let group = status.ok().and_then(|status| status.groups.into_iter().next());
        if let Some(rehearsal) = group.and_then(|group| group.rehearsal) {
            let range = rehearsal.range.unwrap_or_default();
            let done = rehearsal.index.saturating_sub(range.base);
            let what = progress_words(rehearsal.commands, rehearsal.differences);
            steps.say(done, range.until.saturating_sub(range.base), what);
        }
    }
}

/// What stands before how many entries there are.
pub(in crate::cli) fn progress_words(commands: u64, differences: u64) -> String {
    let (commands, differences) = (human_count(commands), human_count(differences));
    format!("rehearsing: {commands} commands, {differences} differences")
}

/// What a person is told of a rehearsal.
pub(in crate::cli) fn to_text(answer: &v1::RehearseResponse) -> String {
    let mut lines = Vec::new();
    if let Some(report) = &answer.report {
        let by: Vec<u64> = found_by(answer).map(|node| node.node_id).collect();
        let range = report.range.unwrap_or_default();
        lines.push(format!(
            "rehearsed {} commands on {}, from the state at index {} to index {}",
            human_count(report.commands),
            nodes(&by),
            range.base,
            range.until
        ));
        let switches =
            found_by(answer).map(|node| std::time::Duration::from_micros(node.switch_us));
        lines.extend(report_lines(report, switches.max()));
    }
    for node in answer.nodes.iter().filter(|node| !node.why_not.is_empty()) {
        lines.push(format!("  not on node {}: {}", node.node_id, node.why_not));
    }
    for note in &answer.notes {
        lines.push(format!("  note: {note}"));
    }
    if answer.receipt != 0 {
        let verdict = if answer.passed { "passed" } else { "refused" };
        lines.push(format!("  {verdict}; its receipt is at index {}", answer.receipt));
    }
    lines.join("\n")
}

/// What a person is told of the way back.
pub(super) fn rewind_text(answer: &v1::RehearseResponse) -> String {
    let report = answer.report.clone().unwrap_or_default();
    let differing: u64 = report.counts.iter().map(|count| count.count).sum();
    let mut lines = vec![format!(
        "back as if it had never been replaced, {} executes {} commands again, and answers {} of them otherwise",
        short_hash(&report.module_hash),
        human_count(report.commands),
        human_count(differing)
    )];
    lines.extend(report.differences.iter().flat_map(difference_lines));
    let told = report.differences.len() as u64;
    if differing > told {
        lines.push(format!("  and {} more", human_count(differing - told)));
    }
    lines.join("\n")
}

fn found_by(answer: &v1::RehearseResponse) -> impl Iterator<Item = &v1::RehearsedBy> {
    answer.nodes.iter().filter(|node| !node.report_hash.is_empty())
}

/// What a report says; `switch`: how long the migration took at most, if that is known.
pub(super) fn report_lines(
    report: &v1::RehearsalReport,
    switch: Option<std::time::Duration>,
) -> Vec<String> {
    let mut lines = measures(report, switch);
    lines.extend(differences(report));
    lines
}

fn measures(report: &v1::RehearsalReport, switch: Option<std::time::Duration>) -> Vec<String> {
    let mut lines = Vec::new();
    let ratio = |permille: u64| format!("{:.2}x", permille as f64 / 1_000.0);
    if report.fuel_worst_permille > 0 {
        let at = report.fuel_worst_at.map(|at| format!(" at {}", place(at))).unwrap_or_default();
        lines.push(format!(
            "  fuel: {} of before in the median, {} at most{at}",
            ratio(report.fuel_median_permille),
            ratio(report.fuel_worst_permille)
        ));
    }
    if report.memory_bytes > 0 {
        lines.push(format!(
            "  memory: {}, before {}; portable snapshot: {}, before {}",
            human_bytes(report.memory_bytes),
            human_bytes(report.memory_before_bytes),
            human_bytes(report.snapshot_bytes),
            human_bytes(report.snapshot_before_bytes)
        ));
    }
    if let Some(longest) = switch {
        lines.push(format!("  the switch itself took {} at most", human_duration(longest)));
    }
    if !report.no_way_back.is_empty() {
        lines.push(format!(
            "  the active module would not take the new one's state back: {}",
            report.no_way_back
        ));
    }
    lines
}

fn differences(report: &v1::RehearsalReport) -> Vec<String> {
    if report.counts.is_empty() {
        return vec!["  no difference".to_owned()];
    }
    let mut lines = Vec::new();
    for count in &report.counts {
        let allowed = if count.allowed { " (allowed)" } else { "" };
        let (kind, count) = (kind_of(&count.kind, &count.class), human_count(count.count));
        lines.push(format!("  {kind}: {count} differences{allowed}"));
    }
    lines.extend(report.differences.iter().flat_map(difference_lines));
    lines
}

fn kind_of(kind: &str, class: &str) -> String {
    match class {
        "" => kind.to_owned(),
        class => format!("{kind}:{class}"),
    }
}

fn difference_lines(difference: &v1::RehearsalDifference) -> [String; 3] {
    let v1::RehearsalDifference { kind, class, position, input, input_cut, old, new, .. } =
        difference;
    let at = position.map(|at| format!(" at {}", place(at))).unwrap_or_default();
    let cut = if *input_cut { " (cut)" } else { "" };
    let input = readable_line(input, SHOWN_CHARS);
    let line = format!("  {}{at}: {input}{cut}", kind_of(kind, class));
    [
        line.trim_end_matches([':', ' ']).to_owned(),
        format!("    before: {}", readable_line(old.as_bytes(), SHOWN_CHARS)),
        format!("    now:    {}", readable_line(new.as_bytes(), SHOWN_CHARS)),
    ]
}

/// `17` or `17.3`: the fourth command of entry 17.
fn place(position: v1::Position) -> String {
    match position.ordinal {
        0 => position.index.to_string(),
        ordinal => format!("{}.{ordinal}", position.index),
    }
}

/// What a script is told of it.
pub(in crate::cli) fn to_json(answer: &v1::RehearseResponse) -> Value {
    let nodes = answer.nodes.iter().map(|node| {
        json!({
            "node_id": node.node_id,
            "report_hash": hex(&node.report_hash),
            "why_not": node.why_not,
            "switch_us": node.switch_us,
            "elapsed_ms": node.elapsed_ms,
        })
    });
    json!({
        "receipt": answer.receipt,
        "passed": answer.passed,
        "report": answer.report.as_ref().map(report_json),
        "nodes": nodes.collect::<Vec<_>>(),
        "notes": answer.notes,
    })
}

/// What a script is told of a report.
pub(super) fn report_json(report: &v1::RehearsalReport) -> Value {
    let position = |at: &Option<v1::Position>| {
        at.map(|at| json!({ "index": at.index, "ordinal": at.ordinal }))
    };
    let counts = report.counts.iter().map(|count| {
        json!({
            "kind": count.kind,
            "class": count.class,
            "count": count.count,
            "allowed": count.allowed,
        })
    });
    let differences = report.differences.iter().map(|difference| {
        let (input, encoding) = answer_fields(&difference.input);
        json!({
            "kind": difference.kind,
            "class": difference.class,
            "position": position(&difference.position),
            "input": input,
            "input_encoding": encoding,
            "input_cut": difference.input_cut,
            "old": difference.old,
            "new": difference.new,
            "allowed": difference.allowed,
        })
    });
    let replaces = report.replaces.clone().unwrap_or_default();
    let range = report.range.unwrap_or_default();
    json!({
        "module_hash": hex(&report.module_hash),
        "replaces": { "module_hash": hex(&replaces.module_hash), "activated_at": replaces.activated_at },
        "range": { "base": range.base, "until": range.until },
        "commands": report.commands,
        "counts": counts.collect::<Vec<_>>(),
        "differences": differences.collect::<Vec<_>>(),
        "fuel_median_permille": report.fuel_median_permille,
        "fuel_worst_permille": report.fuel_worst_permille,
        "fuel_worst_at": position(&report.fuel_worst_at),
        "memory_bytes": report.memory_bytes,
        "memory_before_bytes": report.memory_before_bytes,
        "snapshot_before_bytes": report.snapshot_before_bytes,
        "snapshot_bytes": report.snapshot_bytes,
        "snapshot_fuel": report.snapshot_fuel,
        "restore_fuel": report.restore_fuel,
        "no_way_back": report.no_way_back,
    })
}
