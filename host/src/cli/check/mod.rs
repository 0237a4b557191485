//! `raft-host check`: what a cluster would say to a module, without a cluster.

mod from;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::input::{read_commands, read_module, read_script};
use super::output::{Output, facts, human_bytes, human_count, print_json, print_text};
use crate::check::{self, Finding, Options, Report, Script, Weight};
use crate::fsm::HostFailure;
use crate::machine::Way;
use crate::wasm::{CompiledModules, CompilerConfig, ModuleReport};

/// Checks whether a cluster would take a module, without one.
///
/// Looks at format, features, imports, exports and limits as every node would, then runs it:
/// empty, huge and random input, its snapshot through its own restore and back, damaged
/// snapshots, everything twice to compare answers, log lines, fuel and memory, queries where
/// nothing is undone, some thousands of commands that leave nothing behind to see whether memory
/// grows for ever, and the given scripts.
/// With --from, whether it takes over from another module, and does the same with the given commands.
/// Exit code 0 only if a cluster would take it and all scripts hold.
#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    /// The module: a .wasm file.
    file: PathBuf,
    /// A conformance script that must hold (guest-sdk/conformance/FORMAT.md); can be repeated.
    #[arg(long, value_name = "FILE")]
    script: Vec<PathBuf>,
    /// Commands to run and report on, one a line, as `apply --lines` takes them.
    #[arg(long, value_name = "FILE")]
    commands: Option<PathBuf>,
    /// Also try an upgrade from this module (a .wasm file): the new one takes its state over, twice and back, and its
    /// memory if it exports `adopt`; each time both execute --commands.
    #[arg(long, value_name = "OLD")]
    from: Option<PathBuf>,
    /// Begin that with a state that `raft-host export` wrote [default: what a new cluster begins with].
    #[arg(long, value_name = "FILE", requires = "from")]
    export: Option<PathBuf>,
    /// Shows examples for each finding.
    #[arg(short, long)]
    verbose: bool,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

pub(super) fn run(args: &CheckArgs) -> Ended {
    let name = args.file.display();
    let module = read_module(&args.file)?;
    let mut scripts = Vec::new();
    for path in &args.script {
        let script = Script::parse(&path.display().to_string(), &read_script(path)?)
            .map_err(|error| Failure::new(error.to_string()))?;
        scripts.push(script);
    }
    let commands = args.commands.as_deref().map(read_commands).transpose()?.unwrap_or_default();
    let modules = CompiledModules::by_children(CompilerConfig::default());
    let to_migrate = commands.clone();
    let options = Options { scripts, commands, modules, ..Options::default() };
    let host = |failure: HostFailure| Failure::new(format!("cannot run {name} here: {failure}"));
    let mut report = check::run(&module, &options).map_err(host)?;
    if let Some(old) = args.from.as_ref().filter(|_| report.refused.is_none()) {
        let adopts = report.module.as_ref().is_some_and(|module| module.has_adopt);
        let ways = [Some(Way::Snapshot), adopts.then_some(Way::Image)];
        for way in ways.into_iter().flatten() {
            let commands = to_migrate.clone();
            report.sections.push(from::migrate(args, old, &module, commands, way)?);
        }
    }
    match (args.output, &report.refused) {
        (Output::Json, _) => print_json(&to_json(&report))?,
        (Output::Table, Some(reason)) => {
            return Err(Failure::new(format!("{name} would be refused: {reason}")));
        }
        (Output::Table, None) => {
            print_text(&to_text(&name.to_string(), &report, args.verbose))?;
        }
    }
    if report.is_fit() { Ok(Exit::Done) } else { Ok(Exit::Failed) }
}

/// Everything that was found.
pub(super) fn to_text(name: &str, report: &Report, verbose: bool) -> String {
    let mut text = report.module.as_ref().map(|module| head(name, module)).unwrap_or_default();
    for section in &report.sections {
        text += &format!("\n\n{}", section.name);
        for finding in &section.findings {
            text += &format!("\n{}", line(finding));
            for detail in finding.details.iter().filter(|_| verbose) {
                text += &format!("\n             {detail}");
            }
        }
    }
    text += &format!("\n\nlimits\n{}", facts(&peaks(report)));
    format!("{text}\n\n{}", verdict(report))
}

/// What is not as it should be, the scripts, and the verdict.
pub(super) fn to_short_text(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut good = 0;
    for section in &report.sections {
        let is_script = section.name.starts_with("script ");
        for finding in &section.findings {
            match finding.weight {
                Weight::Good if is_script => {
                    lines.push(format!("  ok       {}: {}", section.name, finding.text));
                }
                Weight::Good => good += 1,
                Weight::Warning | Weight::Failure => lines.push(line(finding)),
            }
        }
    }
    lines.insert(0, format!("  ok       {good} checks (--verbose shows them)"));
    lines.push(verdict(report));
    lines.join("\n")
}

fn line(finding: &Finding) -> String {
    let mark = match finding.weight {
        Weight::Good => "  ok       ",
        Weight::Warning => "  warning  ",
        Weight::Failure => "  FAILED   ",
    };
    format!("{mark}{}", finding.text)
}

fn verdict(report: &Report) -> String {
    let (failures, warnings) = (report.count(Weight::Failure), report.count(Weight::Warning));
    match (failures, warnings) {
        (0, 0) => "a cluster would take this module".to_owned(),
        (0, warnings) => format!(
            "a cluster would take this module; {warnings} warning(s) are worth a look (--verbose shows examples)"
        ),
        (failures, _) => {
            format!("not fit for a cluster: mend what is marked FAILED above ({failures})")
        }
    }
}

fn head(name: &str, report: &ModuleReport) -> String {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let maximum = match report.memory_max_bytes {
        Some(max) => format!("at most {}", human_bytes(max)),
        None => "no maximum of its own".to_owned(),
    };
    facts(&[
        ("module", name.to_owned()),
        ("sha256", report.hash.to_string()),
        ("size", human_bytes(report.size_bytes)),
        ("abi", "1".to_owned()),
        ("exports", exports(report).join(", ")),
        ("imports", list(&report.imports)),
        ("runs at load", list(&report.initializers)),
        ("answers queries", yes_no(report.has_query)),
        ("memory", format!("{} at start, {maximum}", human_bytes(report.memory_min_bytes))),
    ])
}

fn peaks(report: &Report) -> Vec<(&'static str, String)> {
    let (peaks, limits) = (&report.peaks, &report.limits);
    let of = |part: u64, whole: u64| {
        let percent = part as f64 * 100.0 / whole.max(1) as f64;
        format!("{percent:.2} % of the limit")
    };
    let slowest = peaks.slowest.as_ref().map_or_else(
        || "-".to_owned(),
        |slowest| {
            let (fuel, share) = (human_count(slowest.fuel), of(slowest.fuel, limits.apply_fuel));
            format!("{fuel} fuel, {share}: {}", slowest.command)
        },
    );
    let bytes = |part, whole| format!("{}, {}", human_bytes(part), of(part, whole));
    vec![
        ("  slowest command", slowest),
        ("  most memory", bytes(peaks.memory_bytes, limits.memory_max_bytes)),
        ("  largest snapshot", bytes(peaks.snapshot_bytes, limits.snapshot_max_bytes)),
    ]
}

fn exports(report: &ModuleReport) -> Vec<&'static str> {
    let mut names = vec!["memory", "apply", "snapshot", "restore"];
    names.extend(report.has_query.then_some("query"));
    names.extend(report.has_classes.then_some("classify"));
    names.extend(report.has_check.then_some("check"));
    names.extend(report.has_state_version.then_some("state_version"));
    names.extend(report.has_restores.then_some("restores"));
    names.extend(report.has_adopt.then_some("adopt"));
    names.extend(report.has_init.then_some("init"));
    names
}

/// The same for scripts.
pub(super) fn to_json(report: &Report) -> Value {
    let sections: Vec<Value> = report
        .sections
        .iter()
        .map(|section| {
            let findings: Vec<Value> = section
                .findings
                .iter()
                .map(|finding| {
                    json!({
                        "result": finding.weight.name(),
                        "text": finding.text,
                        "details": finding.details,
                    })
                })
                .collect();
            json!({ "name": section.name, "findings": findings })
        })
        .collect();
    let module = report.module.as_ref().map(|module| {
        json!({
            "module_hash": module.hash.to_string(),
            "size_bytes": module.size_bytes,
            "abi": 1,
            "exports": exports(module),
            "imports": module.imports,
            "initializers": module.initializers,
            "has_query": module.has_query,
            "has_init": module.has_init,
            "memory_min_bytes": module.memory_min_bytes,
            "memory_max_bytes": module.memory_max_bytes,
            "function_count": module.function_count,
            "mutable_globals": module.mutable_globals.len(),
        })
    });
    let peaks = &report.peaks;
    json!({
        "accepted": report.is_fit(),
        "refused": report.refused,
        "module": module,
        "warnings": report.count(Weight::Warning),
        "failures": report.count(Weight::Failure),
        "sections": sections,
        "slowest_command": peaks.slowest.as_ref().map(|slowest| json!({
            "fuel": slowest.fuel,
            "fuel_limit": report.limits.apply_fuel,
            "command": slowest.command,
        })),
        "memory_bytes": peaks.memory_bytes,
        "snapshot_bytes": peaks.snapshot_bytes,
        "query_fuel": peaks.query_fuel,
    })
}
