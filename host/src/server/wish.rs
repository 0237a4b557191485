//! Asking the cluster for something about this node until it is so.

use std::future::Future;
use std::time::Duration;

use tonic::Status;

use crate::consensus::Role;
use crate::node::{MachineView, NodeHandle};
use crate::types::Member;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a node wants, and how it asks for that.
pub(super) trait Wish: Sync {
    /// What is said while it is not so.
    const STILL: &'static str;
    /// Rounds without success between two lines in the log.
    const QUIET_ROUNDS: u32;

    /// Whether it is so, as of this view; `None`: that does not know this node yet.
    fn is_so(&self, view: &MachineView) -> Option<bool>;

    /// Asks another member.
    fn ask(&self, member: &Member) -> impl Future<Output = Result<(), Status>> + Send;

    /// Asks this node, which leads; why it does not help, if it does not.
    fn ask_here(&self) -> impl Future<Output = Result<(), String>> + Send {
        async { Err("this node leads, and has nobody to ask".to_owned()) }
    }
}

/// Asks one member after the other, the leader first, until it is so; says after how many rounds. Ends
/// only then; whoever does not want to wait drops it.
pub(super) async fn until_so<W: Wish>(handle: &NodeHandle, wish: &W) -> u32 {
    let mut machine = handle.machine();
    let (mut pause, mut rounds) = (PAUSE_MIN, 0_u32);
    loop {
        let can_tell =
            |view: &Option<_>| view.as_deref().is_some_and(|view| wish.is_so(view).is_some());
        let Ok(view) = machine.wait_for(can_tell).await.map(|view| view.clone()) else {
            // The node stopped.
            return std::future::pending().await;
        };
        let view = view.expect("waited for");
        if wish.is_so(&view) == Some(true) {
            return rounds;
        }
        if let Err(reason) = ask_all(handle, wish, &view).await {
            match rounds % W::QUIET_ROUNDS == W::QUIET_ROUNDS - 1 {
                true => tracing::warn!(reason, "{}; asking again", W::STILL),
                false => tracing::debug!(reason, "{}", W::STILL),
            }
        }
        rounds += 1;
        // Either the change arrives as an entry, or it is time to ask again.
        let arrived = machine
            .wait_for(|view| view.as_deref().is_some_and(|view| wish.is_so(view) == Some(true)));
        let _ = tokio::time::timeout(pause, arrived).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One round; why nobody has done it, if nobody has.
async fn ask_all<W: Wish>(handle: &NodeHandle, wish: &W, view: &MachineView) -> Result<(), String> {
    let leadership = handle.leadership().borrow().clone();
    if leadership.role == Role::Leader {
        return wish.ask_here().await;
    }
    let me = handle.identity().node;
    let leader = leadership.leader.map(|leader| leader.id);
    let mut others: Vec<_> = view.members.values().filter(|member| member.id != me).collect();
    others.sort_by_key(|member| Some(member.id) != leader);
    let mut reason = "there is no other member to ask".to_owned();
    for member in others {
        match wish.ask(member).await {
            Ok(()) => return Ok(()),
            Err(status) => reason = format!("node {}: {}", member.id, status.message()),
        }
    }
    Err(reason)
}
