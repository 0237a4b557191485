//! WASI preview 1 as a deterministic shim: enough for C, C++, D, Nim and Go reactors.
//!
//! The clock is the entry's, random numbers come from the call's stream, the standard streams
//! end in the log, there are no files, sockets, arguments or variables, and sleeping moves
//! the call's clock on at once.

use wasmparser::ValType::{I32, I64};
use wasmtime::{Caller, Linker};

use super::abi::{self, CallState, GuestFault, parts, slice, slice_mut};
use super::check::Signature;
use crate::types::TrapKind;

/// Module name of the imports.
pub(super) const IMPORT_MODULE: &str = "wasi_snapshot_preview1";

// Error numbers of WASI preview 1.
const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const INVAL: i32 = 28;
const NOSYS: i32 = 52;
const SPIPE: i32 = 70;

/// `filetype` of a terminal or other byte stream.
const FILETYPE_CHARACTER_DEVICE: u8 = 2;
/// `rights` to read or write.
const RIGHTS_FD_READ: u64 = 1 << 1;
const RIGHTS_FD_WRITE: u64 = 1 << 6;

const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: u32 = 32;
const SUBSCRIPTION_CLOCK: u8 = 0;
const SUBSCRIPTION_FD_READ: u8 = 1;
const SUBSCRIPTION_FD_WRITE: u8 = 2;
const SUBSCRIPTION_CLOCK_ABSTIME: u16 = 1;
/// The other end of a stream is closed.
const EVENT_HANGUP: u16 = 1;
/// More than any program waits for at once; bounds what is copied.
const SUBSCRIPTIONS_MAX: u32 = 4096;
/// Realtime, monotonic, and the CPU time of process and thread.
const CLOCKS: u32 = 4;

/// Every function of WASI preview 1.
pub(super) const IMPORTS: &[Signature] = &[
    Signature::new("args_get", &[I32; 2], &[I32]),
    Signature::new("args_sizes_get", &[I32; 2], &[I32]),
    Signature::new("environ_get", &[I32; 2], &[I32]),
    Signature::new("environ_sizes_get", &[I32; 2], &[I32]),
    Signature::new("clock_res_get", &[I32; 2], &[I32]),
    Signature::new("clock_time_get", &[I32, I64, I32], &[I32]),
    Signature::new("fd_advise", &[I32, I64, I64, I32], &[I32]),
    Signature::new("fd_allocate", &[I32, I64, I64], &[I32]),
    Signature::new("fd_close", &[I32], &[I32]),
    Signature::new("fd_datasync", &[I32], &[I32]),
    Signature::new("fd_fdstat_get", &[I32; 2], &[I32]),
    Signature::new("fd_fdstat_set_flags", &[I32; 2], &[I32]),
    Signature::new("fd_fdstat_set_rights", &[I32, I64, I64], &[I32]),
    Signature::new("fd_filestat_get", &[I32; 2], &[I32]),
    Signature::new("fd_filestat_set_size", &[I32, I64], &[I32]),
    Signature::new("fd_filestat_set_times", &[I32, I64, I64, I32], &[I32]),
    Signature::new("fd_pread", &[I32, I32, I32, I64, I32], &[I32]),
    Signature::new("fd_prestat_dir_name", &[I32; 3], &[I32]),
    Signature::new("fd_prestat_get", &[I32; 2], &[I32]),
    Signature::new("fd_pwrite", &[I32, I32, I32, I64, I32], &[I32]),
    Signature::new("fd_read", &[I32; 4], &[I32]),
    Signature::new("fd_readdir", &[I32, I32, I32, I64, I32], &[I32]),
    Signature::new("fd_renumber", &[I32; 2], &[I32]),
    Signature::new("fd_seek", &[I32, I64, I32, I32], &[I32]),
    Signature::new("fd_sync", &[I32], &[I32]),
    Signature::new("fd_tell", &[I32; 2], &[I32]),
    Signature::new("fd_write", &[I32; 4], &[I32]),
    Signature::new("path_create_directory", &[I32; 3], &[I32]),
    Signature::new("path_filestat_get", &[I32; 5], &[I32]),
    Signature::new("path_filestat_set_times", &[I32, I32, I32, I32, I64, I64, I32], &[I32]),
    Signature::new("path_link", &[I32; 7], &[I32]),
    Signature::new("path_open", &[I32, I32, I32, I32, I32, I64, I64, I32, I32], &[I32]),
    Signature::new("path_readlink", &[I32; 6], &[I32]),
    Signature::new("path_remove_directory", &[I32; 3], &[I32]),
    Signature::new("path_rename", &[I32; 6], &[I32]),
    Signature::new("path_symlink", &[I32; 5], &[I32]),
    Signature::new("path_unlink_file", &[I32; 3], &[I32]),
    Signature::new("poll_oneoff", &[I32; 4], &[I32]),
    Signature::new("proc_exit", &[I32], &[]),
    Signature::new("proc_raise", &[I32], &[I32]),
    Signature::new("random_get", &[I32; 2], &[I32]),
    Signature::new("sched_yield", &[], &[I32]),
    Signature::new("sock_accept", &[I32; 3], &[I32]),
    Signature::new("sock_recv", &[I32; 6], &[I32]),
    Signature::new("sock_send", &[I32; 5], &[I32]),
    Signature::new("sock_shutdown", &[I32; 2], &[I32]),
];

type Host<'a> = Caller<'a, CallState>;

/// Defines the shim.
pub(super) fn define(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    define_refusals(linker)?;
    linker.allow_shadowing(true);
    let module = IMPORT_MODULE;
    for name in ["args_sizes_get", "environ_sizes_get"] {
        linker.func_wrap(module, name, |mut host: Host<'_>, count: u32, size: u32| {
            abi::charge(&mut host, 8)?;
            put(&mut host, count, &0u32.to_le_bytes())?;
            put(&mut host, size, &0u32.to_le_bytes())?;
            Ok(SUCCESS)
        })?;
    }
    for name in ["args_get", "environ_get"] {
        linker.func_wrap(module, name, |mut host: Host<'_>, _: u32, _: u32| {
            abi::charge(&mut host, 0)?;
            Ok(SUCCESS)
        })?;
    }
    linker.func_wrap(module, "clock_res_get", |mut host: Host<'_>, clock: u32, ptr: u32| {
        abi::charge(&mut host, 8)?;
        if clock >= CLOCKS {
            return Ok(INVAL);
        }
        put(&mut host, ptr, &1_000_000u64.to_le_bytes())?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(
        module,
        "clock_time_get",
        |mut host: Host<'_>, clock: u32, _precision: u64, ptr: u32| {
            abi::charge(&mut host, 8)?;
            if clock >= CLOCKS {
                return Ok(INVAL);
            }
            // Go stops at start when a clock reads zero.
            let now = host.data().time_ns().max(1);
            put(&mut host, ptr, &now.to_le_bytes())?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(module, "random_get", |host: Host<'_>, ptr: u32, len: u32| {
        abi::random(host, ptr, len)?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(module, "sched_yield", |mut host: Host<'_>| {
        abi::charge(&mut host, 0)?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(module, "proc_exit", |_: Host<'_>, code: i32| -> wasmtime::Result<()> {
        Err(fault(TrapKind::Exit, format!("the guest called proc_exit({code})")).into())
    })?;
    linker.func_wrap(module, "poll_oneoff", poll_oneoff)?;
    define_standard_streams(linker)
}

/// Descriptors 0, 1 and 2 exist; 0 is at its end, 1 and 2 lead to the log.
fn define_standard_streams(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let module = IMPORT_MODULE;
    linker.func_wrap(module, "fd_write", fd_write)?;
    linker.func_wrap(
        module,
        "fd_read",
        |mut host: Host<'_>, fd: u32, _iovs: u32, _count: u32, read: u32| {
            abi::charge(&mut host, 4)?;
            if fd != 0 {
                return Ok(BADF);
            }
            put(&mut host, read, &0u32.to_le_bytes())?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(module, "fd_close", |mut host: Host<'_>, fd: u32| {
        abi::charge(&mut host, 0)?;
        Ok(if fd <= 2 { SUCCESS } else { BADF })
    })?;
    linker.func_wrap(
        module,
        "fd_seek",
        |mut host: Host<'_>, fd: u32, _: i64, _: u32, _: u32| {
            abi::charge(&mut host, 0)?;
            Ok(if fd <= 2 { SPIPE } else { BADF })
        },
    )?;
    linker.func_wrap(module, "fd_fdstat_set_flags", |mut host: Host<'_>, fd: u32, _: u32| {
        abi::charge(&mut host, 0)?;
        Ok(if fd <= 2 { SUCCESS } else { BADF })
    })?;
    linker.func_wrap(module, "fd_fdstat_get", |mut host: Host<'_>, fd: u32, ptr: u32| {
        abi::charge(&mut host, 24)?;
        if fd > 2 {
            return Ok(BADF);
        }
        let mut stat = [0; 24];
        stat[0] = FILETYPE_CHARACTER_DEVICE;
        let rights = if fd == 0 { RIGHTS_FD_READ } else { RIGHTS_FD_WRITE };
        stat[8..16].copy_from_slice(&rights.to_le_bytes());
        put(&mut host, ptr, &stat)?;
        Ok(SUCCESS)
    })?;
    Ok(())
}

/// Everything exists, so that whatever a toolchain links in by habit loads; what the shim has
/// no meaning for answers with an error number.
fn define_refusals(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    for import in IMPORTS {
        let of_files = ["fd_", "path_", "sock_"].iter().any(|stem| import.name.starts_with(stem));
        let answer = if of_files { BADF } else { NOSYS };
        let types = |types: &[wasmparser::ValType]| {
            types
                .iter()
                .map(|ty| match ty {
                    I32 => wasmtime::ValType::I32,
                    _ => wasmtime::ValType::I64,
                })
                .collect::<Vec<_>>()
        };
        let ty = wasmtime::FuncType::new(&engine, types(import.params), types(import.results));
        linker.func_new(IMPORT_MODULE, import.name, ty, move |mut host, _params, results| {
            abi::charge(&mut host, 0)?;
            if let Some(result) = results.first_mut() {
                *result = wasmtime::Val::I32(answer);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn fd_write(
    mut host: Host<'_>,
    fd: u32,
    iovs: u32,
    count: u32,
    written: u32,
) -> wasmtime::Result<i32> {
    let table_bytes = bytes_of(count, 8)?;
    abi::in_bounds(&host, iovs, table_bytes)?;
    abi::charge(&mut host, u64::from(table_bytes))?;
    if !(1..=2).contains(&fd) {
        return Ok(BADF);
    }
    let (memory, _) = parts(&mut host)?;
    let table = slice(memory, iovs, table_bytes)?;
    let mut text = Vec::new();
    let mut total = 0u32;
    for entry in table.chunks_exact(8) {
        let (ptr, len) = (u32_at(entry, 0), u32_at(entry, 4));
        total = total
            .checked_add(len)
            .ok_or_else(|| fault(TrapKind::BadHostCall, "fd_write of over 4 GiB".to_owned()))?;
        let bytes = slice(memory, ptr, len)?;
        let room = abi::LOG_TEXT_BYTES_MAX.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    abi::charge(&mut host, u64::from(total))?;
    if text.iter().any(|byte| !byte.is_ascii_whitespace()) {
        let level = if fd == 1 { raft_fsm_abi::LOG_INFO } else { raft_fsm_abi::LOG_WARN };
        host.data_mut().log(level, &text);
    }
    put(&mut host, written, &total.to_le_bytes())?;
    Ok(SUCCESS)
}

/// What one subscription waits for.
struct Awaited {
    /// When it is ready.
    at: u64,
    event: [u8; EVENT_BYTES as usize],
}

/// Streams are ready at once. If only times are waited for, the clock jumps to the earliest of
/// them, as if the guest had slept; those that are due then are reported.
fn poll_oneoff(
    mut host: Host<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    ready: u32,
) -> wasmtime::Result<i32> {
    let table_bytes = bytes_of(count, SUBSCRIPTION_BYTES)?;
    abi::in_bounds(&host, subscriptions, table_bytes)?;
    abi::in_bounds(&host, events, bytes_of(count, EVENT_BYTES)?)?;
    abi::charge(&mut host, u64::from(count) * u64::from(SUBSCRIPTION_BYTES + EVENT_BYTES))?;
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Ok(INVAL);
    }
    let now = host.data().time_ns();
    let (memory, state) = parts(&mut host)?;
    let table = slice(memory, subscriptions, table_bytes)?;
    let awaited: Vec<Awaited> =
        table.chunks_exact(SUBSCRIPTION_BYTES as usize).map(|one| await_one(one, now)).collect();
    let wake_at = awaited.iter().map(|one| one.at).min().expect("there is at least one");
    state.slept_ns = state.slept_ns.saturating_add(wake_at - now);
    let reported: Vec<u8> =
        awaited.iter().filter(|one| one.at <= wake_at).flat_map(|one| one.event).collect();
    let number = reported.len() as u32 / EVENT_BYTES;
    slice_mut(memory, events, reported.len() as u32)?.copy_from_slice(&reported);
    put(&mut host, ready, &number.to_le_bytes())?;
    Ok(SUCCESS)
}

fn await_one(subscription: &[u8], now: u64) -> Awaited {
    let kind = subscription[8];
    let which = u32_at(subscription, 16);
    let (at, error, flags) = match kind {
        SUBSCRIPTION_CLOCK if which < CLOCKS => {
            let time = u64::from_le_bytes(subscription[24..32].try_into().expect("8 bytes"));
            let flags = u16::from_le_bytes(subscription[40..42].try_into().expect("2 bytes"));
            let at = match flags & SUBSCRIPTION_CLOCK_ABSTIME {
                0 => now.saturating_add(time),
                _ => time.max(now),
            };
            (at, SUCCESS, 0)
        }
        SUBSCRIPTION_FD_READ if which == 0 => (now, SUCCESS, EVENT_HANGUP),
        SUBSCRIPTION_FD_WRITE if (1..=2).contains(&which) => (now, SUCCESS, 0),
        SUBSCRIPTION_FD_READ | SUBSCRIPTION_FD_WRITE => (now, BADF, 0),
        _ => (now, INVAL, 0),
    };
    let mut event = [0; EVENT_BYTES as usize];
    event[..8].copy_from_slice(&subscription[..8]);
    event[8..10].copy_from_slice(&(error as u16).to_le_bytes());
    event[10] = kind;
    event[24..26].copy_from_slice(&flags.to_le_bytes());
    Awaited { at, event }
}

fn put(host: &mut Host<'_>, ptr: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let (memory, _) = parts(host)?;
    slice_mut(memory, ptr, bytes.len() as u32)?.copy_from_slice(bytes);
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn bytes_of(count: u32, each: u32) -> Result<u32, GuestFault> {
    count
        .checked_mul(each)
        .ok_or_else(|| fault(TrapKind::BadHostCall, format!("a list of {count} entries")))
}

fn fault(kind: TrapKind, message: String) -> GuestFault {
    GuestFault { kind, message }
}
