//! What goes wrong, as clients see it: a gRPC code, words, and whether it had an effect.

use raft_host_proto::v1::{self, Effect};
use raft_host_proto::{
    EFFECT_KEY, EFFECT_NONE, EFFECT_UNKNOWN, SEQUENCE_TOO_OLD_CODE, SESSION_EXPIRED_CODE,
};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::convert::outcome_to_wire;
use crate::consensus::ConfChangeError;
use crate::machine::{CommandRefused, Reply};
use crate::node::{
    ClockFailure, Committed, EngineFailure, LimitsFailure, MembershipFailure, ProposeFailure,
    QueryFailure, UpgradeFailure,
};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) effect: Effect,
}

impl Failure {
    /// It surely changed nothing.
    pub(super) fn none(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), effect: Effect::None }
    }

    /// It may have changed something.
    pub(super) fn unknown(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), effect: Effect::Unknown }
    }

    pub(super) fn no_module() -> Failure {
        Failure::none(
            Code::FailedPrecondition,
            "the cluster runs no module yet: give it one with `raft-host upgrade FILE`",
        )
    }

    /// The leader that was asked is none any more, and has not answered.
    pub(super) fn replaced() -> Failure {
        Failure::unknown(
            Code::Unavailable,
            "another leader was elected before the one that this was passed to has answered; it \
             may have been done, or may still be",
        )
    }

    /// As the end of a request of which an earlier attempt may have happened.
    pub(super) fn in_doubt(self, is_in_doubt: bool) -> Failure {
        let effect = if is_in_doubt { Effect::Unknown } else { self.effect };
        Failure { effect, ..self }
    }

    /// Whether another node, or the same one a little later, may well do it.
    pub(super) fn worth_rerouting(&self) -> bool {
        self.code == Code::Unavailable && self.effect == Effect::None
    }

    pub(super) fn into_status(self) -> Status {
        let mut status = Status::new(self.code, self.message);
        let effect = match self.effect {
            Effect::None => EFFECT_NONE,
            Effect::Unknown => EFFECT_UNKNOWN,
        };
        status.metadata_mut().insert(EFFECT_KEY, MetadataValue::from_static(effect));
        status
    }

    /// What another node said, or what became of the way to it.
    pub(super) fn from_status(status: &Status) -> Failure {
        let said = status.metadata().get(EFFECT_KEY);
        let effect = match said.map(|value| value.as_encoded_bytes()) {
            Some(said) if said == EFFECT_NONE.as_bytes() => Effect::None,
            Some(_) => Effect::Unknown,
            None if never_connected(status) => Effect::None,
            None => Effect::Unknown,
        };
        match (said, status.code()) {
            (Some(_), code) => Failure { code, message: status.message().to_owned(), effect },
            (None, Code::Cancelled | Code::DeadlineExceeded) => Failure {
                code: Code::DeadlineExceeded,
                message: "the leader did not answer in time".to_owned(),
                effect,
            },
            (None, Code::Unavailable | Code::Unknown | Code::Internal) => Failure {
                code: Code::Unavailable,
                message: format!("the connection to the leader failed: {}", status.message()),
                effect,
            },
            (None, code) => Failure { code, message: status.message().to_owned(), effect },
        }
    }

    pub(super) fn into_apply_error(self) -> v1::ApplyError {
        v1::ApplyError { code: self.code as i32, message: self.message, effect: self.effect.into() }
    }

    pub(super) fn from_apply_error(error: v1::ApplyError) -> Failure {
        let effect = error.effect();
        Failure { code: Code::from(error.code), message: error.message, effect }
    }
}

/// Whether the request never left this node.
fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        failure.into_status()
    }
}

impl From<ProposeFailure> for Failure {
    fn from(failure: ProposeFailure) -> Failure {
        let code = match &failure {
            ProposeFailure::NotLeader(_)
            | ProposeFailure::Superseded
            | ProposeFailure::Stopping
            | ProposeFailure::Quarantined
            | ProposeFailure::InDoubt
            | ProposeFailure::Unconfirmed
            | ProposeFailure::Unknown(_) => Code::Unavailable,
            ProposeFailure::Busy => Code::ResourceExhausted,
            ProposeFailure::TooLarge { .. } | ProposeFailure::BatchSize { .. } => {
                Code::InvalidArgument
            }
            ProposeFailure::ConfChange(error) => match error {
                ConfChangeError::NotAMember(_) => Code::NotFound,
                ConfChangeError::AlreadyAMember(_) | ConfChangeError::AlreadyAVoter(_) => {
                    Code::AlreadyExists
                }
                ConfChangeError::NamedTwice(_)
                | ConfChangeError::ZeroId
                | ConfChangeError::StrangeJoin(_)
                | ConfChangeError::IdTooHigh(_)
                | ConfChangeError::BadAddress { .. }
                | ConfChangeError::Empty => Code::InvalidArgument,
                ConfChangeError::InProgress
                | ConfChangeError::JustElected
                | ConfChangeError::NoQuorum(_)
                | ConfChangeError::NotHeardFrom(_)
                | ConfChangeError::TooManyMembers
                | ConfChangeError::LastVoter(_)
                | ConfChangeError::NotCaughtUp { .. } => Code::FailedPrecondition,
            },
        };
        let effect = if failure.surely_not_applied() { Effect::None } else { Effect::Unknown };
        Failure { code, message: failure.to_string(), effect }
    }
}

impl From<MembershipFailure> for Failure {
    fn from(failure: MembershipFailure) -> Failure {
        let code = match failure {
            MembershipFailure::Propose(failure) => return failure.into(),
            MembershipFailure::IdInUse { .. } | MembershipFailure::IdWasUsed(_) => {
                Code::AlreadyExists
            }
            MembershipFailure::BadAddress(_) | MembershipFailure::IdTooFar { .. } => {
                Code::InvalidArgument
            }
            MembershipFailure::NoState => Code::Unavailable,
            // It passes if it is what is left of the member; asking again stops nobody.
            MembershipFailure::AddressAlive { .. } => Code::Aborted,
            // Not `Unavailable` or `Aborted`: trying again by itself would stop all writes again
            // for as long.
            MembershipFailure::TransferTimedOut(_)
            | MembershipFailure::AnotherLeads { .. }
            | MembershipFailure::Silent { .. }
            | MembershipFailure::AllSilent
            | MembershipFailure::AddressInUse { .. }
            | MembershipFailure::NotAVoter(_)
            | MembershipFailure::NoOtherVoter => Code::FailedPrecondition,
        };
        Failure::none(code, failure.to_string())
    }
}

impl From<UpgradeFailure> for Failure {
    fn from(failure: UpgradeFailure) -> Failure {
        let code = match failure {
            UpgradeFailure::Propose(failure) => return failure.into(),
            UpgradeFailure::Refused(_) => Code::InvalidArgument,
            // Not `Aborted`, which is tried again: only people know whether it is still wanted.
            UpgradeFailure::NotActivated(_) | UpgradeFailure::Superseded { .. } => {
                Code::FailedPrecondition
            }
            UpgradeFailure::Host(_) => Code::Internal,
        };
        Failure::none(code, failure.to_string())
    }
}

impl From<LimitsFailure> for Failure {
    fn from(failure: LimitsFailure) -> Failure {
        let code = match failure {
            LimitsFailure::Propose(failure) => return failure.into(),
            LimitsFailure::Invalid(_) => Code::InvalidArgument,
            LimitsFailure::Refused(_) => Code::FailedPrecondition,
        };
        Failure::none(code, failure.to_string())
    }
}

impl From<EngineFailure> for Failure {
    fn from(failure: EngineFailure) -> Failure {
        let code = match failure {
            EngineFailure::Propose(failure) => return failure.into(),
            EngineFailure::Invalid(_) => Code::InvalidArgument,
            EngineFailure::Unconfirmed { .. } => Code::FailedPrecondition,
        };
        Failure::none(code, failure.to_string())
    }
}

impl From<ClockFailure> for Failure {
    fn from(failure: ClockFailure) -> Failure {
        let code = match failure {
            ClockFailure::Propose(failure) => return failure.into(),
            ClockFailure::Invalid(_) => Code::InvalidArgument,
            ClockFailure::Refused(_) => Code::FailedPrecondition,
        };
        Failure::none(code, failure.to_string())
    }
}

impl From<QueryFailure> for Failure {
    fn from(failure: QueryFailure) -> Failure {
        let code = match failure {
            QueryFailure::Busy => Code::ResourceExhausted,
            QueryFailure::Stopping
            | QueryFailure::Stopped
            | QueryFailure::Quarantined
            | QueryFailure::InDoubt
            | QueryFailure::Unconfirmed => Code::Unavailable,
        };
        Failure::none(code, failure.to_string())
    }
}

impl From<CommandRefused> for Failure {
    fn from(refused: CommandRefused) -> Failure {
        let code = match refused {
            CommandRefused::SessionExpired => SESSION_EXPIRED_CODE,
            CommandRefused::SequenceTooOld => SEQUENCE_TOO_OLD_CODE,
            CommandRefused::SessionFull { .. }
            | CommandRefused::SessionsFull { .. }
            | CommandRefused::TooManySessions { .. } => Code::ResourceExhausted,
            CommandRefused::SequenceReused { .. }
            | CommandRefused::TooLarge { .. }
            | CommandRefused::Malformed(_) => Code::InvalidArgument,
        };
        let effect = if refused.surely_not_applied() { Effect::None } else { Effect::Unknown };
        Failure { code, message: refused.to_string(), effect }
    }
}

/// The machine's answer to a command, as the client sees it.
pub(super) fn apply_response(committed: Committed) -> Result<v1::ApplyResponse, Failure> {
    match committed.reply {
        Reply::Command(outcome) => Ok(v1::ApplyResponse {
            outcome: Some(outcome_to_wire(outcome)),
            position: Some(v1::Position {
                index: committed.position.index.0,
                ordinal: committed.position.ordinal,
            }),
            fuel_used: committed.fuel_used,
            trap_message: committed.trap_message.unwrap_or_default(),
            term: committed.term.0,
            pages_dirtied: committed.pages_dirtied,
            apply_duration_ns: u64::try_from(committed.apply_duration.as_nanos())
                .unwrap_or(u64::MAX),
        }),
        Reply::NoModule => Err(Failure::no_module()),
        Reply::Refused(refused) => Err(refused.into()),
        other => Err(unexpected(&other)),
    }
}

/// An answer that does not belong to what was asked.
pub(super) fn unexpected(reply: &Reply) -> Failure {
    Failure::unknown(Code::Internal, format!("unexpected answer of the machine: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, check_address};

    #[test]
    fn a_failure_survives_the_wire_and_an_unlabelled_one_may_have_happened() {
        for effect in [Effect::None, Effect::Unknown] {
            let failure = Failure { code: Code::Aborted, message: "why".into(), effect };
            assert_eq!(Failure::from_status(&failure.clone().into_status()), failure);
            assert_eq!(Failure::from_apply_error(failure.clone().into_apply_error()), failure);
        }
        let broken = Failure::from_status(&Status::unknown("h2 protocol error"));
        assert_eq!((broken.code, broken.effect), (Code::Unavailable, Effect::Unknown));
        let late = Failure::from_status(&Status::cancelled("Timeout expired"));
        assert_eq!((late.code, late.effect), (Code::DeadlineExceeded, Effect::Unknown));
    }

    #[test]
    fn only_a_certain_failure_is_worth_rerouting() {
        assert!(Failure::from(ProposeFailure::NotLeader(None)).worth_rerouting());
        assert!(Failure::from(ProposeFailure::Superseded).worth_rerouting());
        assert!(Failure::from(ProposeFailure::Stopping).worth_rerouting());
        assert!(!Failure::from(ProposeFailure::Unknown("?".into())).worth_rerouting());
        assert!(!Failure::from(ProposeFailure::Busy).worth_rerouting());
    }

    #[test]
    fn each_kind_of_failure_has_its_code_and_effect() {
        let cases: [(Failure, Code, Effect); 22] = [
            (ProposeFailure::Busy.into(), Code::ResourceExhausted, Effect::None),
            (
                ProposeFailure::TooLarge { bytes: 2, max: 1 }.into(),
                Code::InvalidArgument,
                Effect::None,
            ),
            (ProposeFailure::Unknown("?".into()).into(), Code::Unavailable, Effect::Unknown),
            (
                ProposeFailure::from(ConfChangeError::LastVoter(NodeId(1))).into(),
                Code::FailedPrecondition,
                Effect::None,
            ),
            (
                ProposeFailure::from(ConfChangeError::NotAMember(NodeId(1))).into(),
                Code::NotFound,
                Effect::None,
            ),
            (CommandRefused::SessionExpired.into(), Code::NotFound, Effect::Unknown),
            (CommandRefused::SequenceTooOld.into(), SEQUENCE_TOO_OLD_CODE, Effect::Unknown),
            (CommandRefused::Malformed("?".into()).into(), Code::InvalidArgument, Effect::None),
            (
                MembershipFailure::from(check_address("?").unwrap_err()).into(),
                Code::InvalidArgument,
                Effect::None,
            ),
            (
                MembershipFailure::TransferTimedOut("?".into()).into(),
                Code::FailedPrecondition,
                Effect::None,
            ),
            (
                CommandRefused::SessionFull { responses: 1, bytes: 2 }.into(),
                Code::ResourceExhausted,
                Effect::None,
            ),
            (
                CommandRefused::TooManySessions { max: 1 }.into(),
                Code::ResourceExhausted,
                Effect::None,
            ),
            (
                CommandRefused::SequenceReused { sequence: 1 }.into(),
                Code::InvalidArgument,
                Effect::None,
            ),
            (MembershipFailure::IdWasUsed(NodeId(1)).into(), Code::AlreadyExists, Effect::None),
            (
                UpgradeFailure::NotActivated("?".into()).into(),
                Code::FailedPrecondition,
                Effect::None,
            ),
            (
                UpgradeFailure::Superseded { replaces: None, active: None }.into(),
                Code::FailedPrecondition,
                Effect::None,
            ),
            (LimitsFailure::Invalid("?".into()).into(), Code::InvalidArgument, Effect::None),
            (LimitsFailure::Refused("?".into()).into(), Code::FailedPrecondition, Effect::None),
            (
                LimitsFailure::from(ProposeFailure::Unknown("?".into())).into(),
                Code::Unavailable,
                Effect::Unknown,
            ),
            (ClockFailure::Invalid(7).into(), Code::InvalidArgument, Effect::None),
            (ClockFailure::Refused("?".into()).into(), Code::FailedPrecondition, Effect::None),
            (Failure::no_module(), Code::FailedPrecondition, Effect::None),
        ];
        for (failure, code, effect) in cases {
            assert_eq!((failure.code, failure.effect), (code, effect), "{}", failure.message);
        }
    }
}
