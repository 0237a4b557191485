//! What is told of each failure.

use super::*;
use crate::types::check_address;

const FULL: Exceeded = Exceeded { limit: "node.max_inflight_bytes", value: 2, max: 1 };

#[test]
fn a_failure_survives_the_wire_and_an_unlabelled_one_may_have_happened() {
    for effect in [Effect::None, Effect::Unknown] {
        let leader = Member { id: NodeId(2), address: "b:1".into() };
        let failure = Failure::new(Reason::MemberAlive, effect, "why".into());
        let failure = failure.led_by(&leader, 7).about(9).exceeding(Exceeded {
            limit: "x",
            value: 2,
            max: 1,
        });
        assert_eq!(Failure::from_status(&failure.clone().into_status()), failure);
        assert_eq!(Failure::from_apply_error(failure.clone().into_apply_error()), failure);
    }
    let broken = Failure::from_status(&Status::unknown("h2 protocol error"));
    assert_eq!((broken.code(), broken.effect()), (Code::Unavailable, Effect::Unknown));
    let late = Failure::from_status(&Status::cancelled("Timeout expired"));
    assert_eq!((late.code(), late.effect()), (Code::DeadlineExceeded, Effect::Unknown));
}

#[test]
fn a_reason_of_a_later_version_stands_for_its_code() {
    let detail = ErrorDetail { reason: 1_999, effect: Effect::None.into(), ..Default::default() };
    let trailer = detail.to_trailer(Code::InvalidArgument, "later");
    let status = Status::with_details(Code::InvalidArgument, "later", trailer);
    let failure = Failure::from_status(&status);
    assert_eq!(failure.code(), Code::InvalidArgument);
    assert_eq!((failure.effect(), failure.message()), (Effect::None, "later"));
}

#[test]
fn only_a_certain_failure_is_worth_rerouting() {
    assert!(Failure::from(ProposeFailure::NotLeader(None)).worth_rerouting());
    assert!(Failure::from(ProposeFailure::Superseded).worth_rerouting());
    assert!(Failure::from(ProposeFailure::Stopping).worth_rerouting());
    assert!(!Failure::from(ProposeFailure::Unknown("?".into())).worth_rerouting());
    assert!(!Failure::from(ProposeFailure::Busy(FULL)).worth_rerouting());
}

#[test]
fn each_kind_of_failure_has_its_reason_and_effect() {
    let cases: [(Failure, Reason, Effect); 22] = [
        (ProposeFailure::Busy(FULL).into(), Reason::Busy, Effect::None),
        (ProposeFailure::TooLarge { bytes: 2, max: 1 }.into(), Reason::TooLarge, Effect::None),
        (ProposeFailure::Unknown("?".into()).into(), Reason::LeaderReplaced, Effect::Unknown),
        (
            ProposeFailure::from(ConfChangeError::LastVoter(NodeId(1))).into(),
            Reason::LastVoter,
            Effect::None,
        ),
        (
            ProposeFailure::from(ConfChangeError::NotAMember(NodeId(1))).into(),
            Reason::NoSuchMember,
            Effect::None,
        ),
        (CommandRefused::SessionExpired.into(), Reason::SessionExpired, Effect::Unknown),
        (CommandRefused::SequenceTooOld.into(), Reason::SequenceTooOld, Effect::Unknown),
        (CommandRefused::Malformed("?".into()).into(), Reason::InvalidRequest, Effect::None),
        (
            MembershipFailure::from(check_address("?").unwrap_err()).into(),
            Reason::InvalidRequest,
            Effect::None,
        ),
        (
            MembershipFailure::TransferTimedOut("?".into()).into(),
            Reason::TransferFailed,
            Effect::None,
        ),
        (
            CommandRefused::SessionFull { responses: 1, bytes: 2, exceeded: FULL }.into(),
            Reason::SessionFull,
            Effect::None,
        ),
        (CommandRefused::TooManySessions { max: 1 }.into(), Reason::TooManySessions, Effect::None),
        (
            CommandRefused::SequenceReused { sequence: 1 }.into(),
            Reason::SequenceReused,
            Effect::None,
        ),
        (MembershipFailure::IdWasUsed(NodeId(1)).into(), Reason::IdTaken, Effect::None),
        (UpgradeFailure::NotActivated("?".into()).into(), Reason::ModuleNotActivated, Effect::None),
        (
            UpgradeFailure::Superseded { replaces: None, active: None }.into(),
            Reason::IncumbentChanged,
            Effect::None,
        ),
        (LimitsFailure::Invalid("?".into()).into(), Reason::InvalidRequest, Effect::None),
        (LimitsFailure::Refused("?".into()).into(), Reason::LimitsRefused, Effect::None),
        (
            LimitsFailure::from(ProposeFailure::Unknown("?".into())).into(),
            Reason::LeaderReplaced,
            Effect::Unknown,
        ),
        (ClockFailure::Invalid(7).into(), Reason::InvalidRequest, Effect::None),
        (ClockFailure::Refused("?".into()).into(), Reason::ClockRefused, Effect::None),
        (Failure::no_module(), Reason::NoModule, Effect::None),
    ];
    for (failure, reason, effect) in cases {
        assert_eq!((failure.reason(), failure.effect()), (reason, effect), "{failure:?}");
    }
}

/// The bound that every failure has whose words speak of one.
#[test]
fn a_failure_at_a_bound_names_it() {
    let far = NodeId(u64::MAX);
    let (session, sessions) = (
        Exceeded { limit: "responses_max", value: 5, max: 4 },
        CommandRefused::SessionsFull { bytes: 9, max: 8 },
    );
    let long = check_address(&"a".repeat(ADDRESS_MAX_BYTES + 1)).unwrap_err();
    let cases: [(Failure, Reason, &str, u64, u64); 15] = [
        (ProposeFailure::Busy(FULL).into(), Reason::Busy, FULL.limit, 2, 1),
        (QueryFailure::Busy(FULL).into(), Reason::Busy, FULL.limit, 2, 1),
        (
            ProposeFailure::TooLarge { bytes: 2, max: 1 }.into(),
            Reason::TooLarge,
            "node.max_entry_bytes",
            2,
            1,
        ),
        (
            ProposeFailure::BatchSize { commands: 3, max: 2 }.into(),
            Reason::InvalidRequest,
            "batch_commands_max",
            3,
            2,
        ),
        (
            ProposeFailure::from(ConfChangeError::TooManyMembers { members: 257 }).into(),
            Reason::TooManyMembers,
            "members_max",
            257,
            256,
        ),
        (
            ProposeFailure::from(ConfChangeError::IdTooHigh(far)).into(),
            Reason::InvalidRequest,
            "node_id_max",
            u64::MAX,
            NodeId::HIGHEST.0,
        ),
        (
            ProposeFailure::from(ConfChangeError::BadAddress { id: far, error: long.clone() })
                .into(),
            Reason::InvalidRequest,
            "address_max_bytes",
            260,
            259,
        ),
        (
            MembershipFailure::from(long).into(),
            Reason::InvalidRequest,
            "address_max_bytes",
            260,
            259,
        ),
        (
            MembershipFailure::IdTooFar { id: NodeId(9), next: NodeId(1), max: 8 }.into(),
            Reason::InvalidRequest,
            "node_id_max",
            9,
            8,
        ),
        (
            ClockFailure::Invalid(TIME_MAX_MS + 1).into(),
            Reason::InvalidRequest,
            "time_max_ms",
            TIME_MAX_MS + 1,
            TIME_MAX_MS,
        ),
        (
            CommandRefused::TooLarge { bytes: 2, max: 1 }.into(),
            Reason::TooLarge,
            "input_max_bytes",
            2,
            1,
        ),
        (
            CommandRefused::SessionFull { responses: 4, bytes: 7, exceeded: session }.into(),
            Reason::SessionFull,
            "responses_max",
            5,
            4,
        ),
        (sessions.into(), Reason::SessionsFull, "sessions_max_bytes", 9, 8),
        (
            CommandRefused::TooManySessions { max: 3 }.into(),
            Reason::TooManySessions,
            "sessions_max",
            4,
            3,
        ),
        (
            Failure::of_library(
                &Status::out_of_range(
                    "Error, decoded message length too large: found 6 bytes, the limit is: 5 bytes",
                ),
                Effect::None,
            ),
            Reason::TooLarge,
            "api.max_message_bytes",
            6,
            5,
        ),
    ];
    for (failure, reason, limit, value, max) in cases {
        assert_eq!(failure.reason(), reason, "{failure:?}");
        let limit = limit.to_owned();
        assert_eq!(failure.detail.exceeded, Some(v1::Exceeded { limit, value, max }));
    }
    let empty = Failure::from(ProposeFailure::BatchSize { commands: 0, max: 2 });
    assert_eq!(empty.detail.exceeded, None, "too few are not too many");
}
