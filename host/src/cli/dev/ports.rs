//! Where the nodes listen: a block of ports that no other session of dev on this machine has.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use tokio::net::TcpSocket;

use super::line::NODES;

/// Where blocks begin: the first one has the port that every command tries unless it is told
/// another. All are below the ports that outgoing connections get, so that those of a killed node
/// stay free.
const FIRST: u16 = 7400;
const STEP: u16 = 10;
const BLOCKS: u16 = 200;
/// Within a block.
const NODE_PORTS: [u16; NODES] = [0, 2, 3];
/// Bound by a session for as long as it lasts, and never listened on: the block is taken, also
/// when its nodes do not run.
const GUARD_PORT: u16 = 4;
/// Where the nodes of an earlier session listened: members keep their addresses.
const FILE: &str = "addresses";

/// A block of ports. Another session gets it when this is dropped.
pub(super) struct Ports {
    pub(super) addresses: Vec<String>,
    _guard: TcpSocket,
}

impl Ports {
    /// Those of an earlier session on this folder, or the first block that is free.
    pub(super) fn take(dir: &Path) -> anyhow::Result<Ports> {
        let file = dir.join(FILE);
        let shown = file.display();
        if file.exists() {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {shown}"))?;
            return Ports::again(&text).with_context(|| format!("{shown} cannot be used"));
        }
        let mut blocks = (0..BLOCKS).map(|block| FIRST + block * STEP);
        let ports = blocks.find_map(free).ok_or_else(|| {
            let last = FIRST + BLOCKS * STEP;
            anyhow!("no three ports from {FIRST} to {last} are free for the nodes")
        })?;
        fs::write(&file, ports.addresses.join("\n") + "\n")
            .with_context(|| format!("writing {shown}"))?;
        Ok(ports)
    }

    fn again(text: &str) -> anyhow::Result<Ports> {
        let addresses: Vec<String> = text.lines().map(str::to_owned).collect();
        let first = addresses.first().and_then(|first| first.parse::<SocketAddr>().ok());
        let Some(first) = first.filter(|_| addresses.len() == NODES) else {
            bail!("it must hold {NODES} addresses, one on a line");
        };
        let guard = first.port().saturating_add(GUARD_PORT);
        let guard = bound(guard).with_context(|| {
            format!(
                "the ports around {first} are in use by another raft-host dev: end that one, or \
                 take another --data-dir"
            )
        })?;
        Ok(Ports { addresses, _guard: guard })
    }
}

/// A port that is taken and refuses connections.
fn bound(port: u16) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    Ok(socket)
}

/// A block, if all of it is free.
fn free(block: u16) -> Option<Ports> {
    let guard = bound(block + GUARD_PORT).ok()?;
    let address = |port: &u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], block + port));
        TcpListener::bind(address).is_ok().then(|| address.to_string())
    };
    let addresses = NODE_PORTS.iter().map(address).collect::<Option<_>>()?;
    Some(Ports { addresses, _guard: guard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_sessions_have_different_ports_and_a_folder_keeps_its_own() {
        let (one, two) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let first = Ports::take(one.path()).expect("free ports");
        let second = Ports::take(two.path()).expect("free ports");
        assert!(first.addresses.iter().all(|address| !second.addresses.contains(address)));
        let error = Ports::take(one.path()).err().expect("in use");
        assert!(format!("{error:#}").contains("in use"), "{error:#}");
        let addresses = first.addresses.clone();
        drop(first);
        let again = Ports::take(one.path()).expect("its own ports");
        assert_eq!(again.addresses, addresses);
        std::fs::write(two.path().join(FILE), "nonsense\n").expect("written");
        let error = Ports::take(two.path()).err().expect("nonsense");
        assert!(format!("{error:#}").contains("3 addresses"), "{error:#}");
    }
}
