//! Calls of guests that must succeed for an entry to do what it says.

use super::reply::Applied;
use crate::fsm::{Call, Context, Fsm, GuestResult, HostFailure, Limits, Pile, Trap, Written};
use crate::types::{Event, TrapKind};

/// Longest text of a guest that a reason quotes.
pub(super) const QUOTE_MAX_BYTES: usize = 1024;

/// The limits that end a call, by name.
pub(super) struct Budget {
    fuel: (&'static str, u64),
    output: Option<(&'static str, u64)>,
}

impl Budget {
    pub(super) fn init(limits: &Limits) -> Budget {
        Budget { fuel: ("init_fuel", limits.init_fuel), output: None }
    }

    pub(super) fn snapshot(limits: &Limits) -> Budget {
        let output = Some(("snapshot_max_bytes", limits.snapshot_max_bytes));
        Budget { fuel: ("snapshot_fuel", limits.snapshot_fuel), output }
    }

    pub(super) fn restore(limits: &Limits) -> Budget {
        Budget { fuel: ("restore_fuel", limits.restore_fuel), output: None }
    }

    /// What an operator may do about a trap; empty if it has nothing to do with a limit.
    fn hint(&self, kind: TrapKind) -> String {
        let spent = match kind {
            TrapKind::OutOfFuel => Some(self.fuel),
            TrapKind::OutputLimit => self.output,
            _ => None,
        };
        let hint = |(name, value): (&str, u64)| {
            format!(
                ": {name} is {value}, and `raft-host limits set {name}=...` allows more; while it \
                 runs, no command does"
            )
        };
        spent.map(hint).unwrap_or_default()
    }
}

/// Output and events of a call that must succeed, or why it did not.
pub(super) fn settle(
    what: &str,
    budget: Budget,
    call: Call,
    applied: &mut Applied,
) -> Result<(Vec<u8>, Vec<Event>), String> {
    applied.fuel_used = applied.fuel_used.saturating_add(call.fuel_used);
    match call.result {
        GuestResult::Ok(output) => Ok((output, call.events)),
        GuestResult::Rejected(reason) => {
            let quote = &reason[..reason.len().min(QUOTE_MAX_BYTES)];
            Err(format!("{what} refused: {}", String::from_utf8_lossy(quote)))
        }
        GuestResult::Trapped(Trap { kind, message }) => {
            applied.trap_message = Some(message);
            Err(format!("{what} {}{}", kind.describe(), budget.hint(kind)))
        }
    }
}

/// A guest's own portable snapshot.
pub(super) struct Portable {
    /// What the guest calls its format; empty: nothing.
    version: Vec<u8>,
    bytes: Pile,
}

/// Has the active module write its portable snapshot.
///
/// # Errors
/// [`HostFailure`]: the node must stop.
pub(super) fn portable_of(
    active: &mut dyn Fsm,
    context: Context,
    limits: &Limits,
    applied: &mut Applied,
) -> Result<Result<Portable, String>, HostFailure> {
    let call = active.state_version(context)?;
    let what = "`state_version` of the active module";
    let version = match settle(what, Budget::snapshot(limits), call, applied) {
        Ok((version, _)) => version,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut written = Written::kept();
    let call = active.snapshot_into(context, &mut written)?;
    let settled =
        settle("`snapshot` of the active module", Budget::snapshot(limits), call, applied);
    Ok(match settled {
        Ok(_) => Ok(Portable { version, bytes: written.into_pile() }),
        Err(reason) => Err(format!(
            "{reason}. If it can never succeed, `raft-host upgrade --discard-state` gives its state \
             up"
        )),
    })
}

/// Gives it to a fresh instance, which frees what it has read of it, and is asked first whether it reads that format. `applied` gets the events.
///
/// # Errors
/// [`HostFailure`]: the node must stop.
pub(super) fn restore_portable(
    fresh: &mut dyn Fsm,
    portable: Portable,
    context: Context,
    limits: &Limits,
    applied: &mut Applied,
) -> Result<Result<(), String>, HostFailure> {
    if !portable.version.is_empty() {
        let call = fresh.restores(context, &portable.version)?;
        let what = "`restores` of the new module";
        if let Err(reason) = settle(what, Budget::restore(limits), call, applied) {
            let version = String::from_utf8_lossy(&portable.version);
            return Ok(Err(format!(
                "{reason} (the state of the active module is of version {version:?})"
            )));
        }
    }
    restore_bytes(fresh, portable.bytes, context, limits, applied)
}

/// As [`restore_portable`], of a format that nobody has named.
///
/// # Errors
/// [`HostFailure`]: the node must stop.
pub(super) fn restore_bytes(
    fresh: &mut dyn Fsm,
    portable: Pile,
    context: Context,
    limits: &Limits,
    applied: &mut Applied,
) -> Result<Result<(), String>, HostFailure> {
    let call = fresh.restore_from(context, portable)?;
    let settled = settle("`restore` of the new module", Budget::restore(limits), call, applied);
    Ok(settled.map(|(_, events)| applied.events = events))
}
