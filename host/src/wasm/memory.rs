//! Linear memories that queries can fork for nothing: the room's memory mapping.
//!
//! A live instance's memory is a shared mapping of an anonymous file. A query runs on a
//! second instance whose memory is a private mapping of the same file: it sees every write of
//! the live one at once, and its own writes go to private copies of pages. Those are kept
//! write-protected, so that the first write to a page faults; the handler notes the page and
//! lets the write through. Undoing a query is then copying the noted pages back from the live
//! mapping, and because the note is kept, the next query that touches the same pages (its
//! stack, its allocator's lists) does not fault again. What a query wrote beyond the pages that
//! can be noted is given back as soon as it ends.
//!
//! ```text
//!             0            accessible        capacity        4 GiB + guard
//!   live    | read/write  | no access      | no access, no file |   MAP_SHARED  ─┐
//!   view    | read, noted | no access      | no access, no file |   MAP_PRIVATE ─┴─ one memfd
//!             pages r/w
//! ```
//!
//! Which pages of a live memory were written is asked of the kernel: see `tracking`.
//!
//! The whole 4 GiB that a 32-bit address can reach is reserved, so compiled code needs no
//! bounds checks and growing never moves a memory nor asks the host for anything but a change
//! of protection.
//!
//! A fault beyond `accessible` is the guest's doing, a trap on every node. One below is this
//! host's: either a page of a view that is to be let through, or something that the kernel has
//! refused. The compiled code makes a trap of both, so the region remembers the second
//! ([`Region::refused`]), and whoever called the guest asks before he believes in a trap.
#![expect(unsafe_code, reason = "mapping memory for the guest is what this file is for")]

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use wasmtime::unix::StoreExt as _;
use wasmtime::{Engine, LinearMemory, MemoryCreator, MemoryType, Store};

use super::bits::Bits;
use super::tracking::{GRAIN_BYTES, Then, Tracking, Watch, data_grains};
use crate::museum::{self, Exhibit};

/// Pages that a view notes one by one; more, and the whole view becomes writable at once.
const NOTED_PAGES_MAX: usize = 512;
/// Copying this many pages back after each query is cheaper than anything cleverer.
const NOTED_PAGES_CHEAP: usize = 64;
/// Pages beyond the cheap ones that may be copied back in all before all notes are dropped,
/// to learn anew which pages queries touch. Keeps one unusual query from taxing all later ones.
const EXCESS_PAGES_MAX: usize = 2048;

/// Noted pages of all views of this process, each of which may cost it two mappings: a quarter of
/// those that Linux gives a process (`vm.max_map_count`), however many threads answer queries.
const NOTED_PAGES_OF_ALL_MAX: usize = 8192;
/// No less than wasmtime's stack for signals.
const SIGNAL_STACK_BYTES: usize = 512 << 10;

static NOTED_PAGES_OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// What the next linear memory that this thread instantiates shall be.
#[derive(Clone)]
pub(super) enum Plan {
    /// The memory of a live instance that may grow to so many bytes.
    Live { max_bytes: usize, tracking: Option<Arc<Tracking>> },
    /// The memory of a live instance that takes the place of another; a view of it until
    /// [`Region::take_over`].
    Successor { of: Arc<Region> },
    /// A view of a live instance's memory.
    View { of: Arc<Region> },
}

thread_local! {
    // wasmtime asks the engine for a memory without saying for which store. Instantiation is
    // synchronous, so the thread says.
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    static MADE: RefCell<Option<Arc<Region>>> = const { RefCell::new(None) };
    static STACK_LOWEST: Cell<usize> = const { Cell::new(0) };
    static SIGNALS_READY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `instantiate` such that the memory it creates follows `plan`; returns that memory too.
pub(super) fn with_plan<R>(
    plan: Plan,
    instantiate: impl FnOnce() -> R,
) -> (R, Option<Arc<Region>>) {
    PLAN.set(Some(plan));
    MADE.set(None);
    let result = instantiate();
    PLAN.set(None);
    (result, MADE.take())
}

/// Gives wasmtime memories as [`with_plan`] orders them.
pub(super) struct Creator;

// SAFETY: `new_memory` returns memories that keep the promises listed at `Region`.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let plan = PLAN.take().ok_or("a memory was created that no instance ordered")?;
        let reserved = reserved_size_in_bytes
            .and_then(|size| size.checked_add(guard_size_in_bytes))
            .ok_or("the engine reserves no address space for memories")?;
        let region = Region::map(plan, minimum, reserved)
            .map_err(|error| format!("mapping a guest's memory: {}", explained(&error)))?;
        let region = Arc::new(region);
        MADE.set(Some(Arc::clone(&region)));
        Ok(Box::new(Mapping(region)))
    }
}

/// One mapped linear memory. `base .. base + reserved` belongs to it until it is dropped.
/// `accessible ≤ capacity ≤ reserved`, all multiples of the page size; only
/// `base .. base + accessible` can be touched without a fault.
pub(super) struct Region {
    base: *mut u8,
    reserved: usize,
    capacity: usize,
    accessible: AtomicUsize,
    file: Arc<OwnedFd>,
    view: Option<View>,
    /// The error of the first fault below `accessible` that could not be let through; 0 for none.
    refused: AtomicI32,
    /// Where that was, in bytes from `base`.
    refused_at: AtomicUsize,
    /// Of a live memory only, and only where the host can do it.
    watch: OnceLock<Watch>,
    /// What `watch` is to be made with.
    tracking: Option<Arc<Tracking>>,
}

/// What a view knows about its private pages.
struct View {
    /// Whether unnoted pages are write-protected; not so during instantiation.
    sealed: AtomicBool,
    /// Numbers of the pages made writable one by one; the first `noted_len` are valid.
    noted: [AtomicU32; NOTED_PAGES_MAX],
    noted_len: AtomicUsize,
    /// Whether more pages were written than can be noted; then all are writable.
    overflowed: AtomicBool,
    /// Pages beyond the cheap ones copied back since the notes were dropped last.
    excess: AtomicUsize,
}

// SAFETY: `base` is an address only; who reads or writes through it is governed by the owner
// of the instance (`&mut` for calls), and all other fields are thread-safe themselves.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(plan: Plan, minimum: usize, reserved: usize) -> io::Result<Region> {
        let (sharing, file, capacity) = match &plan {
            Plan::Live { max_bytes, .. } => {
                (libc::MAP_SHARED, Arc::new(anonymous_file(*max_bytes)?), *max_bytes)
            }
            Plan::Successor { of } | Plan::View { of } => {
                (libc::MAP_PRIVATE, Arc::clone(&of.file), of.capacity)
            }
        };
        let (view, tracking) = match plan {
            Plan::Live { tracking, .. } => (None, tracking),
            Plan::Successor { of } => (None, of.tracking.clone()),
            Plan::View { .. } => (Some(View::new()), None),
        };
        if minimum > capacity || capacity > reserved {
            return Err(io::Error::other(format!(
                "{minimum} bytes at first, {capacity} at most, {reserved} reserved: not in order"
            )));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing existing.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                reserved,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // From here on `region` unmaps on every way out.
        let region = Region {
            base: base.cast(),
            reserved,
            capacity,
            accessible: AtomicUsize::new(0),
            file,
            view,
            refused: AtomicI32::new(0),
            refused_at: AtomicUsize::new(0),
            watch: OnceLock::new(),
            tracking,
        };
        region.map_file(sharing)?;
        if sharing == libc::MAP_SHARED {
            region.begin_watch()?;
        }
        region.grow_to(minimum)?;
        Ok(region)
    }

    /// Puts the file, without access, in the place of what the first `capacity` bytes of the
    /// reservation showed.
    fn map_file(&self, sharing: libc::c_int) -> io::Result<()> {
        if self.capacity == 0 {
            return Ok(());
        }
        // SAFETY: replaces pages of this region, into which nobody holds a reference: it was
        // made just now, or its instance has not run yet.
        let mapped = unsafe {
            libc::mmap(
                self.base.cast(),
                self.capacity,
                libc::PROT_NONE,
                sharing | libc::MAP_FIXED | libc::MAP_NORESERVE,
                self.file.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn begin_watch(&self) -> io::Result<()> {
        if let Some(tracking) = &self.tracking
            && self.capacity > 0
        {
            let watch = Watch::begin(tracking, self.base, self.capacity)?;
            assert!(self.watch.set(watch).is_ok(), "a region is watched once");
        }
        Ok(())
    }

    /// Turns the memory of a successor whose instance has just been instantiated into the live
    /// one: what instantiation wrote (data segments) is dropped, and what the predecessor's
    /// file holds up to `len` is what it shows. Beyond, there are zeros.
    ///
    /// The predecessor must not be called any more.
    pub(super) fn take_over(&self, len: usize) -> io::Result<()> {
        assert!(self.view.is_none() && self.watch.get().is_none(), "only successors take over");
        let hole = (self.capacity - len) as libc::off_t;
        if hole > 0 && !museum::is_on(Exhibit::GrownMemoryKept) {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: plain system call on a descriptor that we own.
            let punched =
                unsafe { libc::fallocate(self.file.as_raw_fd(), mode, len as libc::off_t, hole) };
            if punched != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        self.map_file(libc::MAP_SHARED)?;
        self.begin_watch()?;
        let accessible = self.accessible.load(Relaxed);
        self.protect(0, accessible, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Adds the grains of a live memory that may have been written since they were last
    /// protected: where the host cannot tell, all but those which nobody ever touched.
    pub(super) fn written(&self, then: Then, into: &mut Bits) -> io::Result<()> {
        assert!(self.view.is_none(), "views are not tracked");
        let len = self.accessible.load(Relaxed);
        match self.watch.get() {
            Some(watch) => watch.written(&self.file, len, then, into),
            None => data_grains(&self.file, 0, len, into),
        }
    }

    /// Adds those grains of a live memory among `range` that somebody ever touched.
    pub(super) fn touched(&self, range: Range<usize>, into: &mut Bits) -> io::Result<()> {
        let end = self.accessible.load(Relaxed).min(range.end * GRAIN_BYTES);
        match range.start * GRAIN_BYTES {
            start if start < end => data_grains(&self.file, start, end, into),
            _ => Ok(()),
        }
    }

    /// Protects all of a live memory, if it is watched.
    pub(super) fn forget_written(&self) -> io::Result<()> {
        match self.watch.get() {
            Some(watch) => watch.forget(self.accessible.load(Relaxed)),
            None => Ok(()),
        }
    }

    /// Whether [`Region::written`] tells exactly.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.get().is_some()
    }

    fn grow_to(&self, new_size: usize) -> io::Result<()> {
        let old_size = self.accessible.load(Relaxed);
        if new_size < old_size || new_size > self.capacity {
            return Err(io::Error::other(format!(
                "cannot grow from {old_size} to {new_size} bytes of at most {}",
                self.capacity
            )));
        }
        // A view that has given up noting single pages would not let a write to a protected one
        // through any more.
        let noting = self
            .view
            .as_ref()
            .is_some_and(|view| view.sealed.load(Relaxed) && !view.overflowed.load(Relaxed));
        self.protect(old_size, new_size - old_size, libc::PROT_READ | libc::PROT_WRITE)?;
        if noting {
            // That a system of strict accounting (`vm.overcommit_memory=2`) has no memory for what
            // may be written it says when it is first made writable: here, where it can be
            // refused, and not at the write.
            self.protect(old_size, new_size - old_size, libc::PROT_READ)?;
        }
        self.accessible.store(new_size, Relaxed);
        Ok(())
    }

    /// Async-signal-safe: one system call, no allocation, no lock.
    fn protect(&self, offset: usize, len: usize, protection: libc::c_int) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        assert!(offset + len <= self.capacity);
        // SAFETY: the range is inside of this region, and page-aligned by its invariants.
        match unsafe { libc::mprotect(self.base.add(offset).cast(), len, protection) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Turns a view whose instance has just been instantiated into an untouched one: what
    /// instantiation wrote (data segments) is dropped, writes are noted from now on.
    pub(super) fn seal(&self) -> io::Result<()> {
        let view = self.view.as_ref().expect("only views are sealed");
        view.sealed.store(true, Relaxed);
        self.drop_private_pages(view, None)
    }

    /// Forgets what was written to the first `noted` noted pages, or anywhere. Page by page is
    /// slower, but leaves alone what only reads have mapped, which may be all of a large heap.
    fn drop_private_pages(&self, view: &View, noted: Option<usize>) -> io::Result<()> {
        match noted {
            None => self.drop_private_range(0, self.accessible.load(Relaxed))?,
            Some(noted) => {
                for page in &view.noted[..noted] {
                    let offset = page.load(Relaxed) as usize * page_size();
                    self.drop_private_range(offset, page_size())?;
                }
            }
        }
        view.forget_noted();
        view.overflowed.store(false, Relaxed);
        view.excess.store(0, Relaxed);
        Ok(())
    }

    fn drop_private_range(&self, offset: usize, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        assert!(offset + len <= self.capacity);
        // SAFETY: the range is this view's; dropping its private pages makes them show the
        // file again, and no reference into them exists outside of a call.
        let dropped =
            unsafe { libc::madvise(self.base.add(offset).cast(), len, libc::MADV_DONTNEED) };
        if dropped != 0 {
            return Err(io::Error::last_os_error());
        }
        self.protect(offset, len, libc::PROT_READ)
    }

    /// Gives back what a call on a view has written beyond what is worth keeping for the next.
    ///
    /// Must not be called during a call on the view.
    pub(super) fn give_back(&self) -> io::Result<()> {
        let view = self.view.as_ref().expect("only views give back");
        let noted = view.noted_len.load(Relaxed);
        let excess = view.excess.load(Relaxed) + noted.saturating_sub(NOTED_PAGES_CHEAP);
        if view.overflowed.load(Relaxed) {
            return self.drop_private_pages(view, None);
        }
        if excess > EXCESS_PAGES_MAX {
            return self.drop_private_pages(view, Some(noted));
        }
        view.excess.store(excess, Relaxed);
        Ok(())
    }

    /// Makes a view that has given back show exactly what `live` shows, whatever calls on the view
    /// have written.
    ///
    /// Must not be called during a call on either instance.
    pub(super) fn reset_to(&self, live: &Region) {
        let view = self.view.as_ref().expect("only views are reset");
        assert!(Arc::ptr_eq(&self.file, &live.file), "a view is reset to its own origin");
        assert!(self.accessible.load(Relaxed) <= live.accessible.load(Relaxed));
        assert!(!view.overflowed.load(Relaxed), "what was written without a note is given back");
        let page_size = page_size();
        for page in &view.noted[..view.noted_len.load(Relaxed)] {
            let offset = page.load(Relaxed) as usize * page_size;
            // SAFETY: both ranges are accessible (noted pages were inside of `accessible`,
            // which never shrinks, and the live region is at least as large) and the view's is
            // writable (a page is noted when it is); they are different mappings, and no call is
            // running on either.
            unsafe {
                ptr::copy_nonoverlapping(live.base.add(offset), self.base.add(offset), page_size);
            }
        }
    }

    /// Private pages of this mapping, in bytes.
    #[cfg(test)]
    pub(super) fn private_bytes(&self) -> u64 {
        let within = self.base.addr()..self.base.addr() + self.reserved;
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("the mappings of a process");
        let mut is_own = false;
        let mut kib = 0;
        for line in smaps.lines() {
            let word = line.split([' ', '-']).next().unwrap_or_default();
            if let Some(anonymous) = line.strip_prefix("Anonymous:") {
                let anonymous = anonymous.trim().trim_end_matches(" kB");
                kib += if is_own { anonymous.parse::<u64>().expect("a number") } else { 0 };
            } else if let Ok(start) = usize::from_str_radix(word, 16) {
                is_own = within.contains(&start);
            }
        }
        kib << 10
    }

    /// Takes the pages away that were promised, as a system that has none left.
    #[cfg(test)]
    pub(super) fn break_promise(&self) {
        // SAFETY: plain system call on a descriptor that we own.
        assert_eq!(unsafe { libc::ftruncate(self.file.as_raw_fd(), 0) }, 0);
    }

    /// What the host has refused to a guest's call on this memory: the call's trap is not the
    /// guest's then, and nothing that it came to counts.
    pub(super) fn refused(&self) -> Option<String> {
        let error = match self.refused.load(Relaxed) {
            0 => return None,
            error => io::Error::from_raw_os_error(error),
        };
        let at = self.refused_at.load(Relaxed);
        Some(format!("a guest could not use its own memory at {at:#x}: {}", explained(&error)))
    }

    /// Lets a write to a protected page through. Runs in a signal handler: async-signal-safe.
    fn handle_fault(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.base.addr());
        if offset >= self.accessible.load(Relaxed) {
            // The guest's own.
            return false;
        }
        let Err(error) = self.open(offset) else { return true };
        if self.refused.load(Relaxed) == 0 {
            self.refused_at.store(offset, Relaxed);
            self.refused.store(error, Relaxed);
        }
        false
    }

    /// Lets the host write to a range between two calls: nobody handles the fault that a protected page
    /// of a view would be.
    pub(super) fn make_writable(&self, range: Range<usize>) -> io::Result<()> {
        if self.view.is_none() {
            return Ok(());
        }
        let page_size = page_size();
        for page in range.start / page_size..range.end.div_ceil(page_size) {
            if !self.is_writable(page) {
                self.open(page * page_size).map_err(io::Error::from_raw_os_error)?;
            }
        }
        Ok(())
    }

    /// Whether a page of a view takes writes.
    fn is_writable(&self, page: usize) -> bool {
        let Some(view) = self.view.as_ref().filter(|view| view.sealed.load(Relaxed)) else {
            return true;
        };
        let noted = &view.noted[..view.noted_len.load(Relaxed)];
        let is_noted = || noted.iter().any(|other| other.load(Relaxed) as usize == page);
        view.overflowed.load(Relaxed) || is_noted()
    }

    /// Makes the page at `offset` writable, or everything if it cannot be noted; or says by the
    /// number of an error why not. Async-signal-safe.
    fn open(&self, offset: usize) -> Result<(), i32> {
        let Some(view) = self.view.as_ref().filter(|view| view.sealed.load(Relaxed)) else {
            // Nothing of it is protected.
            return Err(libc::EFAULT);
        };
        let page_size = page_size();
        let page = offset / page_size;
        if self.is_writable(page) {
            // A page that is writable already did not fault for being protected.
            return Err(libc::EFAULT);
        }
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        // One page for itself takes two mappings more, and there may be none left.
        if view.has_room_for_note() && self.protect(page * page_size, page_size, writable).is_ok() {
            view.note(page as u32);
            return Ok(());
        }
        // All of it is one mapping.
        match self.protect(0, self.accessible.load(Relaxed), writable) {
            Ok(()) => {
                view.overflowed.store(true, Relaxed);
                Ok(())
            }
            Err(error) => Err(error.raw_os_error().unwrap_or(libc::EFAULT)),
        }
    }
}

/// An error of the system, and what to look at where it is "no memory", which it says of many things.
pub(super) fn explained(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => format!(
            "{error}: memory is short, or a limit of this process is reached (see \
             `vm.max_map_count`, `vm.overcommit_memory`, `ulimit -v` and `ulimit -d`)"
        ),
        _ => error.to_string(),
    }
}

impl View {
    fn new() -> View {
        View {
            sealed: AtomicBool::new(false),
            noted: [const { AtomicU32::new(0) }; NOTED_PAGES_MAX],
            noted_len: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
            excess: AtomicUsize::new(0),
        }
    }

    fn has_room_for_note(&self) -> bool {
        self.noted_len.load(Relaxed) < NOTED_PAGES_MAX
            && NOTED_PAGES_OF_ALL.load(Relaxed) < NOTED_PAGES_OF_ALL_MAX
    }

    /// Notes a page, for which there is room, as writable.
    fn note(&self, page: u32) {
        let noted = self.noted_len.load(Relaxed);
        self.noted[noted].store(page, Relaxed);
        self.noted_len.store(noted + 1, Relaxed);
        NOTED_PAGES_OF_ALL.fetch_add(1, Relaxed);
    }

    fn forget_noted(&self) {
        NOTED_PAGES_OF_ALL.fetch_sub(self.noted_len.swap(0, Relaxed), Relaxed);
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.forget_noted();
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the whole range was mapped by `map` for this region alone, and whoever could
        // reach into it (the instance, the fault handler) holds the region by `Arc`.
        unsafe { libc::munmap(self.base.cast(), self.reserved) };
    }
}

/// A region in wasmtime's hands.
struct Mapping(Arc<Region>);

// SAFETY: the region is page-aligned, never moves, is inaccessible from `accessible` to the
// end of reservation and guard, and reads as zeros at first.
unsafe impl LinearMemory for Mapping {
    fn byte_size(&self) -> usize {
        self.0.accessible.load(Relaxed)
    }

    fn byte_capacity(&self) -> usize {
        self.0.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        self.0.grow_to(new_size).map_err(|error| wasmtime::format_err!("{}", explained(&error)))
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base
    }
}

/// Has faults of calls in `store` sorted: writes to a view's pages are noted and let through, what
/// this host has refused is remembered, and only the rest is left to be a trap.
pub(super) fn sort_faults<T: 'static>(store: &mut Store<T>, region: Arc<Region>) {
    // A page size that is not cached yet must not be asked for in a signal handler.
    page_size();
    let handler = move |signal, info: *const libc::siginfo_t, _context: *const libc::c_void| {
        // SAFETY: the kernel passes a valid `siginfo_t` to a handler.
        signal == libc::SIGSEGV && region.handle_fault(unsafe { (*info).si_addr() }.addr())
    };
    // SAFETY: the handler is async-signal-safe: it reads the signal's address, touches atomics
    // and makes at most two mprotect calls.
    unsafe { store.set_signal_handler(handler) };
}

/// Noted pages of all views.
#[cfg(test)]
pub(super) fn noted_pages_of_all() -> usize {
    NOTED_PAGES_OF_ALL.load(Relaxed)
}

/// Takes all mappings that the system gives to this process, until it is dropped.
#[cfg(test)]
pub(super) fn exhaust_mappings() -> impl Drop {
    struct Mappings(Vec<(*mut libc::c_void, usize)>);

    impl Drop for Mappings {
        fn drop(&mut self) {
            for (base, len) in &self.0 {
                // SAFETY: mapped below, and nothing refers to it.
                assert_eq!(unsafe { libc::munmap(*base, *len) }, 0);
            }
        }
    }

    let mut mappings = Mappings(Vec::with_capacity(64));
    let len = (1 << 20) * page_size();
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    loop {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing existing.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, kind, -1, 0) };
        if base == libc::MAP_FAILED {
            return mappings;
        }
        mappings.0.push((base, len));
        for page in (1..len / page_size()).step_by(2) {
            let at = base.wrapping_byte_add(page * page_size());
            // SAFETY: a page of the mapping made just now.
            if unsafe { libc::mprotect(at, page_size(), libc::PROT_READ) } != 0 {
                break;
            }
        }
    }
}

/// Sees to it that the calling thread has the stack on which wasmtime handles its signals. wasmtime
/// makes it at a thread's first call, and panics if it cannot.
pub(super) fn make_signal_stack() -> io::Result<()> {
    if !SIGNALS_READY.get() {
        try_mapping(SIGNAL_STACK_BYTES)?;
        // In case that somebody else took what there was in the meantime.
        std::panic::catch_unwind(Engine::tls_eager_initialize)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        SIGNALS_READY.set(true);
    }
    Ok(())
}

/// Makes a mapping as that of a stack, its first page a guard, and takes it back.
fn try_mapping(len: usize) -> io::Result<()> {
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing existing.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, kind, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let (stack, writable) =
        (base.wrapping_byte_add(page_size()), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the mapping made just now, without its first page.
    let opened = match unsafe { libc::mprotect(stack, len - page_size(), writable) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: nothing refers to it.
    unsafe { libc::munmap(base, len) };
    opened
}

/// Bytes of stack that the calling thread has left; `None` if the system does not say.
pub(super) fn stack_left_bytes() -> Option<usize> {
    let here = 0u8;
    let here = (&raw const here).addr();
    if STACK_LOWEST.get() == 0 {
        STACK_LOWEST.set(stack_lowest_address()?);
    }
    here.checked_sub(STACK_LOWEST.get())
}

fn stack_lowest_address() -> Option<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: `pthread_getattr_np` initialises the attributes if it returns 0, and they are
    // destroyed exactly then.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let mut lowest = ptr::null_mut();
        let mut size = 0;
        let got = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (got == 0).then(|| lowest.addr())
    }
}

pub(super) fn anonymous_file(len: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the call has no other precondition.
    let fd = unsafe { libc::memfd_create(c"raft-host-guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and belongs to nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: plain system call on a descriptor that we own. The file stays sparse.
    match unsafe { libc::ftruncate(file.as_raw_fd(), len) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The system's page size, cached so that a signal handler may ask.
pub(super) fn page_size() -> usize {
    static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);
    match PAGE_SIZE.load(Relaxed) {
        0 => {
            // SAFETY: no precondition.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let size = usize::try_from(size).expect("the system has a page size");
            PAGE_SIZE.store(size, Relaxed);
            size
        }
        size => size,
    }
}
