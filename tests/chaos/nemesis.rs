//! Does the faults, one lane each of processes, network and operators; the seed decides which,
//! to whom and for how long.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use raft_host_proto::client::{Client, ClientError};
use raft_host_proto::dial::ClientTls;
use raft_host_proto::v1;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Mutex, watch};

use super::events::Events;
use super::fault::{Fault, Lane};
use super::network::Network;
use super::node::{Form, Node, client_of, hang_fsync, slow_fsync};
use super::workload::{Recorder, client};

/// How long a node may take to end or to serve on a loaded machine, before the run goes on.
const PATIENCE: Duration = Duration::from_secs(40);

/// Commands that fill a log, together several times what it reserves ahead.
const BALLAST_BYTES: usize = 128 << 10;
const BALLAST_COMMANDS: usize = 40;

/// What the lanes share.
pub(super) struct Cluster {
    /// Each is locked by who does something to it.
    pub(super) nodes: Vec<Mutex<Node>>,
    pub(super) listens: Vec<std::net::SocketAddr>,
    pub(super) network: Arc<Network>,
    pub(super) events: Arc<Events>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) programs: [PathBuf; 2],
    /// What clients show, and whom they trust, if nodes speak TLS.
    pub(super) tls: Option<ClientTls>,
    pub(super) plugins: [PathBuf; 2],
}

/// One source of trouble.
pub(super) struct Nemesis {
    pub(super) cluster: Arc<Cluster>,
    pub(super) rng: ChaCha8Rng,
    /// Longest that a fault lasts.
    pub(super) hold_max: Duration,
    pub(super) stop: watch::Receiver<bool>,
    /// Which program and plugin come next.
    next_program: usize,
    next_plugin: usize,
}

impl Nemesis {
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        seed: u64,
        lane: Lane,
        hold_max: Duration,
        stop: watch::Receiver<bool>,
    ) -> Nemesis {
        Nemesis {
            cluster: Arc::clone(cluster),
            rng: ChaCha8Rng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(lane as u64)),
            hold_max,
            stop,
            next_program: 1,
            next_plugin: 1,
        }
    }

    /// Does the faults in random order, each as often as the others, until told to stop.
    pub(super) async fn run(mut self, faults: Vec<Fault>) -> anyhow::Result<()> {
        let mut bag = Vec::new();
        while !faults.is_empty() && !*self.stop.borrow() {
            if bag.is_empty() {
                bag.clone_from(&faults);
                bag.shuffle(&mut self.rng);
            }
            let fault = bag.pop().expect("not empty");
            self.cluster.restart_ended().await?;
            self.fault(fault).await?;
            // Time to recover, sometimes hardly any.
            self.wait(0.6).await;
        }
        Ok(())
    }

    /// Waits up to `share` of the longest time, or until the run ends.
    async fn wait(&mut self, share: f64) {
        let time = self.hold_max.mul_f64(self.rng.random_range(0.1..1.0) * share);
        // An error means that nobody can stop it any more, so it ends by itself.
        let _ = tokio::time::timeout(time, self.stop.wait_for(|stop| *stop)).await;
    }

    fn some(&mut self, count: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        let mut some: Vec<usize> = all.choose_multiple(&mut self.rng, count).copied().collect();
        // Locked in this order, lanes cannot wait for each other.
        some.sort_unstable();
        some
    }

    async fn fault(&mut self, fault: Fault) -> anyhow::Result<()> {
        let count = self.cluster.nodes.len();
        match fault {
            Fault::Kill => self.kill(fault, 1).await,
            Fault::KillMajority => self.kill(fault, count / 2 + 1).await,
            Fault::KillAll => self.kill(fault, count).await,
            Fault::Pause => self.pause().await,
            Fault::FullDisk => self.full_disk().await,
            Fault::SlowFsync => self.slow_fsync().await,
            Fault::HungFsync => self.hung_fsync().await,
            Fault::OtherVersion => self.other_version().await,
            Fault::Partition | Fault::OneWay | Fault::Partial | Fault::Delay => {
                self.network(fault).await;
                Ok(())
            }
            Fault::Upgrade => self.upgrade().await,
            Fault::Transfer => self.transfer().await,
            Fault::Rejoin => self.rejoin().await,
            Fault::Snapshot => self.snapshot().await,
        }
    }

    async fn kill(&mut self, fault: Fault, count: usize) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let mut killed = Vec::new();
        for at in self.some(count) {
            killed.push(cluster.nodes[at].lock().await);
        }
        let names: Vec<String> = killed.iter().map(|node| node.name()).collect();
        cluster.events.fault(fault, &names.join(", "));
        for node in &mut killed {
            node.kill()?;
            node.note(fault.name());
        }
        self.wait(1.0).await;
        killed.shuffle(&mut self.rng);
        for node in &mut killed {
            cluster.restart(node)?;
            if self.rng.random_bool(0.3) {
                self.wait(0.3).await;
            }
        }
        cluster.events.note("restarted", &names.join(", "));
        Ok(())
    }

    async fn pause(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let at = match self.rng.random_bool(0.5) {
            true => cluster.leader().await.unwrap_or(0),
            false => self.some(1)[0],
        };
        let node = cluster.nodes[at].lock().await;
        cluster.events.fault(Fault::Pause, &node.name());
        node.signal("STOP")?;
        self.wait(1.0).await;
        node.signal("CONT")?;
        cluster.events.note("continues", &node.name());
        Ok(())
    }

    async fn full_disk(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let mut node = cluster.nodes[0].lock().await;
        // Without one the run has said at its start that this fault is skipped.
        let Some(disk) = &node.disk else { return Ok(()) };
        cluster.events.fault(Fault::FullDisk, &node.name());
        disk.fill()?;
        // The log has reserved some megabytes ahead; only when they are used up does it notice.
        let time = self.hold_max.mul_f64(self.rng.random_range(0.5..1.5));
        let ballast = tokio::time::timeout(time, cluster.apply_ballast(self.rng.random()));
        match ballast.await {
            Ok(result) => result?,
            Err(_) => cluster.events.note("full disk", "not all ballast was applied in time"),
        }
        self.wait(0.3).await;
        if let Some(disk) = &node.disk {
            disk.free()?;
        }
        // It is restarted all the same: what it holds must be sound.
        let ended = node.ended()?;
        let how = ended.map_or("still ran".to_owned(), |status| format!("ended: {status}"));
        if ended.is_some() {
            cluster.recorder.anomaly(format!("{} {how}, on a full disk", node.name()));
        }
        node.kill()?;
        cluster.restart(&mut node)?;
        cluster.events.note("has space", &format!("{} ({how}), restarted", node.name()));
        Ok(())
    }

    async fn slow_fsync(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let count = self.rng.random_range(1..=cluster.nodes.len());
        let slow = self.some(count);
        let delay = Duration::from_millis(self.rng.random_range(20..1_500));
        let (mut names, mut files) = (Vec::new(), Vec::new());
        for at in slow {
            let node = cluster.nodes[at].lock().await;
            slow_fsync(&node.fsync_file(), delay)?;
            names.push(node.name());
            files.push(node.fsync_file());
        }
        cluster.events.fault(Fault::SlowFsync, &format!("{delay:?}: {}", names.join(", ")));
        self.wait(1.0).await;
        // Not with the nodes locked: whoever has them may be waiting for exactly this.
        for file in files {
            slow_fsync(&file, Duration::ZERO)?;
        }
        cluster.events.note("fsync", "quick again");
        Ok(())
    }

    /// Whether somebody else comes to lead depends on what the other lanes do, and is said; that
    /// SIGTERM ends a node whose disk hangs depends on nothing.
    async fn hung_fsync(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let Some(at) = cluster.leader().await else { return Ok(()) };
        let is_asked_to_end = self.rng.random_bool(0.5);
        let mut node = cluster.nodes[at].lock().await;
        cluster.events.fault(Fault::HungFsync, &node.name());
        node.may_end = true;
        hang_fsync(&node.fsync_file())?;
        let new = tokio::time::timeout(2 * self.hold_max, cluster.other_leader(at)).await;
        let found = new.map_or("nobody".to_owned(), |other| format!("node-{}", other + 1));
        cluster.events.note("leads instead", &found);
        if is_asked_to_end {
            node.signal("TERM")?;
            if !node.ends(PATIENCE).await? {
                let text = format!("{} does not end while its fsync hangs", node.name());
                cluster.recorder.anomaly(text);
            }
            node.kill()?;
        } else {
            self.wait(1.0).await;
        }
        slow_fsync(&node.fsync_file(), Duration::ZERO)?;
        node.may_end = false;
        if is_asked_to_end {
            cluster.restart(&mut node)?;
        }
        cluster.events.note("fsync", "returns again");
        Ok(())
    }

    async fn other_version(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let program = cluster.programs[self.next_program].clone();
        self.next_program = 1 - self.next_program;
        cluster.events.fault(Fault::OtherVersion, "rolling restart");
        for node in &cluster.nodes {
            if *self.stop.borrow() {
                break;
            }
            let mut node = node.lock().await;
            let well = node.terminate(PATIENCE).await?;
            if !well {
                cluster.events.note("killed", &format!("{} did not drain in time", node.name()));
            }
            node.program.clone_from(&program);
            cluster.restart(&mut node)?;
            let serves = node.serves(PATIENCE).await?;
            let version = node.status().await.map(|status| status.version);
            let text = format!("{} serves: {serves}, version {version:?}", node.name());
            cluster.events.note("restarted", &text);
        }
        Ok(())
    }

    async fn network(&mut self, fault: Fault) {
        let cluster = Arc::clone(&self.cluster);
        let network = &cluster.network;
        let count = cluster.nodes.len();
        let mut what = Vec::new();
        match fault {
            Fault::Partition => {
                let minority = self.rng.random_range(1..=count / 2);
                let group = self.some(minority);
                for a in &group {
                    for b in (0..count).filter(|b| !group.contains(b)) {
                        network.cut(*a, b);
                        network.cut(b, *a);
                    }
                }
                what.push(format!("{:?} from the others", numbers(&group)));
            }
            Fault::OneWay => {
                let (one, hears) = (self.some(1)[0], self.rng.random_bool(0.5));
                let others = self.rng.random_range(1..count);
                for other in self.some(others).into_iter().filter(|other| *other != one) {
                    let (from, to) = if hears { (one, other) } else { (other, one) };
                    network.cut(from, to);
                    what.push(format!("{} to {}", from + 1, to + 1));
                }
            }
            Fault::Partial => {
                for _ in 0..self.rng.random_range(1..count) {
                    let pair = self.some(2);
                    network.cut(pair[0], pair[1]);
                    network.cut(pair[1], pair[0]);
                    what.push(format!("{:?}", numbers(&pair)));
                }
            }
            _ => {
                for _ in 0..self.rng.random_range(1..=count * 2) {
                    let pair = self.some(2);
                    let delay = Duration::from_millis(self.rng.random_range(5..800));
                    let back = usize::from(self.rng.random::<bool>());
                    let (from, to) = (pair[back], pair[1 - back]);
                    network.delay(from, to, delay);
                    what.push(format!("{} to {} {delay:?}", from + 1, to + 1));
                }
            }
        }
        cluster.events.fault(fault, &what.join(", "));
        self.wait(1.0).await;
        let broken = self.rng.random();
        network.heal(broken);
        let how = if broken { "connections broke" } else { "what was held arrives" };
        cluster.events.note("healed", how);
    }

    async fn upgrade(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let plugin = &cluster.plugins[self.next_plugin];
        let label = plugin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let way = Way::ALL[self.rng.random_range(0..Way::ALL.len())];
        cluster.events.fault(Fault::Upgrade, &format!("{label}, {way:?}"));
        let module = std::fs::read(plugin)?;
        let client = cluster.client(self.rng.random_range(0..cluster.nodes.len()))?;
        let done = match way {
            Way::AtOnce => client.upgrade(module, &label).await,
            Way::Rehearsed { ahead } => rehearsed(&client, module, &label, ahead).await,
            Way::Rewind => rewind(&client).await,
            Way::Confirm => confirm(&client).await,
        };
        match done {
            Ok(answer) => {
                if way != Way::Confirm {
                    self.next_plugin = 1 - self.next_plugin;
                }
                let index = answer.index;
                cluster.events.note("upgraded", &format!("{label}, {way:?} at index {index}"));
            }
            Err(error) => cluster.events.note("not upgraded", &error.to_string()),
        }
        Ok(())
    }

    async fn transfer(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        cluster.events.fault(Fault::Transfer, "");
        let client = cluster.client(self.rng.random_range(0..cluster.nodes.len()))?;
        match client.transfer_leadership(0).await {
            Ok(answer) => {
                cluster.events.note("transferred", &format!("to id {}", answer.leader_id));
            }
            Err(error) => cluster.events.note("not transferred", &error.to_string()),
        }
        Ok(())
    }

    async fn snapshot(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let at = self.some(1)[0];
        cluster.events.fault(Fault::Snapshot, &format!("node-{}", at + 1));
        match client_of(cluster.listens[at], cluster.tls.as_ref()).take_snapshot().await {
            Ok(answer) => {
                cluster.events.note("snapshot", &format!("at index {}", answer.index));
            }
            Err(error) => cluster.events.note("no snapshot", &error.to_string()),
        }
        Ok(())
    }

    async fn rejoin(&mut self) -> anyhow::Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let at = self.some(1)[0];
        let mut node = cluster.nodes[at].lock().await;
        let Some(id) = node.status().await.map(|status| status.node_id) else { return Ok(()) };
        cluster.events.fault(Fault::Rejoin, &format!("{} (id {id})", node.name()));
        node.may_end = true;
        let client = cluster.client(self.rng.random_range(0..cluster.nodes.len()))?;
        match client.remove_member(id).await {
            // Only what surely is no member any more may forget what it promised.
            Ok(_) => {
                node.kill()?;
                node.wipe()?;
                self.wait(0.3).await;
                cluster.restart(&mut node)?;
                let serves = node.serves(PATIENCE).await?;
                node.may_end = !serves;
                cluster.events.note("joined", &format!("{}: {serves}", node.name()));
            }
            Err(error) => cluster.events.note("not removed", &error.to_string()),
        }
        // If it was removed after all, or did not come to join, that is found when it ends.
        Ok(())
    }
}

fn numbers(places: &[usize]) -> Vec<usize> {
    places.iter().map(|place| place + 1).collect()
}

impl Cluster {
    /// A client of all nodes that asks the one at `first` first.
    pub(super) fn client(&self, first: usize) -> anyhow::Result<Client> {
        client(&self.listens, first, self.tls.as_ref())
    }

    /// Starts a node again; one without data joins.
    pub(super) fn restart(&self, node: &mut Node) -> anyhow::Result<()> {
        let others = self.listens.iter().enumerate().filter(|(at, _)| *at != node.at);
        node.start(&Form::Join(others.map(|(_, listen)| *listen).collect()))
    }

    /// Writes some megabytes to a key that nobody reads.
    async fn apply_ballast(&self, seed: u64) -> anyhow::Result<()> {
        let client = self.client(1)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut refused = 0;
        for _ in 0..BALLAST_COMMANDS {
            // Random, because the log compresses.
            let letters = (&mut rng).sample_iter(rand::distr::Alphanumeric);
            let value: String = letters.take(BALLAST_BYTES).map(char::from).collect();
            let command = serde_json::json!({"op": "set", "key": "ballast", "value": value});
            // Whether it was applied does not matter: the log has got longer.
            refused += u32::from(client.apply(command.to_string()).await.is_err());
        }
        self.events.note("ballast", &format!("{refused} of {BALLAST_COMMANDS} not acknowledged"));
        Ok(())
    }

    /// The place of the node that says it leads.
    pub(super) async fn leader(&self) -> Option<usize> {
        for (at, listen) in self.listens.iter().enumerate() {
            let status = client_of(*listen, self.tls.as_ref()).status().await.ok();
            let leads = |status: raft_host_proto::v1::StatusResponse| {
                let role = status.group("").map(raft_host_proto::v1::GroupStatus::role);
                role == Some(raft_host_proto::v1::Role::Leader)
            };
            if status.is_some_and(leads) {
                return Some(at);
            }
        }
        None
    }

    /// Waits until somebody else says that it leads.
    async fn other_leader(&self, than: usize) -> usize {
        loop {
            match self.leader().await {
                Some(at) if at != than => return at,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Restarts nodes that ended by themselves, and remembers those that had no reason to.
    pub(super) async fn restart_ended(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            // Somebody else is at it.
            let Ok(mut node) = node.try_lock() else { continue };
            let Some(status) = node.ended()? else {
                // Its removal went through, and whoever asked for that was not told.
                if node.log().contains("removed from its cluster, say most of the other voters") {
                    self.events.note("was removed", &node.name());
                    node.kill()?;
                    node.wipe()?;
                    self.restart(&mut node)?;
                }
                continue;
            };
            let log = node.log();
            let last = log.lines().rev().take(4).collect::<Vec<_>>();
            let last = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
            let text = format!("{} ({status}): {last}", node.name());
            self.events.note("ended by itself", &text);
            let removed = log.contains("removed from its cluster");
            if log.contains("panicked") || !(node.may_end || removed) {
                self.recorder.anomaly(format!("ended by itself: {text}"));
            }
            if removed {
                node.wipe()?;
            }
            self.restart(&mut node)?;
        }
        Ok(())
    }
}

/// How the active module becomes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Uploaded and activated.
    AtOnce,
    /// Staged, rehearsed by every voter, and activated with the receipt.
    Rehearsed { ahead: bool },
    /// Back to the one before, which executes again what came since.
    Rewind,
    /// It stays, and there is no way back any more.
    Confirm,
}

impl Way {
    const ALL: [Way; 6] = [
        Way::AtOnce,
        Way::Rehearsed { ahead: false },
        Way::Rehearsed { ahead: true },
        Way::Rehearsed { ahead: true },
        Way::Rewind,
        Way::Confirm,
    ];
}

/// What may differ: the two plugins answer what clients ask here alike, and one takes more for it.
const ALLOWED: [&str; 2] = ["fuel:10x", "memory:10x"];

async fn rehearsed(
    client: &Client,
    module: Vec<u8>,
    label: &str,
    ahead: bool,
) -> Result<v1::UpgradeResponse, ClientError> {
    let replaces = client.incumbent().await?;
    let staged = client.stage(module).await?;
    let found = client
        .rehearse(v1::RehearseRequest {
            module_hash: staged.module_hash.clone(),
            allow: ALLOWED.map(str::to_owned).to_vec(),
            ..v1::RehearseRequest::default()
        })
        .await?;
    // Activated all the same if it did not pass: that must be refused.
    let request = |ahead| v1::ActivateRequest {
        module_hash: staged.module_hash.clone(),
        label: label.to_owned(),
        replaces: replaces.clone(),
        receipt: found.receipt,
        ahead,
        ..v1::ActivateRequest::default()
    };
    match client.activate(request(ahead)).await {
        // Something differed that is allowed.
        Err(_) if ahead => client.activate(request(false)).await,
        done => done,
    }
}

async fn rewind(client: &Client) -> Result<v1::UpgradeResponse, ClientError> {
    let replaces = client.incumbent().await?;
    let request = v1::ActivateRequest { replaces, rewind: true, ..v1::ActivateRequest::default() };
    client.activate(request).await
}

async fn confirm(client: &Client) -> Result<v1::UpgradeResponse, ClientError> {
    let activated_at = client.modules_now().await?.way_back.map_or(0, |way| way.activated_at);
    let confirmed = client.confirm_upgrade(activated_at).await?;
    Ok(v1::UpgradeResponse { index: confirmed.index, ..v1::UpgradeResponse::default() })
}
