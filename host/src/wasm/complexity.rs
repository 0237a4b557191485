//! How much a module asks of the compiler, before it is asked.
//!
//! Compiling usually takes as long as the code is, but some kilobytes suffice to take minutes and
//! gigabytes: where paths of a function meet, the compiler merges every local and every value that
//! a block hands on, and it looks at loops within loops again and again. So
//!
//! - a function weighs `instructions + (locals + values handed on) × (blocks + branches)`, and
//!   its weight and that of all functions together are bounded;
//! - loops and blocks nest only so deep, loops the less the more locals there are;
//! - blocks that hand many values on are few;
//! - so are first values of globals and tables that need code.
//!
//! The bounds are far from what compilers emit: loops nest some dozens deep, blocks as deep as a
//! `switch` has cases, and values travel in locals. All this is found in one pass that costs next
//! to nothing, before the validator, whose own work is bounded by it too.
//!
//! These bounds decide whether an activation in the log is done, so they stay as they are. What is
//! asked of new modules besides is in `door`.

pub(super) mod door;
mod first_values;

use wasmparser::{BinaryReaderError, BlockType, FunctionBody, Operator, Parser, Payload};

use self::first_values::FirstValues;
use super::check::CheckError;

/// Version of the bounds below, named in the engine profile: other bounds are another version.
pub(super) const CHECK_VERSION: u32 = 1;

/// Heaviest function.
const FUNCTION_WEIGHT_MAX: u64 = 1 << 23;
/// Weight of all functions together.
const MODULE_WEIGHT_MAX: u64 = 1 << 28;
/// Most functions: each takes some time by itself.
const FUNCTIONS_MAX: usize = 1 << 16;
/// Loops within loops, alone, and times the locals: of a function, of all functions.
const LOOP_DEPTH_MAX: usize = 64;
const LOOP_LOCALS_MAX: u64 = 1 << 16;
const ALL_LOOP_LOCALS_MAX: u64 = 1 << 22;
/// Blocks, loops and conditions within each other.
const BLOCK_DEPTH_MAX: usize = 1 << 12;
/// The compiler's work grows with the square of that depth: its sum over all functions.
const ALL_BLOCK_DEPTHS_SQUARED_MAX: u64 = 1 << 30;
/// Blocks and branches of a function, times the values that one of them hands on, if it is
/// more than one.
const HANDED_ON_MAX: u64 = 1 << 16;

/// Parameters and results of a type.
#[derive(Clone, Copy, Default)]
struct Arity {
    params: u64,
    results: u64,
}

impl Arity {
    fn values(self) -> u64 {
        self.params.saturating_add(self.results)
    }
}

/// Refuses what would keep the compiler busy for minutes, or take gigabytes.
pub(super) fn check(bytes: &[u8]) -> Result<Result<(), CheckError>, BinaryReaderError> {
    Ok(total(bytes)?.map(|_| ()))
}

/// The weight of all functions together.
fn total(bytes: &[u8]) -> Result<Result<Weight, CheckError>, BinaryReaderError> {
    let mut types = Vec::new();
    let mut functions: Vec<u32> = Vec::new();
    let mut imported = 0u32;
    let mut defined = 0usize;
    let mut total = Weight::default();
    let mut first_values = FirstValues::default();
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
                if reader.count() as usize > FUNCTIONS_MAX {
                    let (count, max) = (reader.count(), FUNCTIONS_MAX);
                    return Ok(Err(CheckError::TooManyFunctions { count, max }));
                }
                functions = reader.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::TableSection(reader) => {
                for table in reader {
                    first_values.table(&table?)?;
                }
            }
            Payload::GlobalSection(reader) => {
                for global in reader {
                    first_values.global(&global?)?;
                }
            }
            Payload::ElementSection(reader) => {
                for element in reader {
                    first_values.element(&element?)?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                // What has no type is not valid; the validator will say so.
                let arity = |ty: u32| types.get(ty as usize).copied().unwrap_or_default();
                let own = functions.get(defined).map(|ty| arity(*ty)).unwrap_or_default();
                let function = imported.saturating_add(defined as u32);
                let weight = match weigh(&body, own, arity)? {
                    Ok(weight) => weight,
                    Err(reason) => {
                        return Ok(Err(CheckError::FunctionTooComplex { function, reason }));
                    }
                };
                if let Err(reason) = total.add(weight) {
                    return Ok(Err(CheckError::ModuleTooComplex { reason }));
                }
                defined += 1;
            }
            _ => {}
        }
    }
    match first_values.check() {
        Ok(()) => Ok(Ok(total)),
        Err(reason) => Ok(Err(CheckError::ModuleTooComplex { reason })),
    }
}

/// What a function, or all of them, ask of the compiler.
#[derive(Clone, Copy, Default)]
struct Weight {
    merges: u64,
    loop_locals: u64,
    depth_squared: u64,
}

impl Weight {
    /// Says so if it is too much now.
    fn add(&mut self, other: Weight) -> Result<(), String> {
        for (what, sum, more, max) in [
            ("instructions + locals × branches", &mut self.merges, other.merges, MODULE_WEIGHT_MAX),
            (
                "locals × loops within loops",
                &mut self.loop_locals,
                other.loop_locals,
                ALL_LOOP_LOCALS_MAX,
            ),
            (
                "the squares of the depths to which blocks nest",
                &mut self.depth_squared,
                other.depth_squared,
                ALL_BLOCK_DEPTHS_SQUARED_MAX,
            ),
        ] {
            *sum = sum.saturating_add(more);
            if *sum > max {
                return Err(format!("{what} are more than {max} in all functions together"));
            }
        }
        Ok(())
    }
}

/// The weight of a function, or why it is too complex.
fn weigh(
    body: &FunctionBody<'_>,
    own: Arity,
    arity: impl Fn(u32) -> Arity,
) -> Result<Result<Weight, String>, BinaryReaderError> {
    let mut locals = own.params;
    for declared in body.get_locals_reader()? {
        locals = locals.saturating_add(u64::from(declared?.0));
    }
    let (mut instructions, mut joins) = (0u64, 1u64);
    let mut handed_on = own.results;
    // For each block that is open, whether it is a loop.
    let mut open: Vec<bool> = Vec::new();
    let (mut loops, mut deepest_loops, mut deepest) = (0, 0, 0);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        instructions += 1;
        let operator = operators.read()?;
        match operator {
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                joins += 1;
                let arity = match blockty {
                    BlockType::Empty => Arity::default(),
                    BlockType::Type(_) => Arity { params: 0, results: 1 },
                    BlockType::FuncType(ty) => arity(ty),
                };
                handed_on = handed_on.max(arity.params).max(arity.results);
                let is_loop = matches!(operator, Operator::Loop { .. });
                loops += usize::from(is_loop);
                open.push(is_loop);
                deepest_loops = deepest_loops.max(loops);
                deepest = deepest.max(open.len());
                if loops > LOOP_DEPTH_MAX {
                    return Ok(Err(format!("loops nest more than {LOOP_DEPTH_MAX} deep")));
                }
                if open.len() > BLOCK_DEPTH_MAX {
                    return Ok(Err(format!("blocks nest more than {BLOCK_DEPTH_MAX} deep")));
                }
            }
            Operator::End => loops -= usize::from(open.pop().unwrap_or(false)),
            Operator::Br { .. } | Operator::BrIf { .. } => joins += 1,
            Operator::BrTable { targets } => joins += u64::from(targets.len()) + 1,
            // Calls hand values on as well, but to no other path.
            _ => {}
        }
    }
    if handed_on > 1 && handed_on.saturating_mul(joins) > HANDED_ON_MAX {
        return Ok(Err(format!(
            "{joins} blocks and branches, some of which hand {handed_on} values on (the product \
             may be {HANDED_ON_MAX})"
        )));
    }
    let loop_locals = locals.saturating_mul(deepest_loops as u64);
    if loop_locals > LOOP_LOCALS_MAX {
        return Ok(Err(format!(
            "{locals} locals, and loops that nest {deepest_loops} deep (the product may be \
             {LOOP_LOCALS_MAX})"
        )));
    }
    let merged = locals.saturating_add(handed_on).saturating_mul(joins);
    let merges = instructions.saturating_add(merged);
    if merges > FUNCTION_WEIGHT_MAX {
        return Ok(Err(format!(
            "instructions + locals × branches are {merges} (at most {FUNCTION_WEIGHT_MAX})"
        )));
    }
    let depth_squared = (deepest as u64).pow(2);
    Ok(Ok(Weight { merges, loop_locals, depth_squared }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes one of them changes what an activation in the log does.
    #[test]
    fn these_are_the_bounds_of_this_version() {
        assert_eq!(CHECK_VERSION, 1, "a version that this test does not know: pin its bounds");
        let counts = [FUNCTIONS_MAX, LOOP_DEPTH_MAX, BLOCK_DEPTH_MAX];
        assert_eq!(counts, [1 << 16, 64, 1 << 12]);
        let sums = [
            FUNCTION_WEIGHT_MAX,
            MODULE_WEIGHT_MAX,
            LOOP_LOCALS_MAX,
            ALL_LOOP_LOCALS_MAX,
            ALL_BLOCK_DEPTHS_SQUARED_MAX,
            HANDED_ON_MAX,
            first_values::STEPS_MAX,
        ];
        assert_eq!(sums, [1 << 23, 1 << 28, 1 << 16, 1 << 22, 1 << 30, 1 << 16, 1 << 14]);
    }

    fn refusal(module: &str) -> String {
        let module = wat::parse_str(module).unwrap();
        check(&module).unwrap().unwrap_err().to_string()
    }

    #[test]
    fn what_compilers_emit_is_far_from_the_bounds() {
        for module in [
            &include_bytes!("../../../plugins/kv/kv.wasm")[..],
            include_bytes!("../../../plugins/kv-v2/kv_v2.wasm"),
            include_bytes!("../../../tests/guests/wasi-c/guest.wasm"),
        ] {
            check(module).unwrap().unwrap();
            // Each is far from large, so even a hundred times as much must be fine.
            let total = total(module).unwrap().unwrap();
            assert!(total.merges < MODULE_WEIGHT_MAX / 100, "{}", total.merges);
            assert!(total.loop_locals < ALL_LOOP_LOCALS_MAX / 100, "{}", total.loop_locals);
            let squares = total.depth_squared;
            assert!(squares < ALL_BLOCK_DEPTHS_SQUARED_MAX / 100, "{squares}");
        }
    }

    #[test]
    fn each_bound_is_said_by_its_name() {
        let nested = |what: &str, depth: usize, locals: usize| {
            let (open, close) = (format!("({what} ").repeat(depth), ")".repeat(depth));
            let locals = "i32 ".repeat(locals);
            format!("(module (func) (func (local {locals}) {open} {close}))")
        };
        let said = refusal(&nested("loop", 65, 1));
        assert!(said.contains("function 1 ") && said.contains("loops nest more than 64"), "{said}");
        let said = refusal(&nested("loop", 64, 1025));
        assert!(said.contains("1025 locals, and loops that nest 64 deep"), "{said}");
        let said = refusal(&nested("block", 4097, 1));
        assert!(said.contains("blocks nest more than 4096"), "{said}");
        let said = refusal(&nested("block", 4000, 3000));
        assert!(said.contains("instructions + locals × branches are 12"), "{said}");
        let results = "i32 ".repeat(600);
        let blocks = "(drop (i32.const 0)) (block (br 0))".repeat(100);
        let said = refusal(&format!(
            "(module (type $many (func (result {results}))) \
             (func (block (type $many) unreachable) {blocks} unreachable))"
        ));
        assert!(said.contains("hand 600 values on"), "{said}");
    }
}
