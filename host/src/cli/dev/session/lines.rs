//! What somebody types, and what is answered.

use std::future::Future;
use std::time::Instant;

use raft_host_proto::{Client, v1};
use tokio::sync::oneshot;

use super::Session;
use crate::cli::answer::Answer;
use crate::cli::dev::HELP;
use crate::cli::dev::cluster::Cluster;
use crate::cli::dev::line::{self, Line, NODES};
use crate::cli::dev::show::{self, time};
use crate::cli::output::{human_bytes, table};
use crate::cli::remote;

/// A question that has come back, and who waits for that.
pub(super) struct Asked {
    said: Result<String, String>,
    done: oneshot::Sender<()>,
}

impl Session {
    /// Does what a line says; `false`: end.
    pub(super) async fn take(&mut self, text: &str, done: oneshot::Sender<()>) -> bool {
        match line::parse(text) {
            Err(wrong) => self.screen.say(&self.screen.red(&wrong)),
            Ok(Line::Quit) => return false,
            Ok(Line::Nothing) => {}
            Ok(Line::Help) => self.screen.say(HELP),
            Ok(Line::Upgrade) => {
                self.build(None);
                // The prompt comes back when it is over.
                self.waiting.push(done);
            }
            Ok(Line::Apply(command)) => self.apply(command, done),
            Ok(Line::Query(query)) => self.query(query, done),
            Ok(Line::Snapshot) => self.snapshot(done),
            Ok(Line::Status) => self.status(),
            Ok(Line::Kill(number)) => self.kill(number).await,
            Ok(Line::Revive(number)) => self.revive(number).await,
            Ok(Line::Toggle(number)) => {
                match self.cluster.as_ref().is_some_and(|cluster| cluster.is_alive(number)) {
                    true => self.kill(number).await,
                    false => self.revive(number).await,
                }
            }
        }
        true
    }

    fn apply(&mut self, command: String, done: oneshot::Sender<()>) {
        let screen = self.screen.clone();
        self.ask(done, |client| async move {
            let begun = Instant::now();
            let answered = match client.apply(command).await {
                Ok(response) => Answer::of_apply(response),
                Err(error) => Err(remote::failure(&error)),
            };
            match answered.map_err(|failure| failure.about("the command")) {
                Ok(answer) => Ok(show::answer(&answer, begun.elapsed(), &screen)),
                Err(failure) => Err(failure.text()),
            }
        });
    }

    fn query(&mut self, query: String, done: oneshot::Sender<()>) {
        let screen = self.screen.clone();
        self.ask(done, |client| async move {
            let begun = Instant::now();
            let answered = match client.query(query, v1::Consistency::Linearizable).await {
                Ok(response) => Answer::of_query(response),
                Err(error) => Err(remote::failed_question(&error)),
            };
            match answered {
                Ok(answer) => Ok(show::answer(&answer, begun.elapsed(), &screen)),
                Err(failure) => Err(failure.text()),
            }
        });
    }

    fn snapshot(&mut self, done: oneshot::Sender<()>) {
        self.ask(done, |client| async move {
            match client.take_snapshot().await {
                Ok(taken) => {
                    let size = human_bytes(taken.size_bytes);
                    Ok(format!("snapshot at index {}: {size}", taken.index))
                }
                Err(error) => Err(remote::failed_question(&error).text()),
            }
        });
    }

    /// Asks the nodes beside everything else: builds and signals do not wait for the answer.
    fn ask<F>(&mut self, done: oneshot::Sender<()>, question: impl FnOnce(Client) -> F)
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        let Some(cluster) = &self.cluster else { return self.say_nothing_runs() };
        if !cluster.has_quorum() {
            return self.screen.say(&self.screen.red(&quorum_is_missing(cluster.alive())));
        }
        let answer = question(cluster.client.clone());
        self.asked.spawn(async move { Asked { said: answer.await, done } });
    }

    pub(super) fn answered(&self, asked: Asked) {
        match asked.said {
            Ok(text) => self.screen.say(&text),
            Err(text) => {
                self.screen.say(&self.screen.red(&text));
                if let Some(cluster) = self.cluster.as_ref().filter(|cluster| !cluster.has_quorum())
                {
                    self.screen.say(&quorum_is_missing(cluster.alive()));
                }
            }
        }
        // Whoever waited may be gone.
        let _ = asked.done.send(());
    }

    fn say_nothing_runs(&self) {
        self.screen.say("no version runs yet: it is being built, or the build has failed");
    }

    fn status(&self) {
        let Some(cluster) = &self.cluster else { return self.say_nothing_runs() };
        let rows: Vec<Vec<String>> = cluster
            .facts()
            .into_iter()
            .map(|node| {
                let applied = node.applied.map_or("-".to_owned(), |index| index.to_string());
                vec![node.number.to_string(), node.address, node.role.to_owned(), applied]
            })
            .collect();
        self.screen.say(&table(&["node", "address", "role", "applied"], &rows));
        if let Some(version) = cluster.version() {
            self.screen.say(&version);
        }
        if !cluster.has_quorum() {
            self.screen.say(&quorum_is_missing(cluster.alive()));
        }
    }

    async fn kill(&mut self, number: usize) {
        let Some(cluster) = &mut self.cluster else { return self.say_nothing_runs() };
        let said = match cluster.kill(number).await {
            Err(error) => crate::text::sentence(error.as_ref()),
            Ok(()) => format!("node {number} is killed; {}", those_left(cluster)),
        };
        self.screen.say(&said);
        self.count();
    }

    async fn revive(&mut self, number: usize) {
        let Some(cluster) = &mut self.cluster else { return self.say_nothing_runs() };
        let begun = Instant::now();
        let said = match cluster.revive(number).await {
            Err(error) => crate::text::sentence(error.as_ref()),
            Ok(reached) => {
                let took = time(begun.elapsed());
                match reached {
                    Some(index) => format!(
                        "node {number} is back from its disk and has all up to index {index}, \
                         after {took}"
                    ),
                    None => format!("node {number} is back from its disk and catches up"),
                }
            }
        };
        self.screen.say(&said);
        self.count();
        self.propose_held();
    }
}

fn those_left(cluster: &Cluster) -> String {
    match cluster.has_quorum() {
        true => format!("{} of {NODES} go on", cluster.alive()),
        false => quorum_is_missing(cluster.alive()),
    }
}

fn quorum_is_missing(alive: usize) -> String {
    format!(
        "{alive} of {NODES} nodes run, and nothing is decided by fewer than {}: :revive one",
        NODES / 2 + 1
    )
}
