//! The one way into a guest, and exactly how much stack a guest has.
//!
//! wasmtime takes the limit of a guest's stack from its own stack pointer at entry, and the frames
//! between there and the guest's first belong to the host: their size depends on how this program
//! was built. A runaway recursion would overflow some frames earlier in one build than in
//! another. So every call takes the same way ([`unchecked::enter`], never inlined), a probe
//! measures once what that way costs in this build, and every engine gets that much on top:
//!
//! ```text
//!   stack pointer that wasmtime looks at ─┬─ frames of the host       overhead, measured
//!                                         ├─ frames of the guest      stack_max_bytes, exactly
//!                                         └─ limit
//! ```
//!
//! Frames are multiples of 16 bytes on both architectures, so stacks are too.

use std::sync::{Arc, OnceLock};

use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, Module as Encoded, TypeSection, ValType,
};
use wasmtime::{Engine, Instance, Module, Store, Trap, TypedFunc};

use super::abi::CallState;
use super::engine::with_native_stack;
use super::unchecked;
use crate::fsm::{HostFailure, Limits};

/// In which stacks and frames are counted.
const UNIT_BYTES: usize = 16;
/// Stack of the first probe: any that is small and not too small.
const PROBE_BYTES: usize = 64 << 10;
/// More than the frame of the probe's function has; a few dozen bytes.
const FRAME_MAX_BYTES: usize = 1024;
/// More than the host's frames may take, in any build.
const OVERHEAD_MAX_BYTES: usize = 32 << 10;
const DEPTH: &str = "depth";
const PROBE: &str = "probe";

/// Calls a function that takes the length of its input.
pub(super) fn call_with_length(
    store: &mut Store<CallState>,
    function: &TypedFunc<u32, i32>,
    length: u32,
) -> wasmtime::Result<i32> {
    unchecked::enter(store, function.func(), length).map(u32::cast_signed)
}

/// Calls a function that has no input.
pub(super) fn call_for_status(
    store: &mut Store<CallState>,
    function: &TypedFunc<(), i32>,
) -> wasmtime::Result<i32> {
    unchecked::enter(store, function.func(), 0).map(u32::cast_signed)
}

/// Calls a function that has neither input nor status.
pub(super) fn call_initialiser(
    store: &mut Store<CallState>,
    function: &TypedFunc<(), ()>,
) -> wasmtime::Result<()> {
    unchecked::enter(store, function.func(), 0).map(drop)
}

/// What wasmtime must be told so that a guest has `stack_max_bytes` for its own frames.
pub(super) fn native_stack_bytes(stack_max_bytes: usize) -> Result<usize, HostFailure> {
    // A property of this program's code, like the address of a function.
    static OVERHEAD: OnceLock<Result<isize, String>> = OnceLock::new();
    let overhead = OVERHEAD.get_or_init(|| measure().map_err(|HostFailure(reason)| reason));
    let overhead = overhead.clone().map_err(HostFailure)?;
    let guest = stack_max_bytes - stack_max_bytes % UNIT_BYTES;
    guest
        .checked_add_signed(overhead)
        .ok_or_else(|| HostFailure(format!("a stack of {guest} bytes with {overhead} on top")))
}

/// Finds two stacks with each of which the probe gets one deeper: their distance is its frame, and
/// what its frames leave of the first is the host's.
fn measure() -> Result<isize, HostFailure> {
    let engine = with_native_stack(PROBE_BYTES)?;
    let failed = |error: wasmtime::Error| HostFailure(format!("measuring the stack: {error:#}"));
    let code = engine.precompile_module(&probe()).map_err(failed)?;
    let depth = |stack_bytes: usize| {
        let engine = with_native_stack(stack_bytes)?;
        probe_depth(&engine, &code).map_err(failed)
    };
    let first = depth(PROBE_BYTES)?;
    let (mut stack, mut deeper) = (PROBE_BYTES, Vec::new());
    while deeper.len() < 2 && stack < PROBE_BYTES + 2 * FRAME_MAX_BYTES {
        stack += UNIT_BYTES;
        if depth(stack)? > first + deeper.len() {
            deeper.push(stack);
        }
    }
    let [enough, enough_for_next] = deeper[..] else {
        return Err(HostFailure(format!("measuring the stack: no end of depth {first}")));
    };
    let frames = (first + 1) * (enough_for_next - enough);
    match enough.checked_signed_diff(frames) {
        Some(overhead) if overhead.unsigned_abs() <= OVERHEAD_MAX_BYTES => Ok(overhead),
        _ => Err(HostFailure(format!(
            "measuring the stack: {frames} bytes of frames on a stack of {enough}"
        ))),
    }
}

/// How deep the probe gets.
fn probe_depth(engine: &Engine, code: &[u8]) -> wasmtime::Result<usize> {
    let module: Module = unchecked::load_compiled(engine, code)?;
    let mut store = Store::new(engine, CallState::new(Arc::new(Limits::default())));
    store.set_fuel(u64::MAX)?;
    let instance = Instance::new(&mut store, &module, &[])?;
    let function = instance.get_typed_func::<u32, i32>(&mut store, PROBE)?;
    let ended = call_with_length(&mut store, &function, 0);
    match ended.as_ref().map_err(|error| error.downcast_ref::<Trap>()) {
        Err(Some(Trap::StackOverflow)) => {}
        Err(_) => return ended.map(|_| 0),
        Ok(status) => wasmtime::bail!("a recursion without end ended with {status}"),
    }
    let depth = instance.get_global(&mut store, DEPTH).map(|global| global.get(&mut store));
    depth
        .and_then(|depth| usize::try_from(depth.i32()?).ok())
        .ok_or_else(|| wasmtime::format_err!("the probe does not say how deep it got"))
}

/// A function that counts in a global and calls itself without end.
fn probe() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut globals = GlobalSection::new();
    let counter = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
    globals.global(counter, &ConstExpr::i32_const(0));
    let mut exports = ExportSection::new();
    exports.export(PROBE, ExportKind::Func, 0).export(DEPTH, ExportKind::Global, 0);
    let mut body = Function::new([]);
    body.instructions()
        .global_get(0)
        .i32_const(1)
        .i32_add()
        .global_set(0)
        .local_get(0)
        .call(0)
        .end();
    let mut code = CodeSection::new();
    code.function(&body);
    let mut module = Encoded::new();
    module.section(&types).section(&functions).section(&globals).section(&exports).section(&code);
    module.finish()
}
