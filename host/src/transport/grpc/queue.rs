//! The bounded queue in front of one peer, and the stream that empties it in batches.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use prost::Message as _;
use raft_host_proto::peer;
use tokio::sync::Notify;

use super::config::MAX_MESSAGE_BYTES;
use crate::types::PeerMessage;

/// Allowance for everything in a message but its entries and context.
const MESSAGE_OVERHEAD_BYTES: u64 = 96;

/// Messages that wait for one peer. Pushing never blocks: what does not fit is dropped.
pub(super) struct SendQueue {
    max_bytes: u64,
    max_messages: usize,
    envelope_bytes: u64,
    state: Mutex<State>,
    dropped: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<PeerMessage>,
    /// Sum of the costs of `messages`.
    bytes: u64,
    /// Counts connections; the stream of an old one gets nothing any more.
    connection: u64,
    /// Whether a connection exists or is being made: without, waiting makes no sense.
    open: bool,
    /// No more messages come; the stream ends when the queue is empty.
    closing: bool,
    waker: Option<Waker>,
}

impl SendQueue {
    pub(super) fn new(max_bytes: u64, max_messages: usize, envelope_bytes: u64) -> SendQueue {
        SendQueue {
            max_bytes,
            max_messages,
            envelope_bytes,
            // Open from the start: the first connection is about to be made.
            state: Mutex::new(State { open: true, ..State::default() }),
            dropped: Notify::new(),
        }
    }

    /// Queues in order. Messages that do not fit are dropped, and `dropped` fires.
    pub(super) fn push(&self, messages: impl IntoIterator<Item = PeerMessage>) {
        let (waker, dropped) = {
            let mut state = self.state();
            let mut dropped = false;
            for message in messages {
                let cost = cost_bytes(&message);
                // A message larger than the whole queue still passes when it is alone.
                let fits = state.messages.is_empty()
                    || (state.bytes + cost <= self.max_bytes
                        && state.messages.len() < self.max_messages);
                if state.open && !state.closing && fits {
                    state.bytes += cost;
                    state.messages.push_back(message);
                } else {
                    dropped = true;
                }
            }
            let waker = if state.messages.is_empty() { None } else { state.waker.take() };
            (waker, dropped)
        };
        // Outside of the lock, so that the woken task does not run into it.
        if let Some(waker) = waker {
            waker.wake();
        }
        if dropped {
            self.dropped.notify_one();
        }
    }

    /// Resolves when messages were dropped since the last time it resolved, for want of room or
    /// because no peer would take them.
    pub(super) async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// Opens the queue for a new connection, whose envelopes the stream yields; the first
    /// envelope carries `hello` and nothing else, since who is not known is not listened to for
    /// long.
    pub(super) fn connect(self: &Arc<SendQueue>, hello: peer::Hello) -> EnvelopeStream {
        let mut state = self.state();
        state.connection += 1;
        state.open = true;
        EnvelopeStream { queue: Arc::clone(self), connection: state.connection, hello: Some(hello) }
    }

    /// The connection is gone: forgets what waits, refuses more until the next connection, and
    /// says whether anything was waiting. Late messages would only tell a peer that comes back
    /// what it must hear anew anyway.
    pub(super) fn disconnect(&self) -> bool {
        let (forgotten, waker) = {
            let mut state = self.state();
            state.connection += 1;
            state.open = false;
            state.bytes = 0;
            (std::mem::take(&mut state.messages), state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        !forgotten.is_empty()
    }

    /// What waits.
    pub(super) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Lets the stream end once everything queued has left.
    pub(super) fn close(&self) {
        let waker = {
            let mut state = self.state();
            state.closing = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic half way runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Yields everything that is queued as one envelope, as soon as the connection can take it:
/// batches grow by themselves while the connection is busy, and nothing waits when it is not.
pub(super) struct EnvelopeStream {
    queue: Arc<SendQueue>,
    connection: u64,
    hello: Option<peer::Hello>,
}

impl EnvelopeStream {
    /// The next batch; `None` when this stream is to end.
    fn take(&self, context: &Context<'_>, hello: bool) -> Poll<Option<Vec<PeerMessage>>> {
        let mut state = self.queue.state();
        if state.connection != self.connection {
            return Poll::Ready(None);
        }
        let (mut count, mut bytes) = (0, 0);
        for message in &state.messages {
            let cost = cost_bytes(message);
            if count > 0 && bytes + cost > self.queue.envelope_bytes {
                break;
            }
            count += 1;
            bytes += cost;
        }
        if hello {
            return Poll::Ready(Some(Vec::new()));
        }
        if count > 0 {
            state.bytes -= bytes;
            return Poll::Ready(Some(state.messages.drain(..count).collect()));
        }
        if state.closing {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Stream for EnvelopeStream {
    type Item = peer::PeerEnvelope;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Some(batch) = std::task::ready!(this.take(context, this.hello.is_some())) else {
                return Poll::Ready(None);
            };
            let count = batch.len();
            let messages: Vec<peer::RaftMessage> = batch.into_iter().filter_map(to_wire).collect();
            if messages.len() < count {
                // Whoever sent it counts on it.
                this.queue.dropped.notify_one();
            }
            let hello = this.hello.take();
            // Only when all messages were too large is there nothing to send.
            if hello.is_some() || !messages.is_empty() {
                return Poll::Ready(Some(peer::PeerEnvelope { hello, messages }));
            }
        }
    }
}

/// To the wire, unless the peer would have to refuse it and with it the whole stream.
fn to_wire(message: PeerMessage) -> Option<peer::RaftMessage> {
    let large = cost_bytes(&message) > MAX_MESSAGE_BYTES as u64 / 4;
    let (kind, to) = (message.kind, message.to);
    let wire = peer::RaftMessage::from(message);
    // The margin is for the envelope around it.
    if large && wire.encoded_len() > MAX_MESSAGE_BYTES - 4096 {
        let bytes = wire.encoded_len();
        tracing::error!(%to, ?kind, bytes, "a message too large for any peer was dropped");
        return None;
    }
    Some(wire)
}

fn cost_bytes(message: &PeerMessage) -> u64 {
    let entries: u64 = message.entries.iter().map(|entry| entry.cost_bytes()).sum();
    entries + message.context.len() as u64 + MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::transport::test_support::{append, message};

    fn queue(max_bytes: u64, max_messages: usize, envelope_bytes: u64) -> Arc<SendQueue> {
        Arc::new(SendQueue::new(max_bytes, max_messages, envelope_bytes))
    }

    fn connect(queue: &Arc<SendQueue>) -> EnvelopeStream {
        queue.connect(peer::Hello { from: 1, ..peer::Hello::default() })
    }

    fn greeted(queue: &Arc<SendQueue>) -> EnvelopeStream {
        let mut stream = connect(queue);
        assert_eq!(poll(&mut stream), Some(Some(vec![])));
        stream
    }

    /// Indexes of the next envelope: `None` when nothing waits.
    fn poll(stream: &mut EnvelopeStream) -> Option<Option<Vec<u64>>> {
        let envelope = stream.next().now_or_never()?;
        Some(envelope.map(|envelope| envelope.messages.iter().map(|m| m.index).collect()))
    }

    #[test]
    fn everything_queued_leaves_in_one_envelope_after_the_hello() {
        let queue = queue(1 << 20, 100, 1 << 20);
        queue.push([message(1, 2, 1)]);
        let mut stream = connect(&queue);
        queue.push([message(1, 2, 2), message(1, 2, 3)]);
        let first = stream.next().now_or_never().flatten().expect("ready");
        assert_eq!(first.hello.expect("first").from, 1);
        assert_eq!(first.messages.len(), 0);
        assert_eq!(poll(&mut stream), Some(Some(vec![1, 2, 3])));
        assert_eq!(poll(&mut stream), None);
        queue.push([message(1, 2, 4)]);
        assert_eq!(poll(&mut stream), Some(Some(vec![4])));
    }

    #[test]
    fn the_hello_does_not_wait_for_messages() {
        let queue = queue(1 << 20, 100, 1 << 20);
        let mut stream = connect(&queue);
        assert_eq!(poll(&mut stream), Some(Some(vec![])));
        assert_eq!(poll(&mut stream), None);
    }

    #[test]
    fn an_envelope_holds_about_what_is_allowed_and_at_least_one_message() {
        let queue = queue(1 << 20, 100, 1000);
        queue.push((1..=5).map(|index| append(1, 2, index, 300)));
        queue.push([append(1, 2, 6, 5000), message(1, 2, 7)]);
        let mut stream = greeted(&queue);
        for expected in [vec![1, 2], vec![3, 4], vec![5], vec![6], vec![7]] {
            assert_eq!(poll(&mut stream), Some(Some(expected)));
        }
    }

    #[test]
    fn what_exceeds_the_bytes_or_the_count_is_dropped_and_told() {
        for queue in [queue(1000, 100, 1 << 20), queue(1 << 20, 2, 1 << 20)] {
            queue.push([append(1, 2, 1, 300), append(1, 2, 2, 300)]);
            let waiting = queue.bytes();
            assert!((600..1000).contains(&waiting), "{waiting}");
            assert!(queue.dropped().now_or_never().is_none());
            queue.push([append(1, 2, 3, 300)]);
            assert!(queue.dropped().now_or_never().is_some());
            assert_eq!(queue.bytes(), waiting);
            let mut stream = greeted(&queue);
            assert_eq!(poll(&mut stream), Some(Some(vec![1, 2])));
            assert_eq!(queue.bytes(), 0);
            queue.push([append(1, 2, 4, 300)]);
            assert_eq!(poll(&mut stream), Some(Some(vec![4])));
        }
    }

    #[test]
    fn a_message_larger_than_the_queue_passes_alone() {
        let queue = queue(1000, 100, 1000);
        queue.push([append(1, 2, 1, 5000)]);
        assert_eq!(poll(&mut greeted(&queue)), Some(Some(vec![1])));
    }

    #[test]
    fn a_message_too_large_for_any_peer_is_left_out_and_told() {
        let queue = queue(1 << 30, 100, 1 << 30);
        queue.push([append(1, 2, 1, MAX_MESSAGE_BYTES), message(1, 2, 2)]);
        assert!(queue.dropped().now_or_never().is_none());
        assert_eq!(poll(&mut greeted(&queue)), Some(Some(vec![2])));
        assert!(queue.dropped().now_or_never().is_some(), "raft must hear of it");
    }

    #[test]
    fn after_a_lost_connection_nothing_old_is_sent_and_nothing_waits() {
        let queue = queue(1 << 20, 100, 1 << 20);
        let mut old = greeted(&queue);
        queue.push([message(1, 2, 1)]);
        assert!(queue.disconnect());
        queue.push([message(1, 2, 2)]);
        assert!(queue.dropped().now_or_never().is_some());
        assert!(!queue.disconnect());
        let mut new = greeted(&queue);
        queue.push([message(1, 2, 3)]);
        assert_eq!(poll(&mut old), Some(None));
        assert_eq!(poll(&mut new), Some(Some(vec![3])));
    }

    #[test]
    fn a_closed_queue_empties_itself_and_ends() {
        let queue = queue(1 << 20, 100, 1 << 20);
        let mut stream = greeted(&queue);
        queue.push([message(1, 2, 1)]);
        queue.close();
        queue.push([message(1, 2, 2)]);
        assert_eq!(poll(&mut stream), Some(Some(vec![1])));
        assert_eq!(poll(&mut stream), Some(None));
    }
}
