//! Which cluster a client talks to.
//!
//! An address may come to belong to another cluster: a node that lost its data and is started with the
//! command line that once formed its cluster forms a new one. So a client asks which cluster the first
//! node that answers belongs to, before it asks for anything that has an effect, and sends that id with
//! each request from then on. Every other cluster refuses such a request before anything is done.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::endpoints::Picked;
use super::error::Failure;
use super::retry::{after, until};
use super::{Client, grpc};
use crate::v1;

/// Names a cluster for its whole life: 32 hexadecimal digits, as `raft-host status` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u128);

/// Not the id of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the id of a cluster has 32 hexadecimal digits, as `raft-host status` shows it: {0:?} has not"
)]
pub struct BadClusterId(String);

impl ClusterId {
    /// As messages hold it: 16 bytes.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.to_array())
    }

    pub(super) fn to_array(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// What [`ClusterId::to_bytes`] made; `None` for anything that has not 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<ClusterId> {
        bytes.try_into().ok().map(|bytes| ClusterId(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = BadClusterId;

    fn from_str(text: &str) -> Result<ClusterId, BadClusterId> {
        let is_it = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_it.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(ClusterId).ok_or_else(|| BadClusterId(text.chars().take(64).collect()))
    }
}

/// The last time that nobody told which cluster it is.
#[derive(Debug)]
pub(super) struct Unanswered {
    endpoint: usize,
    ended: Instant,
    failure: Failure,
}

impl Client {
    /// The cluster that this client talks to: the one of its options, or else of the node that
    /// answered first. `None` before that.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    /// The client's cluster, which this endpoint decides if none has yet.
    pub(super) async fn cluster_by(
        &self,
        picked: &Picked,
        end: Instant,
    ) -> Result<ClusterId, Failure> {
        if let Some(cluster) = self.cluster() {
            return Ok(cluster);
        }
        let began = Instant::now();
        let end = end.min(after(self.options.attempt_timeout));
        // However many requests wait for it, the question is asked once.
        let Ok(mut asked) = timeout_at(end, self.asked.lock()).await else {
            return Err(Failure::timeout("no answer").unsent());
        };
        if let Some(cluster) = self.cluster() {
            return Ok(cluster);
        }
        match &*asked {
            Some(last) if last.endpoint == picked.number && last.ended >= began => {
                return Err(last.failure.clone());
            }
            _ => {}
        }
        let failure = match self.ask_cluster(picked, end).await {
            Ok(cluster) => return Ok(*self.cluster.get_or_init(|| cluster)),
            // It was only a question.
            Err(failure) => failure.unsent(),
        };
        let (endpoint, ended) = (picked.number, Instant::now());
        *asked = Some(Unanswered { endpoint, ended, failure: failure.clone() });
        Err(failure)
    }

    async fn ask_cluster(&self, picked: &Picked, end: Instant) -> Result<ClusterId, Failure> {
        let mut client = grpc(until(picked.clone(), end, None));
        match timeout_at(end, client.cluster(v1::ClusterRequest {})).await {
            Ok(Ok(answer)) => ClusterId::from_bytes(&answer.get_ref().cluster_id)
                .ok_or_else(|| Failure::nonsense("the id of a cluster has 16 bytes")),
            Ok(Err(status)) => Err(Failure::from_status(&status)),
            Err(_) => Err(Failure::timeout("no answer")),
        }
    }

    /// What a failed attempt means, given which cluster answered. A node of another one is left
    /// alone for a while, and what it has refused may be asked of those that are left.
    pub(super) fn weigh(&self, picked: &Picked, failure: Failure) -> Failure {
        let (Some(ours), Some(theirs)) = (self.cluster(), failure.cluster) else {
            return failure;
        };
        if ours == theirs {
            return failure;
        }
        let left = self.endpoints.leave_foreign(picked);
        if left.is_news {
            tracing::warn!(
                endpoint = picked.address,
                "an endpoint belongs to cluster {theirs}, and is not asked: this client talks to \
                 cluster {ours}"
            );
        }
        let reason = failure.detail.as_deref().map(v1::ErrorDetail::reason);
        let message = match reason {
            // The node knows more of it.
            Some(v1::Reason::ClusterRestored) => format!("{}: {}", picked.address, failure.message),
            _ => format!(
                "{} belongs to cluster {theirs}, and this client talks to cluster {ours}; no endpoint \
                 is left to ask",
                picked.address
            ),
        };
        Failure { message, transient: left.others > 0, ..failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_cluster_survives_text_and_nonsense_is_none() {
        let text = "00c1".repeat(8);
        assert_eq!(text.parse::<ClusterId>().unwrap().to_string(), text);
        assert_eq!("AB".repeat(16).parse(), "ab".repeat(16).parse::<ClusterId>());
        for nonsense in
            ["", "c1", &"g".repeat(32), &format!("+{}", "1".repeat(31)), &"1".repeat(33)]
        {
            let error = nonsense.parse::<ClusterId>().unwrap_err();
            assert!(error.to_string().contains("32 hexadecimal digits"), "{error}");
        }
    }
}
