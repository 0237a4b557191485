//! The command line as a whole: what parses, what does not, and what the help says.

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use super::{Cli, Command};

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["raft-host"].iter().chain(arguments))
}

#[test]
fn the_command_line_is_free_of_contradictions() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_it_is_the_server() {
    assert!(parse(&[]).expect("valid").command.is_none());
}

#[test]
fn each_command_of_the_readme_parses() {
    for line in [
        r#"apply {"op":"set"}"#,
        "apply @file --session -v",
        "apply - --raw",
        "apply --lines FILE",
        "apply --lines -",
        "query {} --stale",
        "status",
        "status -e a:1,b:2 --cluster -o json",
        "members",
        "members -o json",
        "members list --endpoint a:1",
        "members add 127.0.0.1:7401 --id 3",
        "members promote 2",
        "members remove 2 -o json",
        "members transfer",
        "members transfer 3",
        "upgrade kv.wasm --label v2",
        "modules",
        "limits",
        "limits show -o json",
        "limits set apply_fuel=2_000_000_000 memory_max_bytes=2GiB",
        "snapshot",
        "digest",
        "confirm 00112233445566778899aabbccddeeff -e a:1",
        "apply x --cluster-id 00112233445566778899aabbccddeeff",
        "check kv.wasm -o json",
        "bench --json --clients 256",
        "bench --in-process --fsm null",
        "bench --plugins a.wasm b.wasm --command 5",
        "completions bash",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let cli = parse(&arguments).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(cli.command.is_some(), "{line}");
    }
}

#[test]
fn wrong_usage_is_refused_with_code_2() {
    for line in [
        "apply",
        "apply x --lines FILE",
        "apply --lines FILE --session",
        "query",
        "members promote",
        "members promote 0",
        "members add nowhere",
        "status --only --cluster",
        "status -e nowhere",
        "confirm",
        "confirm c1",
        "apply x --cluster-id c1",
        "limits set",
        "limits set fuel=1",
        "completions klingon",
        "bench --fsm native",
        "bench --clients 0",
        "bench --plugins a.wasm",
        "bench --plugins --command 5",
        "bench --plugins a.wasm --command 5 --clients 3",
        "teleport",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let error = parse(&arguments).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn several_endpoints_are_comma_separated_or_repeated() {
    let cli = parse(&["modules", "-e", "a:1,b:2", "-e", "c:3"]).expect("valid");
    let Some(Command::Modules(args)) = cli.command else { panic!("{cli:?}") };
    assert_eq!(args.remote.endpoints, ["a:1", "b:2", "c:3"]);
}

#[test]
fn the_endpoint_may_stand_before_or_after_the_action() {
    for line in ["members -e a:1 promote 2", "members promote 2 -e a:1"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let cli = parse(&arguments).expect(line);
        let Some(Command::Members(args)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.remote.endpoints, ["a:1"], "{line}");
    }
}

#[test]
fn exit_codes_are_documented_in_operations_md() {
    let (_, codes) = super::exit::EXIT_CODES_HELP.split_once('\n').expect("a title");
    let page = include_str!("../../docs/operations.md");
    assert!(page.contains(codes), "operations.md differs from --help");
}

#[test]
fn exit_codes_are_documented_in_the_help() {
    for arguments in [&["--help"][..], &["apply", "--help"], &["check", "-h"]] {
        let help = parse(arguments).expect_err("help is no command");
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        let text = help.to_string();
        assert!(text.contains("5  the effect is unknown"), "{text}");
    }
}
