//! The boundary to the host, on wasm32 only: the one file of this crate with `unsafe`.
#![expect(unsafe_code, reason = "wasm imports are foreign functions that take pointers")]

use core::cell::RefCell;
use core::fmt::Write as _;

use alloc::string::String;
use raft_fsm_abi::LOG_ERROR;

use crate::StateMachine;
use crate::calls::Instance;

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
    }
}

/// The imports, made safe.
pub(crate) struct Host;

impl Host {
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

    pub(crate) fn random(&self, out: &mut [u8]) {
        // SAFETY: the host writes exactly `len` bytes, all within `out`.
        unsafe { imports::random(out.as_mut_ptr(), out.len()) }
    }

    pub(crate) fn emit(&self, topic: &[u8], data: &[u8]) {
        // SAFETY: the host only reads, and only within `topic` and `data`.
        unsafe { imports::emit(topic.as_ptr(), topic.len(), data.as_ptr(), data.len()) }
    }

    pub(crate) fn log(&self, level: i32, line: &[u8]) {
        // SAFETY: the host only reads, and only within `line`.
        unsafe { imports::log(level, line.as_ptr(), line.len()) }
    }
}

/// Holds the one instance of a module; for [`export!`](crate::export).
#[doc(hidden)]
pub struct Slot<M>(RefCell<Option<Instance<M>>>);

// SAFETY: a wasm32 module without the feature `atomics`, which is refused above, has one
// thread. Re-entry is caught by the `RefCell`.
unsafe impl<M> Sync for Slot<M> {}

// Named after the exports of the ABI, which documents them.
impl<M: StateMachine> Slot<M> {
    pub const fn new() -> Slot<M> {
        Slot(RefCell::new(None))
    }

    pub fn initialize(&self) {
        #[cfg(feature = "std")]
        std::panic::set_hook(alloc::boxed::Box::new(|panic| log_panic(panic)));
    }

    pub fn init(&self) -> i32 {
        self.with(|instance| instance.init(&Host))
    }

    pub fn apply(&self, len: usize) -> i32 {
        self.with(|instance| instance.apply(&Host, len))
    }

    pub fn query(&self, len: usize) -> i32 {
        self.with(|instance| instance.query(&Host, len))
    }

    pub fn snapshot(&self) -> i32 {
        self.with(|instance| instance.snapshot(&Host))
    }

    pub fn restore(&self, len: usize) -> i32 {
        self.with(|instance| instance.restore(&Host, len))
    }

    fn with(&self, call: impl FnOnce(&mut Instance<M>) -> i32) -> i32 {
        call(self.0.borrow_mut().get_or_insert_with(Instance::default))
    }
}

/// Writes the last words of a guest to the host's log. Feature `std` installs it as the panic
/// hook; a panic handler in a `no_std` guest may call it with its `PanicInfo`.
pub fn log_panic(panic: &dyn core::fmt::Display) {
    let mut line = String::new();
    // A failing `Display` leaves a shorter line, which is still the best there is.
    let _: core::fmt::Result = write!(line, "{panic}");
    Host.log(LOG_ERROR, line.as_bytes());
}
