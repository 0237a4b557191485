//! In what two instances differ that did the same and must not differ in anything.

use super::lab::Done;
use super::words::{ended, quoted};
use crate::types::StateDigest;

/// What a step came to in one instance; a step that calls nothing has no `done`.
pub(super) struct Came {
    pub(super) done: Option<Done>,
    pub(super) digest: StateDigest,
}

/// What the second did otherwise, as the rest of a sentence about it.
pub(super) fn difference(first: &Came, second: &Came) -> Option<String> {
    if let (Some(first), Some(second)) = (&first.done, &second.done) {
        if first.outcome() != second.outcome() {
            let (first, second) = (ended_with_events(first), ended_with_events(second));
            return Some(format!("came to another outcome: {second} instead of {first}"));
        }
        let (fuel, again) = (first.call.fuel_used, second.call.fuel_used);
        if fuel != again {
            return Some(format!("used other fuel: {again} instead of {fuel}"));
        }
        if first.log != second.log {
            return Some("logged other lines".to_owned());
        }
    }
    (first.digest != second.digest).then(|| "has other memory or globals after it".to_owned())
}

/// The outcome with the events, if there are.
pub(super) fn ended_with_events(done: &Done) -> String {
    match done.call.events.len() {
        0 => ended(done),
        _ => format!("{} and the event(s) {}", ended(done), listed(done)),
    }
}

/// Its events, the first few.
pub(super) fn listed(done: &Done) -> String {
    let events: Vec<String> = done
        .call
        .events
        .iter()
        .take(5)
        .map(|event| format!("{} {}", quoted(&event.topic), quoted(&event.data)))
        .collect();
    if events.is_empty() { "none".to_owned() } else { events.join(", ") }
}
