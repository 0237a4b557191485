//! What calls leave in the audit log.
//!
//! One place sees them all ([`super::trailers`]): it begins a [`Record`] before anything of a call is looked at,
//! and ends it with what its client is told. In between whoever knows more says so to the [`Witness`], an
//! extension of the request: who asks, what for, which entry it became. What is noted of which method is one
//! table ([`methods`]).

mod methods;
mod told;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::HeaderMap;
use raft_host_proto::v1::{Effect, ErrorDetail, Reason};
use raft_host_proto::{EFFECT_KEY, EFFECT_NONE, FORWARDED_KEY};
use tonic::{Code, Response, Status};

use self::methods::{Audited, Method};
pub(super) use self::told::Told;
use super::failure::Failure;
use super::io::Caller;
use crate::audit::{Audit, AuditEffect, Credential, Event, Place, Who};
use crate::types::{Actor, ActorName};

/// What addresses are called where there is none.
const SOCKET: &str = "unix";
/// What it is called when somebody may not do something, or not so often; or is not known.
const REFUSED: &str = "refused";
const NOT_KNOWN: &str = "auth.failed";

/// What a call says of itself while it is served; an extension of its request.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Option<Arc<Seen>>);

#[derive(Debug)]
struct Seen {
    audit: Arc<Audit>,
    method: &'static Method,
    from: String,
    forwarded: bool,
    who: OnceLock<Who>,
    told: OnceLock<(String, String)>,
    /// 0: nobody has said.
    index: AtomicU64,
}

/// A call that is not over; dropping it ends it.
pub(super) struct Record {
    seen: Arc<Seen>,
    place: Option<Place>,
    is_over: bool,
}

/// For what comes by a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandNotes(Option<Arc<Seen>>);

impl Witness {
    /// Of the call of this request.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Witness {
        request.extensions().get::<Witness>().cloned().unwrap_or_default()
    }

    /// It is known now who asks; a name that was found before stays.
    pub(super) fn knows(&self, who: impl FnOnce() -> Who) {
        if let Some(seen) = &self.0 {
            seen.who.get_or_init(who);
        }
    }

    /// What is asked for.
    pub(super) fn hears(&self, request: &impl Told) {
        if let Some(seen) = self.0.as_ref().filter(|seen| seen.notes_successes()) {
            let _ = seen.told.set((request.group().to_owned(), request.what()));
        }
    }

    /// The entry that it has become.
    pub(super) fn at(&self, index: u64) {
        if let Some(seen) = &self.0 {
            seen.index.store(index, Ordering::Relaxed);
        }
    }

    /// As [`Witness::at`], on the way of an answer.
    pub(super) fn answer<T>(&self, response: T, index: impl FnOnce(&T) -> u64) -> Response<T> {
        self.at(index(&response));
        Response::new(response)
    }

    /// Where what comes by this stream is noted.
    pub(super) fn commands(&self) -> CommandNotes {
        CommandNotes(self.0.clone())
    }
}

/// Somebody whose name nobody has looked up.
pub(super) fn who_is(actor: Actor, name: ActorName) -> Who {
    let credential = match actor {
        Actor::Nobody => return Who::default(),
        Actor::Local(_) => Credential::Socket,
        Actor::Principal { token: Some(_), .. } => Credential::Token,
        Actor::Principal { token: None, .. } => Credential::Certificate,
    };
    let name = if name.is_none() { actor.to_string() } else { name.as_str().to_owned() };
    Who { name: Cow::Owned(name), credential }
}

impl Seen {
    /// Whether it is noted that something was done, and not only that it was refused.
    fn notes_successes(&self) -> bool {
        match self.method.audited {
            Audited::Always => true,
            Audited::Refusals => false,
            // The node that was asked notes them.
            Audited::Commands => self.audit.notes_commands() && !self.forwarded,
        }
    }

    fn event(&self, kind: &'static str, told: (String, String)) -> Event {
        let (group, what) = told;
        let index = Some(self.index.load(Ordering::Relaxed)).filter(|index| *index > 0);
        Event {
            who: self.who.get().cloned().unwrap_or_default(),
            from: self.from.clone(),
            method: self.method.name(),
            forwarded: self.forwarded,
            group,
            index,
            ..Event::of_node(kind, "", what)
        }
    }
}

impl Seen {
    fn failure(
        &self,
        kind: &'static str,
        told: (String, String),
        reason: Reason,
        effect: Effect,
    ) -> Event {
        let effect = match effect {
            Effect::None => AuditEffect::None,
            Effect::Unknown => AuditEffect::Unknown,
        };
        Event { effect, reason: Cow::Owned(reason.name()), ..self.event(kind, told) }
    }

    fn refuse(&self, told: (String, String), reason: Reason, effect: Effect) {
        self.audit.note_refusal(self.failure(REFUSED, told, reason, effect));
    }
}

impl CommandNotes {
    /// A command has its answer: its index, or why it failed.
    pub(super) fn note(&self, request: &impl Told, outcome: Result<u64, (Reason, Effect)>) {
        let Some(seen) = &self.0 else { return };
        let told = || (request.group().to_owned(), request.what());
        match outcome {
            Err((reason, effect)) if is_refusal(reason) => seen.refuse(told(), reason, effect),
            Err((reason, effect)) if seen.notes_successes() => {
                seen.audit.note(seen.failure(seen.method.kind, told(), reason, effect), None);
            }
            Ok(index) if seen.notes_successes() => {
                let event = Event { index: Some(index), ..seen.event(seen.method.kind, told()) };
                seen.audit.note(event, None);
            }
            _ => {}
        }
    }

    /// Something was not even looked at; of interest if that is because of who asks, or how often.
    pub(super) fn refuse(&self, reason: Reason, effect: Effect) {
        if let Some(seen) = self.0.as_ref().filter(|_| is_refusal(reason)) {
            seen.refuse((String::new(), String::new()), reason, effect);
        }
    }
}

/// Whether somebody was refused because of who they are, or how often they ask.
fn is_refusal(reason: Reason) -> bool {
    let code = reason.code();
    reason == Reason::RateLimited || matches!(code, Code::PermissionDenied | Code::Unauthenticated)
}

impl Record {
    /// A call begins. `None`: nothing is noted.
    pub(super) fn begin(
        audit: Option<&Arc<Audit>>,
        request: &mut Request,
    ) -> Result<Option<Record>, Failure> {
        let Some(audit) = audit else { return Ok(None) };
        let method = Method::of(request.uri().path());
        let caller = request.extensions().get::<Caller>();
        let from = caller.and_then(|caller| caller.place.address.as_ref().map(IpAddr::to_string));
        let may_pass_on = caller.is_none_or(|caller| caller.presented.may_pass_on());
        let seen = Arc::new(Seen {
            audit: Arc::clone(audit),
            method,
            from: from.unwrap_or_else(|| SOCKET.to_owned()),
            forwarded: may_pass_on && request.headers().contains_key(FORWARDED_KEY),
            who: OnceLock::new(),
            told: OnceLock::new(),
            index: AtomicU64::new(0),
        });
        let place = match seen.notes_successes() {
            true => audit
                .expect_one()
                .map_err(|unwritable| Failure::none(Reason::NotAudited, unwritable.to_string()))?,
            false => None,
        };
        // A stream lasts, and its commands are noted one by one.
        let place = place.filter(|_| method.audited == Audited::Always);
        request.extensions_mut().insert(Witness(Some(Arc::clone(&seen))));
        Ok(Some(Record { seen, place, is_over: false }))
    }

    /// It is over, and these headers or trailers say what became of it.
    pub(super) fn end(mut self, headers: &HeaderMap) {
        self.is_over = true;
        let status = Status::from_header_map(headers);
        let Some(status) = status.filter(|status| status.code() != Code::Ok) else {
            return self.note_success();
        };
        let detail = ErrorDetail::of(&status);
        if let Some(detail) = detail.as_ref().filter(|detail| detail.index > 0) {
            self.seen.index.store(detail.index, Ordering::Relaxed);
        }
        let reason = detail.as_ref().map(ErrorDetail::reason);
        let is_limited = reason == Some(Reason::RateLimited);
        let kind = match status.code() {
            Code::Unauthenticated => NOT_KNOWN,
            Code::PermissionDenied => REFUSED,
            _ if is_limited => REFUSED,
            _ if self.seen.notes_successes() && !self.is_of_stream() => self.seen.method.kind,
            _ => return,
        };
        let says_none = headers.get(EFFECT_KEY).is_some_and(|effect| effect == EFFECT_NONE);
        let effect = if says_none { AuditEffect::None } else { AuditEffect::Unknown };
        let name = reason.map_or_else(|| format!("{:?}", status.code()), Reason::name);
        let event = self.event(kind, effect, Cow::Owned(name));
        match kind {
            NOT_KNOWN | REFUSED => self.seen.audit.note_refusal(event),
            _ => self.seen.audit.note(event, self.place.take()),
        }
    }

    fn note_success(&mut self) {
        if self.seen.notes_successes() && !self.is_of_stream() {
            let event = self.event(self.seen.method.kind, AuditEffect::Done, Cow::Borrowed(""));
            self.seen.audit.note(event, self.place.take());
        }
    }

    /// Whether it is a stream whose commands are noted one by one.
    fn is_of_stream(&self) -> bool {
        self.seen.method.audited == Audited::Commands && self.seen.told.get().is_none()
    }

    fn event(&self, kind: &'static str, effect: AuditEffect, reason: Cow<'static, str>) -> Event {
        let told = self.seen.told.get().cloned().unwrap_or_default();
        Event { effect, reason, ..self.seen.event(kind, told) }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Whoever asked has gone.
        if !self.is_over && self.seen.notes_successes() && !self.is_of_stream() {
            let reason = Cow::Borrowed("broken_off");
            let event = self.event(self.seen.method.kind, AuditEffect::Unknown, reason);
            self.seen.audit.note(event, self.place.take());
        }
    }
}
