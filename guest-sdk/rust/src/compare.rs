//! `memcmp`, eight bytes at a time. The one that comes with the toolchain for wasm32 goes byte by byte, and
//! comparing texts is what a search in a map mostly does.
#![expect(unsafe_code, reason = "`memcmp` takes pointers, and the linker finds it by its name")]

use core::cmp::Ordering;

const WORD: usize = size_of::<u64>();

/// What the compiler makes of a comparison of slices or texts.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { compare(left, right, len) as i32 }
}

/// The order of the first bytes that differ.
///
/// # Safety
///
/// Both pointers must be good for reads of `len` bytes.
#[inline]
unsafe fn compare(left: *const u8, right: *const u8, len: usize) -> Ordering {
    // SAFETY: whoever asks stays below `len`.
    let word = |at: usize| unsafe {
        let (left, right) = (left.add(at).cast::<u64>(), right.add(at).cast::<u64>());
        (u64::from_le(left.read_unaligned()), u64::from_le(right.read_unaligned()))
    };
    let mut at = 0;
    while len - at >= WORD {
        let (l, r) = word(at);
        if l != r {
            return first_difference(l, r);
        }
        at += WORD;
    }
    if at == len {
        return Ordering::Equal;
    }
    if len >= WORD {
        // The last eight, of which the first are known to be equal.
        let (l, r) = word(len - WORD);
        return if l == r { Ordering::Equal } else { first_difference(l, r) };
    }
    while at < len {
        // SAFETY: below `len`.
        let (l, r) = unsafe { (left.add(at).read(), right.add(at).read()) };
        if l != r {
            return l.cmp(&r);
        }
        at += 1;
    }
    Ordering::Equal
}

/// Of two different words, whose lowest byte is the first.
#[inline]
fn first_difference(left: u64, right: u64) -> Ordering {
    let shift = (left ^ right).trailing_zeros() & !7;
    ((left >> shift) as u8).cmp(&((right >> shift) as u8))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Ordering, compare};

    #[test]
    fn the_order_is_that_of_the_bytes_whatever_their_number_and_place() {
        let pattern: Vec<u8> = (0..64u8).map(|byte| byte.wrapping_mul(37) ^ 0x80).collect();
        for len in 0..=24 {
            for start in 0..9 {
                let left = &pattern[start..start + len];
                let order = |right: &[u8]| {
                    // SAFETY: both have this length.
                    unsafe { compare(left.as_ptr(), right.as_ptr(), len) }
                };
                let same = left.to_vec();
                assert_eq!(order(&same), Ordering::Equal);
                for at in 0..len {
                    for other in [0, 1, 0x7f, 0x80, 0xff] {
                        let mut right = left.to_vec();
                        right[at] = other;
                        // What comes behind must not count.
                        right[at + 1..].fill(other ^ 0xff);
                        assert_eq!(order(&right), left.cmp(&right), "{len} {start} {at} {other}");
                    }
                }
            }
        }
    }
}
