//! The streams on which peers send to this node, so that one can be ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::types::NodeId;

/// Streams of one peer at once: a peer has one, and for a moment another one when it dials again
/// before this node has noticed that the first is broken.
const STREAMS_PER_PEER: usize = 2;

/// See the module.
#[derive(Default)]
pub(super) struct Incoming {
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    next: u64,
    /// Oldest first. No peer has an empty list.
    by_peer: BTreeMap<NodeId, VecDeque<(u64, oneshot::Sender<String>)>>,
}

/// A stream's place in the table; dropping it gives the place up.
pub(super) struct Registration {
    table: Arc<Incoming>,
    peer: NodeId,
    number: u64,
    ended: oneshot::Receiver<String>,
}

impl Incoming {
    /// Notes a new stream of a peer. The oldest ends when there are too many.
    pub(super) fn register(self: &Arc<Incoming>, peer: NodeId) -> Registration {
        let (sender, ended) = oneshot::channel();
        let mut streams = self.streams();
        let number = streams.next;
        streams.next += 1;
        let of_peer = streams.by_peer.entry(peer).or_default();
        of_peer.push_back((number, sender));
        while of_peer.len() > STREAMS_PER_PEER {
            if let Some((_, oldest)) = of_peer.pop_front() {
                // A stream that has just ended by itself needs no reason.
                let _ = oldest.send("the peer has opened newer streams".to_owned());
            }
        }
        drop(streams);
        Registration { table: Arc::clone(self), peer, number, ended }
    }

    /// Ends all streams of a peer, for a reason that it is told.
    pub(super) fn end(&self, peer: NodeId, why: &str) {
        for (_, stream) in self.streams().by_peer.remove(&peer).unwrap_or_default() {
            let _ = stream.send(why.to_owned());
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // Nothing that can panic half way runs under this lock.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Resolves when the stream is to end, with the reason.
    pub(super) async fn ended(&mut self) -> String {
        let gone = || "the node is shutting down".to_owned();
        (&mut self.ended).await.unwrap_or_else(|_| gone())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut streams = self.table.streams();
        if let Some(of_peer) = streams.by_peer.get_mut(&self.peer) {
            of_peer.retain(|(number, _)| *number != self.number);
            if of_peer.is_empty() {
                streams.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_peer_has_two_streams_and_all_end_when_it_is_disconnected() {
        let table = Arc::new(Incoming::default());
        let mut first = table.register(NodeId(1));
        let mut second = table.register(NodeId(1));
        let mut other = table.register(NodeId(2));
        assert_eq!(first.ended().now_or_never(), None);
        let mut third = table.register(NodeId(1));
        assert!(first.ended().now_or_never().is_some_and(|why| why.contains("newer")));
        assert_eq!(second.ended().now_or_never(), None);
        table.end(NodeId(1), "nonsense");
        assert_eq!(second.ended().now_or_never().as_deref(), Some("nonsense"));
        assert_eq!(third.ended().now_or_never().as_deref(), Some("nonsense"));
        assert_eq!(other.ended().now_or_never(), None);
        drop((first, second, third, other));
        assert!(table.streams().by_peer.is_empty());
    }
}
