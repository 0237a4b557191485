//! Connections, with failures in words.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::words;

/// A connection that was dialled.
pub struct DialStream {
    kind: Kind,
    trouble: Trouble,
}

/// Why a way led nowhere last, and when: it may be that nobody tells who waits for an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<(Instant, String)>>>);

/// For so long it may be what ended a request.
const RECENT: Duration = Duration::from_secs(5);

impl Trouble {
    fn note(&self, reason: &str) {
        // Nothing panics under this lock.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), reason.to_owned()));
    }

    pub(super) fn recent(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = last.as_ref()?;
        (at.elapsed() < RECENT).then(|| reason.clone())
    }
}

enum Kind {
    Plain {
        stream: TcpStream,
        /// Something was received.
        is_greeted: bool,
    },
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    /// Nothing more comes, for a reason: how that is said, and how much of it was.
    Over {
        words: Vec<u8>,
        said: usize,
    },
}

impl std::fmt::Debug for DialStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kind {
            Kind::Plain { .. } => "DialStream(plain)",
            Kind::Tls(_) => "DialStream(TLS)",
            Kind::Unix(_) => "DialStream(unix)",
            Kind::Over { .. } => "DialStream(over)",
        })
    }
}

pub(super) async fn unix(path: &Path) -> io::Result<DialStream> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => io::Error::new(
            error.kind(),
            format!("{} is no path for a socket: at most 107 bytes", path.display()),
        ),
        kind => io::Error::new(kind, format!("{}: {error}", path.display())),
    })?;
    Ok(DialStream { kind: Kind::Unix(stream), trouble: Trouble::default() })
}

/// Speaks TLS from here on.
pub(super) async fn secure(
    tcp: TcpStream,
    host: &str,
    config: Arc<rustls::ClientConfig>,
    trouble: Trouble,
) -> io::Result<DialStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
        let words = format!("{host:?} is no name that a certificate can have");
        io::Error::new(io::ErrorKind::InvalidInput, words)
    })?;
    let handshake = TlsConnector::from(config).connect(name, tcp).await;
    let stream = handshake.map_err(|error| words::of_handshake(error, host))?;
    Ok(DialStream { kind: Kind::Tls(Box::new(stream)), trouble })
}

impl DialStream {
    pub(super) fn plain(stream: TcpStream, trouble: Trouble) -> DialStream {
        DialStream { kind: Kind::Plain { stream, is_greeted: false }, trouble }
    }

    fn end(&mut self, reason: &str) {
        self.trouble.note(reason);
        self.kind = Kind::Over { words: words::goodbye(reason), said: 0 };
    }

    /// The certificate that the other side has shown, in DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        let Kind::Tls(stream) = &self.kind else { return None };
        let chain = stream.get_ref().1.peer_certificates()?;
        chain.first().map(|certificate| &**certificate)
    }
}

impl AsyncRead for DialStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Plain { stream, is_greeted: true } => Pin::new(stream).poll_read(cx, buffer),
            Kind::Plain { stream, is_greeted } => {
                let before = buffer.filled().len();
                let read = Pin::new(stream).poll_read(cx, buffer);
                let received = &buffer.filled()[before..];
                if !words::is_of_tls(received) {
                    *is_greeted = !received.is_empty();
                    return read;
                }
                buffer.set_filled(before);
                self.end(words::SPEAKS_TLS);
                self.poll_read(cx, buffer)
            }
            Kind::Tls(stream) => match Pin::new(stream).poll_read(cx, buffer) {
                Poll::Ready(Err(error)) => match words::of_connection(&error) {
                    Some(reason) => {
                        self.end(&reason);
                        self.poll_read(cx, buffer)
                    }
                    None => Poll::Ready(Err(error)),
                },
                read => read,
            },
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Over { words, said } => {
                let part = buffer.remaining().min(words.len() - *said);
                buffer.put_slice(&words[*said..*said + part]);
                *said += part;
                Poll::Ready(Ok(()))
            }
        }
    }
}

macro_rules! passed_on {
    ($self:ident, $stream:ident => $call:expr, $else:expr) => {
        match &mut $self.kind {
            Kind::Plain { stream: $stream, .. } => $call,
            Kind::Tls($stream) => $call,
            Kind::Unix($stream) => $call,
            // Nobody is there to read it.
            Kind::Over { .. } => Poll::Ready(Ok($else)),
        }
    };
}

impl AsyncWrite for DialStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        passed_on!(self, stream => Pin::new(stream).poll_write(cx, data), data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        passed_on!(self, stream => Pin::new(stream).poll_write_vectored(cx, data), length)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Plain { stream, .. } => stream.is_write_vectored(),
            Kind::Tls(stream) => stream.is_write_vectored(),
            Kind::Unix(stream) => stream.is_write_vectored(),
            Kind::Over { .. } => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        passed_on!(self, stream => Pin::new(stream).poll_flush(cx), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        passed_on!(self, stream => Pin::new(stream).poll_shutdown(cx), ())
    }
}
