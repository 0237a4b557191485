//! The host's side of the guest ABI: what a call may see and leave behind, and the imports of
//! module `raft_fsm_v1`. Every pointer, length and amount from the guest is checked here.

use raft_fsm_abi as abi;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use wasmparser::ValType::{I32, I64};
use wasmtime::{Caller, Linker, Memory, ResourceLimiter, Trap as WasmTrap};

use super::check::Signature;
use super::image::{GlobalValue, GuestState};
use super::words::push_plain;
use crate::fsm::{Context, HostFailure, Limits, Pile, Written};
use crate::types::{ActorName, Event, Index, Position, TrapKind};

/// Fuel of any call of an import, on top of one unit for each byte that it moves: without it
/// a guest could make the host work for nothing.
const HOST_CALL_FUEL: u64 = 64;
/// Longest line of a guest that reaches the log; the rest is cut.
const LOG_LINE_BYTES_MAX: usize = 1024;
/// Most bytes of one call of `log`, or of one write to a standard stream, that are looked at.
pub(super) const LOG_TEXT_BYTES_MAX: usize = 16 << 10;
/// What is kept of the buffer of a long input once a call with a short one begins.
const INPUT_KEPT_BYTES: usize = 1 << 20;

/// The imports of module `raft_fsm_v1`.
pub(super) const IMPORTS: &[Signature] = &[
    Signature::new(abi::IMPORT_READ, &[I32, I32], &[I32]),
    Signature::new(abi::IMPORT_WRITE, &[I32, I32], &[]),
    Signature::new(abi::IMPORT_INDEX, &[], &[I64]),
    Signature::new(abi::IMPORT_ORDINAL, &[], &[I32]),
    Signature::new(abi::IMPORT_TIME_MS, &[], &[I64]),
    Signature::new(abi::IMPORT_RANDOM, &[I32, I32], &[]),
    Signature::new(abi::IMPORT_EMIT, &[I32, I32, I32, I32], &[]),
    Signature::new(abi::IMPORT_LOG, &[I32, I32, I32], &[]),
    Signature::new(abi::IMPORT_WINDOW, &[], &[I32]),
    Signature::new(abi::IMPORT_ACTOR, &[I32, I32], &[I32]),
    Signature::new(abi::IMPORT_OLD_MEMORY_SIZE, &[], &[I64]),
    Signature::new(abi::IMPORT_OLD_MEMORY, &[I64, I32, I32], &[]),
    Signature::new(abi::IMPORT_OLD_GLOBAL, &[I32, I32], &[I32]),
];

/// What a guest is asked to do. The numbers seed `random`: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CallKind {
    /// The start section, `_initialize` or `_start`.
    Start = 0,
    Init = 1,
    Apply = 2,
    Query = 3,
    Snapshot = 4,
    Restore = 5,
    Classify = 6,
    Check = 7,
    StateVersion = 8,
    Restores = 9,
    Adopt = 10,
}

/// What a call is given.
pub(super) enum Given<'a> {
    /// Bytes to read.
    Input(&'a [u8]),
    /// To `restore`: a portable snapshot.
    Portable(Pile),
    /// To `snapshot`: what becomes of what it writes.
    Written(Written),
}

impl Given<'_> {
    /// Length of the input.
    pub(super) fn len(&self) -> u64 {
        match self {
            Given::Input(input) => input.len() as u64,
            Given::Portable(portable) => portable.len(),
            Given::Written(_) => 0,
        }
    }
}

/// A guest's fault that an import found.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct GuestFault {
    pub(super) kind: TrapKind,
    pub(super) message: String,
}

/// The host could not do its part of a call. Never an outcome.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct HostFault(pub(super) String);

/// What belongs to the call that an instance is running, or ran last.
pub(super) struct CallState {
    limits: Arc<Limits>,
    /// Set once the instance exists, before any of its code runs.
    pub(super) memory: Option<Memory>,
    kind: CallKind,
    context: Context,
    /// What `read` gives,
    input: Vec<u8>,
    /// ≤ `input.len()`.
    input_read: usize,
    /// and what it gives in a `restore`.
    portable: Pile,
    /// How much of the input is in the guest's window instead: all of it, or nothing.
    in_window: u32,
    /// `len()` ≤ `output_max`.
    pub(super) output: Vec<u8>,
    /// Where the output goes instead, in a `snapshot`.
    written: Option<Written>,
    output_max: u64,
    pub(super) events: Vec<Event>,
    events_bytes: u64,
    log_lines: u32,
    /// A repeated call has logged its lines already.
    quiet: bool,
    random: Option<ChaCha8Rng>,
    /// What `adopt` may read: another instance's state.
    old: Option<GuestState>,
    /// How far `poll_oneoff` has moved this call's clock.
    pub(super) slept_ns: u64,
    /// The growth that is under way; its failure is the host's.
    growing_to: usize,
}

impl CallState {
    pub(super) fn new(limits: Arc<Limits>) -> CallState {
        CallState {
            limits,
            memory: None,
            kind: CallKind::Start,
            context: Context {
                cluster: crate::types::ClusterId([0; 16]),
                position: Position::default(),
                time_ms: 0,
                actor: ActorName::NONE,
            },
            input: Vec::new(),
            input_read: 0,
            portable: Pile::default(),
            in_window: 0,
            output: Vec::new(),
            written: None,
            output_max: 0,
            events: Vec::new(),
            events_bytes: 0,
            log_lines: 0,
            quiet: false,
            random: None,
            old: None,
            slept_ns: 0,
            growing_to: 0,
        }
    }

    /// Forgets the last call. `given` is what `read` gives, `in_window` how much is in the window.
    pub(super) fn begin(
        &mut self,
        kind: CallKind,
        context: Context,
        given: Given<'_>,
        in_window: u32,
        quiet: bool,
    ) {
        let (input, portable, written) = match given {
            Given::Input(input) => (input, Pile::default(), None),
            Given::Portable(portable) => (&[][..], portable, None),
            Given::Written(written) => (&[][..], Pile::default(), Some(written)),
        };
        self.kind = kind;
        self.context = context;
        self.input.clear();
        self.input.shrink_to(input.len().max(INPUT_KEPT_BYTES));
        self.input.extend_from_slice(input);
        self.input_read = 0;
        (self.portable, self.written) = (portable, written);
        self.in_window = in_window;
        self.output.clear();
        self.output_max = match kind {
            CallKind::Snapshot => self.limits.snapshot_max_bytes,
            _ => self.limits.output_max_bytes,
        };
        self.events.clear();
        self.events_bytes = 0;
        self.log_lines = 0;
        self.quiet = quiet;
        self.random = None;
        self.slept_ns = 0;
        if kind != CallKind::Adopt {
            self.old = None;
        }
    }

    /// What has become of what a `snapshot` wrote.
    pub(super) fn take_written(&mut self) -> Option<Written> {
        self.written.take()
    }

    /// How much of the input was not read yet.
    fn unread(&self) -> u64 {
        self.portable.len() + (self.input.len() - self.input_read) as u64
    }

    /// Copies the next bytes of the input to where they belong, which must be no more than there are.
    fn read(&mut self, into: &mut [u8]) {
        let taken = self.portable.take(into);
        let rest = &mut into[taken..];
        rest.copy_from_slice(&self.input[self.input_read..][..rest.len()]);
        self.input_read += rest.len();
    }

    /// Lets an `adopt` that comes next read a state; other calls read none.
    pub(super) fn lend(&mut self, old: Option<GuestState>) {
        self.old = old;
    }

    /// Gives back what the last call leaves behind, and the next would clear.
    pub(super) fn rest(&mut self) {
        self.input.clear();
        self.input.shrink_to(INPUT_KEPT_BYTES);
        self.portable = Pile::default();
        self.output = Vec::new();
        self.events = Vec::new();
    }

    /// Who gave the command that the call is about; of other calls nobody.
    fn actor(&self) -> ActorName {
        match self.kind {
            CallKind::Apply | CallKind::Classify => self.context.actor,
            CallKind::Start
            | CallKind::Init
            | CallKind::Query
            | CallKind::Snapshot
            | CallKind::Restore
            | CallKind::Check
            | CallKind::StateVersion
            | CallKind::Restores
            | CallKind::Adopt => ActorName::NONE,
        }
    }

    fn old_memory_bytes(&self) -> u64 {
        self.old.as_ref().map_or(0, |old| old.memory.len_bytes() as u64)
    }

    /// The call's clock, which sleeping has moved on.
    pub(super) fn time_ns(&self) -> u64 {
        self.context.time_ms.saturating_mul(1_000_000).saturating_add(self.slept_ns)
    }

    /// Fills `bytes` from the stream of (cluster, position, kind of call). `restore` and `apply`
    /// at one index, for instance, must not see the same numbers.
    fn fill_random(&mut self, bytes: &mut [u8]) {
        let (kind, context) = (self.kind, self.context);
        self.random
            .get_or_insert_with(|| {
                let mut seed = Sha256::new();
                seed.update(b"raft-host random 1");
                seed.update(context.cluster.0);
                seed.update(context.position.index.0.to_le_bytes());
                seed.update(context.position.ordinal.to_le_bytes());
                seed.update([kind as u8]);
                ChaCha8Rng::from_seed(seed.finalize().into())
            })
            .fill_bytes(bytes);
    }

    /// Appends to the output.
    pub(super) fn write(&mut self, bytes: &[u8]) -> wasmtime::Result<()> {
        let so_far = self.written.as_ref().map_or(self.output.len() as u64, Written::len);
        let len = so_far + bytes.len() as u64;
        if len > self.output_max {
            return Err(GuestFault {
                kind: TrapKind::OutputLimit,
                message: format!("{len} bytes of output; the limit is {}", self.output_max),
            }
            .into());
        }
        if let Some(written) = &mut self.written {
            return Ok(written.take(bytes).map_err(|HostFailure(reason)| HostFault(reason))?);
        }
        self.output
            .try_reserve(bytes.len())
            .map_err(|_| HostFault(format!("no memory for {len} bytes of a guest's output")))?;
        self.output.extend_from_slice(bytes);
        Ok(())
    }

    fn emit(&mut self, topic: &[u8], data: &[u8]) -> Result<(), GuestFault> {
        // Asked before anything is copied: a guest may name all of its memory, twice.
        let bytes = self.events_bytes + topic.len() as u64 + data.len() as u64;
        let count = self.events.len() as u64 + 1;
        if count > u64::from(self.limits.events_max) || bytes > self.limits.events_max_bytes {
            return Err(GuestFault {
                kind: TrapKind::OutputLimit,
                message: format!(
                    "{count} events of {bytes} bytes; the limits are {} and {}",
                    self.limits.events_max, self.limits.events_max_bytes
                ),
            });
        }
        self.events_bytes = bytes;
        self.events.push(Event { topic: topic.to_vec(), data: data.to_vec() });
        Ok(())
    }

    /// Passes lines on to the node's log, up to the limit for one call.
    pub(super) fn log(&mut self, level: i32, text: &[u8]) {
        let text = &text[..text.len().min(LOG_TEXT_BYTES_MAX)];
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.log_lines = self.log_lines.saturating_add(1);
            if self.quiet || self.log_lines > self.limits.log_lines_max {
                return;
            }
            log_line(level, self.context.position, &line[..line.len().min(LOG_LINE_BYTES_MAX)]);
        }
    }
}

/// Nothing that a guest writes looks like a line of somebody else.
fn log_line(level: i32, position: Position, line: &[u8]) {
    let Position { index: Index(index), ordinal } = position;
    let mut plain = String::new();
    String::from_utf8_lossy(line)
        .trim_end()
        .chars()
        .for_each(|character| push_plain(&mut plain, character));
    match level {
        ..=abi::LOG_ERROR => tracing::error!(target: "guest", index, ordinal, "{plain}"),
        abi::LOG_WARN => tracing::warn!(target: "guest", index, ordinal, "{plain}"),
        abi::LOG_INFO => tracing::info!(target: "guest", index, ordinal, "{plain}"),
        _ => tracing::debug!(target: "guest", index, ordinal, "{plain}"),
    }
}

/// The replicated maximum alone decides about growth; a host that cannot keep up is a failure
/// of the host, not an answer for the guest.
impl ResourceLimiter for CallState {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growing_to = desired;
        let within_own = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(within_own && desired as u64 <= self.limits.memory_max_bytes)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(HostFault(format!("growing a guest's memory to {}: {error:#}", self.growing_to)).into())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Reached at instantiation only: `table.grow` is refused at load, sizes are checked.
        Ok(true)
    }
}

/// Defines the imports of module `raft_fsm_v1`.
pub(super) fn define(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let module = abi::IMPORT_MODULE;
    linker.func_wrap(
        module,
        abi::IMPORT_READ,
        |mut caller: Caller<'_, CallState>, ptr: u32, cap: u32| {
            in_bounds(&caller, ptr, cap)?;
            let len = caller.data().unread().min(cap.into());
            charge(&mut caller, len)?;
            let (memory, state) = parts(&mut caller)?;
            state.read(&mut slice_mut(memory, ptr, cap)?[..len as usize]);
            Ok(len as u32)
        },
    )?;
    linker.func_wrap(
        module,
        abi::IMPORT_WRITE,
        |mut caller: Caller<'_, CallState>, ptr: u32, len: u32| {
            in_bounds(&caller, ptr, len)?;
            charge(&mut caller, u64::from(len))?;
            let (memory, state) = parts(&mut caller)?;
            state.write(slice(memory, ptr, len)?)
        },
    )?;
    linker.func_wrap(module, abi::IMPORT_INDEX, |mut caller: Caller<'_, CallState>| {
        charge(&mut caller, 0)?;
        Ok(caller.data().context.position.index.0)
    })?;
    linker.func_wrap(module, abi::IMPORT_ORDINAL, |mut caller: Caller<'_, CallState>| {
        charge(&mut caller, 0)?;
        Ok(caller.data().context.position.ordinal)
    })?;
    linker.func_wrap(module, abi::IMPORT_TIME_MS, |mut caller: Caller<'_, CallState>| {
        charge(&mut caller, 0)?;
        // Stands still during a call: `poll_oneoff` moves WASI's clocks only.
        Ok(caller.data().context.time_ms)
    })?;
    linker.func_wrap(
        module,
        abi::IMPORT_RANDOM,
        |caller: Caller<'_, CallState>, ptr: u32, len: u32| random(caller, ptr, len),
    )?;
    linker.func_wrap(
        module,
        abi::IMPORT_EMIT,
        |mut caller: Caller<'_, CallState>, topic_ptr: u32, topic_len: u32, ptr: u32, len: u32| {
            in_bounds(&caller, topic_ptr, topic_len)?;
            in_bounds(&caller, ptr, len)?;
            charge(&mut caller, u64::from(topic_len) + u64::from(len))?;
            let (memory, state) = parts(&mut caller)?;
            let topic = slice(memory, topic_ptr, topic_len)?;
            let data = slice(memory, ptr, len)?;
            Ok(state.emit(topic, data)?)
        },
    )?;
    linker.func_wrap(
        module,
        abi::IMPORT_LOG,
        |mut caller: Caller<'_, CallState>, level: i32, ptr: u32, len: u32| {
            in_bounds(&caller, ptr, len)?;
            charge(&mut caller, u64::from(len))?;
            let (memory, state) = parts(&mut caller)?;
            state.log(level, slice(memory, ptr, len)?);
            Ok(())
        },
    )?;
    linker.func_wrap(module, abi::IMPORT_WINDOW, |mut caller: Caller<'_, CallState>| {
        charge(&mut caller, 0)?;
        Ok(caller.data().in_window)
    })?;
    linker.func_wrap(
        module,
        abi::IMPORT_ACTOR,
        |mut caller: Caller<'_, CallState>, ptr: u32, cap: u32| {
            in_bounds(&caller, ptr, cap)?;
            let actor = caller.data().actor();
            let name = actor.as_str().as_bytes();
            let len = name.len().min(cap as usize);
            charge(&mut caller, len as u64)?;
            let (memory, _) = parts(&mut caller)?;
            slice_mut(memory, ptr, cap)?[..len].copy_from_slice(&name[..len]);
            Ok(name.len() as u32)
        },
    )?;
    define_old(linker)
}

/// Defines the imports through which `adopt` reads another instance's state. In other calls that
/// state is empty.
fn define_old(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let module = abi::IMPORT_MODULE;
    linker.func_wrap(
        module,
        abi::IMPORT_OLD_MEMORY_SIZE,
        |mut caller: Caller<'_, CallState>| {
            charge(&mut caller, 0)?;
            Ok(caller.data().old_memory_bytes())
        },
    )?;
    linker.func_wrap(
        module,
        abi::IMPORT_OLD_MEMORY,
        |mut caller: Caller<'_, CallState>, src: u64, ptr: u32, len: u32| {
            in_bounds(&caller, ptr, len)?;
            let size = caller.data().old_memory_bytes();
            let end = src.checked_add(len.into());
            if len > 0 && end.is_none_or(|end| end > size) {
                return Err(GuestFault {
                    kind: TrapKind::BadHostCall,
                    message: format!(
                        "{len} bytes at {src:#x} are not inside of the old memory's {size} bytes"
                    ),
                }
                .into());
            }
            charge(&mut caller, len.into())?;
            let (memory, state) = parts(&mut caller)?;
            if let Some(old) = state.old.as_ref().filter(|_| len > 0) {
                old.memory.copy_to(src as usize, slice_mut(memory, ptr, len)?);
            }
            Ok(())
        },
    )?;
    linker.func_wrap(
        module,
        abi::IMPORT_OLD_GLOBAL,
        |mut caller: Caller<'_, CallState>, number: u32, ptr: u32| {
            const LEN: u32 = abi::OLD_GLOBAL_BYTES as u32;
            in_bounds(&caller, ptr, LEN)?;
            let globals = caller.data().old.as_ref().map(|old| &old.globals);
            let Some(GlobalValue { ty, bits }) =
                globals.and_then(|globals| globals.get(number as usize)).copied()
            else {
                charge(&mut caller, 0)?;
                return Ok(abi::NO_GLOBAL);
            };
            charge(&mut caller, LEN.into())?;
            let (memory, _) = parts(&mut caller)?;
            slice_mut(memory, ptr, LEN)?.copy_from_slice(&bits.to_le_bytes());
            Ok(ty.into())
        },
    )?;
    Ok(())
}

/// `random` of this ABI and `random_get` of WASI: one stream.
pub(super) fn random(
    mut caller: Caller<'_, CallState>,
    ptr: u32,
    len: u32,
) -> wasmtime::Result<()> {
    in_bounds(&caller, ptr, len)?;
    charge(&mut caller, u64::from(len))?;
    let (memory, state) = parts(&mut caller)?;
    state.fill_random(slice_mut(memory, ptr, len)?);
    Ok(())
}

/// Checks a range before it is paid for, so that a bad one is called by its name.
pub(super) fn in_bounds(
    caller: &Caller<'_, CallState>,
    ptr: u32,
    len: u32,
) -> wasmtime::Result<()> {
    let memory = caller.data().memory.ok_or_else(no_memory)?;
    slice(memory.data(caller), ptr, len)?;
    Ok(())
}

fn no_memory() -> HostFault {
    HostFault("guest code runs before its memory exists".to_owned())
}

/// Takes the fuel of an import's call.
pub(super) fn charge(caller: &mut Caller<'_, CallState>, bytes: u64) -> wasmtime::Result<()> {
    let left = caller.get_fuel()?.checked_sub(HOST_CALL_FUEL + bytes);
    caller.set_fuel(left.unwrap_or(0))?;
    if left.is_none() { Err(WasmTrap::OutOfFuel.into()) } else { Ok(()) }
}

/// The guest's memory beside the call's state.
pub(super) fn parts<'a>(
    caller: &'a mut Caller<'_, CallState>,
) -> wasmtime::Result<(&'a mut [u8], &'a mut CallState)> {
    let memory = caller.data().memory.ok_or_else(no_memory)?;
    Ok(memory.data_and_store_mut(caller))
}

/// The guest's bytes at `ptr`, or its fault.
///
/// Nothing lies anywhere: a length of 0 is good with any pointer.
pub(super) fn slice(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8], GuestFault> {
    if len == 0 {
        return Ok(&[]);
    }
    let size = memory.len();
    memory
        .get(ptr as usize..)
        .and_then(|rest| rest.get(..len as usize))
        .ok_or_else(|| out_of_memory_bounds(size, ptr, len))
}

/// See [`slice`].
pub(super) fn slice_mut(memory: &mut [u8], ptr: u32, len: u32) -> Result<&mut [u8], GuestFault> {
    if len == 0 {
        return Ok(&mut []);
    }
    let size = memory.len();
    memory
        .get_mut(ptr as usize..)
        .and_then(|rest| rest.get_mut(..len as usize))
        .ok_or_else(|| out_of_memory_bounds(size, ptr, len))
}

fn out_of_memory_bounds(size: usize, ptr: u32, len: u32) -> GuestFault {
    GuestFault {
        kind: TrapKind::BadHostCall,
        message: format!("{len} bytes at {ptr:#x} are not inside of the memory's {size} bytes"),
    }
}
