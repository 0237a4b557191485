//! From a change to a version that runs: build, check, propose, and say what came of it.

use std::time::{Duration, Instant};

use raft_host_proto::v1::{self, rehearse_request::Range};
use raft_host_proto::{Client, ClientError};

use super::Session;
use crate::cli::dev::build::{self, Built, NotBuilt};
use crate::cli::dev::cluster::{Cluster, NoCluster};
use crate::cli::dev::line::NODES;
use crate::cli::dev::show::time;
use crate::cli::output::short_hash;
use crate::cli::upgrade::rehearsal_text;

/// What a job in the background has come to.
pub(super) enum Done {
    Built(Result<Built, NotBuilt>),
    Started(Built, Duration, Result<Cluster, NoCluster>),
    Proposed(Built, Rehearsed, Result<v1::UpgradeResponse, ClientError>),
}

/// What came of trying a version on what this session has done so far; `None`: no module ran before.
type Rehearsed = Option<Result<Box<v1::RehearseResponse>, ClientError>>;

impl Session {
    /// Builds now, or once more when the build that runs is over.
    pub(super) fn build(&mut self, seen: Option<Instant>) {
        if !self.jobs.is_empty() {
            self.changed = self.changed.or(seen).or_else(|| Some(Instant::now()));
            return;
        }
        self.screen.say(&self.screen.dim("building ..."));
        let (dir, known, modules) = (self.dir.clone(), self.fit, self.modules.clone());
        let interrupt = self.interrupt.clone();
        self.jobs.spawn_blocking(move || {
            Done::Built(build::build(&dir, known, &modules, interrupt, seen))
        });
    }

    /// A job is over; perhaps another follows. An error ends the session.
    pub(super) fn done(&mut self, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Built(Ok(built)) => {
                self.fit = Some(built.fit);
                self.name.clone_from(&built.name);
                if self.introduce(built) {
                    return Ok(());
                }
            }
            Done::Built(Err(NotBuilt::Toolchain(why))) if self.first => anyhow::bail!(why),
            Done::Built(Err(NotBuilt::Toolchain(why) | NotBuilt::Failed(why))) => {
                self.complain_of_version(&why);
            }
            Done::Started(built, took, Ok(cluster)) => {
                self.running(cluster);
                let text = format!(
                    "{} {} runs: built in {}, {}, three nodes in {}",
                    built.name,
                    built.fit.hash.short(),
                    time(built.took),
                    checked(&built),
                    time(took)
                );
                self.screen.say(&self.screen.green(&text));
            }
            Done::Started(_, _, Err(NoCluster::Refused(reason))) => {
                self.complain_of_version(&format!("the nodes refuse it: {reason}"));
            }
            Done::Started(_, _, Err(NoCluster::Broken(error))) => return Err(error),
            Done::Proposed(built, rehearsed, Ok(answer)) => {
                self.say_rehearsed(rehearsed);
                self.say_upgraded(&built, &answer);
            }
            Done::Proposed(_, rehearsed, Err(error)) => {
                self.say_rehearsed(rehearsed);
                self.complain_of_version(&format!("it builds, but the nodes refuse it: {error}"));
            }
        }
        self.first = false;
        if let Some(seen) = self.changed.take() {
            self.build(Some(seen));
            return Ok(());
        }
        for waiting in self.waiting.drain(..) {
            // Whoever waited may be gone.
            let _ = waiting.send(());
        }
        Ok(())
    }

    /// Gives the nodes a version; `false`: nothing is to be waited for.
    fn introduce(&mut self, built: Built) -> bool {
        let Some(cluster) = &self.cluster else {
            let (dir, modules) = (self.data_dir.clone(), self.modules.clone());
            self.jobs.spawn(async move {
                let begun = Instant::now();
                let started = Cluster::form(&dir, &built.name, &built.module, &modules).await;
                Done::Started(built, begun.elapsed(), started)
            });
            return true;
        };
        self.held = None;
        let active = cluster.active().filter(|active| active.hash == built.fit.hash);
        if let Some(active) = active {
            self.screen.say(&self.screen.dim(&format!(
                "unchanged: {} {} runs since index {}; built in {}, {}",
                built.name,
                active.hash.short(),
                active.activated_at,
                time(built.took),
                checked(&built)
            )));
            return false;
        }
        if !cluster.has_quorum() {
            self.screen.say(&format!(
                "built in {}, {}; it waits until {} nodes run: :revive one",
                time(built.took),
                checked(&built),
                NODES / 2 + 1
            ));
            self.held = Some(built);
            return false;
        }
        let (client, name) = (cluster.client.clone(), built.name.clone());
        let on_node = (1..=NODES).find(|number| cluster.is_alive(*number)).unwrap_or(1) as u64;
        let is_first = cluster.active().is_none();
        self.jobs.spawn(async move {
            let rehearsed = match is_first {
                true => None,
                false => Some(rehearse(&client, &built, on_node).await),
            };
            let answer = client.upgrade(built.module.clone(), &name).await;
            Done::Proposed(built, rehearsed, answer)
        });
        true
    }

    /// Whoever edits a state machine means it to differ, and wants to see where: nothing is refused for that.
    fn say_rehearsed(&self, rehearsed: Rehearsed) {
        match rehearsed {
            None => {}
            Some(Ok(answer)) => {
                let text = rehearsal_text(&answer);
                let is_same = answer.report.is_some_and(|report| report.counts.is_empty());
                self.screen.say(&if is_same { self.screen.dim(&text) } else { text });
            }
            Some(Err(error)) => {
                self.screen.say(&self.screen.dim(&format!("not rehearsed: {error}")))
            }
        }
    }

    /// Enough nodes run again, perhaps: what waited for that is proposed.
    pub(super) fn propose_held(&mut self) {
        if self.cluster.as_ref().is_some_and(Cluster::has_quorum)
            && self.jobs.is_empty()
            && let Some(held) = self.held.take()
        {
            self.introduce(held);
        }
    }

    fn say_upgraded(&self, built: &Built, answer: &v1::UpgradeResponse) {
        let saved = match built.saved {
            Some(seen) => format!(", {} after the change", time(seen.elapsed())),
            None => String::new(),
        };
        let state = match short_hash(&answer.previous_hash).as_str() {
            "-" => "the first".to_owned(),
            previous => format!("with the state of {previous}"),
        };
        self.screen.say(&self.screen.green(&format!(
            "{} {} runs from index {} on, {state}: built in {}, {}, active {} after the build{saved}",
            built.name,
            short_hash(&answer.module_hash),
            answer.index,
            time(built.took),
            checked(built),
            time(built.compiled.elapsed()),
        )));
    }

    fn complain_of_version(&self, why: &str) {
        self.screen.say(&self.screen.red(why));
        let text = match self.cluster.as_ref().and_then(Cluster::version) {
            Some(version) => format!("{version}, goes on"),
            None => "no version runs yet: save a change, or type :upgrade, to try again".to_owned(),
        };
        self.screen.say(&text);
    }
}

/// Tries a version on all commands of the session that one of the nodes retains.
async fn rehearse(
    client: &Client,
    built: &Built,
    on_node: u64,
) -> Result<Box<v1::RehearseResponse>, ClientError> {
    let staged = client.stage(built.module.clone()).await?;
    let request = v1::RehearseRequest {
        module_hash: staged.module_hash,
        range: Some(Range::AllRetained(true)),
        on_node,
        ..Default::default()
    };
    client.rehearse(request).await.map(Box::new)
}

fn checked(built: &Built) -> String {
    match built.checked {
        Some(took) => format!("checked in {}", time(took)),
        None => "checked before".to_owned(),
    }
}
