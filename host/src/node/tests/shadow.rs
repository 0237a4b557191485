//! Another module in the shadow of the machine, by steps.

use super::*;
use crate::fsm::LimitChange;
use crate::fsm::native::KV;
use crate::machine::{BATCH_COMMANDS_MAX, Incumbent};
use crate::node::shadow::{Room, ShadowFeed};
use crate::node::{Command, ShadowEnd, SteppedShadow};
use crate::rehearsal::{Answered, Report};
use crate::types::{EntryKind, Position};

/// A node alone in its cluster with the key-value store.
fn alone() -> (SteppedNode, Incumbent) {
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, ..) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock);
    settle(&mut node);
    let mut activated_at = Index(0);
    for request in module(KV) {
        activated_at = done(&mut node, request).index;
    }
    (node, Incumbent { hash: ModuleHash::of(KV), activated_at })
}

fn done(node: &mut SteppedNode, request: Request) -> Position {
    let mut answer = propose(node, request);
    settle(node);
    assert_eq!(node.stop_reason(), None);
    answer.try_recv().expect("answered").expect("applied").position
}

fn set(key: &str) -> Request {
    let data = format!(r#"{{"op":"set","key":"{key}","value":"1"}}"#).into();
    Request::Command(Command { data, session: None })
}

fn begin(node: &mut SteppedNode) -> SteppedShadow {
    node.shadow(&Bytes::from_static(KV)).expect("it begins")
}

fn renewal(active: Incumbent) -> Request {
    Request::ActivateModule(ActivateModule {
        module: active.hash,
        label: "again".to_owned(),
        replaces: Some(active),
        take_over: TakeOver::Renew { fork: None },
        receipt: None,
        signatures: Vec::new(),
    })
}

fn finished(shadow: SteppedShadow) -> (Report, ShadowEnd) {
    shadow.finish().expect("this host can").expect("the node is there")
}

#[test]
fn a_shadow_executes_what_is_applied_when_it_has_time_and_ends_with_its_time() {
    let (mut node, active) = alone();
    done(&mut node, set("before"));
    let base = node.machine().expect("one").applied_index();
    let mut shadow = begin(&mut node);
    assert!(!shadow.step().expect("fine"), "there is nothing yet");
    for key in ["a", "b", "c"] {
        done(&mut node, set(key));
    }
    assert_eq!((shadow.status().commands, shadow.status().waiting), (0, 3));
    assert!(shadow.step().expect("fine"));
    assert_eq!((shadow.status().commands, shadow.status().waiting), (1, 2));
    let (report, end) = shadow.end().expect("fine").expect("the node is there");
    assert!(end.is_complete());
    assert_eq!((report.base, report.until, report.commands), (base, Index(base.0 + 3), 3));
    assert_eq!((report.counts.len(), report.replaces), (0, active));
    // Nobody takes what comes from now on, and nobody is slowed down by that.
    done(&mut node, set("after"));
    assert_eq!(node.handle().metrics().shadow_commands.get(), 3);
}

#[test]
fn another_activation_ends_a_shadow_with_what_was_compared_until_then() {
    let (mut node, active) = alone();
    let shadow = begin(&mut node);
    done(&mut node, set("a"));
    let renewed_at = done(&mut node, renewal(active)).index;
    done(&mut node, set("b"));
    let (report, end) = finished(shadow);
    assert_eq!(end, ShadowEnd::Activated(renewed_at));
    assert_eq!((report.commands, report.until), (1, Index(renewed_at.0 - 1)));
    assert!(!end.is_complete() && end.to_string().contains("not active any more"), "{end}");
}

#[test]
fn other_limits_end_a_shadow() {
    let (mut node, _) = alone();
    let shadow = begin(&mut node);
    let changed_at = done(&mut node, Request::SetLimits(vec![LimitChange::EventsMax(7)])).index;
    done(&mut node, set("a"));
    let (report, end) = finished(shadow);
    assert_eq!((end, report.commands), (ShadowEnd::RulesChanged(changed_at), 0));
}

#[test]
fn a_node_that_is_gone_leaves_a_shadow_without_a_report() {
    let (mut node, _) = alone();
    let shadow = begin(&mut node);
    done(&mut node, set("a"));
    drop(node);
    assert!(shadow.finish().expect("fine").is_none());
}

#[test]
fn what_no_loader_takes_is_refused_before_it_begins() {
    let (mut node, _) = alone();
    let refused = node.shadow(&Bytes::from_static(b"no module")).err().expect("refused");
    assert!(refused.contains("refuse"), "{refused}");
}

fn entry(bytes: usize) -> Answered {
    let data = Bytes::from(vec![7; bytes]);
    let (index, term, kind) = (Index(1), Term(1), EntryKind::Normal);
    let entry = LogEntry { index, term, kind, data, context: Bytes::new() };
    Answered { entry, answers: Vec::new(), memory_bytes: 0 }
}

#[test]
fn a_queue_that_is_full_ends_the_shadow_and_says_how_full_it_was() {
    let cost = entry(100).cost_bytes();
    let (feed, _source) = ShadowFeed::new(Room { bytes: 2 * cost, commands: 10 });
    assert!(feed.put(entry(100)) && feed.put(entry(100)) && !feed.has_ended());
    assert!(!feed.put(entry(100)) && feed.has_ended());
    let (feed, source) = ShadowFeed::new(Room { bytes: u64::MAX, commands: 3 });
    assert!((0..3).all(|_| feed.put(entry(1))));
    assert!(!feed.put(entry(1)));
    let end = source.end().expect("it has ended");
    let said = Room { bytes: 4 * entry(1).cost_bytes(), commands: 4 };
    assert_eq!(end, ShadowEnd::Behind(said));
    assert!(end.to_string().starts_with("it could not keep up: 4 commands"), "{end}");
    // The most that an entry can hold has room at all.
    const { assert!(crate::node::shadow::WAITING_MAX.commands > BATCH_COMMANDS_MAX as u64) };
}

/// Both are asked after the same entry, however far the shadow was behind.
#[test]
fn queries_are_asked_of_both_in_the_state_at_the_end_of_its_time() {
    let (mut node, active) = alone();
    let mut shadow = begin(&mut node);
    let get = |key: &str| Bytes::from(format!(r#"{{"op":"get","key":"{key}"}}"#));
    shadow.ask_at_the_end(vec![get("a"), get("b")]);
    done(&mut node, set("a"));
    assert!(!shadow.is_over());
    node.end_shadow();
    assert!(shadow.is_over());
    // It is not shown any more.
    done(&mut node, set("b"));
    assert_eq!(shadow.status().waiting, 1);
    let (report, end) = finished(shadow);
    assert!(end.is_complete());
    assert_eq!((report.commands, report.counts), (1, vec![]));
    // One that has ended before is asked nothing.
    let mut shadow = begin(&mut node);
    shadow.ask_at_the_end(vec![get("a")]);
    let renewed_at = done(&mut node, renewal(active)).index;
    node.end_shadow();
    let (_, end) = finished(shadow);
    assert_eq!(end, ShadowEnd::Activated(renewed_at));
}
