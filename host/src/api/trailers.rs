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

use super::failure::Failure;

/// What nodes ask each other has its own words.
const PEERS: &str = "/raft_host.peer.";

/// The middleware.
pub(super) async fn label(request: Request, next: Next) -> Response<Body> {
    let is_for_peers = request.uri().path().starts_with(PEERS);
    let mut response = next.run(request).await;
    if is_for_peers {
        return response;
    }
    // A failure in the headers is all of the answer: nothing of the request was done.
    if is_unlabelled(response.headers()) {
        relabel(response.headers_mut(), Effect::None);
        return response;
    }
    response.map(|body| Body::new(Labelled(body)))
}

fn is_unlabelled(headers: &HeaderMap) -> bool {
    let failed = Status::from_header_map(headers).is_some_and(|status| status.code() != Code::Ok);
    failed && !headers.contains_key(EFFECT_KEY)
}

fn relabel(headers: &mut HeaderMap, effect: Effect) {
    let Some(status) = Status::from_header_map(headers) else { return };
    let labelled = Failure::of_library(&status, effect).into_status_with(status.code());
    if let Err(error) = labelled.add_header(headers) {
        tracing::warn!(%error, "a failure is answered without saying whether it had an effect");
    }
}

/// An answer whose trailers are looked at.
struct Labelled(Body);

impl HttpBody for Labelled {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        let Poll::Ready(Some(Ok(mut frame))) = frame else { return frame };
        if let Some(trailers) = frame.trailers_mut()
            && is_unlabelled(trailers)
        {
            relabel(trailers, Effect::Unknown);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
