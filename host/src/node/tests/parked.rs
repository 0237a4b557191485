//! Who proposed commands that wait for their turn in an ordered session.

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored;
use tokio::sync::oneshot;

use super::replaced::{from_two, lead, step, stores_of_three};
use super::*;
use crate::consensus::Role;
use crate::fsm::native::NULL;
use crate::machine::{CommandRefused, Reply};
use crate::node::{
    Command, Committed, ProposeFailure, ProposeResult, ReplySink, Request, SessionPosition,
    SubmitBatch,
};
use crate::types::{Actor, EntryKind, Index, LogPosition, MessageKind, Outcome, Position, Term};

type Answer = oneshot::Receiver<ProposeResult>;

fn open_session() -> Request {
    Request::OpenSession { ttl_ms: 0, ordered: true }
}

fn command(session_id: u64, sequence: u64) -> Command {
    let session = SessionPosition { session_id, sequence, acknowledged: 0, skip: false };
    Command { data: Bytes::from_static(b"x"), session: Some(session) }
}

fn submit(node: &SteppedNode, request: impl Into<Request>) -> Answer {
    propose(node, request.into())
}

fn settle(node: &mut SteppedNode) {
    for _ in 0..16 {
        step(node, false);
    }
    assert_eq!(node.stop_reason(), None);
}

fn done(answer: &mut Answer) -> Committed {
    answer.try_recv().expect("answered").expect("applied")
}

fn waits(answer: &mut Answer) {
    answer.try_recv().expect_err("it waits");
}

/// A node alone in its cluster with a module and an ordered session.
fn alone(config: NodeConfig) -> (SteppedNode, u64) {
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, ..) = start(config, Limits::default(), Arc::new(NativeLoader), clock);
    settle(&mut node);
    let mut last = None;
    for body in module(NULL).into_iter().chain([open_session()]) {
        let mut answer = submit(&node, body);
        settle(&mut node);
        last = Some(done(&mut answer).position.index.0);
    }
    (node, last.expect("three entries"))
}

#[test]
fn whoever_proposed_a_command_that_waits_is_told_when_and_where_it_was_executed() {
    let (mut node, id) = alone(NodeConfig::default());
    let (mut third, mut again) = (submit(&node, command(id, 3)), submit(&node, command(id, 3)));
    settle(&mut node);
    waits(&mut third);
    assert_eq!(node.handle().inflight_bytes(), 0, "a gap must not hold up what closes it");
    let mut answers = Vec::new();
    let commands = [2, 4, 1].map(|sequence| {
        let (sender, receiver) = oneshot::channel();
        answers.push(receiver);
        (command(id, sequence), ReplySink::One(sender))
    });
    node.handle().submit_batch(SubmitBatch { commands: commands.into(), count_pages: false });
    settle(&mut node);
    let index = done(&mut answers[2]).position.index;
    let told = [&mut answers[0], &mut third, &mut again].map(done);
    let ok = Reply::Command(Outcome::Ok(Vec::new()));
    for (committed, ordinal) in told.into_iter().zip([3, 4, 4]) {
        assert_eq!(committed.position, Position { index, ordinal });
        assert_eq!(committed.reply, ok);
    }
    assert_eq!(done(&mut answers[1]).position.ordinal, 5);
    let mut late = submit(&node, command(id, 3));
    settle(&mut node);
    assert!(matches!(done(&mut late).reply, Reply::Command(Outcome::Duplicate(_))));
}

#[test]
fn the_end_of_a_session_is_told_to_whoever_waits_in_it() {
    let (mut node, id) = alone(NodeConfig::default());
    let mut other = submit(&node, open_session());
    settle(&mut node);
    let other_id = done(&mut other).position.index.0;
    let mut second = submit(&node, command(id, 2));
    let mut elsewhere = submit(&node, command(other_id, 2));
    settle(&mut node);
    let mut closed = submit(&node, Request::CloseSession { session_id: id });
    settle(&mut node);
    assert_eq!(done(&mut closed).reply, Reply::SessionClosed);
    assert_eq!(done(&mut second).reply, Reply::Refused(CommandRefused::SessionExpired));
    waits(&mut elsewhere);
    drop(node);
    let failure = elsewhere.try_recv().expect("answered").expect_err("the node is gone");
    assert!(!failure.surely_not_applied(), "{failure}");
}

#[test]
fn more_than_may_wait_are_told_to_ask_again() {
    let config = NodeConfig { max_inflight_bytes: 4096, ..NodeConfig::default() };
    let (mut node, id) = alone(config);
    let mut answers: Vec<Answer> = Vec::new();
    for sequence in 2..=6 {
        answers.push(submit(&node, command(id, sequence)));
        settle(&mut node);
    }
    let mut refused = answers.pop().expect("five");
    let failure = refused.try_recv().expect("answered").expect_err("four have room");
    assert!(matches!(&failure, ProposeFailure::Unknown(why) if why.contains("send it again")));
    answers.iter_mut().for_each(waits);
    let mut first = submit(&node, command(id, 1));
    settle(&mut node);
    done(&mut first);
    answers.iter_mut().for_each(|answer| drop(done(answer)));
    let mut again = submit(&node, command(id, 6));
    settle(&mut node);
    assert!(matches!(done(&mut again).reply, Reply::Command(Outcome::Duplicate(_))));
}

/// Node 2 has everything.
fn acknowledge(node: &mut SteppedNode, inbox: &NodeInbox, index: Index) {
    let term = node.term();
    let response = MessageKind::AppendEntriesResponse;
    inbox.deliver(vec![PeerMessage { index, ..from_two(response, term) }]);
    settle(node);
}

/// The command is in its session on every node, so the next leader need not be sent it again.
#[test]
fn whoever_waits_at_a_leader_that_is_deposed_is_told_when_the_next_one_closes_the_gap() {
    let loader: SharedLoader = Arc::new(NativeLoader);
    let stores = stores_of_three(&loader);
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, inbox, _) =
        start_on(&stores, NodeConfig::default(), loader, clock).expect("starts");
    lead(&mut node, &inbox);
    // The formation and the leader's first entry.
    let mut last = Index(2);
    settle(&mut node);
    acknowledge(&mut node, &inbox, last);
    let mut id = 0;
    for body in module(NULL).into_iter().chain([open_session()]) {
        let mut answer = submit(&node, body);
        settle(&mut node);
        last = last.next();
        acknowledge(&mut node, &inbox, last);
        id = done(&mut answer).position.index.0;
    }
    let mut second = submit(&node, command(id, 2));
    settle(&mut node);
    last = last.next();
    acknowledge(&mut node, &inbox, last);
    waits(&mut second);

    let (before, term) = (LogPosition { index: last, term: node.term() }, node.term());
    let body = Some(command(id, 1).into_log(Actor::Nobody).into());
    let entry = stored::Entry { time_ms: 0, actor: None, body };
    let theirs = LogEntry {
        index: last.next(),
        term: Term(term.0 + 1),
        kind: EntryKind::Normal,
        data: entry.encode_to_vec().into(),
        context: Bytes::new(),
    };
    inbox.deliver(vec![PeerMessage {
        index: before.index,
        log_term: before.term,
        commit: theirs.index,
        entries: vec![theirs.clone()],
        ..from_two(MessageKind::AppendEntries, theirs.term)
    }]);
    settle(&mut node);
    assert_eq!(node.role(), Role::Follower);
    let committed = done(&mut second);
    assert_eq!(committed.position, Position { index: theirs.index, ordinal: 1 });
    assert_eq!(committed.term, theirs.term);
}
