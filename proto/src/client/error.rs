//! Why a request failed, sorted by what the caller can do about it.

use std::error::Error as _;

use tonic::{Code, ConnectError, Status, TimeoutExpired};

use super::ClusterId;
use crate::v1::{self, ErrorDetail, Reason};
use crate::{CLUSTER_KEY, EFFECT_KEY, EFFECT_NONE, EFFECT_UNKNOWN};

/// Whether a failed request may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It surely did not happen and will not.
    None,
    /// It may have happened, or may still happen.
    Unknown,
}

/// A failed request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The request or an endpoint makes no sense; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// No node could do it until the deadline, or trying again would not have been safe.
    #[error("{message} (from {endpoint}, after {attempts} attempt(s))")]
    Unavailable {
        /// The node that was asked last.
        endpoint: String,
        /// The last failure.
        message: String,
        /// Its status code.
        code: Code,
        /// Whether any attempt may have happened.
        effect: Effect,
        /// Attempts made.
        attempts: u32,
        /// What the node said besides, if it was a node.
        detail: Option<Box<ErrorDetail>>,
    },
    /// The cluster refuses the request; the same request would be refused again.
    #[error("{message}")]
    Refused {
        /// The status code.
        code: Code,
        /// Why.
        message: String,
        /// Whether any attempt may have happened.
        effect: Effect,
        /// What the node said besides, if it did.
        detail: Option<Box<ErrorDetail>>,
    },
    /// The session is gone: open a new one, after looking at the effect.
    #[error("session {session_id}: {message}")]
    SessionExpired {
        /// The session.
        session_id: u64,
        /// Why.
        message: String,
        /// Whether any attempt may have happened.
        effect: Effect,
    },
    /// The pipeline has ended; the command was not sent.
    #[error("the pipeline has ended")]
    Closed,
}

impl ClientError {
    /// Whether the request may have happened.
    pub fn effect(&self) -> Effect {
        match self {
            ClientError::Invalid(_) | ClientError::Closed => Effect::None,
            ClientError::Unavailable { effect, .. }
            | ClientError::Refused { effect, .. }
            | ClientError::SessionExpired { effect, .. } => *effect,
        }
    }

    /// The gRPC status, where one was received or stands for what happened.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Invalid(_) | ClientError::Closed => None,
            ClientError::Unavailable { code, .. } | ClientError::Refused { code, .. } => {
                Some(*code)
            }
            ClientError::SessionExpired { .. } => Some(Reason::SessionExpired.code()),
        }
    }

    /// What the last node that answered said besides its words; its effect is that of the last attempt.
    pub fn detail(&self) -> Option<&ErrorDetail> {
        match self {
            ClientError::Unavailable { detail, .. } | ClientError::Refused { detail, .. } => {
                detail.as_deref()
            }
            ClientError::Invalid(_) | ClientError::Closed | ClientError::SessionExpired { .. } => {
                None
            }
        }
    }

    /// Why, where a node said it.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            ClientError::SessionExpired { .. } => Some(Reason::SessionExpired),
            _ => self.detail().map(ErrorDetail::reason),
        }
    }
}

/// One failed attempt.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) effect: Effect,
    /// The same request may succeed later or elsewhere.
    pub(super) transient: bool,
    /// The node said it, rather than the way to it.
    pub(super) is_answer: bool,
    /// The cluster that said it, if it did.
    pub(super) cluster: Option<ClusterId>,
    /// What the node said besides.
    pub(super) detail: Option<Box<ErrorDetail>>,
}

impl Failure {
    pub(super) fn from_status(status: &Status) -> Failure {
        // A status with a source was made on this side: the connection, not the node, failed.
        let local = status.source().is_some();
        if is_caused_by::<TimeoutExpired>(status) {
            return Failure::timeout("no answer");
        }
        let detail = ErrorDetail::of(status).filter(|_| !local).map(Box::new);
        let effect = match &detail {
            Some(detail) => effect_of(detail),
            None if is_caused_by::<ConnectError>(status) => Effect::None,
            None if local => Effect::Unknown,
            None => effect_of_trailer(status),
        };
        Failure {
            code: status.code(),
            message: describe(status),
            effect,
            transient: local || is_transient(status.code()),
            is_answer: !local,
            cluster: cluster_of(status),
            detail,
        }
    }

    pub(super) fn from_stream(error: &v1::ApplyError) -> Failure {
        let code = Code::from_i32(error.code);
        let detail = error.detail.clone().map(Box::new);
        let effect = detail.as_deref().map_or(Effect::Unknown, effect_of);
        let (message, transient) = (error.message.clone(), is_transient(code));
        Failure { code, message, effect, transient, is_answer: true, cluster: None, detail }
    }

    pub(super) fn timeout(what: &str) -> Failure {
        Failure {
            code: Code::DeadlineExceeded,
            message: format!("{what} in time"),
            effect: Effect::Unknown,
            transient: true,
            is_answer: false,
            cluster: None,
            detail: None,
        }
    }

    /// The end of a stream of which the node says nothing.
    pub(super) fn stream_ended() -> Failure {
        Failure {
            code: Code::Unavailable,
            message: "the node ended the stream".to_owned(),
            effect: Effect::Unknown,
            transient: true,
            is_answer: false,
            cluster: None,
            detail: None,
        }
    }

    /// The same of a request that was not sent.
    pub(super) fn unsent(self) -> Failure {
        Failure { effect: Effect::None, ..self }
    }

    /// An answer that no node of raft-host gives.
    pub(super) fn nonsense(what: &str) -> Failure {
        Failure {
            code: Code::Internal,
            message: format!("an answer makes no sense ({what}); is it a raft-host?"),
            effect: Effect::Unknown,
            transient: false,
            is_answer: true,
            cluster: None,
            detail: None,
        }
    }

    /// Whether the session of the request is gone.
    pub(super) fn is_session_expired(&self) -> bool {
        self.detail.as_ref().is_some_and(|detail| detail.reason() == Reason::SessionExpired)
    }
}

fn effect_of(detail: &ErrorDetail) -> Effect {
    match detail.effect() {
        v1::Effect::None => Effect::None,
        v1::Effect::Unknown => Effect::Unknown,
    }
}

fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unknown
    )
}

fn cluster_of(status: &Status) -> Option<ClusterId> {
    status.metadata().get(CLUSTER_KEY)?.to_str().ok()?.parse().ok()
}

fn effect_of_trailer(status: &Status) -> Effect {
    let trailer = status.metadata().get(EFFECT_KEY).and_then(|value| value.to_str().ok());
    match trailer {
        Some(EFFECT_NONE) => Effect::None,
        Some(EFFECT_UNKNOWN) => Effect::Unknown,
        // Statuses that a server gives before it looks at the request.
        _ => match status.code() {
            Code::Unimplemented
            | Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied => Effect::None,
            _ => Effect::Unknown,
        },
    }
}

fn is_caused_by<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<E>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The status's message, with the innermost cause for failures of the connection.
fn describe(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(inner) = cause.and_then(|error| error.source()) {
        cause = Some(inner);
    }
    match cause.map(ToString::to_string) {
        Some(cause) if status.message().contains(&cause) => status.message().to_owned(),
        Some(cause) => format!("{}: {cause}", status.message()),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}
