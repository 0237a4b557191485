//! A snapshot store and an inbox for the tests of this room.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{Inbox, SnapshotWish, Standing};
use crate::storage::{SnapshotMeta, SnapshotSink, SnapshotStore, StorageError};
use crate::types::{
    ClusterId, ConfState, EntryKind, GroupId, Index, LogEntry, Member, MessageKind, NodeId,
    PeerMessage, Rival, SnapshotFate, Term,
};

/// What every test's cluster was made of.
pub(super) const MADE_OF: ClusterId = ClusterId([0xa7; 16]);

type Snapshots = BTreeMap<(GroupId, Index), (SnapshotMeta, Bytes)>;

/// Keeps snapshots in memory. A finished sink is visible at once.
#[derive(Clone, Default)]
pub(super) struct TestStore {
    snapshots: Arc<Mutex<Snapshots>>,
    free_bytes: Arc<Mutex<Option<u64>>>,
    /// Sinks made, and bytes written into them.
    work: Arc<watch::Sender<(u64, usize)>>,
}

impl TestStore {
    /// Adds a snapshot whose metadata fits its content.
    pub(super) fn add(&self, index: u64, content: &[u8]) -> SnapshotMeta {
        let mut sink = self.create(meta(index)).expect("in memory");
        sink.write_all(content).expect("in memory");
        sink.finish().expect("in memory")
    }

    pub(super) fn creations(&self) -> u64 {
        self.work.borrow().0
    }

    /// Waits until so much was written.
    pub(super) async fn until_written(&self, bytes: usize) {
        let mut work = self.work.subscribe();
        let wait = work.wait_for(|(_, written)| *written >= bytes);
        let reached = tokio::time::timeout(Duration::from_secs(60), wait).await;
        reached.expect("in time").expect("the sender is here");
    }

    /// How much more fits.
    pub(super) fn set_free_bytes(&self, bytes: u64) {
        *self.free_bytes.lock().expect("no test panics here") = Some(bytes);
    }

    /// Changes the content, not the checksum.
    pub(super) fn corrupt(&self, index: u64) {
        let mut snapshots = self.snapshots();
        let (_, content) = snapshots.get_mut(&(GroupId::MAIN, Index(index))).expect("present");
        let mut bytes = content.to_vec();
        bytes[0] ^= 1;
        *content = bytes.into();
    }

    /// Cuts the content, not the announced size.
    pub(super) fn shorten(&self, index: u64) {
        let mut snapshots = self.snapshots();
        let (_, content) = snapshots.get_mut(&(GroupId::MAIN, Index(index))).expect("present");
        content.truncate(content.len() - 1);
    }

    pub(super) fn content(&self, index: u64) -> Option<Bytes> {
        self.snapshots().get(&(GroupId::MAIN, Index(index))).map(|(_, content)| content.clone())
    }

    fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().expect("no test panics here")
    }
}

struct TestSink {
    store: TestStore,
    meta: SnapshotMeta,
    content: Vec<u8>,
}

impl Write for TestSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.store.work.send_modify(|work| work.1 += bytes.len());
        self.content.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for TestSink {
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        let TestSink { store, mut meta, content } = *self;
        meta.size_bytes = content.len() as u64;
        meta.checksum = crc32fast::hash(&content);
        let key = (meta.group, meta.index);
        store.snapshots().insert(key, (meta.clone(), content.into()));
        Ok(meta)
    }
}

impl SnapshotStore for TestStore {
    fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError> {
        self.work.send_modify(|work| work.0 += 1);
        Ok(Box::new(TestSink { store: self.clone(), meta, content: Vec::new() }))
    }

    fn list(&self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
        let snapshots = self.snapshots();
        let of_group = snapshots.values().rev().filter(|(meta, _)| meta.group == group);
        Ok(of_group.map(|(meta, _)| meta.clone()).collect())
    }

    fn open(
        &self,
        group: GroupId,
        index: Index,
    ) -> Result<(SnapshotMeta, Box<dyn Read + Send>), StorageError> {
        let snapshots = self.snapshots();
        let (meta, content) = snapshots.get(&(group, index)).ok_or(StorageError::Engine {
            engine: "test",
            message: format!("no snapshot at {index}"),
        })?;
        Ok((meta.clone(), Box::new(Cursor::new(content.clone()))))
    }

    fn retain(&self, _: GroupId, _: usize, _: Index) -> Result<(), StorageError> {
        Ok(())
    }

    fn set_aside(&self, _: &SnapshotMeta) {}

    fn free_bytes(&self) -> Result<Option<u64>, StorageError> {
        Ok(*self.free_bytes.lock().expect("no test panics here"))
    }

    fn damaged(&self, _: GroupId) -> Vec<StorageError> {
        Vec::new()
    }
}

/// What an inbox was told.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) messages: Vec<PeerMessage>,
    pub(super) snapshots: Vec<(NodeId, Index, SnapshotFate)>,
    pub(super) unreachable: Vec<NodeId>,
    pub(super) seen: Vec<Member>,
    /// Snapshots that Raft has no use for.
    pub(super) unwanted: Vec<Index>,
    /// What is before needs no snapshot.
    pub(super) committed: Index,
    /// Whom this node refuses as removed.
    pub(super) expelled: Vec<NodeId>,
    /// Who said that this node was removed.
    pub(super) removed_by: Vec<(NodeId, Index)>,
    /// Members of other clusters, and whether they dialled this node's address.
    pub(super) rivals: Vec<(Rival, bool)>,
}

impl Told {
    /// The indexes of the messages that came.
    pub(super) fn indexes(&self) -> Vec<u64> {
        self.messages.iter().map(|message| message.index.0).collect()
    }
}

/// Remembers everything, and lets tests wait for it.
#[derive(Default)]
pub(super) struct TestInbox {
    told: Mutex<Told>,
    news: Notify,
}

impl TestInbox {
    pub(super) fn told(&self) -> Told {
        self.told.lock().expect("no test panics here").clone()
    }

    /// Waits until the condition holds; the limit only ends a test that has failed.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Told) -> bool) -> Told {
        let wait = async {
            loop {
                let news = self.news.notified();
                let told = self.told();
                if holds(&told) {
                    return told;
                }
                news.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect(what)
    }

    /// From now on this node knows that `peer` was removed.
    pub(super) fn expel(&self, peer: NodeId) {
        self.note(|told| told.expelled.push(peer));
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().expect("no test panics here"));
        self.news.notify_one();
    }
}

impl Inbox for TestInbox {
    fn deliver(&self, messages: Vec<PeerMessage>) {
        self.note(|told| told.messages.extend(messages));
    }

    fn wants_snapshot(&self, message: &PeerMessage) -> Result<SnapshotWish, String> {
        let told = self.told.lock().expect("no test panics here");
        let index = message.snapshot.as_ref().map_or(Index(0), |meta| meta.index);
        if told.unwanted.contains(&index) {
            return Err("somebody else leads".to_owned());
        }
        let is_known = index < told.committed;
        Ok(if is_known { SnapshotWish::MessageOnly } else { SnapshotWish::Content })
    }

    fn snapshot_sent(&self, _: GroupId, to: NodeId, index: Index, fate: SnapshotFate) {
        self.note(|told| told.snapshots.push((to, index, fate)));
    }

    fn unreachable(&self, to: NodeId) {
        self.note(|told| told.unreachable.push(to));
    }

    fn standing(&self, peer: NodeId) -> Standing {
        match self.removal_of(peer) {
            Some(_) => Standing::Removed,
            None if peer.0 >= 1_000 => Standing::Stranger,
            None => Standing::Member,
        }
    }

    fn has_group(&self, group: GroupId) -> bool {
        group == GroupId::MAIN
    }

    fn removal_of(&self, peer: NodeId) -> Option<Index> {
        let told = self.told.lock().expect("no test panics here");
        told.expelled.contains(&peer).then_some(Index(7))
    }

    fn origin_of(&self, cluster: ClusterId) -> Option<Index> {
        (cluster == MADE_OF).then_some(Index(41))
    }

    fn removed(&self, by: NodeId, as_of: Index) {
        self.note(|told| told.removed_by.push((by, as_of)));
    }

    fn broken(&self, what: &'static str) {
        panic!("{what} panicked");
    }

    fn peer_seen(&self, peer: Member) {
        self.note(|told| told.seen.push(peer));
    }

    fn rival(&self, rival: Rival, at_own_address: bool) {
        self.note(|told| told.rivals.push((rival, at_own_address)));
    }
}

/// Metadata of a snapshot that is still to be written.
pub(super) fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        group: GroupId::MAIN,
        index: Index(index),
        term: Term(2),
        conf_state: ConfState { voters: [NodeId(1), NodeId(2)].into(), ..ConfState::default() },
        size_bytes: 0,
        checksum: 0,
    }
}

/// A small message; `index` tells it from others.
pub(super) fn message(from: u64, to: u64, index: u64) -> PeerMessage {
    PeerMessage {
        group: GroupId::MAIN,
        kind: MessageKind::AppendEntriesResponse,
        from: NodeId(from),
        to: NodeId(to),
        term: Term(2),
        log_term: Term(0),
        index: Index(index),
        entries: Vec::new(),
        commit: Index(0),
        commit_term: Term(0),
        snapshot: None,
        request_snapshot: Index(0),
        reject: false,
        reject_hint: Index(0),
        context: Bytes::new(),
        priority: 0,
        space: Default::default(),
    }
}

/// An AppendEntries with one entry of this size.
pub(super) fn append(from: u64, to: u64, index: u64, size: usize) -> PeerMessage {
    let entry = LogEntry {
        index: Index(index + 1),
        term: Term(2),
        kind: EntryKind::Normal,
        data: Bytes::from(vec![7; size]),
        context: Bytes::new(),
    };
    PeerMessage {
        kind: MessageKind::AppendEntries,
        log_term: Term(1),
        entries: vec![entry],
        ..message(from, to, index)
    }
}

/// The message that announces a snapshot.
pub(super) fn install(from: u64, to: u64, meta: SnapshotMeta) -> PeerMessage {
    PeerMessage { kind: MessageKind::InstallSnapshot, snapshot: Some(meta), ..message(from, to, 0) }
}

/// A table of peers.
pub(super) fn peers(members: &[(u64, &str)]) -> BTreeMap<NodeId, Member> {
    let member = |&(id, address): &(u64, &str)| {
        (NodeId(id), Member { id: NodeId(id), address: address.to_owned() })
    };
    members.iter().map(member).collect()
}
