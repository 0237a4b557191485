//! The barrier before an activation whose instances are made ahead: the voters' ones are close behind the machine.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use raft_host_proto::v1::Reason;
use tokio::time::Instant;

use super::context::Context;
use super::failure::Failure;
use super::prepare::{self, Enough, is_quorum};
use crate::node::{AheadOfFork, MembershipFailure};
use crate::types::{Index, Member, ModuleHash};

/// Between two looks at how far the instances are.
const PAUSE: Duration = Duration::from_millis(20);
/// So many commands may be left for the switch itself.
const LAG_MAX: u64 = 256;
/// Nobody is waited for longer.
const PATIENCE_MAX: Duration = Duration::from_secs(300);
/// How long those are waited for that are not needed.
const GRACE: Duration = Duration::from_secs(2);

/// Waits until the instances of enough voters are close behind.
pub(super) async fn when_voters_are(
    context: &Context,
    module: ModuleHash,
    fork: Index,
    patience: Duration,
    enough: Enough,
) -> Result<(), Failure> {
    let began = Instant::now();
    let give_up = began + patience.min(PATIENCE_MAX);
    let me = context.handle.identity().node;
    loop {
        let view = context.handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
        let voters = prepare::voters(&view.conf_state);
        let others = voters.iter().filter(|voter| **voter != me);
        let others = others.filter_map(|voter| view.members.get(voter));
        let asked =
            others.map(|member| async { (member.id, lag_of(context, member, module, fork).await) });
        let mut lags = join_all(asked).await;
        lags.push((me, lag_here(context, fork)));
        let mut close = BTreeSet::new();
        let mut behind = Vec::new();
        for (node, lag) in lags {
            match lag {
                Ok(Some(lag)) if lag <= LAG_MAX => {
                    close.insert(node);
                }
                Ok(Some(lag)) => behind.push(format!("node {node} is {lag} commands behind")),
                Ok(None) => behind.push(format!("node {node} is still taking the state over")),
                // It is the same everywhere, and so it would be at the activation.
                Err(Lag::Refused(why)) => return Err(not_ahead(&why)),
                Err(Lag::Unknown(why)) => behind.push(format!("node {node}: {why}")),
            }
        }
        let is_all = close.len() == voters.len();
        let has_most = is_quorum(&close, &view.conf_state) && close.contains(&me);
        let is_late = began.elapsed() >= GRACE;
        if is_all || enough == Enough::Quorum && has_most && is_late {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let words = format!(
                "the module is not activated, because its instances do not catch up ({}): ask again, or \
                 activate it without making them ahead (--no-ahead)",
                behind.join("; ")
            );
            return Err(Failure::none(Reason::ModuleNotActivated, words));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Lag {
    Refused(String),
    Unknown(String),
}

fn not_ahead(why: &str) -> Failure {
    let words = format!("the module was not activated: {why}");
    Failure::none(Reason::ModuleNotActivated, words)
}

fn lag_here(context: &Context, fork: Index) -> Result<Option<u64>, Lag> {
    match context.handle.ahead(fork) {
        AheadOfFork::Behind(lag) => Ok(lag),
        AheadOfFork::Refused(why) => Err(Lag::Refused(why)),
        // It was applied here: something has dropped it.
        AheadOfFork::Gone => Err(Lag::Refused(
            "what was kept for it was dropped: limits have changed, or more commands came than \
             upgrade_keep_bytes allows"
                .to_owned(),
        )),
    }
}

async fn lag_of(
    context: &Context,
    member: &Member,
    module: ModuleHash,
    fork: Index,
) -> Result<Option<u64>, Lag> {
    let answer = prepare::ask(context, member, Some(module), Some(fork)).await;
    match answer {
        Ok(answer) if !answer.why_not.is_empty() => Err(Lag::Unknown(answer.why_not)),
        Ok(answer) => Ok(answer.lag),
        Err(why) => Err(Lag::Unknown(why)),
    }
}
