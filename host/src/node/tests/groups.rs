//! Two groups on the threads of one node.

use std::sync::Arc;

use bytes::Bytes;

use super::{CLUSTER, form, identity};
use crate::consensus::{ConsensusConfig, Role};
use crate::fsm::native::{KV, NULL, NativeLoader};
use crate::machine::{Incumbent, QueryResult, Receipt, Reply, Way};
use crate::node::{
    Command, Consistency, GroupOptions, Node, NodeConfig, NodeHandle, NodeOptions, StartError,
    StopReason, Upgrade, UpgradeFailure, channel,
};
use crate::storage::Stores;
use crate::transport::Identity;
use crate::transport::memory::{Delivery, MemoryNetwork};
use crate::types::{GroupId, Index, Member, NodeId, Outcome};

const OTHER: GroupId = GroupId(GroupId::MAIN.0 + 1);

fn options_of(group: GroupId) -> GroupOptions {
    GroupOptions {
        group,
        consensus: ConsensusConfig::default(),
        loader: Arc::new(NativeLoader),
        introduced: Vec::new(),
        evidence: None,
    }
}

/// Three nodes, and their handles to two groups.
struct Cluster {
    nodes: Vec<Node>,
    main: Vec<NodeHandle>,
    other: Vec<NodeHandle>,
}

impl Cluster {
    fn start() -> Cluster {
        let member = |id: u64| Member { id: NodeId(id), address: format!("node-{id}:1") };
        let members: Vec<Member> = (1..=3).map(member).collect();
        let network = MemoryNetwork::new(Delivery::Immediate, 1);
        let (mut nodes, mut main, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for member in &members {
            let stores = Stores::memory();
            form(&stores, GroupId::MAIN, &members);
            form(&stores, OTHER, &members);
            let config = NodeConfig::default();
            let (inbox, node_channel) = channel(&config);
            let snapshots = Arc::clone(&stores.snapshots);
            let transport = network.join(member.clone(), snapshots, inbox);
            let identity =
                Identity { cluster: CLUSTER, node: member.id, address: member.address.clone() };
            let GroupOptions { group, consensus, loader, introduced, evidence } =
                options_of(GroupId::MAIN);
            let options = NodeOptions {
                identity,
                group,
                config,
                consensus,
                stores,
                loader,
                introduced,
                evidence,
            };
            let node = Node::start(options, node_channel, transport).expect("starts");
            main.push(node.handle());
            other.push(node.open_group(options_of(OTHER)).expect("opens"));
            nodes.push(node);
        }
        Cluster { nodes, main, other }
    }
}

async fn leader_of(handles: &[NodeHandle]) -> &NodeHandle {
    for handle in handles {
        let mut leadership = handle.leadership();
        let known = |now: &crate::node::Leadership| now.leader.is_some();
        leadership.wait_for(known).await.expect("it runs");
    }
    let leads = |handle: &&NodeHandle| handle.leadership().borrow().role == Role::Leader;
    handles.iter().find(leads).expect("whoever is known to lead does")
}

/// Replaces the state by that of an empty key-value store.
async fn load(leader: &NodeHandle) {
    let replaces: Option<Incumbent> = None;
    let upgrade =
        Upgrade { module: KV.into(), label: "kv".to_owned(), replaces, ..Upgrade::default() };
    leader.upgrade(upgrade).await.expect("activated");
}

async fn set(leader: &NodeHandle, key: &str, value: &str) -> Index {
    let data = format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#).into();
    let command = Command { data, session: None };
    let committed = leader.propose(command.into()).await.expect("committed");
    assert!(matches!(committed.reply, Reply::Command(Outcome::Ok(_))), "{committed:?}");
    committed.position.index
}

/// What a node of the group says of the key, once it has applied all.
async fn get(handle: &NodeHandle, key: &str) -> String {
    let query = format!(r#"{{"op":"get","key":"{key}"}}"#);
    let reply = handle.query(query.into(), Consistency::Linearizable).await.expect("answered");
    match reply.result {
        QueryResult::Answer(Outcome::Ok(answer)) => {
            String::from_utf8(answer.to_vec()).expect("JSON")
        }
        other => panic!("no answer: {other:?}"),
    }
}

/// Four parts are proposed at once: a node that may have fewer in flight refused the fourth each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_gets_in_where_not_all_of_its_parts_fit_at_once() {
    let members = [Member { id: NodeId(1), address: "one:1".to_owned() }];
    let network = MemoryNetwork::new(Delivery::Immediate, 1);
    let stores = Stores::memory();
    form(&stores, GroupId::MAIN, &members);
    // Two parts of a byte each.
    let max_inflight_bytes = 2 * crate::node::answer::REQUEST_OVERHEAD_BYTES + 100;
    let config = NodeConfig { max_inflight_bytes, ..NodeConfig::default() };
    let (inbox, node_channel) = channel(&config);
    let transport = network.join(members[0].clone(), Arc::clone(&stores.snapshots), inbox);
    let GroupOptions { group, consensus, loader, introduced, evidence } = options_of(GroupId::MAIN);
    let identity = identity();
    let options =
        NodeOptions { identity, group, config, consensus, stores, loader, introduced, evidence };
    let node = Node::start(options, node_channel, transport).expect("starts");
    let handles = [node.handle()];
    let leader = leader_of(&handles).await;
    let upgrade = Upgrade { module: KV.into(), label: "kv".to_owned(), ..Upgrade::default() };
    assert!(KV.len() > 4, "more parts than are proposed at once");
    leader.upgrade_checked(upgrade, 1).await.expect("activated");
    tokio::task::spawn_blocking(move || node.stop()).await.expect("it stops");
}

/// Of two operators one is faster, at any moment between what the other sees and what he asks for.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_relies_on_what_was_active_is_told_what_is_active_instead() {
    let cluster = Cluster::start();
    let leader = leader_of(&cluster.main).await;
    load(leader).await;
    let active = leader.incumbent().expect("a module is active");
    let (module, gone) = (active.hash, Incumbent { activated_at: Index(1), ..active });
    let receipt = Receipt {
        index: Index(0),
        module,
        replaces: gone,
        way: Way::Snapshot,
        base: active.activated_at,
        until: active.activated_at,
        commands: 0,
        refused: 0,
        allowed: 0,
        allowances: Vec::new(),
        report_hash: [7; 32],
        voters: vec![NodeId(1), NodeId(2)],
    };
    let expected = UpgradeFailure::Superseded { replaces: Some(gone), active: Some(active) };
    assert_eq!(leader.record_receipt(receipt.clone()).await.expect_err("gone"), expected);
    assert_eq!(leader.fork(module, Some(gone)).await.expect_err("gone"), expected);
    let other = Bytes::from_static(NULL);
    leader.bring_in_checked(&other, 1 << 10).await.expect("held");
    let upgrade = Upgrade { module: other, replaces: Some(gone), ..Upgrade::default() };
    assert_eq!(leader.activate(upgrade).await.expect_err("gone"), expected);
    leader.record_receipt(Receipt { replaces: active, ..receipt }).await.expect("kept");
    stop(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_replicate_and_either_ends_without_the_other_noticing() {
    let cluster = Cluster::start();
    let (main, other) = (leader_of(&cluster.main).await, leader_of(&cluster.other).await);
    load(main).await;
    load(other).await;
    for number in 0..20 {
        set(main, "where", &format!("main-{number}")).await;
        set(other, "where", &format!("other-{number}")).await;
    }
    for (of_main, of_other) in cluster.main.iter().zip(&cluster.other) {
        assert_eq!((of_main.group(), of_other.group()), (GroupId::MAIN, OTHER));
        let (in_main, in_other) = (get(of_main, "where").await, get(of_other, "where").await);
        assert!(in_main.contains("main-19"), "{in_main}");
        assert!(in_other.contains("other-19"), "{in_other}");
    }

    let term = main.leadership().borrow().term;
    for (node, handle) in cluster.nodes.iter().zip(&cluster.other) {
        assert!(node.close_group(OTHER));
        let mut stopped = handle.stopped();
        let reason = stopped.wait_for(Option::is_some).await.expect("told").clone();
        assert_eq!(reason, Some(StopReason::Requested));
        assert!(matches!(node.open_group(options_of(OTHER)), Err(StartError::GroupOpen(OTHER))));
    }
    set(main, "after", "all").await;
    for handle in &cluster.main {
        assert!(get(handle, "after").await.contains("all"));
        assert_eq!(*handle.stopped().borrow(), None);
    }
    assert_eq!(main.leadership().borrow().term, term, "nobody had a reason to elect");
    let command = Command::default();
    other.propose(command.into()).await.expect_err("it has ended");
    other.query("".into(), Consistency::Stale).await.expect_err("it has ended");
    stop(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_that_a_node_began_with_ends_like_any_other() {
    let cluster = Cluster::start();
    let (main, other) = (leader_of(&cluster.main).await, leader_of(&cluster.other).await);
    load(other).await;
    for node in &cluster.nodes {
        assert!(node.close_group(GroupId::MAIN));
    }
    main.stopped().wait_for(Option::is_some).await.expect("told");
    set(other, "goes", "on").await;
    for handle in &cluster.other {
        assert!(get(handle, "goes").await.contains("on"));
    }
    stop(cluster).await;
}

async fn stop(cluster: Cluster) {
    let stopping = tokio::task::spawn_blocking(move || {
        for node in cluster.nodes {
            assert_eq!(node.stop(), StopReason::Requested);
        }
    });
    stopping.await.expect("all threads end");
}
