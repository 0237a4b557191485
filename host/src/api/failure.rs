//! What goes wrong, as clients see it: a reason with its gRPC code, words, and whether it had an effect.

use std::time::Duration;

use raft_host_proto::v1::{self, Effect, ErrorDetail, Reason};
use raft_host_proto::{EFFECT_KEY, EFFECT_NONE, EFFECT_UNKNOWN};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::convert::outcome_to_wire;
use crate::consensus::{ConfChangeError, MEMBERS_MAX};
use crate::machine::{AccessRefused, CommandRefused, Reply, TIME_MAX_MS};
use crate::node::{
    AccessFailure, ClockFailure, Committed, EngineFailure, KeysFailure, LimitsFailure,
    MembershipFailure, ProposeFailure, QueryFailure, UpgradeFailure,
};
use crate::types::{ADDRESS_MAX_BYTES, AddressError, Exceeded, Member, NodeId};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    message: String,
    /// Its reason is always one that this version knows.
    detail: Box<ErrorDetail>,
}

impl Failure {
    /// It surely changed nothing.
    pub(super) fn none(reason: Reason, message: impl Into<String>) -> Failure {
        Failure::new(reason, Effect::None, message.into())
    }

    /// It may have changed something.
    pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Failure {
        Failure::new(reason, Effect::Unknown, message.into())
    }

    fn new(reason: Reason, effect: Effect, message: String) -> Failure {
        let detail = ErrorDetail {
            reason: reason.into(),
            effect: effect.into(),
            retry_after_ms: pause_ms(reason),
            ..ErrorDetail::default()
        };
        Failure { message, detail: Box::new(detail) }
    }

    pub(super) fn no_module() -> Failure {
        Failure::none(
            Reason::NoModule,
            "the cluster runs no module yet: give it one with `raft-host upgrade FILE`",
        )
    }

    /// The leader that was asked is none any more, and has not answered.
    pub(super) fn replaced() -> Failure {
        Failure::unknown(
            Reason::LeaderReplaced,
            "another leader was elected before the one that this was passed to has answered; it \
             may have been done, or may still be",
        )
    }

    /// What was longer than a limit allows.
    pub(super) fn too_large(exceeded: Exceeded, message: String) -> Failure {
        Failure::none(Reason::TooLarge, message).exceeding(exceeded)
    }

    /// Names the limit.
    pub(super) fn exceeding(mut self, exceeded: Exceeded) -> Failure {
        let Exceeded { limit, value, max } = exceeded;
        self.detail.exceeded = Some(v1::Exceeded { limit: limit.to_owned(), value, max });
        self
    }

    /// Names the limit, if that is what was wrong.
    pub(super) fn exceeding_if(self, limit: &'static str, value: u64, max: u64) -> Failure {
        match value > max {
            true => self.exceeding(Exceeded { limit, value, max }),
            false => self,
        }
    }

    /// Names who leads; `term` is 0 when it is not known.
    pub(super) fn led_by(mut self, leader: &Member, term: u64) -> Failure {
        let (node_id, address) = (leader.id.0, leader.address.clone());
        self.detail.leader = Some(v1::Leader { node_id, address, term });
        self
    }

    /// Names the entry that it is about.
    pub(super) fn about(mut self, index: u64) -> Failure {
        self.detail.index = index;
        self
    }

    /// Says when the same request may come again.
    pub(super) fn after(mut self, pause: Duration) -> Failure {
        let pause_ms = u64::try_from(pause.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.detail.retry_after_ms = Some(pause_ms);
        self
    }

    pub(super) fn reason(&self) -> Reason {
        self.detail.reason()
    }

    pub(super) fn code(&self) -> Code {
        self.reason().code()
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn effect(&self) -> Effect {
        self.detail.effect()
    }

    /// As the end of a request of which an earlier attempt may have happened.
    pub(super) fn in_doubt(mut self, is_in_doubt: bool) -> Failure {
        if is_in_doubt {
            self.detail.set_effect(Effect::Unknown);
        }
        self
    }

    /// Whether another node, or the same one a little later, may well do it.
    pub(super) fn worth_rerouting(&self) -> bool {
        self.code() == Code::Unavailable && self.effect() == Effect::None
    }

    pub(super) fn into_status(self) -> Status {
        let trailer = self.detail.to_trailer(self.code(), &self.message);
        with_effect(Status::with_details(self.code(), self.message, trailer), self.detail.effect())
    }

    /// What another node said, or what became of the way to it.
    pub(super) fn from_status(status: &Status) -> Failure {
        if let Some(detail) = ErrorDetail::of(status) {
            return Failure::from_detail(status.code(), status.message(), detail);
        }
        let effect = if never_connected(status) { Effect::None } else { Effect::Unknown };
        match status.code() {
            Code::Cancelled | Code::DeadlineExceeded => Failure::new(
                Reason::DeadlineExceeded,
                effect,
                "the leader did not answer in time".to_owned(),
            ),
            Code::Unavailable | Code::Unknown | Code::Internal => Failure::new(
                Reason::LeaderUnreachable,
                effect,
                format!("the connection to the leader failed: {}", status.message()),
            ),
            code => Failure::new(reason_of(code), effect, status.message().to_owned()),
        }
    }

    /// A failure of the gRPC library, before anything of the request was looked at (`Effect::None`)
    /// or after.
    pub(super) fn of_library(status: &Status, effect: Effect) -> Failure {
        let reason = match status.code() {
            // What it says of a message that is longer than it takes, and of one whose sender is gone.
            Code::OutOfRange => Reason::TooLarge,
            Code::Unavailable => Reason::BrokenOff,
            code => reason_of(code),
        };
        let failure = Failure::new(reason, effect, status.message().to_owned());
        match longer_than_taken(status) {
            Some((bytes, max)) => failure.exceeding_if("api.max_message_bytes", bytes, max),
            None => failure,
        }
    }

    /// A reason that this version does not know stands for its code.
    fn from_detail(code: Code, message: &str, mut detail: ErrorDetail) -> Failure {
        if Reason::try_from(detail.reason).is_err() || detail.reason() == Reason::Unspecified {
            detail.set_reason(reason_of(code));
        }
        Failure { message: message.to_owned(), detail: Box::new(detail) }
    }

    pub(super) fn into_apply_error(self) -> v1::ApplyError {
        let code = self.code() as i32;
        v1::ApplyError { code, message: self.message, detail: Some(*self.detail) }
    }

    pub(super) fn from_apply_error(error: v1::ApplyError) -> Failure {
        Failure::from_detail(
            Code::from(error.code),
            &error.message,
            error.detail.unwrap_or_default(),
        )
    }
}

/// After how long the same request may well succeed, in milliseconds.
fn pause_ms(reason: Reason) -> Option<u64> {
    match reason {
        // Another node may do it at once.
        Reason::NotLeader
        | Reason::Stopping
        | Reason::NotReady
        | Reason::StateNotTrusted
        | Reason::CannotAnswer
        | Reason::NotAudited => Some(0),
        Reason::Busy => Some(50),
        Reason::NoLeader | Reason::LeaderUnreachable | Reason::LeaderReplaced => Some(100),
        // By then leadership may have gone to a node that has some.
        Reason::NoSpace
        | Reason::SessionsFull
        | Reason::TooManySessions
        | Reason::ChangeInProgress
        | Reason::MemberAlive
        | Reason::NotCaughtUp => Some(1_000),
        _ => None,
    }
}

/// The nearest reason for a code that came without one.
fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Reason::InvalidRequest,
        Code::Unimplemented => Reason::UnknownMethod,
        Code::Unavailable => Reason::LeaderUnreachable,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
        Code::ResourceExhausted => Reason::Busy,
        _ => Reason::Internal,
    }
}

/// Length and bound of a message that the library did not take, which only its words say.
fn longer_than_taken(status: &Status) -> Option<(u64, u64)> {
    let (_, numbers) = status.message().split_once("message length too large: found ")?;
    let (bytes, max) = numbers.split_once(" bytes, the limit is: ")?;
    Some((bytes.parse().ok()?, max.strip_suffix(" bytes")?.parse().ok()?))
}

/// The status, with the trailer that says whether the request had an effect.
pub(super) fn with_effect(mut status: Status, effect: Effect) -> Status {
    let word = match effect {
        Effect::None => EFFECT_NONE,
        Effect::Unknown => EFFECT_UNKNOWN,
    };
    status.metadata_mut().insert(EFFECT_KEY, MetadataValue::from_static(word));
    status
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
        let reason = match &failure {
            ProposeFailure::NotLeader(_) => Reason::NotLeader,
            ProposeFailure::Superseded | ProposeFailure::Unknown(_) => Reason::LeaderReplaced,
            ProposeFailure::Stopping => Reason::Stopping,
            ProposeFailure::Quarantined | ProposeFailure::InDoubt => Reason::StateNotTrusted,
            ProposeFailure::Unconfirmed => Reason::Unconfirmed,
            ProposeFailure::NoSpace(_) => Reason::NoSpace,
            ProposeFailure::Busy(_) => Reason::Busy,
            ProposeFailure::TooLarge { .. } => Reason::TooLarge,
            ProposeFailure::BatchSize { .. } => Reason::InvalidRequest,
            ProposeFailure::Level(_) => Reason::LevelNotOffered,
            ProposeFailure::Denied(_) => Reason::PermissionDenied,
            ProposeFailure::ConfChange(error) => match error {
                ConfChangeError::NotAMember(_) => Reason::NoSuchMember,
                ConfChangeError::AlreadyAMember(_) | ConfChangeError::AlreadyAVoter(_) => {
                    Reason::AlreadyAMember
                }
                ConfChangeError::NamedTwice(_)
                | ConfChangeError::ZeroId
                | ConfChangeError::StrangeJoin(_)
                | ConfChangeError::IdTooHigh(_)
                | ConfChangeError::BadAddress { .. }
                | ConfChangeError::Empty => Reason::InvalidRequest,
                ConfChangeError::InProgress | ConfChangeError::JustElected => {
                    Reason::ChangeInProgress
                }
                ConfChangeError::NoQuorum(_) => Reason::NoQuorum,
                ConfChangeError::NotHeardFrom(_) => Reason::MemberSilent,
                ConfChangeError::TooManyMembers { .. } => Reason::TooManyMembers,
                ConfChangeError::LastVoter(_) => Reason::LastVoter,
                ConfChangeError::NotCaughtUp { .. } => Reason::NotCaughtUp,
            },
        };
        let effect = if failure.surely_not_applied() { Effect::None } else { Effect::Unknown };
        let described = Failure::new(reason, effect, failure.to_string());
        match failure {
            ProposeFailure::NotLeader(Some(leader)) => described.led_by(&leader, 0),
            ProposeFailure::TooLarge { bytes, max } => {
                described.exceeding(Exceeded { limit: "node.max_entry_bytes", value: bytes, max })
            }
            ProposeFailure::BatchSize { commands, max } => {
                described.exceeding_if("batch_commands_max", commands as u64, max as u64)
            }
            ProposeFailure::Busy(exceeded) => described.exceeding(exceeded),
            ProposeFailure::ConfChange(error) => described.beyond_a_bound_of_members(&error),
            _ => described,
        }
    }
}

impl Failure {
    fn beyond_a_bound_of_members(self, error: &ConfChangeError) -> Failure {
        match error {
            ConfChangeError::TooManyMembers { members } => {
                self.exceeding_if("members_max", *members as u64, MEMBERS_MAX as u64)
            }
            ConfChangeError::IdTooHigh(id) => {
                self.exceeding_if("node_id_max", id.0, NodeId::HIGHEST.0)
            }
            ConfChangeError::BadAddress { error, .. } => self.with_a_bad_address(error),
            _ => self,
        }
    }

    fn with_a_bad_address(self, error: &AddressError) -> Failure {
        match error {
            AddressError::TooLong(bytes) => {
                self.exceeding_if("address_max_bytes", *bytes as u64, ADDRESS_MAX_BYTES as u64)
            }
            AddressError::Malformed(_) | AddressError::Unspecified(_) => self,
        }
    }
}

impl From<MembershipFailure> for Failure {
    fn from(failure: MembershipFailure) -> Failure {
        let reason = match &failure {
            MembershipFailure::Propose(failure) => return failure.clone().into(),
            MembershipFailure::IdInUse { .. } | MembershipFailure::IdWasUsed(_) => Reason::IdTaken,
            MembershipFailure::BadAddress(_) | MembershipFailure::IdTooFar { .. } => {
                Reason::InvalidRequest
            }
            MembershipFailure::NoState => Reason::NotReady,
            MembershipFailure::LevelNotOffered { .. } => Reason::IncompatibleVersion,
            // It passes if it is what is left of the member; asking again stops nobody.
            MembershipFailure::AddressAlive { .. } => Reason::MemberAlive,
            // Their codes are not tried again by themselves: that would stop all writes again for
            // as long.
            MembershipFailure::TransferTimedOut(_) | MembershipFailure::AnotherLeads { .. } => {
                Reason::TransferFailed
            }
            MembershipFailure::Silent { .. }
            | MembershipFailure::AllSilent
            | MembershipFailure::NobodyOnDuty => Reason::MemberSilent,
            MembershipFailure::NotStable { .. } => Reason::NotCaughtUp,
            MembershipFailure::AddressInUse { .. } => Reason::AddressInUse,
            MembershipFailure::NotAVoter(_) => Reason::NotAVoter,
            MembershipFailure::NoOtherVoter => Reason::LastVoter,
        };
        let described = Failure::none(reason, failure.to_string());
        match failure {
            MembershipFailure::BadAddress(error) => described.with_a_bad_address(&error),
            MembershipFailure::IdTooFar { id, max, .. } => {
                described.exceeding_if("node_id_max", id.0, max)
            }
            _ => described,
        }
    }
}

impl From<AccessFailure> for Failure {
    fn from(failure: AccessFailure) -> Failure {
        let refused = match &failure {
            AccessFailure::Propose(failure) => return failure.clone().into(),
            AccessFailure::Refused(refused) => refused,
        };
        let reason = match refused {
            AccessRefused::NoPrincipal(_)
            | AccessRefused::NoRole(_)
            | AccessRefused::NoToken(_) => Reason::NoSuchPrincipal,
            AccessRefused::NameTaken(_) | AccessRefused::BuiltIn(_) => Reason::NameTaken,
            AccessRefused::RoleInUse { .. } => Reason::InUse,
            AccessRefused::NoAdmin | AccessRefused::LastAdmin => Reason::LastAdmin,
            AccessRefused::TooMany { .. } | AccessRefused::Invalid(_) => Reason::InvalidRequest,
        };
        Failure::none(reason, failure.to_string())
    }
}

impl From<UpgradeFailure> for Failure {
    fn from(failure: UpgradeFailure) -> Failure {
        let (reason, index) = match &failure {
            UpgradeFailure::Propose(failure) => return failure.clone().into(),
            UpgradeFailure::Refused(_) => (Reason::ModuleRefused, 0),
            // Not tried again: only people know whether it is still wanted.
            UpgradeFailure::NotActivated(_) => (Reason::ModuleNotActivated, 0),
            UpgradeFailure::NotSigned(_) => (Reason::NotSigned, 0),
            UpgradeFailure::Superseded { active, .. } => {
                (Reason::IncumbentChanged, active.map_or(0, |active| active.activated_at.0))
            }
            UpgradeFailure::Host(_) => (Reason::Internal, 0),
        };
        Failure::none(reason, failure.to_string()).about(index)
    }
}

impl From<LimitsFailure> for Failure {
    fn from(failure: LimitsFailure) -> Failure {
        let reason = match failure {
            LimitsFailure::Propose(failure) => return failure.into(),
            LimitsFailure::Invalid(_) => Reason::InvalidRequest,
            LimitsFailure::Refused(_) => Reason::LimitsRefused,
        };
        Failure::none(reason, failure.to_string())
    }
}

impl From<KeysFailure> for Failure {
    fn from(failure: KeysFailure) -> Failure {
        match failure {
            KeysFailure::Propose(failure) => failure.into(),
            KeysFailure::Refused(_) => Failure::none(Reason::KeysRefused, failure.to_string()),
        }
    }
}

impl From<EngineFailure> for Failure {
    fn from(failure: EngineFailure) -> Failure {
        let reason = match failure {
            EngineFailure::Propose(failure) => return failure.into(),
            EngineFailure::Invalid(_) => Reason::InvalidRequest,
            EngineFailure::Unconfirmed { .. } => Reason::NotConfirmed,
        };
        Failure::none(reason, failure.to_string())
    }
}

impl From<ClockFailure> for Failure {
    fn from(failure: ClockFailure) -> Failure {
        let reason = match failure {
            ClockFailure::Propose(failure) => return failure.into(),
            ClockFailure::Invalid(_) => Reason::InvalidRequest,
            ClockFailure::Refused(_) => Reason::ClockRefused,
        };
        let described = Failure::none(reason, failure.to_string());
        match failure {
            ClockFailure::Invalid(time_ms) => {
                described.exceeding_if("time_max_ms", time_ms, TIME_MAX_MS)
            }
            _ => described,
        }
    }
}

impl From<QueryFailure> for Failure {
    fn from(failure: QueryFailure) -> Failure {
        let reason = match failure {
            QueryFailure::Busy(_) => Reason::Busy,
            QueryFailure::Stopping | QueryFailure::Stopped => Reason::Stopping,
            QueryFailure::Quarantined | QueryFailure::InDoubt => Reason::StateNotTrusted,
            QueryFailure::Unconfirmed => Reason::Unconfirmed,
        };
        let described = Failure::none(reason, failure.to_string());
        match failure {
            QueryFailure::Busy(exceeded) => described.exceeding(exceeded),
            _ => described,
        }
    }
}

impl From<CommandRefused> for Failure {
    fn from(refused: CommandRefused) -> Failure {
        let reason = match refused {
            CommandRefused::SessionExpired => Reason::SessionExpired,
            CommandRefused::SequenceTooOld => Reason::SequenceTooOld,
            CommandRefused::SessionFull { .. } => Reason::SessionFull,
            CommandRefused::SessionsFull { .. } => Reason::SessionsFull,
            CommandRefused::TooManySessions { .. } => Reason::TooManySessions,
            CommandRefused::SequenceReused { .. } => Reason::SequenceReused,
            CommandRefused::TooLarge { .. } => Reason::TooLarge,
            CommandRefused::Denied(_) => Reason::PermissionDenied,
            CommandRefused::Malformed(_) => Reason::InvalidRequest,
        };
        let effect = if refused.surely_not_applied() { Effect::None } else { Effect::Unknown };
        let failure = Failure::new(reason, effect, refused.to_string());
        match refused {
            CommandRefused::TooLarge { bytes, max } => {
                failure.exceeding(Exceeded { limit: "input_max_bytes", value: bytes, max })
            }
            CommandRefused::SessionFull { exceeded, .. } => failure.exceeding(exceeded),
            CommandRefused::SessionsFull { bytes, max } => {
                failure.exceeding(Exceeded { limit: "sessions_max_bytes", value: bytes, max })
            }
            CommandRefused::TooManySessions { max } => {
                failure.exceeding(Exceeded { limit: "sessions_max", value: max + 1, max })
            }
            _ => failure,
        }
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
    Failure::unknown(Reason::Internal, format!("unexpected answer of the machine: {reply:?}"))
}

#[cfg(test)]
mod tests {
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
        let detail =
            ErrorDetail { reason: 1_999, effect: Effect::None.into(), ..Default::default() };
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
            (
                CommandRefused::TooManySessions { max: 1 }.into(),
                Reason::TooManySessions,
                Effect::None,
            ),
            (
                CommandRefused::SequenceReused { sequence: 1 }.into(),
                Reason::SequenceReused,
                Effect::None,
            ),
            (MembershipFailure::IdWasUsed(NodeId(1)).into(), Reason::IdTaken, Effect::None),
            (
                UpgradeFailure::NotActivated("?".into()).into(),
                Reason::ModuleNotActivated,
                Effect::None,
            ),
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
}
