//! Carries Raft messages and snapshots between nodes.
//!
//! Knows nothing of what the messages mean. Delivery is best effort, as Raft assumes:
//! messages may be lost, never altered. [`memory`] is the in-process twin; [`grpc`] the real one;
//! [`convert`] maps messages to the wire and back.
//!
//! ```text
//!   event loop --Transport::send--> queue per peer ==stream==> PeerService --Inbox::deliver--> event loop
//!   SnapshotStore --read--> snapshot task ==offer, stream====> PeerService --write--> SnapshotStore
//! ```

pub mod convert;
pub mod grpc;
pub mod memory;
mod offer;
mod rules;
#[cfg(test)]
mod test_support;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tonic::service::Routes;

pub use self::offer::{MAX_SNAPSHOT_BYTES, SnapshotRefusal, SnapshotWish, admit_snapshot};
use crate::storage::SnapshotStore;
use crate::tls::NodeDialer;
use crate::types::{ClusterId, GroupId, Index, Member, NodeId, PeerMessage, Rival, SnapshotFate};

/// The versions of the peers' protocol that this program speaks. 4: the first with packages of its own.
pub const PROTOCOLS: RangeInclusive<u32> = 4..=4;

/// The version that two nodes speak: the highest that both know; `None`: there is none.
pub fn common_protocol(theirs: RangeInclusive<u32>) -> Option<u32> {
    let version = *PROTOCOLS.end().min(theirs.end());
    (version >= *PROTOCOLS.start().max(theirs.start())).then_some(version)
}

/// Who a node says it is when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
    /// What others are told to dial.
    pub address: String,
}

/// Sends to peers. All methods return at once; what does not fit a bounded queue is dropped.
pub trait Transport: Send + Sync + 'static {
    /// Replaces the table of peers. Connections to peers that are gone are closed.
    fn set_peers(&self, peers: BTreeMap<NodeId, Member>);

    /// Queues messages, each to its `to`. `InstallSnapshot` messages are sent together with
    /// the snapshot's content, which the transport reads from the snapshot store; how that
    /// ended is reported to [`Inbox::snapshot_sent`].
    fn send(&self, messages: Vec<PeerMessage>);

    /// A peer sent what no correct peer sends, in these words: ends the streams on which it
    /// sends to this node. It may connect again.
    fn disconnect(&self, peer: NodeId, why: &str);
}

/// What a transport between processes is opened with.
pub struct Opening {
    /// Who this node is.
    pub identity: Identity,
    /// Where snapshots are read that are sent, and written that arrive.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// Where it delivers.
    pub inbox: SharedInbox,
    /// What its tasks run on.
    pub runtime: Handle,
    /// What it dials others with.
    pub dialer: NodeDialer,
}

/// Opens transports of one kind: their settings, which are valid.
pub trait TransportFactory {
    /// A transport without peers.
    fn open(&self, opening: Opening) -> Arc<dyn NetworkTransport>;
}

/// A transport between processes, as whoever serves a node runs it.
pub trait NetworkTransport: Transport {
    /// What it accepts on the port that the node shares with its clients; without routes it has
    /// a way of its own. What comes in there is delivered to the inbox.
    fn routes(&self) -> Routes;

    /// How many bytes wait to be sent, by peer.
    fn queued_bytes(&self) -> BTreeMap<NodeId, u64>;

    /// Sends what is queued, for a moment, then ends and joins all its tasks, and ends what came in by
    /// its routes, without which their server would wait for ever. Later calls of `send` and
    /// `set_peers` do nothing.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// What a node is to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A member; or this node has no state yet, and cannot tell.
    Member,
    /// Its id is above those that this node knows: it may have been taken in meanwhile.
    Newcomer,
    /// It was a member and is none any more. It is told so instead of being listened to: it may
    /// have been down when it was removed.
    Removed,
    /// No cluster gives out such an id next.
    Stranger,
}

/// Where a transport delivers.
pub trait Inbox: Send + Sync + 'static {
    /// Messages of one peer, in the order they were sent. An `InstallSnapshot` arrives only
    /// when its content is in this node's snapshot store. Never blocks; drops when full.
    fn deliver(&self, messages: Vec<PeerMessage>);

    /// Whether the snapshot that this message announces would be of use, or why not. Asked before
    /// anything of it is stored.
    ///
    /// # Errors
    /// A sentence for the sender.
    fn wants_snapshot(&self, message: &PeerMessage) -> Result<SnapshotWish, String>;

    /// What became of a snapshot to `to`.
    fn snapshot_sent(&self, group: GroupId, to: NodeId, index: Index, fate: SnapshotFate);

    /// Messages to `to` could not be sent.
    fn unreachable(&self, to: NodeId);

    /// What `peer` is to this node.
    fn standing(&self, peer: NodeId) -> Standing;

    /// Whether this node has a replica of the group.
    fn has_group(&self, group: GroupId) -> bool;

    /// As of which index `peer` is no member any more, if it ever was one. It is told so instead
    /// of being listened to: it may have been down when it was removed.
    fn removal_of(&self, peer: NodeId) -> Option<Index>;

    /// As of which entry this node's cluster was made of that one, if it was. Who is still of that one is
    /// told so: it was left behind.
    fn origin_of(&self, cluster: ClusterId) -> Option<Index>;

    /// Whoever listens on the address of the member `by`, and says that it is that member, says
    /// that this node is no member as of this index.
    fn removed(&self, by: NodeId, as_of: Index);

    /// A task of the transport panicked. Without it the node would go on as if nothing was wrong.
    fn broken(&self, what: &'static str);

    /// A peer introduced itself with this address (it may not be in the table yet).
    fn peer_seen(&self, peer: Member);

    /// A member of another cluster dialled this node, and was refused; `at_own_address`: where this
    /// node lives. Nothing of what it says can be checked.
    fn rival(&self, rival: Rival, at_own_address: bool);
}

/// Shared handle to an inbox.
pub type SharedInbox = Arc<dyn Inbox>;
