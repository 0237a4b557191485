//! Counts bytes in flight and refuses more than the bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Exceeded;

/// A bound on bytes in flight, shared by all that take from it.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicU64>,
    max: u64,
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Budget {
    /// A bound of so many bytes.
    pub fn new(max: u64) -> Budget {
        Budget { used: Arc::default(), max }
    }

    /// `None` when the bytes do not fit. Something always fits into an unused budget.
    pub fn take(&self, bytes: u64) -> Option<Charge> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let sum = used.checked_add(bytes)?;
            (used == 0 || sum <= self.max).then_some(sum)
        });
        taken.ok().map(|_| Charge { used: Arc::clone(&self.used), bytes })
    }

    /// As [`Budget::take`], of a budget of that name.
    ///
    /// # Errors
    /// The bytes do not fit.
    pub fn take_of(&self, limit: &'static str, bytes: u64) -> Result<Charge, Exceeded> {
        self.take(bytes).ok_or_else(|| {
            let value = self.in_use().saturating_add(bytes);
            Exceeded { limit, value, max: self.max }
        })
    }

    /// Whether more could be taken.
    pub fn has_room(&self) -> bool {
        self.in_use() < self.max
    }

    /// What it is bounded by, in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Bytes that are taken.
    pub fn in_use(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Charge {
    /// One charge for both, of the same budget.
    pub(super) fn absorb(&mut self, mut other: Charge) {
        assert!(Arc::ptr_eq(&self.used, &other.used), "charges of two budgets");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_refuses_until_a_charge_is_dropped() {
        let budget = Budget::new(10);
        let first = budget.take(25).expect("an unused budget takes anything");
        assert!(budget.take(1).is_none());
        drop(first);
        let second = budget.take(6).expect("fits");
        assert!(budget.take(5).is_none());
        assert!(budget.take(4).is_some());
        drop(second);
    }

    #[test]
    fn charges_that_were_put_together_are_given_back_together() {
        let budget = Budget::new(10);
        let mut first = budget.take(4).expect("fits");
        first.absorb(budget.take(5).expect("fits"));
        assert_eq!(budget.in_use(), 9);
        drop(first);
        assert_eq!(budget.in_use(), 0);
    }
}
