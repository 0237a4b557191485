//! What a machine of a rehearsal or a shadow does with an entry.

use bytes::Bytes;

use super::source::Next;
use crate::fsm::HostFailure;
use crate::machine::{Applied, BodyKind, Machine};
use crate::types::{EntryKind, LogEntry, Position};

/// Whose entry it is that is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of the machine that goes on as it is: everything happens as it did, so that an activation that
    /// succeeded is found.
    Old { in_range: bool },
    /// Of the machine with the new module, which was never activated.
    New,
}

impl Whose {
    /// What no guest sees is passed over.
    pub(super) fn skips(self, entry: &LogEntry) -> bool {
        use BodyKind as K;
        if entry.kind == EntryKind::ConfChange {
            return true;
        }
        match BodyKind::of(&entry.data) {
            K::DigestPoint | K::DigestVerdict => true,
            K::SetEngine => self != Whose::Old { in_range: false },
            K::ModuleChunk
            | K::ActivateModule
            | K::ForkState
            | K::RecordReceipt
            | K::SettleUpgrade => self == Whose::New,
            K::Nothing
            | K::Command
            | K::OpenSession
            | K::CloseSession
            | K::KeepSession
            | K::SetLimits
            | K::SetClock
            | K::SetLevel
            | K::SetKeys
            | K::SetAccess
            | K::Unknown => false,
        }
    }
}

/// Has a machine take an entry, or pass it over.
pub(super) fn take(
    machine: &mut Machine,
    Next { entry, members }: &Next,
    whose: Whose,
    on_answer: &mut dyn FnMut(Position, Applied),
) -> Result<(), HostFailure> {
    if let Some((change, conf_state)) = members {
        machine.apply_membership(entry.index, change, conf_state.clone());
        return Ok(());
    }
    match whose.skips(entry) {
        true => {
            // A change of members is encoded otherwise, and has no time.
            let nothing = Bytes::new();
            let is_normal = entry.kind == EntryKind::Normal;
            machine.skip(entry.index, if is_normal { &entry.data } else { &nothing });
            Ok(())
        }
        false => machine.apply(entry.index, &entry.data, on_answer),
    }
}
