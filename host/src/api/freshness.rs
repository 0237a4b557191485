//! How long ago it is certain that this node knew all there was.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The latest moment of which it is known that everything that was acknowledged before it is applied
/// here: when a question began that the leader has confirmed (Raft dissertation section 6.4).
#[derive(Debug, Default)]
pub(super) struct Freshness(Mutex<Option<Instant>>);

impl Freshness {
    /// All that was acknowledged when `began` is applied here.
    pub(super) fn note(&self, began: Instant) {
        // Nothing panics under this lock.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(Some(began));
    }

    /// How long ago that moment is; `None`: there was none.
    pub(super) fn age(&self) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|began| began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_began_earlier_makes_nothing_older() {
        let fresh = Freshness::default();
        assert_eq!(fresh.age(), None);
        let early = Instant::now();
        let late = early + Duration::from_millis(1);
        fresh.note(late);
        fresh.note(early);
        assert_eq!(*fresh.0.lock().expect("nothing panicked"), Some(late));
        assert!(fresh.age().is_some());
    }
}
