//! Who waits for what becomes of a proposal, and how an answer reaches them.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::answer::{ProposeFailure, ProposeResult, stopped_unknown};
use super::budget::{Budget, Charge};
use crate::machine::Reply;

/// Where an answer goes.
#[derive(Debug)]
pub enum ReplySink {
    /// To one waiting caller.
    One(oneshot::Sender<ProposeResult>),
    /// To a caller with many proposals, who tells them apart by a tag.
    Tagged(u64, mpsc::UnboundedSender<(u64, ProposeResult)>),
    /// The same for a caller who may not take the answers: they count until it drops the charge.
    /// Of an answer that does not fit the caller hears only that.
    Charged(u64, mpsc::UnboundedSender<ChargedAnswer>, Budget),
}

impl ReplySink {
    /// Whether the caller went away.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            ReplySink::One(sender) => sender.is_closed(),
            ReplySink::Tagged(_, sender) => sender.is_closed(),
            ReplySink::Charged(_, sender, _) => sender.is_closed(),
        }
    }

    /// Tells a caller who counts answers that this one may take long.
    pub(super) fn say_it_waits(&self) {
        if let ReplySink::Charged(tag, sender, _) = self {
            // A caller that went away does not want to know.
            drop(sender.send(ChargedAnswer { tag: *tag, result: None, charge: None }));
        }
    }

    /// A caller that went away does not want the answer any more.
    pub(super) fn send(self, result: ProposeResult) {
        match self {
            ReplySink::One(sender) => drop(sender.send(result)),
            ReplySink::Tagged(tag, sender) => drop(sender.send((tag, result))),
            ReplySink::Charged(tag, sender, room) => {
                drop(sender.send(ChargedAnswer::new(tag, result, &room)));
            }
        }
    }
}

/// An answer that takes room.
#[derive(Debug)]
pub struct ChargedAnswer {
    /// As given to [`ReplySink::Charged`].
    pub tag: u64,
    /// The answer. `None`: there is none yet, because the command waits for its turn in an ordered
    /// session; it takes no room, and the answer follows.
    pub result: Option<ProposeResult>,
    /// To be dropped when the answer has left.
    pub charge: Option<Charge>,
}

impl ChargedAnswer {
    fn new(tag: u64, result: ProposeResult, room: &Budget) -> ChargedAnswer {
        match room.take(answer_bytes(&result)) {
            charge @ Some(_) => ChargedAnswer { tag, result: Some(result), charge },
            None => {
                let words = "the command was executed, and its answer dropped: too many answers \
                             wait to be read. In a session, send it again for the answer";
                let result = Err(ProposeFailure::Unknown(words.to_owned()));
                ChargedAnswer { tag, result: Some(result), charge: None }
            }
        }
    }
}

/// Bookkeeping of an answer, counted as bytes.
const ANSWER_OVERHEAD_BYTES: u64 = 256;

fn answer_bytes(result: &ProposeResult) -> u64 {
    let content = match result {
        Ok(committed) => match &committed.reply {
            Reply::Command(outcome) => outcome.bytes(),
            _ => 0,
        },
        Err(_) => 0,
    };
    content as u64 + ANSWER_OVERHEAD_BYTES
}

/// A proposal on its way; dropping it without an answer is an answer too.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Of the entry's first command, or of what else it holds.
    sink: Option<ReplySink>,
    /// Of the commands behind the first, in order.
    behind: Vec<Option<ReplySink>>,
    /// Those who share the answer.
    others: Vec<Waiter>,
    count_pages: bool,
    charge: Option<Charge>,
    /// When the part of its way began that it is on, by the node's clock; `None`: nobody measures it.
    since: Option<Duration>,
}

impl Waiter {
    /// For one proposal.
    pub(super) fn new(sink: ReplySink, charge: Charge) -> Waiter {
        Waiter::of_batch(sink, Vec::new(), charge)
    }

    /// For the commands of an entry.
    pub(super) fn of_batch(
        first: ReplySink,
        behind: Vec<Option<ReplySink>>,
        charge: Charge,
    ) -> Waiter {
        let (sink, others, charge) = (Some(first), Vec::new(), Some(charge));
        Waiter { sink, behind, others, count_pages: false, charge, since: None }
    }

    /// For what the node proposes by itself.
    pub(super) fn nobody() -> Waiter {
        Waiter::all(Vec::new())
    }

    /// For one proposal that several wait for.
    pub(super) fn all(others: Vec<Waiter>) -> Waiter {
        let (behind, charge, since) = (Vec::new(), None, None);
        Waiter { sink: None, behind, others, count_pages: false, charge, since }
    }

    /// Has its way measured from now on.
    pub(super) fn sets_out(&mut self, now: Duration) {
        self.since = Some(now);
    }

    /// Whether its way is measured.
    pub(super) fn is_measured(&self) -> bool {
        self.since.is_some()
    }

    /// A part of its way ends now, and the next one begins; how long that part took, if its way is
    /// measured.
    pub(super) fn gets_on(&mut self, now: Duration) -> Option<Duration> {
        let since = self.since.as_mut()?;
        Some(now.saturating_sub(std::mem::replace(since, now)))
    }

    /// Has the commands of another proposal behind its own, as they are in the entry. Its way stays that
    /// of its own.
    pub(super) fn join(&mut self, mut other: Waiter) {
        self.behind.push(other.sink.take());
        self.behind.append(&mut other.behind);
        self.others.append(&mut other.others);
        match (&mut self.charge, other.charge.take()) {
            (Some(charge), Some(more)) => charge.absorb(more),
            (charge, more) => *charge = charge.take().or(more),
        }
    }

    /// How many wait.
    pub(super) fn callers(&self) -> u64 {
        let sinks = self.sink.iter().chain(self.behind.iter().flatten()).count() as u64;
        sinks + self.others.iter().map(Waiter::callers).sum::<u64>()
    }

    /// Whether the callers went away.
    pub(super) fn is_gone(&self) -> bool {
        let mut sinks = self.sink.iter().chain(self.behind.iter().flatten());
        sinks.all(ReplySink::is_closed) && self.others.iter().all(Waiter::is_gone)
    }

    pub(super) fn set_count_pages(&mut self, count_pages: bool) {
        self.count_pages = count_pages;
    }

    /// Whether the pages that its entry writes shall be counted.
    pub(super) fn count_pages(&self) -> bool {
        self.count_pages
    }

    /// Without a charge.
    pub(super) fn of(sink: ReplySink) -> Waiter {
        Waiter {
            sink: Some(sink),
            behind: Vec::new(),
            others: Vec::new(),
            count_pages: false,
            charge: None,
            since: None,
        }
    }

    /// Whoever waits for one command of the entry, and for nothing else of it any more.
    pub(super) fn take(&mut self, ordinal: u32) -> Option<ReplySink> {
        match ordinal.checked_sub(1) {
            None => self.sink.take(),
            Some(behind) => self.behind.get_mut(behind as usize).and_then(Option::take),
        }
    }

    /// Answers all who have no answer yet.
    pub(super) fn answer(mut self, result: ProposeResult) {
        for other in std::mem::take(&mut self.others) {
            other.answer(result.clone());
        }
        for sink in std::mem::take(&mut self.behind).into_iter().flatten() {
            sink.send(result.clone());
        }
        if let Some(sink) = self.sink.take() {
            sink.send(result);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        for sink in self.sink.take().into_iter().chain(self.behind.drain(..).flatten()) {
            sink.send(Err(stopped_unknown()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_measured_part_by_part_and_that_of_the_first_counts() {
        let at = Duration::from_millis;
        let waiter = || Waiter::all(Vec::new());
        let (mut first, mut second) = (waiter(), waiter());
        first.sets_out(at(3));
        second.sets_out(at(5));
        first.join(second);
        assert_eq!(first.gets_on(at(10)), Some(at(7)));
        assert_eq!(first.gets_on(at(11)), Some(at(1)));
        assert_eq!(first.gets_on(at(9)), Some(Duration::ZERO), "a clock that goes back");
        assert_eq!(waiter().gets_on(at(1)), None);
    }
}
