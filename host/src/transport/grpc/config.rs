//! Timing and limits of the gRPC transport.

use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tonic::transport::{Endpoint, Server};

/// Largest gRPC message that peers accept of each other. An append and one entry more fit well.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Largest part of a snapshot on the wire.
pub const MAX_SNAPSHOT_PART_BYTES: usize = 1 << 20;

/// HTTP/2 frames of the default size (16 KiB) would cut every batch into many.
const FRAME_BYTES: u32 = 1 << 20;

/// Timing and limits of the gRPC transport. The defaults suit a LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// Bytes that may wait for one peer; more is dropped.
    pub queue_bytes: u64,
    /// Messages that may wait for one peer; more are dropped.
    pub queue_messages: usize,
    /// What is queued goes out together, in envelopes of at most about this size.
    pub envelope_bytes: u64,
    /// HTTP/2 flow control window: bytes under way to one peer.
    pub window_bytes: u32,
    /// Size of the parts that a snapshot is sent in, at most 1 MiB.
    pub snapshot_chunk_bytes: usize,
    /// A snapshot transfer that makes no progress for so long is given up.
    pub snapshot_stall_timeout_ms: u64,
    /// How long dialing may take.
    pub connect_timeout_ms: u64,
    /// An idle connection is probed this often.
    pub keepalive_interval_ms: u64,
    /// A connection whose probe is not answered for so long is closed.
    pub keepalive_timeout_ms: u64,
    /// First pause after a connection was lost; doubles with each failure.
    pub reconnect_min_ms: u64,
    /// Longest pause between attempts to connect.
    pub reconnect_max_ms: u64,
    /// Pause after a peer refused this node (another cluster, node or protocol).
    pub refused_retry_ms: u64,
    /// A full or broken queue is reported at most this often per peer.
    pub unreachable_interval_ms: u64,
    /// How long a shutdown waits for queued messages to leave.
    pub flush_timeout_ms: u64,
}

impl Default for TransportConfig {
    fn default() -> TransportConfig {
        TransportConfig {
            queue_bytes: 64 << 20,
            queue_messages: 16_384,
            envelope_bytes: 2 << 20,
            window_bytes: 8 << 20,
            snapshot_chunk_bytes: 512 << 10,
            snapshot_stall_timeout_ms: 60_000,
            connect_timeout_ms: 2_000,
            keepalive_interval_ms: 2_000,
            keepalive_timeout_ms: 3_000,
            reconnect_min_ms: 50,
            reconnect_max_ms: 2_000,
            refused_retry_ms: 5_000,
            unreachable_interval_ms: 500,
            flush_timeout_ms: 500,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("transport setting `{field}` is {value}: it must be {must_be}")]
pub struct TransportConfigError {
    /// Name of the setting.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What it must be.
    pub must_be: String,
}

impl TransportConfig {
    /// Checks all settings, also against each other.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), TransportConfigError> {
        let within = |field, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let must_be = format!("at least {least} and at most {most}");
            Err(TransportConfigError { field, value, must_be })
        };
        const HOUR_MS: u64 = 3_600_000;
        let max_message = MAX_MESSAGE_BYTES as u64;
        let max_part = MAX_SNAPSHOT_PART_BYTES as u64;
        within("queue_bytes", self.queue_bytes, 1 << 20, 64 << 30)?;
        within("queue_messages", self.queue_messages as u64, 64, 1 << 24)?;
        within("envelope_bytes", self.envelope_bytes, 4 << 10, max_message / 4)?;
        within("window_bytes", u64::from(self.window_bytes), 64 << 10, 1 << 30)?;
        within("snapshot_chunk_bytes", self.snapshot_chunk_bytes as u64, 1 << 10, max_part)?;
        within("snapshot_stall_timeout_ms", self.snapshot_stall_timeout_ms, 1_000, HOUR_MS)?;
        within("connect_timeout_ms", self.connect_timeout_ms, 10, HOUR_MS)?;
        within("keepalive_interval_ms", self.keepalive_interval_ms, 100, HOUR_MS)?;
        within("keepalive_timeout_ms", self.keepalive_timeout_ms, 100, HOUR_MS)?;
        within("reconnect_min_ms", self.reconnect_min_ms, 1, HOUR_MS)?;
        within("reconnect_max_ms", self.reconnect_max_ms, self.reconnect_min_ms, HOUR_MS)?;
        within("refused_retry_ms", self.refused_retry_ms, self.reconnect_min_ms, HOUR_MS)?;
        within("unreachable_interval_ms", self.unreachable_interval_ms, 1, HOUR_MS)?;
        within("flush_timeout_ms", self.flush_timeout_ms, 0, HOUR_MS)
    }

    /// A server whose connections have the windows, frames and probes that peers need. The
    /// peer service must be mounted in one made like this: with HTTP/2's defaults a stream
    /// carries only 64 KiB per round trip.
    pub fn server_builder(&self) -> Server {
        Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(self.window_bytes)
            .initial_connection_window_size(self.window_bytes.saturating_mul(2))
            .max_frame_size(FRAME_BYTES)
            .http2_keepalive_interval(Some(millis(self.keepalive_interval_ms)))
            .http2_keepalive_timeout(Some(millis(self.keepalive_timeout_ms)))
    }

    /// How a connection to a peer is used.
    pub(super) fn tune(&self, endpoint: Endpoint) -> Endpoint {
        endpoint
            .connect_timeout(millis(self.connect_timeout_ms))
            .initial_stream_window_size(self.window_bytes)
            .initial_connection_window_size(self.window_bytes)
            .http2_keep_alive_interval(millis(self.keepalive_interval_ms))
            .keep_alive_timeout(millis(self.keepalive_timeout_ms))
            .keep_alive_while_idle(true)
    }

    /// How long to wait after this many failures in a row: exponential, with jitter so that
    /// the nodes of a cluster do not dial in step.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let factor = 1_u64 << failures.saturating_sub(1).min(16);
        let most = self.reconnect_min_ms.saturating_mul(factor).min(self.reconnect_max_ms);
        millis(rand::rng().random_range(most.div_ceil(2)..=most))
    }
}

pub(super) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_bad_setting_is_named() {
        let config = TransportConfig::default();
        assert_eq!(config.validate(), Ok(()));
        let bad = TransportConfig { snapshot_chunk_bytes: 2 << 20, ..config.clone() };
        assert_eq!(
            bad.validate().expect_err("too large").to_string(),
            "transport setting `snapshot_chunk_bytes` is 2097152: \
             it must be at least 1024 and at most 1048576"
        );
        let bad = TransportConfig { reconnect_min_ms: 3_000, ..config };
        assert_eq!(bad.validate().expect_err("contradiction").field, "reconnect_max_ms");
    }

    #[test]
    fn a_config_file_may_leave_settings_out_but_not_invent_them() {
        let config: TransportConfig = toml::from_str("connect_timeout_ms = 7").expect("valid");
        assert_eq!(config, TransportConfig { connect_timeout_ms: 7, ..Default::default() });
        assert!(toml::from_str::<TransportConfig>("speed = 9").is_err());
    }

    #[test]
    fn the_backoff_doubles_and_stays_within_its_bounds() {
        let config = TransportConfig::default();
        for failures in 0..100 {
            let pause = config.backoff(failures);
            assert!(pause >= millis(25) && pause <= millis(2_000), "{pause:?}");
        }
        assert!(config.backoff(1) <= millis(50));
        assert!(config.backoff(20) >= millis(1_000));
    }
}
