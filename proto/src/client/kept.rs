//! What the cluster keeps for a session: for how long, and how much of it.
//!
//! Answers are kept until the client acknowledges them, and a session with too many of them takes
//! no more commands. So the client sends no more than will fit, as far as it can guess; a wrong
//! guess costs a refusal without effect, after which the command is sent again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::retry::Repeat;
use super::{Client, grpc};
use crate::v1::{self, Reason};

/// Most sequence numbers between the lowest unanswered command and the highest one.
pub(super) const WINDOW_MAX: u64 = 2048;
/// What nodes count for an answer besides its bytes.
const RESPONSE_OVERHEAD_BYTES: u64 = 64;
/// What a session keeps when the node does not say.
const RESPONSES_MAX_BYTES: u64 = 16 << 20;
/// A guess comes down by this part of what it was too high.
const FORGETFULNESS: u64 = 16;
/// The longest that passes before a session is looked after again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A session that rests lets go of answers when they are so many bytes.
const RELEASE_BYTES: u64 = 64 << 10;

/// How much the cluster keeps for a session, and how much of that the next answers will take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    responses_max: u64,
    bytes_max: u64,
    /// How long the next answer is expected to be.
    guess: u64,
}

impl Room {
    pub(super) fn new(opened: &v1::OpenSessionResponse) -> Room {
        let or = |said: u64, default| if said == 0 { default } else { said };
        let bytes_max = or(opened.responses_max_bytes, RESPONSES_MAX_BYTES);
        let responses_max = or(opened.responses_max, WINDOW_MAX);
        Room { responses_max, bytes_max, guess: bytes_max / WINDOW_MAX }
    }

    /// Whether one more command may be sent beside `open` unanswered ones, and answers that are not
    /// acknowledged, this many with these bytes.
    pub(super) fn takes(&self, open: u64, answers: u64, bytes: u64) -> bool {
        let expected = bytes.saturating_add(self.guess.saturating_mul(open.saturating_add(1)));
        answers.saturating_add(open) < self.responses_max && expected <= self.bytes_max
    }

    /// Learns from an answer that cost so many bytes.
    pub(super) fn learn(&mut self, bytes: u64) {
        self.guess = match self.guess.checked_sub(bytes) {
            Some(excess) => self.guess - excess / FORGETFULNESS,
            None => bytes,
        };
        self.guess = self.guess.max(self.bytes_max / WINDOW_MAX);
    }
}

/// What the cluster counts for keeping an answer.
pub(super) fn cost_bytes(response: &v1::ApplyResponse) -> u64 {
    use v1::outcome::Kind;
    let payload = match response.outcome.as_ref().and_then(|outcome| outcome.kind.as_ref()) {
        Some(Kind::Ok(bytes) | Kind::Rejected(bytes)) => bytes.len() as u64,
        Some(Kind::Trapped(_)) | None => 0,
    };
    payload + RESPONSE_OVERHEAD_BYTES
}

/// Keeps a session alive while its owner has no commands, until it is dropped.
#[derive(Debug)]
pub(super) struct KeepAlive {
    life: Arc<Mutex<Life>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Life {
    used_at: Instant,
    /// The cluster was told that all answers up to this one have arrived.
    told: u64,
    /// And they have up to this one.
    have: u64,
    /// About so many bytes of answers are between the two.
    bytes: u64,
}

impl KeepAlive {
    /// Must be called inside of a runtime.
    pub(super) fn start(client: Client, session_id: u64, ttl: Duration) -> KeepAlive {
        let life = Life { used_at: Instant::now(), told: 0, have: 0, bytes: 0 };
        let life = Arc::new(Mutex::new(life));
        let task = tokio::spawn(look_after(client, session_id, ttl, Arc::clone(&life)));
        KeepAlive { life, task }
    }

    /// A command leaves, which acknowledges all answers up to one.
    pub(super) fn sent(&self, acknowledged: u64) {
        let mut life = lock(&self.life);
        life.used_at = Instant::now();
        life.tell(acknowledged);
    }

    /// An answer has arrived, and with it all answers up to `acknowledged` have.
    pub(super) fn received(&self, acknowledged: u64, bytes: u64) {
        let mut life = lock(&self.life);
        life.have = life.have.max(acknowledged);
        life.bytes = life.bytes.saturating_add(bytes);
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Life {
    fn tell(&mut self, acknowledged: u64) {
        self.told = self.told.max(acknowledged);
        if self.told >= self.have {
            self.bytes = 0;
        }
    }
}

/// No code panics while it holds this lock.
fn lock(life: &Mutex<Life>) -> MutexGuard<'_, Life> {
    life.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look_after(client: Client, session_id: u64, ttl: Duration, life: Arc<Mutex<Life>>) {
    let rest = ttl / 3;
    let pause = rest.min(LOOK_EVERY);
    loop {
        sleep(pause).await;
        let (is_due, acknowledged) = {
            let life = lock(&life);
            let rested = life.used_at.elapsed();
            let is_large = life.bytes >= RELEASE_BYTES && life.have > life.told;
            (rested >= rest || (is_large && rested >= pause), life.have)
        };
        if !is_due {
            continue;
        }
        let group = client.options.group.clone();
        let request = v1::KeepSessionRequest { group, session_id, acknowledged };
        let kept = client
            .call(Repeat::Always, rest, |channel| {
                let request = request.clone();
                async move { grpc(channel).keep_session(request).await }
            })
            .await;
        match kept {
            Ok(_) => {
                let mut life = lock(&life);
                life.used_at = Instant::now();
                life.tell(acknowledged);
            }
            // It is gone, which the next command will be told.
            Err(error) if error.reason() == Some(Reason::SessionExpired) => return,
            Err(error) => tracing::debug!(session_id, %error, "the session was not kept alive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guess_follows_long_answers_at_once_and_short_ones_slowly() {
        let opened = v1::OpenSessionResponse {
            responses_max: 4096,
            responses_max_bytes: 16 << 20,
            ..Default::default()
        };
        let mut room = Room::new(&opened);
        assert!(room.takes(2047, 0, 0), "short answers fill the window");
        assert!(!room.takes(2048, 0, 0));
        room.learn(4 << 20);
        assert!(room.takes(3, 0, 0) && !room.takes(4, 0, 0) && !room.takes(3, 1, 64));
        room.learn(64);
        assert!(room.takes(3, 0, 0) && !room.takes(5, 0, 0));
        (0..200).for_each(|_| room.learn(64));
        assert!(room.takes(2000, 0, 0));
    }

    #[test]
    fn a_session_that_keeps_few_answers_is_sent_few_commands() {
        let opened = v1::OpenSessionResponse { responses_max: 2, ..Default::default() };
        let room = Room::new(&opened);
        assert!(room.takes(0, 1, 0) && room.takes(1, 0, 0) && !room.takes(1, 1, 0));
    }
}
