//! Accepted connections that can be ended from outside, whatever their calls do, and that are
//! counted ([`super::connections`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::connections::{Place, Registration, Table};

/// A connection that fails when its token is cancelled.
pub(super) struct Connection {
    stream: TcpStream,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    registration: Registration,
}

/// What the calls of a connection know of it.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Arc<Place>);

/// Pause after a failed accept: usually there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Failed accepts are reported at most this often.
const REPORT: Duration = Duration::from_secs(10);

/// Accepts for ever; what fails for one connection, or for a while, ends nothing.
pub(super) fn accept(
    listener: TcpListener,
    table: Arc<Table>,
    kill: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    futures::stream::unfold(Acceptor::new(listener, table, kill), |mut acceptor| async move {
        Some((Ok(acceptor.next().await), acceptor))
    })
}

/// See [`accept`].
pub(super) struct Acceptor {
    listener: TcpListener,
    table: Arc<Table>,
    kill: CancellationToken,
    reported: Option<Instant>,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        table: Arc<Table>,
        kill: CancellationToken,
    ) -> Acceptor {
        Acceptor { listener, table, kill, reported: None }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection that there is a place for.
    pub(super) async fn next(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection ended before it was served");
                        continue;
                    }
                    let from = Some(from.ip());
                    let registration = self.table.register(&self.kill, from, Instant::now());
                    let Some(registration) = registration else { continue };
                    let killed = Box::pin(registration.place.kill.clone().cancelled_owned());
                    return Connection { stream, killed, registration };
                }
                Err(error) => {
                    let now = Instant::now();
                    if self.reported.is_none_or(|at| now.duration_since(at) >= REPORT) {
                        self.reported = Some(now);
                        tracing::warn!(%error, "accepting a connection failed; going on");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Connection {
    /// Whom it comes from; the unspecified address when the socket is gone already.
    pub(super) fn peer_address(&self) -> SocketAddr {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        self.stream.peer_addr().unwrap_or(unspecified)
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

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
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
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller(Arc::clone(&self.registration.place))
    }
}
