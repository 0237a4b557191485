//! The command line as a whole: what parses, what does not, and what the help says.

use std::time::Duration;

use clap::error::ErrorKind;

use super::options::{self, Line};
use super::output::Output;
use super::{Cli, Command};

fn line(arguments: &[&str]) -> Result<Line, clap::Error> {
    options::parse(["raft-host"].iter().chain(arguments))
}

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    line(arguments).map(|line| line.cli)
}

/// The words of a line that must be refused, for people.
fn refused(arguments: &[&str]) -> String {
    let error = parse(arguments).expect_err("must be refused");
    assert_eq!(error.exit_code(), 2, "{arguments:?}");
    error.to_string()
}

#[test]
fn the_command_line_is_free_of_contradictions() {
    options::shown().debug_assert();
    options::accepted().debug_assert();
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
        "query {} --at 17.3 -v",
        "status",
        "status -e a:1,b:2 --cluster -o json",
        "members",
        "members -o json",
        "members list --endpoint a:1",
        "members add 127.0.0.1:7401 --node-id 3",
        "members promote 2",
        "members remove 2 -o json",
        "members demote 2 --force",
        "members replace 2 --with 4 -o json",
        "members transfer",
        "members transfer 3",
        "upgrade kv.wasm --label v2",
        "upgrade kv.wasm --signature one.sig --signature two.sig",
        "upgrade kv.wasm --allow reply:transfer --allow fuel:3x --last 500 --query {} --wait all",
        "upgrade 0123456789ab --no-rehearsal --replaces 0123456789ab@17",
        "upgrade kv.wasm --since 10m --ahead",
        "upgrade kv.wasm --shadow 30s --allow fuel:3x --last 500",
        "upgrade --rollback convert --shadow 1h",
        "upgrade kv.wasm --from-export FILE -o json",
        "upgrade kv.wasm --from-image",
        "upgrade --renew --all-retained",
        "upgrade --confirm",
        "upgrade --rollback convert",
        "upgrade --rollback rewind --yes",
        "stage kv.wasm -o json",
        "activate 0123456789ab --receipt 17 --wait all --ahead",
        "activate 0123456789ab --receipt 17 --from-image",
        "activate kv.wasm --receipt 17 --from-export FILE",
        "keys list -o json",
        "keys generate --out key.pem",
        "keys public key.pem",
        "keys add ci key.pem --threshold 1",
        "keys revoke 0123456789abcdef --threshold 0",
        "keys threshold 2",
        "sign kv.wasm --key key.pem --any-cluster",
        "sign kv.wasm --key key.pem --cluster-id 00112233445566778899aabbccddeeff --label kv",
        "sign kv.wasm --verify -o json",
        "modules",
        "limits",
        "limits show -o json",
        "limits set apply_fuel=2_000_000_000 memory_max_bytes=2GiB",
        "engine",
        "engine show -o json",
        "engine offered",
        "level",
        "level show -o json",
        "level raise --to 2 --yes",
        "rights",
        "rights show -o json",
        "rights enable --yes",
        "rights disable",
        "user list",
        "user add ann --role reader --role teller",
        "user set ann --role writer",
        "user remove ann --yes",
        "role",
        "role add teller --grant apply:transfer --grant query@main",
        "role remove teller",
        "token list -o json",
        "token create --name ann",
        "token create --name ann --role admin --ttl 12h --note laptop --out FILE",
        "token revoke 17",
        "drain -e a:1",
        "undrain -e a:1 -o json",
        "snapshot take",
        "backup save FILE -e a:1",
        "backup save - --timeout 2m",
        "backup show FILE -o json",
        "backup verify FILE",
        "export FILE -o json",
        "restore FILE --data-dir DIR --advertise a:1 --storage-engine sled",
        "recover inspect --data-dir DIR",
        "recover inspect FILE -o json",
        "recover plan ONE TWO --out PLAN --accept-loss",
        "recover apply PLAN --data-dir DIR --advertise a:1",
        "recover verify PLAN -o json",
        "recover now --data-dir DIR --accept-loss --yes",
        "digest",
        "confirm 00112233445566778899aabbccddeeff -e a:1",
        "apply x --cluster-id 00112233445566778899aabbccddeeff",
        "check kv.wasm -o json -v",
        "check kv.wasm --from old.wasm --export FILE",
        "rehearse kv.wasm --data-dir DIR --last 100 --query one --query two",
        "rehearse kv.wasm --data-dir DIR --since 2h --allow reply:transfer --allow fuel:3x",
        "rehearse kv.wasm --from-image --last 9",
        "rehearse kv.wasm --data-dir DIR --all-retained -o json",
        "rehearse kv.wasm --backup FILE --query @FILE",
        "rehearse kv.wasm --shadow 30s --allow reply:transfer",
        "rehearse kv.wasm --shadow 30s --query one --query @FILE",
        "rehearse 0123456789ab --shadow 24h --on 2 -o json",
        "replay DIR --until 17.3 --trace",
        "replay DIR --against kv.wasm",
        "replay DIR --against kv.wasm --all --until 17",
        "replay DIR --query one --at 17",
        "replay FILE --query one -o json",
        "build my-app -v",
        "certs init DIR --cluster-id 00112233445566778899aabbccddeeff --days 100",
        "certs init DIR --node n1=10.0.0.1,n1.example --node n2=::1 --client alice",
        "certs node DIR --name n1 --address 10.0.0.1:7400,n1.example --address ::1 --id 3",
        "certs client DIR --name alice@example.org --days 30 -o json",
        "certs renew DIR --name n1",
        "certs renew DIR --name n1 --address 10.0.0.9",
        "certs renew DIR --client alice --days 30",
        "certs renew DIR --all",
        "certs rotate-ca DIR --days 100",
        "certs rotate-ca DIR --finish",
        "certs show ONE TWO -o json",
        "bench -o json --clients 256",
        "bench --mode unary --clients 1000 --connections 1",
        "bench --compare --clients 1000 --rounds 3",
        "bench --in-process --compare --rounds 3",
        "bench --in-process --fsm null",
        "bench --plugins a.wasm b.wasm --command 5",
        "completions bash",
        "man DIRECTORY",
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
        "query {} --at now",
        "query {} --at 17 --stale",
        "query {} --at 17 --min-index 3",
        "members promote",
        "members promote 0",
        "members demote",
        "members replace 2",
        "members add nowhere",
        "status --only --cluster",
        "status -e nowhere",
        "confirm",
        "confirm c1",
        "apply x --cluster-id c1",
        "limits set",
        "limits set fuel=1",
        "limits set engine=v1",
        "engine set",
        "engine set v1",
        "level raise --to 0",
        "keys add",
        "keys add two/words 00",
        "keys generate",
        "keys revoke 0123",
        "keys threshold -1",
        "keys public",
        "sign kv.wasm",
        "sign kv.wasm --key k --verify",
        "sign kv.wasm --key k --any-cluster --cluster-id 00112233445566778899aabbccddeeff",
        "level raise 2",
        "level lower",
        "rights on",
        "user add ann",
        "user add a/b --role reader",
        "user remove",
        "role add teller",
        "role add teller --grant fly",
        "role add teller --grant query:transfer",
        "token create",
        "token create --name ann --ttl soon",
        "token revoke ann",
        "drain 2",
        "drain --undo",
        "undrain 2",
        "snapshot",
        "backup",
        "backup save",
        "backup show FILE -e a:1",
        "rehearse",
        "rehearse kv.wasm --last 3 --since 2h --data-dir DIR",
        "rehearse kv.wasm --last few --data-dir DIR",
        "rehearse kv.wasm --backup FILE --last 3",
        "rehearse kv.wasm --shadow",
        "rehearse kv.wasm --shadow soon",
        "rehearse kv.wasm --shadow 30s --last 3",
        "rehearse kv.wasm --shadow 30s --data-dir DIR",
        "rehearse kv.wasm --from-export",
        "rehearse kv.wasm --from-export FILE --from-image",
        "rehearse kv.wasm --from-export FILE --last 3",
        "rehearse kv.wasm --from-export FILE --backup FILE",
        "rehearse kv.wasm --from-export FILE --shadow 30s",
        "activate 0123456789ab --from-export FILE --from-image",
        "upgrade kv.wasm --shadow 30s --no-rehearsal",
        "upgrade kv.wasm --shadow 30s --from-image",
        "upgrade --renew --shadow 30s",
        "rehearse kv.wasm --backup FILE --data-dir DIR",
        "replay DIR --at 17",
        "replay DIR --all",
        "replay DIR --query one --at now",
        "replay DIR --query one --trace",
        "check kv.wasm --export FILE",
        "restore",
        "restore FILE -e a:1",
        "restore FILE --advertise nowhere",
        "recover",
        "recover plan",
        "recover apply",
        "recover apply PLAN --accept-loss",
        "recover now PLAN",
        "recover inspect -e a:1",
        "certs",
        "certs init",
        "certs init DIR --days 0",
        "certs init DIR --days 3651",
        "certs init DIR --node n1",
        "certs init DIR --node n1=",
        "certs init DIR --node ../n1=10.0.0.1",
        "certs init DIR --client a/b",
        "certs init DIR --cluster-id c1",
        "certs init DIR -e a:1",
        "certs node DIR --name n1",
        "certs node DIR --address 10.0.0.1",
        "certs node DIR --name .. --address 10.0.0.1",
        "certs node DIR --name n1 --address 0.0.0.0",
        "certs node DIR --name n1 --address http://n1",
        "certs node DIR --name n1 --address n1 --id 0",
        "certs client DIR --name .",
        "certs renew DIR",
        "certs renew DIR --all --name n1",
        "certs renew DIR --all --address 10.0.0.9",
        "certs rotate-ca DIR --finish --days 3",
        "certs show",
        "completions klingon",
        "man",
        "bench --fsm native",
        "bench --rounds 3",
        "bench --memory --compare",
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

/// A line of each command without shared options.
const EACH_COMMAND: [&[&str]; 74] = [
    &["apply", "x"],
    &["query", "x"],
    &["status"],
    &["members"],
    &["members", "list"],
    &["members", "add", "b:1"],
    &["members", "promote", "2"],
    &["members", "remove", "2"],
    &["members", "demote", "2"],
    &["members", "replace", "2", "--with=4"],
    &["members", "transfer"],
    &["drain"],
    &["undrain"],
    &["upgrade", "a.wasm"],
    &["stage", "a.wasm"],
    &["activate", "0123456789ab"],
    &["modules"],
    &["limits"],
    &["limits", "show"],
    &["limits", "set", "apply_fuel=1"],
    &["engine"],
    &["engine", "show"],
    &["engine", "offered"],
    &["keys"],
    &["keys", "generate", "--out=key.pem"],
    &["keys", "public", "key.pem"],
    &["keys", "add", "ci", "key.pem"],
    &["keys", "revoke", "0123456789abcdef"],
    &["keys", "threshold", "2"],
    &["sign", "a.wasm", "--key=key.pem"],
    &["level"],
    &["level", "raise"],
    &["rights"],
    &["rights", "enable"],
    &["user"],
    &["user", "add", "ann", "--role=reader"],
    &["user", "set", "ann", "--role=reader"],
    &["user", "remove", "ann"],
    &["role"],
    &["role", "add", "teller", "--grant=query"],
    &["role", "remove", "teller"],
    &["token", "create", "--name=ann"],
    &["token", "join"],
    &["token", "revoke", "17"],
    &["snapshot", "take"],
    &["backup", "save", "file"],
    &["backup", "show", "file"],
    &["backup", "verify", "file"],
    &["export", "file"],
    &["restore", "file"],
    &["recover", "inspect", "file"],
    &["recover", "plan", "file"],
    &["recover", "apply", "plan"],
    &["recover", "verify", "plan"],
    &["recover", "now"],
    &["digest"],
    &["clock", "show"],
    &["confirm", "00112233445566778899aabbccddeeff"],
    &["certs", "init", "dir"],
    &["certs", "node", "dir", "--name=n1", "--address=n1"],
    &["certs", "client", "dir", "--name=alice"],
    &["certs", "renew", "dir", "--all"],
    &["certs", "rotate-ca", "dir"],
    &["certs", "show", "dir"],
    &["new", "a", "--lang=c"],
    &["build"],
    &["check", "a.wasm"],
    &["rehearse", "a.wasm"],
    &["replay", "data"],
    &["bench"],
    &["demo"],
    &["dev"],
    &["completions", "bash"],
    &["man", "directory"],
];

const SHARED: [&[&str]; 5] = [
    &["--endpoint", "a:1"],
    &["--cluster-id", "ffeeddccbbaa99887766554433221100"],
    &["--timeout", "3s"],
    &["--output", "json"],
    &["--config", "file.toml"],
];

fn takes(line: &[&str], option: &str) -> bool {
    match (line[0], option) {
        ("demo" | "dev" | "completions" | "man", _) => false,
        ("new" | "build" | "check" | "replay" | "restore" | "recover", option) => {
            option == "--output"
        }
        ("certs", "--cluster-id") => ["init", "node"].contains(&line[1]),
        ("certs", option) => option == "--output",
        ("backup", option) if !line.contains(&"save") => option == "--output",
        ("engine", option) if line.contains(&"offered") => option == "--output",
        ("keys", option) if ["generate", "public"].contains(line.get(1).unwrap_or(&"")) => {
            option == "--output"
        }
        ("sign", option) => ["--output", "--cluster-id"].contains(&option),
        ("status" | "confirm", "--cluster-id") => false,
        _ => true,
    }
}

#[test]
fn a_shared_option_means_the_same_at_each_place_or_is_refused_at_each() {
    for command in options::shown().get_subcommands() {
        let name = command.get_name();
        assert!(EACH_COMMAND.iter().any(|line| line[0] == name), "{name} is not tested");
    }
    for words in EACH_COMMAND {
        let plain = format!("{:?}", parse(words).expect("valid").command);
        for option in SHARED {
            // In front of the command, of its action or first argument, and at the end.
            let at = |place| [&words[..place], option, &words[place..]].concat();
            let lines: Vec<Vec<&str>> = (0..=words.len()).map(at).collect();
            for line in &lines {
                if takes(words, option[0]) {
                    let cli = parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
                    let first = parse(&lines[0]).expect("the same").command;
                    let text = format!("{:?}", cli.command);
                    assert_eq!(text, format!("{first:?}"), "{line:?}");
                    assert_ne!(text, plain, "{line:?}: it has no effect");
                } else {
                    let text = refused(line);
                    let sentence = format!("`raft-host {}` does not take {}", words[0], option[0]);
                    assert!(text.contains(&sentence), "{line:?}: {text}");
                }
            }
        }
    }
}

#[test]
fn all_shared_options_may_stand_together_wherever_they_like() {
    let line = "-e a:1,b:2 --timeout 3s members -o json list \
                --cluster-id 00112233445566778899aabbccddeeff";
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let Some(Command::Members(args)) = parse(&arguments).expect("valid").command else {
        panic!("another command");
    };
    assert_eq!(args.remote.endpoints, ["a:1", "b:2"]);
    assert_eq!(args.remote.timeout(), Duration::from_secs(3));
    assert_eq!(args.remote.output, Output::Json);
    assert!(args.remote.cluster_id.is_some());
}

#[test]
fn an_option_at_two_places_is_refused_and_not_half_forgotten() {
    for line in [
        "-e a:1 status -e b:2",
        "-e a:1 status --endpoint a:1",
        "members -e a:1 list -e b:2",
        "-e a:1 members list -e b:2",
        "-o json check a.wasm -o table",
        "--timeout 1s snapshot take --timeout 2s",
        "--config a members --config b",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let text = refused(&arguments);
        assert!(text.contains("say it at one of these places"), "{line}: {text}");
    }
}

#[test]
fn the_server_and_the_commands_do_not_take_each_others_options() {
    for option in SHARED {
        if option[0] == "--config" {
            assert!(parse(option).expect("its own, too").serve.config.is_some());
            continue;
        }
        let text = refused(option);
        assert!(text.contains("the server, which does not take") && text.contains(option[0]));
        assert!(text.contains("is a command missing?"), "{text}");
    }
    for option in [
        &["--plugin", "a"][..],
        &["--join", "a:1"],
        &["--learner"],
        &["--data-dir", "d"],
        &["--log-filter", "info"],
        &["--heartbeat-ms", "5"],
    ] {
        for command in [&["status"][..], &["members", "list"], &["dev"], &["bench"]] {
            let text = refused(&[option, command].concat());
            let words = format!("{} in front of a command is the server's", option[0]);
            assert!(text.contains(&words) && text.contains(command[0]), "{text}");
        }
    }
}

#[test]
fn what_asks_no_cluster_this_time_says_so() {
    for (line, words) in [
        ("bench --in-process -e a:1", "no running cluster is asked"),
        ("-e a:1 bench --memory", "no running cluster is asked"),
        ("bench --plugins a b --command 5 --timeout 3s", "no running cluster is asked"),
        ("bench --spread --cluster-id 00112233445566778899aabbccddeeff", "whichever cluster"),
        ("engine offered --timeout 3s", "nobody is asked"),
        ("rehearse a.wasm --data-dir d -e a:1", "nobody is asked"),
        ("rehearse a.wasm --backup b --timeout 3s", "nobody is asked"),
        ("engine -e a:1 offered", "nobody is asked"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        assert!(refused(&arguments).contains(words), "{line}");
    }
    parse(&["bench", "--in-process", "--timeout", "3s"]).expect("the callers' patience");
}

#[test]
fn json_is_asked_for_with_output() {
    for line in ["--json", "--json status", "replay d --json", "members list --json", "demo --json"]
    {
        let arguments: Vec<&str> = line.split(' ').collect();
        let text = refused(&arguments);
        assert!(text.contains("there is no --json: write -o json"), "{line}: {text}");
    }
    parse(&["apply", "--", "--json"]).expect("a command that looks like it");
}

#[test]
fn old_places_name_the_new_ones() {
    let text = refused(&["snapshot"]);
    assert!(text.contains("take "), "{text}");
    let text = refused(&["-e", "a:1", "snapshot"]);
    assert!(text.contains("take"), "{text}");
    let text = refused(&["limits", "set", "engine=v1/wasmtime-48/crc-00000000"]);
    assert!(text.contains("`raft-host engine set PROFILE`"), "{text}");
}

#[test]
fn the_file_of_settings_says_what_the_line_does_not() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = "listen = \"127.0.0.1:9\"\n[client]\nendpoint = [\"a:1\", \"b:2\"]\n\
                timeout = \"3s\"\noutput = \"json\"\n\
                cluster_id = \"00112233445566778899aabbccddeeff\"\n";
    std::fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let remote = |arguments: &[&str]| {
        let mut line = line(&[&["--config", path], arguments].concat()).expect("valid");
        line.complete().expect("a good file");
        let Some(Command::Modules(args)) = line.cli.command else { panic!("another command") };
        args.remote
    };
    let from_file = remote(&["modules"]);
    assert_eq!(from_file.endpoints, ["a:1", "b:2"]);
    assert_eq!((from_file.timeout(), from_file.output), (Duration::from_secs(3), Output::Json));
    let id = "00112233445566778899aabbccddeeff";
    assert_eq!(from_file.cluster_id.map(|id| id.to_string()).as_deref(), Some(id));
    let other = "ffeeddccbbaa99887766554433221100";
    // Also where it is what it would be without the file.
    let given = ["-e", "127.0.0.1:7400", "--timeout", "4s", "-o", "table", "--cluster-id", other];
    let from_line = remote(&[&["modules"], &given[..]].concat());
    assert_eq!(from_line.endpoints, ["127.0.0.1:7400"]);
    assert_eq!((from_line.timeout(), from_line.output), (Duration::from_secs(4), Output::Table));
    assert_eq!(from_line.cluster_id.map(|id| id.to_string()).as_deref(), Some(other));
}

#[test]
fn a_bad_file_of_settings_is_wrong_usage() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("settings.toml");
    let path = path.to_str().expect("UTF-8");
    for (text, words) in [
        ("[client]\nendpoints = [\"a:1\"]\n", "unknown field `endpoints`"),
        ("[client]\nendpoint = [\"a\"]\n", "has no port"),
        ("client = 5\n", "line 1"),
        ("[clients]\n", "unknown field `clients`"),
    ] {
        std::fs::write(path, text).expect("written");
        let failure = line(&["status", "--config", path]).expect("valid").complete();
        let failure = failure.expect_err("refused");
        assert_eq!(failure.exit, super::exit::Exit::Usage);
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(failure.message.contains(path), "{}", failure.message);
    }
    let failure = line(&["status", "--config", "/no/such/file"]).expect("valid").complete();
    assert!(failure.expect_err("refused").message.contains("/no/such/file"));
}

#[test]
fn exit_codes_are_documented_in_operations_md() {
    let (_, codes) = super::exit::EXIT_CODES_HELP.split_once('\n').expect("a title");
    let page = include_str!("../../docs/operations.md");
    assert!(page.contains(codes), "operations.md differs from --help");
}

/// The words of a command as a shell would take them; nothing from a comment or an ellipsis on.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            '#' | '…' if !is_quoted && word.is_empty() => break,
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_commands_that_the_pages_show_are_ones_that_the_program_takes() {
    let pages = [
        include_str!("../../docs/operations.md"),
        include_str!("../../docs/security.md"),
        include_str!("../../docs/upgrades.md"),
        include_str!("../../../README.md"),
    ]
    .join("\n");
    let mut count = 0;
    for line in pages.lines().filter_map(|line| line.strip_prefix("    ")) {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let Some(arguments) = line.strip_prefix("raft-host ") else { continue };
        options::parse([&["raft-host".to_owned()], &words(arguments)[..]].concat())
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert!(count > 40, "{count}");
    assert_eq!(words("apply '{\"a\": 1}' -e a:1   # one"), ["apply", "{\"a\": 1}", "-e", "a:1"]);
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
