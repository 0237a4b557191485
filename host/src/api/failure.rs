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
    AccessFailure, AdmissionFailure, ClockFailure, Committed, EngineFailure, KeysFailure,
    LimitsFailure, MembershipFailure, ProposeFailure, QueryFailure, RehearsalFailure,
    UpgradeFailure,
};
use crate::rehearsal::RehearsalError;
use crate::storage::StorageError;
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
                ConfChangeError::InProgress
                | ConfChangeError::JustElected
                | ConfChangeError::RightsChanged => Reason::ChangeInProgress,
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
            AccessRefused::UnknownJoinToken => Reason::JoinTokenUnknown,
            AccessRefused::JoinTokenExpired(_) | AccessRefused::JoinTokenUsed(_) => {
                Reason::JoinTokenRefused
            }
            AccessRefused::NameTaken(_) | AccessRefused::BuiltIn(_) => Reason::NameTaken,
            AccessRefused::RoleInUse { .. } => Reason::InUse,
            AccessRefused::NoAdmin | AccessRefused::LastAdmin => Reason::LastAdmin,
            AccessRefused::TooMany { .. } | AccessRefused::Invalid(_) => Reason::InvalidRequest,
        };
        Failure::none(reason, failure.to_string())
    }
}

impl From<AdmissionFailure> for Failure {
    fn from(failure: AdmissionFailure) -> Failure {
        let reason = match failure {
            AdmissionFailure::NoState(failure) => return failure.into(),
            AdmissionFailure::Refused(AccessRefused::UnknownJoinToken) => Reason::JoinTokenUnknown,
            AdmissionFailure::Refused(_) | AdmissionFailure::Gone(_) => Reason::JoinTokenRefused,
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
            UpgradeFailure::ReceiptStale(_) => (Reason::ReceiptStale, 0),
            UpgradeFailure::Superseded { active, .. } => {
                (Reason::IncumbentChanged, active.map_or(0, |active| active.activated_at.0))
            }
            UpgradeFailure::Host(_) => (Reason::Internal, 0),
        };
        Failure::none(reason, failure.to_string()).about(index)
    }
}

impl From<RehearsalFailure> for Failure {
    fn from(failure: RehearsalFailure) -> Failure {
        use RehearsalError as E;
        let (reason, index) = match &failure {
            RehearsalFailure::Busy => (Reason::Busy, 0),
            RehearsalFailure::NoRoom { .. } | RehearsalFailure::NoState => {
                (Reason::RehearsalRefused, 0)
            }
            RehearsalFailure::NotHeld(_) => (Reason::NoSuchModule, 0),
            RehearsalFailure::NoCopy(_) => (Reason::SnapshotRefused, 0),
            RehearsalFailure::NoWayBack(_) => (Reason::NoWayBack, 0),
            RehearsalFailure::WrongDuration(_) => (Reason::InvalidRequest, 0),
            RehearsalFailure::State(..)
            | RehearsalFailure::NoThread(_)
            | RehearsalFailure::BrokenOff => (Reason::Internal, 0),
            RehearsalFailure::Rehearsal(error) => match error {
                E::WrongRange { .. }
                | E::TooManyQueries(_)
                | E::NoClasses(_)
                | E::UnknownClass { .. } => (Reason::InvalidRequest, 0),
                E::BeyondEnd { last, .. } => (Reason::RehearsalRefused, last.0),
                E::Compacted { oldest, .. } => (Reason::Compacted, oldest.0),
                E::Storage(StorageError::Compacted { .. }) => (Reason::Compacted, 0),
                E::NoModule => (Reason::NoModule, 0),
                E::ActiveSince { since } => (Reason::RehearsalRefused, since.0),
                E::Refused(_) => (Reason::ModuleRefused, 0),
                E::Cancelled => (Reason::DeadlineExceeded, 0),
                E::Members(_) | E::Storage(_) | E::Host(_) => (Reason::Internal, 0),
            },
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
    Failure::unknown(Reason::Internal, crate::node::unexpected(reply))
}

#[cfg(test)]
mod tests;
