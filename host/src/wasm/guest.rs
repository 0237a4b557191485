//! One instance of a module in one store: calls it and turns what comes back into the
//! vocabulary of the seam.

use std::ops::Range;
use std::sync::Arc;

use raft_fsm_abi as abi;
use wasmtime::{
    Global, Instance, InstancePre, Memory, Store, Trap as WasmTrap, V128, Val, WasmBacktrace,
};

use super::abi::{CallKind, CallState, Given, GuestFault, HostFault, slice};
use super::bits::Bits;
use super::check::ModuleReport;
use super::engine::HOST_STACK_BYTES;
use super::exports::{Export, Exports, missing};
use super::image::{GlobalValue, GuestState};
use super::memory::{self, Plan, Region, explained};
use super::rewrite::Data;
use super::stack;
use super::tracking::{Then, Tracking};
use super::window::Window;
use super::words::shown;
use super::workers::Workers;
use crate::fsm::{Context, HostFailure, Limits, ModuleRefused, Trap};
use crate::types::TrapKind;

const WASM_PAGE_BYTES: usize = 64 << 10;

const INPUT_TOO_DEAR: &str = "its input alone costs more";

/// A module ready to be instantiated.
pub(super) struct Compiled {
    pub(super) report: ModuleReport,
    pub(super) pre: InstancePre<CallState>,
    /// Export names of its mutable globals.
    pub(super) globals: Vec<String>,
    /// Export name of its start function.
    pub(super) start: Option<String>,
    /// What its memory begins with.
    pub(super) data: Data,
}

/// How a call ended, before the seam's view of it.
pub(super) struct Ended {
    /// The status (≥ 0), or the trap.
    pub(super) status: Result<i32, Trap>,
    pub(super) fuel_used: u64,
}

/// What a fork follows: the state of a live instance that rests meanwhile.
pub(super) struct Origin {
    globals: Vec<GlobalValue>,
    memory_bytes: usize,
    limits: Arc<Limits>,
    region: Arc<Region>,
}

/// An instance.
pub(super) struct Guest {
    store: Store<CallState>,
    instance: Instance,
    memory: Memory,
    window: Option<Window>,
    globals: Vec<Global>,
    exports: Exports,
    limits: Arc<Limits>,
    region: Arc<Region>,
}

impl Guest {
    /// A live instance, none of whose code has run.
    pub(super) fn live(
        compiled: &Compiled,
        limits: &Arc<Limits>,
        tracking: Option<Arc<Tracking>>,
    ) -> Result<Result<Guest, ModuleRefused>, HostFailure> {
        // A 32-bit memory ends at 4 GiB and consists of whole pages.
        let max_bytes = limits.memory_max_bytes.min(1 << 32) & !(WASM_PAGE_BYTES as u64 - 1);
        let max_bytes = usize::try_from(max_bytes)
            .map_err(|_| HostFailure("this host's addresses are too short".to_owned()))?;
        Guest::instantiate(compiled, limits, Plan::Live { max_bytes, tracking })
    }

    /// A live instance in the place of this one, on the same memory, of which it keeps the
    /// first `memory_bytes`. This instance must not be called any more.
    pub(super) fn succeed(
        &self,
        compiled: &Compiled,
        memory_bytes: usize,
        globals: &[GlobalValue],
    ) -> Result<Guest, HostFailure> {
        let plan = Plan::Successor { of: Arc::clone(&self.region) };
        let mut guest = Guest::instantiate(compiled, &self.limits, plan)?
            .map_err(|refused| HostFailure(format!("a fresh instance is refused: {refused}")))?;
        guest.region.take_over(memory_bytes).map_err(|error| {
            HostFailure(format!("taking over a guest's memory: {}", explained(&error)))
        })?;
        guest.grow_memory_to(memory_bytes)?;
        guest.set_globals(globals)?;
        Ok(guest)
    }

    /// What forks of this instance follow.
    pub(super) fn origin(&mut self) -> Result<Origin, HostFailure> {
        Ok(Origin {
            globals: self.globals()?,
            memory_bytes: self.memory_bytes(),
            limits: Arc::clone(&self.limits),
            region: Arc::clone(&self.region),
        })
    }

    /// A second instance on a private view of a live one's memory. It must follow before it is
    /// called.
    pub(super) fn fork(compiled: &Compiled, origin: &Origin) -> Result<Guest, HostFailure> {
        let plan = Plan::View { of: Arc::clone(&origin.region) };
        let fork = Guest::instantiate(compiled, &origin.limits, plan)?
            .map_err(|refused| HostFailure(format!("a second instance is refused: {refused}")))?;
        fork.region
            .seal()
            .map_err(|error| HostFailure(format!("forking a guest: {}", explained(&error))))?;
        Ok(fork)
    }

    fn instantiate(
        compiled: &Compiled,
        limits: &Arc<Limits>,
        plan: Plan,
    ) -> Result<Result<Guest, ModuleRefused>, HostFailure> {
        provide_signal_stack()?;
        let engine = compiled.pre.module().engine();
        let mut store = Store::new(engine, CallState::new(Arc::clone(limits)));
        store.limiter(|state| state);
        // Filling tables takes fuel; their size is bounded.
        store.set_fuel(u64::MAX).map_err(|error| HostFailure(format!("fuel: {error:#}")))?;
        // The others show what the memory of a first one has become.
        let is_first = matches!(plan, Plan::Live { .. });
        let (instance, region) = memory::with_plan(plan, || compiled.pre.instantiate(&mut store));
        let instance = match instance {
            Ok(instance) => instance,
            // No code of the guest runs here: what traps is an element out of bounds.
            Err(error) => {
                return sorted(error)
                    .map(|trap| Err(ModuleRefused(format!("it cannot start: {}", trap.message))));
            }
        };
        let globals = compiled
            .globals
            .iter()
            .map(|name| instance.get_global(&mut store, name).ok_or_else(|| missing(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let memory = instance
            .get_memory(&mut store, abi::EXPORT_MEMORY)
            .ok_or_else(|| missing(abi::EXPORT_MEMORY))?;
        if is_first && let Err(reason) = compiled.data.write_to(memory.data_mut(&mut store)) {
            return Ok(Err(ModuleRefused(format!("it cannot start: {reason}"))));
        }
        store.data_mut().memory = Some(memory);
        let exports = Exports::find(&mut store, &instance, &compiled.report)?;
        let limits = Arc::clone(limits);
        let region =
            region.ok_or_else(|| HostFailure("an instance without a mapped memory".to_owned()))?;
        memory::sort_faults(&mut store, Arc::clone(&region));
        Ok(Ok(Guest {
            store,
            instance,
            memory,
            window: compiled.report.window,
            globals,
            exports,
            limits,
            region,
        }))
    }

    /// Runs the start function and `_initialize` (or `_start`), on one budget of fuel.
    pub(super) fn initialize(
        &mut self,
        compiled: &Compiled,
        context: Context,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        self.store.data_mut().begin(CallKind::Start, context, Given::Input(&[]), 0, false);
        self.check_thread()?;
        self.set_fuel(self.limits.init_fuel)?;
        let start = compiled.start.as_deref();
        let exported = [abi::EXPORT_INITIALIZE, abi::EXPORT_START]
            .into_iter()
            .find(|name| self.instance.get_func(&mut self.store, name).is_some());
        for name in start.into_iter().chain(exported) {
            let function = self
                .instance
                .get_typed_func::<(), ()>(&mut self.store, name)
                .map_err(|error| HostFailure(format!("the checked export `{name}`: {error:#}")))?;
            let called = stack::call_initialiser(&mut self.store, &function);
            self.check_nothing_refused()?;
            if let Err(error) = called {
                let trap = sorted(error)?;
                return Ok(Err(ModuleRefused(format!(
                    "its initialiser {}: {}",
                    trap.kind.describe(),
                    trap.message
                ))));
            }
        }
        Ok(Ok(()))
    }

    /// Runs one export; `None` if the module does not have it. The output and events stay in
    /// the guest until they are taken or the next call begins.
    pub(super) fn call(
        &mut self,
        kind: CallKind,
        context: Context,
        given: Given<'_>,
        quiet: bool,
    ) -> Result<Option<Ended>, HostFailure> {
        if self.exports.of(kind).is_none() {
            return Ok(None);
        }
        let fuel = match kind {
            CallKind::Apply => self.limits.apply_fuel,
            CallKind::Query | CallKind::Classify | CallKind::StateVersion | CallKind::Restores => {
                self.limits.query_fuel
            }
            // Both walk the whole state.
            CallKind::Snapshot | CallKind::Check => self.limits.snapshot_fuel,
            CallKind::Restore | CallKind::Adopt => self.limits.restore_fuel,
            CallKind::Init | CallKind::Start => self.limits.init_fuel,
        };
        self.check_thread()?;
        let len = u32::try_from(given.len())
            .map_err(|_| HostFailure("an input of 4 GiB or more reached a guest".to_owned()))?;
        let window = self.window.filter(|_| Window::is_for(kind));
        let (placed, pulled) = match given {
            Given::Input(input) if window.is_some() && Window::takes(input) => {
                (input, Given::Input(&[]))
            }
            given => (&[][..], given),
        };
        let in_window = placed.len() as u32;
        self.store.data_mut().begin(kind, context, pulled, in_window, quiet);
        let Some(fuel_left) = fuel.checked_sub(in_window.into()) else {
            let trap = Trap { kind: TrapKind::OutOfFuel, message: INPUT_TOO_DEAR.to_owned() };
            return Ok(Some(Ended { status: Err(trap), fuel_used: fuel }));
        };
        self.set_fuel(fuel_left)?;
        if let Some(window) = window {
            self.fill(window, placed)?;
        }
        let result = match self.exports.of(kind) {
            Some(Export::WithLength(export)) => {
                stack::call_with_length(&mut self.store, export, len)
            }
            Some(Export::ForStatus(export)) => stack::call_for_status(&mut self.store, export),
            None => return Ok(None),
        };
        self.check_nothing_refused()?;
        let mut fuel_left =
            self.store.get_fuel().map_err(|error| HostFailure(format!("fuel: {error:#}")))?;
        let status = match result {
            Ok(status) if status >= abi::STATUS_OK => {
                match window.map_or(Ok(()), |window| self.take_output(window, &mut fuel_left)) {
                    Ok(()) => Ok(status),
                    Err(error) => Err(sorted(error)?),
                }
            }
            Ok(status) => Err(Trap {
                kind: TrapKind::BadStatus,
                message: format!("status {status} means nothing"),
            }),
            Err(error) => Err(sorted(error)?),
        };
        Ok(Some(Ended { status, fuel_used: fuel - fuel_left }))
    }

    /// Writes what a call begins with into the window.
    fn fill(&mut self, window: Window, input: &[u8]) -> Result<(), HostFailure> {
        self.region.make_writable(window.written(input.len())).map_err(|error| {
            HostFailure(format!("writing to a guest's window: {}", explained(&error)))
        })?;
        window.fill(self.memory_mut(), input).ok_or_else(|| {
            HostFailure("a guest's memory ends before its window, which was checked".to_owned())
        })
    }

    /// Appends what the window names to the output, and takes the fuel for it.
    fn take_output(&mut self, window: Window, fuel_left: &mut u64) -> wasmtime::Result<()> {
        let (memory, state) = self.memory.data_and_store_mut(&mut self.store);
        let Some((ptr, len)) = window.output(memory) else {
            return Err(HostFault("a guest's memory ends before its window".to_owned()).into());
        };
        if len == 0 {
            return Ok(());
        }
        let output = slice(memory, ptr, len)?;
        let Some(left) = fuel_left.checked_sub(len.into()) else {
            *fuel_left = 0;
            return Err(WasmTrap::OutOfFuel.into());
        };
        *fuel_left = left;
        state.write(output)
    }

    pub(super) fn state_mut(&mut self) -> &mut CallState {
        self.store.data_mut()
    }

    #[cfg(feature = "museum")]
    pub(super) fn flip_bit(&mut self, at: u64) {
        let memory = self.memory.data_mut(&mut self.store);
        if let Some(at) = at.checked_rem(memory.len() as u64) {
            memory[at as usize] ^= 1;
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    pub(super) fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        self.memory.data_mut(&mut self.store)
    }

    pub(super) fn globals(&mut self) -> Result<Vec<GlobalValue>, HostFailure> {
        let store = &mut self.store;
        self.globals.iter().map(|global| global_value(&global.get(&mut *store))).collect()
    }

    /// Adds the grains of memory that may have been written since they were last protected.
    pub(super) fn written(&self, then: Then, into: &mut Bits) -> Result<(), HostFailure> {
        self.region.written(then, into).map_err(|error| {
            HostFailure(format!("asking which pages were written: {}", explained(&error)))
        })
    }

    /// Adds those grains among `range` that somebody ever touched.
    pub(super) fn touched(&self, range: Range<usize>, into: &mut Bits) -> Result<(), HostFailure> {
        self.region.touched(range, into).map_err(|error| {
            HostFailure(format!("asking which pages are there: {}", explained(&error)))
        })
    }

    /// Lets only what is written from now on count as written, where the host can tell.
    pub(super) fn forget_written(&self) -> Result<(), HostFailure> {
        self.region.forget_written().map_err(|error| {
            HostFailure(format!("protecting a guest's memory: {}", explained(&error)))
        })
    }

    /// Whether [`Guest::written`] tells exactly.
    pub(super) fn is_watched(&self) -> bool {
        self.region.is_watched()
    }

    /// Takes over a state. The guest must be a fresh instance; if this fails it must be
    /// discarded. The inner error says what does not fit.
    pub(super) fn load(
        &mut self,
        state: &GuestState,
        workers: &Workers,
    ) -> Result<Result<(), String>, HostFailure> {
        let (fresh_bytes, bytes) = (self.memory_bytes(), state.memory.len_bytes());
        if bytes < fresh_bytes {
            return Ok(Err(format!(
                "its memory has {bytes} bytes, the module starts with {fresh_bytes}"
            )));
        }
        if state.globals.len() != self.globals.len() {
            return Ok(Err(format!(
                "it has {} globals, the module {}",
                state.globals.len(),
                self.globals.len()
            )));
        }
        let current = self.globals()?;
        if current.iter().zip(&state.globals).any(|(current, value)| current.ty != value.ty) {
            return Ok(Err("the types of its globals are not the module's".to_owned()));
        }
        let own_max = self.memory.ty(&self.store).maximum().map(|pages| pages << 16);
        if own_max.is_some_and(|max| bytes as u64 > max) {
            return Ok(Err("its memory is larger than the module allows".to_owned()));
        }
        self.grow_memory_to(bytes)?;
        state.memory.fill(self.memory_mut(), fresh_bytes, workers);
        self.set_globals(&state.globals)?;
        Ok(Ok(()))
    }

    pub(super) fn set_globals(&mut self, values: &[GlobalValue]) -> Result<(), HostFailure> {
        assert_eq!(self.globals.len(), values.len());
        for (global, value) in self.globals.iter().zip(values) {
            global
                .set(&mut self.store, val(*value)?)
                .map_err(|error| HostFailure(format!("setting a global: {error:#}")))?;
        }
        Ok(())
    }

    /// Makes this fork an exact view of `origin` again. `false` if it has outgrown it and must
    /// be replaced.
    pub(super) fn follow(&mut self, origin: &Origin) -> Result<bool, HostFailure> {
        if self.memory_bytes() > origin.memory_bytes {
            return Ok(false);
        }
        self.grow_memory_to(origin.memory_bytes)?;
        self.region.reset_to(&origin.region);
        self.set_globals(&origin.globals)?;
        Ok(true)
    }

    /// Gives back what this fork holds after a call, beyond what the next one would need again.
    /// `false` if it has outgrown `origin`, or the host does not take it back: then it must be
    /// dropped.
    pub(super) fn rest(&mut self, origin: &Origin) -> bool {
        self.store.data_mut().rest();
        if self.memory_bytes() > origin.memory_bytes {
            return false;
        }
        match self.region.give_back() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a fork's memory is not taken back: dropping the fork");
                false
            }
        }
    }

    /// Its memory as the system sees it.
    #[cfg(test)]
    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    fn grow_memory_to(&mut self, bytes: usize) -> Result<(), HostFailure> {
        let delta = (bytes - self.memory_bytes()) / WASM_PAGE_BYTES;
        if delta > 0 {
            self.memory
                .grow(&mut self.store, delta as u64)
                .map_err(|error| HostFailure(format!("growing a memory: {error:#}")))?;
        }
        Ok(())
    }

    fn set_fuel(&mut self, fuel: u64) -> Result<(), HostFailure> {
        self.store.set_fuel(fuel).map_err(|error| HostFailure(format!("fuel: {error:#}")))
    }

    /// A trap is the guest's doing only if this host has refused it nothing.
    fn check_nothing_refused(&self) -> Result<(), HostFailure> {
        self.region.refused().map_or(Ok(()), |what| Err(HostFailure(what)))
    }

    /// A guest that reaches its stack limit traps; the thread's own end would kill the node. So would
    /// a signal that finds no stack.
    fn check_thread(&self) -> Result<(), HostFailure> {
        provide_signal_stack()?;
        let needed = self.limits.stack_max_bytes + HOST_STACK_BYTES;
        match memory::stack_left_bytes() {
            Some(left) if (left as u64) < needed => Err(HostFailure(format!(
                "the thread that runs the state machine has {left} bytes of stack left and the \
                 guest may need {needed}: give the thread a larger stack"
            ))),
            _ => Ok(()),
        }
    }
}

fn provide_signal_stack() -> Result<(), HostFailure> {
    memory::make_signal_stack()
        .map_err(|error| HostFailure(format!("a stack for signals: {}", explained(&error))))
}

/// Sorts an error of a call: the guest's doing, or the host's. When unsure, the host's.
fn sorted(error: wasmtime::Error) -> Result<Trap, HostFailure> {
    if let Some(fault) = error.downcast_ref::<HostFault>() {
        return Err(HostFailure(fault.0.clone()));
    }
    if let Some(fault) = error.downcast_ref::<GuestFault>() {
        return Ok(Trap { kind: fault.kind, message: with_backtrace(fault, &error) });
    }
    let Some(trap) = error.downcast_ref::<WasmTrap>() else {
        return Err(HostFailure(format!("{error:#}")));
    };
    let kind = match trap {
        WasmTrap::OutOfFuel => TrapKind::OutOfFuel,
        WasmTrap::StackOverflow => TrapKind::StackOverflow,
        WasmTrap::MemoryOutOfBounds | WasmTrap::TableOutOfBounds => TrapKind::OutOfBounds,
        WasmTrap::UnreachableCodeReached => TrapKind::Unreachable,
        WasmTrap::IntegerOverflow
        | WasmTrap::IntegerDivisionByZero
        | WasmTrap::BadConversionToInteger => TrapKind::Arithmetic,
        WasmTrap::IndirectCallToNull | WasmTrap::BadSignature | WasmTrap::NullReference => {
            TrapKind::BadCall
        }
        // The features behind all others are off.
        other => return Err(HostFailure(format!("an impossible trap: {other}"))),
    };
    Ok(Trap { kind, message: with_backtrace(trap, &error) })
}

fn with_backtrace(what: &dyn std::fmt::Display, error: &wasmtime::Error) -> String {
    match error.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) if !backtrace.frames().is_empty() => {
            let frames: Vec<String> = backtrace
                .frames()
                .iter()
                .map(|frame| match frame.func_name() {
                    Some(name) => shown(name),
                    None => format!("function {}", frame.func_index()),
                })
                .collect();
            format!("{what}, in {}", frames.join(" < "))
        }
        _ => what.to_string(),
    }
}

fn global_value(val: &Val) -> Result<GlobalValue, HostFailure> {
    let (ty, bits) = match val {
        Val::I32(value) => (0, u128::from(*value as u32)),
        Val::I64(value) => (1, u128::from(*value as u64)),
        Val::F32(bits) => (2, u128::from(*bits)),
        Val::F64(bits) => (3, u128::from(*bits)),
        Val::V128(value) => (4, value.as_u128()),
        _ => return Err(HostFailure("a mutable global that is no number".to_owned())),
    };
    Ok(GlobalValue { ty, bits })
}

fn val(value: GlobalValue) -> Result<Val, HostFailure> {
    Ok(match value.ty {
        0 => Val::I32(value.bits as u32 as i32),
        1 => Val::I64(value.bits as u64 as i64),
        2 => Val::F32(value.bits as u32),
        3 => Val::F64(value.bits as u64),
        4 => Val::V128(V128::from(value.bits)),
        other => return Err(HostFailure(format!("a global of the unknown type {other}"))),
    })
}
