//! The one way in which connections are made: by clients, by the command line, and by nodes to each other.
//!
//! ```text
//!   address ─► Target ─► TCP │ Unix socket ─► TLS, where it is spoken ─► whoever was wanted? ─► a channel
//! ```
//!
//! An address is `HOST:PORT`, the same behind `http://` (no TLS) or `https://` (TLS), or `unix:PATH`. Without
//! a scheme TLS is spoken when the dialer has what that takes. Names are resolved for each connection anew.

mod bearer;
mod stream;
mod target;
mod tls;
mod words;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

pub use self::bearer::{Authorized, Bearer, TokenError};
pub use self::stream::DialStream;
use self::stream::Trouble;
pub use self::target::{BadAddress, Target};
pub use self::tls::{
    ClientTls, Pem, TlsError, TlsSource, certificates, cryptography, private_key, roots,
};

/// Whether the node that was reached, by its certificate in DER, is the one that was wanted; a sentence if not.
pub type CertificateCheck = dyn Fn(&[u8]) -> Result<(), String> + Send + Sync;

/// Makes connections. Clones share what they know.
#[derive(Clone, Default)]
pub struct Dialer {
    tls: Option<Arc<TlsSource>>,
    check: Option<Arc<CertificateCheck>>,
}

/// When the next address of a name is tried beside the one before.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("speaks_tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Dialer {
    /// One that speaks no TLS.
    pub fn plain() -> Dialer {
        Dialer::default()
    }

    /// One that speaks TLS.
    pub fn secured(tls: Arc<TlsSource>) -> Dialer {
        Dialer { tls: Some(tls), check: None }
    }

    /// One that goes by what a client was told.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn of(tls: Option<&ClientTls>) -> Result<Dialer, TlsError> {
        let source = tls.map(TlsSource::of_files).transpose()?;
        Ok(Dialer { tls: source.map(Arc::new), check: None })
    }

    /// The same, for a node that must be a certain one. Asked where TLS is spoken.
    #[must_use]
    pub fn checking(&self, check: Arc<CertificateCheck>) -> Dialer {
        Dialer { tls: self.tls.clone(), check: Some(check) }
    }

    /// Whether it speaks TLS to an address without a scheme.
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// News of what TLS takes; never any from a dialer that has no way to hear of it.
    pub fn news(&self) -> Option<watch::Receiver<u64>> {
        self.tls.as_ref().and_then(|tls| tls.news())
    }

    /// The way to an address.
    ///
    /// # Errors
    /// It is none, or asks for TLS where the dialer has nothing for that.
    pub fn way(&self, address: &str) -> Result<Way, BadAddress> {
        let mut target: Target = address.parse()?;
        if let Target::Tcp { tls, .. } = &mut target {
            match (*tls, &self.tls) {
                (Some(true), None) => return Err(BadAddress::tls_unprepared(address)),
                (None, source) => *tls = Some(source.is_some()),
                _ => {}
            }
        }
        let endpoint = Endpoint::from_shared(target.uri())
            .map_err(|error| BadAddress::new(address, error.to_string()))?;
        let trouble = Trouble::default();
        Ok(Way { endpoint, connector: Connector { dialer: self.clone(), target, trouble } })
    }

    async fn dial(self, target: Target, trouble: Trouble) -> io::Result<DialStream> {
        let (host, port, tls) = match target {
            Target::Unix(path) => return stream::unix(&path).await,
            Target::Tcp { host, port, tls } => (host, port, tls),
        };
        let tcp = connect(&host, port).await?;
        tcp.set_nodelay(true)?;
        let Some(source) = self.tls.filter(|_| tls != Some(false)) else {
            return Ok(DialStream::plain(tcp, trouble));
        };
        let stream = stream::secure(tcp, &host, source.current()?, trouble).await?;
        if let Some(check) = &self.check {
            let certificate = stream.certificate().unwrap_or_default();
            check(certificate).map_err(io::Error::other)?;
        }
        Ok(stream)
    }
}

/// To the first address of a host that answers. The others have their turn when it takes long.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = tokio::net::lookup_host((bare, port)).await?.peekable();
    let (mut attempts, mut failure) = (FuturesUnordered::new(), None);
    loop {
        match addresses.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => {
                let nobody = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(failure.unwrap_or_else(nobody));
            }
            None => {}
        }
        let has_more = addresses.peek().is_some();
        tokio::select! {
            Some(done) = attempts.next() => match done {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(error),
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if has_more => {}
        }
    }
}

/// The way to one address.
#[derive(Clone, Debug)]
pub struct Way {
    endpoint: Endpoint,
    connector: Connector,
}

impl Way {
    /// Changes how connections are used.
    #[must_use]
    pub fn tuned(self, tune: impl FnOnce(Endpoint) -> Endpoint) -> Way {
        Way { endpoint: tune(self.endpoint), connector: self.connector }
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.connector.target
    }

    /// A channel that connects when it is used, and again after it broke. Inside of a runtime only.
    pub fn connect_lazy(&self) -> Channel {
        self.endpoint.connect_with_connector_lazy(self.connector.clone())
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody is there, or somebody else, or the two do not trust each other.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        self.endpoint.connect_with_connector(self.connector.clone()).await
    }

    /// Why a connection on this way ended a moment ago, if that is known: a request that was on its way then is
    /// told at best that there is none.
    pub fn trouble(&self) -> Option<String> {
        self.connector.trouble.recent()
    }

    /// A bare connection, on which anything may be said.
    ///
    /// # Errors
    /// As [`Way::connect`].
    pub async fn open(&self) -> io::Result<DialStream> {
        let Connector { dialer, target, trouble } = self.connector.clone();
        dialer.dial(target, trouble).await
    }

    /// Whether something listens there: a connection, and no more.
    ///
    /// # Errors
    /// Nothing does.
    pub async fn knock(&self) -> io::Result<()> {
        match &self.connector.target {
            Target::Unix(path) => stream::unix(path).await.map(drop),
            Target::Tcp { host, port, .. } => connect(host, *port).await.map(drop),
        }
    }

    /// What shows a token there.
    ///
    /// # Errors
    /// The way is not safe for one.
    pub fn bearer(&self, token: Option<&crate::Secret>) -> Result<Bearer, TokenError> {
        Bearer::new(token, self.target())
    }
}

#[derive(Clone, Debug)]
struct Connector {
    dialer: Dialer,
    target: Target,
    trouble: Trouble,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<DialStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<DialStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { dialer, target, trouble } = self.clone();
        Box::pin(async move { dialer.dial(target, trouble).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests;
