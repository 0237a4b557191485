//! An allocator: blocks of powers of two, each size with a list of those that are free.
//!
//! Simple and always the same for the same calls, which is what replicas need. A block never
//! changes its size.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

/// The smallest block holds the link of a list.
const SMALLEST: usize = 16;
/// Blocks are aligned to their size, but to no more than this.
const MAX_ALIGN: usize = 4096;
const CLASSES: usize = usize::BITS as usize;

/// Where memory comes from.
pub(crate) trait Source {
    /// At least `bytes` more, nobody else's from now on: the address and the length, multiples of
    /// `MAX_ALIGN`.
    fn more(&self, bytes: usize) -> Option<(usize, usize)>;
}

/// The module's linear memory.
#[cfg(target_arch = "wasm32")]
pub(crate) struct Memory;

#[cfg(target_arch = "wasm32")]
impl Source for Memory {
    fn more(&self, bytes: usize) -> Option<(usize, usize)> {
        const PAGE: usize = 65_536;
        let pages = bytes.div_ceil(PAGE);
        match core::arch::wasm32::memory_grow::<0>(pages) {
            usize::MAX => None,
            before => Some((before * PAGE, pages * PAGE)),
        }
    }
}

pub(crate) struct Heap<S> {
    source: S,
    state: UnsafeCell<State>,
}

struct State {
    /// First free block of each size; its first word is the address of the next, 0 for none.
    free: [usize; CLASSES],
    /// Never handed out: `next..end`.
    next: usize,
    end: usize,
}

// SAFETY: a module has one thread; the tests keep each heap to one.
unsafe impl<S> Sync for Heap<S> {}

impl<S: Source> Heap<S> {
    pub(crate) const fn new(source: S) -> Heap<S> {
        Heap { source, state: UnsafeCell::new(State { free: [0; CLASSES], next: 0, end: 0 }) }
    }

    /// Takes a block from what was never handed out.
    fn carve(&self, state: &mut State, size: usize) -> Option<usize> {
        let align = size.min(MAX_ALIGN);
        let mut start = state.next.checked_next_multiple_of(align)?;
        if start.checked_add(size)? > state.end {
            let (address, len) = self.source.more(size)?;
            if address != state.end {
                state.next = address;
            }
            state.end = address.checked_add(len)?;
            start = state.next.checked_next_multiple_of(align)?;
        }
        state.next = start.checked_add(size).filter(|next| *next <= state.end)?;
        Some(start)
    }
}

/// The power of two that a block for `layout` has.
fn size_of(layout: Layout) -> Option<usize> {
    if layout.align() > MAX_ALIGN {
        return None;
    }
    layout.size().max(layout.align()).max(SMALLEST).checked_next_power_of_two()
}

// SAFETY: blocks do not overlap, since each is carved from memory that was never handed out or
// taken from the list of its size, and they are as large and as aligned as `size_of` says.
unsafe impl<S: Source> GlobalAlloc for Heap<S> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = size_of(layout) else { return ptr::null_mut() };
        // SAFETY: one thread, and nothing below calls back into the heap.
        let state = unsafe { &mut *self.state.get() };
        let class = size.trailing_zeros() as usize;
        let block = state.free[class];
        if block == 0 {
            return self.carve(state, size).map_or(ptr::null_mut(), |block| block as *mut u8);
        }
        // SAFETY: a free block holds the address of the next one.
        state.free[class] = unsafe { *(block as *const usize) };
        block as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(size) = size_of(layout) else { return };
        // SAFETY: as in `alloc`.
        let state = unsafe { &mut *self.state.get() };
        let first = &mut state.free[size.trailing_zeros() as usize];
        // SAFETY: the block was handed out, is free now, and is large enough for an address.
        unsafe { *block.cast::<usize>() = *first };
        *first = block as usize;
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        if size_of(wanted) == size_of(layout) {
            return block;
        }
        // SAFETY: the caller promises what `alloc` and `dealloc` ask for; the blocks differ.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
