//! Examines a module before a cluster gets it: load checks, conformance scripts, random input,
//! snapshots, determinism, limits.
//!
//! Knows the seam (`fsm`), the loader (`wasm`) and `types`; nothing of Raft, nodes, files or
//! terminals. Whoever calls [`run`] reads the files and prints the [`Report`].
//!
//! ```text
//! module ─ load check ─ Lab ─┬─ player: any.script, then the caller's scripts, three runs each
//!                            ├─ trials: determinism, queries, rejections, random input, classes of commands
//!                            ├─ rules: what it says of its state, and of the format of its snapshots
//!                            ├─ purity: queries where nothing is undone
//!                            ├─ leaks: memory that grows for ever
//!                            └─ snapshots: there and back, damaged ones
//! ```

mod hints;
mod lab;
mod leaks;
mod listen;
mod player;
mod purity;
mod report;
mod rules;
mod script;
mod snapshots;
#[cfg(test)]
mod tests;
mod trials;
mod twins;
mod words;

pub use lab::{Peaks, Slowest};
pub use report::{Finding, Report, Section, Weight};
pub use script::{Script, ScriptError};

pub use crate::wasm::CompiledModules;

use lab::{Lab, Stop};
use player::Played;

use crate::fsm::{HostFailure, Limits};
use crate::wasm::{Refused, check_module};

/// What holds for any state machine.
const ANY_SCRIPT: &str = include_str!("../../../guest-sdk/conformance/any.script");

/// Violations of one script that are told; the rest is counted.
const TOLD_MAX: usize = 20;

/// What to examine a module with, besides what is always done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Scripts that must hold.
    pub scripts: Vec<Script>,
    /// Commands to run one after the other and to report on.
    pub commands: Vec<Vec<u8>>,
    /// The limits of the cluster to be.
    pub limits: Limits,
    /// Where the compiled module stays, for whoever runs it next.
    pub modules: CompiledModules,
}

/// Examines a module. Takes some seconds and writes nothing anywhere.
///
/// # Errors
///
/// This machine cannot run guests. Whatever is wrong with the module is in the report.
pub fn run(module: &[u8], options: &Options) -> Result<Report, HostFailure> {
    let limits = &options.limits;
    let mut report = Report {
        refused: None,
        module: None,
        limits: limits.clone(),
        sections: Vec::new(),
        peaks: Peaks::default(),
    };
    let lab = Lab::new(module, limits, options.modules.clone())?;
    match lab.compile()? {
        Ok(facts) => report.module = Some(facts),
        Err(Refused::Check(error)) => {
            report.refused = Some(format!("{error}; {}", hints::hint(&error)));
            return Ok(report);
        }
        Err(Refused::Compile(reason)) => {
            report.module = check_module(module, limits).ok();
            let reason = format!("the module does not compile: {reason}; {}", hints::COMPILE);
            report.refused = Some(reason);
            return Ok(report);
        }
    }
    match examine(&lab, options, &mut report) {
        Ok(()) => Ok(report),
        Err(Stop::Unfit(reason)) => {
            report.refused = Some(reason);
            Ok(report)
        }
        Err(Stop::Host(failure)) => Err(failure),
    }
}

/// Tries on one thread and plays on another: each takes about half of the time.
fn examine(lab: &Lab<'_>, options: &Options, report: &mut Report) -> Result<(), Stop> {
    drop(lab.founded()?);
    let dispatch = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    let play = || -> Result<(Vec<Section>, Peaks), Stop> {
        let second = Lab::new(lab.module, lab.limits, options.modules.clone())?;
        Ok((played(&second, options)?, second.peaks()))
    };
    let (tried, played) = std::thread::scope(|scope| {
        let playing = scope.spawn(|| tracing::dispatcher::with_default(&dispatch, play));
        let tried = trials::run(lab, &options.scripts, &options.commands);
        (tried, playing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    report.peaks = lab.peaks();
    report.sections.extend(tried?);
    let (sections, peaks) = played?;
    report.peaks.include(peaks);
    report.sections.extend(sections);
    Ok(())
}

fn played(lab: &Lab<'_>, options: &Options) -> Result<Vec<Section>, Stop> {
    let mut sections = vec![any_script(lab)?];
    for script in &options.scripts {
        sections.push(told(script, player::play(lab, script)?));
    }
    if !options.commands.is_empty() {
        sections.push(trials::commands(lab, &options.commands)?);
    }
    Ok(sections)
}

/// The built-in run: a trap is worth a look, since the host undoes it; the rest must hold.
fn any_script(lab: &Lab<'_>) -> Result<Section, Stop> {
    let script = Script::parse("any.script", ANY_SCRIPT.as_bytes())
        .expect("the script of this repository is well-formed, as a test knows");
    let played = player::play(lab, &script)?;
    let mut section = Section::new("empty, huge and senseless input");
    let traps = played.violations.iter().filter(|violation| violation.only_a_trap).count();
    if played.violations.is_empty() {
        section.good(format!("all {} steps of any.script are answered or rejected", played.steps));
    }
    if traps > 0 {
        let details = lines(&played, "any.script", |violation| violation.only_a_trap);
        let text = format!(
            "{traps} of {} inputs make it trap; the host undoes that, but rejecting is much cheaper",
            played.steps
        );
        section.add(Weight::Warning, text, details);
    }
    for line in lines(&played, "any.script", |violation| !violation.only_a_trap) {
        section.fail(line);
    }
    Ok(section)
}

fn told(script: &Script, played: Played) -> Section {
    let mut section = Section::new(&format!("script {}", script.name));
    let violations = lines(&played, &script.name, |_| true);
    let untold = violations.len().saturating_sub(TOLD_MAX);
    for line in violations.into_iter().take(TOLD_MAX) {
        section.fail(line);
    }
    if untold > 0 {
        section.fail(format!("and {untold} more"));
    }
    if played.violations.is_empty() {
        let steps = played.steps;
        section
            .good(format!("all {steps} steps hold: straight, repeated, and renewed before each"));
    }
    section
}

fn lines(played: &Played, name: &str, wanted: impl Fn(&player::Violation) -> bool) -> Vec<String> {
    let violations = played.violations.iter().filter(|violation| wanted(violation));
    violations
        .map(|violation| format!("{name}:{}: {}", violation.line, violation.message))
        .collect()
}
