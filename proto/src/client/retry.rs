//! When and how often a request is tried again.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::error::Failure;
use super::{Client, ClientError, ClientOptions, Effect};

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
        let pause = self.next.min(self.max);
        self.next = pause.saturating_mul(2);
        pause.mul_f64(rand::random_range(0.5..=1.0))
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
        let Failure { code, message, transient, .. } = failure;
        if transient {
            ClientError::Unavailable {
                endpoint: endpoint.to_owned(),
                message,
                code,
                effect: self.effect,
                attempts: self.made,
            }
        } else {
            ClientError::Refused { code, message, effect: self.effect }
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
        attempt: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_counting(repeat, patience, attempt).await.map_err(|(error, _)| error)
    }

    /// Like [`Client::call`]; the error comes with what the attempts *before* the last one may
    /// have done.
    pub(super) async fn call_counting<T, F>(
        &self,
        repeat: Repeat,
        patience: Duration,
        attempt: impl Fn(Channel) -> F,
    ) -> Result<T, (ClientError, Effect)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::new(&self.options);
        let mut attempts = Attempts::none();
        loop {
            let picked = self.endpoints.pick();
            let now = Instant::now();
            let until = match repeat {
                Repeat::Always => deadline.min(now + self.options.attempt_timeout),
                // It has no reason to end early. Even at the very end there is time to learn
                // that the node cannot be reached: otherwise the effect would be unknown
                // without need.
                Repeat::Patiently | Repeat::WithoutEffect => {
                    deadline.max(now + self.options.connect_timeout.mul_f64(1.25))
                }
            };
            let failure = match timeout_at(until, attempt(picked.channel.clone())).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => Failure::from_status(&status),
                Err(_) => Failure::timeout("no answer"),
            };
            let before = attempts.effect;
            attempts.failed(failure.effect);
            if failure.transient {
                self.endpoints.rotate(&picked);
            }
            let repeatable = failure.transient
                && (repeat != Repeat::WithoutEffect || failure.effect == Effect::None);
            let pause = backoff.pause();
            if !repeatable || Instant::now() + pause >= deadline {
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
}
