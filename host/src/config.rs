//! The configuration of a server, and of the commands that ask one: composes what each room asks
//! for and checks it together.
//!
//! Each room owns its part and its defaults; here they become one file format, and one check
//! of what contradicts what. Knows nothing of flags: `cli` lays them over the file.
//!
//! ```text
//!   flag  >  environment  >  file (--config)  >  default
//! ```

mod client;
mod exposure;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::client::{ClientConfig, Output};
pub(crate) use self::client::{parse_address, parse_duration, parse_endpoint, parse_lifetime};
use crate::api::ApiConfig;
use crate::audit::AuditConfig;
use crate::autopilot::AutopilotConfig;
use crate::backup::BackupConfig;
use crate::consensus::ConsensusConfig;
use crate::fsm::Limits;
use crate::node::{ENTRY_OVERHEAD_BYTES, NodeConfig};
use crate::storage::{Engine, StorageConfig};
use crate::tls::{TlsConfig, TlsMode};
use crate::transport::grpc::{MAX_MESSAGE_BYTES, TransportConfig};
use crate::types::{ActorName, check_address};
use crate::wasm::CompilerConfig;

/// Port for clients and peers unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7400";
/// Where a node keeps its data unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "./raft-host-data";

/// Who may do everything in a new cluster with TLS unless told otherwise.
pub const DEFAULT_ADMIN: &str = "admin";

/// Longest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The whole configuration, and the format of the TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of everything durable.
    pub data_dir: PathBuf,
    /// `HOST:PORT` for clients and peers. Port 0: the system chooses.
    pub listen: String,
    /// `HOST:PORT` that others are told to dial; the listening address if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// `HOST:PORT` for other nodes, apart from clients; absent: they come where clients do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,
    /// `HOST:PORT` that other nodes are told to dial, where they have a port of their own; that one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_advertise: Option<String>,
    /// Listen for others than this machine without TLS all the same: whoever reaches the ports can do everything.
    pub insecure: bool,
    /// Name of the principal of a new cluster that may do everything. Rights are in force from the
    /// beginning then. Empty: they are not. Absent: `admin` with TLS, and empty without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// A socket on this machine, for whoever may use it as the node's user does; absent: in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// `HOST:PORT` for metrics and health over HTTP; absent: none. Port 0: the system chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<String>,
    /// The store of the log. Chosen once, for the data directory remembers it; absent: what the
    /// directory has, or raft-engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_engine: Option<Engine>,
    /// The state machine of a new cluster; of no effect on a node that belongs to one already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PathBuf>,
    /// Members of the cluster to enter, `HOST:PORT`; likewise.
    pub join: Vec<String>,
    /// Having entered it: stay a learner.
    pub learner: bool,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Timing and limits of the node.
    pub node: NodeConfig,
    /// Limits of replication.
    pub consensus: ConsensusConfig,
    /// Sizes of the store's files and caches.
    pub storage: StorageConfig,
    /// What checking and compiling a module may take.
    pub compiler: CompilerConfig,
    /// Connections between nodes.
    pub transport: TransportConfig,
    /// Who proves to whom who it is.
    pub tls: TlsConfig,
    /// Limits and patience of the services.
    pub api: ApiConfig,
    /// Where it is noted who changed what.
    pub audit: AuditConfig,
    /// What the cluster does by itself about its members.
    pub autopilot: AutopilotConfig,
    /// Backups that this node takes by itself.
    pub backup: BackupConfig,
    /// Budgets of the state machine. Read when a cluster is formed and replicated from then
    /// on: they decide outcomes, so they can never be one node's choice. The cluster changes
    /// them through its log.
    pub limits: Limits,
    /// What commands read of it; of no effect on a server.
    pub client: ClientConfig,
}

/// The `[log]` part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Which records are written, in the syntax of `RUST_LOG`.
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
    /// Lines that guests may write in a second, on average; what is more is dropped and counted.
    /// 0: any number.
    pub guest_lines_per_second: u64,
    /// Lines that they may write at once.
    pub guest_lines_burst: u64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or holds a key or value that means nothing here.
    #[error("in the configuration file {}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        message: String,
    },
    /// Settings that cannot be, alone or together.
    #[error("the configuration cannot be used:{}", bullets(.0))]
    Invalid(Vec<String>),
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: DEFAULT_DATA_DIR.into(),
            listen: DEFAULT_LISTEN.to_owned(),
            advertise: None,
            peer_listen: None,
            peer_advertise: None,
            insecure: false,
            admin: None,
            socket: None,
            metrics_listen: None,
            storage_engine: None,
            plugin: None,
            join: Vec::new(),
            learner: false,
            log: LogConfig::default(),
            node: NodeConfig::default(),
            consensus: ConsensusConfig::default(),
            storage: StorageConfig::default(),
            compiler: CompilerConfig::default(),
            transport: TransportConfig::default(),
            tls: TlsConfig::default(),
            api: ApiConfig::default(),
            audit: AuditConfig::default(),
            autopilot: AutopilotConfig::default(),
            backup: BackupConfig::default(),
            limits: Limits::default(),
            client: ClientConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        // Dependencies are heard when something is wrong.
        LogConfig {
            filter: "warn,raft_host=info".to_owned(),
            format: LogFormat::default(),
            guest_lines_per_second: 200,
            guest_lines_burst: 1_000,
        }
    }
}

impl LogConfig {
    fn problem(&self) -> Option<String> {
        (self.guest_lines_burst == 0).then(|| {
            "log.guest_lines_burst must not be 0: guests could never write a line".to_owned()
        })
    }
}

impl Config {
    /// Reads a file; what it does not mention keeps its default. Not yet validated: flags may
    /// still change it.
    ///
    /// # Errors
    /// `Read` or `Parse`.
    pub fn from_file(path: &Path) -> Result<Config, ConfigError> {
        let text =
            read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// Checks every part, and the parts against each other.
    ///
    /// # Errors
    /// All problems found, each naming its settings.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let parts = [
            self.node.validate(),
            self.consensus.validate(),
            self.storage.validate(),
            self.compiler.validate(),
            self.transport.validate().map_err(|error| error.to_string()),
            self.api.validate(),
            self.audit.validate(),
            self.autopilot.validate(self.node.election_ms),
            self.backup.validate(),
        ];
        let mut problems: Vec<String> = parts.into_iter().filter_map(Result::err).collect();
        problems.extend(self.limit_problems());
        problems.extend(self.address_problems());
        problems.extend(self.tls.problems());
        problems.extend(exposure::problems(self));
        problems.extend(self.size_problems());
        problems.extend(self.log.problem());
        problems.extend(self.begin_problem());
        problems.extend(self.admin_problem());
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    fn begin_problem(&self) -> Option<String> {
        (self.learner && self.join.is_empty()).then(|| {
            "learner (--learner) is for a node that joins: say with join (--join) which cluster"
                .to_owned()
        })
    }

    fn admin_problem(&self) -> Option<String> {
        let name = self.admin.as_deref().filter(|name| !name.is_empty())?;
        if self.tls.mode == TlsMode::Off {
            return Some(
                "admin (--admin) has rights in force from the beginning, and without TLS (--tls) nobody can \
                 prove who it is over a network"
                    .to_owned(),
            );
        }
        let bad = name.parse::<ActorName>().err()?;
        Some(format!("admin (--admin): {bad}"))
    }

    /// Who may do everything in a cluster that is formed; `None`: rights are not in force there.
    ///
    /// # Panics
    /// If the configuration is not valid.
    pub fn founding_admin(&self) -> Option<ActorName> {
        let fallback = if self.tls.mode == TlsMode::Off { "" } else { DEFAULT_ADMIN };
        let name = self.admin.as_deref().unwrap_or(fallback);
        (!name.is_empty()).then(|| name.parse().expect("`validate` has looked at it"))
    }

    fn limit_problems(&self) -> Vec<String> {
        let problems = self.limits.validate().err().unwrap_or_default();
        problems.into_iter().map(|problem| format!("limits.{problem}")).collect()
    }

    fn address_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let listen = HostPort::parse(&self.listen);
        match &listen {
            None => problems.push(format!(
                "listen is {:?}, but must be HOST:PORT, such as {DEFAULT_LISTEN}",
                self.listen
            )),
            Some(_) if self.peer_listen.is_some() => {}
            Some(listen) if self.advertise.is_none() && listen.is_unspecified() => {
                problems.push(format!(
                    "listen is {}, which nobody can dial: say with advertise (--advertise \
                     HOST:{}) under which address this node is reached",
                    self.listen, listen.port
                ));
            }
            // Its host is what others are told to dial.
            Some(listen) if self.advertise.is_none() => {
                let host = format!("{}:1", listen.host);
                let checked = check_address(&host).map_err(|error| error.to_string());
                problems.extend(checked.err().map(|error| format!("listen: {error}")));
            }
            Some(_) => {}
        }
        if let Some(metrics) = &self.metrics_listen {
            match HostPort::parse(metrics) {
                None => problems.push(format!(
                    "metrics_listen is {metrics:?}, but must be HOST:PORT, such as 127.0.0.1:7401"
                )),
                Some(at) if *metrics == self.listen && at.port != 0 => problems.push(format!(
                    "metrics_listen and listen are both {metrics}: metrics need a port of their own"
                )),
                Some(_) => {}
            }
        }
        if let Some(advertise) = &self.advertise {
            match HostPort::parse(advertise) {
                None => problems.push(format!(
                    "advertise is {advertise:?}, but must be HOST:PORT, such as 10.0.0.1:7400"
                )),
                Some(at) if at.is_unspecified() => problems.push(format!(
                    "advertise is {advertise}, which nobody can dial: name this host's own \
                     address"
                )),
                Some(at) if at.port == 0 => problems.push(format!(
                    "advertise is {advertise}, but port 0 cannot be dialed: leave advertise \
                     away and the real port is advertised"
                )),
                Some(_) => {
                    let checked = check_address(advertise).map_err(|error| error.to_string());
                    problems.extend(checked.err().map(|error| format!("advertise: {error}")));
                }
            }
        }
        problems
    }

    fn size_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.limits.input_max_bytes.saturating_add(ENTRY_OVERHEAD_BYTES)
            > self.node.max_entry_bytes
        {
            problems.push(format!(
                "limits.input_max_bytes ({}) and {ENTRY_OVERHEAD_BYTES} bytes of header do not \
                 fit into node.max_entry_bytes ({})",
                self.limits.input_max_bytes, self.node.max_entry_bytes
            ));
        }
        if self.consensus.max_uncommitted_bytes < self.node.max_entry_bytes {
            problems.push(format!(
                "consensus.max_uncommitted_bytes ({}) must not be less than \
                 node.max_entry_bytes ({}), or the longest command could never be proposed",
                self.consensus.max_uncommitted_bytes, self.node.max_entry_bytes
            ));
        }
        let message = self.node.max_entry_bytes.saturating_add(self.consensus.max_append_bytes);
        let window = self.consensus.append_window_bytes.saturating_add(message);
        if self.transport.queue_bytes < window {
            problems.push(format!(
                "transport.queue_bytes ({}) must hold consensus.append_window_bytes ({}) and one \
                 message more, of node.max_entry_bytes ({}) and consensus.max_append_bytes ({})",
                self.transport.queue_bytes,
                self.consensus.append_window_bytes,
                self.node.max_entry_bytes,
                self.consensus.max_append_bytes
            ));
        }
        let most = MAX_MESSAGE_BYTES as u64 / 2;
        if self.consensus.max_append_bytes > most {
            problems.push(format!(
                "consensus.max_append_bytes ({}) must be at most {most}: peers refuse larger \
                 messages",
                self.consensus.max_append_bytes
            ));
        }
        if message > MAX_MESSAGE_BYTES as u64 {
            problems.push(format!(
                "node.max_entry_bytes ({}) and consensus.max_append_bytes ({}) together must be at \
                 most {MAX_MESSAGE_BYTES}: peers refuse larger messages",
                self.node.max_entry_bytes, self.consensus.max_append_bytes
            ));
        }
        if (self.api.max_message_bytes as u64) < self.node.max_entry_bytes {
            problems.push(format!(
                "api.max_message_bytes ({}) must be at least node.max_entry_bytes ({}): a command \
                 travels in one message",
                self.api.max_message_bytes, self.node.max_entry_bytes
            ));
        }
        if self.node.max_inbox_bytes < message {
            problems.push(format!(
                "node.max_inbox_bytes ({}) must hold at least one message: \
                 node.max_entry_bytes ({}) and consensus.max_append_bytes ({}) together",
                self.node.max_inbox_bytes,
                self.node.max_entry_bytes,
                self.consensus.max_append_bytes
            ));
        }
        problems
    }

    /// What other nodes are told to dial where they have a port of their own, once that is known.
    pub fn peer_advertised(&self, bound: std::net::SocketAddr) -> String {
        if let Some(advertise) = &self.peer_advertise {
            return advertise.clone();
        }
        match self.peer_listen.as_deref().and_then(HostPort::parse) {
            Some(listen) => format!("{}:{}", listen.host, bound.port()),
            None => bound.to_string(),
        }
    }

    /// What others are told to dial, where nothing is listened on.
    pub fn advertised_or_listened(&self) -> String {
        let of_peers = self.peer_advertise.as_ref().or(self.peer_listen.as_ref());
        of_peers.or(self.advertise.as_ref()).unwrap_or(&self.listen).clone()
    }

    /// What others are told to dial, once the port is known.
    pub fn advertised(&self, bound: std::net::SocketAddr) -> String {
        if let Some(advertise) = &self.advertise {
            return advertise.clone();
        }
        match HostPort::parse(&self.listen) {
            Some(listen) => format!("{}:{}", listen.host, bound.port()),
            None => bound.to_string(),
        }
    }
}

/// `HOST:PORT`; an IPv6 address stands in brackets.
struct HostPort<'a> {
    host: &'a str,
    port: u16,
}

impl HostPort<'_> {
    fn parse(text: &str) -> Option<HostPort<'_>> {
        let (host, port) = text.rsplit_once(':')?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plausible = !host.is_empty()
            && (bracketed || !host.contains(':'))
            && !host.contains(|c: char| c.is_whitespace() || c == '/');
        plausible.then_some(())?;
        Some(HostPort { host, port: port.parse().ok()? })
    }

    fn is_unspecified(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

/// The text of a file, which may be anything that somebody named by mistake.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!(
            "it is longer than {}, so it is not one",
            crate::text::human_bytes(MAX_FILE_BYTES)
        )));
    }
    Ok(text)
}

fn bullets(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Config) -> String {
        config.validate().expect_err("must be refused").to_string()
    }

    fn parse(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        Config::from_file(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().expect("valid");
    }

    #[test]
    fn a_file_changes_what_it_mentions_and_nothing_else() {
        let text = "listen = \"127.0.0.1:9\"\nstorage_engine = \"sled\"\n\
                    [node]\nheartbeat_ms = 20\n[node.snapshot]\nthreshold = 7\n\
                    [log]\nformat = \"json\"\n";
        let config = parse(text).expect("valid");
        let mut expected = Config {
            listen: "127.0.0.1:9".to_owned(),
            storage_engine: Some("sled".parse().expect("there is one")),
            ..Config::default()
        };
        expected.node.heartbeat_ms = 20;
        expected.node.snapshot.threshold = 7;
        expected.log.format = LogFormat::Json;
        assert_eq!(config, expected);
    }

    /// The file in `operations.md`.
    fn documented() -> String {
        let page = include_str!("../docs/operations.md");
        let (_, from) = page.split_once("```toml\n").expect("the page shows a file");
        from.split_once("```").expect("it ends").0.to_owned()
    }

    #[test]
    fn operations_md_shows_every_setting_with_its_default() {
        parse(&documented()).expect("every key is a setting");
        let shown: toml::Table = documented().parse().expect("TOML");
        let defaults: toml::Table = toml::Table::try_from(Config::default()).expect("TOML");
        for (key, default) in &defaults {
            if default.is_table() {
                assert_eq!(shown.get(key), Some(default), "[{key}]");
            }
        }
        // What stands alone shows an example, since most of it has no default.
        let alone = ["data_dir", "listen", "advertise", "metrics_listen", "storage_engine"];
        for key in alone {
            assert!(shown.contains_key(key), "{key}");
        }
    }

    #[test]
    fn a_written_configuration_reads_back_the_same() {
        let text = toml::to_string(&Config::default()).expect("TOML holds it");
        assert_eq!(parse(&text).expect("valid"), Config::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_and_line() {
        let message = parse("listen = \"127.0.0.1:9\"\n[node]\nheartbeet_ms = 20\n").unwrap_err();
        assert!(message.contains("heartbeet_ms"), "{message}");
        assert!(message.contains("line 3"), "{message}");
        assert!(message.contains("configuration file /"), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Config::from_file(Path::new("/nowhere/x.toml")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/x.toml"), "{message}");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        // Zeros are UTF-8.
        let message = Config::from_file(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(message.contains("/dev/zero: it is longer than 1.0 MiB"), "{message}");
    }

    #[test]
    fn what_commands_read_is_checked_with_the_rest() {
        let config = parse("listen = \"127.0.0.1:9\"\n[client]\nendpoint = [\"a:1\"]\n");
        assert_eq!(config.expect("valid").client.endpoint, ["a:1"]);
        let message = parse("[client]\n\nendpoint = [\"a\"]\n").unwrap_err();
        assert!(message.contains("line 3") && message.contains("has no port"), "{message}");
    }

    #[test]
    fn all_contradictions_are_reported_together() {
        let mut config = Config::default();
        config.node.election_ms = config.node.heartbeat_ms;
        config.consensus.trailing_logs = 0;
        config.limits.input_max_bytes = config.node.max_entry_bytes;
        config.limits.memory_max_bytes = 1;
        let message = problems(&config);
        for name in
            ["election_ms", "trailing_logs", "limits.input_max_bytes", "limits.memory_max_bytes"]
        {
            assert!(message.contains(name), "{name} is missing in: {message}");
        }
    }

    #[test]
    fn an_address_that_nobody_can_dial_asks_for_advertise() {
        for listen in ["0.0.0.0:7400", "[::]:7400"] {
            let mut config =
                Config { listen: listen.to_owned(), insecure: true, ..Config::default() };
            assert!(problems(&config).contains("--advertise"), "{listen}");
            config.advertise = Some("10.0.0.1:7400".to_owned());
            config.validate().expect("others know where to dial");
            config.advertise = Some(listen.to_owned());
            assert!(problems(&config).contains("nobody can dial"), "{listen}");
        }
    }

    #[test]
    fn metrics_have_an_address_of_their_own() {
        let with = |metrics: &str| Config {
            metrics_listen: Some(metrics.to_owned()),
            listen: "127.0.0.1:7".to_owned(),
            ..Config::default()
        };
        let open = Config { insecure: true, ..with("0.0.0.0:9100") };
        open.validate().expect("nobody is told to dial it");
        with("127.0.0.1:0").validate().expect("any port");
        assert!(problems(&with("9100")).contains("metrics_listen is \"9100\""));
        assert!(problems(&with("127.0.0.1:7")).contains("a port of their own"));
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for listen in ["7400", "localhost", "::1:7400", "http://a:1", "a:99999", ":7400"] {
            let config = Config { listen: listen.to_owned(), ..Config::default() };
            assert!(problems(&config).contains("HOST:PORT"), "{listen}");
        }
    }

    #[test]
    fn port_0_advertises_the_real_port() {
        let mut config = Config { listen: "localhost:0".to_owned(), ..Config::default() };
        config.validate().expect("valid");
        let bound = "127.0.0.1:4711".parse().expect("an address");
        assert_eq!(config.advertised(bound), "localhost:4711");
        config.advertise = Some("db.example:7400".to_owned());
        assert_eq!(config.advertised(bound), "db.example:7400");
    }
}
