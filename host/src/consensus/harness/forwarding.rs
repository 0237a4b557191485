//! What reaches a replica that is not the one to answer.

use super::*;

/// raft-rs hands it on in the name of who asked. The leader's transport broke the connection to
/// the follower for it, and a simulated follower was told that it had been removed, since who had
/// asked was.
#[test]
fn a_read_that_reaches_a_follower_goes_no_further() {
    let mut cluster = Cluster::new(31, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(20);
    let followers: Vec<NodeId> = cluster.alive().into_iter().filter(|id| *id != leader).collect();
    let (asks, asked) = (followers[0], followers[1]);
    let context = LogEntry {
        index: Index(0),
        term: Term(0),
        kind: EntryKind::Normal,
        data: [asks.0, 1, 1].map(u64::to_le_bytes).concat().into(),
        context: Bytes::new(),
    };
    let question = PeerMessage {
        entries: vec![context],
        ..PeerMessage::bare(GROUP, MessageKind::ReadIndex, asks, asked)
    };
    let before = cluster.network.len();
    cluster.input(asked, Input::Message(question));
    assert_eq!(cluster.network.len(), before, "nothing is sent for somebody else");
    cluster.settle();
}
