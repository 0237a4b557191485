//! Three servers in this process, each with its own port, files and Raft log: what three
//! machines would run, without the network between them failing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use raft_host_proto::client::{Client, ClientOptions};
use tokio::time::Instant;

use super::line::NODES;
use super::ports::Ports;
use crate::config::Config;
use crate::consensus::Role;
use crate::machine::ActiveModule;
use crate::server::{self, Join, RunningServer, ServeError, Startup};
use crate::storage::DataDir;
use crate::types::{Index, NodeId};
use crate::wasm::CompiledModules;

/// How long forming the cluster may take.
const FORMING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// How long a revived node is waited for.
const CATCHING_UP: Duration = Duration::from_secs(5);
/// How long a command may take; a person waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every node checks and compiles a new version first.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(60);

/// The nodes, running or not.
pub(super) struct Cluster {
    nodes: Vec<Slot>,
    pub(super) client: Client,
    modules: CompiledModules,
    /// Taken until the nodes have ended.
    _ports: Ports,
}

struct Slot {
    config: Config,
    server: Option<RunningServer>,
}

/// What `:status` says of a node.
pub(super) struct NodeFacts {
    pub(super) number: usize,
    pub(super) address: String,
    pub(super) role: &'static str,
    pub(super) applied: Option<Index>,
}

/// Whether an earlier session has left a cluster there.
pub(super) fn exists(dir: &Path) -> bool {
    DataDir::is_some_nodes(&home(dir, 1))
}

fn home(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("node-{number}"))
}

/// Why there is no cluster.
pub(super) enum NoCluster {
    /// The nodes do not take the module; another one may do.
    Refused(String),
    /// No module helps.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for NoCluster {
    fn from(error: anyhow::Error) -> NoCluster {
        NoCluster::Broken(error)
    }
}

impl Cluster {
    /// Forms a cluster that runs a module, in a folder that holds none. If that fails, nothing
    /// is left of it.
    pub(super) async fn form(
        dir: &Path,
        name: &str,
        module: &[u8],
        modules: &CompiledModules,
    ) -> Result<Cluster, NoCluster> {
        // The nodes call it by the name of its file.
        let plugin = dir.join(format!("{name}.wasm"));
        tokio::fs::write(&plugin, module)
            .await
            .with_context(|| format!("writing {}", plugin.display()))?;
        let formed = Cluster::start(dir, Some(&plugin), modules).await;
        if formed.is_err() {
            for number in 1..=NODES {
                clear(&home(dir, number))?;
            }
        }
        formed
    }

    /// Goes on with the cluster that an earlier session left.
    pub(super) async fn resume(dir: &Path, modules: &CompiledModules) -> anyhow::Result<Cluster> {
        Cluster::start(dir, None, modules).await.map_err(|why| match why {
            NoCluster::Refused(reason) => anyhow!(reason),
            NoCluster::Broken(error) => error,
        })
    }

    async fn start(
        dir: &Path,
        plugin: Option<&Path>,
        modules: &CompiledModules,
    ) -> Result<Cluster, NoCluster> {
        let ports = Ports::take(dir)?;
        let addresses = ports.addresses.clone();
        let options = ClientOptions {
            deadline: PATIENCE,
            attempt_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_millis(500),
            admin_deadline: UPGRADE_PATIENCE,
            ..ClientOptions::default()
        };
        let client = Client::connect(&addresses, options).map_err(anyhow::Error::from)?;
        let mut cluster =
            Cluster { nodes: Vec::new(), client, modules: modules.clone(), _ports: ports };
        match cluster.start_nodes(dir, plugin, &addresses).await {
            Ok(()) => Ok(cluster),
            Err(why) => {
                cluster.stop().await;
                Err(why)
            }
        }
    }

    async fn start_nodes(
        &mut self,
        dir: &Path,
        plugin: Option<&Path>,
        addresses: &[String],
    ) -> Result<(), NoCluster> {
        for (number, address) in (1..).zip(addresses) {
            let config = node_config(home(dir, number), address);
            let modules = self.modules.clone();
            let startup = if DataDir::is_some_nodes(&config.data_dir) {
                Startup { modules, ..Startup::default() }
            } else if number == 1 {
                Startup { plugin: plugin.map(Path::to_owned), modules, ..Startup::default() }
            } else {
                let seeds = addresses[..number - 1].to_vec();
                let node_id = Some(NodeId(number as u64));
                let join = Some(Join { seeds, learner: false, node_id, ticket: None });
                Startup { join, modules, ..Startup::default() }
            };
            let started = server::start(config.clone(), startup).await;
            let server = started.map_err(|error| told(number, &config, error))?;
            self.nodes.push(Slot { config, server: Some(server) });
        }
        Ok(self.until_complete().await?)
    }

    /// Waits until all nodes vote and a leader is known.
    async fn until_complete(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + FORMING;
        let complete = |slot: &Slot| {
            slot.server.as_ref().is_some_and(|server| {
                let handle = server.handle();
                let machine = handle.machine();
                let view = machine.borrow();
                let voters = view.as_ref().map_or(0, |view| view.conf_state.voters.len());
                voters == NODES && handle.leadership().borrow().leader.is_some()
            })
        };
        while !self.nodes.iter().all(complete) {
            if Instant::now() > deadline {
                bail!("the three nodes did not form a cluster within {FORMING:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub(super) fn addresses(&self) -> Vec<&str> {
        self.nodes.iter().map(|slot| slot.config.listen.as_str()).collect()
    }

    pub(super) fn is_alive(&self, number: usize) -> bool {
        self.nodes[number - 1].server.is_some()
    }

    pub(super) fn alive(&self) -> usize {
        self.nodes.iter().filter(|slot| slot.server.is_some()).count()
    }

    pub(super) fn has_quorum(&self) -> bool {
        self.alive() > NODES / 2
    }

    /// Stops a node without handing over, finishing or flushing anything.
    pub(super) async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let server = self.nodes[number - 1].server.take();
        server.with_context(|| format!("node {number} does not run"))?.kill().await;
        Ok(())
    }

    /// Starts a node from what is on its disk. Returns the index up to which it has caught up,
    /// if it has within a moment.
    pub(super) async fn revive(&mut self, number: usize) -> anyhow::Result<Option<Index>> {
        let slot = &mut self.nodes[number - 1];
        if slot.server.is_some() {
            bail!("node {number} runs");
        }
        let startup = Startup { modules: self.modules.clone(), ..Startup::default() };
        let started = server::start(slot.config.clone(), startup).await;
        let server = started.map_err(|error| match told(number, &slot.config, error) {
            NoCluster::Refused(reason) => anyhow!(reason),
            NoCluster::Broken(error) => error,
        })?;
        let mut machine = server.handle().machine();
        slot.server = Some(server);
        let Some(goal) = self.facts().into_iter().filter_map(|node| node.applied).max() else {
            return Ok(None);
        };
        let caught_up =
            machine.wait_for(|view| view.as_ref().is_some_and(|view| view.info.applied >= goal));
        let in_time = tokio::time::timeout(CATCHING_UP, caught_up).await;
        Ok(matches!(in_time, Ok(Ok(_))).then_some(goal))
    }

    /// A node that stopped by itself is not alive any more: says which, and why.
    pub(super) async fn reap(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for (number, slot) in (1..).zip(&mut self.nodes) {
            let gone = slot
                .server
                .as_ref()
                .is_some_and(|server| server.handle().stopped().borrow().is_some());
            if gone && let Some(server) = slot.server.take() {
                said.push(format!("node {number} has stopped: {:?}", server.shutdown().await));
            }
        }
        said
    }

    pub(super) fn facts(&self) -> Vec<NodeFacts> {
        let slots = (1..).zip(&self.nodes);
        slots
            .map(|(number, slot)| {
                let address = slot.config.listen.clone();
                let Some(server) = &slot.server else {
                    return NodeFacts { number, address, role: "killed", applied: None };
                };
                let handle = server.handle();
                let role = match handle.leadership().borrow().role {
                    Role::Leader => "leader",
                    Role::Follower => "follower",
                    _ => "candidate",
                };
                let applied = handle.machine().borrow().as_ref().map(|view| view.info.applied);
                NodeFacts { number, address, role, applied }
            })
            .collect()
    }

    /// The version that runs, as the node that is furthest knows it.
    pub(super) fn active(&self) -> Option<ActiveModule> {
        let servers = self.nodes.iter().filter_map(|slot| slot.server.as_ref());
        let views = servers.filter_map(|server| server.handle().machine().borrow().clone());
        views.max_by_key(|view| view.info.applied)?.info.active.clone()
    }

    /// The same in words.
    pub(super) fn version(&self) -> Option<String> {
        let active = self.active()?;
        let (label, hash) = (&active.label, active.hash.short());
        Some(format!("{label} {hash}, since index {}", active.activated_at))
    }

    /// Stops all nodes in order.
    pub(super) async fn stop(self) {
        let servers = self.nodes.into_iter().filter_map(|slot| slot.server);
        // The reason is that they were asked to.
        let _ = futures::future::join_all(servers.map(RunningServer::shutdown)).await;
    }
}

fn node_config(data_dir: PathBuf, address: &str) -> Config {
    let mut config = Config { data_dir, listen: address.to_owned(), ..Config::default() };
    // Faster than the defaults: everybody is on this machine, and a person waits.
    config.node.heartbeat_ms = 50;
    config.node.election_ms = 500;
    config.node.drain_ms = 1_000;
    config
}

/// What a server says when it does not start, in the words of dev.
fn told(number: usize, config: &Config, error: ServeError) -> NoCluster {
    match error {
        ServeError::PluginRefused { reason, .. }
        | ServeError::PluginNotActivated { reason, .. } => NoCluster::Refused(reason),
        ServeError::AddressInUse { address, .. } => NoCluster::Broken(anyhow!(
            "the address {address} is in use, and node {number} in {} has no other: end what \
             listens there (another raft-host dev?), or take another --data-dir",
            config.data_dir.display()
        )),
        error => NoCluster::Broken(anyhow!("node {number} does not start: {error}")),
    }
}

fn clear(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}
