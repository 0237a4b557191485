//! The server's flags, laid over the configuration file.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, ConfigError, LogFormat};
use crate::server::{Join, Startup};
use crate::storage::Engine;
use crate::types::NodeId;
use crate::wasm::CompiledModules;

/// Flags of `raft-host` without a subcommand: serve. What is absent comes from the
/// environment, then from the file, then from the defaults.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// The state machine of a new cluster: a WebAssembly module.
    #[arg(long, value_name = "FILE", env = "RAFT_HOST_PLUGIN", help_heading = FORMING)]
    pub plugin: Option<PathBuf>,
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
    /// Address for /metrics (Prometheus) and /health over HTTP; port 0 lets the system choose
    /// [default: none].
    #[arg(
        long, value_name = "HOST:PORT", env = "RAFT_HOST_METRICS_LISTEN", help_heading = SERVER
    )]
    pub metrics_listen: Option<String>,
    /// Store of the log: raft-engine, sled or memory [default: what the data directory has, or
    /// raft-engine].
    #[arg(long, value_name = "ENGINE", env = "RAFT_HOST_STORAGE", help_heading = SERVER)]
    pub storage: Option<Engine>,
    /// What to log, in the syntax of RUST_LOG [default: warn,raft_host=info].
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", help_heading = SERVER)]
    pub log: Option<String>,
    /// How log lines look [default: human].
    #[arg(long, value_name = "FORMAT", env = "RAFT_HOST_LOG_FORMAT", help_heading = SERVER)]
    pub log_format: Option<LogFormat>,
    /// Timing and limits.
    #[command(flatten)]
    pub tuning: TuningArgs,
}

const FORMING: &str = "Forming a cluster (a restart needs none of these)";
const SERVER: &str = "Server";
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
    /// Entries between snapshots [default: 10000].
    snapshot_threshold: u64 = "RAFT_HOST_SNAPSHOT_THRESHOLD" => node.snapshot.threshold;
    /// Snapshots kept [default: 2].
    snapshot_keep: usize = "RAFT_HOST_SNAPSHOT_KEEP" => node.snapshot.keep;
    /// Entries between two comparisons of all nodes' states; 0: entries do not count [default:
    /// 10000].
    digest_every_entries: u64 = "RAFT_HOST_DIGEST_EVERY_ENTRIES" => node.digest.every_entries;
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
        set(&mut config.log.filter, &self.log);
        set(&mut config.log.format, &self.log_format);
        config.advertise = self.advertise.clone().or(config.advertise);
        config.metrics_listen = self.metrics_listen.clone().or(config.metrics_listen);
        config.storage_engine = self.storage.or(config.storage_engine);
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
        config.validate()?;
        Ok(config)
    }

    /// How the node is to begin, by what [`ServeArgs::config`] made of file and flags.
    pub(crate) fn startup(&self, config: &Config) -> Startup {
        let join = (!config.join.is_empty()).then(|| Join {
            seeds: config.join.clone(),
            learner: config.learner,
            node_id: self.node_id,
        });
        let modules = CompiledModules::by_children(config.compiler.clone());
        Startup { plugin: config.plugin.clone(), join, modules }
    }
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
            (args.startup(&config), config.log.filter)
        };
        let (startup, filter) = begin(&[]);
        let join = startup.join.expect("in the file");
        assert_eq!(
            (join.seeds, join.learner, filter),
            (vec!["a:1".into(), "b:2".into()], true, "debug".into())
        );
        let (startup, filter) = begin(&["--plugin", "kv.wasm", "--log", "warn"]);
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

    #[test]
    fn every_setting_with_a_flag_has_an_environment_variable() {
        use clap::CommandFactory as _;
        for argument in Cli::command().get_arguments() {
            let name = argument.get_id().as_str();
            if !["learner", "node_id", "help"].contains(&name) {
                assert!(argument.get_env().is_some(), "{name} has none");
            }
        }
    }

    #[test]
    fn several_addresses_to_join_are_separated_by_commas() {
        let args = args(&["--join", "a:1,b:2", "--learner"]);
        let config = args.config().expect("valid");
        let join = args.startup(&config).join.expect("given");
        assert_eq!(join.seeds, ["a:1", "b:2"]);
        assert!(join.learner);
    }
}
