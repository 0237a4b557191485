//! Accepted connections that can be ended from outside, whatever their calls do, and that are
//! counted ([`super::connections`]).
//!
//! Where TLS is spoken, each has its handshake in a task of its own, which is counted as a connection from its
//! start, is given little time, and makes room for newer ones when there are too many.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::connections::{Place, Registration, Table};
use crate::certs::{Subject, subject_of};
use crate::tls::{Face, HandshakeFailure, Shaken, Tls};

/// Where a node is listened for.
#[derive(Debug)]
pub struct Sockets {
    /// The port of clients, and of other nodes unless they have one of their own.
    pub clients: TcpListener,
    /// The port of other nodes.
    pub peers: Option<TcpListener>,
    /// The socket of whoever may use this machine as the node's user does.
    pub local: Option<UnixListener>,
}

impl From<TcpListener> for Sockets {
    fn from(clients: TcpListener) -> Sockets {
        Sockets { clients, peers: None, local: None }
    }
}

/// By which way somebody came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// The port for everybody.
    Common,
    /// The port of clients, where other nodes have one of their own.
    Clients,
    /// That one.
    Peers,
    /// The socket on this machine.
    Local,
}

/// What a connection has proved about who is at its other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// Whom the certificate belongs to that was shown and verified, if one was.
    pub certificate: Option<Subject>,
    /// It came in by the Unix socket: whoever is there may read the node's files, too.
    pub is_unix: bool,
    /// Where it comes from, if from a network.
    pub address: Option<SocketAddr>,
    /// Nobody in between can read or change what is said: TLS, or the Unix socket.
    pub secured: bool,
    /// It says that it is a node that has no certificate yet, and was asked for none.
    pub is_newcomer: bool,
}

/// A connection that fails when its token is cancelled.
pub(super) struct Connection {
    stream: Wire,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    registration: Registration,
    presented: Arc<Presented>,
    entrance: Entrance,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Local(UnixStream),
}

/// What the calls of a connection know of it.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) place: Arc<Place>,
    pub(super) presented: Arc<Presented>,
    pub(super) entrance: Entrance,
}

impl Presented {
    /// Whether a request may be one that another node passes on. Where nodes show certificates, nobody else is
    /// believed.
    pub(super) fn may_pass_on(&self) -> bool {
        !self.secured || matches!(self.certificate, Some(Subject::Node { .. }))
    }
}

/// Pause after a failed accept: usually there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Failed accepts are reported at most this often.
const REPORT: Duration = Duration::from_secs(10);
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Handshakes at once. When there are more the oldest ends: one that is done by a willing client is quick.
const HANDSHAKES_MAX: usize = 256;
/// How long somebody who speaks no TLS is given to read why that ends here.
const LAST_WORDS_TIME: Duration = Duration::from_millis(200);
/// The first byte of TLS: a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// TLS's "unexpected message", and fatal.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];

/// Accepts for ever; what fails for one connection, or for a while, ends nothing.
pub(super) fn accept(
    sockets: impl Into<Sockets>,
    table: Arc<Table>,
    kill: CancellationToken,
    tls: Option<Arc<Tls>>,
) -> impl Stream<Item = io::Result<Connection>> {
    let acceptor = Acceptor::new(sockets.into(), table, kill, tls, Face::Grpc);
    futures::stream::unfold(acceptor, |mut acceptor| async move {
        Some((Ok(acceptor.next().await), acceptor))
    })
}

/// See [`accept`].
pub(super) struct Acceptor {
    sockets: Sockets,
    table: Arc<Table>,
    kill: CancellationToken,
    tls: Option<(Arc<Tls>, Face)>,
    handshakes: JoinSet<Option<Connection>>,
    /// The same, oldest first; some may be done.
    under_way: VecDeque<AbortHandle>,
    reported: Option<Instant>,
}

impl Acceptor {
    pub(super) fn new(
        sockets: Sockets,
        table: Arc<Table>,
        kill: CancellationToken,
        tls: Option<Arc<Tls>>,
        face: Face,
    ) -> Acceptor {
        Acceptor {
            sockets,
            table,
            kill,
            tls: tls.map(|tls| (tls, face)),
            handshakes: JoinSet::new(),
            under_way: VecDeque::new(),
            reported: None,
        }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets.clients.local_addr()
    }

    /// The next connection that there is a place for.
    pub(super) async fn next(&mut self) -> Connection {
        loop {
            let accepted = tokio::select! {
                accepted = self.sockets.accept() => accepted,
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(connection)) => return connection,
                    Ok(None) => continue,
                    Err(_) => {
                        // It made room for a newer one.
                        self.note_failure(HandshakeFailure::Timeout);
                        continue;
                    }
                },
            };
            let error = match accepted {
                Ok((wire, presented, entrance)) => match self.take_in(wire, presented, entrance) {
                    Some(connection) => return connection,
                    None => continue,
                },
                Err(error) => error,
            };
            let now = Instant::now();
            if self.reported.is_none_or(|at| now.duration_since(at) >= REPORT) {
                self.reported = Some(now);
                tracing::warn!(%error, "accepting a connection failed; going on");
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    /// `None`: there is no place for it, or it has yet to shake hands.
    fn take_in(
        &mut self,
        wire: Wire,
        presented: Presented,
        entrance: Entrance,
    ) -> Option<Connection> {
        if let Wire::Plain(stream) = &wire
            && let Err(error) = stream.set_nodelay(true)
        {
            tracing::debug!(%error, "a connection ended before it was served");
            return None;
        }
        let from = presented.address.map(|address| address.ip());
        let registration = self.table.register(&self.kill, from, Instant::now())?;
        match (wire, &self.tls) {
            (Wire::Plain(stream), Some((tls, face))) => {
                let greeting = Greeting {
                    tls: Arc::clone(tls),
                    face: *face,
                    registration,
                    presented,
                    entrance,
                };
                self.make_room();
                self.under_way.push_back(self.handshakes.spawn(greeting.shake_hands(stream)));
                None
            }
            (wire, _) => Some(Connection::new(wire, registration, presented, entrance)),
        }
    }

    fn make_room(&mut self) {
        if self.under_way.len() >= HANDSHAKES_MAX {
            self.under_way.retain(|task| !task.is_finished());
        }
        if self.under_way.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.under_way.pop_front()
        {
            oldest.abort();
        }
    }

    fn note_failure(&self, failure: HandshakeFailure) {
        if let Some((tls, _)) = &self.tls {
            tls.note_failure(failure);
        }
    }
}

impl Sockets {
    async fn accept(&self) -> io::Result<(Wire, Presented, Entrance)> {
        let of_network = |(stream, address), entrance| {
            let presented = Presented { address: Some(address), ..Presented::default() };
            (Wire::Plain(stream), presented, entrance)
        };
        let Sockets { clients, peers, local } = self;
        if peers.is_none() && local.is_none() {
            return Ok(of_network(clients.accept().await?, Entrance::Common));
        }
        let of_peers = async {
            match peers {
                Some(peers) => peers.accept().await,
                None => std::future::pending().await,
            }
        };
        let of_this_machine = async {
            match local {
                Some(local) => local.accept().await,
                None => std::future::pending().await,
            }
        };
        let entrance = if peers.is_some() { Entrance::Clients } else { Entrance::Common };
        tokio::select! {
            accepted = clients.accept() => Ok(of_network(accepted?, entrance)),
            accepted = of_peers => Ok(of_network(accepted?, Entrance::Peers)),
            accepted = of_this_machine => {
                let (stream, _) = accepted?;
                let presented =
                    Presented { is_unix: true, secured: true, ..Presented::default() };
                Ok((Wire::Local(stream), presented, Entrance::Local))
            }
        }
    }
}

/// A handshake.
struct Greeting {
    tls: Arc<Tls>,
    face: Face,
    registration: Registration,
    presented: Presented,
    entrance: Entrance,
}

impl Greeting {
    async fn shake_hands(self, stream: TcpStream) -> Option<Connection> {
        let killed = self.registration.place.kill.clone();
        let greeting = async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(1) if first[0] == TLS_HANDSHAKE => {}
                Ok(1) => {
                    tell_that_this_is_tls(stream, self.face).await;
                    return Err(HandshakeFailure::NotTls);
                }
                _ => return Err(HandshakeFailure::Gone),
            }
            match self.tls.shake_hands(self.face, stream).await {
                Ok(shaken) => Ok(shaken),
                Err((error, stream)) => {
                    let address = self.presented.address.map(tracing::field::display);
                    tracing::debug!(address, %error, "a TLS handshake failed");
                    // The alert that says why has been written.
                    if let Some(stream) = stream {
                        part_with(stream, &[]).await;
                    }
                    Err(HandshakeFailure::of(&error))
                }
            }
        };
        let shaken = tokio::select! {
            () = killed.cancelled() => Err(HandshakeFailure::Timeout),
            shaken = tokio::time::timeout(HANDSHAKE_TIME, greeting) => {
                shaken.unwrap_or(Err(HandshakeFailure::Timeout))
            }
        };
        let shaken = shaken.inspect_err(|failure| self.tls.note_failure(*failure)).ok()?;
        let Shaken { stream, is_newcomer } = shaken;
        self.tls.note_handshake();
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        // The verifier has read it already, and takes none that cannot be read.
        let certificate = shown.and_then(|shown| subject_of(shown).ok().flatten());
        let presented = Presented { certificate, secured: true, is_newcomer, ..self.presented };
        let wire = Wire::Tls(Box::new(stream));
        Some(Connection::new(wire, self.registration, presented, self.entrance))
    }
}

/// Says it in a way that whoever speaks no TLS understands, and waits until that has arrived.
async fn tell_that_this_is_tls(stream: TcpStream, face: Face) {
    let words: &[u8] = match face {
        Face::Grpc => &ALERT,
        Face::Http => {
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 43\r\nconnection: \
              close\r\n\r\nthis port speaks TLS: ask it with https://\n"
        }
    };
    part_with(stream, words).await;
}

/// Ends a connection so that its last words arrive.
async fn part_with(mut stream: TcpStream, words: &[u8]) {
    let telling = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        // What has come is taken: to close with something unread would take the words back.
        let mut taken = [0; 1024];
        while stream.read(&mut taken).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whoever is gone does not want to know.
    let _ = tokio::time::timeout(LAST_WORDS_TIME, telling).await;
}

impl Connection {
    fn new(
        stream: Wire,
        registration: Registration,
        presented: Presented,
        entrance: Entrance,
    ) -> Connection {
        let killed = Box::pin(registration.place.kill.clone().cancelled_owned());
        Connection { stream, killed, registration, presented: Arc::new(presented), entrance }
    }

    /// Whom it comes from; the unspecified address when it comes from no network.
    pub(super) fn peer_address(&self) -> SocketAddr {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        self.presented.address.unwrap_or(unspecified)
    }

    /// What it has proved about who is at its other end.
    pub(super) fn presented(&self) -> Presented {
        *self.presented
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.killed.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended it"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

macro_rules! on_wire {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Wire::Plain($stream) => $call,
            Wire::Tls($stream) => $call,
            Wire::Local($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = on_wire!(self, stream => Pin::new(stream).poll_read(cx, buffer));
        self.registration.place.receive(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        on_wire!(self, stream => Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        on_wire!(self, stream => Pin::new(stream).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
            Wire::Local(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        on_wire!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller {
            place: Arc::clone(&self.registration.place),
            presented: Arc::clone(&self.presented),
            entrance: self.entrance,
        }
    }
}
