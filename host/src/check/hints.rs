//! What to do about a module that is refused.

use crate::wasm::CheckError;

/// A sentence for each kind of defect.
pub(super) fn hint(error: &CheckError) -> &'static str {
    match error {
        CheckError::TooLarge { .. } => {
            "build an optimised, stripped module (release, without debug information)"
        }
        CheckError::NotWasm => "give the .wasm file that the compiler or `wat2wasm` wrote",
        CheckError::Component => {
            "build a core module, not a component; guest-sdk/README.md names the SDKs that do"
        }
        CheckError::Truncated(_) => "build or copy the file again",
        CheckError::UnsupportedFeature(_) => {
            "switch the feature off in the compiler; see guest-sdk/ABI.md, section 8"
        }
        CheckError::Malformed(_) => "build the module again; a newer or older compiler may help",
        CheckError::MarkerMissing | CheckError::MarkerNotAFunction => {
            "export an empty function `raft_fsm_abi_v1`; see guest-sdk/ABI.md, section 1"
        }
        CheckError::OtherAbi { .. } => "build with the SDK of this version of raft-host",
        CheckError::UnknownImports(_)
        | CheckError::ImportKind { .. }
        | CheckError::ImportSignature { .. } => {
            "import only what guest-sdk/ABI.md names in sections 1 and 9, with the types given there"
        }
        CheckError::ExportMissing { .. } | CheckError::ExportSignature { .. } => {
            "export it with this type; see guest-sdk/ABI.md, section 1"
        }
        CheckError::Memory(_) => {
            "define one 32-bit memory and export it as `memory`; see guest-sdk/ABI.md, section 1"
        }
        CheckError::MemoryMinimum { .. } => {
            "let the memory start smaller and grow, or raise the cluster's limit `memory_max_bytes`"
        }
        CheckError::TablesTooLarge { .. } | CheckError::TooManyGlobals { .. } => {
            "keep state in linear memory; see guest-sdk/ABI.md, section 8"
        }
        CheckError::TooManyFunctions { .. }
        | CheckError::FunctionTooComplex { .. }
        | CheckError::ModuleTooComplex { .. } => {
            "split generated code into smaller functions; see guest-sdk/ABI.md, section 8"
        }
        CheckError::HiddenState(_) => {
            "keep state in linear memory and globals; see guest-sdk/ABI.md, section 8"
        }
    }
}
