//! What an entry got from a machine, and what differs between two of those.

use sha2::{Digest as _, Sha256};

use super::kind::Kind;
use super::tally::shown;
use crate::machine::{Applied, CommandRefused, Held, QueryResult, Reply, SessionNumber};
use crate::types::{Event, Outcome, TrapKind};

/// An answer, so much of it as is compared and told; answers may be long, and an entry has many.
#[derive(Debug)]
pub(super) struct Seen {
    what: What,
    /// For people.
    pub(super) shown: String,
    events: [u8; 32],
    pub(super) events_shown: String,
    pub(super) fuel_used: u64,
    /// It is that of a command that had waited.
    pub(super) waited: Option<SessionNumber>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Ok([u8; 32]),
    Rejected([u8; 32]),
    Trapped(TrapKind),
    /// A retry, which was compared where it was executed.
    Duplicate,
    /// The guest did not run.
    Other(Box<Reply>),
}

impl Seen {
    pub(super) fn of(applied: Applied) -> Seen {
        let Applied { reply, fuel_used, events, waited, .. } = applied;
        let (what, shown) = match reply {
            Reply::Command(outcome) => (What::of(&outcome), outcome_words(&outcome)),
            reply => {
                let words = reply_words(&reply);
                (What::Other(Box::new(reply)), words)
            }
        };
        let (events, events_shown) = (digest_of(&events), events_words(&events));
        Seen { what, shown, events, events_shown, fuel_used, waited }
    }

    /// The guest ran, to whatever end.
    pub(super) fn ran(&self) -> bool {
        !matches!(self.what, What::Duplicate | What::Other(_))
    }

    /// The guest ran to its end.
    pub(super) fn ended(&self) -> bool {
        matches!(self.what, What::Ok(_) | What::Rejected(_))
    }

    /// In what two answers to the same command differ.
    pub(super) fn difference(&self, new: &Seen) -> Option<Kind> {
        use What as W;
        if self.waited != new.waited {
            return Some(Kind::Reply);
        }
        match (&self.what, &new.what) {
            (W::Ok(_), W::Ok(_)) if self.what == new.what => {
                (self.events != new.events).then_some(Kind::Event)
            }
            (old, new) if old == new => None,
            (W::Trapped(_), _) | (_, W::Trapped(_)) => Some(Kind::Trap),
            (W::Rejected(_), _) | (_, W::Rejected(_)) => Some(Kind::Rejected),
            _ => Some(Kind::Reply),
        }
    }

    /// Whether both answered otherwise and emitted other events, too.
    pub(super) fn emitted_otherwise(&self, new: &Seen) -> bool {
        let both = matches!((&self.what, &new.what), (What::Ok(_), What::Ok(_)));
        both && self.events != new.events
    }
}

impl What {
    fn of(outcome: &Outcome) -> What {
        let digest = |bytes: &[u8]| Sha256::digest(bytes).into();
        match outcome {
            Outcome::Ok(bytes) => What::Ok(digest(bytes)),
            Outcome::Rejected(bytes) => What::Rejected(digest(bytes)),
            Outcome::Trapped(kind) => What::Trapped(*kind),
            Outcome::Duplicate(_) => What::Duplicate,
        }
    }
}

fn digest_of(events: &[Event]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for Event { topic, data } in events {
        for part in [topic, data] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}

fn events_words(events: &[Event]) -> String {
    /// Events that are told.
    const NAMED_MAX: usize = 4;
    let named = events.iter().take(NAMED_MAX);
    let mut words: Vec<String> =
        named.map(|event| format!("{} {}", shown(&event.topic), shown(&event.data))).collect();
    if events.len() > NAMED_MAX {
        words.push(format!("and {} more", events.len() - NAMED_MAX));
    }
    if words.is_empty() { "no events".to_owned() } else { format!("events: {}", words.join(", ")) }
}

/// An outcome in words.
pub fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(bytes) if bytes.is_empty() => "ok".to_owned(),
        Outcome::Ok(bytes) => format!("ok: {}", shown(bytes)),
        Outcome::Rejected(bytes) => format!("rejected: {}", shown(bytes)),
        Outcome::Trapped(kind) => format!("trapped: it {}", kind.describe()),
        Outcome::Duplicate(first) => format!("as before: {}", outcome_words(first)),
    }
}

/// What a query got, in words.
pub(super) fn query_words(result: &QueryResult) -> String {
    match result {
        QueryResult::Answer(outcome) => outcome_words(outcome),
        QueryResult::NoModule => "no module is active".to_owned(),
        QueryResult::NoQueryExport => "it answers no queries".to_owned(),
        QueryResult::TooLarge { bytes, max } => {
            format!("not asked: {bytes} bytes are more than {max}")
        }
        QueryResult::Unanswered(reason) => format!("not asked: {reason}"),
    }
}

fn reply_words(reply: &Reply) -> String {
    match reply {
        Reply::Refused(CommandRefused::Malformed(reason)) => format!("refused: {reason}"),
        Reply::Refused(reason) => format!("refused: {reason}"),
        Reply::Waiting(_) => "waits for its turn".to_owned(),
        Reply::LimitsRefused(reason) => format!("limits refused: {reason}"),
        Reply::AccessRefused(reason) => format!("rights refused: {reason}"),
        _ => "done".to_owned(),
    }
}

/// The command that an answer is to, if it is known: one of the entry, or one that has waited.
pub(super) fn command_of<'a>(
    commands: &'a [Held],
    ordinal: u32,
    waited: Option<SessionNumber>,
    waiting: &'a [Held],
) -> Option<&'a Held> {
    match waited {
        None => commands.get(ordinal as usize),
        Some(number) => {
            let mut both = commands.iter().chain(waiting);
            both.find(|held| held.session == Some(number))
        }
    }
}
