//! The server's flags, laid over the configuration file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{FalseyValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};

use super::ticket;
use crate::config::{Config, ConfigError, LogFormat};
use crate::server::{Join, Startup};
use crate::storage::Engine;
use crate::tls::TlsMode;
use crate::types::NodeId;
use crate::wasm::CompiledModules;

/// Flags of `raft-host` without a subcommand: serve. What is absent comes from the
/// environment, then from the file, then from the defaults.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// The state machine of a new cluster: a WebAssembly module.
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_PLUGIN", help_heading = FORMING)]
    pub plugin: Option<PathBuf>,
    /// With --plugin: the state that it begins with, as `raft-host export` wrote it.
    #[arg(long, value_name = "FILE", help_heading = FORMING)]
    pub import: Option<PathBuf>,
    /// Join the cluster that one of these nodes belongs to.
    #[arg(
        long, value_name = "ADDR[,ADDR…]", value_delimiter = ',', env = "RAFT_HOST_JOIN",
        help_heading = FORMING
    )]
    pub join: Vec<String>,
    /// With --join: stay a learner, which replicates but does not vote.
    #[arg(long, help_heading = FORMING)]
    pub learner: bool,
    /// With --join: the id to have, instead of one that the cluster draws.
    #[arg(
        long, value_name = "N", value_parser = parse_node_id,
        help_heading = FORMING
    )]
    pub node_id: Option<NodeId>,
    /// With --join and --tls: file with a join token (`raft-host token join`), or - for standard input; the
    /// environment may have the token itself, as RAFT_HOST_JOIN_TOKEN. The node gets its certificate with it.
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_JOIN_TOKEN_FILE", help_heading = FORMING)]
    pub join_token_file: Option<PathBuf>,
    /// With --plugin and TLS: name of the principal that may do everything, which a certificate of
    /// `raft-host certs init --client NAME` proves; empty: rights are not in force [default: admin].
    #[arg(long, value_name = "NAME", env = "RAFT_HOST_ADMIN", help_heading = FORMING)]
    pub admin: Option<String>,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_CONFIG", help_heading = SERVER)]
    pub config: Option<PathBuf>,
    /// Directory of everything durable [default: ./raft-host-data].
    #[arg(long, value_name = "DIR", env = "RAFT_HOST_DATA_DIR", help_heading = SERVER)]
    pub data_dir: Option<PathBuf>,
    /// Address for clients and peers; port 0 lets the system choose [default: 127.0.0.1:7400].
    #[arg(long, value_name = "HOST:PORT", env = "RAFT_HOST_LISTEN", help_heading = SERVER)]
    pub listen: Option<String>,
    /// Address that others are told to dial [default: the listening address].
    #[arg(long, value_name = "HOST:PORT", env = "RAFT_HOST_ADVERTISE", help_heading = SERVER)]
    pub advertise: Option<String>,
    /// Address for other nodes, apart from clients; port 0 lets the system choose [default: they come where
    /// clients do].
    #[arg(long, value_name = "HOST:PORT", env = "RAFT_HOST_PEER_LISTEN", help_heading = SERVER)]
    pub peer_listen: Option<String>,
    /// With --peer-listen: address that other nodes are told to dial [default: that one].
    #[arg(long, value_name = "HOST:PORT", env = "RAFT_HOST_PEER_ADVERTISE", help_heading = SERVER)]
    pub peer_advertise: Option<String>,
    /// Socket on this machine, for whoever may use it as this user does [default: raft-host.sock in the data
    /// directory].
    #[arg(long, value_name = "PATH", env = "RAFT_HOST_SOCKET", help_heading = SERVER)]
    pub socket: Option<PathBuf>,
    /// Speak TLS with the files of this folder, as `raft-host certs node` makes it: certificate.pem, key.pem and
    /// ca.pem.
    #[arg(long, value_name = "DIR", env = "RAFT_HOST_TLS", help_heading = TLS)]
    pub tls: Option<PathBuf>,
    /// Who has to show a certificate [default: off; with --tls, mutual].
    #[arg(
        long, value_name = "MODE", value_parser = tls_modes(), env = "RAFT_HOST_TLS_MODE",
        help_heading = TLS
    )]
    pub tls_mode: Option<TlsMode>,
    /// This node's certificate (PEM).
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_TLS_CERTIFICATE", help_heading = TLS)]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_TLS_KEY", help_heading = TLS)]
    pub tls_key: Option<PathBuf>,
    /// The CAs of clients (PEM) [default: those of nodes].
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_TLS_CLIENT_CA", help_heading = TLS)]
    pub tls_client_ca: Option<PathBuf>,
    /// The CAs of nodes (PEM) [default: those of clients].
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_TLS_PEER_CA", help_heading = TLS)]
    pub tls_peer_ca: Option<PathBuf>,
    /// Keep a CA on this node (ca.pem and ca-key.pem of this folder), and sign certificates of nodes that join with
    /// a token [default: no].
    #[arg(long, value_name = "DIR", env = "RAFT_HOST_TLS_SIGNING_CA", help_heading = TLS)]
    pub tls_signing_ca: Option<PathBuf>,
    /// Listen for others than this machine without TLS all the same: whoever reaches the ports can do everything.
    #[arg(
        long, env = "RAFT_HOST_INSECURE", value_parser = FalseyValueParser::new(),
        help_heading = TLS
    )]
    pub insecure: bool,
    /// Address for /metrics (Prometheus) and /health over HTTP; port 0 lets the system choose
    /// [default: none].
    #[arg(
        long, value_name = "HOST:PORT", env = "RAFT_HOST_METRICS_LISTEN", help_heading = SERVER
    )]
    pub metrics_listen: Option<String>,
    /// Store of the log [default: what the data directory has, or raft-engine].
    #[arg(
        long, value_name = "ENGINE", value_parser = engines(), env = "RAFT_HOST_STORAGE_ENGINE",
        help_heading = SERVER
    )]
    pub storage_engine: Option<Engine>,
    /// What to log, in the syntax of RUST_LOG [default: warn,raft_host=info].
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", help_heading = SERVER)]
    pub log_filter: Option<String>,
    /// How log lines look [default: human].
    #[arg(long, value_name = "FORMAT", env = "RAFT_HOST_LOG_FORMAT", help_heading = SERVER)]
    pub log_format: Option<LogFormat>,
    /// Timing and limits.
    #[command(flatten)]
    pub tuning: TuningArgs,
}

const FORMING: &str = "Forming a cluster (a restart needs none of these)";
const SERVER: &str = "Server";
const TLS: &str = "TLS";
const TUNING: &str = "Timing and limits (more in the configuration file)";

macro_rules! tuning_args {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $env:literal => $($path:ident).+;)*) => {
        /// The settings that are tuned most, as flags.
        #[derive(Args, Clone, Debug, Default)]
        pub(crate) struct TuningArgs {
            $(
                $(#[$doc])*
                #[arg(long, value_name = "N", env = $env, help_heading = TUNING)]
                pub $name: Option<$type>,
            )*
        }

        impl TuningArgs {
            fn lay_over(&self, config: &mut Config) {
                $(
                    if let Some(value) = self.$name {
                        config.$($path).+ = value;
                    }
                )*
            }
        }
    };
}

tuning_args! {
    /// Milliseconds between a leader's heartbeats [default: 100].
    heartbeat_ms: u64 = "RAFT_HOST_HEARTBEAT_MS" => node.heartbeat_ms;
    /// Milliseconds without a leader before an election [default: 1000].
    election_ms: u64 = "RAFT_HOST_ELECTION_MS" => node.election_ms;
    /// Milliseconds that a stopping node waits for what is in flight [default: 10000].
    drain_ms: u64 = "RAFT_HOST_DRAIN_MS" => node.drain_ms;
    /// Milliseconds after which a job of the apply thread is reported as slow; 0: never
    /// [default: 1000].
    slow_apply_ms: u64 = "RAFT_HOST_SLOW_APPLY_MS" => node.slow_apply_ms;
    /// Commands between snapshots [default: 10000].
    snapshot_threshold: u64 = "RAFT_HOST_SNAPSHOT_THRESHOLD" => node.snapshot.threshold;
    /// Milliseconds between snapshots, however many commands there are [default: 10000].
    snapshot_pause_ms: u64 = "RAFT_HOST_SNAPSHOT_PAUSE_MS" => node.snapshot.pause_ms;
    /// Snapshots kept [default: 2].
    snapshot_keep: usize = "RAFT_HOST_SNAPSHOT_KEEP" => node.snapshot.keep;
    /// Commands between two comparisons of all nodes' states; 0: commands do not count [default:
    /// 10000].
    digest_every_commands: u64 = "RAFT_HOST_DIGEST_EVERY_COMMANDS" => node.digest.every_commands;
    /// Milliseconds between two comparisons of all nodes' states; 0: time does not count
    /// [default: 10000].
    digest_every_ms: u64 = "RAFT_HOST_DIGEST_EVERY_MS" => node.digest.every_ms;
    /// Entries kept behind a snapshot for slow followers [default: 10240].
    trailing_logs: u64 = "RAFT_HOST_TRAILING_LOGS" => consensus.trailing_logs;
    /// The entries of so many milliseconds are kept behind a snapshot as well [default: 60000].
    trailing_ms: u64 = "RAFT_HOST_TRAILING_MS" => consensus.trailing_ms;
    /// Most bytes of entries kept behind a snapshot for either reason [default: 64 MiB].
    trailing_bytes: u64 = "RAFT_HOST_TRAILING_BYTES" => consensus.trailing_bytes;
    /// Most bytes of entries that a leader keeps for peers that are being sent a snapshot, or are
    /// close behind [default: 1 GiB].
    held_bytes: u64 = "RAFT_HOST_HELD_BYTES" => consensus.held_bytes;
    /// Longest entry in bytes: a command with its header [default: 1.5 MiB].
    max_entry_bytes: u64 = "RAFT_HOST_MAX_ENTRY_BYTES" => node.max_entry_bytes;
    /// Bytes of entries sent to a peer in one message [default: 1 MiB].
    max_append_bytes: u64 = "RAFT_HOST_MAX_APPEND_BYTES" => consensus.max_append_bytes;
    /// Bytes of requests in flight before clients are told "busy" [default: 64 MiB].
    max_inflight_bytes: u64 = "RAFT_HOST_MAX_INFLIGHT_BYTES" => node.max_inflight_bytes;
}

impl ServeArgs {
    /// File, then environment and flags, then one check of it all.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(file) => Config::from_file(file)?,
            None => Config::default(),
        };
        fn set<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        set(&mut config.data_dir, &self.data_dir);
        set(&mut config.listen, &self.listen);
        set(&mut config.log.filter, &self.log_filter);
        set(&mut config.log.format, &self.log_format);
        config.advertise = self.advertise.clone().or(config.advertise);
        config.metrics_listen = self.metrics_listen.clone().or(config.metrics_listen);
        config.peer_listen = self.peer_listen.clone().or(config.peer_listen);
        config.peer_advertise = self.peer_advertise.clone().or(config.peer_advertise);
        config.socket = self.socket.clone().or(config.socket);
        config.admin = self.admin.clone().or(config.admin);
        config.insecure |= self.insecure;
        if let Some(dir) = &self.tls {
            config.tls.use_folder(dir);
        }
        let tls = &mut config.tls;
        set(&mut tls.mode, &self.tls_mode);
        tls.certificate = self.tls_certificate.clone().or(tls.certificate.take());
        tls.key = self.tls_key.clone().or(tls.key.take());
        tls.client_ca = self.tls_client_ca.clone().or(tls.client_ca.take());
        tls.peer_ca = self.tls_peer_ca.clone().or(tls.peer_ca.take());
        tls.signing_ca = self.tls_signing_ca.clone().or(tls.signing_ca.take());
        config.storage_engine = self.storage_engine.or(config.storage_engine);
        if self.plugin.is_some() || !self.join.is_empty() {
            // The file's way to begin is replaced as a whole.
            config.plugin.clone_from(&self.plugin);
            config.join.clone_from(&self.join);
            config.learner = false;
        }
        config.learner |= self.learner;
        self.tuning.lay_over(&mut config);
        if self.node_id.is_some() && config.join.is_empty() {
            let problem = "--node-id is for a node that joins: give --join as well".to_owned();
            return Err(ConfigError::Invalid(vec![problem]));
        }
        if self.join_token_file.is_some() && config.join.is_empty() {
            let problem =
                "--join-token-file is for a node that joins: give --join as well".to_owned();
            return Err(ConfigError::Invalid(vec![problem]));
        }
        if self.import.is_some() && config.plugin.is_none() {
            let problem = "--import is the state that a new cluster's plugin begins with: give --plugin as \
                           well";
            return Err(ConfigError::Invalid(vec![problem.to_owned()]));
        }
        config.validate()?;
        Ok(config)
    }

    /// How the node is to begin, by what [`ServeArgs::config`] made of file and flags.
    ///
    /// # Errors
    /// The join token cannot be read.
    pub(crate) fn startup(&self, config: &Config) -> Result<Startup, ConfigError> {
        let ticket = match config.join.is_empty() {
            true => None,
            false => ticket::read(self.join_token_file.as_deref(), &config.tls)?,
        };
        let join = (!config.join.is_empty()).then(|| Join {
            ticket,
            seeds: config.join.clone(),
            learner: config.learner,
            node_id: self.node_id,
        });
        let modules = CompiledModules::by_children(config.compiler.clone());
        let (plugin, import) = (config.plugin.clone(), self.import.clone());
        Ok(Startup { plugin, join, import, modules })
    }
}

/// The names of the modes of TLS.
fn tls_modes() -> impl TypedValueParser<Value = TlsMode> {
    let named = TlsMode::ALL.map(|(mode, help)| PossibleValue::new(mode.name()).help(help));
    PossibleValuesParser::new(named).try_map(|name| name.parse::<TlsMode>())
}

/// The names of the stores.
pub(crate) fn engines() -> impl TypedValueParser<Value = Engine> {
    let named = |engine: Engine| PossibleValue::new(engine.name()).help(engine.summary());
    PossibleValuesParser::new(Engine::all().map(named)).try_map(|name| name.parse::<Engine>())
}

fn parse_node_id(text: &str) -> Result<NodeId, String> {
    match text.parse() {
        Ok(NodeId(0)) | Err(_) => Err("a node id is a whole number from 1 on".to_owned()),
        Ok(id) => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn args(flags: &[&str]) -> ServeArgs {
        let flags = std::iter::once(&"raft-host").chain(flags);
        Cli::try_parse_from(flags).expect("flags that exist").serve
    }

    #[test]
    fn a_flag_outranks_the_file_which_outranks_the_default() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = "data_dir = \"/from/file\"\n[node]\nheartbeat_ms = 30\nelection_ms = 500\n";
        std::fs::write(file.path(), text).expect("written");
        let file = file.path().to_str().expect("UTF-8");
        let config = args(&["--config", file, "--heartbeat-ms", "40"]).config().expect("valid");
        assert_eq!(config.node.heartbeat_ms, 40, "the flag");
        assert_eq!(config.node.election_ms, 500, "the file");
        assert_eq!(config.data_dir, PathBuf::from("/from/file"), "the file");
        assert_eq!(config.listen, crate::config::DEFAULT_LISTEN, "the default");
    }

    #[test]
    fn the_file_can_say_how_to_begin_and_what_to_log_and_flags_replace_it() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = "join = [\"a:1\", \"b:2\"]\nlearner = true\n[log]\nfilter = \"debug\"\n";
        std::fs::write(file.path(), text).expect("written");
        let file = file.path().to_str().expect("UTF-8");
        let begin = |flags: &[&str]| {
            let args = args(&[&["--config", file], flags].concat());
            let config = args.config().expect("valid");
            (args.startup(&config).expect("no token"), config.log.filter)
        };
        let (startup, filter) = begin(&[]);
        let join = startup.join.expect("in the file");
        assert_eq!(
            (join.seeds, join.learner, filter),
            (vec!["a:1".into(), "b:2".into()], true, "debug".into())
        );
        let (startup, filter) = begin(&["--plugin", "kv.wasm", "--log-filter", "warn"]);
        assert!(startup.join.is_none(), "the flag says otherwise");
        assert_eq!((startup.plugin, filter), (Some("kv.wasm".into()), "warn".to_owned()));
    }

    #[test]
    fn what_is_for_joining_only_is_refused_without_join() {
        for flags in [&["--learner"][..], &["--node-id", "3"]] {
            let message = args(flags).config().unwrap_err().to_string();
            assert!(message.contains("join"), "{message}");
        }
    }

    #[test]
    fn flags_and_file_are_checked_together() {
        let message = args(&["--heartbeat-ms", "500"]).config().unwrap_err().to_string();
        assert!(message.contains("election_ms (1000)"), "{message}");
    }

    fn options(command: clap::Command) -> Vec<clap::Arg> {
        command.get_arguments().cloned().collect()
    }

    fn long(option: &clap::Arg) -> &str {
        option.get_long().expect("each option has a name")
    }

    #[test]
    fn every_setting_with_a_flag_has_an_environment_variable_of_its_name() {
        for option in options(ServeArgs::augment_args(clap::Command::new(""))) {
            let own = format!("RAFT_HOST_{}", long(&option).replace('-', "_").to_uppercase());
            let expected = match long(&option) {
                // Said once, when a node begins.
                "learner" | "node-id" | "import" => None,
                // As in every program that logs with this library.
                "log-filter" => Some("RUST_LOG"),
                _ => Some(&*own),
            };
            assert_eq!(option.get_env().and_then(|name| name.to_str()), expected);
        }
    }

    /// The keys below a section of the file, with dots: serde lists them when it refuses one that
    /// does not exist.
    fn keys(section: &str, defaults: &toml::Table) -> Vec<String> {
        let head = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let refused = toml::from_str::<Config>(&format!("{head}no_such_key = 0\n"));
        let message = refused.expect_err("there is no such key").message().to_owned();
        let (_, names) = message.split_once("expected ").expect("it says which there are");
        let names = names.split('`').skip(1).step_by(2);
        names
            .flat_map(|name| {
                let dot = if section.is_empty() { "" } else { "." };
                let key = format!("{section}{dot}{name}");
                match defaults.get(name) {
                    Some(toml::Value::Table(inner)) => keys(&key, inner),
                    _ => vec![key],
                }
            })
            .collect()
    }

    fn all_keys() -> Vec<String> {
        keys("", &toml::Table::try_from(Config::default()).expect("TOML"))
    }

    /// The option of a key: the sections in front, but for those two whose keys need none.
    fn option_of(key: &str) -> String {
        let short = key.strip_prefix("node.").or_else(|| key.strip_prefix("consensus."));
        short.unwrap_or(key).replace(['.', '_'], "-")
    }

    /// Options that no key answers to, and why.
    const OPTIONS_ONLY: [(&str, &str); 5] = [
        ("import", "for one start: a file that stays must not name a state that is old by then"),
        ("node-id", "for one join: a file that stays must not ask for an id that is taken by then"),
        ("join-token-file", "for one join: a token counts once, and a restart needs none"),
        ("config", "names the file"),
        ("tls", "stands for those that name a file each"),
    ];

    /// Keys, or sections with their dot, that have no option, and why.
    const KEYS_ONLY: [(&str, &str); 26] = [
        ("tls.connection_age_ms", "set once for a deployment"),
        ("log.guest_lines_per_second", "set once for a deployment"),
        ("log.guest_lines_burst", "set once for a deployment"),
        ("node.max_inbox_bytes", "follows from the sizes of messages"),
        ("node.level_settle_ms", "set once for a deployment"),
        ("node.slow_sync_ms", "a matter of the disk"),
        ("node.snapshot.growth_percent", "set once for a deployment"),
        ("node.snapshot.costly_fuel", "set once for a deployment"),
        ("node.snapshot.pause_bytes", "a matter of how long a restart may take"),
        ("node.digest.pause_ms", "set once for a deployment"),
        ("consensus.entry_cache_bytes", "a matter of the machine's memory"),
        ("consensus.append_window_bytes", "a matter of the network"),
        ("consensus.max_unapplied_bytes", "a matter of the machine's memory"),
        ("consensus.max_inflight_messages", "a matter of the network"),
        ("consensus.max_uncommitted_bytes", "a matter of the machine's memory"),
        ("consensus.promotion_lag", "set once for a deployment"),
        ("consensus.promotion_lag_bytes", "set once for a deployment"),
        ("storage.", "a matter of the disk"),
        ("compiler.", "a matter of the machine"),
        ("transport.", "a matter of the network"),
        ("api.", "a matter of the network"),
        ("audit.", "set once for a deployment"),
        ("autopilot.", "set once for a deployment"),
        ("backup.", "set once for a deployment"),
        ("limits.", "replicated: they count when a cluster is formed, then `limits set` does"),
        ("client.", "for commands: their own options have these names"),
    ];

    #[test]
    fn an_option_and_a_key_that_mean_the_same_have_the_same_name() {
        let options = options(ServeArgs::augment_args(clap::Command::new("")));
        let mut without_key: Vec<&str> = options.iter().map(long).collect();
        let mut unused: Vec<&str> = KEYS_ONLY.iter().map(|(key, _)| *key).collect();
        for key in all_keys() {
            let option = option_of(&key);
            let listed = KEYS_ONLY
                .iter()
                .find(|(only, _)| *only == key || (only.ends_with('.') && key.starts_with(only)));
            let with_option = without_key.iter().position(|it| *it == option);
            match (with_option, listed) {
                (Some(at), None) => drop(without_key.remove(at)),
                (None, Some((only, _))) => unused.retain(|it| it != only),
                (None, None) => panic!("{key} has no option --{option}, and no reason is listed"),
                (Some(_), Some((_, reason))) => panic!("{key} has an option, but: {reason}"),
            }
        }
        assert_eq!(without_key, OPTIONS_ONLY.map(|(option, _)| option), "options without a key");
        assert!(unused.is_empty(), "no such keys: {unused:?}");
    }

    #[test]
    fn each_tuning_option_sets_the_key_of_its_name() {
        let defaults = toml::Table::try_from(Config::default()).expect("TOML");
        let keys = all_keys();
        for option in options(TuningArgs::augment_args(clap::Command::new(""))) {
            let key = keys.iter().find(|key| option_of(key) == long(&option)).expect("a key");
            let mut config = Config::default();
            args(&[&format!("--{}", long(&option)), "77"]).tuning.lay_over(&mut config);
            let mut expected = defaults.clone();
            let (sections, name) = key.rsplit_once('.').expect("all are in sections");
            let section = sections.split('.').fold(&mut expected, |table, section| {
                table.get_mut(section).and_then(toml::Value::as_table_mut).expect("a section")
            });
            section.insert(name.to_owned(), toml::Value::Integer(77));
            assert_eq!(toml::Table::try_from(config).expect("TOML"), expected, "{key}");
        }
    }

    #[test]
    fn options_of_commands_and_keys_of_the_client_have_the_same_names() {
        use crate::cli::remote::RemoteArgs;
        let options = options(RemoteArgs::augment_args(clap::Command::new("")));
        let names = options.iter().map(long).filter(|name| *name != "config");
        let mut names: Vec<String> = names.map(|name| format!("client.{name}")).collect();
        let keys = all_keys().into_iter().filter(|key| key.starts_with("client."));
        let mut keys: Vec<String> = keys.map(|key| key.replace('_', "-")).collect();
        names.sort();
        keys.sort();
        assert_eq!(names, keys);
    }

    #[test]
    fn several_addresses_to_join_are_separated_by_commas() {
        let args = args(&["--join", "a:1,b:2", "--learner"]);
        let config = args.config().expect("valid");
        let join = args.startup(&config).expect("no token").join.expect("given");
        assert_eq!(join.seeds, ["a:1", "b:2"]);
        assert!(join.learner);
    }
}
