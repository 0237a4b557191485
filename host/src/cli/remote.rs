//! The cluster as the command line sees it: where it is, and how its failures read.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use raft_host_proto::client::{ClientOptions, ClusterId};
use raft_host_proto::dial::{Authorized, Bearer, ClientTls, Dialer, Way};
use raft_host_proto::v1::ErrorDetail;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::{Client, ClientError, Effect, MESSAGE_MAX_BYTES, Secret};
use tonic::{Status, Streaming};

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::config::ClientConfig;
pub(super) use crate::config::{parse_address, parse_duration, parse_endpoint};

/// How long dialing one node may take, whatever the whole request may.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request may take, unless its command says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Holds the token to show, if no file does. Nobody gives it as an argument, which others could see.
pub(super) const TOKEN_VARIABLE: &str = "RAFT_HOST_TOKEN";
/// For one attempt of a request that may be repeated; then another node is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The options that every command has that talks to a cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct RemoteArgs {
    /// Where the cluster is: any of its nodes; several, comma-separated or repeated, are tried
    /// in turn. Also https://HOST:PORT, and unix:PATH for the socket of a node on this machine.
    #[arg(
        short,
        long = "endpoint",
        global = true,
        env = "RAFT_HOST_ENDPOINT",
        default_value = "127.0.0.1:7400",
        value_delimiter = ',',
        value_parser = parse_endpoint,
        value_name = "HOST:PORT"
    )]
    pub(super) endpoints: Vec<String>,

    /// Talk to this cluster and no other: 32 hexadecimal digits, as `raft-host status` shows them
    /// [default: the one of the node that answers first].
    #[arg(long, global = true, env = "RAFT_HOST_CLUSTER_ID", value_name = "ID")]
    pub(super) cluster_id: Option<ClusterId>,

    /// How long to try before giving up, such as 500ms, 10s or 2m [default: 10s; 60s for
    /// digest, backup save and each command of --lines; 2m for stage, activate, export and snapshot
    /// take; 10m for upgrade, rehearse and query --at].
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,

    /// Tables for people or JSON for scripts.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Speak TLS, with the files of this folder, as `raft-host certs client` makes it: ca.pem, and certificate.pem
    /// and key.pem if they are there.
    #[arg(long, global = true, env = "RAFT_HOST_TLS", value_name = "DIR")]
    pub(super) tls: Option<PathBuf>,

    /// Speak TLS, and trust nodes with a certificate of these CAs (PEM).
    #[arg(long, global = true, env = "RAFT_HOST_TLS_CA", value_name = "FILE")]
    pub(super) tls_ca: Option<PathBuf>,

    /// The certificate to show (PEM).
    #[arg(long, global = true, env = "RAFT_HOST_TLS_CERTIFICATE", value_name = "FILE")]
    pub(super) tls_certificate: Option<PathBuf>,

    /// Its private key (PEM).
    #[arg(long, global = true, env = "RAFT_HOST_TLS_KEY", value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,

    /// File that holds the token to show; the environment may have the token itself, as RAFT_HOST_TOKEN.
    #[arg(long, global = true, env = "RAFT_HOST_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Configuration file (TOML); its [client] counts where neither the command line nor the
    /// environment says anything.
    #[arg(long, global = true, env = "RAFT_HOST_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Runs a command's future: one thread is enough for it.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    show_warnings();
    let result = runtime.block_on(future);
    // Threads that read standard input cannot be interrupted: leave them.
    runtime.shutdown_background();
    result
}

/// Lets people see what the client library warns of.
fn show_warnings() {
    let warnings = tracing_subscriber::fmt()
        .with_env_filter("raft_host_proto=warn")
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(false);
    // Somebody else shows more already.
    let _ = warnings.try_init();
}

/// A client of the state machine on a connection.
pub(super) fn client_on(channel: Authorized) -> ClientClient<Authorized> {
    ClientClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}

/// "Connection refused" rather than what the layers above say about it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

impl RemoteArgs {
    /// Takes from the file what is not given; `is_given` knows that of an option by its id.
    pub(super) fn lay_over(&mut self, file: ClientConfig, is_given: impl Fn(&str) -> bool) {
        if !is_given("endpoints") {
            self.endpoints = file.endpoint;
        }
        if !is_given("output") {
            self.output = file.output;
        }
        let cluster_id = file.cluster_id.map(|id| id.to_string().parse().expect("an id"));
        self.cluster_id = self.cluster_id.or(cluster_id);
        self.timeout = self.timeout.or(file.timeout);
        if self.tls.is_none() && self.tls_ca.is_none() {
            self.tls = file.tls;
            self.tls_ca = file.tls_ca;
        }
        if self.tls_certificate.is_none() && self.tls_key.is_none() {
            self.tls_certificate = file.tls_certificate;
            self.tls_key = file.tls_key;
        }
        self.token_file = self.token_file.take().or(file.token_file);
    }

    /// What speaking TLS takes, if it is to be spoken.
    fn client_tls(&self) -> Result<Option<ClientTls>, String> {
        let mut tls = self.tls.as_deref().map(ClientTls::in_folder);
        if let Some(ca) = &self.tls_ca {
            let identity = tls.and_then(|tls| tls.identity);
            tls = Some(ClientTls { identity, ..ClientTls::trusting(ca.clone()) });
        }
        match (&self.tls_certificate, &self.tls_key, tls) {
            (None, None, tls) => Ok(tls),
            (Some(certificate), Some(key), Some(tls)) => {
                Ok(Some(tls.showing(certificate.clone(), key.clone())))
            }
            (Some(_), Some(_), None) => {
                let words = "a certificate is shown where TLS is spoken: give --tls-ca FILE (or --tls DIR) as well";
                Err(words.to_owned())
            }
            _ => Err("--tls-certificate and --tls-key belong together".to_owned()),
        }
    }

    fn token(&self) -> Result<Option<Secret>, String> {
        if let Some(path) = &self.token_file {
            let unreadable =
                |error| format!("cannot read the token in {}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            return match text.trim() {
                "" => Err(format!("{} holds no token", path.display())),
                token => Ok(Some(Secret::new(token))),
            };
        }
        let given = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty());
        Ok(given.map(|token| Secret::new(token.trim())))
    }

    fn dialer(&self) -> Result<Dialer, String> {
        let tls = self.client_tls()?;
        Dialer::of(tls.as_ref()).map_err(|error| error.to_string())
    }

    /// How to reach one node without the client library.
    pub(super) fn way(&self, address: &str) -> Result<Way, String> {
        let way = self.dialer()?.way(address).map_err(|error| error.to_string())?;
        Ok(way.tuned(|endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT)))
    }

    /// What shows the token on that way, if there is one.
    pub(super) fn bearer(&self, way: &Way) -> Result<Bearer, String> {
        way.bearer(self.token()?.as_ref()).map_err(|error| error.to_string())
    }

    /// An admin client of one node and no other; the error says why there is none.
    pub(super) async fn admin(&self, address: &str) -> Result<AdminClient<Authorized>, String> {
        let way = self.way(address)?;
        let bearer = self.bearer(&way)?;
        let channel = way.connect().await.map_err(|error| innermost(&error))?;
        Ok(AdminClient::new(bearer.on(channel)).max_decoding_message_size(MESSAGE_MAX_BYTES))
    }

    /// The time limit, with this command's default.
    pub(super) fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }

    /// The time limit of ordinary commands.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout_or(TIMEOUT)
    }

    /// A client of the cluster.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        self.client_with(TIMEOUT).await
    }

    /// A client whose commands come back with the number of pages that they wrote.
    pub(super) async fn client_counting_pages(&self) -> Result<Client, Failure> {
        self.connect(TIMEOUT, true).await
    }

    /// A client with another time limit by default.
    ///
    /// The library goes on asking until the time is over, because a cluster may be about to
    /// elect. When nobody listens at all a person wants to hear it at once.
    pub(super) async fn client_with(&self, timeout: Duration) -> Result<Client, Failure> {
        self.connect(timeout, false).await
    }

    async fn connect(&self, timeout: Duration, count_pages: bool) -> Result<Client, Failure> {
        let timeout = self.timeout_or(timeout);
        let reachable = self.first_reachable(CONNECT_TIMEOUT.min(timeout)).await?;
        let mut endpoints = self.endpoints.clone();
        endpoints.rotate_left(reachable);
        let options = ClientOptions { count_pages, ..self.options(timeout)? };
        Client::connect(endpoints, options).map_err(|error| failure(&error))
    }

    /// A client of one node and no other.
    pub(super) fn client_of(&self, address: &str) -> Result<Client, Failure> {
        Client::connect([address], self.options(self.timeout())?).map_err(|error| failure(&error))
    }

    fn options(&self, timeout: Duration) -> Result<ClientOptions, Failure> {
        Ok(ClientOptions {
            cluster: self.cluster_id,
            connect_timeout: CONNECT_TIMEOUT,
            attempt_timeout: ATTEMPT_TIMEOUT.min(timeout),
            deadline: timeout,
            admin_deadline: timeout,
            tls: self.client_tls().map_err(Failure::usage)?,
            token: self.token().map_err(Failure::usage)?,
            ..ClientOptions::default()
        })
    }

    /// Position of the first endpoint where something listens.
    async fn first_reachable(&self, timeout: Duration) -> Result<usize, Failure> {
        let dialer = &self.dialer().map_err(Failure::usage)?;
        let mut dials: FuturesUnordered<_> = self
            .endpoints
            .iter()
            .enumerate()
            .map(|(position, address)| async move {
                let way = dialer.way(address).map_err(|error| error.to_string())?;
                let dialed = tokio::time::timeout(timeout, way.knock()).await;
                match dialed {
                    Ok(Ok(_)) => Ok(position),
                    Ok(Err(error)) => Err(format!("{address}: {error}")),
                    Err(_) => Err(format!("{address}: no answer")),
                }
            })
            .collect();
        let mut reasons = Vec::new();
        while let Some(dialed) = dials.next().await {
            match dialed {
                Ok(position) => return Ok(position),
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.sort();
        Err(Failure {
            exit: Exit::Unavailable,
            ..Failure::new(format!(
                "no node can be reached ({}); is raft-host running there? --endpoint says where \
                 to look",
                reasons.join("; ")
            ))
        })
    }
}

/// A failed request as a failure of the command line.
pub(super) fn failure(error: &ClientError) -> Failure {
    let exit = match (error, error.effect()) {
        (_, Effect::Unknown) => Exit::Unknown,
        (ClientError::Unavailable { .. }, Effect::None) => Exit::Unavailable,
        (_, Effect::None) => Exit::Failed,
    };
    Failure { exit, reason: error.reason(), ..Failure::new(advise(error)) }
}

/// As [`failure`], of a request that could not have changed anything.
pub(super) fn failed_question(error: &ClientError) -> Failure {
    let exit = match error {
        ClientError::Unavailable { .. } => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Failure { exit, reason: error.reason(), ..Failure::new(advise(error)) }
}

/// The library's sentence, and what to do when nobody answered.
fn advise(error: &ClientError) -> String {
    match error {
        ClientError::Unavailable { .. } => {
            format!("{error}; `raft-host status` shows how the cluster is")
        }
        _ => error.to_string(),
    }
}

/// The next message of an answer in parts; `None` after the last.
pub(super) async fn next_part<T>(
    parts: &mut Streaming<T>,
    patience: Duration,
) -> Result<Option<T>, Failure> {
    match tokio::time::timeout(patience, parts.message()).await {
        Ok(Ok(part)) => Ok(part),
        Ok(Err(status)) => Err(Failure {
            reason: ErrorDetail::of(&status).map(|detail| detail.reason()),
            ..Failure::new(format!("the node broke off: {}", sentence(&status)))
        }),
        Err(_) => Err(Failure::new(format!(
            "the node sent nothing for {} s; try again, or with a longer --timeout",
            patience.as_secs_f64()
        ))),
    }
}

/// The server's sentence.
pub(super) fn sentence(status: &Status) -> String {
    match status.message() {
        // Made on this side: the connection ended, and its end says more.
        _ if std::error::Error::source(status).is_some() => innermost(status),
        "" => format!("the server answered {:?} without a reason", status.code()),
        message => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn the_exit_code_tells_unavailable_from_unknown_from_refused() {
        let unavailable = |effect| ClientError::Unavailable {
            endpoint: "a:1".into(),
            message: "no leader".into(),
            code: Code::Unavailable,
            effect,
            attempts: 2,
            detail: None,
        };
        let refused = |effect| ClientError::Refused {
            code: Code::InvalidArgument,
            message: "too long".into(),
            effect,
            detail: None,
        };
        assert_eq!(failure(&unavailable(Effect::None)).exit, Exit::Unavailable);
        assert_eq!(failure(&unavailable(Effect::Unknown)).exit, Exit::Unknown);
        assert_eq!(failed_question(&unavailable(Effect::Unknown)).exit, Exit::Unavailable);
        assert_eq!(failure(&refused(Effect::None)).exit, Exit::Failed);
        assert_eq!(failure(&refused(Effect::Unknown)).exit, Exit::Unknown);
        assert_eq!(failed_question(&refused(Effect::Unknown)).exit, Exit::Failed);
    }

    #[test]
    fn when_nobody_listens_it_fails_at_once_and_names_the_endpoints() {
        // Bound and dropped: nobody listens there now.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("bound").to_string();
        drop(free);
        let args = RemoteArgs {
            endpoints: vec![address.clone()],
            cluster_id: None,
            timeout: None,
            output: Output::Table,
            tls: None,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            token_file: None,
            config: None,
        };
        let failure = block_on(args.client()).expect_err("nobody listens");
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.message.contains(&address), "{}", failure.message);
    }
}
