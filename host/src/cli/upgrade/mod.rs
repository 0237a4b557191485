//! `raft-host upgrade`: gives the cluster another module, or goes back to the one before.
//!
//! ```text
//!   FILE ─► stage ─► rehearse ─► activate        each voter compiles; tries it; the switch
//!                       └─ refused: exit code 3, nothing changed; so it is after --shadow
//! ```

mod expected;
mod rehearsal;
mod rescue;
mod shadow;
mod signatures;
mod wanted;
mod way;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args, ValueEnum};
use raft_host_proto::client::UpgradeOptions;
use raft_host_proto::{Client, ClientError, v1};
use serde_json::{Value, json};

pub(super) use self::expected::Expected;
pub(super) use self::rehearsal::{
    RehearsalArgs, progress_words, rehearse, to_json as rehearsal_json, to_text as rehearsal_text,
};
pub(super) use self::rescue::{bring_state_in, check_rescue};
pub(super) use self::shadow::{
    request as shadow_request, to_json as shadow_json, to_text as shadow_text,
    watch as watch_shadow,
};
pub(super) use self::signatures::signatures_of;
pub(super) use self::wanted::{Wanted, named};
pub(super) use self::way::{WayArgs, incumbent};
use super::exit::{Ended, Exit, Failure};
use super::output::{
    Output, hex, human_bytes, human_count, human_duration, print_json, print_text, short_hash,
};
use super::remote::{self, RemoteArgs, parse_duration};
use super::stage;

/// Every voter checks, compiles and rehearses the module first.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Replaces the running module on all nodes at the same index of the log.
///
/// The module is brought in (`stage`), compiled by every voter, and tried on the cluster's own history
/// (`rehearse`): if it answers anything otherwise that is not allowed with --allow, the upgrade ends with exit
/// code 3 and nothing has changed. Then it takes over the state through the old one's `snapshot` and its own
/// `restore` (`activate`). The module and state before are kept for a while: --rollback goes back.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("drastic").args(["discard_state", "rollback"]))]
#[command(group = ArgGroup::new("done_with").args(["confirm", "rollback", "renew"]))]
pub(super) struct UpgradeArgs {
    /// The module: a .wasm file, or the hash (or its first 8 digits or more) of one that the cluster holds.
    #[arg(
        value_name = "FILE|HASH",
        required_unless_present = "done_with",
        conflicts_with = "done_with"
    )]
    module: Option<String>,
    /// A name for people, shown by `status` and `modules`; the file's name without .wasm if none is given.
    #[arg(long)]
    label: Option<String>,
    /// Only if this module is active: its hash or the beginning of it, as `modules` shows it, and
    /// if you like the index since when. Without it: whatever is active now. A script that may run
    /// twice gives HASH@INDEX, so that the second run undoes nothing that came in between.
    #[arg(long, value_name = "HASH[@INDEX]")]
    replaces: Option<Expected>,
    /// Gives the state up: the new module's `init` runs instead of `snapshot` and `restore`, as in a
    /// new cluster. The last way out when the active module's `snapshot` can never succeed.
    #[arg(long, requires = "yes", conflicts_with_all = ["done_with", "from_export", "from_image"])]
    discard_state: bool,
    /// The state, or answers that clients have, may be given up.
    #[arg(long, requires = "drastic")]
    yes: bool,
    /// A file with signatures of the module, as `raft-host sign` writes it; can be repeated [default: the
    /// module's name with .sig behind it, if there is such a file].
    #[arg(long = "signature", value_name = "FILE")]
    signatures: Vec<PathBuf>,
    /// Activates the module without trying it first.
    #[arg(long)]
    no_rehearsal: bool,
    /// Has each node make the new module's instance at the switch, also where a rehearsal has found no difference
    /// and so --ahead would be the default.
    #[arg(long, conflicts_with = "ahead")]
    no_ahead: bool,
    #[command(flatten)]
    rehearsal: RehearsalArgs,
    /// After the rehearsal, runs the module beside the active one for so long, such as 30s or 1h, on every voter and
    /// its live commands, and activates it only if that finds nothing either that is not allowed.
    #[arg(
        long, value_name = "TIME", value_parser = parse_duration,
        conflicts_with_all = [
            "no_rehearsal", "discard_state", "from_export", "from_image", "renew", "confirm",
        ]
    )]
    shadow: Option<Duration>,
    #[command(flatten)]
    way: WayArgs,
    /// The new module's `restore` gets what this file holds, as `raft-host export` writes it, perhaps changed by a
    /// tool. It is rehearsed on that: no commands are executed.
    #[arg(
        long, value_name = "FILE",
        conflicts_with_all = ["done_with", "from_image", "last", "since", "all_retained"]
    )]
    from_export: Option<PathBuf>,
    /// The new module reads the old one's memory (its export `adopt`), for an old module whose `snapshot` is
    /// broken. It is rehearsed so.
    #[arg(long, conflicts_with = "done_with")]
    from_image: bool,
    /// Begins the active module anew through its own `snapshot` and `restore`, which gives back memory that it has
    /// leaked.
    #[arg(long)]
    renew: bool,
    /// Nobody will go back from the last activation: what is kept for that is dropped.
    #[arg(long)]
    confirm: bool,
    /// Goes back to the module before. convert: it takes over the state as it is now. rewind: as if it had never
    /// been replaced, it executes again what came since; answers that clients have may change, and are listed.
    #[arg(long, value_enum, value_name = "HOW")]
    rollback: Option<Rollback>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// How to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rollback {
    Convert,
    Rewind,
}

/// What an upgrade came to.
#[derive(Debug, Default)]
struct Came {
    rehearsal: Option<v1::RehearseResponse>,
    shadow: Option<v1::ShadowProgress>,
    /// `None`: it was refused.
    answer: Option<v1::UpgradeResponse>,
}

impl Came {
    /// A rehearsal was there, and neither that nor a shadow found anything, not even what is allowed.
    fn differs_in_nothing(&self) -> bool {
        let rehearsed = self.rehearsal.as_ref().and_then(|rehearsal| rehearsal.report.as_ref());
        let nodes = self.shadow.iter().flat_map(|shadow| &shadow.nodes);
        let mut reports = rehearsed.into_iter().chain(nodes.filter_map(|it| it.report.as_ref()));
        rehearsed.is_some() && reports.all(|report| report.counts.is_empty())
    }
}

pub(super) fn run(args: &UpgradeArgs) -> Ended {
    if args.no_rehearsal && args.rehearsal.are_given() {
        return Err(Failure::usage("--no-rehearsal goes with no option of a rehearsal"));
    }
    if args.shadow.is_some() && args.rollback == Some(Rollback::Rewind) {
        return Err(Failure::usage(
            "--rollback rewind brings no module that could be in the shadow",
        ));
    }
    let came = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        match (args.confirm, args.rollback) {
            (true, _) => confirm(&client, args).await.map(|()| None),
            (_, Some(Rollback::Rewind)) => rewind(&client, args).await.map(Some),
            _ => upgrade(&client, args).await.map(Some),
        }
    })
    .map_err(|failure| failure.about("the upgrade"))?;
    let Some(came) = came else { return Ok(Exit::Done) };
    if args.remote.output == Output::Json {
        print_json(&to_json(&came))?;
    }
    Ok(if came.answer.is_some() { Exit::Done } else { Exit::Rejected })
}

impl UpgradeArgs {
    /// Whether the old module's `snapshot` is passed by.
    fn is_rescue(&self) -> bool {
        self.from_image || self.from_export.is_some()
    }

    /// Tells a person how far it is.
    fn say(&self, text: &str) -> Result<(), Failure> {
        match self.remote.output {
            Output::Table => print_text(text),
            Output::Json => Ok(()),
        }
    }

    /// The module that is to be active.
    fn wanted(&self, modules: &v1::ModulesResponse) -> Result<Wanted, Failure> {
        let label = self.label.as_deref();
        let held = |hash: &Bytes| modules.modules.iter().find(|module| module.hash == *hash);
        if let Some(module) = &self.module {
            return named(module).find(label, &modules.modules);
        }
        let hash = match self.rollback {
            None => modules.history.last().map(|active| active.module_hash.clone()),
            Some(_) => before(modules),
        };
        let module = hash.as_ref().and_then(held).ok_or_else(|| match self.rollback {
            None => Failure::new("the cluster has no module yet: there is none to renew"),
            Some(_) => no_way_back(),
        })?;
        Ok(Wanted::held(module, label))
    }
}

/// The module before the active one.
fn before(modules: &v1::ModulesResponse) -> Option<Bytes> {
    if let Some(way_back) = &modules.way_back {
        return Some(way_back.module_hash.clone());
    }
    let active = modules.history.last()?;
    let other = |it: &&v1::Activation| it.module_hash != active.module_hash;
    modules.history.iter().rev().find(other).map(|it| it.module_hash.clone())
}

fn no_way_back() -> Failure {
    Failure::new("there is no module to go back to: look at `raft-host modules`")
}

async fn upgrade(client: &Client, args: &UpgradeArgs) -> Result<Came, Failure> {
    let failure = |error: ClientError| remote::failure(&error);
    let modules = client.modules_now().await.map_err(failure)?;
    let (replaces, wanted) = (incumbent(&modules), args.wanted(&modules)?);
    let is_active =
        replaces.as_ref().is_some_and(|active| active.module_hash == wanted.hash) && !args.renew;
    // One that is active already needs nothing: then this is the second run of a script.
    if let Some(expected) = &args.replaces
        && !is_active
    {
        expected.check(replaces.as_ref()).map_err(failure)?;
    }
    if args.is_rescue() {
        check_rescue(is_active, replaces.as_ref())?;
    }
    let signatures = signatures_of(&wanted, &args.signatures)?;
    if let Some((_, bytes)) = &wanted.file
        && (is_active || replaces.is_none() || args.discard_state)
    {
        // Nothing is there that it could be compared with.
        let discard_state = args.discard_state;
        let options = UpgradeOptions { replaces, discard_state, signatures };
        let upgraded = client.upgrade_from(options, bytes.clone(), &wanted.label).await;
        let answer = upgraded.map_err(failure)?;
        args.say(&told(&answer, &wanted))?;
        return Ok(Came { answer: Some(answer), ..Came::default() });
    }
    if args.discard_state {
        return Err(Failure::usage("--discard-state takes the module's file"));
    }
    let portable_state = bring_state_in(client, args.from_export.as_deref()).await?;
    if let Some((_, bytes)) = &wanted.file {
        let staged = client
            .stage_to_activate(bytes.clone(), &wanted.label, signatures.clone())
            .await
            .map_err(failure)?;
        args.say(&stage::to_text(&staged, &wanted.label))?;
    }
    let mut came = Came::default();
    let is_rehearsed = !(args.no_rehearsal || is_active || replaces.is_none());
    if is_rehearsed {
        let now_ms = log_time_ms(client).await?;
        let request = v1::RehearseRequest {
            portable_state: portable_state.clone(),
            from_image: args.from_image,
            ..args.rehearsal.request(wanted.hash.clone(), now_ms)?
        };
        let rehearsal = rehearse(client, request).await.map_err(failure)?;
        args.say(&rehearsal_text(&rehearsal))?;
        let passed = rehearsal.passed;
        came.rehearsal = Some(rehearsal);
        if !passed {
            args.say(&not_activated(&wanted))?;
            return Ok(came);
        }
    }
    if let Some(duration) = args.shadow.filter(|_| is_rehearsed) {
        let request = shadow_request(wanted.hash.clone(), duration, &args.rehearsal)?;
        let found = watch_shadow(client, request).await?;
        args.say(&shadow_text(&found))?;
        let passed = found.passed;
        came.shadow = Some(found);
        if !passed {
            args.say(&not_activated(&wanted))?;
            return Ok(came);
        }
    }
    let request = v1::ActivateRequest {
        module_hash: wanted.hash.clone(),
        label: wanted.label.clone(),
        replaces,
        signatures,
        receipt: came.rehearsal.as_ref().map_or(0, |rehearsal| rehearsal.receipt),
        ahead: args.way.ahead || !args.no_ahead && !args.is_rescue() && came.differs_in_nothing(),
        portable_state,
        from_image: args.from_image,
        renew: args.renew,
        wait_all: args.way.wait_all(),
        ..v1::ActivateRequest::default()
    };
    let answer = client.activate(request).await.map_err(failure)?;
    args.say(&told(&answer, &wanted))?;
    came.answer = Some(answer);
    Ok(came)
}

fn not_activated(wanted: &Wanted) -> String {
    format!(
        "{} is not activated, and nothing has changed: what is intended is allowed with --allow KIND[:CLASS]",
        wanted.name()
    )
}

/// The cluster's clock, as the node that answers has it.
pub(super) async fn log_time_ms(client: &Client) -> Result<u64, Failure> {
    let status = client.status().await.map_err(|error| remote::failed_question(&error))?;
    let clock = status.groups.first().and_then(|group| group.clock.as_ref());
    Ok(clock.map_or(0, |clock| clock.log_time_ms))
}

async fn rewind(client: &Client, args: &UpgradeArgs) -> Result<Came, Failure> {
    let failure = |error: ClientError| remote::failure(&error);
    let modules = client.modules_now().await.map_err(failure)?;
    let way_back = modules.way_back.clone().ok_or_else(no_way_back)?;
    let (replaces, wanted) = (incumbent(&modules), args.wanted(&modules)?);
    if let Some(expected) = &args.replaces {
        expected.check(replaces.as_ref()).map_err(failure)?;
    }
    let request = v1::RehearseRequest { rewind: true, ..Default::default() };
    let rehearsal = client.rehearse(request).await.map_err(failure)?;
    args.say(&rehearsal::rewind_text(&rehearsal))?;
    if !args.yes {
        let words = format!(
            "going back to {} makes {} commands be executed again, and changes the answers above: say --yes if \
             that is meant",
            wanted.name(),
            human_count(way_back.commands)
        );
        return Err(Failure::new(words));
    }
    let request = v1::ActivateRequest {
        module_hash: wanted.hash.clone(),
        label: wanted.label.clone(),
        replaces,
        signatures: signatures_of(&wanted, &args.signatures)?,
        rewind: true,
        wait_all: args.way.wait_all(),
        ..v1::ActivateRequest::default()
    };
    let answer = client.activate(request).await.map_err(failure)?;
    args.say(&told(&answer, &wanted))?;
    Ok(Came { rehearsal: Some(rehearsal), answer: Some(answer), ..Came::default() })
}

async fn confirm(client: &Client, args: &UpgradeArgs) -> Result<(), Failure> {
    let failure = |error: ClientError| remote::failure(&error);
    let modules = client.modules_now().await.map_err(failure)?;
    let active = incumbent(&modules).ok_or_else(|| {
        Failure::new("the cluster has no module yet: there is nothing to confirm")
    })?;
    let answer = client.confirm_upgrade(active.activated_at).await.map_err(failure)?;
    match args.remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "already_confirmed": answer.already_confirmed,
        })),
        Output::Table => print_text(&match answer.already_confirmed {
            true => "there was nothing to go back to by a rewind".to_owned(),
            false => format!(
                "the activation at index {} stays: what was kept for a rewind is dropped",
                active.activated_at
            ),
        }),
    }
}

/// What a person is told of a module that is active.
pub(super) fn told(answer: &v1::UpgradeResponse, wanted: &Wanted) -> String {
    let name = wanted.name();
    if answer.already_active {
        return format!("{name} is active already, since index {}", answer.index);
    }
    let replaced = match short_hash(&answer.previous_hash).as_str() {
        "-" => "the cluster's first module".to_owned(),
        previous => format!("in place of {previous}"),
    };
    let mut text = format!(
        "{name} ({}) is active from index {} on, {replaced}",
        human_bytes(wanted.size),
        answer.index
    );
    if !answer.previous_hash.is_empty() {
        let stall = Duration::from_micros(answer.stall_us);
        text.push_str(&format!("; commands waited {} for the switch", human_duration(stall)));
    }
    if let Some(rewound) = &answer.rewound {
        text.push_str(&format!(
            "\n{} commands were executed again, and {} have another answer now",
            human_count(rewound.commands),
            human_count(rewound.differing)
        ));
    }
    text
}

/// What a script is told of it.
pub(super) fn upgraded_json(answer: &v1::UpgradeResponse) -> Value {
    let rewound = answer.rewound.map(|rewound| {
        json!({
            "commands": rewound.commands,
            "differing": rewound.differing,
            "first": rewound.first.map(|at| json!({ "index": at.index, "ordinal": at.ordinal })),
        })
    });
    json!({
        "index": answer.index,
        "module_hash": hex(&answer.module_hash),
        "previous_hash": hex(&answer.previous_hash),
        "already_active": answer.already_active,
        "stall_us": answer.stall_us,
        "rewound": rewound,
    })
}

/// With the rehearsal; without an index: it was refused.
fn to_json(came: &Came) -> Value {
    let mut value = match &came.answer {
        Some(answer) => upgraded_json(answer),
        None => json!({ "index": null }),
    };
    value["rehearsal"] = came.rehearsal.as_ref().map(rehearsal_json).unwrap_or_default();
    if let Some(found) = &came.shadow {
        value["shadow"] = shadow_json(found);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_where_and_in_place_of_what() {
        let mut answer = v1::UpgradeResponse {
            index: 42,
            module_hash: vec![0xab; 32].into(),
            previous_hash: vec![0xcd; 32].into(),
            stall_us: 12_345,
            ..Default::default()
        };
        let wanted = |label: &str, size| Wanted {
            hash: answer.module_hash.clone(),
            label: label.to_owned(),
            size,
            file: None,
        };
        let (next, first) = (wanted("kv2", 2_048), wanted("kv", 1));
        assert_eq!(
            told(&answer, &next),
            "kv2 abababababab (2.0 KiB) is active from index 42 on, in place of cdcdcdcdcdcd; commands waited \
             12ms for the switch"
        );
        answer.previous_hash.clear();
        assert!(told(&answer, &first).ends_with("the cluster's first module"));
        answer.already_active = true;
        assert_eq!(told(&answer, &first), "kv abababababab is active already, since index 42");
    }

    #[test]
    fn the_module_to_go_back_to_is_the_one_before_the_active_one() {
        let activation =
            |byte: u8| v1::Activation { module_hash: vec![byte; 32].into(), ..Default::default() };
        let mut modules = v1::ModulesResponse {
            history: vec![activation(1), activation(2), activation(3), activation(3)],
            ..Default::default()
        };
        assert_eq!(before(&modules).as_deref(), Some(&[2; 32][..]));
        let way_back = v1::WayBack { module_hash: vec![1; 32].into(), ..Default::default() };
        modules.way_back = Some(way_back);
        assert_eq!(before(&modules).as_deref(), Some(&[1; 32][..]));
        assert_eq!(before(&v1::ModulesResponse::default()), None);
    }
}
