//! Which command another module answers otherwise.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::ReplayArgs;
use crate::cli::exit::{Ended, Exit, Failure};
use crate::cli::input::{label_of, read_module};
use crate::cli::offline::{Candidate, Rehearsed, Stopped};
use crate::cli::output::{
    Output, answer_fields, hex, human_count, print_json, print_text, readable_line,
};
use crate::cli::rehearse;
use crate::machine::Way;
use crate::rehearsal::{Allowances, Count, Difference, First, Report, Wanted};
use crate::types::{Index, Position};

/// How much of a command a line shows, in characters.
const SHOWN_CHARS: usize = 200;
/// And how many bytes in hexadecimal digits.
const HEX_BYTES: usize = 100;

/// Names the first command that a module answers otherwise than the active one, or counts all.
pub(super) fn compare(args: &ReplayArgs, node: &Stopped, file: &Path) -> Ended {
    if let Some(until) = args.until.filter(|until| until.ordinal.is_some()) {
        return Err(Failure::usage(format!(
            "--until {until}: a module is compared over whole entries: --until {}",
            until.index
        )));
    }
    let module = Bytes::from(read_module(file)?);
    let candidate = Candidate {
        module,
        label: label_of(file),
        way: Way::Snapshot,
        queries: Vec::new(),
        classes: Vec::new(),
    };
    let wanted = match (args.from, args.until) {
        (None, None) => Wanted::All,
        (from, until) => {
            Wanted::Between { base: from.map(Index), until: until.map(|until| until.index) }
        }
    };
    let (found, first) = match args.all {
        true => (node.rehearse(&candidate, |_| wanted)?, None),
        false => node.first_difference(&candidate, wanted)?,
    };
    match args.output {
        Output::Json => print_json(&to_json(&found, first.as_ref()))?,
        Output::Table => print_text(&to_text(&found, first.as_ref(), file))?,
    }
    Ok(if found.report.counts.is_empty() { Exit::Done } else { Exit::Failed })
}

/// That of the earliest command; else one that is of no command.
fn earliest(report: &Report) -> Option<&Difference> {
    let of_commands = report.differences.iter().filter(|it| it.kind.is_of_commands());
    let first = of_commands.min_by_key(|it| it.position);
    first.or(report.differences.first())
}

fn to_json(found: &Rehearsed, first: Option<&First>) -> Value {
    let mut value = rehearse::to_json(found, &Allowances::default());
    let difference = earliest(&found.report);
    let place = difference.and_then(|difference| difference.position).zip(difference);
    value["first_difference"] = json!(place.map(|(at, difference)| {
        let mut told = json!({
            "index": at.index.0,
            "ordinal": at.ordinal,
            "kind": difference.kind.name(),
            "class": difference.class,
            "old": difference.old,
            "new": difference.new,
        });
        if let Some(First { command, old_fuel, new_fuel, .. }) = first {
            told["old_fuel"] = json!(old_fuel);
            told["new_fuel"] = json!(new_fuel);
            let command = command.as_ref().map(|command| &command.data[..]);
            let (text, encoding) = answer_fields(command.unwrap_or_default());
            told["command"] = text;
            told["command_encoding"] = json!(encoding);
            told["command_hex"] = json!(command.map(hex));
        }
        told
    }));
    value
}

fn to_text(found: &Rehearsed, first: Option<&First>, file: &Path) -> String {
    let report = &found.report;
    let range = format!(
        "{}: {} commands from index {} to index {}",
        found.of, report.commands, report.base, report.until
    );
    let Some(Difference { kind, class, position, input, old, new, .. }) = earliest(report) else {
        return format!("{range}: {} does the same", file.display());
    };
    let class = if class.is_empty() { String::new() } else { format!(", class {class}") };
    let at = |position: Position| format!("first at {position}");
    let command = first.and_then(|first| first.command.as_ref());
    let command = command.map_or(input, |command| &command.data);
    let mut lines = vec![
        format!(
            "{range}: {} does something else, {} ({}{class})",
            file.display(),
            position.map_or("after them".to_owned(), at),
            kind.name(),
        ),
        format!("  command  {}", readable_line(command, SHOWN_CHARS)),
        format!("  in hex   {}", cut_hex(command)),
        format!("  active   {old}"),
        format!("  {:<8} {new}", label_of(file)),
    ];
    if let Some(First { old_fuel, new_fuel, .. }) = first {
        let (old, new) = (human_count(*old_fuel), human_count(*new_fuel));
        lines.push(format!("  fuel     {old} in the active module, {new} in the other"));
        return lines.join("\n");
    }
    lines.extend(report.counts.iter().map(|Count { kind, class, count }| {
        let class = if class.is_empty() { String::new() } else { format!(":{class}") };
        format!("  {}{class}: {} differences", kind.name(), human_count(*count))
    }));
    lines.join("\n")
}

fn cut_hex(bytes: &[u8]) -> String {
    match bytes.len() > HEX_BYTES {
        true => format!("{}… ({} bytes)", hex(&bytes[..HEX_BYTES]), bytes.len()),
        false => hex(bytes),
    }
}
