//! Between what the public services speak of and what the node and the machine do.

use bytes::Bytes;
use raft_host_proto::v1;
use raft_host_proto::v1::Reason;

use super::failure::Failure;
use crate::fsm::{LimitChange, Limits};
use crate::machine::Incumbent;
use crate::node::{Command, SessionPosition};
use crate::types::{ClusterId, Index, ModuleHash, Origin, Outcome, Position, TrapKind};

/// A backup that the cluster was restored from.
pub(super) fn origin_to_wire(origin: &Origin) -> v1::Origin {
    v1::Origin {
        cluster_id: bytes(origin.cluster.0),
        index: origin.position.index.0,
        term: origin.position.term.0,
        time_ms: origin.time_ms,
    }
}

/// The command of a request.
pub(super) fn command_from_wire(request: &v1::ApplyRequest) -> Command {
    let session = request.session.as_ref().map(|session| {
        let v1::SessionCommand { session_id, sequence, acknowledged, skip } = *session;
        SessionPosition { session_id, sequence, acknowledged, skip }
    });
    Command { data: request.command.clone(), session }
}

/// How a command or a query ended.
pub(crate) fn outcome_to_wire(outcome: Outcome) -> v1::Outcome {
    use v1::outcome::Kind;
    let kind = match outcome {
        Outcome::Ok(bytes) => Kind::Ok(bytes.into()),
        Outcome::Rejected(bytes) => Kind::Rejected(bytes.into()),
        Outcome::Trapped(kind) => Kind::Trapped(trap_to_wire(kind).into()),
        Outcome::Duplicate(first) => {
            return v1::Outcome { duplicate: true, ..outcome_to_wire(*first) };
        }
    };
    v1::Outcome { kind: Some(kind), duplicate: false }
}

fn trap_to_wire(kind: TrapKind) -> v1::TrapKind {
    match kind {
        TrapKind::OutOfFuel => v1::TrapKind::OutOfFuel,
        TrapKind::StackOverflow => v1::TrapKind::StackOverflow,
        TrapKind::OutOfBounds => v1::TrapKind::OutOfBounds,
        TrapKind::Unreachable => v1::TrapKind::Unreachable,
        TrapKind::Arithmetic => v1::TrapKind::Arithmetic,
        TrapKind::BadCall => v1::TrapKind::BadCall,
        TrapKind::BadHostCall => v1::TrapKind::BadHostCall,
        TrapKind::OutputLimit => v1::TrapKind::OutputLimit,
        TrapKind::Exit => v1::TrapKind::Exit,
        TrapKind::BadStatus => v1::TrapKind::BadStatus,
        TrapKind::Other => v1::TrapKind::Other,
    }
}

macro_rules! mirrored_limits {
    ($($field:ident: $variant:ident),* $(,)?) => {
        /// The budgets of the guest.
        pub(crate) fn limits_to_wire(limits: &Limits) -> v1::Limits {
            let Limits { $($field),* } = limits;
            v1::Limits { $($field: *$field),* }
        }

        /// A change of one budget.
        fn change_from_wire(limit: v1::limit_change::Limit) -> LimitChange {
            match limit {
                $(v1::limit_change::Limit::$variant(value) => LimitChange::$variant(value),)*
            }
        }
    };
}

mirrored_limits! {
    apply_fuel: ApplyFuel,
    query_fuel: QueryFuel,
    init_fuel: InitFuel,
    snapshot_fuel: SnapshotFuel,
    restore_fuel: RestoreFuel,
    memory_max_bytes: MemoryMaxBytes,
    stack_max_bytes: StackMaxBytes,
    input_max_bytes: InputMaxBytes,
    output_max_bytes: OutputMaxBytes,
    snapshot_max_bytes: SnapshotMaxBytes,
    events_max: EventsMax,
    events_max_bytes: EventsMaxBytes,
    log_lines_max: LogLinesMax,
    module_max_bytes: ModuleMaxBytes,
    upgrade_keep_bytes: UpgradeKeepBytes,
    upgrade_keep_ms: UpgradeKeepMs,
    activation_fuel: ActivationFuel,
}

/// Changes of budgets.
///
/// # Errors
/// One of them is of a budget that this version does not know.
pub(crate) fn changes_from_wire(changes: &[v1::LimitChange]) -> Result<Vec<LimitChange>, String> {
    let change = |change: &v1::LimitChange| {
        let limit = change.limit.ok_or(
            "one of the changes is of a limit unknown to this version of raft-host".to_owned(),
        )?;
        Ok(change_from_wire(limit))
    };
    changes.iter().map(change).collect()
}

/// Where a command is.
pub(super) fn position_to_wire(position: Position) -> v1::Position {
    v1::Position { index: position.index.0, ordinal: position.ordinal }
}

/// The other way.
pub(super) fn incumbent_to_wire(incumbent: Incumbent) -> v1::Incumbent {
    v1::Incumbent { module_hash: bytes(incumbent.hash.0), activated_at: incumbent.activated_at.0 }
}

/// The hash of a module.
///
/// # Errors
/// It is none.
pub(super) fn module_from_wire(hash: &[u8]) -> Result<ModuleHash, Failure> {
    ModuleHash::try_from(hash).map_err(|error| {
        Failure::none(Reason::InvalidRequest, format!("the module's hash: {error}"))
    })
}

/// A module that is active, and since when.
///
/// # Errors
/// Its hash is none.
pub(super) fn incumbent_from_wire(wire: &v1::Incumbent) -> Result<Incumbent, Failure> {
    let hash = ModuleHash::try_from(&wire.module_hash[..]).map_err(|error| {
        Failure::none(Reason::InvalidRequest, format!("what is to be replaced: {error}"))
    })?;
    Ok(Incumbent { hash, activated_at: Index(wire.activated_at) })
}

/// The id of a cluster; `whose` says which, for the error.
///
/// # Errors
/// It has not 16 bytes.
pub(super) fn cluster_from_wire(whose: &str, wire: &[u8]) -> Result<ClusterId, Failure> {
    wire.try_into().map(ClusterId).map_err(|_| {
        let words = format!("{whose} must have 16 bytes, and has {}", wire.len());
        Failure::none(Reason::InvalidRequest, words)
    })
}

/// A hash or an id.
pub(super) fn bytes<const N: usize>(array: [u8; N]) -> Bytes {
    Bytes::copy_from_slice(&array)
}

/// Where a command stands in the log.
pub(super) fn index_of(response: &v1::ApplyResponse) -> u64 {
    response.position.as_ref().map_or(0, |position| position.index)
}

#[cfg(test)]
mod tests {
    use raft_host_proto::stored;

    use super::*;

    #[test]
    fn a_trap_has_the_same_number_everywhere() {
        for kind in TrapKind::ALL {
            assert_eq!(trap_to_wire(kind) as i32, i32::from(kind as u8));
            let stored = stored::TrapKind::try_from(i32::from(kind as u8)).expect("known");
            assert_eq!(stored.as_str_name(), trap_to_wire(kind).as_str_name());
        }
    }

    #[test]
    fn an_unknown_change_of_limits_is_refused_with_all_others() {
        let known = v1::LimitChange { limit: Some(v1::limit_change::Limit::EventsMax(7)) };
        assert_eq!(changes_from_wire(&[known]), Ok(vec![LimitChange::EventsMax(7)]));
        let unknown = v1::LimitChange { limit: None };
        assert!(changes_from_wire(&[known, unknown]).is_err());
    }

    #[test]
    fn a_duplicate_carries_the_first_answer() {
        let outcome = Outcome::Duplicate(Box::new(Outcome::Rejected(b"no".to_vec())));
        let wire = outcome_to_wire(outcome);
        assert!(wire.duplicate);
        assert_eq!(wire.kind, Some(v1::outcome::Kind::Rejected(b"no".to_vec().into())));
    }
}
