//! What a new module makes of a state: at the beginning, and of its own at the end.

use std::time::Duration;

use bytes::Bytes;

use super::kind::Kind;
use super::report::Report;
use super::tally::{Tally, shown};
use crate::fsm::{Difference, HostFailure, Written};
use crate::machine::{Incumbent, Machine, Portable, Way};
use crate::types::{Index, ModuleHash};

/// A report that nothing has been found for yet.
pub(super) fn blank(
    old: &Machine,
    (module, way): (&Bytes, Way),
    replaces: Incumbent,
    until: Index,
) -> Report {
    Report {
        module: ModuleHash::of(module),
        replaces,
        way,
        base: old.applied_index(),
        until,
        commands: 0,
        counts: Vec::new(),
        differences: Vec::new(),
        fuel: Default::default(),
        memory: Default::default(),
        snapshot_before_bytes: 0,
        snapshot_bytes: 0,
        snapshot_fuel: 0,
        restore_fuel: 0,
        way_back: Err("the new module does not take over".to_owned()),
        names_classes: old.names_classes(),
        switch: Duration::ZERO,
    }
}

/// What the new module takes over, in words.
pub(super) fn measure_old(old: &mut Machine, report: &mut Report) -> Result<String, HostFailure> {
    Ok(match report.way {
        Way::Snapshot => match old.portable(Written::counted())? {
            Ok(portable) => {
                report.snapshot_before_bytes = portable.written.len();
                report.snapshot_fuel = portable.fuel_used;
                format!("a portable snapshot of {} bytes", portable.written.len())
            }
            Err(reason) => reason,
        },
        // The old module's `snapshot` may never end.
        Way::PortableState(state) => format!("the portable state {}", state.short()),
        Way::Image => format!("{} bytes of memory", old.guest_memory_bytes()),
    })
}

/// A machine in which the new module has taken over the state of `old`; `before` are the words for what it takes
/// over. `None`: it does not.
pub(super) fn migrate(
    old: &mut Machine,
    (module, label): (&Bytes, &str),
    before: &str,
    stopwatch: &dyn Fn() -> Duration,
    report: &mut Report,
    tally: &mut Tally,
) -> Result<Option<Machine>, HostFailure> {
    let begun = stopwatch();
    let migrated = old.successor(module, label, report.way)?;
    report.switch = stopwatch().saturating_sub(begun);
    let (mut new, migrated) = match migrated {
        Ok(migrated) => migrated,
        Err(reason) => {
            tally.add_general(Kind::Migration, before, reason);
            return Ok(None);
        }
    };
    report.restore_fuel = migrated.fuel_used.saturating_sub(report.snapshot_fuel);
    match new.portable(Written::counted())? {
        Ok(portable) => report.snapshot_bytes = portable.written.len(),
        Err(reason) => tally.add_general(Kind::Migration, before, reason),
    }
    Ok(Some(new))
}

/// The new module takes over its own state once more, and the old one takes it back.
pub(super) fn twice_and_back(
    new: &mut Machine,
    module: &Bytes,
    report: &mut Report,
    tally: &mut Tally,
) -> Result<(), HostFailure> {
    let once = match new.portable(Written::kept())? {
        Ok(portable) => portable.written.into_pile(),
        Err(reason) => {
            let words = format!("after index {}: {reason}", report.until);
            tally.add_general(Kind::Migration, "", words);
            return Ok(());
        }
    };
    let ours = format!("its own snapshot of {} bytes", once.len());
    match new.through(module, once.clone(), Written::compared_with(once.clone()))? {
        Err(reason) => tally.add_general(Kind::Migration, ours, reason),
        Ok(Portable { written, .. }) => {
            let bytes = written.len();
            if let Some(Difference { at, expected, found }) = written.into_difference() {
                let words = format!(
                    "`restore` or `snapshot` is not idempotent: restored and written again, it has {bytes} bytes \
                     and differs from byte {at} on ({} instead of {})",
                    words_of(&found),
                    words_of(&expected),
                );
                tally.add_general(Kind::Migration, ours, words);
            }
        }
    }
    let active = new.module_bytes(report.replaces.hash).expect("the active module is kept");
    report.way_back = new.through(&active, once, Written::counted())?.map(drop);
    Ok(())
}

/// Some bytes of a snapshot; none: it has ended there.
fn words_of(bytes: &[u8]) -> String {
    match bytes.is_empty() {
        true => "its end".to_owned(),
        false => shown(bytes),
    }
}
