//! What failed calls say besides their gRPC code and their words.

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::v1::{ApplyError, Effect, ErrorDetail, Reason};

/// The type URL of an [`ErrorDetail`] among the details of a `google.rpc.Status`.
const TYPE_URL: &str = "type.googleapis.com/raft_host.v1.ErrorDetail";
/// The same of what gRPC's own clients know of pauses.
const RETRY_TYPE_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl Reason {
    /// The one gRPC code that a failure for this reason has.
    pub fn code(self) -> Code {
        match self {
            Reason::Unspecified => Code::Unknown,
            Reason::InvalidRequest
            | Reason::TooLarge
            | Reason::SequenceReused
            | Reason::ModuleRefused => Code::InvalidArgument,
            Reason::UnknownMethod | Reason::NoQueries => Code::Unimplemented,
            Reason::NoSuchGroup
            | Reason::SessionExpired
            | Reason::NoSuchMember
            | Reason::NoSuchPrincipal
            | Reason::NoSuchModule => Code::NotFound,
            Reason::SequenceTooOld
            | Reason::AlreadyAMember
            | Reason::IdTaken
            | Reason::NameTaken => Code::AlreadyExists,
            Reason::PermissionDenied => Code::PermissionDenied,
            Reason::NoLeader
            | Reason::NotLeader
            | Reason::LeaderUnreachable
            | Reason::LeaderReplaced
            | Reason::Stopping
            | Reason::NotReady
            | Reason::StateNotTrusted
            | Reason::Unconfirmed
            | Reason::CannotAnswer
            | Reason::NotAudited => Code::Unavailable,
            Reason::DeadlineExceeded => Code::DeadlineExceeded,
            Reason::Busy
            | Reason::NoSpace
            | Reason::SessionFull
            | Reason::SessionsFull
            | Reason::TooManySessions
            | Reason::RateLimited => Code::ResourceExhausted,
            Reason::Unauthenticated | Reason::JoinTokenRefused | Reason::JoinTokenUnknown => {
                Code::Unauthenticated
            }
            Reason::BrokenOff => Code::Cancelled,
            Reason::Compacted | Reason::NotApplied => Code::OutOfRange,
            Reason::Internal => Code::Internal,
            Reason::MemberAlive | Reason::MemberUnreachable => Code::Aborted,
            Reason::OtherCluster
            | Reason::ClusterRestored
            | Reason::IncompatibleVersion
            | Reason::NoModule
            | Reason::AddressInUse
            | Reason::ChangeInProgress
            | Reason::NoQuorum
            | Reason::LastVoter
            | Reason::NotCaughtUp
            | Reason::TooManyMembers
            | Reason::MemberSilent
            | Reason::NotAVoter
            | Reason::TransferFailed
            | Reason::ModuleNotActivated
            | Reason::IncumbentChanged
            | Reason::LimitsRefused
            | Reason::NotConfirmed
            | Reason::ClockRefused
            | Reason::LevelNotOffered
            | Reason::NotSigned
            | Reason::KeysRefused
            | Reason::InUse
            | Reason::LastAdmin
            | Reason::RightsImpossible
            | Reason::NoSigningCa
            | Reason::SnapshotRefused
            | Reason::NotCompiled
            | Reason::ReceiptStale
            | Reason::NoWayBack
            | Reason::RehearsalRefused
            | Reason::VotersDiffer => Code::FailedPrecondition,
        }
    }

    /// Its name in texts and JSON: `no_leader`.
    pub fn name(self) -> String {
        self.as_str_name().trim_start_matches("REASON_").to_ascii_lowercase()
    }
}

impl ErrorDetail {
    /// The content of the trailer `grpc-status-details-bin`: a `google.rpc.Status` that holds it, and after
    /// what pause to try again in the words that clients of gRPC know.
    pub fn to_trailer(&self, code: Code, message: &str) -> Bytes {
        let detail =
            prost_types::Any { type_url: TYPE_URL.to_owned(), value: self.encode_to_vec() };
        let retry = self.retry_after_ms.map(|pause_ms| {
            let delay = prost_types::Duration {
                seconds: i64::try_from(pause_ms / 1_000).unwrap_or(i64::MAX),
                nanos: (pause_ms % 1_000) as i32 * 1_000_000,
            };
            let value = pb::RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
            prost_types::Any { type_url: RETRY_TYPE_URL.to_owned(), value }
        });
        let details = [detail].into_iter().chain(retry).collect();
        let status = pb::Status { code: code.into(), message: message.to_owned(), details };
        status.encode_to_vec().into()
    }

    /// The detail of a failed call, if it has one.
    pub fn of(status: &Status) -> Option<ErrorDetail> {
        let status = pb::Status::decode(status.details()).ok()?;
        let detail = status.details.iter().find(|detail| detail.type_url == TYPE_URL)?;
        ErrorDetail::decode(&detail.value[..]).ok()
    }
}

impl ApplyError {
    /// Whether the command may have happened.
    pub fn effect(&self) -> Effect {
        self.detail.as_ref().map_or(Effect::Unknown, ErrorDetail::effect)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::v1::Leader;

    /// All of them, from the descriptors: a number without a name is none.
    fn reasons() -> Vec<Reason> {
        (0..200).filter_map(|number| Reason::try_from(number).ok()).collect()
    }

    #[test]
    fn a_detail_survives_its_trailer() {
        let detail = ErrorDetail {
            reason: Reason::NotLeader.into(),
            retry_after_ms: Some(40),
            leader: Some(Leader { node_id: 2, address: "b:1".to_owned(), term: 7 }),
            ..ErrorDetail::default()
        };
        let trailer = detail.to_trailer(Code::Unavailable, "words");
        let status = Status::with_details(Code::Unavailable, "words", trailer);
        assert_eq!(ErrorDetail::of(&status), Some(detail));
        assert_eq!(ErrorDetail::of(&Status::unavailable("words")), None);
        let garbage = Status::with_details(Code::Unavailable, "words", Bytes::from_static(b"\xff"));
        assert_eq!(ErrorDetail::of(&garbage), None);
    }

    #[test]
    fn the_trailer_says_when_to_come_back_as_grpc_does() {
        let detail = ErrorDetail {
            reason: Reason::RateLimited.into(),
            retry_after_ms: Some(1_040),
            ..ErrorDetail::default()
        };
        let trailer = detail.to_trailer(Code::ResourceExhausted, "words");
        let status = Status::with_details(Code::ResourceExhausted, "words", trailer);
        let retry = tonic_types::StatusExt::get_details_retry_info(&status).expect("it says so");
        assert_eq!(retry.retry_delay, Some(std::time::Duration::from_millis(1_040)));
        assert_eq!(ErrorDetail::of(&status), Some(detail));
    }

    /// Clients of other languages are written from this table.
    #[test]
    fn the_readme_has_each_reason_with_its_code() {
        let readme = include_str!("../README.md");
        let mut table = BTreeMap::new();
        for line in readme.lines().filter(|line| line.starts_with("| `REASON_")) {
            let cells: Vec<&str> =
                line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            table.insert(cells[1].to_owned(), cells[2].to_owned());
        }
        for reason in reasons() {
            let code = format!("{:?}", reason.code());
            let code = code.chars().fold(String::new(), |mut text, letter| {
                if letter.is_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.push(letter.to_ascii_uppercase());
                text
            });
            let said = table.remove(reason.as_str_name());
            assert_eq!(said, Some(code), "{}", reason.as_str_name());
        }
        assert!(table.is_empty(), "the page has reasons that there are not: {table:?}");
    }
}
