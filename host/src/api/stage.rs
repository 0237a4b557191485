//! `StageModule`: takes a module in without activating it.

use raft_host_proto::v1;
use tonic::Streaming;

use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::forward::{answered, passed_on};
use super::prepare::{self, Enough, Readiness};
use super::upgrade::{BUSY_PATIENCE, PREPARE_PATIENCE, unless_busy};
use super::upload::{Upload, maxima, parts, receive};
use crate::types::Member;

pub(super) async fn run(
    context: &Context,
    caller: &Caller,
    incoming: Streaming<v1::UpgradeRequest>,
    hear: impl Fn(&v1::UpgradeHeader) + Send,
) -> Result<v1::StageModuleResponse, Failure> {
    let upload = receive(maxima(context), incoming, hear).await?;
    context.check_group(&upload.header.group)?;
    let upload = &upload;
    let here = || stage(context, caller, upload);
    let there = |leader: Member| async move {
        let mut admin = context.forwarder.admin(&leader)?;
        let parts = tokio_stream::iter(parts(upload));
        answered(admin.stage_module(passed_on(parts, caller, Some(caller.remaining()))).await)
    };
    context.on_leader(caller, context.election_patience() + BUSY_PATIENCE, here, there).await
}

async fn stage(
    context: &Context,
    caller: &Caller,
    upload: &Upload,
) -> Result<v1::StageModuleResponse, Failure> {
    let handle = &context.handle.acting_for(caller.actor);
    let already_held = handle.holds(upload.hash);
    if upload.header.is_state {
        unless_busy(|| handle.bring_in_state(&upload.module)).await?;
        // There is nothing to compile.
        let module_hash = bytes(upload.hash.0);
        return Ok(v1::StageModuleResponse { module_hash, already_held, ..Default::default() });
    }
    let v1::UpgradeHeader { label, .. } = &upload.header;
    let lacks = || handle.check_signed_by(upload.hash, label, &upload.signatures);
    if !label.is_empty() && lacks().is_err() {
        // A leader that has just started may not have applied what made a key trusted.
        context.after_all_committed().await?;
        lacks()?;
    }
    unless_busy(|| handle.bring_in(&upload.module)).await?;
    let patience = PREPARE_PATIENCE.min(caller.remaining() / 2);
    let readiness = prepare::when_voters_are(context, upload.hash, patience, Enough::All).await;
    let Readiness { ready, not_ready } = readiness;
    let not_ready = not_ready.into_iter().map(|(id, why)| v1::NotReady { node_id: id.0, why });
    Ok(v1::StageModuleResponse {
        module_hash: bytes(upload.hash.0),
        already_held,
        ready: ready.into_iter().map(|id| id.0).collect(),
        not_ready: not_ready.collect(),
    })
}
