//! One session: what happens, in the order in which it happens.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use raft_host_proto::{ClientError, v1};
use reedline::{ExternalPrinter, Reedline};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::build::{self, Built, NotBuilt};
use super::cluster::{self, Cluster};
use super::guest_log;
use super::line::{self, Line, NODES};
use super::project::Project;
use super::prompt::{self, Input, Standing};
use super::screen::{Screen, WAITING_LINES};
use super::show::{self, time};
use super::watch;
use super::{DevArgs, HELP};
use crate::cli::answer::Answer;
use crate::cli::output::{human_bytes, short_hash, table};
use crate::cli::remote;

/// How often it is looked whether a node has stopped by itself.
const LOOK: Duration = Duration::from_millis(500);

/// What a job in the background has come to.
enum Done {
    Built(Result<Built, NotBuilt>),
    Started(Built, Duration, anyhow::Result<Cluster>),
    Proposed(Built, Duration, Result<v1::UpgradeResponse, ClientError>),
}

struct Session {
    project: Arc<Project>,
    build_command: Option<String>,
    data_dir: PathBuf,
    screen: Arc<Screen>,
    standing: Arc<Standing>,
    cluster: Option<Cluster>,
    /// A build and what follows from it; one at a time.
    jobs: JoinSet<Done>,
    /// Something changed since the build began that runs now.
    changed: bool,
    /// Who waits for the build to be over.
    waiting: Vec<oneshot::Sender<()>>,
}

/// Runs until somebody ends it.
pub(super) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let project = Arc::new(Project::open(&args.dir)?);
    let own_dir = project.own_dir()?;
    let temporary = match args.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("raft-host-dev-")
                .tempdir()
                .context("creating a temporary directory")?,
        ),
    };
    let data_dir = match (&args.data_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, temporary) => temporary.as_ref().map(TempDir::path).context("none")?.to_owned(),
    };
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("creating {}", data_dir.display()))?;
    let mut signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ending = Arc::<AtomicBool>::default();
    let (screen, editor) = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        let printer = ExternalPrinter::new(WAITING_LINES);
        let screen = Screen::new(Some(printer.sender()));
        let history = own_dir.join("history");
        (screen, Some(prompt::editor(&history, printer, Arc::clone(&ending))?))
    } else {
        (Screen::new(None), None)
    };
    let screen = Arc::new(screen);
    let log = data_dir.join("nodes.log");
    guest_log::init(&log, &screen)?;
    screen.say(&format!("the nodes' log is in {}", log.display()));
    let mut session = Session {
        project,
        build_command: args.build_command,
        data_dir,
        screen,
        standing: Arc::default(),
        cluster: None,
        jobs: JoinSet::new(),
        changed: false,
        waiting: Vec::new(),
    };
    let mut changes = watch::watch(session.project.dir.clone())?;
    session.resume().await?;
    let (sender, mut input) = mpsc::channel(1);
    let mut piped = None;
    let reader = match editor {
        Some(editor) => Some(session.edit(editor, sender)?),
        None => {
            // A script's first line means the first version.
            let (first, first_done) = oneshot::channel();
            session.waiting.push(first);
            piped = Some((sender, first_done));
            None
        }
    };
    session.build();
    if let Some((sender, first_done)) = piped {
        let screen = Arc::clone(&session.screen);
        let read = move || {
            // Dropped without a word: over as well.
            let _ = first_done.blocking_recv();
            prompt::read_pipe(&screen, &sender);
        };
        std::thread::Builder::new().name("input".into()).spawn(read).context("reading input")?;
    }
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            given = input.recv() => match given {
                Some(Input::Line(text, done)) => {
                    if !session.take(&text, done).await {
                        break;
                    }
                }
                Some(Input::End) | None => break,
            },
            Some(done) = session.jobs.join_next() => session.done(done?),
            Some(()) = changes.recv() => session.build(),
            _ = look.tick() => session.look().await,
            _ = signals.0.recv() => break,
            _ = signals.1.recv() => break,
        }
    }
    drop((changes, input));
    ending.store(true, Ordering::Relaxed);
    session.end(reader).await;
    Ok(ExitCode::SUCCESS)
}

impl Session {
    /// Goes on with what an earlier session left.
    async fn resume(&mut self) -> anyhow::Result<()> {
        if !cluster::exists(&self.data_dir) {
            return Ok(());
        }
        let cluster = Cluster::start(&self.data_dir, None).await?;
        let version = cluster.version().unwrap_or_else(|| "no version".to_owned());
        self.screen.say(&format!("going on with {version}"));
        self.running(cluster);
        Ok(())
    }

    fn running(&mut self, cluster: Cluster) {
        self.screen.say(&format!("three nodes: {}", cluster.addresses().join(", ")));
        self.cluster = Some(cluster);
        self.count();
    }

    fn count(&self) {
        let alive = self.cluster.as_ref().map_or(0, Cluster::alive);
        self.standing.alive.store(alive, Ordering::Relaxed);
    }

    fn edit(&self, editor: Reedline, input: mpsc::Sender<Input>) -> anyhow::Result<JoinHandle<()>> {
        let (name, screen) = (self.project.name.clone(), Arc::clone(&self.screen));
        let standing = Arc::clone(&self.standing);
        self.screen.say("what you type is a command, ?... a query; :help for more, Ctrl-C ends");
        let edit = move || prompt::edit(editor, &name, &standing, &screen, &input);
        std::thread::Builder::new().name("prompt".into()).spawn(edit).context("starting the prompt")
    }

    /// Builds now, or once more when the build that runs is over.
    fn build(&mut self) {
        if !self.jobs.is_empty() {
            self.changed = true;
            return;
        }
        self.screen.say(&self.screen.dim("building ..."));
        let (project, command) = (Arc::clone(&self.project), self.build_command.clone());
        self.jobs
            .spawn(async move { Done::Built(build::build(&project, command.as_deref()).await) });
    }

    /// A job is over; perhaps another follows.
    fn done(&mut self, done: Done) {
        match done {
            Done::Built(Ok(built)) => return self.introduce(built),
            Done::Built(Err(NotBuilt(why))) => {
                self.screen.say(&self.screen.red(&format!("the build failed:\n{why}")));
                self.say_what_goes_on();
            }
            Done::Started(built, took, Ok(cluster)) => {
                self.running(cluster);
                let times = format!("built in {}, three nodes in {}", time(built.took), time(took));
                let hash = built.hash.short();
                let text = format!("{} {hash} runs: {times}", self.project.name);
                self.screen.say(&self.screen.green(&text));
            }
            Done::Started(_, _, Err(error)) => {
                self.screen.say(&self.screen.red(&format!("the nodes do not run: {error:#}")));
                self.say_what_goes_on();
            }
            Done::Proposed(built, took, Ok(answer)) => self.say_upgraded(&built, took, &answer),
            Done::Proposed(built, _, Err(error)) => {
                let text = format!(
                    "built in {}, but the nodes did not take it: {error}",
                    time(built.took)
                );
                self.screen.say(&self.screen.red(&text));
                self.say_what_goes_on();
            }
        }
        if std::mem::take(&mut self.changed) {
            return self.build();
        }
        for waiting in self.waiting.drain(..) {
            // Whoever waited may be gone.
            let _ = waiting.send(());
        }
    }

    /// Gives the nodes a version.
    fn introduce(&mut self, built: Built) {
        let begun = Instant::now();
        let Some(cluster) = &self.cluster else {
            let (dir, module) = (self.data_dir.clone(), self.project.module.clone());
            self.jobs.spawn(async move {
                let started = Cluster::start(&dir, Some(&module)).await;
                Done::Started(built, begun.elapsed(), started)
            });
            return;
        };
        let (client, name) = (cluster.client.clone(), self.project.name.clone());
        self.jobs.spawn(async move {
            let answer = client.upgrade(built.module.clone(), &name).await;
            Done::Proposed(built, begun.elapsed(), answer)
        });
    }

    fn say_upgraded(&self, built: &Built, took: Duration, answer: &v1::UpgradeResponse) {
        let hash = short_hash(&answer.module_hash);
        if answer.already_active {
            self.screen.say(&self.screen.dim(&format!(
                "built in {}: unchanged, {hash} runs since index {}",
                time(built.took),
                answer.index
            )));
            return;
        }
        self.screen.say(&self.screen.green(&format!(
            "{} {hash} runs from index {} on, with the state of {}: built in {}, taken in {}",
            self.project.name,
            answer.index,
            short_hash(&answer.previous_hash),
            time(built.took),
            time(took)
        )));
    }

    fn say_what_goes_on(&self) {
        let text = match self.cluster.as_ref().and_then(Cluster::version) {
            Some(version) => format!("{version}, goes on"),
            None => "no version runs yet: save a change, or type :upgrade, to try again".to_owned(),
        };
        self.screen.say(&text);
    }

    /// Does what a line says; `false`: end.
    async fn take(&mut self, text: &str, done: oneshot::Sender<()>) -> bool {
        match line::parse(text) {
            Err(wrong) => self.screen.say(&self.screen.red(&wrong)),
            Ok(Line::Quit) => return false,
            Ok(Line::Nothing) => {}
            Ok(Line::Help) => self.screen.say(HELP),
            Ok(Line::Upgrade) => {
                self.build();
                // The prompt comes back when it is over.
                self.waiting.push(done);
            }
            Ok(Line::Apply(command)) => self.apply(command).await,
            Ok(Line::Query(query)) => self.query(query).await,
            Ok(Line::Status) => self.status(),
            Ok(Line::Snapshot) => self.snapshot().await,
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

    /// The cluster, or a sentence that there is none.
    fn cluster(&self) -> Option<&Cluster> {
        if self.cluster.is_none() {
            self.screen.say("no version runs yet: it is being built, or the build has failed");
        }
        self.cluster.as_ref()
    }

    async fn apply(&self, command: String) {
        let Some(cluster) = self.cluster() else { return };
        let begun = Instant::now();
        let answered = match cluster.client.apply(command).await {
            Ok(response) => Answer::of_apply(response),
            Err(error) => Err(remote::failure(&error)),
        };
        match answered.map_err(|failure| failure.about("the command")) {
            Ok(answer) => self.screen.say(&show::answer(&answer, begun.elapsed(), &self.screen)),
            Err(failure) => self.complain(cluster, &failure.text()),
        }
    }

    async fn query(&self, query: String) {
        let Some(cluster) = self.cluster() else { return };
        let begun = Instant::now();
        let answered = match cluster.client.query(query, v1::Consistency::Linearizable).await {
            Ok(response) => Answer::of_query(response),
            Err(error) => Err(remote::failed_question(&error)),
        };
        match answered {
            Ok(answer) => self.screen.say(&show::answer(&answer, begun.elapsed(), &self.screen)),
            Err(failure) => self.complain(cluster, &failure.text()),
        }
    }

    async fn snapshot(&self) {
        let Some(cluster) = self.cluster() else { return };
        match cluster.client.take_snapshot().await {
            Ok(taken) => self.screen.say(&format!(
                "snapshot at index {}: {}",
                taken.index,
                human_bytes(taken.size_bytes)
            )),
            Err(error) => self.complain(cluster, &remote::failed_question(&error).text()),
        }
    }

    fn complain(&self, cluster: &Cluster, text: &str) {
        self.screen.say(&self.screen.red(text));
        if !cluster.has_quorum() {
            self.screen.say(&quorum_is_missing(cluster.alive()));
        }
    }

    fn status(&self) {
        let Some(cluster) = self.cluster() else { return };
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
        if self.cluster().is_none() {
            return;
        }
        let Some(cluster) = &mut self.cluster else { return };
        let killed = cluster.kill(number).await;
        let (alive, has_quorum) = (cluster.alive(), cluster.has_quorum());
        match killed {
            Err(error) => self.screen.say(&format!("{error:#}")),
            Ok(()) if has_quorum => {
                self.screen.say(&format!("node {number} is killed; {alive} of {NODES} go on"))
            }
            Ok(()) => {
                self.screen.say(&format!("node {number} is killed; {}", quorum_is_missing(alive)))
            }
        }
        self.count();
    }

    async fn revive(&mut self, number: usize) {
        if self.cluster().is_none() {
            return;
        }
        let Some(cluster) = &mut self.cluster else { return };
        let begun = Instant::now();
        match cluster.revive(number).await {
            Err(error) => self.screen.say(&format!("{error:#}")),
            Ok(()) => {
                let took = time(begun.elapsed());
                self.screen.say(&format!("node {number} is back from its disk, in {took}"));
            }
        }
        self.count();
    }

    /// A node may stop by itself.
    async fn look(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        for said in cluster.reap().await {
            self.screen.say(&self.screen.red(&said));
        }
        self.count();
    }

    async fn end(mut self, reader: Option<JoinHandle<()>>) {
        self.waiting.clear();
        self.jobs.shutdown().await;
        if let Some(reader) = reader {
            // A panic of it was told already.
            let _ = tokio::task::spawn_blocking(move || reader.join()).await;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
        self.screen.say("stopped");
    }
}

fn quorum_is_missing(alive: usize) -> String {
    format!(
        "{alive} of {NODES} nodes run, and nothing is decided by fewer than {}: :revive one",
        NODES / 2 + 1
    )
}
