//! How much a module asks of the compiler, before it is asked.
//!
//! Compiling takes about as long as the code is, with one exception that a few hundred
//! kilobytes suffice for: wherever paths of a function meet, the compiler may have to merge every
//! local and every value that a block hands on. So a function weighs
//!
//! ```text
//!   instructions + (locals + values handed on) × (blocks + targets of branches)
//! ```
//!
//! which bounds what the compiler makes of it. Compilers emit functions whose weight is some
//! millions at most; see the tests. The weight is found in one pass that costs next to nothing,
//! before the validator, whose own work is bounded by it too.

use wasmparser::{BinaryReaderError, BlockType, FunctionBody, Operator, Parser, Payload};

use super::check::CheckError;

/// Heaviest function.
const FUNCTION_WEIGHT_MAX: u64 = 1 << 24;
/// Weight of all functions together.
const MODULE_WEIGHT_MAX: u64 = 1 << 28;

/// Parameters and results of a type.
#[derive(Clone, Copy, Default)]
struct Arity {
    params: u64,
    results: u64,
}

/// Refuses what would keep the compiler busy for minutes, or take gigabytes.
pub(super) fn check(bytes: &[u8]) -> Result<Result<(), CheckError>, BinaryReaderError> {
    let mut types = Vec::new();
    let mut functions: Vec<u32> = Vec::new();
    let mut imported = 0u32;
    let mut defined = 0usize;
    let mut total = 0u64;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(reader) => {
                for ty in reader.into_iter_err_on_gc_types() {
                    let ty = ty?;
                    let (params, results) = (ty.params().len() as u64, ty.results().len() as u64);
                    types.push(Arity { params, results });
                }
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    imported += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(reader) => {
                functions = reader.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::CodeSectionEntry(body) => {
                // What has no type is not valid; the validator will say so.
                let arity = |ty: u32| types.get(ty as usize).copied().unwrap_or_default();
                let own = functions.get(defined).map(|ty| arity(*ty)).unwrap_or_default();
                let weight = weigh(&body, own, arity)?;
                total = total.saturating_add(weight);
                if weight > FUNCTION_WEIGHT_MAX {
                    return Ok(Err(CheckError::FunctionTooComplex {
                        function: imported.saturating_add(defined as u32),
                        weight,
                        max: FUNCTION_WEIGHT_MAX,
                    }));
                }
                if total > MODULE_WEIGHT_MAX {
                    return Ok(Err(CheckError::ModuleTooComplex { max: MODULE_WEIGHT_MAX }));
                }
                defined += 1;
            }
            _ => {}
        }
    }
    Ok(Ok(()))
}

fn weigh(
    body: &FunctionBody<'_>,
    own: Arity,
    arity: impl Fn(u32) -> Arity,
) -> Result<u64, BinaryReaderError> {
    let mut locals = own.params;
    for declared in body.get_locals_reader()? {
        locals = locals.saturating_add(u64::from(declared?.0));
    }
    let (mut instructions, mut joins) = (0u64, 1u64);
    let mut handed_on = own.results;
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        instructions += 1;
        match operators.read()? {
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                joins += 1;
                let arity = match blockty {
                    BlockType::Empty => Arity::default(),
                    BlockType::Type(_) => Arity { params: 0, results: 1 },
                    BlockType::FuncType(ty) => arity(ty),
                };
                handed_on = handed_on.max(arity.params).max(arity.results);
            }
            Operator::Br { .. } | Operator::BrIf { .. } => joins += 1,
            Operator::BrTable { targets } => joins += u64::from(targets.len()) + 1,
            // Calls hand values on as well, but to no other path.
            _ => {}
        }
    }
    let merged = locals.saturating_add(handed_on).saturating_mul(joins);
    Ok(instructions.saturating_add(merged))
}
