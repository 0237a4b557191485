//! From source to a module that a cluster may be given: the project's own build, then `check`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::check::{Report, Weight};
use crate::project::{BuildFailure, Interrupt, Project, ToolOutput};
use crate::types::ModuleHash;
use crate::wasm::CompiledModules;

/// Lines of a tool's output that are shown of a failed build; the last ones.
const SHOWN_LINES: usize = 60;
/// Findings of `check` that are shown.
const SHOWN_FINDINGS: usize = 20;

/// A module that a cluster may be given.
#[derive(Clone, Debug)]
pub(super) struct Built {
    /// What the project is called now.
    pub(super) name: String,
    pub(super) module: Bytes,
    pub(super) fit: Fit,
    /// Of the language's tools.
    pub(super) took: Duration,
    /// When they were done.
    pub(super) compiled: Instant,
    /// `None`: the same module was checked with the same scripts before.
    pub(super) checked: Option<Duration>,
    /// When the change was seen that led to this, if one did.
    pub(super) saved: Option<Instant>,
}

/// What was found fit: these bytes, by these scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) hash: ModuleHash,
    scripts: u64,
}

/// Why there is none, in words for the screen.
#[derive(Debug)]
pub(super) enum NotBuilt {
    /// The language's tools are not here.
    Toolchain(String),
    /// Something that the next edit may mend.
    Failed(String),
}

impl From<BuildFailure> for NotBuilt {
    fn from(failure: BuildFailure) -> NotBuilt {
        let text = match failure.said() {
            Some(said) => format!("{failure}\n{}", last_lines(said)),
            None => failure.to_string(),
        };
        match failure {
            BuildFailure::Toolchain(_) => NotBuilt::Toolchain(text),
            _ => NotBuilt::Failed(text),
        }
    }
}

/// Builds and checks; what was compiled for that stays in `modules`. `known` need not be checked again. Blocks, for as long as the tools take.
pub(super) fn build(
    dir: &Path,
    known: Option<Fit>,
    modules: &CompiledModules,
    interrupt: Interrupt,
    saved: Option<Instant>,
) -> Result<Built, NotBuilt> {
    // Read again each time: the manifest is among the files that are edited.
    let project = Project::open(dir).map_err(|error| NotBuilt::Failed(error.to_string()))?;
    let output = project.compile(&ToolOutput::Capture(interrupt))?;
    let compiled = Instant::now();
    let module = Bytes::from(output.module);
    let fit = Fit { hash: ModuleHash::of(&module), scripts: scripts(&project) };
    let checked = match known {
        Some(known) if known == fit => None,
        _ => {
            check(&project, &module, modules)?;
            Some(compiled.elapsed())
        }
    };
    let name = project.name.to_string();
    Ok(Built { name, module, fit, took: output.elapsed, compiled, checked, saved })
}

fn check(project: &Project, module: &[u8], modules: &CompiledModules) -> Result<(), NotBuilt> {
    // What the guest logs meanwhile is not what it logs on the nodes.
    let silent = tracing::subscriber::NoSubscriber::default();
    let report = tracing::subscriber::with_default(silent, || project.check(module, modules))?;
    match report.is_fit() {
        true => Ok(()),
        false => Err(NotBuilt::Failed(unfit(&report))),
    }
}

fn unfit(report: &Report) -> String {
    if let Some(reason) = &report.refused {
        return format!("it builds, but no cluster would take it: {reason}");
    }
    let mut lines = Vec::new();
    for section in &report.sections {
        let failures = section.findings.iter().filter(|found| found.weight == Weight::Failure);
        lines.extend(failures.map(|found| format!("{}: {}", section.name, found.text)));
    }
    let more = lines.len().saturating_sub(SHOWN_FINDINGS);
    lines.truncate(SHOWN_FINDINGS);
    if more > 0 {
        lines.push(format!("and {more} more: `raft-host build` tells them all"));
    }
    if lines.iter().any(|line| line.starts_with("script ")) {
        lines.push("If the new behaviour is meant, say so in the script.".to_owned());
    }
    format!("it builds, but check finds it unfit:\n{}", lines.join("\n"))
}

/// Differs when a script does.
fn scripts(project: &Project) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in &project.scripts {
        (path, std::fs::read(path).ok()).hash(&mut hasher);
    }
    hasher.finish()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(SHOWN_LINES) {
        None | Some(0) => lines.join("\n"),
        Some(left) => format!("({left} lines before)\n{}", lines[left..].join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_output_the_end_is_shown() {
        assert_eq!(last_lines("one\ntwo\n\n"), "one\ntwo");
        let many: Vec<String> = (0..100).map(|line| line.to_string()).collect();
        let shown = last_lines(&many.join("\n"));
        assert!(shown.starts_with("(40 lines before)\n40\n"), "{shown}");
        assert!(shown.ends_with("\n99"), "{shown}");
    }
}
