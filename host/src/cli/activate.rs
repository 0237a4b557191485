//! `raft-host activate`: makes a module active that the cluster holds.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use raft_host_proto::{ClientError, v1};

use super::exit::{Ended, Exit};
use super::output::{Output, print_json, print_text};
use super::remote::{self, RemoteArgs};
use super::upgrade::{
    Expected, WayArgs, bring_state_in, check_rescue, incumbent, named, signatures_of, told,
    upgraded_json,
};

/// Voters may be compiling it, and the switch may take long.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Activates a module that the cluster holds: one that was staged, or the one before.
///
/// `raft-host upgrade` stages, rehearses and activates in one go.
#[derive(Args, Clone, Debug)]
pub(super) struct ActivateArgs {
    /// The module's hash or the first 8 digits or more, as `modules` shows it; or its file.
    #[arg(value_name = "HASH")]
    module: String,
    /// The receipt of the rehearsal that it relies on: if it does not fit any more, nothing changes.
    #[arg(long, value_name = "INDEX")]
    receipt: Option<u64>,
    /// A name for people [default: the one that it was activated with before].
    #[arg(long)]
    label: Option<String>,
    /// As for `upgrade`.
    #[arg(long, value_name = "HASH[@INDEX]")]
    replaces: Option<Expected>,
    /// A file with signatures of the module; can be repeated.
    #[arg(long = "signature", value_name = "FILE")]
    signatures: Vec<PathBuf>,
    #[command(flatten)]
    way: WayArgs,
    /// As for `upgrade`. A receipt is good for the state that was rehearsed, and no other.
    #[arg(long, value_name = "FILE", conflicts_with = "from_image")]
    from_export: Option<PathBuf>,
    /// As for `upgrade`. A receipt is good for the way that was rehearsed, and no other.
    #[arg(long)]
    from_image: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &ActivateArgs) -> Ended {
    let (answer, wanted) = remote::block_on(async {
        let failure = |error: ClientError| remote::failure(&error);
        let client = args.remote.client_with(TIMEOUT).await?;
        let modules = client.modules_now().await.map_err(failure)?;
        let wanted = named(&args.module).find(args.label.as_deref(), &modules.modules)?;
        let replaces = incumbent(&modules);
        if let Some(expected) = &args.replaces {
            expected.check(replaces.as_ref()).map_err(failure)?;
        }
        if args.from_image || args.from_export.is_some() {
            let is_it = |active: &v1::Incumbent| active.module_hash == wanted.hash;
            check_rescue(replaces.as_ref().is_some_and(is_it), replaces.as_ref())?;
        }
        let signatures = signatures_of(&wanted, &args.signatures)?;
        let portable_state = bring_state_in(&client, args.from_export.as_deref()).await?;
        let request = v1::ActivateRequest {
            module_hash: wanted.hash.clone(),
            label: wanted.label.clone(),
            replaces,
            signatures,
            receipt: args.receipt.unwrap_or(0),
            ahead: args.way.ahead,
            portable_state,
            from_image: args.from_image,
            wait_all: args.way.wait_all(),
            ..v1::ActivateRequest::default()
        };
        Ok((client.activate(request).await.map_err(failure)?, wanted))
    })
    .map_err(|failure| failure.about("the upgrade"))?;
    match args.remote.output {
        Output::Json => print_json(&upgraded_json(&answer))?,
        Output::Table => print_text(&told(&answer, &wanted))?,
    }
    Ok(Exit::Done)
}
