//! Bytes and outcomes in sentences.

use super::hints;
use super::lab::Done;
use crate::fsm::GuestResult;

/// Characters of an input or an answer that are shown.
const SHOWN_MAX: usize = 80;

/// Bytes on one line: text in quotes, anything else in hexadecimal; cut if long.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let length = bytes.len();
    let head = &bytes[..length.min(SHOWN_MAX)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        // The cut may go through a character.
        Err(error) if error.error_len().is_none() && length > SHOWN_MAX => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let shown = match text {
        Some(text) => format!("{text:?}"),
        None => {
            let digits: String =
                head.iter().take(SHOWN_MAX / 2).map(|b| format!("{b:02x}")).collect();
            format!("hex {digits}")
        }
    };
    let cut = if text.is_some() { SHOWN_MAX } else { SHOWN_MAX / 2 };
    if length > cut { format!("{shown}… ({length} bytes)") } else { shown }
}

/// How a call ended, for people.
pub(super) fn ended(done: &Done) -> String {
    match &done.call.result {
        GuestResult::Ok(output) => format!("ok {}", quoted(output)),
        GuestResult::Rejected(reason) => format!("rejected {}", quoted(reason)),
        GuestResult::Trapped(trap) => {
            let said = done.log.iter().rev().find(|(level, _)| level.name() == "error");
            match said {
                Some((_, line)) => format!("trapped {}; it logged: {line}", trap.kind.name()),
                None => {
                    let (name, did) = (trap.kind.name(), trap.kind.describe());
                    let hint = hints::trap(trap.kind).map(|hint| format!(" ({hint})"));
                    format!("trapped {name}: it {did}{}", hint.unwrap_or_default())
                }
            }
        }
    }
}
