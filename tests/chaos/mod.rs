//! Real processes under real faults.
//!
//! ```text
//!   workload ── clients, on the nodes' own ports ──► node processes ◄── nemesis: kills, pauses,
//!      │                                              │  ▲                disks, operators
//!      ▼                                              ▼  │
//!   history ──► checker                              network: a proxy before each node ◄── nemesis
//! ```
//!
//! Knows the nodes only as any user does: their command line, their services, their signals.
//! The seed decides which faults come when; processes and clocks are real, so a run cannot be
//! repeated exactly. What is repeatable is the simulator's job. `host/docs/chaos.md` says how to
//! run it.

mod certificates;
pub(crate) mod disk;
mod events;
mod fault;
mod nemesis;
mod network;
mod node;
mod owner;
mod recorded;
mod report;
mod verify;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

pub use self::fault::Fault;
pub use self::recorded::{Recorded, RecordedClients};
pub use self::report::Report;

use self::certificates::Certificates;
use self::disk::SmallDisk;
use self::events::Events;
use self::fault::Lane;
use self::nemesis::{Cluster, Nemesis};
use self::network::Network;
use self::node::{Form, Node, Setting};
use self::owner::Pids;
use self::workload::{Recorder, Worker};
use crate::history::checker;

/// How long a node may take to come up on a loaded machine.
const START: Duration = Duration::from_secs(120);

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of the first program, the cluster runs it at the start and at the end.
    pub program: PathBuf,
    /// Of another version.
    pub other_program: PathBuf,
    /// How long faults and clients go on.
    pub time: Duration,
    /// Nodes; at least 3.
    pub nodes: usize,
    /// Concurrent clients.
    pub clients: usize,
    /// Longest pause of a client between two operations.
    pub pause_max: Duration,
    /// Longest that a fault lasts.
    pub hold_max: Duration,
    /// Decides the faults and what clients ask.
    pub seed: u64,
    /// What is done.
    pub faults: Vec<Fault>,
    /// Nodes and clients show certificates.
    pub tls: bool,
    /// For data, logs and `events.txt`; must exist.
    pub dir: PathBuf,
    /// Where the history goes.
    pub history: PathBuf,
    /// Prints no events.
    pub quiet: bool,
}

/// Runs a cluster under faults and judges it.
///
/// # Errors
/// When the run itself could not be made; what is wrong with the cluster is in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(options.nodes >= 3, "three nodes are the least that survive a fault");
    let began = Instant::now();
    let events = Arc::new(Events::new(&options.dir.join("events.txt"), began, options.quiet)?);
    let recorder = Arc::new(Recorder::new(&options.history, began)?);
    let pids = Arc::new(Pids::new(options.nodes));
    let mut faults = options.faults.clone();
    let mut skipped = Vec::new();
    let mut skip = |fault: Fault, faults: &mut Vec<Fault>, why: anyhow::Error| {
        if faults.contains(&fault) {
            events.note("SKIPPED", &format!("{fault}: {why:#}"));
            skipped.push(format!("{fault}: {why:#}"));
            faults.retain(|other| *other != fault);
        }
    };
    let shim = disk::build_slow_fsync(&options.dir);
    let shim = shim.map_err(|why| {
        skip(Fault::HungFsync, &mut faults, anyhow::anyhow!("{why:#}"));
        skip(Fault::SlowFsync, &mut faults, why);
    });
    let shim = shim.ok();
    let certificates = options.tls.then(|| Certificates::new(&options.program, &options.dir));
    let certificates = certificates.transpose()?.map(Arc::new);
    let tls = certificates.as_ref().map(|certificates| certificates.client().clone());
    let setting = Setting { dir: options.dir.clone(), shim, pids: Arc::clone(&pids), certificates };

    let network = Arc::new(Network::new(options.nodes, pids));
    let mut proxies = JoinSet::new();
    let (mut nodes, mut listens) = (Vec::new(), Vec::new());
    for at in 0..options.nodes {
        let proxy = TcpListener::bind("127.0.0.1:0").await?;
        let listen = SocketAddr::from(([127, 0, 0, 1], crate::free_port()));
        let mut node = Node::new(at, listen, proxy.local_addr()?, &options.program, &setting)?;
        if at == 0 && faults.contains(&Fault::FullDisk) {
            let mounted = SmallDisk::mount(&node.disk_dir());
            node.disk = mounted.map_err(|why| skip(Fault::FullDisk, &mut faults, why)).ok();
        }
        proxies.spawn(Arc::clone(&network).serve(proxy, at, listen));
        nodes.push(Mutex::new(node));
        listens.push(listen);
    }
    let cluster = Arc::new(Cluster {
        nodes,
        listens,
        network,
        events,
        recorder,
        programs: [options.program.clone(), options.other_program.clone()],
        tls,
        plugins: [crate::kv(), crate::kv_v2()],
    });
    start(&cluster).await?;

    let faults_began = Instant::now();
    trouble(&cluster, options, &faults).await?;
    let took = began.elapsed();
    let verified = verify::verify(&cluster).await;

    let history = cluster.recorder.history()?;
    let mut report = Report::new(&history, took);
    report.took = took - (faults_began - began);
    report.faults = cluster.events.faults();
    report.skipped = skipped;
    report.violations = cluster.recorder.anomalies();
    match verified {
        Ok(healthy) => report.healthy_after = Some(healthy),
        Err(why) => report.violations.push(format!("{why:#}")),
    }
    for node in &cluster.nodes {
        report.slow_fsyncs += node.lock().await.slowed();
    }
    let judged = tokio::task::spawn_blocking(move || checker::check(&history)).await?;
    report.violations.extend(judged.err().map(|violation| violation.to_string()));
    Ok(report)
}

async fn start(cluster: &Arc<Cluster>) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        let mut node = node.lock().await;
        let form = match node.at {
            0 => Form::Found(cluster.plugins[0].clone()),
            _ => Form::Join(vec![cluster.listens[0]]),
        };
        node.start(&form)?;
        let serves = node.serves(START).await?;
        ensure!(serves, "{} does not serve: {}", node.name(), node.log());
    }
    let client = cluster.client(0)?;
    let deadline = Instant::now() + START;
    loop {
        let members = client.members().await.context("the members")?.members;
        let voters = members.iter().filter(|member| member.is_voter()).count();
        if voters == cluster.nodes.len() {
            cluster.events.note("started", &format!("{voters} voters"));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not all became voters: {members:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Clients and faults, until the time is over.
async fn trouble(
    cluster: &Arc<Cluster>,
    options: &Options,
    faults: &[Fault],
) -> anyhow::Result<()> {
    let (stopper, stop) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..options.clients {
        let client = cluster.client(number)?;
        let seed = options.seed.wrapping_mul(1_000).wrapping_add(number as u64);
        let worker = Worker::new(&cluster.recorder, client, seed, options.pause_max);
        tasks.spawn(worker.run(stop.clone()));
    }
    for lane in Lane::ALL {
        let own: Vec<Fault> = faults.iter().copied().filter(|f| f.lane() == lane).collect();
        let nemesis = Nemesis::new(cluster, options.seed, lane, options.hold_max, stop.clone());
        tasks.spawn(nemesis.run(own));
    }
    let end = tokio::time::sleep(options.time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end, if !*stop.borrow() => {
                // The receivers are in the tasks.
                stopper.send_replace(true);
            }
            ended = tasks.join_next() => match ended {
                Some(result) => result??,
                None if *stop.borrow() => return Ok(()),
                None => (&mut end).await,
            },
        }
        if end.is_elapsed() {
            stopper.send_replace(true);
        }
    }
}
