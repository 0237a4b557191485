//! The window: where a guest that wants one finds a short input, and says where its output is, so
//! that neither costs the call of an import.
//!
//! Whether a call goes through it depends on the module and on the length of the input alone. It lies where an
//! immutable global of the module says, inside of the memory that the module starts with; and memory never
//! shrinks. So the host may write there without asking the guest, and looks all the same.

use std::ops::Range;

use raft_fsm_abi as abi;
use serde::{Deserialize, Serialize};
use wasmparser::{BinaryReaderError, ExternalKind, Parser, Payload, ValType};

use super::abi::CallKind;
use super::rewrite::constant;

/// Address of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window(u32);

/// Why an export is not the address of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoWindow {
    #[error("it exports no `raft_fsm_window`")]
    Missing,
    #[error("`raft_fsm_window` is not an immutable global of type i32")]
    Kind,
    #[error(
        "the 4096 bytes from `raft_fsm_window` on are not inside of the memory that it starts with"
    )]
    OutOfBounds,
}

impl Window {
    /// Where a valid module that imports no globals says that its window is.
    pub(super) fn find(
        module: &[u8],
        export: Option<(ExternalKind, u32)>,
        memory_min_bytes: u64,
    ) -> Result<Result<Window, NoWindow>, BinaryReaderError> {
        let index = match export {
            None => return Ok(Err(NoWindow::Missing)),
            Some((ExternalKind::Global, index)) => index,
            Some(_) => return Ok(Err(NoWindow::Kind)),
        };
        for payload in Parser::new(0).parse_all(module) {
            let Payload::GlobalSection(globals) = payload? else { continue };
            let Some(global) = globals.into_iter().nth(index as usize).transpose()? else { break };
            if global.ty.mutable || global.ty.content_type != ValType::I32 {
                return Ok(Err(NoWindow::Kind));
            }
            let address = constant(&global.init_expr)?;
            let end = u64::from(address) + abi::WINDOW_BYTES as u64;
            return Ok(match end <= memory_min_bytes {
                true => Ok(Window(address)),
                false => Err(NoWindow::OutOfBounds),
            });
        }
        Ok(Err(NoWindow::Missing))
    }

    /// Whether calls of a kind go through windows.
    pub(super) fn is_for(kind: CallKind) -> bool {
        matches!(kind, CallKind::Apply | CallKind::Query | CallKind::Classify)
    }

    /// Whether an input goes through it.
    pub(super) fn takes(input: &[u8]) -> bool {
        input.len() <= abi::WINDOW_INPUT_MAX_BYTES
    }

    /// The bytes that the host writes for an input that goes through it, or for none.
    pub(super) fn written(self, input_bytes: usize) -> Range<usize> {
        let start = self.0 as usize;
        start..start + abi::WINDOW_HEADER_BYTES + input_bytes
    }

    /// Writes what a call begins with; `None` if the memory ends before.
    pub(super) fn fill(self, memory: &mut [u8], input: &[u8]) -> Option<()> {
        let (header, rest) =
            memory.get_mut(self.written(input.len()))?.split_at_mut(abi::WINDOW_HEADER_BYTES);
        header.fill(0);
        rest.copy_from_slice(input);
        Some(())
    }

    /// Pointer and length of the output; `None` if the memory ends before.
    pub(super) fn output(self, memory: &[u8]) -> Option<(u32, u32)> {
        let header = memory.get(self.written(0))?;
        let (ptr, len) = header.split_first_chunk()?;
        Some((u32::from_le_bytes(*ptr), u32::from_le_bytes(*len.first_chunk()?)))
    }
}
