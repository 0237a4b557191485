//! Whether the classes are there that allowances name. Only the active module's `classify` knows, of each command.

use std::collections::BTreeSet;

use super::{Entries, Plan, Progress, RehearsalError};
use crate::machine::{Machine, commands_of};
use crate::types::{EntryKind, Index, Position};

/// Classes that an error names.
const TOLD_MAX: usize = 64;

/// Has `old`, which is at the plan's base, name the classes of commands, until it has named all that are allowed.
/// A range without commands says nothing.
///
/// # Errors
///
/// One is of no command.
pub(super) fn check(
    old: &mut Machine,
    entries: &mut dyn Entries,
    plan: &Plan,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<(), RehearsalError> {
    let mut missing: BTreeSet<&str> = plan.classes.iter().map(String::as_str).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    if !old.names_classes() {
        return Err(RehearsalError::NoClasses((*first).to_owned()));
    }
    let (mut named, mut commands) = (BTreeSet::new(), 0_u64);
    let progress = Progress { index: plan.base, until: plan.until, commands: 0, differences: 0 };
    for index in plan.base.next().0..=plan.until.0 {
        let entry = entries.entry(Index(index))?;
        if !keep_going(progress) {
            return Err(RehearsalError::Cancelled);
        }
        if entry.kind != EntryKind::Normal {
            continue;
        }
        for (ordinal, held) in commands_of(entry.index, &entry.data)?.iter().enumerate() {
            commands += 1;
            let position = Position { index: entry.index, ordinal: ordinal as u32 };
            let Some(class) = old.class_of(position, held)? else { continue };
            missing.remove(&*class);
            if named.len() < TOLD_MAX {
                named.insert(class);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
    }
    match missing.first() {
        Some(unknown) if commands > 0 => Err(RehearsalError::UnknownClass {
            class: (*unknown).to_owned(),
            known: named.into_iter().collect(),
        }),
        _ => Ok(()),
    }
}
