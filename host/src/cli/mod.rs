//! The command line: one file per subcommand, and the server when there is none.
//!
//! Commands reach a cluster over its gRPC services only, as any other client does. Only
//! `serve`, `demo`, `dev` and `bench --in-process` put nodes together, `check` and `build` run a
//! module without a cluster, `certs`, `sign` and `keys generate` make certificates, signatures and keys,
//! `new` writes a project, `replay` runs the log of a stopped node, and
//! `restore`, `recover` and `backup verify` run what is in a file or a stopped node's directory.
//! `options` says which option may stand where. Text that people read is made by pure functions, so
//! that tests read it too.

mod activate;
mod answer;
mod apply;
mod apply_lines;
mod backup;
mod bench;
mod build;
mod certs;
mod check;
mod clock;
mod compile;
mod completions;
mod confirm;
mod demo;
mod dev;
mod digest;
mod drain;
mod engine;
mod environment;
mod exit;
mod export;
mod input;
mod keys;
mod level;
mod limits;
mod lines_summary;
mod man;
mod members;
mod modules;
mod new;
mod offline;
mod options;
mod output;
mod progress;
mod query;
mod recover;
mod rehearse;
mod remote;
mod replay;
mod restore;
mod rights;
mod serve;
mod sign;
mod snapshot;
mod stage;
mod status;
mod successor;
mod upgrade;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::{EXIT_CODES_HELP, Ended, Exit, Failure};
use self::output::Output;
use crate::text::sentence;

/// Runs your WebAssembly state machine, replicated with Raft and stored durably.
///
/// Without a command it is the server: `raft-host --plugin FILE` starts a cluster of one node,
/// `raft-host --join HOST:PORT` adds a node to one.
#[derive(Parser, Debug)]
#[command(
    name = "raft-host",
    version,
    after_help = EXIT_CODES_HELP,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(after_help = EXIT_CODES_HELP)]
    Apply(apply::ApplyArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Query(query::QueryArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Status(status::StatusArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Members(members::MembersArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Drain(drain::DrainArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Undrain(drain::UndrainArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Upgrade(upgrade::UpgradeArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Stage(stage::StageArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Activate(activate::ActivateArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Modules(modules::ModulesArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Limits(limits::LimitsArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Engine(engine::EngineArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Keys(keys::KeysArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Sign(sign::SignArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Level(level::LevelArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Rights(rights::RightsArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    User(rights::user::UserArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Role(rights::role::RoleArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Token(rights::token::TokenArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Snapshot(snapshot::SnapshotArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Backup(backup::BackupArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Export(export::ExportArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Restore(restore::RestoreArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Recover(recover::RecoverArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Digest(digest::DigestArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Clock(clock::ClockArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Confirm(confirm::ConfirmArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Certs(certs::CertsArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    New(new::NewArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Build(build::BuildArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Check(check::CheckArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Rehearse(rehearse::RehearseArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Replay(replay::ReplayArgs),
    #[command(after_help = EXIT_CODES_HELP)]
    Bench(bench::BenchArgs),
    Demo(demo::DemoArgs),
    Dev(dev::DevArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// [`main`] of a program whose server reports another version, so that tests can restart a
/// cluster into one.
pub fn main_as(version: &'static str) -> ExitCode {
    crate::server::report_version(version);
    main()
}

/// [`main_as`] of a program that also offers another engine profile than the linked one, given as
/// what [`EngineFacts`] it changes.
///
/// [`EngineFacts`]: crate::fsm::EngineFacts
pub fn main_with_engine(
    version: &'static str,
    change: impl FnOnce(&mut crate::fsm::EngineFacts),
) -> ExitCode {
    let mut facts = crate::server::offered_engine().facts().expect("this program's own");
    change(&mut facts);
    crate::server::offer_engine(crate::fsm::EngineProfile::of(&facts));
    main_as(version)
}

/// [`main_as`] of a program that offers the level after its own: what an upgrade of raft-host brings.
#[cfg(feature = "museum")]
pub fn main_with_next_level(version: &'static str) -> ExitCode {
    crate::server::offer_level(crate::machine::rehearsal::NEXT);
    main_as(version)
}

/// Parses the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    if compile::is_wanted() {
        return compile::run();
    }
    let mut line = options::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Err(failure) = environment::check().and_then(|()| line.complete()) {
        return conclude(line.output(), Err(failure));
    }
    let Some(command) = line.cli.command else {
        return finish(serve::run(line.cli.serve));
    };
    let (output, ended) = match command {
        Command::Demo(args) => return finish(demo::run(args)),
        Command::Dev(args) => return finish(dev::run(args)),
        Command::Completions(args) => (Output::Table, completions::run(&args)),
        Command::Man(args) => (Output::Table, man::run(&args)),
        Command::Apply(args) => (args.remote.output, apply::run(&args)),
        Command::Query(args) => (args.remote.output, query::run(&args)),
        Command::Status(args) => (args.remote.output, status::run(&args)),
        Command::Members(args) => (args.remote.output, members::run(&args)),
        Command::Drain(args) => (args.remote.output, drain::drain(&args)),
        Command::Undrain(args) => (args.remote.output, drain::undrain(&args)),
        Command::Upgrade(args) => (args.remote.output, upgrade::run(&args)),
        Command::Stage(args) => (args.remote.output, stage::run(&args)),
        Command::Activate(args) => (args.remote.output, activate::run(&args)),
        Command::Modules(args) => (args.remote.output, modules::run(&args)),
        Command::Limits(args) => (args.remote.output, limits::run(&args)),
        Command::Engine(args) => (args.remote.output, engine::run(&args)),
        Command::Keys(args) => (args.remote.output, keys::run(&args)),
        Command::Sign(args) => (args.output, sign::run(&args)),
        Command::Level(args) => (args.remote.output, level::run(&args)),
        Command::Rights(args) => (args.remote.output, rights::run(&args)),
        Command::User(args) => (args.remote.output, rights::user::run(&args)),
        Command::Role(args) => (args.remote.output, rights::role::run(&args)),
        Command::Token(args) => (args.remote.output, rights::token::run(&args)),
        Command::Snapshot(args) => (args.remote.output, snapshot::run(&args)),
        Command::Backup(args) => (args.remote.output, backup::run(&args)),
        Command::Export(args) => (args.remote.output, export::run(&args)),
        Command::Restore(args) => (args.output, restore::run(&args)),
        Command::Recover(args) => (args.output, recover::run(&args)),
        Command::Digest(args) => (args.remote.output, digest::run(&args)),
        Command::Clock(args) => (args.remote.output, clock::run(&args)),
        Command::Confirm(args) => (args.remote.output, confirm::run(&args)),
        Command::Certs(args) => (args.output, certs::run(&args)),
        Command::New(args) => (args.output, new::run(&args)),
        Command::Build(args) => (args.output, build::run(&args)),
        Command::Check(args) => (args.output, check::run(&args)),
        Command::Rehearse(args) => (args.remote.output, rehearse::run(&args)),
        Command::Replay(args) => (args.output(), replay::run(&args)),
        Command::Bench(args) => (args.output(), bench::run(&args)),
    };
    conclude(output, ended)
}

fn conclude(output: Output, ended: Ended) -> ExitCode {
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report(output);
            failure.exit.into()
        }
    }
}

/// The server and the demonstration choose their exit code; their failures are sentences.
fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            let exit = if serve::is_wrong_usage(&error) { Exit::Usage } else { Exit::Failed };
            conclude(Output::Table, Err(Failure { exit, ..Failure::new(sentence(error.as_ref())) }))
        }
    }
}
