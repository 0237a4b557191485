//! `raft-host check`: what a cluster would say to a module, without a cluster.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::input::read_module;
use super::output::{Output, facts, human_bytes, print_json, print_text, readable_line};
use crate::fsm::{Call, Context, Fsm, FsmLoader as _, GuestResult, HostFailure, Limits};
use crate::types::{ClusterId, Index};
use crate::wasm::{ModuleReport, WasmLoader, check_module};

/// Checks whether a cluster would take a module, without one.
///
/// Looks at format, features, imports, exports and limits as every node would, compiles it,
/// then runs it: an empty and a senseless command, a query, and its snapshot through its own
/// restore. Exit code 0 only if all of that went well.
#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    /// The module: a .wasm file.
    file: PathBuf,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trial {
    name: &'static str,
    /// What happened, in a few words.
    result: String,
    /// Whether it speaks against the module.
    failed: bool,
}

pub(super) fn run(args: &CheckArgs) -> Ended {
    let name = args.file.display();
    let module = read_module(&args.file)?;
    let limits = Limits::default();
    let report = check_module(&module, &limits)
        .map_err(|error| Failure::new(format!("{name} would be refused: {error}")))?;
    let host = |failure: HostFailure| Failure::new(format!("cannot run {name} here: {failure}"));
    let trials = try_out(&module, &limits)
        .map_err(host)?
        .map_err(|reason| Failure::new(format!("{name} would be refused: {reason}")))?;
    match args.output {
        Output::Json => print_json(&to_json(&report, &trials))?,
        Output::Table => print_text(&to_text(&name.to_string(), &report, &trials))?,
    }
    if trials.iter().any(|trial| trial.failed) { Ok(Exit::Failed) } else { Ok(Exit::Done) }
}

/// Runs the module. The inner error: a cluster would refuse it.
fn try_out(module: &[u8], limits: &Limits) -> Result<Result<Vec<Trial>, String>, HostFailure> {
    let loader = WasmLoader::new(None)?;
    if let Err(refused) = loader.check(module, limits)? {
        return Ok(Err(refused.to_string()));
    }
    let context = |index| Context {
        cluster: ClusterId(*b"raft-host  check"),
        index: Index(index),
        time_ms: 1_700_000_000_000 + index,
    };
    let fresh = || loader.instantiate(module, limits, context(1));
    let mut fsm = match fresh()? {
        Ok(fsm) => fsm,
        Err(refused) => return Ok(Err(refused.to_string())),
    };
    let mut trials = Vec::new();
    let init = fsm.init(context(1))?;
    trials.push(must_be_ok("init", &init));
    if trials.iter().any(|trial| trial.failed) {
        return Ok(Ok(trials));
    }
    trials.push(may_refuse("an empty command", &fsm.apply(context(2), b"")?));
    trials.push(may_refuse("a senseless command", &fsm.apply(context(3), &noise())?));
    if fsm.has_query() {
        trials.push(may_refuse("an empty query", &fsm.query(context(3), b"")?));
        trials.push(may_refuse("a senseless query", &fsm.query(context(3), &noise())?));
    }
    carry_over(&mut *fsm, &fresh, context(4), &mut trials)?;
    Ok(Ok(trials))
}

type Fresh<'a> =
    dyn Fn() -> Result<Result<Box<dyn Fsm>, crate::fsm::ModuleRefused>, HostFailure> + 'a;

/// The module's snapshot must restore into a fresh instance, and what that one says of itself
/// must restore as well: an upgrade goes this way, and its rollback the way back.
fn carry_over(
    fsm: &mut dyn Fsm,
    fresh: &Fresh<'_>,
    context: Context,
    trials: &mut Vec<Trial>,
) -> Result<(), HostFailure> {
    let mut source: Option<Box<dyn Fsm>> = None;
    for (snapshot_name, restore_name) in
        [("snapshot", "restore"), ("snapshot of the restored", "restore of that")]
    {
        let call = match &mut source {
            None => fsm.snapshot(context)?,
            Some(restored) => restored.snapshot(context)?,
        };
        trials.push(must_be_ok(snapshot_name, &call));
        let GuestResult::Ok(snapshot) = call.result else { return Ok(()) };
        let mut target = match fresh()? {
            Ok(target) => target,
            Err(refused) => {
                let result = refused.to_string();
                trials.push(Trial { name: "a second instance", result, failed: true });
                return Ok(());
            }
        };
        let call = target.restore(context, &snapshot)?;
        trials.push(must_be_ok(restore_name, &call));
        if !matches!(call.result, GuestResult::Ok(_)) {
            return Ok(());
        }
        source = Some(target);
    }
    Ok(())
}

/// 64 bytes without meaning, the same each time.
fn noise() -> Vec<u8> {
    (0..64_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn must_be_ok(name: &'static str, call: &Call) -> Trial {
    let failed = !matches!(call.result, GuestResult::Ok(_));
    Trial { name, result: describe(call), failed }
}

/// Whatever a command does is the application's business; a trap is worth a look, no more.
fn may_refuse(name: &'static str, call: &Call) -> Trial {
    Trial { name, result: describe(call), failed: false }
}

fn describe(call: &Call) -> String {
    const SHOWN: usize = 100;
    match &call.result {
        GuestResult::Ok(output) => {
            format!("ok, {} (fuel {})", human_bytes(output.len() as u64), call.fuel_used)
        }
        GuestResult::Rejected(reason) => format!("rejected: {}", readable_line(reason, SHOWN)),
        GuestResult::Trapped(trap) => {
            let first = trap.message.lines().next().unwrap_or_default();
            format!(
                "TRAPPED: it {} ({})",
                trap.kind.describe(),
                readable_line(first.as_bytes(), SHOWN)
            )
        }
    }
}

fn to_text(name: &str, report: &ModuleReport, trials: &[Trial]) -> String {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let maximum = match report.memory_max_bytes {
        Some(max) => format!("at most {}", human_bytes(max)),
        None => "no maximum of its own".to_owned(),
    };
    let head = facts(&[
        ("module", name.to_owned()),
        ("sha256", report.hash.to_string()),
        ("size", human_bytes(report.size_bytes)),
        ("abi", "1".to_owned()),
        ("exports", exports(report).join(", ")),
        ("imports", list(&report.imports)),
        ("runs at load", list(&report.initializers)),
        ("answers queries", yes_no(report.has_query)),
        ("memory", format!("{} at start, {maximum}", human_bytes(report.memory_min_bytes))),
        ("functions", report.function_count.to_string()),
        ("mutable globals", report.mutable_globals.len().to_string()),
    ]);
    let pairs: Vec<(&str, String)> = trials
        .iter()
        .map(|trial| {
            let mark = if trial.failed { "FAILED, " } else { "" };
            (trial.name, format!("{mark}{}", trial.result))
        })
        .collect();
    let verdict = if trials.iter().any(|trial| trial.failed) {
        "not fit for a cluster: see FAILED above"
    } else {
        "a cluster would take this module"
    };
    format!("{head}\n\n{}\n\n{verdict}", facts(&pairs))
}

fn exports(report: &ModuleReport) -> Vec<&'static str> {
    let mut names = vec!["memory", "apply", "snapshot", "restore"];
    names.extend(report.has_query.then_some("query"));
    names.extend(report.has_init.then_some("init"));
    names
}

fn to_json(report: &ModuleReport, trials: &[Trial]) -> Value {
    let trial = |trial: &Trial| json!({ "name": trial.name, "result": trial.result, "failed": trial.failed });
    json!({
        "accepted": !trials.iter().any(|trial| trial.failed),
        "module_hash": report.hash.to_string(),
        "size_bytes": report.size_bytes,
        "abi": 1,
        "exports": exports(report),
        "imports": report.imports,
        "initializers": report.initializers,
        "has_query": report.has_query,
        "has_init": report.has_init,
        "memory_min_bytes": report.memory_min_bytes,
        "memory_max_bytes": report.memory_max_bytes,
        "function_count": report.function_count,
        "mutable_globals": report.mutable_globals.len(),
        "trials": trials.iter().map(trial).collect::<Vec<_>>(),
    })
}
