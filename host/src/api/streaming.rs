//! What the streams of commands and of questions have in common: how much is under way, and what
//! leaves in one message.

use std::collections::VecDeque;
use std::time::Duration;

use prost::Message;
use tonic::Status;

use super::auditing::{CommandNotes, Witness};
use super::rates::Allowance;
use crate::node::Charge;

/// A response or upstream message is sent when it has this many bytes; well under the 4 MiB
/// that gRPC clients take by default.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;
/// Responses ready to be sent.
pub(super) const RESPONSES_QUEUED: usize = 2;
/// A client that takes no answer for so long is left alone.
pub(super) const UNREAD_TIME: Duration = Duration::from_secs(30);
/// What the bounds on all streams together are called: [`super::context::Context::pending`] and
/// [`super::context::Context::answers`].
pub(super) const PENDING: &str = "streams_pending_bytes_max";
pub(super) const ANSWERS: &str = "streams_answers_bytes_max";
/// Bookkeeping of a request, counted as bytes.
pub(super) const REQUEST_OVERHEAD: usize = 64;

/// Answers that a stream may expect at once, in bytes, going by those that it got.
const EXPECTED_BYTES: usize = 16 << 20;
/// Requests under way at once before the sizes of answers are known.
const FIRST_REQUESTS: usize = 64;

/// What holds for all requests of a stream.
pub(super) struct Terms {
    /// What each takes from.
    pub(super) allowance: Allowance,
    /// Where commands and refusals are noted.
    pub(super) notes: CommandNotes,
}

impl Terms {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Terms {
        Terms { allowance: Allowance::of(request), notes: Witness::of(request).commands() }
    }
}

/// Answers on their way to the client, and the room that they take until then.
pub(super) type Outgoing<M> = Result<(M, Vec<Charge>), Status>;

/// How many requests of a stream may be under way: as many answers as there is room for, if they are
/// as large as lately. What is not known yet is found out with few.
#[derive(Debug)]
pub(super) struct Window {
    /// Grows with answers.
    requests: usize,
    max: usize,
    /// Size of answers lately.
    answer_bytes: usize,
}

impl Window {
    /// It grows up to so many requests.
    pub(super) fn new(max: usize) -> Window {
        Window { requests: FIRST_REQUESTS.min(max), max, answer_bytes: 0 }
    }

    pub(super) fn allowed(&self) -> usize {
        (EXPECTED_BYTES / self.answer_bytes.max(1)).clamp(1, self.requests)
    }

    /// An answer of this size came.
    pub(super) fn learn(&mut self, bytes: usize) {
        let fading = self.answer_bytes - self.answer_bytes / 64;
        self.answer_bytes = bytes.max(fading);
        self.requests = (self.requests + 1).min(self.max);
    }
}

/// As many results as leave in one message that every client can take, with the room that they take.
pub(super) fn next_message<R: Message>(
    results: &mut VecDeque<(R, Option<Charge>)>,
) -> (Vec<R>, Vec<Charge>) {
    let (mut message, mut charges, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some((result, _)) = results.front() {
        bytes += result.encoded_len();
        if bytes > MESSAGE_BYTES && !message.is_empty() {
            break;
        }
        let (result, charge) = results.pop_front().expect("looked at");
        message.push(result);
        charges.extend(charge);
    }
    (message, charges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_under_way_as_answers_like_those_before_have_room() {
        let mut window = Window::new(100);
        assert_eq!(window.allowed(), FIRST_REQUESTS);
        for _ in 0..200 {
            window.learn(10);
        }
        assert_eq!(window.allowed(), 100);
        window.learn(EXPECTED_BYTES / 4);
        assert_eq!(window.allowed(), 4);
        window.learn(2 * EXPECTED_BYTES);
        assert_eq!(window.allowed(), 1);
        for _ in 0..2_000 {
            window.learn(10);
        }
        assert_eq!(window.allowed(), 100, "large answers are forgotten");
    }

    #[test]
    fn messages_are_short_and_one_long_answer_leaves_alone() {
        let answer = |bytes: usize| (vec![0_u8; bytes], None);
        let lengths = [10, MESSAGE_BYTES / 2, MESSAGE_BYTES / 2, 2 * MESSAGE_BYTES, 1, 1];
        let mut results: VecDeque<_> = lengths.into_iter().map(answer).collect();
        let mut messages = Vec::new();
        while !results.is_empty() {
            messages.push(next_message(&mut results).0.len());
        }
        assert_eq!(messages, [2, 1, 1, 2]);
    }
}
