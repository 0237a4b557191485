//! Limits and patience of the gRPC services.

use serde::{Deserialize, Serialize};

/// The `[api]` part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Longest a request may take when its client sets no deadline, in milliseconds.
    pub request_timeout_ms: u64,
    /// The same for upgrades, whose modules are compiled, in milliseconds.
    pub upgrade_timeout_ms: u64,
    /// Commands of one `ApplyStream`, or questions of one `QueryStream`, between their arrival and
    /// their answer; beyond that the stream is not read further.
    pub stream_max_commands: usize,
    /// Bytes of these.
    pub stream_max_bytes: usize,
    /// Largest message that is decoded at all, in bytes. Larger than any entry, so that a
    /// command that is too long gets an answer rather than a broken connection.
    pub max_message_bytes: usize,
    /// HTTP/2 flow-control window of a stream, in bytes; a connection has twice as much. So many
    /// bytes may wait unread on each connection, and a stream carries as much per round trip:
    /// over long distances snapshots and writes of many bytes need more.
    pub window_bytes: u32,
    /// Concurrent calls on one connection.
    pub max_concurrent_streams: u32,
    /// Connections at once, besides those of peers. Fewer when the limit of open files is low.
    pub max_connections: usize,
    /// A connection without a call is ended after this time, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Longest time to reach the leader, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long calls may go on after the server was asked to stop, in milliseconds.
    pub shutdown_ms: u64,
}

impl Default for ApiConfig {
    fn default() -> ApiConfig {
        ApiConfig {
            request_timeout_ms: 30_000,
            upgrade_timeout_ms: 600_000,
            stream_max_commands: 16_384,
            stream_max_bytes: 8 << 20,
            max_message_bytes: 4 << 20,
            window_bytes: 256 << 10,
            max_concurrent_streams: 512,
            max_connections: 512,
            idle_timeout_ms: 600_000,
            connect_timeout_ms: 1_000,
            shutdown_ms: 3_000,
        }
    }
}

impl ApiConfig {
    /// Says what makes no sense.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        for (name, value) in [
            ("request_timeout_ms", self.request_timeout_ms),
            ("upgrade_timeout_ms", self.upgrade_timeout_ms),
            ("stream_max_commands", self.stream_max_commands as u64),
            ("stream_max_bytes", self.stream_max_bytes as u64),
            ("max_concurrent_streams", u64::from(self.max_concurrent_streams)),
            ("max_connections", self.max_connections as u64),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
        ] {
            if value == 0 {
                return Err(format!("api.{name} must not be 0"));
            }
        }
        let longest = raft_host_proto::MESSAGE_MAX_BYTES;
        if !(2 << 20..=longest).contains(&self.max_message_bytes) {
            return Err(format!(
                "api.max_message_bytes ({}) must be between {} (2 MiB: parts of modules are half as \
                 long) and {longest}",
                self.max_message_bytes,
                2 << 20
            ));
        }
        if !(65_535..=i32::MAX as u32).contains(&self.window_bytes) {
            return Err(format!(
                "api.window_bytes ({}) must be between 65535 and {}: HTTP/2 allows no other",
                self.window_bytes,
                i32::MAX
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        assert_eq!(ApiConfig::default().validate(), Ok(()));
        let config = ApiConfig { window_bytes: 1, ..ApiConfig::default() };
        assert!(config.validate().unwrap_err().contains("window_bytes (1)"));
        let config = ApiConfig { request_timeout_ms: 0, ..ApiConfig::default() };
        assert!(config.validate().unwrap_err().contains("request_timeout_ms"));
    }
}
