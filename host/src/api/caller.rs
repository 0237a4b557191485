//! What a request says about itself: its deadline, and whether another node passed it on.

use std::future::Future;
use std::time::Duration;

use raft_host_proto::FORWARDED_KEY;
use raft_host_proto::v1::Reason;
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::MetadataMap;

use super::failure::Failure;

/// Who asks, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Another node passed the request on: it must not travel further.
    pub(super) forwarded: bool,
    /// When the answer is of no use any more.
    pub(super) deadline: Instant,
    /// Whether the client chose the deadline.
    pub(super) has_deadline: bool,
}

/// Longest time by which a deadline is anticipated, so that the answer that says so arrives: the
/// asking began before a connection was there, and either machine may have other things to do.
const MAX_MARGIN: Duration = Duration::from_millis(500);
/// A far deadline is as good as an endless one, and cannot overflow.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// When so much time has passed from now on.
fn after(patience: Duration) -> Instant {
    Instant::now() + patience.min(FAR)
}

/// When to answer somebody who waits for so long.
fn in_time(asked: Duration) -> Instant {
    after(asked - MAX_MARGIN.min(asked / 5))
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>, default: Duration) -> Caller {
        let asked = timeout(request.metadata());
        Caller {
            forwarded: request.metadata().contains_key(FORWARDED_KEY),
            deadline: asked.map_or_else(|| after(default), in_time),
            has_deadline: asked.is_some(),
        }
    }

    /// When to answer a request of a stream that came with a timeout; 0: without one, and it takes
    /// the default.
    pub(super) fn deadline_within(&self, timeout_ms: u64, default: Duration) -> Instant {
        let own = match timeout_ms {
            0 => after(default),
            asked => in_time(Duration::from_millis(asked)),
        };
        match self.has_deadline {
            true => own.min(self.deadline),
            false => own,
        }
    }

    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs something that may have an effect, at most until the deadline.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout_at(self.deadline, work).await.unwrap_or_else(|_| {
            Err(Failure::unknown(
                Reason::DeadlineExceeded,
                "no answer in time; it may have been done, or may still be",
            ))
        })
    }

    /// As [`Caller::within`], of something that changes nothing.
    pub(super) async fn within_question<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout_at(self.deadline, work).await.unwrap_or_else(|_| {
            Err(Failure::none(Reason::DeadlineExceeded, "no answer in time; nothing was changed"))
        })
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_and_nonsense_is_ignored() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ascii"));
            timeout(&metadata)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for nonsense in ["", "S", "3", "-1S", "3X", "123456789S", "+3S"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
