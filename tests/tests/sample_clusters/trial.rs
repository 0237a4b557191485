//! The course of every one of these tests: commands, a killed leader, more commands, the killed
//! node again, and a comparison of all three.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use raft_host_proto::client::{PipelineOptions, Session};
use raft_host_proto::v1::{self, outcome::Kind};
use raft_host_tests::{Cluster, block_on, workspace};

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const NODES: usize = 3;

/// A command that was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) command: String,
    /// Index of the entry that ran it; unknown when it was sent again after it had run.
    pub(super) index: Option<u64>,
    /// The output, or why it was rejected.
    pub(super) result: Result<String, String>,
}

impl Answer {
    fn of(command: String, response: v1::ApplyResponse) -> Answer {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let outcome = response.outcome.expect("every answer has an outcome");
        let index = (!outcome.duplicate).then_some(response.position.unwrap_or_default().index);
        let result = match outcome.kind {
            Some(Kind::Ok(output)) => Ok(text(&output)),
            Some(Kind::Rejected(reason)) => Err(text(&reason)),
            other => panic!("{command}: {other:?}: {}", response.trap_message),
        };
        Answer { command, index, result }
    }

    /// The output; the command must not have been rejected.
    pub(super) fn ok(&self) -> &str {
        self.result.as_ref().unwrap_or_else(|reason| panic!("{}: {reason}", self.command))
    }

    /// Why it was rejected.
    pub(super) fn reason(&self) -> &str {
        match &self.result {
            Err(reason) => reason,
            Ok(output) => panic!("{} was not rejected: {output}", self.command),
        }
    }
}

/// A cluster on trial.
pub(super) struct Trial {
    pub(super) cluster: Cluster,
    /// Commands one by one, each exactly once.
    session: Session,
    killed: Option<usize>,
    asked: AtomicUsize,
}

impl Trial {
    /// Three nodes that run a module of the workspace.
    pub(super) fn start(module: &str) -> Trial {
        let cluster = Cluster::of(PROGRAM, &workspace(module), NODES, &[]);
        let session = open_session(&cluster);
        Trial { cluster, session, killed: None, asked: AtomicUsize::new(0) }
    }

    /// Applies one command.
    pub(super) fn apply(&self, command: impl Into<String>) -> Answer {
        let command = command.into();
        let response = block_on(self.session.apply(command.clone())).expect("an outcome");
        Answer::of(command, response)
    }

    /// Applies commands with many in flight, and kills the leader (`kill -9`) when a third of them
    /// is answered. The answers are in the order of the commands, and none is missing. They were run in
    /// that order, too, although some are sent again after the leader's death: the session is ordered.
    pub(super) fn apply_through_a_killed_leader(&mut self, commands: Vec<String>) -> Vec<Answer> {
        assert!(self.killed.is_none(), "two of three nodes would be gone");
        let leader = self.cluster.leader();
        let client = self.cluster.client();
        let (all, answered) = (commands.len(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&answered);
        let applying = std::thread::spawn(move || {
            block_on(async move {
                let session = client.open_ordered_session(None).await.expect("a session");
                let options = PipelineOptions { window: 32, ..Default::default() };
                let (sender, mut results) = session.pipeline(options);
                let sent = commands.clone();
                let sending = tokio::spawn(async move {
                    for command in sent {
                        sender.send(command).await.expect("the results are being taken");
                    }
                });
                let mut answers = Vec::new();
                for command in commands {
                    let result = results.next().await.expect("an answer for each command");
                    answers.push(Answer::of(command, result.result.expect("an outcome")));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                sending.await.expect("the sender does not panic");
                answers
            })
        });
        self.cluster.eventually("a third of the answers", || {
            (applying.is_finished() || answered.load(Ordering::Relaxed) > all / 3).then_some(())
        });
        self.cluster.servers[leader].kill();
        self.killed = Some(leader);
        applying.join().expect("every command is answered")
    }

    /// Asks the running nodes in turns; the answer sees everything acknowledged.
    pub(super) fn query(&self, query: &str) -> String {
        let running: Vec<usize> =
            (0..NODES).filter(|at| self.cluster.servers[*at].is_running()).collect();
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        self.cluster.query(running[turn % running.len()], query)
    }

    /// Proposes another module of the workspace.
    pub(super) fn upgrade(&self, module: &str) {
        let file = workspace(module);
        let file = file.to_str().expect("UTF-8");
        self.cluster.cli().run(&["upgrade", file, "--no-rehearsal"]).ok();
    }

    /// Starts the killed node again; all three must come to the same state, bit by bit.
    pub(super) fn revive_and_compare(&mut self) {
        let killed = self.killed.take().expect("a node was killed");
        self.cluster.servers[killed].start(&[]);
        self.cluster.wait_for_agreement();
        // Succeeds only if every member answers and all agree.
        let said = self.cluster.cli().run(&["digest", "-o", "json"]).ok();
        let digests = super::json(&said);
        assert_eq!(digests["nodes"].as_array().map(Vec::len), Some(NODES), "{digests}");
    }

    /// What each node answers from its own state; they must not differ.
    pub(super) fn everywhere(&self, query: &str) -> String {
        let answers: Vec<String> = (0..NODES).map(|at| self.cluster.local(at, query)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{query}: {answers:?}");
        answers.into_iter().next().expect("there are nodes")
    }
}

fn open_session(cluster: &Cluster) -> Session {
    block_on(cluster.client().open_session(None)).expect("a session")
}
