//! Which option may stand where.
//!
//! What many commands have (`--endpoint`, `--output` and the like) may stand before a command,
//! between it and its action, or behind both. clap takes it at each place from every command, and
//! here is refused, by name, what means nothing to the command that is there: an option that is
//! taken and has no effect is worse than an error.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args as _, CommandFactory as _, FromArgMatches as _};

use super::exit::Failure;
use super::output::Output;
use super::remote::RemoteArgs;
use super::serve::ServeArgs;
use super::{Cli, Command};
use crate::config::Config;

const HEADING: &str = "For commands (before or after their names)";

/// What means something to those that ask a cluster only.
const ASKING: [&str; 9] = [
    "endpoints",
    "cluster_id",
    "timeout",
    "config",
    "tls",
    "tls_ca",
    "tls_certificate",
    "tls_key",
    "token_file",
];

/// The command line as help and completions show it: options of commands stand before them, too.
pub(super) fn shown() -> clap::Command {
    let in_front = shared().into_iter().filter(|option| !is_of_server_too(option));
    // A variable counts where the option does: a server must not stumble over one for commands.
    let in_front = in_front.map(|option| option.env(None::<&'static str>).global(false));
    Cli::command().args(in_front.map(|option| option.help_heading(HEADING)))
}

/// The command line as it is read: with each shared option everywhere.
pub(super) fn accepted() -> clap::Command {
    let options: Vec<Arg> =
        shared().into_iter().map(|option| option.env(None::<&'static str>).hide(true)).collect();
    shown()
        .mut_args(|option| {
            let is_shared = options.iter().any(|shared| shared.get_id() == option.get_id());
            option.global(is_shared)
        })
        .mut_subcommands(|command| with_lacking(command, &options))
}

/// The options that many commands have.
fn shared() -> Vec<Arg> {
    let command = RemoteArgs::augment_args(clap::Command::new("shared"));
    command.get_arguments().cloned().collect()
}

/// Options that the server has, too, with the same name: they stand for the one or the other.
fn is_of_both(id: &str) -> bool {
    ["config", "tls", "tls_certificate", "tls_key"].contains(&id)
}

fn is_of_server_too(option: &Arg) -> bool {
    is_of_both(option.get_id().as_str())
}

fn has(command: &clap::Command, option: &Arg) -> bool {
    command.get_arguments().any(|it| it.get_id() == option.get_id())
}

fn with_lacking(command: clap::Command, options: &[Arg]) -> clap::Command {
    let lacking: Vec<Arg> =
        options.iter().filter(|option| !has(&command, option)).cloned().collect();
    command.args(lacking)
}

/// A command line that says what may be.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) cli: Cli,
    /// Shared options are in the outermost matches as well, wherever they stood.
    matches: ArgMatches,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// Help, the version, or what is wrong: clap's `exit` prints each and ends with its code.
pub(super) fn parse<T: Into<OsString>>(
    arguments: impl IntoIterator<Item = T>,
) -> Result<Line, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let parsed = accepted().try_get_matches_from(&arguments);
    let matches = parsed.map_err(explain_json)?;
    let cli = Cli::from_arg_matches(&matches)?;
    match misplaced(&cli, &matches).or_else(|| repeated(&arguments)) {
        None => Ok(Line { cli, matches }),
        Some(problem) => Err(error(matches.subcommand_name(), &problem)),
    }
}

/// A usage error of a command, or of the program as a whole.
fn error(command: Option<&str>, problem: &str) -> clap::Error {
    let mut program = shown();
    program.build();
    let command = match command {
        Some(name) => program.find_subcommand_mut(name).expect("it was recognised"),
        None => &mut program,
    };
    command.error(ErrorKind::ArgumentConflict, problem)
}

/// `--json` is what other programs call it.
fn explain_json(refused: clap::Error) -> clap::Error {
    match refused.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name))
            if refused.kind() == ErrorKind::UnknownArgument && name == "--json" =>
        {
            error(None, "there is no --json: write -o json (or --output json)")
        }
        _ => refused,
    }
}

fn is_given(matches: &ArgMatches, option: &Arg) -> bool {
    matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
}

fn name(option: &Arg) -> String {
    format!("--{}", option.get_long().expect("shared options and the server's have long names"))
}

/// What stands where it means nothing.
fn misplaced(cli: &Cli, matches: &ArgMatches) -> Option<String> {
    let mut given = shared().into_iter().filter(|option| is_given(matches, option));
    let (Some(command), Some(word)) = (&cli.command, matches.subcommand_name()) else {
        let option = given.find(|option| !is_of_server_too(option))?;
        let name = name(&option);
        return Some(format!(
            "without a command this is the server, which does not take {name}: is a command missing?"
        ));
    };
    let program = Cli::command();
    let itself = program.find_subcommand(word).expect("it was recognised");
    let server = ServeArgs::augment_args(clap::Command::new("server"));
    let of_server = server
        .get_arguments()
        .find(|option| !is_of_both(option.get_id().as_str()) && is_given(matches, option));
    if let Some(option) = of_server {
        let option = name(option);
        return Some(format!(
            "{option} in front of a command is the server's, and `raft-host {word}` starts none: leave \
             it away (what `raft-host {word} --help` lists stands after {word})"
        ));
    }
    given.find_map(|option| {
        let why = match command.why_not(option.get_id().as_str()) {
            Some(why) => why.to_owned(),
            None if has(itself, &option) => return None,
            None if option.get_id() == "output" => "which is for commands with a result".to_owned(),
            None => "which is for commands that ask a running cluster".to_owned(),
        };
        Some(format!("`raft-host {word}` does not take {}, {why}", name(&option)))
    })
}

impl Command {
    /// Why a shared option that the command has in general has no meaning this time.
    fn why_not(&self, id: &str) -> Option<&'static str> {
        let asks = ASKING.contains(&id);
        match self {
            Command::Engine(args) if !args.asks_cluster() && asks => {
                Some("when it says what this program offers: nobody is asked")
            }
            Command::Keys(args) if !args.asks_cluster() && asks => {
                Some("when it makes or shows a key in a file: nobody is asked")
            }
            Command::Rehearse(args) if !args.asks_cluster() && asks => {
                Some("when it rehearses on a directory or a backup: nobody is asked")
            }
            Command::Backup(args) if !args.asks_cluster() && asks => {
                Some("when it looks at a file: nobody is asked")
            }
            Command::Bench(args) if id == "timeout" && args.has_callers() => None,
            Command::Bench(args) if !args.asks_cluster() && asks => {
                Some("when it measures in this process: no running cluster is asked")
            }
            Command::Bench(args) if args.spreads() && id == "cluster_id" => {
                Some("when it loads the given endpoints, whichever cluster they belong to")
            }
            Command::Certs(args) if !args.takes_cluster() && id == "cluster_id" => {
                Some("when it makes no CA and no certificate of a node")
            }
            Command::Status(_) if id == "cluster_id" => {
                Some("as it shows which cluster each endpoint belongs to")
            }
            Command::Confirm(_) if id == "cluster_id" => {
                Some("as the cluster stands after the command's name")
            }
            _ => None,
        }
    }

    /// The connection of a command that asks a running cluster.
    fn remote_mut(&mut self) -> Option<&mut RemoteArgs> {
        match self {
            Command::Apply(args) => Some(&mut args.remote),
            Command::Query(args) => Some(&mut args.remote),
            Command::Status(args) => Some(&mut args.remote),
            Command::Members(args) => Some(&mut args.remote),
            Command::Drain(args) => Some(&mut args.remote),
            Command::Undrain(args) => Some(&mut args.remote),
            Command::Upgrade(args) => Some(&mut args.remote),
            Command::Stage(args) => Some(&mut args.remote),
            Command::Activate(args) => Some(&mut args.remote),
            Command::Modules(args) => Some(&mut args.remote),
            Command::Limits(args) => Some(&mut args.remote),
            Command::Engine(args) => args.asks_cluster().then_some(&mut args.remote),
            Command::Keys(args) => args.asks_cluster().then_some(&mut args.remote),
            Command::Level(args) => Some(&mut args.remote),
            Command::Rights(args) => Some(&mut args.remote),
            Command::User(args) => Some(&mut args.remote),
            Command::Role(args) => Some(&mut args.remote),
            Command::Token(args) => Some(&mut args.remote),
            Command::Snapshot(args) => Some(&mut args.remote),
            Command::Rehearse(args) => args.asks_cluster().then_some(&mut args.remote),
            Command::Backup(args) => args.asks_cluster().then_some(&mut args.remote),
            Command::Export(args) => Some(&mut args.remote),
            Command::Digest(args) => Some(&mut args.remote),
            Command::Clock(args) => Some(&mut args.remote),
            Command::Confirm(args) => Some(&mut args.remote),
            Command::Bench(args) => args.asks_cluster().then_some(args.remote_mut()),
            Command::Certs(_)
            | Command::New(_)
            | Command::Build(_)
            | Command::Check(_)
            | Command::Sign(_)
            | Command::Replay(_)
            | Command::Restore(_)
            | Command::Recover(_)
            | Command::Demo(_)
            | Command::Dev(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        }
    }
}

/// An option at two places of one line. clap would take the last one and forget the other.
fn repeated(arguments: &[OsString]) -> Option<String> {
    let options: Vec<Arg> = shared().into_iter().map(|option| option.global(false)).collect();
    // Read again, with each place for itself.
    let matches = apart(Cli::command(), &options).try_get_matches_from(arguments).ok()?;
    let places = std::iter::successors(Some(&matches), |at| at.subcommand().map(|(_, next)| next));
    let places: Vec<&ArgMatches> = places.collect();
    let twice = |option: &&Arg| places.iter().filter(|at| is_given(at, option)).count() > 1;
    let option = options.iter().find(twice)?;
    Some(format!(
        "{} stands before and after a command or action: say it at one of these places",
        name(option)
    ))
}

fn apart(command: clap::Command, options: &[Arg]) -> clap::Command {
    with_lacking(command, options)
        .mut_args(|option| option.global(false))
        .mut_subcommands(|command| apart(command, options))
}

impl Line {
    /// How the command is to print, as far as the line says it.
    pub(super) fn output(&self) -> Output {
        self.matches.get_one("output").copied().unwrap_or_default()
    }

    /// Takes from the configuration file what neither the command line nor the environment says.
    ///
    /// # Errors
    /// The file cannot be read, or holds what cannot be.
    pub(super) fn complete(&mut self) -> Result<(), Failure> {
        let Some(remote) = self.cli.command.as_mut().and_then(Command::remote_mut) else {
            return Ok(());
        };
        let Some(path) = &remote.config else { return Ok(()) };
        let config = Config::from_file(path).map_err(|error| Failure::usage(error.to_string()))?;
        remote.lay_over(config.client, |id| {
            let source = self.matches.value_source(id);
            source.is_some_and(|source| source != ValueSource::DefaultValue)
        });
        Ok(())
    }
}
