//! Three nodes of either system on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::BenchArgs;
use crate::etcd;
use crate::process::Process;

/// Nodes of a cluster.
pub(crate) const NODES: u16 = 3;
/// A cluster that does not serve within this time never will.
const START_TIME: Duration = Duration::from_secs(60);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Nine ports behind each other: of raft-host, of etcd for clients, of etcd for its peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    first: u16,
}

impl Ports {
    pub(crate) fn from(first: u16) -> Ports {
        Ports { first }
    }

    fn three(self, group: u16) -> Vec<SocketAddr> {
        let first = self.first + group * NODES;
        (first..first + NODES).map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
    }

    /// Fails when somebody listens on one of them.
    pub(crate) fn are_free(self) -> Result<()> {
        for address in (0..3).flat_map(|group| self.three(group)) {
            TcpListener::bind(address).with_context(|| {
                format!("{address} cannot be listened on: choose other ports with --port")
            })?;
        }
        Ok(())
    }
}

/// A cluster that serves. Its processes end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where clients are served.
    pub(crate) addresses: Vec<SocketAddr>,
    nodes: Vec<Process>,
}

impl Cluster {
    /// Forms one of raft-host: the first node begins it, the others join.
    pub(crate) async fn of_raft_host(
        args: &BenchArgs,
        ports: Ports,
        dir: &Path,
    ) -> Result<Cluster> {
        let addresses = ports.three(0);
        let mut cluster = Cluster { addresses: addresses.clone(), nodes: Vec::new() };
        for (number, address) in addresses.iter().enumerate() {
            let mut command = Command::new(&args.raft_host);
            command.arg("--listen").arg(address.to_string());
            command.arg("--data-dir").arg(dir.join(format!("node-{number}")));
            match number {
                0 => command.arg("--plugin").arg(&args.plugin),
                _ => command.arg("--join").arg(addresses[0].to_string()),
            };
            command.stdout(Stdio::null());
            let name = format!("raft-host-{number}");
            cluster.nodes.push(Process::start(&name, dir, &mut command)?);
            // They are taken in one after the other.
            let end = Instant::now() + START_TIME;
            while voters(args, addresses[0])? <= number {
                cluster.wait_for_more(end).await?;
            }
        }
        Ok(cluster)
    }

    /// Forms one of etcd, with its own settings, durable as it is by default.
    pub(crate) async fn of_etcd(args: &BenchArgs, ports: Ports, dir: &Path) -> Result<Cluster> {
        let (clients, peers) = (ports.three(1), ports.three(2));
        let members: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(number, peer)| format!("etcd-{number}=http://{peer}"))
            .collect();
        let mut cluster = Cluster { addresses: clients.clone(), nodes: Vec::new() };
        for (number, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let name = format!("etcd-{number}");
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            let mut command = Command::new(&args.etcd);
            command.args(["--name", &name, "--initial-cluster-state", "new"]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &members.join(",")]);
            command.args(["--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr"]);
            command.arg("--data-dir").arg(dir.join(&name)).stdout(Stdio::null());
            cluster.nodes.push(Process::start(&name, dir, &mut command)?);
        }
        let end = Instant::now() + START_TIME;
        while etcd::leader_of_all(&clients).await.is_none() {
            cluster.wait_for_more(end).await?;
        }
        Ok(cluster)
    }

    async fn wait_for_more(&mut self, end: Instant) -> Result<()> {
        self.must_run()?;
        if Instant::now() >= end {
            let said: Vec<String> = self.nodes.iter().map(Process::last_words).collect();
            bail!("the cluster does not serve after {START_TIME:?}: {}", said.join("\n"));
        }
        sleep(PAUSE).await;
        Ok(())
    }

    /// Fails when a node has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Process::must_run)
    }

    /// Processor time of all nodes so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.nodes.iter().map(Process::cpu).sum()
    }
}

/// How many voters a node of raft-host tells of; none while it does not serve.
fn voters(args: &BenchArgs, node: SocketAddr) -> Result<usize> {
    let mut command = Command::new(&args.raft_host);
    command.args(["members", "-o", "json", "--timeout", "2s", "--endpoint", &node.to_string()]);
    let output = command.stdin(Stdio::null()).output().context("raft-host members")?;
    if !output.status.success() {
        return Ok(0);
    }
    let said: Value = serde_json::from_slice(&output.stdout).context("raft-host members")?;
    let members = said["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(members.iter().filter(|member| member["role"] == "voter").count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Ports::from(port.saturating_sub(4)).are_free().unwrap_err();
        // Another one of the nine may be somebody's.
        assert!(format!("{error:#}").contains("--port"), "{error:#}");
    }
}
