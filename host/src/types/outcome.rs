//! What became of a command.

use serde::{Deserialize, Serialize};

/// Why a guest broke. The numbers are persisted in sessions and sent to clients: never
/// change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum TrapKind {
    /// The fuel budget of the call ran out.
    OutOfFuel = 1,
    /// The guest's stack overflowed.
    StackOverflow = 2,
    /// Read or write outside of the guest's memory or table.
    OutOfBounds = 3,
    /// `unreachable`, which is how panics and aborts of most languages end.
    Unreachable = 4,
    /// Integer division by zero, overflow, or a bad conversion.
    Arithmetic = 5,
    /// An indirect call with a wrong signature or a null entry.
    BadCall = 6,
    /// The guest passed an import a pointer, length or value that the ABI forbids.
    BadHostCall = 7,
    /// The guest produced more output, events or log than the limits allow.
    OutputLimit = 8,
    /// The guest called `proc_exit`.
    Exit = 9,
    /// The guest returned a status that the ABI does not know (negative).
    BadStatus = 10,
    /// Anything else that is certainly the guest's doing.
    Other = 11,
}

impl TrapKind {
    /// Every kind, in the order of its number.
    pub const ALL: [TrapKind; 11] = [
        TrapKind::OutOfFuel,
        TrapKind::StackOverflow,
        TrapKind::OutOfBounds,
        TrapKind::Unreachable,
        TrapKind::Arithmetic,
        TrapKind::BadCall,
        TrapKind::BadHostCall,
        TrapKind::OutputLimit,
        TrapKind::Exit,
        TrapKind::BadStatus,
        TrapKind::Other,
    ];

    /// Reads the persisted number.
    pub fn from_u8(value: u8) -> Option<TrapKind> {
        TrapKind::ALL.get(usize::from(value).checked_sub(1)?).copied()
    }

    /// Its name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            TrapKind::OutOfFuel => "out_of_fuel",
            TrapKind::StackOverflow => "stack_overflow",
            TrapKind::OutOfBounds => "out_of_bounds",
            TrapKind::Unreachable => "unreachable",
            TrapKind::Arithmetic => "arithmetic",
            TrapKind::BadCall => "bad_call",
            TrapKind::BadHostCall => "bad_host_call",
            TrapKind::OutputLimit => "output_limit",
            TrapKind::Exit => "exit",
            TrapKind::BadStatus => "bad_status",
            TrapKind::Other => "other",
        }
    }

    /// What happened, for people.
    pub fn describe(self) -> &'static str {
        match self {
            TrapKind::OutOfFuel => "ran out of fuel",
            TrapKind::StackOverflow => "overflowed its stack",
            TrapKind::OutOfBounds => "accessed memory or a table out of bounds",
            TrapKind::Unreachable => "executed `unreachable` (a panic or abort in most languages)",
            TrapKind::Arithmetic => "divided by zero or overflowed an integer operation",
            TrapKind::BadCall => "made an indirect call to a missing or mistyped function",
            TrapKind::BadHostCall => "passed a bad pointer, length or value to an import",
            TrapKind::OutputLimit => "produced more output, events or log than allowed",
            TrapKind::Exit => "called proc_exit",
            TrapKind::BadStatus => "returned a negative status",
            TrapKind::Other => "trapped",
        }
    }
}

/// The answer to a command: a pure function of the log, the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest did it; its answer.
    Ok(Vec<u8>),
    /// The guest said no and changed nothing; its reason.
    Rejected(Vec<u8>),
    /// The guest broke; the state is as if the command had never run.
    Trapped(TrapKind),
    /// A retry of a session's command: what was answered the first time.
    Duplicate(Box<Outcome>),
}

impl Outcome {
    /// Bytes of the guest's answer.
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Ok(bytes) | Outcome::Rejected(bytes) => bytes.len(),
            Outcome::Trapped(_) => 0,
            Outcome::Duplicate(first) => first.bytes(),
        }
    }
}

/// Something a guest emitted while it applied a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The guest's name for the kind of event.
    pub topic: Vec<u8>,
    /// The guest's bytes.
    pub data: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_has_one_name_everywhere() {
        for kind in TrapKind::ALL {
            let serialized = serde_json::to_value(kind).expect("plain data becomes JSON");
            assert_eq!(serialized, kind.name());
        }
    }
}
