//! `Activate`: makes a module active that the group holds; and what an activation may rely on.

use std::time::Duration;

use raft_host_proto::v1::{self, Reason};

use super::ahead;
use super::caller::Caller;
use super::context::Context;
use super::convert::{incumbent_from_wire, module_from_wire};
use super::failure::Failure;
use super::forward::Forwarder;
use super::keys::signatures_from_wire;
use super::prepare::{self, Enough, is_quorum};
use super::upgrade::{BUSY_PATIENCE, PREPARE_PATIENCE, response, unless_busy};
use super::upload::check_label;
use crate::machine::TakeOver;
use crate::node::{ActivateModule, MachineView, MembershipFailure};
use crate::types::{Index, ModuleHash};

/// Fewer bytes of a hash could be those of another one.
const PREFIX_MIN_BYTES: usize = 4;

/// The module that the group holds whose hash begins so.
pub(super) fn held_module(view: &MachineView, prefix: &[u8]) -> Result<ModuleHash, Failure> {
    if !(PREFIX_MIN_BYTES..=32).contains(&prefix.len()) {
        let words = format!(
            "a module is named by its hash, or the first {PREFIX_MIN_BYTES} bytes of it or more"
        );
        return Err(Failure::none(Reason::InvalidRequest, words));
    }
    let held = view.info.modules.iter().map(|module| module.hash);
    let mut named = held.filter(|hash| hash.0.starts_with(prefix));
    match (named.next(), named.next()) {
        (Some(only), None) => Ok(only),
        (first, _) => {
            let digits: String = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
            let words = match first {
                None => format!(
                    "the cluster holds no module {digits}: look at `raft-host modules`, or bring it in with \
                     `raft-host stage FILE`"
                ),
                Some(_) => format!("several modules begin with {digits}: give more of the hash"),
            };
            Err(Failure::none(Reason::NoSuchModule, words))
        }
    }
}

pub(super) async fn run(
    context: &Context,
    caller: &Caller,
    request: v1::ActivateRequest,
) -> Result<v1::UpgradeResponse, Failure> {
    context.check_group(&request.group)?;
    check_label(&request.label)?;
    let request = &request;
    let here = || activate(context, caller, request);
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.activate(request).await },
    );
    context.on_leader(caller, context.election_patience() + BUSY_PATIENCE, here, there).await
}

async fn activate(
    context: &Context,
    caller: &Caller,
    request: &v1::ActivateRequest,
) -> Result<v1::UpgradeResponse, Failure> {
    let handle = &context.handle.acting_for(caller.actor);
    // A leader that has just started may not have applied what brought the module in.
    context.after_all_committed().await?;
    let view = context.handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
    let module = match (&view.info.way_back, request.module_hash.is_empty()) {
        (Some(way_back), true) if request.rewind => way_back.module,
        _ => held_module(&view, &request.module_hash)?,
    };
    let signatures = signatures_from_wire(&request.signatures)?;
    let replaces = request.replaces.as_ref().map(incumbent_from_wire).transpose()?;
    let mut activate = ActivateModule {
        module,
        label: request.label.clone(),
        replaces,
        take_over: take_over(request)?,
        receipt: Some(Index(request.receipt)).filter(|receipt| receipt.0 != 0),
        signatures,
    };
    let is_active = handle.incumbent().is_some_and(|active| active.hash == module);
    if is_active && !request.renew {
        // Then nothing happens, and the answer says since when.
        let upgraded = unless_busy(|| handle.activate_held(activate.clone())).await?;
        return Ok(response(&upgraded));
    }
    handle.check_signed_by(module, &request.label, &activate.signatures)?;
    let patience = PREPARE_PATIENCE.min(caller.remaining() / 2);
    when_compiled(context, module, patience, request.wait_all).await?;
    if request.ahead {
        let fork = unless_busy(|| handle.fork(module, replaces)).await?;
        let enough = if request.wait_all { Enough::All } else { Enough::Quorum };
        ahead::when_voters_are(context, module, fork, caller.remaining() / 2, enough).await?;
        activate.take_over = match request.renew {
            true => TakeOver::Renew { fork: Some(fork) },
            false => TakeOver::Snapshot { fork: Some(fork) },
        };
    }
    let upgraded = unless_busy(|| handle.activate_held(activate.clone())).await?;
    Ok(response(&upgraded))
}

/// How the module gets its state.
fn take_over(request: &v1::ActivateRequest) -> Result<TakeOver, Failure> {
    let state = match request.portable_state.is_empty() {
        true => None,
        false => Some(module_from_wire(&request.portable_state)?),
    };
    let ways = [
        request.rewind.then_some(TakeOver::Rewind),
        state.map(TakeOver::PortableState),
        request.from_image.then_some(TakeOver::Image),
        request.renew.then_some(TakeOver::Renew { fork: None }),
    ];
    let mut ways = ways.into_iter().flatten();
    let way = ways.next();
    let is_one = ways.next().is_none();
    let goes_ahead = matches!(way, None | Some(TakeOver::Renew { .. }));
    if !is_one || request.ahead && !goes_ahead {
        let words = "rewind, portable_state, from_image and renew are each another way to get a state: one of \
                     them at most; and only a module that takes over by snapshot and restore can go ahead";
        return Err(Failure::none(Reason::InvalidRequest, words));
    }
    Ok(way.unwrap_or_default())
}

/// `ConfirmUpgrade`, here or at the leader.
pub(super) async fn confirm(
    context: &Context,
    caller: &Caller,
    request: v1::ConfirmUpgradeRequest,
) -> Result<v1::ConfirmUpgradeResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        context.after_all_committed().await?;
        let handle = context.handle.acting_for(caller.actor);
        let active = handle.incumbent().ok_or_else(Failure::no_module)?;
        if active.activated_at.0 != request.activated_at {
            let words = format!(
                "the last activation is the one at index {}, and not at {}: look at `raft-host modules`",
                active.activated_at, request.activated_at
            );
            return Err(Failure::none(Reason::IncumbentChanged, words).about(active.activated_at.0));
        }
        let view = handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
        // A module that was renewed is active since then, and what is kept is of before it was replaced.
        let kept = view.info.way_back.as_ref().map(|way_back| way_back.activated_at);
        let activated_at = kept.unwrap_or(active.activated_at);
        let (index, was_open) = handle.settle_upgrade(activated_at).await?;
        Ok(v1::ConfirmUpgradeResponse { index: index.0, already_confirmed: !was_open })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.confirm_upgrade(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

/// Waits until enough voters have compiled the module.
async fn when_compiled(
    context: &Context,
    module: ModuleHash,
    patience: Duration,
    wait_all: bool,
) -> Result<(), Failure> {
    let enough = if wait_all { Enough::All } else { Enough::Quorum };
    let readiness = prepare::when_voters_are(context, module, patience, enough).await;
    let view = context.handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
    let is_enough = match enough {
        Enough::All => readiness.not_ready.is_empty(),
        Enough::Quorum => is_quorum(&readiness.ready, &view.conf_state),
    };
    if is_enough {
        return Ok(());
    }
    let words = format!(
        "the module is not activated, because {} voters have not compiled it ({}): see to these nodes, and ask \
         again",
        readiness.not_ready.len(),
        readiness.why_not()
    );
    Err(Failure::none(Reason::NotCompiled, words))
}
