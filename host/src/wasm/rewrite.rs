//! Opens a checked module for the host:
//!
//! - every mutable global becomes an export, so that images can hold it;
//! - the start section becomes an export, so that it runs when the host says so (once in the life
//!   of a state, not once per instance);
//! - active data segments are taken out, and the host writes them. The compiler makes code of each,
//!   in one function, in a time that grows with their square: seven seconds for a program in Go,
//!   which has twenty thousand.

use std::ops::Range;

use wasm_encoder::{DataCountSection, DataSection, ExportKind, ExportSection, Module, RawSection};
use wasmparser::{
    BinaryReaderError, ConstExpr, DataKind, DataSectionReader, ExternalKind, Operator, Parser,
    Payload,
};

use super::check::ModuleReport;

/// A module in the host's form.
pub(super) struct Rewritten {
    /// The bytes to compile.
    pub(super) bytes: Vec<u8>,
    /// Names under which its mutable globals are exported, in the order of their index.
    pub(super) globals: Vec<String>,
    /// Name under which its start function is exported.
    pub(super) start: Option<String>,
    /// What its memory begins with.
    pub(super) data: Data,
}

/// Active data segments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    bytes: Vec<u8>,
    /// Where each goes, and where in `bytes` it is.
    segments: Vec<(u32, Range<usize>)>,
}

impl Data {
    /// Writes them into a memory, in their order.
    ///
    /// # Errors
    ///
    /// One does not fit, in words.
    pub(super) fn write_to(&self, memory: &mut [u8]) -> Result<(), String> {
        for (offset, range) in &self.segments {
            let data = &self.bytes[range.clone()];
            let room = memory.get_mut(*offset as usize..).and_then(|at| at.get_mut(..data.len()));
            let Some(room) = room else {
                let (from, to) = (u64::from(*offset), u64::from(*offset) + data.len() as u64);
                return Err(format!(
                    "a data segment fills bytes {from} to {to} of the memory, which has {}",
                    memory.len()
                ));
            };
            room.copy_from_slice(data);
        }
        Ok(())
    }

    /// Moves the active segments of a section here; the section then has empty passive ones in
    /// their place, to keep the indices.
    fn take(&mut self, section: DataSectionReader<'_>) -> Result<DataSection, BinaryReaderError> {
        let mut rest = DataSection::new();
        for segment in section {
            let segment = segment?;
            match segment.kind {
                DataKind::Passive => rest.passive(segment.data.iter().copied()),
                DataKind::Active { offset_expr, .. } => {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(segment.data);
                    self.segments.push((constant(&offset_expr)?, start..self.bytes.len()));
                    rest.passive([])
                }
            };
        }
        Ok(rest)
    }
}

/// The value of a valid constant expression of type i32.
pub(super) fn constant(expression: &ConstExpr<'_>) -> Result<u32, BinaryReaderError> {
    let mut stack: Vec<u32> = Vec::new();
    let mut operators = expression.get_operators_reader();
    while !operators.eof() {
        let operator = operators.read()?;
        let calculate: fn(u32, u32) -> u32 = match operator {
            Operator::I32Const { value } => {
                stack.push(value.cast_unsigned());
                continue;
            }
            Operator::I32Add => u32::wrapping_add,
            Operator::I32Sub => u32::wrapping_sub,
            Operator::I32Mul => u32::wrapping_mul,
            Operator::End => break,
            // No global can be imported, and those of the module itself do not count as constant.
            other => unreachable!("{other:?} passed as constant"),
        };
        let right = stack.pop().expect("the expression is valid");
        let left = stack.pop().expect("the expression is valid");
        stack.push(calculate(left, right));
    }
    Ok(stack.pop().expect("the expression is valid"))
}

/// Rewrites `bytes`, which `report` is about. Function, global and all other indices stay.
pub(super) fn rewrite(bytes: &[u8], report: &ModuleReport) -> Result<Rewritten, BinaryReaderError> {
    let prefix = free_prefix(bytes)?;
    let globals: Vec<String> =
        report.mutable_globals.iter().map(|index| format!("{prefix}global_{index}")).collect();
    let start = report.start_function.map(|_| format!("{prefix}start"));

    let mut data = Data::default();
    let mut data_is_counted = false;
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
            Payload::DataCountSection { count, .. } => {
                data_is_counted = true;
                module.section(&DataCountSection { count });
            }
            Payload::DataSection(reader) => {
                let rest = data.take(reader)?;
                // Without a count, no code can name a segment.
                if data_is_counted {
                    module.section(&rest);
                }
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
    Ok(Rewritten { bytes: module.finish(), globals, start, data })
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
