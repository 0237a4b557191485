//! Opens a checked module for the host: every mutable global becomes an export, so that
//! images can hold it, and the start section becomes an export, so that it runs when the host
//! says so (once in the life of a state, not once per instance).

use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{BinaryReaderError, ExternalKind, Parser, Payload};

use super::check::ModuleReport;

/// A module in the host's form.
pub(super) struct Rewritten {
    /// The bytes to compile.
    pub(super) bytes: Vec<u8>,
    /// Names under which its mutable globals are exported, in the order of their index.
    pub(super) globals: Vec<String>,
    /// Name under which its start function is exported.
    pub(super) start: Option<String>,
}

/// Rewrites `bytes`, which `report` is about. Function, global and all other indices stay.
pub(super) fn rewrite(bytes: &[u8], report: &ModuleReport) -> Result<Rewritten, BinaryReaderError> {
    let prefix = free_prefix(bytes)?;
    let globals: Vec<String> =
        report.mutable_globals.iter().map(|index| format!("{prefix}global_{index}")).collect();
    let start = report.start_function.map(|_| format!("{prefix}start"));

    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::StartSection { .. } => {}
            Payload::ExportSection(reader) => {
                let mut exports = ExportSection::new();
                for export in reader {
                    let export = export?;
                    exports.export(export.name, export_kind(export.kind), export.index);
                }
                for (name, index) in globals.iter().zip(&report.mutable_globals) {
                    exports.export(name, ExportKind::Global, *index);
                }
                if let (Some(name), Some(index)) = (&start, report.start_function) {
                    exports.export(name, ExportKind::Func, index);
                }
                module.section(&exports);
            }
            // Names make backtraces readable; other custom sections mean nothing here.
            Payload::CustomSection(section) if section.name() != "name" => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    module.section(&RawSection { id, data: &bytes[range] });
                }
            }
        }
    }
    Ok(Rewritten { bytes: module.finish(), globals, start })
}

/// A prefix that no export of the module has.
fn free_prefix(bytes: &[u8]) -> Result<String, BinaryReaderError> {
    let mut prefix = "raft_host:".to_owned();
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::ExportSection(reader) = payload? {
            let names = reader
                .into_iter()
                .map(|export| export.map(|export| export.name))
                .collect::<Result<Vec<_>, _>>()?;
            while names.iter().any(|name| name.starts_with(&prefix)) {
                prefix.push(':');
            }
        }
    }
    Ok(prefix)
}

fn export_kind(kind: ExternalKind) -> ExportKind {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
        ExternalKind::Table => ExportKind::Table,
        ExternalKind::Memory => ExportKind::Memory,
        ExternalKind::Global => ExportKind::Global,
        ExternalKind::Tag => ExportKind::Tag,
    }
}
