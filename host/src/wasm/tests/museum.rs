//! The room's exhibits break what they say they break.

use super::memory::{PAGER, paged};
use super::*;
use crate::museum::{Exhibit, exhibit};
use crate::wasm::digest::from_scratch;

fn sum(fsm: &mut dyn Fsm) -> Vec<u8> {
    ok(fsm.query(at(1), &paged(b's', 0, 0)).unwrap())
}

#[test]
fn memory_that_grew_shows_what_a_trapped_command_wrote() {
    let _guard = exhibit(Some(Exhibit::GrownMemoryKept));
    let (mut straight, mut broken) = (start(PAGER), start(PAGER));
    trap(broken.apply(at(1), &paged(b't', 65, 9)).unwrap());
    for fsm in [&mut straight, &mut broken] {
        ok(fsm.apply(at(1), &paged(b'g', 0, 0)).unwrap());
    }
    assert_ne!(sum(&mut *straight), sum(&mut *broken));
}

fn pages_that_were_counted_are_not_undone() {
    let _guard = exhibit(Some(Exhibit::CountedPagesForgotten));
    // At the limit of memory, so that the trap does not cost the instance.
    let limits = Limits { memory_max_bytes: 4 << 16, ..small_limits() };
    let mut fsm = try_start(&wasm(PAGER), &limits).unwrap();
    ok(fsm.apply(at(1), &paged(b'w', 4, 1)).unwrap());
    let before = sum(&mut *fsm);
    fsm.count_pages();
    trap(fsm.apply(at(1), &paged(b't', 20, 6)).unwrap());
    assert_ne!(sum(&mut *fsm), before);
}

#[test]
fn pages_that_were_counted_are_not_undone_where_pages_are_counted() {
    on(MemoryBackend::Userfaultfd, pages_that_were_counted_are_not_undone);
}

#[test]
fn a_trap_takes_the_commands_before_it_in_its_entry_with_it() {
    let _guard = exhibit(Some(Exhibit::BatchHalfUndone));
    let mut fsm = scribe();
    ok(fsm.apply(at(1), b"a-one ").unwrap());
    ok(fsm.apply(at(2), b"a-two ").unwrap());
    trap(fsm.apply(behind(at(2), 1), b"u").unwrap());
    assert_eq!(contents(&mut *fsm), "a-one ");
}

#[test]
fn a_digest_misses_what_an_earlier_checkpoint_saw() {
    let _guard = exhibit(Some(Exhibit::DigestOfLastCheckpoint));
    let mut fsm = start_wasm(PAGER, &small_limits());
    fsm.digest().unwrap();
    ok(fsm.apply(at(1), &paged(b'w', 20, 6)).unwrap());
    drop(fsm.capture().unwrap());
    ok(fsm.apply(at(1), &paged(b'w', 40, 6)).unwrap());
    let (memory, globals) = fsm.state();
    assert_ne!(fsm.digest().unwrap().digest, from_scratch(&memory, &globals));
}

#[test]
fn an_image_shows_what_a_later_checkpoint_wrote() {
    let _guard = exhibit(Some(Exhibit::ImageBlocksShared));
    let mut fsm = start(PAGER);
    ok(fsm.apply(at(1), &paged(b'w', 20, 6)).unwrap());
    let captured = fsm.capture().unwrap();
    let (mut early, mut late) = (Vec::new(), Vec::new());
    captured.write_to(&mut early).unwrap();
    ok(fsm.apply(at(1), &paged(b'w', 20, 7)).unwrap());
    drop(fsm.capture().unwrap());
    captured.write_to(&mut late).unwrap();
    assert_ne!(early, late);
}

#[test]
fn a_flipped_bit_is_in_the_next_digest() {
    let mut fsm = start(PAGER);
    for place in [0, 5_000, 200_000] {
        let before = fsm.digest().unwrap();
        fsm.flip_bit(place);
        let flipped = fsm.digest().unwrap();
        assert_ne!(before.digest, flipped.digest);
        let block = place >> 12 << 12;
        let [changed] = flipped.changed.try_into().unwrap();
        assert_eq!(changed, block..block + (1 << 12));
        fsm.flip_bit(place);
        assert_eq!(fsm.digest().unwrap().digest, before.digest);
    }
}
