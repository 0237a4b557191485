//! Re-executed entries, one by one.

use serde_json::{Value, json};

use crate::cli::output::{answer_fields, hex, human_count, readable_line};
use crate::machine::Reply;
use crate::replay::{Answered, Step, Watched};
use crate::types::{Outcome, Position, StateDigest};

/// How much of a command, an answer or an event a line shows.
const SHOWN_CHARS: usize = 120;

/// Lines for each command; the digest is that after the last.
pub(super) fn entry_text(step: &Step) -> impl Iterator<Item = String> {
    answers(step).map(|(position, answered, digest)| {
        let line = format!(
            "{:>10}  term {:<4}  {:<15}  {:<28}  fuel {:>12}  {}",
            position.to_string(),
            step.position.term.0,
            step.kind,
            reply_text(&answered.reply),
            human_count(answered.fuel_used),
            digest.map_or("-".to_owned(), StateDigest::short),
        );
        let watched = answered.watched.as_ref();
        watched.map_or(line.clone(), |watched| format!("{line}{}", watched_text(answered, watched)))
    })
}

fn watched_text(answered: &Answered, watched: &Watched) -> String {
    let mut text = String::new();
    let mut add = |what: &str, bytes: &[u8]| {
        text.push_str(&format!("\n            {what:<8} {}", readable_line(bytes, SHOWN_CHARS)));
    };
    if let Some(command) = &watched.command {
        add("command", &command.data);
    }
    if let Some(answer) = answer(&answered.reply) {
        add("answer", answer);
    }
    for event in &watched.events {
        add("event", &[&event.topic[..], b" ", &event.data].concat());
    }
    text
}

/// What the guest said.
fn answer(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Command(Outcome::Ok(bytes) | Outcome::Rejected(bytes)) if !bytes.is_empty() => {
            Some(bytes)
        }
        _ => None,
    }
}

pub(super) fn entry_json(side: usize, step: &Step) -> impl Iterator<Item = Value> {
    answers(step).map(move |(position, answered, digest)| {
        let mut value = json!({
            "node": side,
            "index": position.index.0,
            "ordinal": position.ordinal,
            "term": step.position.term.0,
            "kind": step.kind,
            "reply": reply_text(&answered.reply),
            "fuel_used": answered.fuel_used,
            "digest": digest.map(StateDigest::to_string),
        });
        if let Some(watched) = &answered.watched {
            watched_json(&mut value, answered, watched);
        }
        value
    })
}

fn watched_json(value: &mut Value, answered: &Answered, watched: &Watched) {
    let mut add = |name: &str, bytes: &[u8]| {
        let (text, encoding) = answer_fields(bytes);
        value[name] = text;
        value[format!("{name}_encoding")] = json!(encoding);
    };
    if let Some(command) = &watched.command {
        add("command", &command.data);
    }
    if let Some(answer) = answer(&answered.reply) {
        add("answer", answer);
    }
    let events = watched.events.iter().map(|event| {
        let (topic, (data, encoding)) = (hex(&event.topic), answer_fields(&event.data));
        let topic = String::from_utf8(event.topic.clone()).unwrap_or(topic);
        json!({ "topic": topic, "data": data, "data_encoding": encoding })
    });
    value["events"] = events.collect();
}

fn answers(step: &Step) -> impl Iterator<Item = (Position, &Answered, Option<&StateDigest>)> {
    let last = step.answers.len().saturating_sub(1);
    step.answers.iter().enumerate().map(move |(at, answered)| {
        let position = Position { index: step.position.index, ordinal: at as u32 };
        (position, answered, step.digest.as_ref().filter(|_| at == last))
    })
}

/// What became of an entry, in a few words.
fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Nothing => "-".to_owned(),
        Reply::Command(outcome) => outcome_text(outcome),
        Reply::Waiting(_) => "waits".to_owned(),
        Reply::NoModule => "no module".to_owned(),
        Reply::Refused(_) => "refused".to_owned(),
        Reply::SessionOpened { .. } => "opened".to_owned(),
        Reply::SessionKept { .. } => "kept".to_owned(),
        Reply::SessionClosed => "closed".to_owned(),
        Reply::ChunkStored { received, total } => format!("{received} of {total} bytes"),
        Reply::ChunkRefused(_)
        | Reply::LimitsRefused(_)
        | Reply::EngineRefused(_)
        | Reply::KeysRefused(_)
        | Reply::ClockRefused(_)
        | Reply::ReceiptRefused(_)
        | Reply::ForkRefused(_)
        | Reply::AccessRefused(_) => "refused".to_owned(),
        Reply::Activated { hash, .. } => format!("active: {}", hash.short()),
        Reply::AlreadyActive { .. } => "active already".to_owned(),
        Reply::ActivationFailed(_) => "not activated".to_owned(),
        Reply::NotSigned(_) => "not signed".to_owned(),
        Reply::ReceiptStale(_) => "receipt stale".to_owned(),
        Reply::ReceiptRecorded { .. } => "recorded".to_owned(),
        Reply::Forked { module, .. } => format!("fork for {}", module.short()),
        Reply::UpgradeSettled { .. } => "settled".to_owned(),
        Reply::ActivationSuperseded { .. } => "superseded".to_owned(),
        Reply::LimitsSet { .. }
        | Reply::EngineSet { .. }
        | Reply::KeysSet(_)
        | Reply::LevelSet { .. }
        | Reply::ClockSet { .. }
        | Reply::AccessSet { .. } => "set".to_owned(),
        Reply::DigestTaken { digest, .. } => format!("digest {}", digest.short()),
        Reply::DigestJudged(verdict) => format!("verdict about {}", verdict.point),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(answer) => format!("ok, {} bytes", answer.len()),
        Outcome::Rejected(_) => "rejected".to_owned(),
        Outcome::Trapped(kind) => format!("trapped: {}", kind.name()),
        Outcome::Duplicate(first) => format!("duplicate of {}", outcome_text(first)),
    }
}
