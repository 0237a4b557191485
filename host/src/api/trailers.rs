//! Every failed call says whether it had an effect, also when the gRPC library failed it: a method that
//! is not there, a message that cannot be decoded, an answer that is too long. What it says is counted.

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

use super::failure::{Failure, with_effect};
use super::traffic::{Call, Traffic};

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

/// The middleware.
pub(super) async fn label(
    State(traffic): State<Arc<Traffic>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let whose = Whose::of(request.uri().path());
    if whose == Whose::Peers {
        return next.run(request).await;
    }
    let call = traffic.begin(request.uri().path());
    let mut response = next.run(request).await;
    // A failure in the headers is all of the answer: nothing of the request was done.
    if is_unlabelled(response.headers()) {
        relabel(response.headers_mut(), whose, Effect::None);
    }
    match code_of(response.headers()) {
        Some(code) => {
            call.end(code);
            response
        }
        None => response.map(|body| Body::new(Labelled { body, whose, call: Some(call) })),
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
    /// Until it is known what became of it.
    call: Option<Call>,
}

impl Labelled {
    fn end(&mut self, code: Code) {
        if let Some(call) = self.call.take() {
            call.end(code);
        }
    }
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
                self.end(Code::Unknown);
                return frame;
            }
            Poll::Pending => return Poll::Pending,
        };
        if let Some(trailers) = frame.trailers_mut() {
            if is_unlabelled(trailers) {
                relabel(trailers, self.whose, Effect::Unknown);
            }
            self.end(code_of(trailers).unwrap_or(Code::Unknown));
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
