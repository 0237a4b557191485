//! Environment variables that look like settings and are none.
//!
//! A misspelt one would leave a default in force, such as another data directory or another cluster.
//! Others with our prefix may be somebody else's (Kubernetes makes some for a service `raft-host`), so
//! only those that are nearly right are refused.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::Cli;
use super::exit::Failure;

const PREFIX: &str = "RAFT_HOST_";

/// Refuses to go on when a variable is misspelt.
pub(super) fn check() -> Result<(), Failure> {
    let known = known();
    match unknown(&known).iter().find_map(|name| Some((name, meant(name, &known)?))) {
        None => Ok(()),
        Some((name, meant)) => Err(Failure::usage(format!(
            "the environment has {name}, which is no setting: is {meant} meant? Rename it, or unset it"
        ))),
    }
}

/// Says which variables have no effect although they look as if they had.
pub(super) fn warn_of_unknown() {
    for name in unknown(&known()) {
        tracing::warn!("{name} in the environment is no setting and has no effect");
    }
}

fn known() -> BTreeSet<String> {
    let mut command = Cli::command();
    command.build();
    let mut names = BTreeSet::new();
    collect(&command, &mut names);
    names.insert(super::remote::TOKEN_VARIABLE.to_owned());
    names.insert(super::serve::JOIN_TOKEN_VARIABLE.to_owned());
    names
}

fn collect(command: &clap::Command, names: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|argument| argument.get_env());
    names.extend(variables.filter_map(|name| name.to_str()).map(str::to_owned));
    command.get_subcommands().for_each(|command| collect(command, names));
}

fn unknown(known: &BTreeSet<String>) -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect()
}

/// The setting that a name is nearly.
fn meant<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let rest = |name: &'a str| name.strip_prefix(PREFIX);
    let name = name.strip_prefix(PREFIX)?;
    let near = known.iter().filter_map(|known| {
        let steps = distance(name, rest(known)?);
        // A third of its letters wrong is another word.
        (steps * 3 <= known.len() - PREFIX.len()).then_some((steps, known.as_str()))
    });
    near.min().filter(|(steps, _)| *steps <= 2).map(|(_, known)| known)
}

/// Letters to be changed, added or left out (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, expected) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *expected);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_right_names_are_recognised_and_other_peoples_are_left_alone() {
        let known = known();
        for (name, setting) in [
            ("RAFT_HOST_DATADIR", Some("RAFT_HOST_DATA_DIR")),
            ("RAFT_HOST_LISTN", Some("RAFT_HOST_LISTEN")),
            ("RAFT_HOST_ENDPOINTS", Some("RAFT_HOST_ENDPOINT")),
            ("RAFT_HOST_ELECTION_MSEC", Some("RAFT_HOST_ELECTION_MS")),
            ("RAFT_HOST_PORT", None),
            ("RAFT_HOST_SERVICE_HOST", None),
            ("RAFT_HOST_PORT_7400_TCP_ADDR", None),
            ("RAFT_HOST_BIN", None),
            ("RAFT_HOST_ALL_TOOLCHAINS", None),
        ] {
            assert!(!known.contains(name));
            assert_eq!(meant(name, &known), setting, "{name}");
        }
    }

    #[test]
    fn settings_of_the_server_and_of_commands_are_known() {
        let known = known();
        for name in ["RAFT_HOST_DATA_DIR", "RAFT_HOST_ENDPOINT", "RAFT_HOST_JOIN"] {
            assert!(known.contains(name), "{name}: {known:?}");
        }
    }
}
