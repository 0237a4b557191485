//! When and how often a request is tried again.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::endpoints::Picked;
use super::error::Failure;
use super::{Client, ClientError, ClientOptions, ClusterId, Effect};
use crate::dial::Bearer;
use crate::mean_for;
use crate::v1::Reason;

/// Which failed attempts may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Every transient failure: repeating is harmless.
    Always,
    /// Every transient failure, but none is made of an answer that takes its time: another attempt
    /// would begin the same work anew.
    Patiently,
    /// Only transient failures that surely had no effect.
    WithoutEffect,
}

/// Whom a request may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// A node of the client's cluster.
    Cluster,
    /// While the client has no cluster yet, any node: the question is about that node.
    Anybody,
}

/// Waiting longer is as good as waiting for ever, and could overflow.
pub(super) const FAR: Duration = Duration::from_secs(86_400 * 365);

/// When so much time has passed from now on.
pub(super) fn after(patience: Duration) -> Instant {
    Instant::now() + patience.min(FAR)
}

/// No attempt begins with less time than this, or than a quarter of what the whole request has: its
/// answer might come too late, and what surely had no effect would end as of unknown effect.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);

/// The least time that another attempt is worth beginning with; see [`SHORTEST_ATTEMPT`].
pub(super) fn shortest_attempt(patience: Duration) -> Duration {
    SHORTEST_ATTEMPT.min(patience / 4)
}

/// A connection whose requests tell how long they are waited for (`grpc-timeout`), and which
/// cluster they are meant for.
pub(super) type Timed = InterceptedService<Channel, Labels>;

/// Writes the headers; see [`Timed`].
#[derive(Clone, Debug)]
pub(super) struct Labels {
    timeout: Option<Duration>,
    cluster: Option<ClusterId>,
    bearer: Bearer,
}

impl Interceptor for Labels {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        if let Some(cluster) = self.cluster {
            mean_for(&mut request, cluster.to_array());
        }
        self.bearer.sign(&mut request);
        Ok(request)
    }
}

/// For requests that are waited for until then.
pub(super) fn until(picked: Picked, until: Instant, cluster: Option<ClusterId>) -> Timed {
    let left = until.saturating_duration_since(Instant::now());
    let labels = Labels { timeout: Some(left), cluster, bearer: picked.bearer };
    InterceptedService::new(picked.channel, labels)
}

/// For streams, which end by themselves.
pub(super) fn endless(picked: Picked, cluster: Option<ClusterId>) -> Timed {
    let labels = Labels { timeout: None, cluster, bearer: picked.bearer };
    InterceptedService::new(picked.channel, labels)
}

/// One attempt of a request: whom to ask, and until when.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) picked: Picked,
    /// Whose answer it shall be; `None`: anybody's.
    pub(super) cluster: Option<ClusterId>,
    pub(super) end: Instant,
}

impl Attempt {
    /// Asks by a call of its own.
    pub(super) async fn ask<T, F>(self, call: impl FnOnce(Timed) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = until(self.picked, self.end, self.cluster);
        match timeout_at(self.end, call(channel)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::from_status(&status)),
            Err(_) => Err(Failure::timeout("no answer")),
        }
    }
}

/// Pauses between attempts: each up to twice as long as the one before, the half of it random.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(options: &ClientOptions) -> Backoff {
        Backoff { next: options.backoff_min, max: options.backoff_max }
    }

    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.max).min(FAR);
        self.next = pause.saturating_mul(2);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// At least as long as the node has asked for: where it counts requests, all of that, for it would refuse
    /// earlier ones; else no longer than pauses get.
    pub(super) fn pause_after(&mut self, failure: &Failure) -> Duration {
        let detail = failure.detail.as_ref();
        let asked = detail.and_then(|detail| detail.retry_after_ms).unwrap_or(0);
        let most = match detail.map(|detail| detail.reason()) {
            Some(Reason::RateLimited) => FAR,
            _ => self.max,
        };
        self.pause().max(Duration::from_millis(asked).min(most))
    }
}

/// What is known of a request after its failed attempts.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    pub(super) made: u32,
    /// Of all attempts together.
    pub(super) effect: Effect,
}

impl Attempts {
    pub(super) fn none() -> Attempts {
        Attempts { made: 0, effect: Effect::None }
    }

    pub(super) fn failed(&mut self, effect: Effect) {
        self.made = self.made.saturating_add(1);
        if effect == Effect::Unknown {
            self.effect = Effect::Unknown;
        }
    }

    /// The error for a request that ends with `failure`, which is counted already.
    pub(super) fn error(&self, failure: Failure, endpoint: &str) -> ClientError {
        let Failure { code, message, transient, detail, .. } = failure;
        if transient {
            ClientError::Unavailable {
                endpoint: endpoint.to_owned(),
                message,
                code,
                effect: self.effect,
                attempts: self.made,
                detail,
            }
        } else {
            ClientError::Refused { code, message, effect: self.effect, detail }
        }
    }
}

impl Client {
    /// Makes a unary call until it succeeds, is refused, may not be repeated, or `patience`
    /// is over.
    pub(super) async fn call<T, F>(
        &self,
        repeat: Repeat,
        patience: Duration,
        call: impl Fn(Timed) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = self.attempt(Whom::Cluster, repeat, patience, |it| it.ask(&call)).await;
        asked.map_err(|(error, _)| error)
    }

    /// Like [`Client::call`], of a question about the node that answers.
    pub(super) async fn ask_anybody<T, F>(
        &self,
        patience: Duration,
        call: impl Fn(Timed) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = self.attempt(Whom::Anybody, Repeat::Always, patience, |it| it.ask(&call)).await;
        asked.map_err(|(error, _)| error)
    }

    /// Makes attempts until one succeeds, is refused, may not be repeated, or `patience` is over.
    /// The error comes with what the attempts *before* the last one may have done.
    pub(super) async fn attempt<T, F>(
        &self,
        whom: Whom,
        repeat: Repeat,
        patience: Duration,
        ask: impl Fn(Attempt) -> F,
    ) -> Result<T, (ClientError, Effect)>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = after(patience);
        let mut backoff = Backoff::new(&self.options);
        let mut attempts = Attempts::none();
        loop {
            let picked = self.endpoints.pick();
            let end = match repeat {
                Repeat::Always => deadline.min(after(self.options.attempt_timeout)),
                // It has no reason to end early.
                Repeat::Patiently | Repeat::WithoutEffect => deadline,
            };
            let cluster = match whom {
                Whom::Cluster => self.cluster_by(&picked, end).await.map(Some),
                Whom::Anybody => Ok(self.cluster()),
            };
            let answer = match cluster {
                Ok(cluster) => ask(Attempt { picked: picked.clone(), cluster, end }).await,
                Err(failure) => Err(failure),
            };
            let mut failure = match answer {
                Ok(answer) => {
                    self.endpoints.note(&picked, true);
                    return Ok(answer);
                }
                Err(failure) => self.weigh(&picked, failure),
            };
            if !failure.is_answer
                && let Some(why) = self.endpoints.trouble(&picked)
            {
                failure.message = why;
            }
            self.endpoints.note(&picked, failure.is_answer);
            let before = attempts.effect;
            attempts.failed(failure.effect);
            if failure.transient {
                self.endpoints.rotate(&picked);
            }
            let repeatable = failure.transient
                && (repeat != Repeat::WithoutEffect || failure.effect == Effect::None);
            let pause = backoff.pause_after(&failure);
            // An attempt that ends too soon, or while a connection is being made, would leave the
            // effect unknown without need.
            let shortest = match attempts.effect {
                Effect::None => shortest_attempt(patience),
                Effect::Unknown => Duration::ZERO,
            };
            let needed = match repeat {
                Repeat::WithoutEffect if !self.endpoints.answers() => {
                    shortest.max(self.endpoints.connect_timeout())
                }
                _ => shortest,
            };
            if !repeatable || after(pause.saturating_add(needed)) >= deadline {
                return Err((attempts.error(failure, &picked.address), before));
            }
            tracing::debug!(
                endpoint = picked.address,
                code = ?failure.code,
                message = failure.message,
                "a request failed and is tried again"
            );
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::ErrorDetail;

    #[test]
    fn pauses_grow_to_their_bound() {
        let options = ClientOptions {
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(35),
            ..ClientOptions::default()
        };
        let mut backoff = Backoff::new(&options);
        for bound_ms in [10, 20, 35, 35] {
            let pause = backoff.pause();
            let bound = Duration::from_millis(bound_ms);
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} of {bound:?}");
        }
    }

    #[test]
    fn a_node_that_counts_requests_is_given_the_time_that_it_asks_for() {
        let options = ClientOptions {
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(10),
            ..ClientOptions::default()
        };
        let refused = |reason: Reason| {
            let detail = ErrorDetail {
                reason: reason.into(),
                retry_after_ms: Some(700),
                ..ErrorDetail::default()
            };
            let trailer = detail.to_trailer(reason.code(), "words");
            Failure::from_status(&Status::with_details(reason.code(), "words", trailer))
        };
        let mut backoff = Backoff::new(&options);
        let limited = refused(Reason::RateLimited);
        assert!(limited.transient);
        assert_eq!(backoff.pause_after(&limited), Duration::from_millis(700));
        assert_eq!(backoff.pause_after(&refused(Reason::Busy)), Duration::from_millis(10));
    }
}
