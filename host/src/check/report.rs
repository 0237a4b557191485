//! What an examination found, for whoever prints it.

use super::lab::Peaks;
use crate::fsm::Limits;
use crate::wasm::ModuleReport;

/// What a finding means for the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// As it should be.
    Good,
    /// Worth a look; a cluster would take the module.
    Warning,
    /// Speaks against the module.
    Failure,
}

impl Weight {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Good => "ok",
            Weight::Warning => "warning",
            Weight::Failure => "failed",
        }
    }
}

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub weight: Weight,
    /// The sentence.
    pub text: String,
    /// Examples and numbers, for those who ask.
    pub details: Vec<String>,
}

/// Findings about one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The subject.
    pub name: String,
    /// In the order they were found.
    pub findings: Vec<Finding>,
}

impl Section {
    pub(super) fn new(name: &str) -> Section {
        Section { name: name.to_owned(), findings: Vec::new() }
    }

    pub(super) fn add(&mut self, weight: Weight, text: impl Into<String>, details: Vec<String>) {
        self.findings.push(Finding { weight, text: text.into(), details });
    }

    pub(super) fn good(&mut self, text: impl Into<String>) {
        self.add(Weight::Good, text, Vec::new());
    }

    pub(super) fn fail(&mut self, text: impl Into<String>) {
        self.add(Weight::Failure, text, Vec::new());
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why a cluster would refuse the module outright, and what to do; nothing was run then.
    pub refused: Option<String>,
    /// Facts about the module, if it is one.
    pub module: Option<ModuleReport>,
    /// The limits it was examined under.
    pub limits: Limits,
    /// What was found, subject by subject.
    pub sections: Vec<Section>,
    /// The most that was seen of everything that has a limit.
    pub peaks: Peaks,
}

impl Report {
    /// Whether a cluster would take the module, and every script holds.
    pub fn is_fit(&self) -> bool {
        self.refused.is_none() && self.count(Weight::Failure) == 0
    }

    /// Findings of a weight.
    pub fn count(&self, weight: Weight) -> usize {
        let findings = self.sections.iter().flat_map(|section| &section.findings);
        findings.filter(|finding| finding.weight == weight).count()
    }
}
