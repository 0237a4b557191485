//! What happens when a module is instantiated, as far as the compiler makes code of it.
//!
//! All of it becomes one function. Globals that begin with a number and tables that begin with
//! functions at known places need no code, and those are the only ones that compilers emit; data
//! segments are written by the host (see `rewrite`).

use wasmparser::{
    BinaryReaderError, ConstExpr, Element, ElementItems, ElementKind, Global, Operator, Table,
    TableInit,
};

/// Most steps of that function. It takes a tenth of a millisecond to compile each.
pub(super) const STEPS_MAX: u64 = 1 << 14;

/// What was seen of it so far.
#[derive(Default)]
pub(super) struct FirstValues {
    /// Of each table, how many elements it has at first, if these are empty functions.
    tables: Vec<Option<u64>>,
    /// Some segment needs code: then all active ones after it do.
    needs_code: bool,
    steps: u64,
}

impl FirstValues {
    pub(super) fn table(&mut self, table: &Table<'_>) -> Result<(), BinaryReaderError> {
        let empty = match &table.init {
            TableInit::RefNull => true,
            TableInit::Expr(first) => {
                self.steps = self.steps.saturating_add(operators(first)?);
                false
            }
        };
        let functions = table.ty.element_type.is_func_ref();
        self.tables.push((empty && functions).then_some(table.ty.initial));
        Ok(())
    }

    pub(super) fn global(&mut self, global: &Global<'_>) -> Result<(), BinaryReaderError> {
        if !is_number(&global.init_expr)? {
            self.steps = self.steps.saturating_add(operators(&global.init_expr)?);
        }
        Ok(())
    }

    pub(super) fn element(&mut self, element: &Element<'_>) -> Result<(), BinaryReaderError> {
        let steps = match &element.items {
            ElementItems::Functions(functions) => u64::from(functions.count()),
            ElementItems::Expressions(_, expressions) => {
                let mut sum = 0u64;
                for expression in expressions.clone() {
                    sum = sum.saturating_add(operators(&expression?)?);
                }
                sum
            }
        };
        let needed = match &element.kind {
            ElementKind::Declared => false,
            ElementKind::Passive => true,
            ElementKind::Active { table_index, offset_expr } => {
                let table = self.tables.get(table_index.unwrap_or(0) as usize).copied().flatten();
                let known_place = match (&element.items, constant(offset_expr)?, table) {
                    (ElementItems::Functions(functions), Some(offset), Some(size)) => {
                        u64::from(offset) + u64::from(functions.count()) <= size
                    }
                    _ => false,
                };
                self.needs_code |= !known_place;
                self.steps = self.steps.saturating_add(match known_place {
                    true => 0,
                    false => operators(offset_expr)?,
                });
                self.needs_code
            }
        };
        if needed {
            // A segment by itself is a step.
            self.steps = self.steps.saturating_add(steps).saturating_add(1);
        }
        Ok(())
    }

    /// Says so if it is too much.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.steps > STEPS_MAX {
            return Err(format!(
                "its globals and tables get their first values in {} steps (at most {STEPS_MAX}); \
                 numbers, and functions at fixed places of a table, need none",
                self.steps
            ));
        }
        Ok(())
    }
}

/// How many there are, without the end.
fn operators(expression: &ConstExpr<'_>) -> Result<u64, BinaryReaderError> {
    let mut reader = expression.get_operators_reader();
    let mut count = 0;
    while !reader.eof() {
        reader.read()?;
        count += 1;
    }
    Ok(count.max(1) - 1)
}

fn is_number(expression: &ConstExpr<'_>) -> Result<bool, BinaryReaderError> {
    let first = expression.get_operators_reader().read()?;
    let number = matches!(
        first,
        Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::V128Const { .. }
    );
    Ok(number && operators(expression)? == 1)
}

/// The offset, if it is nothing but a number.
fn constant(expression: &ConstExpr<'_>) -> Result<Option<u32>, BinaryReaderError> {
    let first = expression.get_operators_reader().read()?;
    Ok(match first {
        Operator::I32Const { value } if operators(expression)? == 1 => Some(value.cast_unsigned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use crate::wasm::complexity;

    const MANY: usize = super::STEPS_MAX as usize;

    fn said(fields: &str) -> Result<(), String> {
        let module = wat::parse_str(format!("(module {fields})")).expect("it parses");
        complexity::check(&module).expect("it reads").map_err(|error| error.to_string())
    }

    fn refused(fields: &str) {
        let reason = said(fields).expect_err("too much");
        assert!(reason.contains("first values in 16385 steps (at most 16384)"), "{reason}");
    }

    #[test]
    fn what_compilers_emit_costs_nothing() {
        let functions = "$f ".repeat(100_000);
        said(&format!("(func $f) (table 100001 funcref) (elem (i32.const 1) func {functions})"))
            .unwrap();
        said(&format!("(func $f) (elem declare func {functions})")).unwrap();
        said(&"(global i32 (i32.const 1)) (global (mut f64) (f64.const 1))".repeat(50_000))
            .unwrap();
    }

    #[test]
    fn what_needs_code_is_bounded() {
        let functions = |count| "$f ".repeat(count);
        let nulls = |count| "(ref.null func) ".repeat(count);
        // The segment itself is a step; an offset that is no place of the table is one more.
        refused(&format!("(func $f) (elem func {})", functions(MANY)));
        refused(&format!(
            "(func $f) (table 9 funcref) (elem (i32.const 0) func {})",
            functions(MANY - 1)
        ));
        refused(&format!(
            "(func $f) (table 99999 funcref) \
             (elem (offset i32.const 0 i32.const 0 i32.add) func {})",
            functions(MANY - 3)
        ));
        refused(&format!(
            "(table 99999 funcref) (elem (table 0) (i32.const 0) funcref {})",
            nulls(MANY - 1)
        ));
        let globals = "(global i32 (i32.add (i32.const 1) (i32.const 2)))".repeat(MANY / 3 + 1);
        said(&globals).unwrap_err();
        said(&format!("(func $f) (elem func {})", functions(MANY - 1))).unwrap();
    }

    #[test]
    fn after_one_segment_that_needs_code_all_do() {
        let functions = "$f ".repeat(MANY);
        let tables = "(func $f) (table 1 funcref) (table 99999 funcref)";
        let after = format!("(elem (table 1) (i32.const 0) func {functions})");
        said(&format!("{tables} {after}")).unwrap();
        said(&format!("{tables} (elem (table 0) (i32.const 1) func $f) {after}")).unwrap_err();
        said(&format!("{tables} {after} (elem (table 0) (i32.const 1) func $f)")).unwrap();
    }
}
