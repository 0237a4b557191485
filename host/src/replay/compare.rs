//! Two nodes' logs, side by side.

use super::{Answered, ReplayError, Replayer, Step};
use crate::types::Index;

/// What two nodes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The first index at which both have a state.
    pub began: Index,
    /// The last index that was compared and was the same.
    pub agreed: Option<Index>,
    /// What is different after that.
    pub divergence: Option<Divergence>,
}

/// The first difference between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// Already where the comparison begins: in a snapshot, or before the first common index.
    Start(Index),
    /// The logs hold different committed entries: the promise of Raft itself is broken, or a log
    /// was changed.
    Entry(Index),
    /// The same entry in the same state got different answers, or the same at different cost.
    Execution {
        /// The entry.
        index: Index,
        /// Which of "outcome", "fuel" and "state" are different.
        what: Vec<&'static str>,
    },
}

impl Divergence {
    /// Where it is.
    pub fn index(&self) -> Index {
        match self {
            Divergence::Start(index) | Divergence::Entry(index) => *index,
            Divergence::Execution { index, .. } => *index,
        }
    }
}

/// Re-executes both to the end of the shorter one, or `to`, and stops at the first difference.
/// `each` sees all steps of both, numbered 0 and 1.
///
/// # Errors
/// See [`ReplayError`].
pub fn compare(
    left: &mut Replayer,
    right: &mut Replayer,
    to: Option<Index>,
    mut each: impl FnMut(usize, &Step),
) -> Result<Comparison, ReplayError> {
    let began = left.applied().max(right.applied());
    for (side, replayer) in [&mut *left, &mut *right].into_iter().enumerate() {
        while replayer.applied() < began {
            let Some(step) = replayer.step(false)? else {
                return Err(ReplayError::NoStart(format!(
                    "one node begins at index {began} and the other ends at {}",
                    replayer.applied()
                )));
            };
            each(side, &step);
        }
    }
    if left.digest()? != right.digest()? {
        let divergence = Some(Divergence::Start(began));
        return Ok(Comparison { began, agreed: None, divergence });
    }
    let end = to.unwrap_or(Index(u64::MAX)).min(left.last()).min(right.last());
    while left.applied() < end {
        let index = left.applied().next();
        let divergence = if left.next_entry()? != right.next_entry()? {
            Some(Divergence::Entry(index))
        } else {
            let steps = (left.step(true)?, right.step(true)?);
            let (Some(of_left), Some(of_right)) = steps else { break };
            each(0, &of_left);
            each(1, &of_right);
            difference(&of_left, &of_right)
        };
        if divergence.is_some() {
            return Ok(Comparison { began, agreed: Some(Index(index.0 - 1)), divergence });
        }
    }
    Ok(Comparison { began, agreed: Some(left.applied()), divergence: None })
}

/// Whether the nodes gave another number of answers to the entry, or such as differ so.
fn differ(left: &Step, right: &Step, do_differ: fn(&Answered, &Answered) -> bool) -> bool {
    let mut pairs = left.answers.iter().zip(&right.answers);
    left.answers.len() != right.answers.len() || pairs.any(|(one, other)| do_differ(one, other))
}

fn difference(left: &Step, right: &Step) -> Option<Divergence> {
    let differs = [
        ("outcome", differ(left, right, |one, other| one.reply != other.reply)),
        ("fuel", differ(left, right, |one, other| one.fuel_used != other.fuel_used)),
        ("state", left.digest != right.digest),
    ];
    let what: Vec<_> =
        differs.into_iter().filter(|(_, differs)| *differs).map(|(w, _)| w).collect();
    let index = left.position.index;
    (!what.is_empty()).then_some(Divergence::Execution { index, what })
}
