//! What a module may ask for before a cluster takes it.
//!
//! Validator and compiler keep something for every value, type and name of a module, and a few
//! bytes can stand for very many: a call of a function with a thousand results is two bytes, and
//! a function of a type with a thousand parameters is four. Here everything is counted that costs
//! memory or time without being long:
//!
//! - types have few parameters and results;
//! - a function weighs `instructions + locals + values`, where a call, a block or a branch hands on
//!   as many values as its type or label says, to how many places it may go;
//! - a module weighs what its functions do, and for each of its types and functions what the
//!   compiler makes besides: entries from the host, with all parameters and results;
//! - imports, exports, globals, elements and steps of constant expressions are few.
//!
//! Values are counted where they come up, not where they go: so the sum bounds how many there are at
//! any moment, in code that cannot be reached as well, where the height of the stack is nobody's
//! business but the validator's.
//!
//! Only what is new is asked: what a cluster has in its log must go on being loaded by everybody,
//! so `complexity` itself never gets stricter.

use wasmparser::{
    BinaryReaderError, BlockType, CompositeInnerType, ConstExpr, DataKind, ElementItems,
    ElementKind, FunctionBody, Operator, Parser, Payload, TableInit, TypeRef,
};

use super::Arity;
use crate::wasm::check::CheckError;

/// Most parameters of a function or block.
const PARAMS_MAX: u64 = 256;
/// Most results of a function or block.
const RESULTS_MAX: u64 = 64;
/// Most types: each may become an entry.
const TYPES_MAX: u64 = 1 << 14;
/// Most imports.
const IMPORTS_MAX: u64 = 1 << 12;
/// Most exports.
const EXPORTS_MAX: u64 = 1 << 16;
/// Most bytes of the names of all imports and exports: some are kept as long as the module is.
const NAMES_MAX_BYTES: u64 = 1 << 22;
/// Most globals, whether they change or not: each takes room in every instance.
const GLOBALS_MAX: u64 = 1 << 16;
/// Most segments of elements.
const ELEMENT_SEGMENTS_MAX: u64 = 1 << 14;
/// Most elements of all segments together.
const ELEMENTS_MAX: u64 = 1 << 20;
/// Longest constant expression.
const CONSTANT_STEPS_MAX: u64 = 1 << 8;
/// Most sections, custom ones among them.
const SECTIONS_MAX: u64 = 1 << 12;
/// Heaviest function.
const FUNCTION_WEIGHT_MAX: u64 = 1 << 19;
/// Weight of all functions together.
const MODULE_WEIGHT_MAX: u64 = 1 << 25;
/// What a function or type weighs by itself.
const ENTRY_WEIGHT: u64 = 32;

/// A sum that has a name and a bound.
struct Count {
    what: &'static str,
    sum: u64,
    max: u64,
}

impl Count {
    const fn new(what: &'static str, max: u64) -> Count {
        Count { what, sum: 0, max }
    }

    fn add(&mut self, more: u64) -> Result<(), Excess> {
        self.sum = self.sum.saturating_add(more);
        match self.sum > self.max {
            true => Err(Excess::Count(self.what, self.max)),
            false => Ok(()),
        }
    }
}

/// What there is too much of.
enum Excess {
    Count(&'static str, u64),
    Arity(Arity),
    Function {
        function: u32,
    },
    /// Nothing: it cannot be read.
    Unreadable(BinaryReaderError),
}

impl From<BinaryReaderError> for Excess {
    fn from(error: BinaryReaderError) -> Excess {
        Excess::Unreadable(error)
    }
}

/// Refuses what is out of proportion to its length. Reads nothing behind the first excess.
pub(in crate::wasm) fn check(bytes: &[u8]) -> Result<Result<(), CheckError>, BinaryReaderError> {
    let complex = |reason| Ok(Err(CheckError::ModuleTooComplex { reason }));
    match Door::new().read(bytes) {
        Ok(_) => Ok(Ok(())),
        Err(Excess::Unreadable(error)) => Err(error),
        Err(Excess::Count(what, max)) => complex(format!("more than {max} {what}")),
        Err(Excess::Arity(arity)) => complex(format!(
            "a type of {} parameters and {} results (at most {PARAMS_MAX} and {RESULTS_MAX})",
            arity.params, arity.results
        )),
        Err(Excess::Function { function }) => Ok(Err(CheckError::FunctionTooComplex {
            function,
            reason: format!(
                "instructions + locals + values of calls, blocks and branches are more than \
                 {FUNCTION_WEIGHT_MAX}"
            ),
        })),
    }
}

struct Door {
    /// By index; what is no function's type has neither parameters nor results.
    types: Vec<Arity>,
    /// The most that any of them has.
    widest: Arity,
    /// Of all functions, imported ones first.
    functions: Vec<u32>,
    imported_functions: u32,
    bodies: u32,
    type_count: Count,
    imports: Count,
    exports: Count,
    name_bytes: Count,
    globals: Count,
    element_segments: Count,
    elements: Count,
    sections: Count,
    weight: Count,
}

impl Door {
    fn new() -> Door {
        Door {
            types: Vec::new(),
            widest: Arity::default(),
            functions: Vec::new(),
            imported_functions: 0,
            bodies: 0,
            type_count: Count::new("types", TYPES_MAX),
            imports: Count::new("imports", IMPORTS_MAX),
            exports: Count::new("exports", EXPORTS_MAX),
            name_bytes: Count::new("bytes of names of imports and exports", NAMES_MAX_BYTES),
            globals: Count::new("globals", GLOBALS_MAX),
            element_segments: Count::new("element segments", ELEMENT_SEGMENTS_MAX),
            elements: Count::new("elements in segments", ELEMENTS_MAX),
            sections: Count::new("sections", SECTIONS_MAX),
            weight: Count::new(
                "instructions + locals + values of calls, blocks and branches in all functions \
                 together",
                MODULE_WEIGHT_MAX,
            ),
        }
    }

    /// All of a module, and what it weighs.
    fn read(mut self, bytes: &[u8]) -> Result<Door, Excess> {
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            if !matches!(payload, Payload::CodeSectionEntry(_)) {
                self.sections.add(1)?;
            }
            self.payload(payload)?;
        }
        Ok(self)
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), Excess> {
        match payload {
            Payload::TypeSection(reader) => {
                for group in reader {
                    for ty in group?.types() {
                        self.ty(match &ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Arity {
                                params: ty.params().len() as u64,
                                results: ty.results().len() as u64,
                            },
                            _ => Arity::default(),
                        })?;
                    }
                }
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    self.imports.add(1)?;
                    let import = import?;
                    self.name_bytes.add((import.module.len() + import.name.len()) as u64)?;
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import.ty {
                        self.imported_functions += 1;
                        self.function(ty)?;
                    }
                }
            }
            Payload::FunctionSection(reader) => {
                for ty in reader {
                    self.function(ty?)?;
                }
            }
            Payload::TableSection(reader) => {
                for table in reader {
                    if let TableInit::Expr(first) = table?.init {
                        steps(&first)?;
                    }
                }
            }
            Payload::GlobalSection(reader) => {
                for global in reader {
                    self.globals.add(1)?;
                    steps(&global?.init_expr)?;
                }
            }
            Payload::ExportSection(reader) => {
                for export in reader {
                    self.exports.add(1)?;
                    self.name_bytes.add(export?.name.len() as u64)?;
                }
            }
            Payload::ElementSection(reader) => {
                for element in reader {
                    self.element_segments.add(1)?;
                    let element = element?;
                    if let ElementKind::Active { offset_expr, .. } = &element.kind {
                        steps(offset_expr)?;
                    }
                    match element.items {
                        ElementItems::Functions(functions) => {
                            self.elements.add(u64::from(functions.count()))?;
                        }
                        ElementItems::Expressions(_, expressions) => {
                            self.elements.add(u64::from(expressions.count()))?;
                            for expression in expressions {
                                steps(&expression?)?;
                            }
                        }
                    }
                }
            }
            Payload::DataSection(reader) => {
                for data in reader {
                    if let DataKind::Active { offset_expr, .. } = data?.kind {
                        steps(&offset_expr)?;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => self.body(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn ty(&mut self, arity: Arity) -> Result<(), Excess> {
        self.type_count.add(1)?;
        if arity.params > PARAMS_MAX || arity.results > RESULTS_MAX {
            return Err(Excess::Arity(arity));
        }
        self.weight.add(ENTRY_WEIGHT + arity.values())?;
        self.widest.params = self.widest.params.max(arity.params);
        self.widest.results = self.widest.results.max(arity.results);
        self.types.push(arity);
        Ok(())
    }

    fn function(&mut self, ty: u32) -> Result<(), Excess> {
        self.weight.add(ENTRY_WEIGHT + self.arity(ty).values())?;
        self.functions.push(ty);
        Ok(())
    }

    /// What has no type is not valid; the validator will say so.
    fn arity(&self, ty: u32) -> Arity {
        self.types.get(ty as usize).copied().unwrap_or_default()
    }

    fn arity_of_function(&self, function: u32) -> Arity {
        self.functions.get(function as usize).map(|ty| self.arity(*ty)).unwrap_or_default()
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), Excess> {
        let function = self.imported_functions.saturating_add(self.bodies);
        self.bodies += 1;
        let heavy = |_| Excess::Function { function };
        let mut weight = Count::new("", FUNCTION_WEIGHT_MAX);
        for declared in body.get_locals_reader()? {
            weight.add(u64::from(declared?.0)).map_err(heavy)?;
        }
        // What the label of each open block takes; the function's own is the first.
        let mut labels = vec![self.arity_of_function(function).results];
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let values = self.values(&operators.read()?, &mut labels)?;
            weight.add(values.saturating_add(1)).map_err(heavy)?;
        }
        self.weight.add(weight.sum)
    }

    /// The values that an operator takes to another place, beyond a few.
    fn values(&self, operator: &Operator<'_>, labels: &mut Vec<u64>) -> Result<u64, Excess> {
        let label = |depth: u32| {
            let at = labels.len().checked_sub(depth as usize + 1);
            at.map_or(0, |at| labels[at])
        };
        Ok(match operator {
            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                self.arity_of_function(*function_index).values()
            }
            Operator::CallIndirect { type_index, .. }
            | Operator::ReturnCallIndirect { type_index, .. }
            | Operator::CallRef { type_index }
            | Operator::ReturnCallRef { type_index } => self.arity(*type_index).values(),
            Operator::Block { blockty } | Operator::If { blockty } | Operator::Try { blockty } => {
                let arity = self.block(*blockty);
                labels.push(arity.results);
                arity.values()
            }
            Operator::TryTable { try_table } => {
                let arity = self.block(try_table.ty);
                labels.push(arity.results);
                arity.values().saturating_add(try_table.catches.len() as u64)
            }
            Operator::Loop { blockty } => {
                let arity = self.block(*blockty);
                labels.push(arity.params);
                arity.values()
            }
            Operator::End | Operator::Delegate { .. } => {
                labels.pop();
                0
            }
            Operator::Return => labels.first().copied().unwrap_or(0),
            Operator::Br { relative_depth }
            | Operator::BrIf { relative_depth }
            | Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth }
            | Operator::BrOnCast { relative_depth, .. }
            | Operator::BrOnCastFail { relative_depth, .. } => label(*relative_depth),
            Operator::BrTable { targets } => {
                let mut values = label(targets.default());
                for target in targets.targets() {
                    values = values.saturating_add(label(target?)).saturating_add(1);
                }
                values
            }
            // Off, but the validator looks at them to say so.
            Operator::Catch { .. }
            | Operator::Throw { .. }
            | Operator::Resume { .. }
            | Operator::ResumeThrow { .. }
            | Operator::Suspend { .. }
            | Operator::Switch { .. } => self.widest.values(),
            _ => 0,
        })
    }

    fn block(&self, ty: BlockType) -> Arity {
        match ty {
            BlockType::Empty => Arity::default(),
            BlockType::Type(_) => Arity { params: 0, results: 1 },
            BlockType::FuncType(ty) => self.arity(ty),
        }
    }
}

/// Reads a constant expression, if it is no longer than it may be.
fn steps(expression: &ConstExpr<'_>) -> Result<(), Excess> {
    let mut count = Count::new("steps of a constant expression", CONSTANT_STEPS_MAX);
    let mut operators = expression.get_operators_reader();
    while !operators.eof() {
        operators.read()?;
        count.add(1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fields: &str) -> Result<(), String> {
        let module = wat::parse_str(format!("(module {fields})")).expect("it parses");
        check(&module).expect("it reads").map_err(|error| error.to_string())
    }

    fn refused(fields: &str, words: &str) {
        let reason = said(fields).expect_err(words);
        assert!(reason.contains(words), "{reason} should contain {words:?}");
    }

    #[test]
    fn what_compilers_emit_is_far_from_the_bounds() {
        for module in [
            &include_bytes!("../../../../plugins/kv/kv.wasm")[..],
            include_bytes!("../../../../plugins/ledger/ledger.wasm"),
            include_bytes!("../../../../guest-sdk/go/probe/probe.wasm"),
            include_bytes!("../../../../guest-sdk/assemblyscript/probe/probe.wasm"),
            include_bytes!("../../../../guest-sdk/zig/probe/probe.wasm"),
            include_bytes!("../../../../guest-sdk/cpp/probe/probe.wasm"),
            include_bytes!("../../../../tests/guests/wasi-c/guest.wasm"),
        ] {
            let Ok(door) = Door::new().read(module) else { panic!("it is sound") };
            assert!(door.widest.params <= PARAMS_MAX / 8, "{}", door.widest.params);
            assert!(door.widest.results <= RESULTS_MAX / 8, "{}", door.widest.results);
            for count in [
                &door.type_count,
                &door.imports,
                &door.exports,
                &door.name_bytes,
                &door.globals,
                &door.element_segments,
                &door.elements,
                &door.sections,
                &door.weight,
            ] {
                assert!(count.sum < count.max / 15, "{} {}", count.sum, count.what);
            }
        }
    }

    #[test]
    fn wide_types_are_refused_and_many_of_them_add_up() {
        let wide = |params: u64, results: u64| {
            let (params, results) =
                ("i32 ".repeat(params as usize), "i64 ".repeat(results as usize));
            format!("(type (func (param {params}) (result {results})))")
        };
        said(&wide(PARAMS_MAX, RESULTS_MAX)).unwrap();
        refused(&wide(PARAMS_MAX + 1, 0), "257 parameters and 0 results (at most 256 and 64)");
        refused(&wide(0, RESULTS_MAX + 1), "0 parameters and 65 results");
        let none = "(type (func))";
        said(&none.repeat(TYPES_MAX as usize)).unwrap();
        refused(&none.repeat(TYPES_MAX as usize + 1), "more than 16384 types");
        // The functions of one type, each of which may be called from anywhere.
        let functions = |count| {
            format!(
                "(type $t {} {}",
                &wide(256, 64)[5..],
                "(func (type $t) unreachable)".repeat(count)
            )
        };
        said(&functions(90_000)).unwrap();
        refused(&functions(100_000), "in all functions together");
    }

    #[test]
    fn calls_weigh_what_they_hand_on_also_where_nothing_is_reached() {
        let results = "i32 ".repeat(64);
        let types =
            format!("(type $many (func (result {results}))) (func $f (type $many) unreachable)");
        let words =
            "function 1 of the module is too complex to compile: instructions + locals + values";
        for call in [
            "(call $f)",
            "(call_indirect (type $many) (i32.const 0))",
            "(block (type $many) unreachable)",
            "(loop (type $many) unreachable)",
            "(if (type $many) (i32.const 0) (then unreachable) (else unreachable))",
        ] {
            let with = |before: &str, count| {
                format!(
                    "{types} (table 1 funcref) (func {before} {} unreachable)",
                    call.repeat(count)
                )
            };
            said(&with("", 7_000)).unwrap();
            refused(&with("", 8_200), words);
            refused(&with("unreachable", 8_200), words);
        }
        let returns = |count| {
            format!(
                "{types} (func (type $many) {} unreachable)",
                "(return (call $f))".repeat(count)
            )
        };
        said(&returns(3_500)).unwrap();
        refused(&returns(4_100), words);
        let exits = |count| {
            let exits = "(br $out (call $f))".repeat(count);
            format!("{types} (func (type $many) (block $out (type $many) {exits}))")
        };
        said(&exits(3_500)).unwrap();
        refused(&exits(4_100), words);
        let table = |count| {
            let targets = "0 ".repeat(count);
            format!("{types} (func (type $many) (br_table {targets} (call $f) (i32.const 0)))")
        };
        said(&table(7_500)).unwrap();
        refused(&table(8_200), words);
    }

    #[test]
    fn functions_and_modules_have_a_weight() {
        let function = |locals, nops| {
            let (locals, nops) = ("i32 ".repeat(locals), "nop ".repeat(nops));
            format!("(func (local {locals}) {nops})")
        };
        let most = FUNCTION_WEIGHT_MAX as usize;
        said(&function(10_000, most - 10_001)).unwrap();
        refused(&function(10_000, most - 10_000), "function 0 of the module is too complex");
    }

    #[test]
    fn what_a_module_lists_is_counted() {
        let many = |field: &str, count: u64| field.repeat(count as usize);
        let cases = [
            (r#"(import "a" "b" (func))"#, IMPORTS_MAX, "imports"),
            ("(global i32 (i32.const 0))", GLOBALS_MAX, "globals"),
            ("(elem func)", ELEMENT_SEGMENTS_MAX, "element segments"),
        ];
        for (field, max, what) in cases {
            said(&many(field, max)).unwrap();
            refused(&many(field, max + 1), &format!("more than {max} {what}"));
        }
        let exports = |count| {
            let exports = (0..count).map(|at| format!("(export \"{at}\" (func 0))"));
            format!("(func) {}", exports.collect::<String>())
        };
        said(&exports(EXPORTS_MAX)).unwrap();
        refused(&exports(EXPORTS_MAX + 1), "more than 65536 exports");
        let long = |count: u64| {
            let names = (0..count).map(|at| format!("(export \"{at:032768}\" (func 0))"));
            format!("(func) {}", names.collect::<String>())
        };
        said(&long(128)).unwrap();
        refused(&long(129), "more than 4194304 bytes of names of imports and exports");
        let elements = |field: &str, count: u64| {
            format!("(func) (elem declare {field})").replace("..", &many("0 ", count))
        };
        said(&elements("func ..", ELEMENTS_MAX)).unwrap();
        refused(&elements("func ..", ELEMENTS_MAX + 1), "more than 1048576 elements in segments");
        let steps = |count: u64| {
            format!(
                "(memory 1) (data (offset (i32.const 0) {}) \"\")",
                many("(i32.add (i32.const 0))", count)
            )
        };
        said(&steps(100)).unwrap();
        refused(&steps(CONSTANT_STEPS_MAX), "more than 256 steps of a constant expression");
        let mut module = wat::parse_str("(module)").expect("it parses");
        module.extend([0, 1, 0].repeat(SECTIONS_MAX as usize + 1));
        let refused = check(&module).expect("it reads").expect_err("many");
        assert!(refused.to_string().contains("more than 4096 sections"), "{refused}");
    }
}
