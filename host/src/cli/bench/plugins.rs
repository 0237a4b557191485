//! What one apply costs in several modules: time and fuel, beside the first of them.
//!
//! Through the same calls as a node's: an instance with fuel, limits, host functions and
//! checkpoints. What a log, a disk and a network add is not in it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::Generator;
use super::{BenchArgs, context};
use crate::cli::exit::Failure;
use crate::cli::input::read_module;
use crate::cli::output::{human_bytes, human_count, readable_line, table};
use crate::fsm::{Fsm, FsmLoader as _, GuestResult, HostFailure, Limits};
use crate::wasm::WasmLoader;

/// Commands that every module is given in a round.
const ROUND_COMMANDS: u64 = 10_000;
/// Commands made at a time, before the time of applying them is taken.
const MADE_COMMANDS: u64 = 100;
/// Characters of a rejection that are shown.
const REASON_CHARS: usize = 200;

/// One module and what was measured.
struct Subject {
    file: String,
    size_bytes: u64,
    fsm: Box<dyn Fsm>,
    commands: Generator,
    index: u64,
    /// Of the first round: the same commands from the same state, so the same in each run.
    fuel: u64,
    /// Of each round after the first, in nanoseconds for one command.
    rounds_ns: Vec<f64>,
}

/// What was found.
pub(super) struct Report {
    command: String,
    rows: Vec<Row>,
}

struct Row {
    file: String,
    size_bytes: u64,
    fuel: f64,
    /// Those of the first module are 1.
    fuel_ratio: f64,
    ns: f64,
    fastest_ns: f64,
    ns_ratio: f64,
    rounds: usize,
}

/// Rounds until the time is over, and at least one after the first, which warms up.
pub(super) fn measure(args: &BenchArgs) -> Result<Report, Failure> {
    let loader = WasmLoader::new(None).map_err(|error| Failure::new(error.to_string()))?;
    let mut subjects = Vec::new();
    for file in &args.plugins.plugins {
        subjects.push(Subject::new(&loader, file, args.commands())?);
    }
    for subject in &mut subjects {
        (_, subject.fuel) = subject.round()?;
    }
    let began = Instant::now();
    loop {
        for subject in &mut subjects {
            let (spent, _) = subject.round()?;
            subject.rounds_ns.push(spent.as_secs_f64() * 1e9 / ROUND_COMMANDS as f64);
        }
        if began.elapsed() >= args.length() {
            return Ok(Report { command: args.command.clone(), rows: rows(&subjects) });
        }
    }
}

impl Subject {
    fn new(loader: &WasmLoader, path: &Path, commands: Generator) -> Result<Subject, Failure> {
        let file = path.display().to_string();
        let module = read_module(path)?;
        let failed = |error: HostFailure| Failure::new(format!("cannot run {file} here: {error}"));
        let limits = Limits::default();
        let mut fsm = loader.instantiate(&module, &limits, context(0)).map_err(failed)?.map_err(
            |reason| {
                Failure::new(format!(
                    "{file} would be refused: {reason}; `raft-host check` says more"
                ))
            },
        )?;
        let init = fsm.init(context(0)).map_err(failed)?;
        must_be_ok(&file, "`init`", &init.result)?;
        let (size_bytes, rounds_ns) = (module.len() as u64, Vec::new());
        Ok(Subject { file, size_bytes, fsm, commands, index: 0, fuel: 0, rounds_ns })
    }

    /// Applies a round's commands; how long that took, and the fuel that it used.
    fn round(&mut self) -> Result<(Duration, u64), Failure> {
        let (mut spent, mut fuel) = (Duration::ZERO, 0);
        for _ in 0..ROUND_COMMANDS / MADE_COMMANDS {
            let commands: Vec<_> =
                (0..MADE_COMMANDS).map(|_| self.commands.next_command()).collect();
            let began = Instant::now();
            for command in &commands {
                self.index += 1;
                let call = self.fsm.apply(context(self.index), command).map_err(|error| {
                    Failure::new(format!("cannot run {} here: {error}", self.file))
                })?;
                must_be_ok(&self.file, "the command", &call.result)?;
                fuel += call.fuel_used;
            }
            spent += began.elapsed();
        }
        Ok((spent, fuel))
    }
}

fn must_be_ok(file: &str, what: &str, result: &GuestResult) -> Result<(), Failure> {
    let ended = match result {
        GuestResult::Ok(_) => return Ok(()),
        GuestResult::Rejected(reason) => {
            format!("was rejected: {}", readable_line(reason, REASON_CHARS))
        }
        GuestResult::Trapped(trap) => format!("trapped: it {}", trap.kind.describe()),
    };
    Err(Failure::new(format!(
        "{file}: {what} {ended}; give a --command that each of the plugins takes again and again"
    )))
}

/// The middle one; of two the greater. There is one at least.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rows(subjects: &[Subject]) -> Vec<Row> {
    let first = &subjects[0];
    let row = |subject: &Subject| {
        let pairs = subject.rounds_ns.iter().zip(&first.rounds_ns);
        Row {
            file: subject.file.clone(),
            size_bytes: subject.size_bytes,
            fuel: subject.fuel as f64 / ROUND_COMMANDS as f64,
            fuel_ratio: subject.fuel as f64 / first.fuel.max(1) as f64,
            ns: median(subject.rounds_ns.clone()),
            fastest_ns: subject.rounds_ns.iter().copied().fold(f64::INFINITY, f64::min),
            ns_ratio: median(pairs.map(|(own, first)| own / first).collect()),
            rounds: subject.rounds_ns.len(),
        }
    };
    subjects.iter().map(row).collect()
}

impl Report {
    pub(super) fn to_json(&self) -> Value {
        let plugins = self.rows.iter().map(|row| {
            json!({
                "file": row.file,
                "size_bytes": row.size_bytes,
                "fuel_per_apply": row.fuel,
                "fuel_ratio": row.fuel_ratio,
                "ns_per_apply": row.ns,
                "fastest_ns_per_apply": row.fastest_ns,
                "ns_ratio": row.ns_ratio,
                "rounds": row.rounds,
            })
        });
        json!({
            "command": self.command,
            "round_commands": ROUND_COMMANDS,
            "plugins": plugins.collect::<Vec<_>>(),
        })
    }

    pub(super) fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                vec![
                    row.file.clone(),
                    human_bytes(row.size_bytes),
                    human_count(row.ns.round() as u64),
                    human_count(row.fastest_ns.round() as u64),
                    format!("{:.2} ×", row.ns_ratio),
                    human_count(row.fuel.round() as u64),
                    format!("{:.2} ×", row.fuel_ratio),
                ]
            })
            .collect();
        let headers = ["plugin", "size", "ns", "fastest", "ratio", "fuel", "ratio"];
        let rounds = self.rows.first().map_or(0, |row| row.rounds);
        format!(
            "one apply of {:?}; the middle of {rounds} rounds of {} commands for each plugin, in \
             turns; ratios are to the first\n\n{}",
            self.command,
            human_count(ROUND_COMMANDS),
            table(&headers, &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_not_moved_by_one_slow_round() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![900.0, 2.0, 1.0, 3.0, 2.5]), 2.5);
    }

    #[test]
    fn the_table_has_a_row_for_each_plugin() {
        let row = |file: &str, ns, ns_ratio| Row {
            file: file.to_owned(),
            size_bytes: 1_234,
            fuel: 567.0,
            fuel_ratio: 1.0,
            ns,
            fastest_ns: ns - 1.0,
            ns_ratio,
            rounds: 3,
        };
        let rows = vec![row("a.wasm", 500.0, 1.0), row("b.wasm", 1_250.4, 2.5)];
        let report = Report { command: "5".to_owned(), rows };
        let text = report.to_text();
        assert!(text.contains("a.wasm") && text.contains("1,250") && text.contains("2.50 ×"));
        assert_eq!(report.to_json()["plugins"][1]["ns_ratio"], 2.5);
    }
}
