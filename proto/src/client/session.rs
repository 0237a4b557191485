//! Exactly-once commands, one call each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::kept::{KeepAlive, Room, WINDOW_MAX, cost_bytes};
use super::pipeline::{self, PipelineOptions, PipelineResults, PipelineSender};
use super::retry::Repeat;
use super::{Client, ClientError, Effect, grpc};
use crate::v1::{self, Reason};

/// A session: every command applied through it happens exactly once, however often it has to
/// be sent. Commands may run concurrently; then their order is not defined. It is kept alive until
/// it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    id: u64,
    ttl_ms: u64,
    numbers: Mutex<Numbers>,
    /// Told when `numbers` gets room.
    room: Notify,
    alive: KeepAlive,
}

/// A session whose commands are applied in the order in which they are submitted, each exactly once,
/// whatever becomes of leaders and streams meanwhile.
#[derive(Debug)]
pub struct OrderedSession(Session);

impl OrderedSession {
    pub(super) fn new(session: Session) -> OrderedSession {
        OrderedSession(session)
    }

    /// The session's id.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// See [`Session::ttl_ms`].
    pub fn ttl_ms(&self) -> u64 {
        self.0.ttl_ms()
    }

    /// Turns the session into a pipeline: many commands in flight over one stream, applied and answered
    /// in the order of their submission.
    ///
    /// A command that is refused for what it is (too long, say) is passed over. When one has no
    /// answer for another reason, those behind it fail as well: none of them is applied unless it was
    /// submitted before that was known, and then only behind it.
    pub fn pipeline(self, options: PipelineOptions) -> (PipelineSender, PipelineResults) {
        self.0.start(options, true)
    }

    /// See [`Session::close`].
    ///
    /// # Errors
    ///
    /// As [`Session::close`].
    pub async fn close(self) -> Result<(), ClientError> {
        self.0.close().await
    }
}

/// Which sequence numbers are in use.
#[derive(Debug)]
struct Numbers {
    next: u64,
    /// Given out and not finished. All numbers below the lowest are acknowledged.
    open: BTreeSet<u64>,
    /// What the cluster keeps of finished ones that are not acknowledged, in bytes.
    kept: BTreeMap<u64, u64>,
    room: Room,
}

impl Numbers {
    fn acknowledged(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next) - 1
    }

    fn has_room(&self) -> bool {
        let bytes = self.kept.values().sum();
        // The lowest one always goes: without its answer nothing can be acknowledged.
        self.open.is_empty()
            || (self.next - self.acknowledged() <= WINDOW_MAX
                && self.room.takes(self.open.len() as u64, self.kept.len() as u64, bytes))
    }

    fn finish(&mut self, sequence: u64, bytes: Option<u64>) {
        self.open.remove(&sequence);
        if let Some(bytes) = bytes {
            self.room.learn(bytes);
            self.kept.insert(sequence, bytes);
        }
        self.kept = self.kept.split_off(&(self.acknowledged() + 1));
    }
}

impl Session {
    pub(super) fn new(client: Client, opened: v1::OpenSessionResponse) -> Session {
        let v1::OpenSessionResponse { session_id: id, ttl_ms, .. } = opened;
        let alive = KeepAlive::start(client.clone(), id, Duration::from_millis(ttl_ms));
        let numbers = Numbers {
            next: 1,
            open: BTreeSet::new(),
            kept: BTreeMap::new(),
            room: Room::new(&opened),
        };
        Session { client, id, ttl_ms, numbers: Mutex::new(numbers), room: Notify::new(), alive }
    }

    /// The session's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How long the session lives when the cluster hears nothing of it, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    /// Applies a command exactly once: repeats it until it is answered or the deadline is over.
    ///
    /// # Errors
    ///
    /// [`ClientError::effect`] says whether the command may have happened. When this future is
    /// dropped early, it may have.
    pub async fn apply(&self, command: impl Into<Bytes>) -> Result<v1::ApplyResponse, ClientError> {
        let command = command.into();
        let mut number = self.take_number().await;
        let result = self
            .client
            .apply_counting(Repeat::Always, || {
                let session = v1::SessionCommand {
                    session_id: self.id,
                    sequence: number.sequence,
                    acknowledged: self.lock().acknowledged(),
                    skip: false,
                };
                self.alive.sent(session.acknowledged);
                self.client.options.apply_request(command.clone(), Some(session))
            })
            .await;
        number.bytes = result.as_ref().ok().map(cost_bytes);
        result.map_err(|(error, before)| match error.reason() {
            // That answer itself is no effect; an earlier, lost attempt may have had one.
            Some(Reason::SessionExpired) => expired(self.id, error.to_string(), before),
            _ => error,
        })
    }

    /// Turns the session into a pipeline: many commands in flight over one stream, each exactly
    /// once, answered in the order they were submitted. They are applied in that order too,
    /// unless some have to be sent again: submit a command that must come after another one when
    /// that one is answered, or use an [`OrderedSession`]. The session is closed when the pipeline
    /// ends.
    pub fn pipeline(self, options: PipelineOptions) -> (PipelineSender, PipelineResults) {
        self.start(options, false)
    }

    fn start(self, options: PipelineOptions, ordered: bool) -> (PipelineSender, PipelineResults) {
        let (first, room) = {
            let numbers = self.lock();
            (numbers.next, numbers.room)
        };
        let session = pipeline::Owned { id: self.id, first, room, alive: self.alive, ordered };
        pipeline::start(self.client, session, options)
    }

    /// Closes the session; the cluster forgets its responses.
    ///
    /// # Errors
    ///
    /// When no node did it in time. The session then expires by itself.
    pub async fn close(self) -> Result<(), ClientError> {
        close(&self.client, self.id).await
    }

    async fn take_number(&self) -> Number<'_> {
        loop {
            let room = self.room.notified();
            if let Some(sequence) = self.try_take() {
                return Number { session: self, sequence, bytes: None };
            }
            room.await;
        }
    }

    fn try_take(&self) -> Option<u64> {
        let mut numbers = self.lock();
        let sequence = numbers.next;
        if !numbers.has_room() {
            return None;
        }
        numbers.next += 1;
        numbers.open.insert(sequence);
        Some(sequence)
    }

    /// A panic elsewhere cannot leave the numbers half changed.
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sequence number in use. Given back also when the caller stops waiting: nobody will ask for
/// the answer again, and a copy that arrives late is refused because it is acknowledged.
struct Number<'a> {
    session: &'a Session,
    sequence: u64,
    /// What the cluster keeps of its answer, if there is one.
    bytes: Option<u64>,
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        let mut numbers = self.session.lock();
        numbers.finish(self.sequence, self.bytes);
        self.session.alive.received(numbers.acknowledged(), self.bytes.unwrap_or(0));
        drop(numbers);
        self.session.room.notify_waiters();
    }
}

pub(super) async fn close(client: &Client, session_id: u64) -> Result<(), ClientError> {
    let request = v1::CloseSessionRequest { group: client.options.group.clone(), session_id };
    client
        .call(Repeat::Always, client.options.deadline, |channel| {
            let request = request.clone();
            async move { grpc(channel).close_session(request).await }
        })
        .await
        .map(drop)
}

/// What a lost session means for a command of which earlier attempts had `effect`.
pub(super) fn expired(session_id: u64, message: String, effect: Effect) -> ClientError {
    ClientError::SessionExpired { session_id, message, effect }
}
