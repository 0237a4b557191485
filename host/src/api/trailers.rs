//! Every failed call says whether it had an effect, also when the gRPC library failed it: a method that
//! is not there, a message that cannot be decoded, an answer that is too long.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use axum::middleware::Next;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use raft_host_proto::EFFECT_KEY;
use raft_host_proto::v1::Effect;
use tonic::{Code, Status};

use super::failure::{Failure, with_effect};

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

/// The middleware.
pub(super) async fn label(request: Request, next: Next) -> Response<Body> {
    let whose = Whose::of(request.uri().path());
    let mut response = next.run(request).await;
    if whose == Whose::Peers {
        return response;
    }
    // A failure in the headers is all of the answer: nothing of the request was done.
    if is_unlabelled(response.headers()) {
        relabel(response.headers_mut(), whose, Effect::None);
        return response;
    }
    response.map(|body| Body::new(Labelled { body, whose }))
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
}

impl HttpBody for Labelled {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(mut frame))) = frame else { return frame };
        if let Some(trailers) = frame.trailers_mut()
            && is_unlabelled(trailers)
        {
            relabel(trailers, self.whose, Effect::Unknown);
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
