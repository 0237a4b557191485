//! The functions of an instance that the host calls.

use raft_fsm_abi as abi;
use wasmtime::{AsContextMut, Instance, TypedFunc};

use super::abi::CallKind;
use super::check::ModuleReport;
use crate::fsm::HostFailure;

/// A function that takes the length of its input.
type WithLength = TypedFunc<u32, i32>;
/// A function that has no input.
type ForStatus = TypedFunc<(), i32>;

/// What the module was checked to export.
pub(super) struct Exports {
    apply: WithLength,
    restore: WithLength,
    snapshot: ForStatus,
    query: Option<WithLength>,
    classify: Option<WithLength>,
    restores: Option<WithLength>,
    adopt: Option<WithLength>,
    init: Option<ForStatus>,
    check: Option<ForStatus>,
    state_version: Option<ForStatus>,
}

/// One of them.
pub(super) enum Export<'a> {
    WithLength(&'a WithLength),
    ForStatus(&'a ForStatus),
}

impl Exports {
    pub(super) fn find(
        mut store: impl AsContextMut,
        instance: &Instance,
        report: &ModuleReport,
    ) -> Result<Exports, HostFailure> {
        let mut with_length =
            |name| instance.get_typed_func::<u32, i32>(&mut store, name).map_err(|_| missing(name));
        let apply = with_length(abi::EXPORT_APPLY)?;
        let restore = with_length(abi::EXPORT_RESTORE)?;
        let mut optional = |has: bool, name| has.then(|| with_length(name)).transpose();
        let query = optional(report.has_query, abi::EXPORT_QUERY)?;
        let classify = optional(report.has_classes, abi::EXPORT_CLASSIFY)?;
        let restores = optional(report.has_restores, abi::EXPORT_RESTORES)?;
        let adopt = optional(report.has_adopt, abi::EXPORT_ADOPT)?;
        let mut for_status =
            |name| instance.get_typed_func::<(), i32>(&mut store, name).map_err(|_| missing(name));
        let snapshot = for_status(abi::EXPORT_SNAPSHOT)?;
        let mut optional = |has: bool, name| has.then(|| for_status(name)).transpose();
        let init = optional(report.has_init, abi::EXPORT_INIT)?;
        let check = optional(report.has_check, abi::EXPORT_CHECK)?;
        let state_version = optional(report.has_state_version, abi::EXPORT_STATE_VERSION)?;
        Ok(Exports {
            apply,
            restore,
            snapshot,
            query,
            classify,
            restores,
            adopt,
            init,
            check,
            state_version,
        })
    }

    /// The function for a kind of call; `None` if the module does not have it.
    pub(super) fn of(&self, kind: CallKind) -> Option<Export<'_>> {
        match kind {
            CallKind::Apply => Some(Export::WithLength(&self.apply)),
            CallKind::Restore => Some(Export::WithLength(&self.restore)),
            CallKind::Snapshot => Some(Export::ForStatus(&self.snapshot)),
            CallKind::Query => self.query.as_ref().map(Export::WithLength),
            CallKind::Classify => self.classify.as_ref().map(Export::WithLength),
            CallKind::Restores => self.restores.as_ref().map(Export::WithLength),
            CallKind::Adopt => self.adopt.as_ref().map(Export::WithLength),
            CallKind::Init => self.init.as_ref().map(Export::ForStatus),
            CallKind::Check => self.check.as_ref().map(Export::ForStatus),
            CallKind::StateVersion => self.state_version.as_ref().map(Export::ForStatus),
            CallKind::Start => None,
        }
    }
}

pub(super) fn missing(name: &str) -> HostFailure {
    HostFailure(format!("the checked export `{name}` is missing"))
}
