//! What is to happen when, in virtual time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::observe::Micros;

struct Entry<T> {
    at: Micros,
    /// Ties are broken by the order of scheduling.
    number: u64,
    event: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Events in the order of their time. The clock stands at the last one taken.
pub struct Queue<T> {
    now: Micros,
    next_number: u64,
    entries: BinaryHeap<Reverse<Entry<T>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { now: Micros(0), next_number: 0, entries: BinaryHeap::new() }
    }
}

impl<T> Queue<T> {
    /// The time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Schedules an event some microseconds from now.
    pub fn after(&mut self, delay_us: u64, event: T) {
        self.at(Micros(self.now.0 + delay_us), event);
    }

    /// Schedules an event; what is in the past happens now.
    pub fn at(&mut self, at: Micros, event: T) {
        let at = at.max(self.now);
        let number = self.next_number;
        self.next_number += 1;
        self.entries.push(Reverse(Entry { at, number, event }));
    }

    /// Takes the next event and moves the clock to it.
    pub fn take(&mut self) -> Option<T> {
        let Reverse(entry) = self.entries.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_order_of_scheduling() {
        let mut queue = Queue::default();
        queue.after(5, "c");
        queue.after(1, "a");
        queue.after(1, "b");
        assert_eq!(queue.take(), Some("a"));
        queue.at(Micros(0), "now");
        assert_eq!(queue.take(), Some("b"));
        assert_eq!(queue.take(), Some("now"));
        assert_eq!((queue.take(), queue.now()), (Some("c"), Micros(5)));
        assert_eq!(queue.take(), None);
    }
}
