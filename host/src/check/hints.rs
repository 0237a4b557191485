//! What to do about a module that is refused, or that does not keep what it promises.

use crate::types::TrapKind;
use crate::wasm::CheckError;

/// It is sound, and the compiler cannot take it.
pub(super) const COMPILE: &str = "build it again with another optimisation level";
/// It stops before `init`, when there is neither a command nor a state.
pub(super) const START: &str = "what runs when a module is loaded (start section, `_initialize`, \
    `_start`) gets no input and must return: build a library or reactor instead of a program, and \
    move work that can fail to `init` or `apply`";
/// `init` founds a cluster.
pub(super) const INIT: &str = "it makes the empty state, gets no input and must return 0";
/// Something but the log decides.
pub(super) const DETERMINISM: &str = "decide by the command, the state and the host's `time_ms`, \
    `random` and `index` only, and never by addresses or the order of a hash map";
/// Queries are undone, so what they change is lost.
pub(super) const QUERY: &str = "change the state in `apply` only";
/// A command without a class, and not for want of one.
pub(super) const CLASSIFY: &str = "write 1 to 64 letters, digits and any of . _ - for a command of a \
    class, nothing for any other, and return 0";
/// A rule of the state is broken, or `check` is.
pub(super) const CHECK: &str = "either a command breaks the rule, and should be rejected, or `check` asks \
    for too much";
/// A format without a name.
pub(super) const STATE_VERSION: &str =
    "write 1 to 64 letters, digits and any of . _ - / and return 0";
/// `restores` says the wrong thing.
pub(super) const RESTORES: &str = "return 0 for the formats that `restore` reads, the own one too, and 1 for \
    all others";
/// `snapshot` fails.
pub(super) const SNAPSHOT: &str =
    "it must write the whole state and return 0, whatever was applied";
/// `restore` does not know what `snapshot` wrote.
pub(super) const RESTORE: &str = "it must read exactly what `snapshot` writes; reject only what it \
    never writes";
/// There is state outside the snapshot.
pub(super) const COPY: &str = "put all that `apply` and `query` look at into the snapshot";

/// What to do about a trap that did not say anything itself, where more than its name is known.
pub(super) fn trap(kind: TrapKind) -> Option<&'static str> {
    Some(match kind {
        TrapKind::OutOfFuel => "do less in one call, or raise the cluster's limit of fuel",
        TrapKind::StackOverflow => "recurse less deep, or raise `stack_max_bytes`",
        TrapKind::OutputLimit => "answer in pages, or raise the cluster's limits",
        TrapKind::Exit => "return instead",
        TrapKind::BadStatus => "return 0, or a positive number to reject",
        TrapKind::BadHostCall => "see guest-sdk/ABI.md, section 3",
        _ => return None,
    })
}

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
        CheckError::Window(_) => {
            "export its address as `raft_fsm_window`; see guest-sdk/ABI.md, section 3"
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
