//! `raft-host rehearse`: tries a module on real state and real commands before a cluster runs it.
//!
//! On a cluster its voters do it ([`ask`]). Without one, what a stopped node or a backup holds is enough.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use raft_host_proto::{ClientError, v1};
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::input::{label_of, read_module};
use super::offline::{Candidate, Rehearsed, Stopped, rehearse_state, restored};
use super::output::{Output, print_json, print_text};
use super::remote::{self, RemoteArgs, parse_duration};
use super::stage;
use super::upgrade::{
    RehearsalArgs, bring_state_in, log_time_ms, named, rehearsal_json, rehearsal_text, rehearse,
    shadow_json, shadow_request, shadow_text, watch_shadow,
};
use crate::api::report_to_wire;
use crate::fsm::on_guest_stack;
use crate::machine::Way;
use crate::rehearsal::{Allowances, LAST_COMMANDS, Wanted};

/// Every voter executes what is retained, twice.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Tries a module on real state and real commands, and says what it does otherwise than the active one.
///
/// The module takes over a retained state, as in an upgrade, and executes the same commands of the log beside the
/// active one. What they answer, reject and emit is compared, and what the queries given here answer at the end;
/// the migration is tried twice and back, and the module's own `check` is asked. Nothing is changed.
/// Exit code 3 if anything differs that --allow does not name.
#[derive(Args, Clone, Debug)]
pub(super) struct RehearseArgs {
    /// The module: a .wasm file; or, of those that the cluster holds, its hash or the first 8 digits or more.
    #[arg(value_name = "FILE|HASH")]
    module: PathBuf,
    /// On this node of the cluster only; its receipt, which an activation may rely on, is not written down.
    #[arg(
        long, value_name = "ID", help_heading = "Rehearsal",
        conflicts_with_all = ["data_dir", "backup"]
    )]
    on: Option<u64>,
    /// On what a stopped node retains; no cluster is asked.
    #[arg(long, value_name = "DIR", conflicts_with = "backup", help_heading = "Rehearsal")]
    data_dir: Option<PathBuf>,
    /// On the state in a backup, which holds no commands; no cluster is asked.
    #[arg(
        long, value_name = "FILE", help_heading = "Rehearsal",
        conflicts_with_all = ["last", "since", "all_retained"]
    )]
    backup: Option<PathBuf>,
    /// Instead, runs the module beside the active one for so long, such as 30s or 1h, on the commands that come
    /// meanwhile. Queries are asked of both at the end of that.
    #[arg(
        long, value_name = "TIME", value_parser = parse_duration, help_heading = "Rehearsal",
        conflicts_with_all = [
            "data_dir", "backup", "last", "since", "all_retained", "from_image", "from_export"
        ]
    )]
    shadow: Option<Duration>,
    /// It reads the active module's memory (its export `adopt`), as in `upgrade --from-image`.
    #[arg(long, help_heading = "Rehearsal")]
    from_image: bool,
    /// Its `restore` gets what this file holds, as in `upgrade --from-export`: no commands are executed. Of a
    /// cluster's voters only.
    #[arg(
        long, value_name = "FILE", help_heading = "Rehearsal",
        conflicts_with_all = [
            "from_image", "data_dir", "backup", "last", "since", "all_retained"
        ]
    )]
    from_export: Option<PathBuf>,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

impl RehearseArgs {
    /// Whether a running cluster is asked.
    pub(super) fn asks_cluster(&self) -> bool {
        self.data_dir.is_none() && self.backup.is_none()
    }

    fn candidate(&self, allowances: &Allowances) -> Result<Candidate, Failure> {
        let module = Bytes::from(read_module(&self.module)?);
        let queries = self.rehearsal.read_queries()?;
        let (label, classes) = (label_of(&self.module), allowances.classes());
        let way = if self.from_image { Way::Image } else { Way::Snapshot };
        Ok(Candidate { module, label, way, queries, classes })
    }
}

pub(super) fn run(args: &RehearseArgs) -> Ended {
    let allowances = Allowances::parse(&args.rehearsal.allow)
        .map_err(|error| Failure::usage(format!("--allow: {error}")))?;
    if args.asks_cluster() {
        return ask(args);
    }
    let candidate = args.candidate(&allowances)?;
    let rehearsed = on_guest_stack("rehearsal", || match (&args.data_dir, &args.backup) {
        (Some(dir), _) => {
            Stopped::open(dir)?.rehearse(&candidate, |now| wanted(&args.rehearsal, now))
        }
        (None, Some(file)) => rehearse_state(restored(file)?, &candidate),
        (None, None) => unreachable!("then the cluster is asked"),
    });
    let rehearsed = rehearsed.map_err(|error| Failure::new(format!("cannot start: {error}")))??;
    conclude(&rehearsed, &allowances, args.remote.output)
}

/// Has the voters of a running cluster rehearse; a module that is a file is brought in first.
fn ask(args: &RehearseArgs) -> Ended {
    let failure = |error: ClientError| remote::failure(&error);
    let output = args.remote.output;
    let (passed, text, value) = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        let modules = client.modules_now().await.map_err(failure)?;
        let wanted = named(&args.module.to_string_lossy()).find(None, &modules.modules)?;
        let portable_state = bring_state_in(&client, args.from_export.as_deref()).await?;
        if let Some((_, bytes)) = &wanted.file {
            let staged = client.stage(bytes.clone()).await.map_err(failure)?;
            if output == Output::Table {
                print_text(&stage::to_text(&staged, &wanted.label))?;
            }
        }
        if let Some(duration) = args.shadow {
            let request = shadow_request(wanted.hash.clone(), duration, &args.rehearsal)?;
            let request = v1::ShadowRequest { on_node: args.on.unwrap_or(0), ..request };
            let found = watch_shadow(&client, request).await?;
            return Ok((found.passed, shadow_text(&found), shadow_json(&found)));
        }
        let now_ms = log_time_ms(&client).await?;
        let request = args.rehearsal.request(wanted.hash.clone(), now_ms)?;
        let (on_node, from_image) = (args.on.unwrap_or(0), args.from_image);
        let request = v1::RehearseRequest { on_node, from_image, portable_state, ..request };
        let answer = rehearse(&client, request).await.map_err(failure)?;
        Ok((answer.passed, rehearsal_text(&answer), rehearsal_json(&answer)))
    })
    .map_err(|failure| {
        failure.about(if args.shadow.is_some() { "the shadow" } else { "the rehearsal" })
    })?;
    match output {
        Output::Json => print_json(&value)?,
        Output::Table => print_text(&text)?,
    }
    Ok(if passed { Exit::Done } else { Exit::Rejected })
}

/// How much of a log is wanted whose clock shows `now_ms` at its end.
pub(super) fn wanted(args: &RehearsalArgs, now_ms: u64) -> Wanted {
    match (args.last, args.since, args.all_retained) {
        (Some(last), ..) => Wanted::Last(last),
        (_, Some(since), _) => {
            let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            Wanted::Since(now_ms.saturating_sub(since_ms))
        }
        (.., true) => Wanted::All,
        _ => Wanted::AtMost(LAST_COMMANDS),
    }
}

/// Tells what was found, and ends with 3 if it is not what is intended.
pub(super) fn conclude(found: &Rehearsed, allowances: &Allowances, output: Output) -> Ended {
    let verdict = found.report.verdict(allowances);
    match output {
        Output::Json => print_json(&to_json(found, allowances))?,
        Output::Table => {
            let word = match (verdict.refused, verdict.allowed) {
                (0, 0) => "passed: nothing differs".to_owned(),
                (0, allowed) => format!("passed: what differs is allowed ({allowed})"),
                (refused, _) => format!(
                    "refused: {refused} differences that nobody has allowed; what is intended is allowed with \
                     --allow KIND[:CLASS]"
                ),
            };
            print_text(&format!(
                "on {}:\n{}\n{word}",
                found.of,
                rehearsal_text(&answer(found, allowances))
            ))?;
        }
    }
    Ok(if verdict.passed() { Exit::Done } else { Exit::Rejected })
}

/// What a script is told of it.
pub(super) fn to_json(found: &Rehearsed, allowances: &Allowances) -> Value {
    let mut value = rehearsal_json(&answer(found, allowances));
    value["of"] = json!(found.of);
    value
}

/// As a cluster of one node that wrote nothing down would answer.
fn answer(found: &Rehearsed, allowances: &Allowances) -> v1::RehearseResponse {
    let verdict = found.report.verdict(allowances);
    let node = v1::RehearsedBy {
        node_id: found.node.0,
        report_hash: found.report.hash().to_vec().into(),
        why_not: String::new(),
        switch_us: u64::try_from(found.report.switch.as_micros()).unwrap_or(u64::MAX),
        elapsed_ms: u64::try_from(found.elapsed.as_millis()).unwrap_or(u64::MAX),
    };
    v1::RehearseResponse {
        receipt: 0,
        passed: verdict.passed(),
        report: Some(report_to_wire(&found.report, allowances)),
        nodes: vec![node],
        notes: verdict.unmatched,
    }
}
