//! Between the vocabulary of `types` and `fsm` and the records that snapshots hold.

use raft_host_proto::stored;

use super::sessions::SessionLimits;
use crate::fsm::{LimitChange, Limits};
use crate::types::{
    ClusterId, ConfState, Index, LogPosition, NodeId, Origin, Outcome, Term, TrapKind,
};

/// Stores an outcome; what is stored is never a duplicate.
pub(super) fn outcome_to_record(outcome: &Outcome) -> stored::Outcome {
    use stored::outcome::Kind;
    let kind = match outcome {
        Outcome::Ok(bytes) => Kind::Ok(bytes.clone().into()),
        Outcome::Rejected(bytes) => Kind::Rejected(bytes.clone().into()),
        Outcome::Trapped(kind) => Kind::Trapped(i32::from(*kind as u8)),
        Outcome::Duplicate(_) => unreachable!("a duplicate is answered, not stored"),
    };
    stored::Outcome { kind: Some(kind) }
}

/// Reads what `outcome_to_record` made; `None` for anything else.
pub(super) fn outcome_from_record(record: &stored::Outcome) -> Option<Outcome> {
    use stored::outcome::Kind;
    match record.kind.as_ref()? {
        Kind::Ok(bytes) => Some(Outcome::Ok(bytes.to_vec())),
        Kind::Rejected(bytes) => Some(Outcome::Rejected(bytes.to_vec())),
        Kind::Trapped(kind) => {
            Some(Outcome::Trapped(TrapKind::from_u8(u8::try_from(*kind).ok()?)?))
        }
    }
}

macro_rules! mirror {
    ($to:ident, $from:ident, $ours:ident, $record:ident, { $($field:ident),* $(,)? }) => {
        /// As a message.
        pub(super) fn $to(ours: &$ours) -> stored::$record {
            let $ours { $($field),* } = ours;
            stored::$record { $($field: *$field),* }
        }

        /// From a message.
        pub(super) fn $from(record: &stored::$record) -> $ours {
            let stored::$record { $($field),* } = record;
            $ours { $($field: *$field),* }
        }
    };
}

mirror!(limits_to_record, limits_from_record, Limits, Limits, {
    apply_fuel, query_fuel, init_fuel, snapshot_fuel, restore_fuel, memory_max_bytes,
    stack_max_bytes, input_max_bytes, output_max_bytes, snapshot_max_bytes, events_max,
    events_max_bytes, log_lines_max, module_max_bytes, upgrade_keep_bytes, upgrade_keep_ms,
    activation_fuel,
});

macro_rules! limit_changes {
    ($($variant:ident),* $(,)?) => {
        /// As entries hold it.
        pub(crate) fn limit_change_to_log(change: LimitChange) -> stored::LimitChange {
            use stored::limit_change::Limit;
            let limit = match change {
                $(LimitChange::$variant(value) => Limit::$variant(value),)*
            };
            stored::LimitChange { limit: Some(limit) }
        }

        /// From an entry; `None` for one that this version does not know.
        fn limit_change_from_log(change: &stored::LimitChange) -> Option<LimitChange> {
            use stored::limit_change::Limit;
            Some(match change.limit? {
                $(Limit::$variant(value) => LimitChange::$variant(value),)*
            })
        }
    };
}

limit_changes! {
    ApplyFuel, QueryFuel, InitFuel, SnapshotFuel, RestoreFuel, MemoryMaxBytes, StackMaxBytes,
    InputMaxBytes, OutputMaxBytes, SnapshotMaxBytes, EventsMax, EventsMaxBytes, LogLinesMax,
    ModuleMaxBytes, UpgradeKeepBytes, UpgradeKeepMs, ActivationFuel,
}

/// The limits that a node of this version would have after `changes`; `None` if it does not know
/// one of them.
pub(super) fn changed_limits(limits: &Limits, changes: &[stored::LimitChange]) -> Option<Limits> {
    let changes: Option<Vec<_>> = changes.iter().map(limit_change_from_log).collect();
    Some(limits.changed(&changes?))
}

mirror!(
    session_limits_to_record, session_limits_from_record, SessionLimits, SnapshotSessionLimits, {
    sessions_max, ttl_default_ms, ttl_min_ms, ttl_max_ms, responses_max, responses_max_bytes,
    total_max_bytes,
});

pub(super) fn conf_state_to_record(conf_state: &ConfState) -> stored::SnapshotConfState {
    let ids = |set: &std::collections::BTreeSet<NodeId>| set.iter().map(|id| id.0).collect();
    stored::SnapshotConfState {
        voters: ids(&conf_state.voters),
        learners: ids(&conf_state.learners),
        voters_outgoing: ids(&conf_state.voters_outgoing),
        learners_next: ids(&conf_state.learners_next),
        auto_leave: conf_state.auto_leave,
    }
}

pub(super) fn conf_state_from_record(record: &stored::SnapshotConfState) -> ConfState {
    let ids = |list: &[u64]| list.iter().copied().map(NodeId).collect();
    ConfState {
        voters: ids(&record.voters),
        learners: ids(&record.learners),
        voters_outgoing: ids(&record.voters_outgoing),
        learners_next: ids(&record.learners_next),
        auto_leave: record.auto_leave,
    }
}

/// As snapshots hold it.
pub(super) fn origin_to_record(origin: &Origin) -> stored::SnapshotOrigin {
    stored::SnapshotOrigin {
        cluster_id: origin.cluster.0.to_vec().into(),
        index: origin.position.index.0,
        term: origin.position.term.0,
        time_ms: origin.time_ms,
    }
}

/// Reads what [`origin_to_record`] made.
pub(super) fn origin_from_record(record: &stored::SnapshotOrigin) -> Result<Origin, String> {
    let cluster = ClusterId::try_from(&record.cluster_id[..]).map_err(|error| error.to_string())?;
    let position = LogPosition { index: Index(record.index), term: Term(record.term) };
    Ok(Origin { cluster, position, time_ms: record.time_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_their_record_and_nonsense_is_refused() {
        for outcome in [
            Outcome::Ok(Vec::new()),
            Outcome::Rejected(b"no".to_vec()),
            Outcome::Trapped(TrapKind::Other),
        ] {
            assert_eq!(outcome_from_record(&outcome_to_record(&outcome)), Some(outcome));
        }
        let trapped = |kind| stored::Outcome { kind: Some(stored::outcome::Kind::Trapped(kind)) };
        for nonsense in [0, -1, 12, 257] {
            assert_eq!(outcome_from_record(&trapped(nonsense)), None);
        }
        assert_eq!(outcome_from_record(&stored::Outcome::default()), None);
    }

    #[test]
    fn limits_and_configurations_survive_their_records() {
        let limits = Limits { apply_fuel: 1, log_lines_max: 2, ..Limits::default() };
        assert_eq!(limits_from_record(&limits_to_record(&limits)), limits);
        let sessions = SessionLimits::default();
        assert_eq!(session_limits_from_record(&session_limits_to_record(&sessions)), sessions);
        let conf_state = ConfState {
            voters: [NodeId(1), NodeId(3)].into(),
            learners: [NodeId(4)].into(),
            voters_outgoing: [NodeId(2)].into(),
            learners_next: [NodeId(2)].into(),
            auto_leave: true,
        };
        assert_eq!(conf_state_from_record(&conf_state_to_record(&conf_state)), conf_state);
    }

    #[test]
    fn changes_are_taken_in_order_and_an_unknown_one_spoils_them_all() {
        use LimitChange as Limit;
        let before = Limits::default();
        assert_eq!(changed_limits(&before, &[]), Some(before.clone()));
        let changes = [Limit::ApplyFuel(1), Limit::EventsMax(2), Limit::ApplyFuel(3)]
            .map(limit_change_to_log)
            .to_vec();
        let expected = Limits { apply_fuel: 3, events_max: 2, ..before.clone() };
        assert_eq!(changed_limits(&before, &changes), Some(expected));
        let unknown = [changes, vec![stored::LimitChange { limit: None }]].concat();
        assert_eq!(changed_limits(&before, &unknown), None);
    }
}
