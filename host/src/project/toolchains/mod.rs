//! The tools of each language: what is there, what to run, and what to install if it is not there.
//!
//! A tool is the one that a variable names (`CC`, `CXX`, `ZIG`, `GO`, `CARGO`, `NPM`) or the first
//! on `PATH` that can do it. Only what is seen counts: compilers are asked for their targets.

mod assemblyscript;
mod clang;
mod finder;
mod go;
mod rust;
#[cfg(test)]
mod tests;
mod zig;

use std::fmt;
use std::path::PathBuf;

use self::finder::Finder;
use super::tool::Step;
use super::{Language, Project};

/// What to run, in this order, and where the module is then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) artifact: PathBuf,
}

/// Tools that are not here, cannot do what is needed or are too old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolchainMissing {
    /// The language.
    pub language: Language,
    /// What is missing, as a sentence without its full stop.
    pub problem: String,
    /// What helps: one of these.
    pub remedies: &'static [Remedy],
}

/// One way to get the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// A command, or an address to get it from.
    pub what: &'static str,
    /// Where it applies; may be empty.
    pub remark: &'static str,
}

impl Remedy {
    const fn new(what: &'static str, remark: &'static str) -> Remedy {
        Remedy { what, remark }
    }
}

/// Debian's pip refuses to install outside of a virtual environment, and its Python has none
/// without a package of its own.
const IN_VENV: &str = "in an active virtual environment: python3 -m venv venv && . venv/bin/activate; Debian: \
     apt-get install python3-venv first";

/// Remarks stand below each other, except after a longer remedy than this.
const WIDTH_MAX: usize = 60;

impl fmt::Display for ToolchainMissing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}. ", self.problem)?;
        match self.remedies {
            [_] => write!(formatter, "Install what is missing with:")?,
            _ => write!(formatter, "Install what is missing with one of:")?,
        }
        let lengths = self.remedies.iter().map(|remedy| remedy.what.len());
        let width = lengths.filter(|length| *length < WIDTH_MAX).max().unwrap_or(0);
        for Remedy { what, remark } in self.remedies {
            match remark.is_empty() {
                true => write!(formatter, "\n    {what}")?,
                false => write!(formatter, "\n    {what:width$}   ({remark})")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ToolchainMissing {}

/// Finds the tools for a project.
pub(super) fn plan(project: &Project) -> Result<Plan, ToolchainMissing> {
    plan_with(project, &Finder::of_this_process())
}

fn plan_with(project: &Project, finder: &Finder) -> Result<Plan, ToolchainMissing> {
    match project.language {
        Language::Rust => rust::plan(project, finder),
        Language::C => clang::plan(project, finder, &clang::C),
        Language::Cpp => clang::plan(project, finder, &clang::CPP),
        Language::Zig => zig::plan(project, finder),
        Language::Go => go::plan(project, finder),
        Language::AssemblyScript => assemblyscript::plan(project, finder),
    }
}

/// `major.minor` of the first number in a text that has both: `go1.24.2`, `v20.1.0`, `0.15.2`.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let begin = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text[begin..].split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
