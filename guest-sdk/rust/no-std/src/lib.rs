//! A stack of texts, without `std`: what a state machine then brings along itself.
//!
//! The panic handler here and the one in `std` exclude each other, so this module builds only as
//! long as nothing that it is made of asks for `std`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(any(target_arch = "wasm32", test))]
mod heap;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str;

use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Writer};

const MAGIC: &[u8; 4] = b"STK1";

/// Texts, the last one on top.
#[derive(Default)]
pub struct Stack {
    texts: Vec<String>,
}

impl StateMachine for Stack {
    fn apply(&mut self, _: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        let command = str::from_utf8(command).map_err(Rejection::display)?;
        match command.split_once(' ') {
            Some(("push", text)) => {
                self.texts.push(text.to_string());
                Ok(self.texts.len().to_string().into())
            }
            None if command == "pop" => {
                Ok(self.texts.pop().ok_or("there is nothing to pop")?.into())
            }
            None if command == "break" => panic!("broken with {} texts", self.texts.len()),
            _ => Err("a command is `push TEXT`, `pop` or `break`".into()),
        }
    }

    fn query(&self, _: &Context, query: &[u8]) -> Result<Answer, Rejection> {
        if !query.is_empty() {
            return Err(Rejection::from("a query is empty"));
        }
        Ok(format!("{:?}", self.texts).into())
    }

    fn snapshot(&self, _: &Context, out: &mut Writer) {
        out.bytes(MAGIC);
        for text in &self.texts {
            out.sized(text.as_bytes());
        }
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<Stack, Rejection> {
        let mut magic = [0; 4];
        input.fill(&mut magic)?;
        if magic != *MAGIC {
            return Err("no snapshot of the stack".into());
        }
        let mut texts = Vec::new();
        while input.remaining() > 0 {
            texts.push(String::from_utf8(input.sized()?).map_err(Rejection::display)?);
        }
        Ok(Stack { texts })
    }
}

raft_fsm_sdk::export!(Stack);

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static HEAP: heap::Heap<heap::Memory> = heap::Heap::new(heap::Memory);

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    raft_fsm_sdk::guest::log_panic(info);
    core::arch::wasm32::unreachable()
}
