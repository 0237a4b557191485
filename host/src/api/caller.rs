//! What a request says about itself: its deadline, and whether another node passed it on.

use std::future::Future;
use std::time::Duration;

use raft_host_proto::v1::Reason;
use raft_host_proto::{ACTOR_KEY, FORWARDED_KEY};
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::MetadataMap;

use super::failure::Failure;
use crate::types::{Actor, NodeId, PrincipalId, TokenId};

/// Who asks, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Another node passed the request on: it must not travel further.
    pub(super) forwarded: bool,
    /// When the answer is of no use any more.
    pub(super) deadline: Instant,
    /// Whether the client chose the deadline.
    pub(super) has_deadline: bool,
    /// In whose name.
    pub(super) actor: Actor,
}

/// Longest time by which a deadline is anticipated, so that the answer that says so arrives: the
/// asking began before a connection was there, and either machine may have other things to do.
const MAX_MARGIN: Duration = Duration::from_millis(500);
/// A far deadline is as good as an endless one, and cannot overflow.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// When so much time has passed from now on.
fn after(patience: Duration) -> Instant {
    Instant::now() + patience.min(FAR)
}

/// When to answer somebody who waits for so long.
fn in_time(asked: Duration) -> Instant {
    after(asked - MAX_MARGIN.min(asked / 5))
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>, default: Duration) -> Caller {
        let asked = timeout(request.metadata());
        Caller {
            forwarded: request.metadata().contains_key(FORWARDED_KEY),
            deadline: asked.map_or_else(|| after(default), in_time),
            has_deadline: asked.is_some(),
            actor: actor_of(request),
        }
    }

    /// When to answer a request of a stream that came with a timeout; 0: without one, and it takes
    /// the default.
    pub(super) fn deadline_within(&self, timeout_ms: u64, default: Duration) -> Instant {
        let own = match timeout_ms {
            0 => after(default),
            asked => in_time(Duration::from_millis(asked)),
        };
        match self.has_deadline {
            true => own.min(self.deadline),
            false => own,
        }
    }

    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs something that may have an effect, at most until the deadline.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout_at(self.deadline, work).await.unwrap_or_else(|_| {
            Err(Failure::unknown(
                Reason::DeadlineExceeded,
                "no answer in time; it may have been done, or may still be",
            ))
        })
    }

    /// As [`Caller::within`], of something that changes nothing.
    pub(super) async fn within_question<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout_at(self.deadline, work).await.unwrap_or_else(|_| {
            Err(Failure::none(Reason::DeadlineExceeded, "no answer in time; nothing was changed"))
        })
    }
}

/// In whose name a request is made, as whoever let it in has found out.
fn actor_of<T>(request: &Request<T>) -> Actor {
    request.extensions().get::<Actor>().copied().unwrap_or_default()
}

/// Says to the leader in whose name a request is made that is passed on to it.
pub(super) fn name_actor(metadata: &mut MetadataMap, actor: Actor) {
    let text = match actor {
        Actor::Nobody => return,
        Actor::Local(node) => format!("local:{node}"),
        Actor::Principal { id, token: None } => format!("principal:{}", id.0),
        Actor::Principal { id, token: Some(token) } => format!("principal:{}:{}", id.0, token.0),
    };
    let text = text.parse().expect("letters, digits and colons");
    metadata.insert(ACTOR_KEY, text);
}

/// In whose name another node says that a request is made. Whoever asks must know that it is a node
/// of this cluster that says so: anybody can write this.
pub fn forwarded_actor(metadata: &MetadataMap) -> Option<Actor> {
    let mut named = metadata.get_all(ACTOR_KEY).iter();
    let (Some(only), None) = (named.next(), named.next()) else { return None };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().ok()).flatten().filter(|number| *number != 0)
    };
    let (kind, who) = only.to_str().ok()?.split_once(':')?;
    match (kind, who.split_once(':')) {
        ("local", None) => Some(Actor::Local(NodeId(number(who)?))),
        ("principal", None) => {
            Some(Actor::Principal { id: PrincipalId(number(who)?), token: None })
        }
        ("principal", Some((id, token))) => Some(Actor::Principal {
            id: PrincipalId(number(id)?),
            token: Some(TokenId(number(token)?)),
        }),
        _ => None,
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_acts_is_read_as_it_is_said_and_what_came_in_counts_as_it_was_let_in() {
        let by = |token| Actor::Principal { id: PrincipalId(7), token };
        for actor in [Actor::Local(NodeId(3)), by(None), by(Some(TokenId(9)))] {
            let mut metadata = MetadataMap::new();
            name_actor(&mut metadata, actor);
            assert_eq!(forwarded_actor(&metadata), Some(actor));
            // Said twice, it is not known which is meant.
            metadata.append(ACTOR_KEY, "local:1".parse().expect("ascii"));
            assert_eq!(forwarded_actor(&metadata), None);
        }
        let mut metadata = MetadataMap::new();
        name_actor(&mut metadata, Actor::Nobody);
        assert!(metadata.is_empty() && forwarded_actor(&metadata).is_none());
        for nonsense in [
            "",
            "local",
            "local:",
            "local:0",
            "local:1:2",
            "principal:x",
            "principal:1:2:3",
            "x:1",
            "local:+1",
        ] {
            metadata.insert(ACTOR_KEY, nonsense.parse().expect("ascii"));
            assert_eq!(forwarded_actor(&metadata), None, "{nonsense:?}");
        }
        // Nobody is believed who only says so.
        let mut request = Request::new(());
        name_actor(request.metadata_mut(), by(None));
        assert_eq!(Caller::of(&request, Duration::ZERO).actor, Actor::Nobody);
        request.extensions_mut().insert(by(Some(TokenId(1))));
        assert_eq!(Caller::of(&request, Duration::ZERO).actor, by(Some(TokenId(1))));
    }

    #[test]
    fn grpc_timeouts_are_read_and_nonsense_is_ignored() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ascii"));
            timeout(&metadata)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for nonsense in ["", "S", "3", "-1S", "3X", "123456789S", "+3S"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
