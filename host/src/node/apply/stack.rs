//! The stack that guests run on.

use crate::fsm::STACK_MAX_BYTES;

/// Guests run on the apply thread's stack; address space only, until it is used.
pub(in crate::node) const APPLY_STACK_BYTES: usize = 16 << 20;
const _: () = assert!(APPLY_STACK_BYTES as u64 > STACK_MAX_BYTES + (4 << 20), "see `Limits`");
