//! Who may change the members, where the change goes into the log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::consensus::ConfChangeError;
use crate::machine::AccessChange;
use crate::node::{MembershipFailure, NodeHandle, ProposeFailure};
use crate::types::{Actor, ActorName};

fn leading() -> SteppedNode {
    let (mut node, ..) = start(
        NodeConfig::default(),
        Limits::default(),
        Arc::new(NativeLoader),
        Arc::new(|| Duration::ZERO),
    );
    settle(&mut node);
    node
}

type Asking<T> = Pin<Box<dyn Future<Output = T>>>;

fn poll<T>(asking: &mut Asking<T>) -> Option<T> {
    match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn answer<T>(node: &mut SteppedNode, mut asking: Asking<T>) -> T {
    for _ in 0..50 {
        if let Some(answer) = poll(&mut asking) {
            return answer;
        }
        step(node, true);
    }
    panic!("no answer")
}

fn set(node: &mut SteppedNode, changes: Vec<AccessChange>) {
    let handle = node.handle().acting_for(Actor::Local(NodeId(1)));
    answer(node, Box::pin(async move { handle.set_access(changes).await })).expect("set");
}

fn name(text: &str) -> ActorName {
    text.parse().expect("a name")
}

fn put(who: &str, role: &str) -> AccessChange {
    let (name, roles) = (name(who), vec![name(role)]);
    AccessChange::PutPrincipal { name, roles, must_be_new: false }
}

fn principal(node: &SteppedNode, who: &str) -> Actor {
    let view = node.handle().machine().borrow().clone().expect("a machine");
    let id = view.info.access.principal_named(&name(who)).expect("it is there");
    Actor::Principal { id, token: None }
}

fn moving(handle: NodeHandle, address: &str) -> Asking<Result<(), MembershipFailure>> {
    let address = address.to_owned();
    Box::pin(async move { handle.relocate(NodeId(1), address).await })
}

#[test]
fn members_are_changed_only_for_those_who_may_and_for_the_node_itself() {
    let mut node = leading();
    for made in [put("root", "admin"), put("guest", "reader")] {
        set(&mut node, vec![made]);
    }
    let (root, guest) = (principal(&node, "root"), principal(&node, "guest"));
    let moved = |node: &mut SteppedNode, handle: NodeHandle, address: &str| {
        let asking = moving(handle, address);
        answer(node, asking)
    };
    let of = |node: &SteppedNode, actor| node.handle().acting_for(actor);
    // Nothing is asked before rights are in force.
    let handle = of(&node, guest);
    assert_eq!(moved(&mut node, handle, "a:1"), Ok(()));
    set(&mut node, vec![AccessChange::InForce(true)]);
    for actor in [guest, Actor::Nobody] {
        let handle = of(&node, actor);
        let refused = moved(&mut node, handle, "b:1").expect_err("it may not");
        assert!(
            matches!(refused, MembershipFailure::Propose(ProposeFailure::Denied(_))),
            "{refused}"
        );
    }
    let handle = of(&node, root);
    assert_eq!(moved(&mut node, handle, "c:1"), Ok(()));
    let handle = node.handle().clone();
    assert_eq!(moved(&mut node, handle, "d:1"), Ok(()));
}

/// It is taken away by an entry that stands between what was looked at and the change.
#[test]
fn a_right_that_is_taken_away_before_the_change_is_in_the_log_does_not_count() {
    let mut node = leading();
    set(&mut node, vec![put("root", "admin"), AccessChange::InForce(true)]);
    let handle = node.handle().acting_for(principal(&node, "root"));
    let mut asking = moving(handle.clone(), "b:1");
    assert_eq!(poll(&mut asking), None, "it asks who leads");
    step(&mut node, false);
    let local = node.handle().acting_for(Actor::Local(NodeId(1)));
    let take = vec![put("root", "reader")];
    let mut taking: Asking<_> = Box::pin(async move { local.set_access(take).await });
    assert!(poll(&mut taking).is_none());
    assert_eq!(poll(&mut asking), None, "it was decided on, behind that");
    let refused = answer(&mut node, asking);
    assert_eq!(refused, Err(ConfChangeError::RightsChanged.into()));
    answer(&mut node, taking).expect("set");
    let refused = answer(&mut node, moving(handle, "b:1"));
    assert!(
        matches!(refused, Err(MembershipFailure::Propose(ProposeFailure::Denied(_)))),
        "{refused:?}"
    );
    let members = node.handle().machine().borrow().clone().expect("a machine").members.clone();
    assert_ne!(members[&NodeId(1)].address, "b:1");
}
