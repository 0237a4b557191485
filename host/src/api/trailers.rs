//! Every failed call says whether it had an effect, also when the gRPC library failed it: a method that
//! is not there, a message that cannot be decoded, an answer that is too long. What it says is counted, and
//! noted in the audit log where that is to be.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use axum::middleware::Next;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use raft_host_proto::EFFECT_KEY;
use raft_host_proto::v1::Effect;
use tonic::{Code, Status};

use super::auditing::Record;
use super::failure::{Failure, with_effect};
use super::traffic::{Call, Traffic};
use crate::audit::Audit;

/// Whose words a failure has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The contract's: the reason decides the code.
    Ours,
    /// Those of nodes among each other, which are left alone.
    Peers,
    /// Those of a protocol that others have settled, as that of health: the code is theirs.
    Others,
}

impl Whose {
    fn of(path: &str) -> Whose {
        match path {
            path if path.starts_with("/raft_host.peer.") => Whose::Peers,
            path if path.starts_with("/raft_host.") => Whose::Ours,
            _ => Whose::Others,
        }
    }
}

/// gRPC's own trailer.
const STATUS_KEY: &str = "grpc-status";

/// Where calls are counted and noted.
#[derive(Clone)]
pub(super) struct Books {
    pub(super) traffic: Arc<Traffic>,
    pub(super) audit: Option<Arc<Audit>>,
}

/// The middleware; nothing of a call is looked at before.
pub(super) async fn label(
    State(books): State<Books>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let whose = Whose::of(request.uri().path());
    let call = (whose != Whose::Peers).then(|| books.traffic.begin(request.uri().path()));
    let (record, mut response) = match Record::begin(books.audit.as_ref(), &mut request) {
        Ok(record) => (record, next.run(request).await),
        Err(failure) => (None, failure.into_status().into_http()),
    };
    // A failure in the headers is all of the answer: nothing of the request was done.
    if is_unlabelled(response.headers()) {
        relabel(response.headers_mut(), whose, Effect::None);
    }
    let mut open = Open { call, record };
    if let Some(code) = code_of(response.headers()) {
        open.end(code, response.headers());
    }
    match open.is_over() {
        true => response,
        false => response.map(|body| Body::new(Labelled { body, whose, open })),
    }
}

/// What waits for the end of a call.
struct Open {
    call: Option<Call>,
    record: Option<Record>,
}

impl Open {
    fn is_over(&self) -> bool {
        self.call.is_none() && self.record.is_none()
    }

    fn end(&mut self, code: Code, headers: &HeaderMap) {
        if let Some(call) = self.call.take() {
            call.end(code);
        }
        if let Some(record) = self.record.take() {
            record.end(headers);
        }
    }
}

/// What these headers or trailers say became of a call, if they do.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(STATUS_KEY).map(|status| Code::from_bytes(status.as_bytes()))
}

fn is_unlabelled(headers: &HeaderMap) -> bool {
    let failed = Status::from_header_map(headers).is_some_and(|status| status.code() != Code::Ok);
    failed && !headers.contains_key(EFFECT_KEY)
}

fn relabel(headers: &mut HeaderMap, whose: Whose, effect: Effect) {
    if whose == Whose::Peers {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    let labelled = match whose {
        Whose::Ours => Failure::of_library(&status, effect).into_status(),
        Whose::Peers | Whose::Others => with_effect(status, effect),
    };
    if let Err(error) = labelled.add_header(headers) {
        tracing::warn!(%error, "a failure is answered without saying whether it had an effect");
    }
}

/// An answer whose trailers are looked at.
struct Labelled {
    body: Body,
    whose: Whose,
    open: Open,
}

impl HttpBody for Labelled {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let mut frame = match frame {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(None | Some(Err(_))) => {
                // Nobody was told what became of it.
                if let Some(call) = self.open.call.take() {
                    call.end(Code::Unknown);
                }
                return frame;
            }
            Poll::Pending => return Poll::Pending,
        };
        if let Some(trailers) = frame.trailers_mut() {
            if is_unlabelled(trailers) {
                relabel(trailers, self.whose, Effect::Unknown);
            }
            self.open.end(code_of(trailers).unwrap_or(Code::Unknown), trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
