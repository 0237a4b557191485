//! Who calls, and whether it may. Every call passes here before anything of it is read.
//!
//! ```text
//!   connection ──► what it has proved: a certificate, the Unix socket ─┐
//!   request ─────► a token; for whom a node passes it on ──────────────┴─► an actor ─► what the method asks
//! ```
//!
//! This is the first of two judgements, by the state that this node has applied. What is proposed is judged
//! again where it is applied. An answer that goes on is looked at again and again: one whose caller may
//! not have it any more ends.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, header};
use axum::middleware::Next;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use raft_host_proto::FORWARDED_KEY;
use raft_host_proto::v1::Reason;
use tokio::time::{Instant, Sleep};
use tonic::metadata::MetadataMap;

use super::auditing::{Witness, who_is};
use super::caller::forwarded_actor;
use super::failure::Failure;
use super::io::{Caller, Presented};
use super::rights::{Asks, asked_by};
use super::token::hash_of_token;
use crate::certs::Subject;
use crate::machine::{Access, Class, SecretHash};
use crate::node::{MachineView, NodeHandle};
use crate::types::{Actor, ActorName, NodeId, Right};

/// How soon an answer that goes on notices that its caller may not have it any more.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What tokens are shown with (RFC 6750 §2.1).
const SCHEME: &str = "Bearer ";

/// See the module.
#[derive(Clone)]
pub(super) struct Guard {
    handle: NodeHandle,
}

/// Who calls, as far as it is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Nobody that this cluster knows; of this name, if it has shown a certificate.
    Stranger(Option<ActorName>),
    /// A node of this cluster.
    Node(NodeId),
    /// Somebody that this cluster knows.
    Known(Actor),
}

impl Guard {
    pub(super) fn new(handle: NodeHandle) -> Guard {
        Guard { handle }
    }

    /// Whether whoever asks must say who they are.
    pub(super) fn demands_identity(&self) -> bool {
        let view = self.handle.machine();
        let view = view.borrow();
        view.as_ref().is_some_and(|view| view.info.access.is_in_force())
    }

    /// In whose name a call is made, if it may be made.
    pub(super) fn admit(
        &self,
        asks: Asks,
        presented: &Presented,
        headers: &HeaderMap,
    ) -> Result<Actor, Failure> {
        if asks == Asks::Nothing {
            return Ok(Actor::Nobody);
        }
        let view = self.handle.machine().borrow().clone();
        let now_ms = self.handle.log_time_ms();
        let who = self.who(view.as_deref(), now_ms, presented, headers)?;
        let actor = acting(who, headers);
        let in_force = view.as_ref().map(|view| &view.info.access).filter(|it| it.is_in_force());
        match (in_force, asks) {
            // Who may speak as a node is judged elsewhere: `nodes.rs`.
            (None, _) | (_, Asks::Nothing | Asks::Node) => Ok(actor),
            (Some(_), _) if actor == Actor::Nobody => Err(unknown(who)),
            (Some(_), Asks::Identity) => Ok(actor),
            (Some(access), Asks::Right(right)) => {
                self.judge(access, now_ms, actor, right).map(|()| actor)
            }
        }
    }

    /// What somebody is called here.
    fn name_of(&self, actor: Actor) -> ActorName {
        let view = self.handle.machine();
        let view = view.borrow();
        view.as_ref().map_or(ActorName::NONE, |view| view.info.access.name_of(actor))
    }

    fn judge(
        &self,
        access: &Access,
        now_ms: u64,
        actor: Actor,
        right: Right,
    ) -> Result<(), Failure> {
        let allowed = access.allows(actor, now_ms, self.handle.group(), right, Class::Any);
        allowed.map_err(|denied| Failure::none(Reason::PermissionDenied, denied.to_string()))
    }

    /// Whether somebody who was admitted still would be.
    fn still(&self, actor: Actor, right: Right) -> Result<(), Failure> {
        let view = self.handle.machine().borrow().clone();
        let Some(view) = view else { return Ok(()) };
        self.judge(&view.info.access, self.handle.log_time_ms(), actor, right)
    }

    /// Who calls.
    fn who(
        &self,
        view: Option<&MachineView>,
        now_ms: u64,
        presented: &Presented,
        headers: &HeaderMap,
    ) -> Result<Who, Failure> {
        let identity = self.handle.identity();
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let hash = shown(value.to_str().unwrap_or_default(), presented)?;
            let known = view.and_then(|view| view.info.access.authenticate_token(&hash, now_ms));
            return known.map(Who::Known).ok_or_else(|| {
                let words = "the token is not known to this cluster, was revoked, or has expired: \
                             `raft-host token list` shows those that count";
                Failure::none(Reason::Unauthenticated, words)
            });
        }
        if presented.is_unix {
            return Ok(Who::Known(Actor::Local(identity.node)));
        }
        Ok(match presented.certificate {
            Some(Subject::Node { cluster, node }) if cluster == identity.cluster => {
                match view.is_some_and(|view| !view.members.contains_key(&node)) {
                    true => Who::Stranger(None),
                    false => Who::Node(node),
                }
            }
            Some(Subject::Client { name }) => {
                let id = view.and_then(|view| view.info.access.principal_named(&name));
                let known = id.map(|id| Who::Known(Actor::Principal { id, token: None }));
                known.unwrap_or(Who::Stranger(Some(name)))
            }
            Some(Subject::Node { .. }) | None => Who::Stranger(None),
        })
    }
}

/// The hash of the token that is shown.
fn shown(value: &str, presented: &Presented) -> Result<SecretHash, Failure> {
    let is_private =
        presented.secured || presented.address.is_some_and(|address| address.ip().is_loopback());
    if !is_private {
        let words = "tokens are taken over TLS, from this machine itself or by the Unix socket only: this one was \
                     readable on its way, revoke it (`raft-host token revoke`)";
        return Err(Failure::none(Reason::Unauthenticated, words));
    }
    let hash = value.strip_prefix(SCHEME).and_then(hash_of_token);
    hash.ok_or_else(|| {
        let words = "the metadata `authorization` must be `Bearer ` and a token of `raft-host token create`";
        Failure::none(Reason::Unauthenticated, words)
    })
}

/// For whom a call is made. Only a node is believed that it makes one for somebody else.
fn acting(who: Who, headers: &HeaderMap) -> Actor {
    match who {
        Who::Stranger(_) => Actor::Nobody,
        Who::Known(actor) => actor,
        Who::Node(_) if headers.contains_key(FORWARDED_KEY) => {
            forwarded_actor(&MetadataMap::from_headers(headers.clone())).unwrap_or_default()
        }
        Who::Node(node) => Actor::Local(node),
    }
}

fn unknown(who: Who) -> Failure {
    let words = match who {
        Who::Stranger(Some(name)) => format!(
            "rights are in force, and this cluster has no principal called {name}, as the certificate says: \
             `raft-host user add {name} --role ROLE` makes one"
        ),
        _ => "rights are in force, and nothing says who calls: give a token (--token-file) or the \
              certificate of a principal (--tls)"
            .to_owned(),
    };
    Failure::none(Reason::Unauthenticated, words)
}

/// Whether the answer to a call may come for as long as its caller likes.
fn goes_on(path: &str) -> bool {
    ["Stream", "/Watch", "/Backup", "/Export", "/Shadow"].iter().any(|end| path.ends_with(end))
}

/// The middleware.
pub(super) async fn check(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        // Not from a socket: there is nobody to be asked.
        return next.run(request).await;
    };
    let path = request.uri().path();
    let (asks, goes_on) = (asked_by(path).unwrap_or(Asks::Identity), goes_on(path));
    let actor = match guard.admit(asks, &caller.presented, request.headers()) {
        Ok(actor) => actor,
        Err(failure) => return failure.into_status().into_http(),
    };
    if actor != Actor::Nobody
        && let Some(witness) = request.extensions().get::<Witness>()
    {
        witness.knows(|| who_is(actor, guard.name_of(actor)));
    }
    request.extensions_mut().insert(actor);
    let response = next.run(request).await;
    let Asks::Right(right) = asks else { return response };
    if !goes_on {
        return response;
    }
    response.map(|body| {
        let again = Box::pin(tokio::time::sleep(LOOK_AGAIN));
        Body::new(Watched { body, guard, actor, right, again, is_over: false })
    })
}

/// An answer whose caller may lose the right to it while it goes on.
struct Watched {
    body: Body,
    guard: Guard,
    actor: Actor,
    right: Right,
    again: Pin<Box<Sleep>>,
    is_over: bool,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        while self.again.as_mut().poll(cx).is_ready() {
            if let Err(failure) = self.guard.still(self.actor, self.right) {
                self.is_over = true;
                // Whoever makes the answer notices that nobody takes it.
                self.body = Body::empty();
                let mut trailers = HeaderMap::new();
                let told = failure.into_status().add_header(&mut trailers);
                return Poll::Ready(Some(
                    told.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new),
                ));
            }
            let next = Instant::now() + LOOK_AGAIN;
            self.again.as_mut().reset(next);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use raft_host_proto::v1;

    use super::*;
    use crate::types::{PrincipalId, TokenId};

    fn headers(named: &[(&'static str, &'static str)]) -> HeaderMap {
        named
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_a_node_is_believed_in_whose_name_it_asks() {
        let ann = Actor::Principal { id: PrincipalId(9), token: Some(TokenId(11)) };
        let bob = Actor::Principal { id: PrincipalId(7), token: None };
        let named =
            headers(&[(FORWARDED_KEY, "1"), (raft_host_proto::ACTOR_KEY, "principal:9:11")]);
        assert_eq!(acting(Who::Node(NodeId(2)), &named), ann);
        assert_eq!(acting(Who::Known(bob), &named), bob);
        assert_eq!(acting(Who::Stranger(None), &named), Actor::Nobody);
        // What a node passes on in nobody's name, or in nonsense's, is nobody's.
        assert_eq!(acting(Who::Node(NodeId(2)), &headers(&[(FORWARDED_KEY, "1")])), Actor::Nobody);
        let nonsense = headers(&[(FORWARDED_KEY, "1"), (raft_host_proto::ACTOR_KEY, "admin")]);
        assert_eq!(acting(Who::Node(NodeId(2)), &nonsense), Actor::Nobody);
        assert_eq!(acting(Who::Node(NodeId(2)), &headers(&[])), Actor::Local(NodeId(2)));
    }

    #[test]
    fn a_token_is_taken_only_where_nobody_else_can_read_it() {
        let token = format!("Bearer rh1.{}", "A".repeat(43));
        let from = |address: &str, secured| Presented {
            address: Some(address.parse().unwrap()),
            secured,
            ..Presented::default()
        };
        for private in
            [from("127.0.0.1:7", false), from("[::1]:7", false), from("10.0.0.1:7", true)]
        {
            assert!(shown(&token, &private).is_ok(), "{private:?}");
        }
        let refused = shown(&token, &from("10.0.0.1:7", false)).unwrap_err();
        assert_eq!(refused.reason(), Reason::Unauthenticated);
        assert!(refused.message().contains("revoke it") && !refused.message().contains("AAAA"));
        for nonsense in ["", "Basic abc", "Bearer abc", "bearer rh1."] {
            let refused = shown(nonsense, &from("127.0.0.1:7", true)).unwrap_err();
            assert_eq!(refused.reason(), Reason::Unauthenticated, "{nonsense}");
        }
    }

    #[test]
    fn every_method_that_streams_an_answer_is_looked_at_again() {
        let set = FileDescriptorSet::decode(v1::DESCRIPTORS).expect("descriptors");
        let mut streams = 0;
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert_eq!(goes_on(&path), method.server_streaming(), "{path}");
                    streams += usize::from(method.server_streaming());
                }
            }
        }
        assert!(streams > 4);
    }
}
