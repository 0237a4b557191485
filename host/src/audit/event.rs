//! What a line says.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::text::civil_from_days;
use crate::types::{ClusterId, NodeId};

/// Longest name, address or group, in characters.
const NAME_CHARS: usize = 128;
/// Longest account of what was asked for, in characters.
const WHAT_CHARS: usize = 512;

/// By what somebody is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// By nothing.
    #[default]
    None,
    /// A certificate.
    Certificate,
    /// A token.
    Token,
    /// The node's Unix socket.
    Socket,
    /// It is the node itself.
    Node,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Who {
    /// The name; empty: nobody knows.
    pub name: Cow<'static, str>,
    /// By what that is known.
    pub credential: Credential,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEffect {
    /// It was done.
    Done,
    /// It surely was not.
    None,
    /// Nobody can say.
    Unknown,
}

/// Something that is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Such as `members.remove`.
    pub kind: &'static str,
    /// Who asked.
    pub who: Who,
    /// From which address, or `unix`; empty: the node itself.
    pub from: String,
    /// `Service/Method`; empty: no method.
    pub method: &'static str,
    /// Another node passed it on.
    pub forwarded: bool,
    /// The group that it is about; empty: none.
    pub group: String,
    /// What was asked for, in a few words.
    pub what: String,
    /// The entry that it became, where that is known.
    pub index: Option<u64>,
    /// What came of it.
    pub effect: AuditEffect,
    /// Why it failed; empty: it did not.
    pub reason: Cow<'static, str>,
}

impl Event {
    /// Something that the node did by itself.
    pub fn of_node(kind: &'static str, by: &'static str, what: String) -> Event {
        Event {
            kind,
            who: Who { name: Cow::Borrowed(by), credential: Credential::Node },
            from: String::new(),
            method: "",
            forwarded: false,
            group: String::new(),
            what,
            index: None,
            effect: AuditEffect::Done,
            reason: Cow::Borrowed(""),
        }
    }

    /// What comes from outside is bounded, wherever it was taken from.
    pub(super) fn bounded(mut self) -> Event {
        for (text, chars) in [
            (&mut self.from, NAME_CHARS),
            (&mut self.group, NAME_CHARS),
            (&mut self.what, WHAT_CHARS),
        ] {
            shorten(text, chars);
        }
        if self.who.name.len() > NAME_CHARS {
            shorten(self.who.name.to_mut(), NAME_CHARS);
        }
        self
    }
}

fn shorten(text: &mut String, chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
        text.push('…');
    }
}

/// Which node writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    node: u64,
    cluster: String,
    who: &'a Who,
    from: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    forwarded: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    effect: AuditEffect,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    lost_before: u64,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The line without its end. `lost_before`: so many would have been in front of it.
pub(super) fn line(writer: &Writer, at: SystemTime, event: &Event, lost_before: u64) -> String {
    let line = Line {
        time: rfc3339(at),
        event: event.kind,
        node: writer.node.0,
        cluster: writer.cluster.to_string(),
        who: &event.who,
        from: &event.from,
        method: event.method,
        forwarded: event.forwarded,
        group: &event.group,
        what: &event.what,
        index: event.index,
        effect: event.effect,
        reason: &event.reason,
        lost_before,
    };
    serde_json::to_string(&line).expect("texts and numbers")
}

/// In UTC, with milliseconds.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let rest = seconds % 86_400;
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Writer = Writer { cluster: ClusterId([7; 16]), node: NodeId(3) };

    #[test]
    fn a_line_says_who_did_what_from_where() {
        let event = Event {
            who: Who { name: "ann".into(), credential: Credential::Token },
            from: "10.0.0.1".to_owned(),
            method: "Admin/RemoveMember",
            group: "main".to_owned(),
            index: Some(41),
            ..Event::of_node("members.remove", "", "node 2".to_owned())
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_862_896_007);
        let cluster = "07".repeat(16);
        assert_eq!(
            line(&WRITER, at, &event, 0),
            format!(
                r#"{{"time":"2026-01-31T12:34:56.007Z","event":"members.remove","node":3,"cluster":"{cluster}","who":{{"name":"ann","credential":"token"}},"from":"10.0.0.1","method":"Admin/RemoveMember","group":"main","what":"node 2","index":41,"effect":"done"}}"#
            )
        );
        assert!(line(&WRITER, at, &event, 5).ends_with(r#""effect":"done","lost_before":5}"#));
    }

    #[test]
    fn whatever_somebody_is_called_a_line_is_one_line_and_short() {
        let long = "\"\n\u{1F600}".repeat(1_000);
        let event = Event {
            who: Who { name: long.clone().into(), credential: Credential::Certificate },
            from: long.clone(),
            group: long.clone(),
            what: long.clone(),
            ..Event::of_node("refused", "", String::new())
        };
        let line = line(&WRITER, SystemTime::UNIX_EPOCH, &event.bounded(), 0);
        assert!(line.len() < 4_096 && !line.contains('\n'), "{} bytes", line.len());
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
    }
}
