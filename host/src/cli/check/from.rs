//! `raft-host check NEW --from OLD`: a migration without any cluster.

use std::path::Path;

use bytes::Bytes;

use super::CheckArgs;
use crate::check::{Finding, Section, Weight};
use crate::cli::exit::Failure;
use crate::cli::input::{label_of, read_module, read_state};
use crate::cli::offline;
use crate::cli::output::{human_bytes, human_count, readable_line};
use crate::fsm::{Limits, on_guest_stack};
use crate::machine::{Import, Machine, Way, command_entry};
use crate::rehearsal::{Difference, Entries, Kind, Plan, RehearsalError, Report, rehearse};
use crate::types::{ClusterId, EntryKind, GroupId, Index, LogEntry, Term};

/// The clock of the state that the modules find.
const START_TIME_MS: u64 = 1_700_000_000_000;
/// How much of a command or an answer a line shows.
const SHOWN_CHARS: usize = 120;

/// Has `module` take over from the old one in that way, and both execute the given commands.
pub(super) fn migrate(
    args: &CheckArgs,
    old: &Path,
    module: &[u8],
    commands: Vec<Vec<u8>>,
    way: Way,
) -> Result<Section, Failure> {
    let old_module = Bytes::from(read_module(old)?);
    let exported = args.export.as_deref().map(read_state).transpose()?;
    let of_old = |words: &str| Failure::new(format!("{}: {words}", old.display()));
    let report = on_guest_stack("check", || {
        let machine = founded(&old_module, &label_of(old), exported).map_err(|it| of_old(&it))?;
        let mut entries = Commands(commands);
        let plan = Plan {
            base: Index(0),
            until: Index(entries.0.len() as u64),
            module: Bytes::copy_from_slice(module),
            label: label_of(&args.file),
            way,
            ..Plan::default()
        };
        let begun = std::time::Instant::now();
        rehearse(machine, &mut entries, &plan, &|| begun.elapsed(), &mut |_| true)
            .map_err(|error| Failure::new(error.to_string()))
    });
    let report = report.map_err(|error| Failure::new(format!("cannot start: {error}")))??;
    let what = if way == Way::Image { "adoption of the memory of" } else { "migration from" };
    Ok(section(&format!("{what} {}", old.display()), &report))
}

/// A machine that runs the old module, with the exported state or as a new cluster begins.
fn founded(module: &Bytes, label: &str, exported: Option<Vec<u8>>) -> Result<Machine, String> {
    let loader = offline::loader().map_err(|failure| failure.message)?;
    let cluster = ClusterId(*b"raft-host  check");
    let mut machine = Machine::new(cluster, GroupId::MAIN, Limits::default(), loader);
    if let Some(reason) = machine.refuses(module).map_err(|failure| failure.to_string())? {
        return Err(format!("a cluster would refuse it: {reason}"));
    }
    match exported {
        Some(portable) => {
            let import = Import {
                time_ms: START_TIME_MS,
                module: module.clone(),
                label: label.to_owned(),
                portable: portable.into(),
            };
            machine.import(&import).map_err(|error| error.to_string())?;
        }
        None => {
            // Without a module before it, it begins with its `init`.
            let begun = machine.successor(module, label, Way::default());
            (machine, _) = begun.map_err(|failure| failure.to_string())??;
        }
    }
    Ok(machine)
}

/// One to an entry.
struct Commands(Vec<Vec<u8>>);

impl Entries for Commands {
    fn entry(&mut self, index: Index) -> Result<LogEntry, RehearsalError> {
        let last = Index(self.0.len() as u64);
        let at = usize::try_from(index.0).ok().and_then(|index| index.checked_sub(1));
        let Some(command) = at.and_then(|at| self.0.get_mut(at)).map(std::mem::take) else {
            return Err(RehearsalError::BeyondEnd { until: index, last });
        };
        let time_ms = START_TIME_MS + 1_000 * index.0;
        let (kind, context) = (EntryKind::Normal, Bytes::new());
        let data = command_entry(command.into(), time_ms);
        Ok(LogEntry { index, term: Term(1), kind, data, context })
    }
}

fn section(name: &str, report: &Report) -> Section {
    let mut findings = Vec::new();
    let mut add = |weight, text: String, details| findings.push(Finding { weight, text, details });
    let took_over = report.snapshot_bytes > 0 || report.way_back.is_ok();
    if took_over {
        let fuel = human_count(report.snapshot_fuel.saturating_add(report.restore_fuel));
        let text = match report.way {
            Way::Image => format!("it adopts the memory with {fuel} fuel"),
            _ => {
                let bytes = human_bytes(report.snapshot_before_bytes);
                format!("it takes over a snapshot of {bytes} with {fuel} fuel")
            }
        };
        add(Weight::Good, text, Vec::new());
    }
    for count in &report.counts {
        let weight = match count.kind {
            // It need not know the layout of this one.
            Kind::Migration if report.way == Way::Image => Weight::Warning,
            Kind::Migration | Kind::State | Kind::Trap => Weight::Failure,
            _ => Weight::Warning,
        };
        let of = report.differences.iter();
        let of: Vec<_> = of.filter(|it| it.kind == count.kind && it.class == count.class).collect();
        let class = match count.class.as_str() {
            "" => String::new(),
            class => format!(" of class {class}"),
        };
        let first = of.first().map(|first| format!(": {}", words(first))).unwrap_or_default();
        let text = match count.kind {
            Kind::Migration | Kind::State | Kind::Fuel | Kind::Memory => {
                format!("{}{first}", count.kind.name())
            }
            kind => format!("{} differs {} times{class}{first}", kind.name(), count.count),
        };
        add(weight, text, of.into_iter().skip(1).map(words).collect());
    }
    if report.commands > 0 && report.counts.is_empty() {
        let commands = human_count(report.commands);
        add(Weight::Good, format!("both do the same with {commands} commands"), Vec::new());
    }
    if took_over {
        match &report.way_back {
            Ok(()) => {
                add(Weight::Good, "the old module takes its state back".to_owned(), Vec::new())
            }
            Err(reason) => {
                let text = format!(
                    "there is no way back, as the old module does not take its state: {reason}"
                );
                add(Weight::Warning, text, Vec::new());
            }
        }
    }
    Section { name: name.to_owned(), findings }
}

fn words(difference: &Difference) -> String {
    let Difference { position, input, old, new, .. } = difference;
    let short = |text: &str| readable_line(text.as_bytes(), SHOWN_CHARS);
    let command = match position {
        None => String::new(),
        // Entries are numbered as the commands are.
        Some(at) => format!("command {} ({}) ", at.index, readable_line(input, SHOWN_CHARS)),
    };
    match old.is_empty() {
        true => format!("{command}{}", short(new)),
        false => format!("{command}before: {}; now: {}", short(old), short(new)),
    }
}
