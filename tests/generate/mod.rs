//! Random guests, made from random bytes so that a fuzzer can steer them, and the one question
//! that all of them are asked: is the host never surprised, and always of one mind? And random
//! peers, whom a replica must survive.
//!
//! ```text
//!   modules   any module with the exports of a guest, by `wasm-smith`
//!   calls     a guest that calls imports with random pointers, lengths and values
//!   verdict   load, run twice, compare
//!   messages  what honest peers, broken ones and strangers could send to a replica
//! ```

pub mod calls;
pub mod messages;
pub mod modules;
pub mod verdict;
