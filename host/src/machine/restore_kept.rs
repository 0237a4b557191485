//! Reading what a snapshot holds of the past: states that are kept, and the commands since.

use std::io::Read;

use raft_host_proto::stored;

use super::core::State;
use super::kept::{Commands, Executed, Fork, Kept};
use super::records;
use super::restore::{RestoreError, invalid, module_hash, read_image};
use crate::fsm::{Limits, SharedLoader};
use crate::museum::{self, Exhibit};
use crate::types::{Index, Position, StateDigest};

/// More than what encoding adds to a command and its answer.
const OVERHEAD_BYTES: u64 = 1024;

impl State {
    /// Reads what follows the active module's image.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub(super) fn read_kept(
        &mut self,
        input: &mut dyn Read,
        header: &stored::SnapshotHeader,
        loader: &SharedLoader,
    ) -> Result<(), RestoreError> {
        let active = self.modules.active().map(|active| active.hash);
        if let Some(record) = &header.kept {
            let kept = self.read_one(input, record, loader)?;
            if self.modules.previous != Some(kept.module) || kept.activated_at() > self.applied {
                return Err(invalid("its way back leads to no module that was there before"));
            }
            if !record.next_module.is_empty() {
                return Err(invalid("its way back says that a module is to take over"));
            }
            self.kept = Some(kept);
        }
        if let Some(record) = &header.fork {
            let kept = self.read_one(input, record, loader)?;
            let next = module_hash(&record.next_module)?;
            if active != Some(kept.module) {
                return Err(invalid("its fork is not of the active module"));
            }
            if self.modules.bytes(next).is_none() {
                return Err(invalid("the module that is to take over from its fork is missing"));
            }
            self.fork = Some(Fork { kept, next });
            self.modules.taking_over = Some(next);
        }
        Ok(())
    }

    fn read_one(
        &self,
        input: &mut dyn Read,
        record: &stored::SnapshotKept,
        loader: &SharedLoader,
    ) -> Result<Kept, RestoreError> {
        let digest = |bytes: &[u8]| {
            StateDigest::try_from(bytes)
                .map_err(|error| invalid(format!("a digest of what it keeps: {error}")))
        };
        let (module, guest) = (module_hash(&record.module_hash)?, digest(&record.guest_digest)?);
        let index = Index(record.index);
        if index > self.applied
            || record.time_ms > self.time_ms
            || record.expires_ms <= self.time_ms
            || record.command_bytes > self.limits.upgrade_keep_bytes
        {
            return Err(invalid("what it keeps of the past makes no sense"));
        }
        let mut fsm = read_image(input, self, module, loader)?;
        if fsm.digest()?.digest != guest {
            return Err(invalid(format!(
                "the state of module {} after entry {index} is not the one that was kept",
                module.short()
            )));
        }
        let image = fsm.capture()?.into();
        let commands = match museum::is_on(Exhibit::KeptNotInSnapshot) {
            true => Commands::default(),
            false => self.read_commands(input, record)?,
        };
        let (time_ms, expires_ms) = (record.time_ms, record.expires_ms);
        Ok(Kept { module, index, time_ms, expires_ms, image, guest, commands })
    }

    fn read_commands(
        &self,
        input: &mut dyn Read,
        record: &stored::SnapshotKept,
    ) -> Result<Commands, RestoreError> {
        let max = Limits::INPUT_CEILING_BYTES + Limits::OUTPUT_CEILING_BYTES + OVERHEAD_BYTES;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (mut commands, mut before) = (Commands::default(), None);
        let (mut before_ms, begin) = (0, Position::first(Index(record.index).next()));
        for _ in 0..record.command_count {
            let executed = Executed::from_record(records::read_message(input, max)?);
            let executed = executed.map_err(invalid)?;
            let (position, time_ms) = (executed.position, executed.time_ms);
            let in_order = before.is_none_or(|before| before < position)
                && position >= begin
                && position.index <= self.applied
                && before_ms <= time_ms
                && time_ms <= self.time_ms;
            if !in_order {
                return Err(invalid(format!("a command at {position} that is out of order")));
            }
            (before, before_ms) = (Some(position), time_ms);
            commands.push(executed.into());
            if commands.bytes() > record.command_bytes {
                break;
            }
        }
        let as_said = commands.len() == record.command_count
            && commands.bytes() == record.command_bytes
            && commands.digest().0[..] == record.commands_digest[..];
        match as_said {
            true => Ok(commands),
            false => Err(invalid("the commands that it keeps are others than it says")),
        }
    }
}
