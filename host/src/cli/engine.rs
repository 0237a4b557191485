//! `raft-host engine`: what a program must offer to run the state machine, and changing that.

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use serde_json::json;

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, facts, hex, print_json, print_text};
use super::remote::{self, RemoteArgs};
use crate::fsm::EngineProfile;
use crate::server;

/// Shows and changes the engine profile: what all programs of the cluster must offer.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct EngineArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Shows the profile in force, and what the asked node and this program offer (the default).
    Show,
    /// Prints the profile that this program offers, for `set` on a cluster that is to run with it.
    /// Asks nobody.
    Offered,
    /// Changes the profile on all nodes at the same index of the log.
    ///
    /// Nodes whose program does not offer it stop at that index.
    Set {
        /// The profile, as `raft-host engine offered` of the next version prints it.
        #[arg(value_parser = parse_profile)]
        profile: EngineProfile,
        /// Change it although nodes will stop: without this, says what would happen.
        #[arg(long)]
        yes: bool,
    },
}

impl EngineArgs {
    /// Whether a cluster is asked at all.
    pub(super) fn asks_cluster(&self) -> bool {
        !matches!(self.action, Some(Action::Offered))
    }
}

pub(super) fn run(args: &EngineArgs) -> Ended {
    match &args.action {
        None | Some(Action::Show) => show(&args.remote),
        Some(Action::Offered) => offered(args.remote.output),
        Some(Action::Set { profile, yes }) => set(&args.remote, profile, *yes),
    }
}

fn parse_profile(text: &str) -> Result<EngineProfile, String> {
    EngineProfile::parse(text).map_err(|error| error.to_string())
}

fn show(remote: &RemoteArgs) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        client.limits().await.map_err(|error| remote::failed_question(&error))
    })?;
    let offered = server::offered_engine();
    match remote.output {
        Output::Json => print_json(&json!({
            "applied_index": answer.applied_index,
            "engine": answer.engine,
            "offered_by_node": answer.engine_offered,
            "offered_by_program": offered.as_str(),
            "profile_hash": hex(&answer.profile_hash),
        }))?,
        Output::Table => print_text(&shown(&answer, offered.as_str()))?,
    }
    Ok(Exit::Done)
}

fn shown(answer: &v1::LimitsResponse, offered: &str) -> String {
    let beside = |profile: &str| match profile == answer.engine {
        true => "the same".to_owned(),
        false => profile.to_owned(),
    };
    facts(&[
        ("engine", answer.engine.clone()),
        ("offered by the node that answers", beside(&answer.engine_offered)),
        ("offered by this program", beside(offered)),
        ("profile hash", format!("{} (of engine and limits)", hex(&answer.profile_hash))),
    ])
}

fn offered(output: Output) -> Ended {
    let engine = server::offered_engine();
    match output {
        Output::Json => print_json(&json!({ "offered_by_program": engine.as_str() }))?,
        Output::Table => print_text(engine.as_str())?,
    }
    Ok(Exit::Done)
}

fn set(remote: &RemoteArgs, profile: &EngineProfile, yes: bool) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        if !yes {
            let current = client.limits().await.map_err(|error| remote::failed_question(&error))?;
            if current.engine != profile.as_str() {
                return Err(Failure::new(unconfirmed(&current.engine, profile.as_str())));
            }
        }
        let set = client.set_engine(profile.as_str(), yes).await;
        set.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("the change of the engine profile"))?;
    match remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "engine": answer.profile,
            "previous": answer.previous,
        }))?,
        Output::Table => print_text(&match answer.profile == answer.previous {
            true => "this was the engine profile already".to_owned(),
            false => format!(
                "changed at index {}:\n  engine: {}\n  was:    {}\nnodes whose program does not \
                 offer it stop now; start a version that does on their data directories",
                answer.index, answer.profile, answer.previous
            ),
        })?,
    }
    Ok(Exit::Done)
}

fn unconfirmed(current: &str, wanted: &str) -> String {
    format!(
        "nothing was changed. The engine profile would change\n  from {current}\n  to   {wanted}\n\
         Every node whose program does not offer the latter applies the change, saves a snapshot \
         and stops; no program but one that offers it can start on that state again, and there is \
         no way back but to change it again from there. Make sure that you have that program, \
         that `raft-host check` of it accepts the module that runs, and that you can start it on \
         every node. Then say so with --yes"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_taken_whole() {
        let engine = server::offered_engine();
        assert_eq!(parse_profile(engine.as_str()), Ok(engine.clone()));
        for (text, words) in [
            ("", "it is empty"),
            ("v1", "ends with `/crc-`"),
            ("v1/wasmtime-48/crc-00000000", "copy it whole, as `raft-host engine offered`"),
        ] {
            let message = parse_profile(text).expect_err(text);
            assert!(message.contains(words), "{message:?} should contain {words:?}");
        }
        let words = unconfirmed("a", engine.as_str());
        assert!(words.contains(engine.as_str()) && words.ends_with("--yes"), "{words}");
    }

    #[test]
    fn the_profile_in_force_stands_beside_those_that_are_offered() {
        let answer = v1::LimitsResponse {
            engine: "v1/old".to_owned(),
            engine_offered: "v1/old".to_owned(),
            profile_hash: vec![0xab, 0xc1].into(),
            ..Default::default()
        };
        assert_eq!(
            shown(&answer, "v1/new"),
            "engine                            v1/old\n\
             offered by the node that answers  the same\n\
             offered by this program           v1/new\n\
             profile hash                      abc1 (of engine and limits)"
        );
    }
}
