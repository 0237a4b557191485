//! What is told of a re-execution.

use serde_json::{Value, json};

use super::ReplayArgs;
use super::trace::{entry_json, entry_text};
use crate::cli::exit::{Ended, Exit, Failure};
use crate::cli::output::{Output, print_json, print_text};
use crate::replay::{Comparison, Difference, Divergence, Source, Step};
use crate::types::Index;

/// What is told at the end.
pub(super) struct Report<'a> {
    args: &'a ReplayArgs,
    pub(super) nodes: Vec<String>,
    pub(super) began: Index,
    pub(super) ended: Index,
    /// By node.
    differences: Vec<(usize, Difference)>,
    pub(super) comparison: Option<Comparison>,
    /// For JSON.
    entries: Vec<Value>,
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a ReplayArgs, node: String) -> Report<'a> {
        Report {
            args,
            nodes: vec![node],
            began: Index(0),
            ended: Index(0),
            differences: Vec::new(),
            comparison: None,
            entries: Vec::new(),
        }
    }

    fn is_json(&self) -> bool {
        self.args.output() == Output::Json
    }

    pub(super) fn step(&mut self, side: usize, step: &Step) -> Result<(), Failure> {
        let differences = step.differences.iter().cloned();
        self.differences.extend(differences.map(|difference| (side, difference)));
        if !self.args.shows_entries() {
            return Ok(());
        }
        if self.is_json() {
            self.entries.extend(entry_json(side, step));
            return Ok(());
        }
        let side = if self.nodes.len() > 1 { format!("{} ", side + 1) } else { String::new() };
        entry_text(step).try_for_each(|line| print_text(&format!("{side}{line}")))
    }

    fn agrees(&self) -> bool {
        let diverged = self.comparison.as_ref().is_some_and(|found| found.divergence.is_some());
        self.differences.is_empty() && !diverged
    }

    pub(super) fn print(&self) -> Ended {
        match self.is_json() {
            true => print_json(&self.to_json())?,
            false => print_text(&self.text())?,
        }
        if self.agrees() { Ok(Exit::Done) } else { Ok(Exit::Failed) }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for (side, difference) in &self.differences {
            lines.push(format!("{}: {}", self.nodes[*side], difference_text(difference)));
        }
        match &self.comparison {
            None if lines.is_empty() => lines.push(format!(
                "{}: re-executed from the snapshot at index {} to index {}; nothing differs",
                self.nodes[0], self.began, self.ended
            )),
            None => {}
            Some(found) => lines.push(self.comparison_text(found)),
        }
        lines.join("\n")
    }

    fn comparison_text(&self, found: &Comparison) -> String {
        let both = self.nodes.join(" and ");
        match &found.divergence {
            None => format!(
                "{both}: agree from index {} up to index {}",
                found.began,
                found.agreed.unwrap_or(found.began)
            ),
            Some(Divergence::Start(index)) => format!(
                "{both}: their states differ already at index {index}, where the comparison \
                 begins: at least one of their snapshots is wrong, or they differed before"
            ),
            Some(Divergence::Entry(index)) => format!(
                "{both}: agree up to index {}; their logs hold different committed entries at \
                 index {index}",
                index.0 - 1
            ),
            Some(Divergence::Execution { index, what }) => format!(
                "{both}: agree up to index {}; the entry at index {index} led to another {}",
                index.0 - 1,
                what.join(", another ")
            ),
        }
    }

    fn to_json(&self) -> Value {
        let differences = self.differences.iter().map(|(side, difference)| {
            let Difference { from, index, agreed, theirs, replayed, memory } = difference;
            let ranges = memory.iter().map(|range| [range.start, range.end]);
            json!({
                "node": self.nodes[*side],
                "kind": from.name(),
                "index": index.0,
                "agreed_index": agreed.0,
                "stored_digest": theirs.to_string(),
                "replayed_digest": replayed.to_string(),
                "memory_ranges": ranges.collect::<Vec<_>>(),
            })
        });
        let mut value = json!({
            "nodes": self.nodes,
            "from_index": self.began.0,
            "to_index": self.ended.0,
            "agrees": self.agrees(),
            "differences": differences.collect::<Vec<_>>(),
        });
        if let Some(found) = &self.comparison {
            let (kind, what) = match &found.divergence {
                None => ("none", vec![]),
                Some(Divergence::Start(_)) => ("start", vec![]),
                Some(Divergence::Entry(_)) => ("entry", vec![]),
                Some(Divergence::Execution { what, .. }) => ("execution", what.clone()),
            };
            value["comparison"] = json!({
                "agreed_index": found.agreed.map(|index| index.0),
                "first_difference": found.divergence.as_ref().map(|it| it.index().0),
                "kind": kind,
                "what": what,
            });
        }
        if self.args.shows_entries() {
            value["entries"] = json!(self.entries);
        }
        value
    }
}

fn difference_text(difference: &Difference) -> String {
    let Difference { from, index, agreed, theirs, replayed, memory } = difference;
    let found = match from {
        Source::Snapshot => "its snapshot holds another state than its log leads to",
        Source::Verdict => "most voters found another state than its log leads to here",
        Source::Evidence => {
            "the state that was quarantined is another than its log leads to: the memory, disk or \
             processor of that node failed, and re-execution mends it"
        }
    };
    let mut text = format!(
        "index {index}: {found}; something went wrong after index {agreed} (there {}, re-executed {})",
        theirs.short(),
        replayed.short()
    );
    if !memory.is_empty() {
        const LISTED_MAX: usize = 8;
        let ranges = memory.iter().take(LISTED_MAX);
        let ranges: Vec<String> =
            ranges.map(|range| format!("{:#x}..{:#x}", range.start, range.end)).collect();
        let more = if memory.len() > LISTED_MAX { ", …" } else { "" };
        text.push_str(&format!("; guest memory differs in {}{more}", ranges.join(", ")));
    }
    text
}
