//! The boundary to the host, on wasm32 only.
#![expect(unsafe_code, reason = "wasm imports are foreign functions that take pointers")]

use core::cell::{RefCell, UnsafeCell};
use core::fmt::Write as _;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use raft_fsm_abi::{
    LOG_ERROR, OLD_GLOBAL_BYTES, WINDOW_BYTES, WINDOW_HEADER_BYTES, WINDOW_INPUT_MAX_BYTES,
};

use crate::calls::{Instance, read_input};
use crate::{Adopt, Check, Classes, StateMachine, Versions};

#[cfg(target_feature = "atomics")]
compile_error!("a guest of raft-host has no threads: build without the wasm feature `atomics`");

mod imports {
    #[link(wasm_import_module = "raft_fsm_v1")]
    unsafe extern "C" {
        pub(super) fn read(ptr: *mut u8, cap: usize) -> usize;
        pub(super) fn write(ptr: *const u8, len: usize);
        pub(super) safe fn index() -> u64;
        pub(super) safe fn ordinal() -> u32;
        pub(super) safe fn time_ms() -> u64;
        pub(super) fn random(ptr: *mut u8, len: usize);
        pub(super) fn emit(topic_ptr: *const u8, topic_len: usize, ptr: *const u8, len: usize);
        pub(super) fn log(level: i32, ptr: *const u8, len: usize);
        pub(super) safe fn window() -> usize;
        pub(super) fn actor(ptr: *mut u8, cap: usize) -> usize;
        pub(super) safe fn old_memory_size() -> u64;
        pub(super) fn old_memory(src: u64, ptr: *mut u8, len: usize);
        pub(super) fn old_global(number: u32, ptr: *mut u8) -> i32;
    }
}

/// Where the host leaves short inputs and learns where the output is; for
/// [`export!`](crate::export), which exports its address.
#[doc(hidden)]
#[repr(C, align(8))]
pub struct Window(UnsafeCell<[u8; WINDOW_BYTES]>);

// SAFETY: as for `Slot`, through which alone it is used.
unsafe impl Sync for Window {}

impl Window {
    #[expect(clippy::new_without_default, reason = "only `export!` makes one, in a static")]
    pub const fn new() -> Window {
        Window(UnsafeCell::new([0; WINDOW_BYTES]))
    }

    fn input_ptr(&self) -> *mut u8 {
        self.0.get().cast::<u8>().wrapping_add(WINDOW_HEADER_BYTES)
    }
}

/// The imports and the window, made safe.
pub(crate) struct Host {
    window: &'static Window,
}

impl Host {
    /// All of the input of an `apply`, `query` or `classify`.
    pub(crate) fn input<'a>(&'a self, len: usize, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        if len > WINDOW_INPUT_MAX_BYTES {
            return read_input(self, len, buffer);
        }
        // SAFETY: the bytes are inside of the window. The host has written them before this call, and
        // they change in `give` only, which ends the call.
        unsafe { core::slice::from_raw_parts(self.window.input_ptr(), len) }
    }

    /// Ends an `apply`, `query` or `classify` with its output.
    pub(crate) fn give(&self, output: Cow<'static, [u8]>) {
        let output: &[u8] = match output {
            Cow::Borrowed(output) => output,
            Cow::Owned(output) if output.len() > WINDOW_INPUT_MAX_BYTES => {
                return self.write(&output);
            }
            Cow::Owned(output) => {
                // SAFETY: the output fits in the place of the input, which nobody looks at any more:
                // whoever got that has returned, and the output is a vector of its own.
                unsafe {
                    let place = self.window.input_ptr();
                    place.copy_from_nonoverlapping(output.as_ptr(), output.len());
                    core::slice::from_raw_parts(place, output.len())
                }
            }
        };
        let header = self.window.0.get().cast::<[usize; 2]>();
        // SAFETY: the window is long enough, and aligned. An address and a length have four bytes each
        // in the order of wasm, which is that of the ABI.
        unsafe { header.write([output.as_ptr().expose_provenance(), output.len()]) }
    }

    pub(crate) fn read(&self, out: &mut [u8]) -> usize {
        // SAFETY: the host writes at most `cap` bytes, all within `out`.
        let read = unsafe { imports::read(out.as_mut_ptr(), out.len()) };
        assert!(read <= out.len(), "the host read more than it was asked for");
        read
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        // SAFETY: the host only reads, and only within `bytes`.
        unsafe { imports::write(bytes.as_ptr(), bytes.len()) }
    }

    pub(crate) fn index(&self) -> u64 {
        imports::index()
    }

    pub(crate) fn ordinal(&self) -> u32 {
        imports::ordinal()
    }

    pub(crate) fn time_ms(&self) -> u64 {
        imports::time_ms()
    }

    /// The length of the actor's name, as much of which is written as there is room for.
    pub(crate) fn actor(&self, out: &mut [u8]) -> usize {
        // SAFETY: the host writes at most `cap` bytes, all within `out`.
        unsafe { imports::actor(out.as_mut_ptr(), out.len()) }
    }

    pub(crate) fn old_memory_size(&self) -> u64 {
        imports::old_memory_size()
    }

    pub(crate) fn old_memory(&self, at: u64, out: &mut [u8]) {
        // SAFETY: the host writes exactly `len` bytes, all within `out`.
        unsafe { imports::old_memory(at, out.as_mut_ptr(), out.len()) }
    }

    pub(crate) fn old_global(&self, number: u32, out: &mut [u8; OLD_GLOBAL_BYTES]) -> i32 {
        // SAFETY: the host writes these bytes or none.
        unsafe { imports::old_global(number, out.as_mut_ptr()) }
    }

    pub(crate) fn random(&self, out: &mut [u8]) {
        // SAFETY: the host writes exactly `len` bytes, all within `out`.
        unsafe { imports::random(out.as_mut_ptr(), out.len()) }
    }

    pub(crate) fn emit(&self, topic: &[u8], data: &[u8]) {
        // SAFETY: the host only reads, and only within `topic` and `data`.
        unsafe { imports::emit(topic.as_ptr(), topic.len(), data.as_ptr(), data.len()) }
    }

    pub(crate) fn log(&self, level: i32, line: &[u8]) {
        log(level, line);
    }
}

fn log(level: i32, line: &[u8]) {
    // SAFETY: the host only reads, and only within `line`.
    unsafe { imports::log(level, line.as_ptr(), line.len()) }
}

/// Holds the one instance of a module; for [`export!`](crate::export).
#[doc(hidden)]
pub struct Slot<M> {
    instance: RefCell<Option<Instance<M>>>,
    host: Host,
}

// SAFETY: a wasm32 module without the feature `atomics`, which is refused above, has one
// thread. Re-entry is caught by the `RefCell`.
unsafe impl<M> Sync for Slot<M> {}

// Named after the exports of the ABI, which documents them.
impl<M: StateMachine> Slot<M> {
    pub const fn new(window: &'static Window) -> Slot<M> {
        Slot { instance: RefCell::new(None), host: Host { window } }
    }

    pub fn initialize(&self) {
        // For the import's sake: a host that has no windows must refuse the module.
        imports::window();
        #[cfg(feature = "std")]
        std::panic::set_hook(alloc::boxed::Box::new(|panic| log_panic(panic)));
    }

    pub fn init(&self) -> i32 {
        self.with(|instance| instance.init(&self.host))
    }

    pub fn apply(&self, len: usize) -> i32 {
        self.with(|instance| instance.apply(&self.host, len))
    }

    pub fn query(&self, len: usize) -> i32 {
        self.with(|instance| instance.query(&self.host, len))
    }

    pub fn snapshot(&self) -> i32 {
        self.with(|instance| instance.snapshot(&self.host))
    }

    pub fn restore(&self, len: usize) -> i32 {
        self.with(|instance| instance.restore(&self.host, len))
    }

    fn with(&self, call: impl FnOnce(&mut Instance<M>) -> i32) -> i32 {
        call(self.instance.borrow_mut().get_or_insert_with(Instance::default))
    }
}

impl<M: Classes> Slot<M> {
    pub fn classify(&self, len: usize) -> i32 {
        self.with(|instance| instance.classify(&self.host, len))
    }
}

impl<M: Check> Slot<M> {
    pub fn check(&self) -> i32 {
        self.with(|instance| instance.check(&self.host))
    }
}

impl<M: Versions> Slot<M> {
    pub fn state_version(&self) -> i32 {
        self.with(|instance| instance.state_version(&self.host))
    }

    pub fn restores(&self, len: usize) -> i32 {
        self.with(|instance| instance.restores(&self.host, len))
    }
}

impl<M: Adopt> Slot<M> {
    pub fn adopt(&self, len: usize) -> i32 {
        self.with(|instance| instance.adopt(&self.host, len))
    }
}

/// Writes the last words of a guest to the host's log. Feature `std` installs it as the panic
/// hook; a panic handler in a `no_std` guest may call it with its `PanicInfo`.
pub fn log_panic(panic: &dyn core::fmt::Display) {
    let mut line = String::new();
    // A failing `Display` leaves a shorter line, which is still the best there is.
    let _: core::fmt::Result = write!(line, "{panic}");
    log(LOG_ERROR, line.as_bytes());
}
