//! Modules that are hostile by their size or shape, which nobody would want to read.

use std::borrow::Cow;

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataSection, ElementSection, Elements,
    EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    ImportSection, Instruction, MemorySection, MemoryType, Module, NameMap, NameSection,
    TypeSection, ValType,
};

/// Types that every module here has, by index.
const STATUS: u32 = 0;
const LEN_TO_STATUS: u32 = 1;
const PLAIN: u32 = 2;
/// Type of [`Parts::params`] and [`Parts::results`].
const MANY: u32 = 3;

/// A sound guest that does nothing, and what is to be added to it.
#[derive(Default)]
struct Parts {
    functions: Vec<Function>,
    globals: u32,
    immutable_globals: u32,
    data: Vec<Vec<u8>>,
    elements: usize,
    /// Functions that may be called from anywhere.
    declared: Vec<u32>,
    names: u32,
    imports: u32,
    types: u32,
    results: usize,
    /// Parameters of the functions in `many`.
    params: usize,
    many: Vec<Function>,
    padding: usize,
}

impl Parts {
    fn module(self) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], [ValType::I32]);
        types.ty().function([ValType::I32], [ValType::I32]);
        types.ty().function([], []);
        types.ty().function(vec![ValType::I32; self.params], vec![ValType::I32; self.results]);
        for number in 0..self.types {
            let bit = |at: u32| if number >> at & 1 == 0 { ValType::I32 } else { ValType::I64 };
            types.ty().function((0..20).map(bit), []);
        }
        let mut imports = ImportSection::new();
        for _ in 0..self.imports {
            imports.import("raft_fsm_v1", "index", EntityType::Function(PLAIN));
        }

        let mut functions = FunctionSection::new();
        for ty in [PLAIN, LEN_TO_STATUS, STATUS, LEN_TO_STATUS] {
            functions.function(ty);
        }
        for _ in &self.functions {
            functions.function(PLAIN);
        }
        for _ in &self.many {
            functions.function(MANY);
        }
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 32,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut globals = GlobalSection::new();
        for number in 0..self.globals {
            let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
            globals.global(ty, &ConstExpr::i32_const(number as i32));
        }
        for _ in 0..self.immutable_globals {
            let ty = GlobalType { val_type: ValType::I32, mutable: false, shared: false };
            globals.global(ty, &ConstExpr::i32_const(0));
        }
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0);
        let names = ["raft_fsm_abi_v1", "apply", "snapshot", "restore"];
        for (index, name) in names.iter().enumerate() {
            exports.export(name, ExportKind::Func, index as u32);
        }
        let mut elements = ElementSection::new();
        elements.passive(Elements::Functions(vec![0; self.elements].into()));
        elements.declared(Elements::Functions(Cow::Borrowed(&self.declared)));
        let mut code = CodeSection::new();
        code.function(&body(&[]));
        for _ in 1..names.len() {
            code.function(&body(&[Instruction::I32Const(0)]));
        }
        for function in self.functions.iter().chain(&self.many) {
            code.function(function);
        }
        let mut data = DataSection::new();
        for segment in &self.data {
            data.active(0, &ConstExpr::i32_const(0), segment.iter().copied());
        }

        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions);
        module.section(&memories).section(&globals);
        module.section(&exports).section(&elements).section(&code).section(&data);
        if self.names > 0 {
            let mut map = NameMap::new();
            for function in 0..self.names {
                map.append(function, "f");
            }
            let mut names = NameSection::new();
            names.functions(&map);
            module.section(&names);
        }
        if self.padding > 0 {
            let data = Cow::Owned(vec![7; self.padding]);
            module.section(&CustomSection { name: "padding".into(), data });
        }
        module.finish()
    }
}

fn body(instructions: &[Instruction<'_>]) -> Function {
    function(0, |function| {
        for instruction in instructions {
            function.instruction(instruction);
        }
    })
}

fn function(locals: u32, fill: impl FnOnce(&mut Function)) -> Function {
    let mut function = Function::new([(locals, ValType::I32)]);
    fill(&mut function);
    function.instruction(&Instruction::End);
    function
}

/// A module with a megabyte of data for each of `megabytes`.
pub fn data(megabytes: u8) -> Vec<u8> {
    let data = (0..megabytes).map(|number| vec![number; 1 << 20]).collect();
    Parts { data, ..Parts::default() }.module()
}

/// A module with many segments of one byte of data, as the linker of Go makes them.
pub fn data_segments(count: usize) -> Vec<u8> {
    Parts { data: vec![vec![1]; count], ..Parts::default() }.module()
}

/// A module with a segment of so many functions that no table takes.
pub fn elements(count: usize) -> Vec<u8> {
    Parts { elements: count, ..Parts::default() }.module()
}

/// A module with a custom section of so many bytes.
pub fn padding(bytes: usize) -> Vec<u8> {
    Parts { padding: bytes, ..Parts::default() }.module()
}

/// Many small functions, each of which could be somebody's.
pub fn functions(count: u32) -> Vec<u8> {
    let functions = (0..count).map(|number| {
        function(1, |function| {
            function.instruction(&Instruction::I32Const(number as i32));
            function.instruction(&Instruction::LocalTee(0));
            function.instruction(&Instruction::I32Eqz);
            function.instruction(&Instruction::If(BlockType::Empty));
            function.instruction(&Instruction::Call(4 + (number + 1) % count));
            function.instruction(&Instruction::End);
        })
    });
    Parts { functions: functions.collect(), ..Parts::default() }.module()
}

/// Functions that declare many locals and use none: a few bytes each, much work for a compiler.
pub fn locals(functions: u32, locals: u32) -> Vec<u8> {
    let functions = (0..functions).map(|_| function(locals, |_| {}));
    Parts { functions: functions.collect(), ..Parts::default() }.module()
}

/// One function in so many instructions without a branch.
pub fn straight(instructions: u32) -> Vec<u8> {
    let function = function(1, |function| {
        function.instruction(&Instruction::I32Const(1));
        for _ in 0..instructions / 3 {
            function.instruction(&Instruction::LocalTee(0));
            function.instruction(&Instruction::LocalGet(0));
            function.instruction(&Instruction::I32Add);
        }
        function.instruction(&Instruction::Drop);
    });
    Parts { functions: vec![function], ..Parts::default() }.module()
}

/// One function of blocks in blocks.
pub fn nested(depth: u32) -> Vec<u8> {
    let function = function(0, |function| {
        for _ in 0..depth {
            function.instruction(&Instruction::Block(BlockType::Empty));
        }
        for level in 0..depth {
            function.instruction(&Instruction::I32Const(1));
            function.instruction(&Instruction::BrIf(depth - 1 - level));
            function.instruction(&Instruction::End);
        }
    });
    Parts { functions: vec![function], ..Parts::default() }.module()
}

/// One function of blocks in blocks, each of which gives the next one `results` values.
pub fn nested_results(depth: u32, results: usize) -> Vec<u8> {
    let function = function(0, |function| {
        for _ in 0..depth {
            function.instruction(&Instruction::Block(BlockType::FunctionType(MANY)));
        }
        for number in 0..results {
            function.instruction(&Instruction::I32Const(number as i32));
        }
        for _ in 0..depth {
            function.instruction(&Instruction::I32Const(1));
            function.instruction(&Instruction::BrIf(0));
            function.instruction(&Instruction::End);
        }
        for _ in 0..results {
            function.instruction(&Instruction::Drop);
        }
    });
    Parts { functions: vec![function], results, ..Parts::default() }.module()
}

/// Loops in loops, and in the innermost one a change of every local: each loop must merge each.
pub fn merges(locals: u32, loops: u32) -> Vec<u8> {
    let function = function(locals, |function| {
        for _ in 0..loops {
            function.instruction(&Instruction::Loop(BlockType::Empty));
        }
        for local in 0..locals {
            function.instruction(&Instruction::LocalGet(local));
            function.instruction(&Instruction::I32Const(local as i32));
            function.instruction(&Instruction::I32Add);
            function.instruction(&Instruction::LocalSet(local));
        }
        for _ in 0..loops {
            function.instruction(&Instruction::LocalGet(0));
            function.instruction(&Instruction::BrIf(0));
            function.instruction(&Instruction::End);
        }
    });
    Parts { functions: vec![function], ..Parts::default() }.module()
}

/// Blocks in blocks, each of which may be left early after every local has changed.
pub fn exits(locals: u32, depth: u32) -> Vec<u8> {
    let function = function(locals, |function| {
        for _ in 0..depth {
            function.instruction(&Instruction::Block(BlockType::Empty));
        }
        for level in 0..depth {
            for local in 0..locals.min(4) {
                let local = (level * 4 + local) % locals;
                function.instruction(&Instruction::LocalGet(local));
                function.instruction(&Instruction::I32Const(level as i32));
                function.instruction(&Instruction::I32Add);
                function.instruction(&Instruction::LocalSet(local));
                function.instruction(&Instruction::LocalGet(local));
                function.instruction(&Instruction::BrIf(depth - 1 - level));
            }
            function.instruction(&Instruction::End);
        }
        for local in 0..locals {
            function.instruction(&Instruction::LocalGet(local));
            function.instruction(&Instruction::Drop);
        }
    });
    Parts { functions: vec![function], ..Parts::default() }.module()
}

/// One function of blocks in blocks around tables of branches to all of them.
pub fn branch_tables(tables: u32, targets: u32) -> Vec<u8> {
    let depth = targets.min(1000);
    let list: Vec<u32> = (0..targets).map(|number| number % depth).collect();
    let function = function(1, |function| {
        for _ in 0..depth {
            function.instruction(&Instruction::Block(BlockType::Empty));
        }
        for _ in 0..tables {
            function.instruction(&Instruction::Block(BlockType::Empty));
            function.instruction(&Instruction::LocalGet(0));
            function.instruction(&Instruction::BrTable(Cow::Borrowed(&list), 0));
            function.instruction(&Instruction::End);
        }
        for _ in 0..depth {
            function.instruction(&Instruction::End);
        }
    });
    Parts { functions: vec![function], ..Parts::default() }.module()
}

/// So many mutable globals.
pub fn globals(count: u32) -> Vec<u8> {
    Parts { globals: count, ..Parts::default() }.module()
}

/// Calls of a function with so many results, none of which is used.
pub fn calls(count: u32, results: usize) -> Vec<u8> {
    let caller = function(0, |function| {
        for _ in 0..count {
            // The callee comes behind this one.
            function.instruction(&Instruction::Call(5));
        }
        function.instruction(&Instruction::Unreachable);
    });
    let many = vec![body(&[Instruction::Unreachable])];
    Parts { functions: vec![caller], results, many, ..Parts::default() }.module()
}

/// So many functions that may be called from anywhere, with as many parameters as results.
pub fn callable(functions: u32, arity: usize) -> Vec<u8> {
    let many = (0..functions).map(|_| body(&[Instruction::Unreachable])).collect();
    let declared = (4..4 + functions).collect();
    Parts { results: arity, params: arity, many, declared, ..Parts::default() }.module()
}

/// So many types, all different.
pub fn types(count: u32) -> Vec<u8> {
    Parts { types: count, ..Parts::default() }.module()
}

/// So many globals that never change.
pub fn immutable_globals(count: u32) -> Vec<u8> {
    Parts { immutable_globals: count, ..Parts::default() }.module()
}

/// A function that is declared so many times to be called from anywhere.
pub fn declared(count: usize) -> Vec<u8> {
    Parts { declared: vec![0; count], ..Parts::default() }.module()
}

/// The same import again and again.
pub fn imports(count: u32) -> Vec<u8> {
    Parts { imports: count, ..Parts::default() }.module()
}

/// Names for so many functions, nearly all of which do not exist.
pub fn named(functions: u32) -> Vec<u8> {
    Parts { names: functions, ..Parts::default() }.module()
}
