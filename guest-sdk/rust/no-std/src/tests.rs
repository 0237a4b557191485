//! The stack, and the heap that it lives in.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use alloc::vec;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;

use raft_fsm_sdk::testing::{RestoreProperty, Runner};

use crate::Stack;
use crate::heap::{Heap, Source};

#[test]
fn texts_come_back_in_reverse() {
    let mut node = Runner::<Stack>::new();
    assert_eq!(node.apply_text("push one").as_deref(), Ok("1"));
    assert_eq!(node.apply_text("push ").as_deref(), Ok("2"));
    assert_eq!(node.query_text("").as_deref(), Ok(r#"["one", ""]"#));
    assert_eq!(node.apply_text("pop").as_deref(), Ok(""));
    assert_eq!(node.apply_text("pop").as_deref(), Ok("one"));
    assert_eq!(node.apply_text("pop").unwrap_err(), "there is nothing to pop");
}

#[test]
fn a_restored_stack_behaves_as_the_original() {
    let property = RestoreProperty::<Stack>::new().query("");
    property.holds_for_random(20, |random| *random.pick(&["push a", "push é", "push ", "pop"]));
}

/// One buffer, given out in two pieces.
struct Buffer {
    memory: Vec<u128>,
    given: Cell<usize>,
}

const PIECE: usize = 256 << 10;

impl Source for Buffer {
    fn more(&self, bytes: usize) -> Option<(usize, usize)> {
        let start = (self.memory.as_ptr() as usize).next_multiple_of(4096);
        let given = self.given.get();
        if bytes > PIECE || given == 2 {
            return None;
        }
        self.given.set(given + 1);
        Some((start + given * PIECE, PIECE))
    }
}

fn heap() -> Heap<Buffer> {
    Heap::new(Buffer { memory: vec![0; (2 * PIECE + 4096) / 16], given: Cell::new(0) })
}

/// A block and what it must still hold.
type Block = (*mut u8, Layout, u8);

fn holds((block, layout, byte): Block) -> bool {
    // SAFETY: the block is the test's and was filled.
    unsafe { core::slice::from_raw_parts(block, layout.size()) }.iter().all(|found| *found == byte)
}

#[test]
fn blocks_keep_what_is_in_them_and_their_alignment() {
    let heap = heap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut seed = 1_u32;
    for round in 0..4_000_u32 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = (seed >> 16) as usize % 900 + 1;
        let layout = Layout::from_size_align(size, 1 << (seed >> 8 & 7)).unwrap();
        // SAFETY: every block is used within its layout and given back once, with that layout.
        unsafe {
            if blocks.len() < 100 {
                let block = heap.alloc(layout);
                assert!(!block.is_null() && (block as usize).is_multiple_of(layout.align()));
                block.write_bytes(round as u8, size);
                blocks.push((block, layout, round as u8));
                continue;
            }
            let at = seed as usize % blocks.len();
            let (block, old, byte) = blocks.swap_remove(at);
            assert!(holds((block, old, byte)), "round {round}");
            if round.is_multiple_of(2) {
                heap.dealloc(block, old);
            } else {
                let moved = heap.realloc(block, old, size);
                let kept = Layout::from_size_align(old.size().min(size), 1).unwrap();
                assert!(!moved.is_null() && holds((moved, kept, byte)), "round {round}");
                moved.write_bytes(byte, size);
                let new = Layout::from_size_align(size, old.align()).unwrap();
                blocks.push((moved, new, byte));
            }
        }
    }
    assert!(blocks.into_iter().all(holds));
}

#[test]
fn a_heap_that_is_full_says_so_and_goes_on_with_what_is_given_back() {
    let heap = heap();
    let layout = Layout::from_size_align(64 << 10, 8).unwrap();
    // SAFETY: every block is given back once, with its layout.
    unsafe {
        let blocks: Vec<*mut u8> =
            core::iter::repeat_with(|| heap.alloc(layout)).take_while(|b| !b.is_null()).collect();
        assert_eq!(blocks.len(), 8);
        assert!(heap.alloc(Layout::from_size_align(usize::MAX >> 1, 1).unwrap()).is_null());
        assert!(heap.alloc(Layout::from_size_align(8, 8192).unwrap()).is_null());
        heap.dealloc(blocks[3], layout);
        assert_eq!(heap.alloc(layout), blocks[3]);
    }
}
