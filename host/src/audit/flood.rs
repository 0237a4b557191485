//! How many refusals are written of each source.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::event::{AuditEffect, Event, Who};

/// Lines of one source in a second.
pub(super) const LINES: u64 = 10;
/// What they are counted over.
const WINDOW: Duration = Duration::from_secs(1);
/// Sources that are told apart in a window; all others are one.
const SOURCES: usize = 1_024;
/// What those others are called.
const OTHERS: &str = "others";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flood {
    sources: HashMap<(Who, String), Counted>,
}

#[derive(Debug)]
struct Counted {
    since: Instant,
    events: u64,
}

impl Flood {
    /// Whether a refusal is one of the few that are written.
    pub(super) fn passes(&mut self, event: &Event, now: Instant) -> bool {
        let mut source = (event.who.clone(), event.from.clone());
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            source = (Who::default(), OTHERS.to_owned());
        }
        let counted = self.sources.entry(source).or_insert(Counted { since: now, events: 0 });
        counted.events += 1;
        counted.events <= LINES
    }

    /// Whether there is something that [`Flood::due`] may have to say.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What is to be said of windows that are over.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Event> {
        let over = |counted: &Counted| now.saturating_duration_since(counted.since) >= WINDOW;
        let over = self.sources.extract_if(|_, counted| over(counted));
        let unwritten = over.filter_map(|((who, from), counted)| {
            let more = counted.events.checked_sub(LINES).filter(|more| *more > 0)?;
            Some(Event {
                who,
                from,
                effect: AuditEffect::None,
                ..Event::of_node("refused.more", "", format!("{more} more within a second"))
            })
        });
        unwritten.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(from: &str) -> Event {
        Event { from: from.to_owned(), ..Event::of_node("refused", "", String::new()) }
    }

    #[test]
    fn a_few_lines_a_second_of_each_source_and_then_how_many_more() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let passed = (0..100).filter(|_| flood.passes(&refusal("a"), now)).count();
        assert_eq!(passed as u64, LINES);
        assert!(flood.passes(&refusal("b"), now), "somebody else");
        assert_eq!(flood.due(now), []);
        let due = flood.due(now + WINDOW);
        assert_eq!(due.len(), 1, "{due:?}");
        assert_eq!((due[0].from.as_str(), due[0].what.as_str()), ("a", "90 more within a second"));
        assert!(flood.is_empty() && flood.passes(&refusal("a"), now + WINDOW));
    }

    #[test]
    fn however_many_sources_there_are_few_are_remembered() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        for source in 0..100_000 {
            flood.passes(&refusal(&source.to_string()), now);
        }
        assert!(flood.sources.len() <= SOURCES + 1);
        let due = flood.due(now + WINDOW);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].from, OTHERS);
    }
}
