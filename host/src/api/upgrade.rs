//! `Upgrade`: takes a module in, then has the leader check, replicate and activate it.

use std::future::Future;
use std::time::Duration;

use raft_host_proto::v1;
use tokio::time::Instant;
use tonic::Streaming;

use super::caller::Caller;
use super::context::Context;
use super::convert::{bytes, position_to_wire};
use super::failure::Failure;
use super::forward::{answered, passed_on};
use super::prepare::{self, Enough};
use super::upload::{Upload, maxima, parts, receive};
use crate::machine::TakeOver;
use crate::node::{ProposeFailure, Upgrade, UpgradeFailure, Upgraded};
use crate::types::Member;

/// How long a busy leader may keep an upgrade waiting.
pub(super) const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a busy leader is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long the voters may take to compile a module before it is activated all the same.
pub(super) const PREPARE_PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    context: &Context,
    caller: &Caller,
    incoming: Streaming<v1::UpgradeRequest>,
    hear: impl Fn(&v1::UpgradeHeader) + Send,
) -> Result<v1::UpgradeResponse, Failure> {
    let upload = receive(maxima(context), incoming, hear).await?;
    context.check_group(&upload.header.group)?;
    let upload = &upload;
    let here = || activate(context, caller, upload);
    let there = |leader: Member| async move {
        let mut admin = context.forwarder.admin(&leader)?;
        let parts = tokio_stream::iter(parts(upload));
        answered(admin.upgrade(passed_on(parts, caller, Some(caller.remaining()))).await)
    };
    context.on_leader(caller, context.election_patience() + BUSY_PATIENCE, here, there).await
}

async fn activate(
    context: &Context,
    caller: &Caller,
    upload: &Upload,
) -> Result<v1::UpgradeResponse, Failure> {
    let handle = &context.handle.acting_for(caller.actor);
    let upgrade = Upgrade {
        module: upload.module.clone(),
        label: upload.header.label.clone(),
        replaces: upload.replaces,
        take_over: match upload.header.discard_state {
            true => TakeOver::Nothing,
            false => TakeOver::default(),
        },
        receipt: None,
        signatures: upload.signatures.clone(),
    };
    if handle.check_signed(&upgrade).is_err() {
        // A leader that has just started may not have applied what made a key trusted.
        context.after_all_committed().await?;
        handle.check_signed(&upgrade)?;
    }
    unless_busy(|| handle.bring_in(&upload.module)).await?;
    let patience = PREPARE_PATIENCE.min(caller.remaining() / 2);
    let readiness = prepare::when_voters_are(context, upload.hash, patience, Enough::All).await;
    for (voter, why) in &readiness.not_ready {
        tracing::warn!(
            %voter, module = %upload.hash.short(), why,
            "a module is activated before this voter has compiled it"
        );
    }
    let upgraded = unless_busy(|| handle.activate(upgrade.clone())).await?;
    Ok(response(&upgraded))
}

/// A module is active.
pub(super) fn response(upgraded: &Upgraded) -> v1::UpgradeResponse {
    v1::UpgradeResponse {
        index: upgraded.index.0,
        module_hash: bytes(upgraded.hash.0),
        previous_hash: upgraded.previous.map(|it| bytes(it.0)).unwrap_or_default(),
        already_active: upgraded.already_active,
        stall_us: u64::try_from(upgraded.stall.as_micros()).unwrap_or(u64::MAX),
        rewound: upgraded.rewound.map(|rewound| v1::Rewound {
            commands: rewound.commands,
            differing: rewound.differing,
            first: rewound.first.map(position_to_wire),
        }),
    }
}

/// Tries again while the node has too much to do.
pub(super) async fn unless_busy<T, F>(attempt: impl Fn() -> F) -> Result<T, UpgradeFailure>
where
    F: Future<Output = Result<T, UpgradeFailure>>,
{
    let give_up = Instant::now() + BUSY_PATIENCE;
    loop {
        match attempt().await {
            Err(UpgradeFailure::Propose(ProposeFailure::Busy(_))) if Instant::now() < give_up => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            result => return result,
        }
    }
}
