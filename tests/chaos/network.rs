//! A proxy in front of each node, and what may be wrong with the way from one node to another.
//!
//! ```text
//!   node 1 ── dials the advertised address of node 2 ──► proxy 2 ──► node 2
//!                 bytes 1→2 obey link (1,2), bytes 2→1 obey link (2,1)
//! ```
//!
//! Clients dial the nodes themselves and never meet a proxy. A cut link holds its bytes, as a
//! network that loses packets does: the sender sees nothing but silence. When it heals, either
//! what was held arrives late, or the connections are found to be broken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::owner::Pids;

/// Chunks that may be under way on a slow link.
const UNDER_WAY: usize = 256;
const CHUNK_BYTES: usize = 16 << 10;

/// The way from one node to another.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    cut: bool,
    delay: Duration,
    /// Connections that were made under another number are broken.
    resets: u64,
}

/// All links; `from` and `to` are places of nodes.
pub(super) struct Network {
    nodes: usize,
    links: Vec<watch::Sender<Link>>,
    pids: Arc<Pids>,
}

impl Network {
    pub(super) fn new(nodes: usize, pids: Arc<Pids>) -> Network {
        let links = (0..nodes * nodes).map(|_| watch::Sender::new(Link::default())).collect();
        Network { nodes, links, pids }
    }

    fn link(&self, from: usize, to: usize) -> &watch::Sender<Link> {
        &self.links[from * self.nodes + to]
    }

    /// Holds what `from` sends to `to`.
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.link(from, to).send_modify(|link| link.cut = true);
    }

    /// Delays what `from` sends to `to`.
    pub(super) fn delay(&self, from: usize, to: usize, delay: Duration) {
        self.link(from, to).send_modify(|link| link.delay = delay);
    }

    /// Makes all links good. `broken`: what was held is lost with its connection.
    pub(super) fn heal(&self, broken: bool) {
        for link in &self.links {
            link.send_modify(|link| {
                link.resets += u64::from(broken && link.cut);
                link.cut = false;
                link.delay = Duration::ZERO;
            });
        }
    }

    /// Takes what is dialled to the node at `to`, which listens at `upstream`. Runs until it is
    /// dropped.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        to: usize,
        upstream: SocketAddr,
    ) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(Arc::clone(&self).carry(stream, to, upstream));
                    }
                    // Such as too many open files: passes, or the run fails by itself.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }

    /// Carries one connection to its end, whichever side or fault ends it.
    async fn carry(self: Arc<Self>, dialler: TcpStream, to: usize, upstream: SocketAddr) {
        let Some(from) = self.dialled_by(&dialler).await else { return };
        let mut there = self.link(from, to).subscribe();
        let mut back = self.link(to, from).subscribe();
        // Neither would a connection come about over a cut link.
        if !open(&mut there).await || !open(&mut back).await {
            return;
        }
        let Ok(node) = TcpStream::connect(upstream).await else { return };
        // Latency only.
        let _ = (dialler.set_nodelay(true), node.set_nodelay(true));
        let (dialler_in, dialler_out) = dialler.into_split();
        let (node_in, node_out) = node.into_split();
        tokio::select! {
            () = pump(dialler_in, node_out, there.clone()) => {}
            () = pump(node_in, dialler_out, back.clone()) => {}
            () = broken(there) => {}
            () = broken(back) => {}
        }
    }

    async fn dialled_by(&self, stream: &TcpStream) -> Option<usize> {
        let (dialler, dialled) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        let pids = Arc::clone(&self.pids);
        tokio::task::spawn_blocking(move || pids.owner(dialler, dialled)).await.ok()?
    }
}

/// Waits until the link is not cut; false if there is no network any more.
async fn open(link: &mut watch::Receiver<Link>) -> bool {
    link.wait_for(|link| !link.cut).await.is_ok()
}

async fn broken(mut link: watch::Receiver<Link>) {
    let made_under = link.borrow().resets;
    // An error means that the network is gone, which is as final.
    let _ = link.wait_for(|link| link.resets != made_under).await;
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    link: watch::Receiver<Link>,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading_link = link.clone();
    let reading = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            let arrives = Instant::now() + reading_link.borrow().delay;
            if sender.send((arrives, chunk)).await.is_err() {
                return;
            }
        }
    };
    let mut writing_link = link;
    let writing = async move {
        while let Some((arrives, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(arrives).await;
            if !open(&mut writing_link).await || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    // The end of the input closes the channel, and the output ends when that is empty.
    let reading = async {
        reading.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network of two nodes, both this process: what it dials comes from the first one.
    /// The second one echoes.
    async fn two_nodes() -> (Arc<Network>, TcpStream, tokio::task::JoinSet<()>) {
        let pids = Arc::new(Pids::new(2));
        pids.set(0, std::process::id());
        let network = Arc::new(Network::new(2, pids));
        let node = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let proxy = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let advertised = proxy.local_addr().expect("bound");
        let upstream = node.local_addr().expect("bound");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&network).serve(proxy, 1, upstream));
        tasks.spawn(async move {
            let (mut stream, _) = node.accept().await.expect("the proxy dials");
            let (mut from, mut to) = stream.split();
            // Ends when the connection does.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let stream = TcpStream::connect(advertised).await.expect("the proxy listens");
        (network, stream, tasks)
    }

    async fn echo(stream: &mut TcpStream, text: &[u8]) {
        stream.write_all(text).await.expect("connected");
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await.expect("it comes back");
        assert_eq!(heard, text);
    }

    #[tokio::test]
    async fn what_a_cut_link_held_arrives_when_it_heals() {
        let (network, mut stream, _tasks) = two_nodes().await;
        echo(&mut stream, b"before").await;
        network.cut(0, 1);
        stream.write_all(b"held").await.expect("the sender notices nothing");
        network.heal(false);
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.expect("late");
        assert_eq!(&heard, b"held");
    }

    #[tokio::test]
    async fn connections_over_a_link_that_was_cut_can_be_found_broken() {
        let (network, mut stream, _tasks) = two_nodes().await;
        echo(&mut stream, b"before").await;
        // Only the way back.
        network.cut(1, 0);
        stream.write_all(b"lost").await.expect("the sender notices nothing");
        network.heal(true);
        let mut heard = Vec::new();
        // The end may come as an error or as an end.
        let _ = stream.read_to_end(&mut heard).await;
        assert!(heard.is_empty() || heard == b"lost", "{heard:?}");
    }

    #[tokio::test]
    async fn a_slow_link_keeps_the_order() {
        let (network, mut stream, _tasks) = two_nodes().await;
        network.delay(0, 1, Duration::from_millis(5));
        for text in [b"one".as_slice(), b"two", b"three"] {
            echo(&mut stream, text).await;
        }
    }
}
