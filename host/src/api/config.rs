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
    /// Of these, from one address, or one network of IPv6 (/64); 0: the half of them.
    pub max_connections_per_address: usize,
    /// Of these, by which nobody has said who it is, where that must be said; 0: a quarter of them.
    pub max_unauthenticated: usize,
    /// Requests that one caller may make of this node in a second, whatever the connection; those of
    /// streams count one each. A caller is a principal, or an address while nobody must say who they
    /// are. 0: any number.
    pub requests_per_second: u64,
    /// Of these, so many at once; 0: those of a second.
    pub requests_burst: u64,
    /// Requests in a second from one address of those who have not said who they are, where that must be
    /// said. 0: any number.
    pub unauthenticated_per_second: u64,
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
            max_connections_per_address: 0,
            max_unauthenticated: 0,
            requests_per_second: 0,
            requests_burst: 0,
            unauthenticated_per_second: 100,
            idle_timeout_ms: 600_000,
            connect_timeout_ms: 1_000,
            shutdown_ms: 3_000,
        }
    }
}

impl ApiConfig {
    /// Connections at once from one address.
    pub(super) fn connections_per_address(&self) -> usize {
        or_part(self.max_connections_per_address, self.max_connections, 2)
    }

    /// Connections at once of those who have not said who they are.
    pub(super) fn connections_of_strangers(&self) -> usize {
        or_part(self.max_unauthenticated, self.max_connections, 4)
    }

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
        if self.requests_burst > 0 && self.requests_per_second == 0 {
            return Err(format!(
                "api.requests_burst ({}) needs a rate: set api.requests_per_second as well",
                self.requests_burst
            ));
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

/// What is set, or a part of the whole.
fn or_part(set: usize, whole: usize, part: usize) -> usize {
    match set {
        0 => (whole / part).max(1),
        set => set.min(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_are_not_set_are_parts_of_those_that_are() {
        let config = ApiConfig { max_connections: 100, ..ApiConfig::default() };
        assert_eq!(config.connections_per_address(), 50);
        assert_eq!(config.connections_of_strangers(), 25);
        let config =
            ApiConfig { max_connections_per_address: 7, max_unauthenticated: 1_000, ..config };
        assert_eq!(config.connections_per_address(), 7);
        assert_eq!(config.connections_of_strangers(), 100);
    }

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        assert_eq!(ApiConfig::default().validate(), Ok(()));
        let config = ApiConfig { window_bytes: 1, ..ApiConfig::default() };
        assert!(config.validate().unwrap_err().contains("window_bytes (1)"));
        let config = ApiConfig { requests_burst: 5, ..ApiConfig::default() };
        assert!(config.validate().unwrap_err().contains("requests_burst (5)"));
        let config = ApiConfig { request_timeout_ms: 0, ..ApiConfig::default() };
        assert!(config.validate().unwrap_err().contains("request_timeout_ms"));
    }
}
