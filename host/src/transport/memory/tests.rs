use super::*;
use crate::transport::test_support::{TestInbox, TestStore, append, install, message, meta, peers};
use crate::types::{Index, SnapshotFate};

struct TestNode {
    transport: Arc<MemoryTransport>,
    inbox: Arc<TestInbox>,
    store: TestStore,
}

/// Nodes 1, 2 and 3, which know each other.
fn three(delivery: Delivery) -> (MemoryNetwork, [TestNode; 3]) {
    let network = MemoryNetwork::new(delivery, 42);
    let nodes = [1, 2, 3].map(|id| join(&network, id));
    (network, nodes)
}

fn join(network: &MemoryNetwork, id: u64) -> TestNode {
    let (inbox, store) = (Arc::new(TestInbox::default()), TestStore::default());
    let member = Member { id: NodeId(id), address: format!("node-{id}") };
    let transport = network.join(member, Arc::new(store.clone()), Arc::clone(&inbox) as _);
    transport.set_peers(peers(&[(1, "node-1"), (2, "node-2"), (3, "node-3")]));
    TestNode { transport, inbox, store }
}

#[test]
fn messages_arrive_in_order_after_one_introduction() {
    let (_network, [one, two, three]) = three(Delivery::Immediate);
    one.transport.send(vec![message(1, 2, 1), append(1, 3, 9, 100), message(1, 2, 2)]);
    one.transport.send(vec![message(1, 2, 3)]);
    let told = two.inbox.told();
    assert_eq!(told.indexes(), [1, 2, 3]);
    assert_eq!(told.seen, [Member { id: NodeId(1), address: "node-1".to_owned() }]);
    assert_eq!(three.inbox.told().messages, [append(1, 3, 9, 100)]);
}

#[test]
fn manual_delivery_moves_one_message_at_a_time() {
    let (network, [one, two, _]) = three(Delivery::Manual);
    one.transport.send(vec![message(1, 2, 1), message(1, 2, 2)]);
    assert!(two.inbox.told().messages.is_empty());
    assert!(network.deliver_one());
    assert_eq!(two.inbox.told().indexes(), [1]);
    assert_eq!(network.deliver_all(10), 1);
    assert!(!network.deliver_one());
    assert_eq!(two.inbox.told().indexes(), [1, 2]);
}

#[test]
fn a_partition_separates_until_it_heals() {
    let (network, [one, two, three]) = three(Delivery::Immediate);
    network.partition(&[&[NodeId(1), NodeId(2)], &[NodeId(3)]]);
    one.transport.send(vec![message(1, 2, 1), message(1, 3, 1)]);
    three.transport.send(vec![message(3, 2, 1)]);
    assert_eq!(two.inbox.told().indexes(), [1]);
    assert!(three.inbox.told().messages.is_empty());
    assert_eq!(one.inbox.told().unreachable, [NodeId(3)]);
    assert_eq!(three.inbox.told().unreachable, [NodeId(2)]);
    network.heal();
    one.transport.send(vec![message(1, 3, 2)]);
    assert_eq!(three.inbox.told().indexes(), [2]);
    network.cut_one_way(NodeId(1), NodeId(3));
    one.transport.send(vec![message(1, 3, 3)]);
    three.transport.send(vec![message(3, 1, 4)]);
    assert_eq!(three.inbox.told().indexes(), [2]);
    assert_eq!(one.inbox.told().indexes(), [4]);
}

#[test]
fn the_same_seed_loses_the_same_messages() {
    let run = || {
        let (network, [one, two, _]) = three(Delivery::Immediate);
        network.set_loss(300);
        one.transport.send((1..=200).map(|index| message(1, 2, index)).collect());
        two.inbox.told().indexes()
    };
    let arrived = run();
    assert!(arrived.len() > 50 && arrived.len() < 200, "{}", arrived.len());
    assert!(arrived.is_sorted());
    assert_eq!(arrived, run());
}

#[test]
fn a_crashed_node_gets_nothing_and_its_successor_is_introduced_again() {
    let (network, [one, two, _]) = three(Delivery::Manual);
    one.transport.send(vec![message(1, 2, 1)]);
    network.leave(NodeId(2));
    assert_eq!(network.deliver_all(10), 0);
    one.transport.send(vec![message(1, 2, 2)]);
    network.deliver_all(10);
    assert_eq!(one.inbox.told().unreachable, [NodeId(2)]);
    let again = join(&network, 2);
    one.transport.send(vec![message(1, 2, 3)]);
    network.deliver_all(10);
    assert!(two.inbox.told().messages.is_empty());
    assert_eq!(again.inbox.told().indexes(), [3]);
    assert_eq!(again.inbox.told().seen.len(), 1);
}

#[test]
fn a_node_reaches_only_those_in_its_table() {
    let (_network, [one, two, _]) = three(Delivery::Immediate);
    one.transport.set_peers(peers(&[(3, "node-3")]));
    one.transport.send(vec![message(1, 2, 1)]);
    assert!(two.inbox.told().messages.is_empty());
    assert_eq!(one.inbox.told().unreachable, [NodeId(2)]);
}

#[test]
fn a_snapshot_arrives_with_its_content() {
    let (_network, [one, two, _]) = three(Delivery::Immediate);
    let meta = one.store.add(7, b"state");
    one.transport.send(vec![install(1, 2, meta.clone())]);
    assert_eq!(two.inbox.told().messages, [install(1, 2, meta)]);
    assert_eq!(two.store.content(7).as_deref(), Some(&b"state"[..]));
    assert_eq!(one.inbox.told().snapshots, [(NodeId(2), Index(7), SnapshotFate::Delivered)]);
}

#[test]
fn a_snapshot_that_is_not_there_or_cannot_pass_is_reported() {
    let (network, [one, two, _]) = three(Delivery::Immediate);
    one.transport.send(vec![install(1, 2, meta(7))]);
    let meta = one.store.add(8, b"state");
    network.cut(NodeId(1), NodeId(2));
    one.transport.send(vec![install(1, 2, meta)]);
    let failed = [
        (NodeId(2), Index(7), SnapshotFate::Unreadable),
        (NodeId(2), Index(8), SnapshotFate::Failed),
    ];
    assert_eq!(one.inbox.told().snapshots, failed);
    assert!(two.inbox.told().messages.is_empty());
    assert_eq!(two.store.content(8), None);
}
