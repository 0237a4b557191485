//! One session: what happens, in the order in which it happens.

mod builds;
mod lines;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reedline::{ExternalPrinter, Reedline};
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::builds::Done;
use self::lines::Asked;
use super::build::{Built, Fit};
use super::cluster::{self, Cluster};
use super::prompt::{self, Input, Standing};
use super::screen::{Screen, WAITING_LINES};
use super::{DevArgs, guest_log, scratch, watch};
use crate::project::{Interrupt, Project};
use crate::wasm::CompiledModules;

/// How often it is looked whether a node has stopped by itself.
const LOOK: Duration = Duration::from_millis(500);
/// How long the check of a build is waited for at the end; its tools are ended.
const LAST_BUILD: Duration = Duration::from_secs(5);

struct Session {
    /// The project's folder.
    dir: PathBuf,
    /// What the project was called when it was last read.
    name: String,
    data_dir: PathBuf,
    screen: Arc<Screen>,
    standing: Arc<Standing>,
    /// What was compiled to be checked runs on the nodes.
    modules: CompiledModules,
    /// There is one as soon as a version was built that is fit.
    cluster: Option<Cluster>,
    /// A build and what follows from it; one at a time.
    jobs: JoinSet<Done>,
    /// Ends the tools of a build.
    interrupt: Interrupt,
    /// When the first change was seen since the build began that runs now.
    changed: Option<Instant>,
    /// The version that was checked last, if it was found fit.
    fit: Option<Fit>,
    /// What the nodes get when enough of them run again.
    held: Option<Built>,
    /// Who waits for the build to be over.
    waiting: Vec<oneshot::Sender<()>>,
    /// What was asked and is not answered yet.
    asked: JoinSet<Asked>,
    /// No build is over yet: tools that are missing now are missing for good.
    first: bool,
}

/// Where lines and signals come from.
struct Sources {
    input: mpsc::Receiver<Input>,
    changes: mpsc::Receiver<Instant>,
    interrupt: Signal,
    terminate: Signal,
}

/// Runs until somebody ends it.
pub(super) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let project = Project::open(&args.dir)?;
    let own_dir = scratch::folder(&project.dir)?;
    let (data_dir, _temporary) = data_dir(args.data_dir.as_deref())?;
    let interrupt = signal(SignalKind::interrupt()).context("catching signals")?;
    let terminate = signal(SignalKind::terminate()).context("catching signals")?;
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
    let changes = watch::watch(project.clone(), data_dir.clone())?;
    let mut session = Session::new(&project, data_dir, screen);
    session.resume().await?;
    let (sender, input) = mpsc::channel(1);
    let reader = match editor {
        Some(editor) => Some(session.edit(editor, sender)?),
        None => {
            session.read_lines(sender)?;
            None
        }
    };
    session.build(None);
    let mut sources = Sources { input, changes, interrupt, terminate };
    let keep_running = args.keep_running && reader.is_none();
    let ended = session.serve(&mut sources, keep_running).await;
    drop(sources);
    ending.store(true, Ordering::Relaxed);
    let screen = Arc::clone(&session.screen);
    session.end(reader).await;
    ended?;
    screen.say("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Where the nodes' data goes; the second part, if any, deletes it when it is dropped.
fn data_dir(wanted: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    let Some(wanted) = wanted else {
        let temporary = tempfile::Builder::new()
            .prefix("raft-host-dev-")
            .tempdir()
            .context("creating a temporary directory")?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    let made = std::fs::create_dir_all(wanted).and_then(|()| wanted.canonicalize());
    Ok((made.with_context(|| format!("creating {}", wanted.display()))?, None))
}

impl Session {
    fn new(project: &Project, data_dir: PathBuf, screen: Arc<Screen>) -> Session {
        Session {
            dir: project.shown.clone(),
            name: project.name.to_string(),
            data_dir,
            screen,
            standing: Arc::default(),
            modules: CompiledModules::default(),
            cluster: None,
            jobs: JoinSet::new(),
            interrupt: Interrupt::default(),
            changed: None,
            fit: None,
            held: None,
            waiting: Vec::new(),
            asked: JoinSet::new(),
            first: true,
        }
    }

    /// Goes on with what an earlier session left.
    async fn resume(&mut self) -> anyhow::Result<()> {
        if !cluster::exists(&self.data_dir) {
            return Ok(());
        }
        let cluster = Cluster::resume(&self.data_dir, &self.modules).await?;
        let version = cluster.version().unwrap_or_else(|| "no version".to_owned());
        self.screen.say(&format!("going on with {version}"));
        self.running(cluster);
        Ok(())
    }

    fn running(&mut self, cluster: Cluster) {
        let addresses = cluster.addresses();
        self.screen.say(&format!("three nodes: {}", addresses.join(", ")));
        let first = addresses[0];
        self.screen.say(&self.screen.dim(&format!(
            "from another shell: raft-host apply --endpoint {first} COMMAND; raft-host query, \
             status likewise"
        )));
        self.cluster = Some(cluster);
        self.count();
    }

    fn count(&self) {
        let alive = self.cluster.as_ref().map_or(0, Cluster::alive);
        self.standing.alive.store(alive, Ordering::Relaxed);
    }

    fn edit(&self, editor: Reedline, input: mpsc::Sender<Input>) -> anyhow::Result<JoinHandle<()>> {
        let (name, screen) = (self.name.clone(), Arc::clone(&self.screen));
        let standing = Arc::clone(&self.standing);
        self.screen.say("what you type is a command, ?... a query; :help for more, Ctrl-C ends");
        let edit = move || prompt::edit(editor, &name, &standing, &screen, &input);
        std::thread::Builder::new().name("prompt".into()).spawn(edit).context("starting the prompt")
    }

    /// A script's first line means the first version: it waits for that.
    fn read_lines(&mut self, input: mpsc::Sender<Input>) -> anyhow::Result<()> {
        let (first, first_done) = oneshot::channel();
        self.waiting.push(first);
        let screen = Arc::clone(&self.screen);
        let read = move || {
            // Dropped without a word: over as well.
            let _ = first_done.blocking_recv();
            prompt::read_pipe(&screen, &input);
        };
        // Nobody can interrupt a thread that reads a pipe, so nobody joins this one.
        std::thread::Builder::new().name("input".into()).spawn(read).context("reading input")?;
        Ok(())
    }

    /// An error is one that no edit mends.
    async fn serve(&mut self, sources: &mut Sources, keep_running: bool) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(LOOK);
        let mut listening = true;
        loop {
            tokio::select! {
                given = sources.input.recv(), if listening => match given {
                    Some(Input::Line(text, done)) => {
                        if !self.take(&text, done).await {
                            return Ok(());
                        }
                    }
                    Some(Input::End) | None if keep_running => listening = false,
                    Some(Input::End) | None => return Ok(()),
                },
                Some(done) = self.jobs.join_next() => {
                    self.done(done.context("a build broke")?)?;
                }
                Some(asked) = self.asked.join_next() => {
                    self.answered(asked.context("a question broke")?);
                }
                Some(seen) = sources.changes.recv() => self.build(Some(seen)),
                _ = look.tick() => self.look().await,
                _ = sources.interrupt.recv() => return Ok(()),
                _ = sources.terminate.recv() => return Ok(()),
            }
        }
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
        self.interrupt.interrupt();
        self.asked.shutdown().await;
        if let Some(reader) = reader {
            // A panic of it was told already.
            let _ = tokio::task::spawn_blocking(move || reader.join()).await;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
        if tokio::time::timeout(LAST_BUILD, self.jobs.shutdown()).await.is_err() {
            self.screen.say("a check still runs and is left alone");
        }
    }
}
