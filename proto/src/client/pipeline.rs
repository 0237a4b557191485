//! Many exactly-once commands in flight over one stream.
//!
//! ```text
//!   PipelineSender ──► inbox ──► driver ══ ApplyStream ══► node
//!       ▲ waits for room            │ window: submitted, not yet taken by the caller
//!       └──────── permits ◄── PipelineResults ◄── answered, in order of submission
//! ```
//!
//! The driver numbers the commands. When the stream breaks it goes to another node and sends
//! all unanswered ones again with the numbers they have; the session makes sure that none
//! happens twice. A command that a node could not take (busy, no leader) is sent again after a
//! pause. So each happens once, but after such a repetition not always in the order of
//! submission. In an ordered session it is always in that order: the cluster has what overtakes wait,
//! a number whose command is refused for good is skipped, and when the fate of one command is not
//! known, no command behind it is sent any more. What is acknowledged to the cluster is everything below the oldest unanswered one.
//! No more is sent than the cluster can keep answers of ([`super::kept`]).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use std::sync::Arc;

use super::endpoints::Picked;
use super::error::Failure;
use super::kept::{KeepAlive, Room as Kept, WINDOW_MAX, cost_bytes};
use super::retry::{Attempts, Backoff, FAR, after, endless, shortest_attempt};
use super::session;
use super::{Client, ClientError, Effect, grpc};
use crate::v1;

/// Most bytes of commands that one message carries, save for a single larger command.
const BATCH_BYTES: usize = 1 << 20;
/// Most commands that one message carries.
const BATCH_COMMANDS: usize = 512;
/// How long the end of a pipeline waits for its session to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How much may be in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineOptions {
    /// Most commands submitted and not yet taken from the results; at most 2048.
    pub window: u32,
    /// Most bytes of those commands. One larger command goes alone.
    pub window_bytes: u32,
}

impl Default for PipelineOptions {
    fn default() -> PipelineOptions {
        PipelineOptions { window: 1024, window_bytes: 16 << 20 }
    }
}

/// Where commands go in. Drop it (or all clones) to let the pipeline end.
#[derive(Clone, Debug)]
pub struct PipelineSender {
    inbox: mpsc::UnboundedSender<Submitted>,
    window: Arc<Semaphore>,
    window_bytes: Arc<Semaphore>,
    window_bytes_max: u32,
    patience: Duration,
}

/// Where answers come out.
#[derive(Debug)]
pub struct PipelineResults {
    results: mpsc::UnboundedReceiver<(PipelineResult, Room)>,
    driver: Option<JoinHandle<()>>,
}

/// The end of one command.
#[derive(Debug)]
pub struct PipelineResult {
    /// Position of the command among all submitted ones, from 0.
    pub tag: u64,
    /// Its answer, or why there is none and whether it may have happened.
    pub result: Result<v1::ApplyResponse, ClientError>,
}

/// A place in the window; free when dropped.
#[derive(Debug)]
struct Room {
    _command: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Submitted {
    command: Bytes,
    room: Room,
    deadline: Instant,
}

impl PipelineSender {
    /// Submits a command, after waiting for room in the window. Results must be taken at the
    /// same time, or the window fills and this waits for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] when the results were dropped.
    pub async fn send(&self, command: impl Into<Bytes>) -> Result<(), ClientError> {
        let command = command.into();
        let bytes = u32::try_from(command.len()).unwrap_or(u32::MAX).min(self.window_bytes_max);
        let closed = |_| ClientError::Closed;
        let _command = Arc::clone(&self.window).acquire_owned().await.map_err(closed)?;
        let window_bytes = Arc::clone(&self.window_bytes);
        let _bytes = window_bytes.acquire_many_owned(bytes).await.map_err(closed)?;
        let deadline = after(self.patience);
        let submitted = Submitted { command, room: Room { _command, _bytes }, deadline };
        self.inbox.send(submitted).map_err(|_| ClientError::Closed)
    }
}

impl PipelineResults {
    /// The next result, in order of submission; `None` when the senders are gone and everything
    /// was answered.
    pub async fn next(&mut self) -> Option<PipelineResult> {
        match self.results.recv().await {
            Some((result, _room)) => Some(result),
            None => {
                if let Some(driver) = self.driver.take()
                    && let Err(error) = driver.await
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
                None
            }
        }
    }
}

impl Drop for PipelineResults {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// A session that the pipeline has for itself.
pub(super) struct Owned {
    pub(super) id: u64,
    /// The sequence number of the first command.
    pub(super) first: u64,
    pub(super) room: Kept,
    pub(super) alive: KeepAlive,
    pub(super) ordered: bool,
}

pub(super) fn start(
    client: Client,
    session: Owned,
    options: PipelineOptions,
) -> (PipelineSender, PipelineResults) {
    let patience = client.options.deadline;
    let Owned { id: session_id, first: first_sequence, room: kept, alive, ordered } = session;
    let window = u64::from(options.window).clamp(1, WINDOW_MAX) as usize;
    let window_bytes_max = options.window_bytes.max(1);
    // Unbounded channels: what they hold is bounded by the window's permits.
    let (inbox_sender, inbox) = mpsc::unbounded_channel();
    let (results_sender, results) = mpsc::unbounded_channel();
    let windows =
        [Arc::new(Semaphore::new(window)), Arc::new(Semaphore::new(window_bytes_max as usize))];
    let driver = Driver {
        client,
        session_id,
        inbox,
        inbox_open: true,
        results: results_sender,
        slots: VecDeque::new(),
        first_sequence,
        first_tag: 0,
        unanswered: 0,
        held_back: false,
        session_gone: None,
        ordered,
        broken: None,
        overtaken: None,
        kept,
        alive,
    };
    let closer = CloseOnDrop(windows.clone());
    let driver = tokio::spawn(async move {
        let _closer = closer;
        driver.run().await;
    });
    let [window, window_bytes] = windows;
    let sender =
        PipelineSender { inbox: inbox_sender, window, window_bytes, window_bytes_max, patience };
    (sender, PipelineResults { results, driver: Some(driver) })
}

/// Wakes senders that wait for room when the driver ends, in whatever way.
struct CloseOnDrop([Arc<Semaphore>; 2]);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(|window| window.close());
    }
}

/// A submitted command whose result was not handed out yet.
struct Slot {
    command: Bytes,
    room: Room,
    deadline: Instant,
    attempts: Attempts,
    /// Sent on the current stream and not answered there.
    in_flight: bool,
    result: Option<Result<v1::ApplyResponse, ClientError>>,
    /// In an ordered session: the command was refused for good. That is the result as soon as its
    /// number is skipped, which is what is sent now.
    refused: Option<ClientError>,
    /// What the cluster keeps of the answer until it is acknowledged.
    kept_bytes: u64,
}

impl Slot {
    /// Whether it surely had no effect so far, and its time is over too soon for another attempt to
    /// be sure of an answer.
    fn ends_without_effect(&self, soonest_end: Instant) -> bool {
        self.attempts.effect == Effect::None && self.deadline < soonest_end
    }
}

struct Driver {
    client: Client,
    session_id: u64,
    inbox: mpsc::UnboundedReceiver<Submitted>,
    inbox_open: bool,
    results: mpsc::UnboundedSender<(PipelineResult, Room)>,
    /// Slot `n` has sequence number `first_sequence + n` and tag `first_tag + n`.
    slots: VecDeque<Slot>,
    first_sequence: u64,
    first_tag: u64,
    /// Slots without a result.
    unanswered: usize,
    /// Some were not sent because the cluster could not keep their answers.
    held_back: bool,
    /// Why the session is gone, once it is.
    session_gone: Option<String>,
    /// Commands are executed in the order of their numbers.
    ordered: bool,
    /// Of an ordered session: why one of its commands has no answer, and who said so. Those behind it
    /// have none either.
    broken: Option<(Failure, String)>,
    /// Of an ordered session: why a command must be sent again, while those behind it wait at the
    /// cluster. All are sent again, in their order.
    overtaken: Option<Failure>,
    kept: Kept,
    alive: KeepAlive,
}

/// An open stream.
struct Connection {
    picked: Picked,
    requests: mpsc::UnboundedSender<v1::ApplyStreamRequest>,
    responses: Streaming<v1::ApplyStreamResponse>,
    /// When to send again what the node could not take.
    resend_at: Option<Instant>,
    backoff: Backoff,
    /// When something was answered last, or nothing was in flight.
    progress_at: Instant,
}

/// Why the driver leaves a stream.
enum Leave {
    Finished,
    Failed(Failure),
}

impl Driver {
    async fn run(mut self) {
        let mut backoff = Backoff::new(&self.client.options);
        loop {
            // A stream is opened for commands only, so an idle pipeline holds no connection up.
            while self.unanswered == 0 {
                let mut submitted = Vec::new();
                if self.inbox.recv_many(&mut submitted, BATCH_COMMANDS).await == 0 {
                    return self.end().await;
                }
                self.take_in(submitted);
            }
            let picked = self.client.endpoints.pick();
            // What is late already is not sent at all.
            self.give_up(&Failure::timeout("it was not sent"), &picked);
            self.hand_out();
            if self.unanswered == 0 {
                continue;
            }
            let mut answered = false;
            let failure = match self.connect(picked.clone()).await {
                Err(failure) => failure,
                Ok(connection) => match self.converse(connection, &mut answered).await {
                    Leave::Finished => return self.end().await,
                    Leave::Failed(failure) => failure,
                },
            };
            if self.results.is_closed() {
                return;
            }
            let failure = self.client.weigh(&picked, failure);
            self.client.endpoints.rotate(&picked);
            if answered {
                backoff = Backoff::new(&self.client.options);
            }
            self.stream_lost(&failure, &picked);
            tracing::debug!(
                endpoint = picked.address,
                message = failure.message,
                unanswered = self.unanswered,
                "a stream of commands was lost; they are sent again"
            );
            let pause = after(backoff.pause());
            sleep_until(self.first_deadline().map_or(pause, |deadline| deadline.min(pause))).await;
        }
    }

    /// Everything is answered and handed out.
    async fn end(self) {
        let Driver { client, session_id, results, session_gone, .. } = self;
        drop(results);
        if session_gone.is_none() {
            // Best effort: a session that is not closed expires.
            let closing = timeout(CLOSE_PATIENCE, session::close(&client, session_id)).await;
            if !matches!(closing, Ok(Ok(()))) {
                tracing::debug!(session_id, "the session was not closed and will expire");
            }
        }
    }

    /// Opens a stream and sends everything that is unanswered.
    async fn connect(&mut self, picked: Picked) -> Result<Connection, Failure> {
        let until = after(self.client.options.attempt_timeout);
        let until = self.first_deadline().map_or(until, |deadline| deadline.min(until));
        let (requests, outgoing) = mpsc::unbounded_channel();
        // Before the stream is open: some servers answer only to a first message.
        self.send_waiting(&requests);
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let cluster = self.client.cluster_by(&picked, until).await?;
        // A stream has no end of its own: each command says how long it is waited for.
        let mut grpc = grpc(endless(picked.clone(), Some(cluster)));
        let opening = grpc.apply_stream(outgoing);
        match timeout_at(until, opening).await {
            Ok(Ok(response)) => Ok(Connection {
                picked,
                requests,
                responses: response.into_inner(),
                resend_at: None,
                backoff: Backoff::new(&self.client.options),
                progress_at: Instant::now(),
            }),
            Ok(Err(status)) => Err(Failure::from_status(&status)),
            Err(_) => Err(Failure::timeout("the stream did not open")),
        }
    }

    /// Sends and receives until the stream fails or the work is done.
    async fn converse(&mut self, mut connection: Connection, answered: &mut bool) -> Leave {
        let patience = self.client.options.attempt_timeout;
        loop {
            if !self.inbox_open && self.slots.is_empty() {
                return Leave::Finished;
            }
            let in_flight = self.slots.iter().any(|slot| slot.in_flight);
            if !in_flight {
                connection.progress_at = Instant::now();
            }
            let stalled_at = connection.progress_at + patience.min(FAR);
            let deadline = self.first_deadline();
            let resend_at = connection.resend_at;
            let mut submitted = Vec::new();
            tokio::select! {
                response = connection.responses.next() => {
                    let response = match response {
                        Some(Ok(response)) => response,
                        Some(Err(status)) => return Leave::Failed(Failure::from_status(&status)),
                        None => return Leave::Failed(Failure::stream_ended()),
                    };
                    connection.progress_at = Instant::now();
                    for result in response.results {
                        *answered |= self.take_result(result, &mut connection);
                    }
                    if let Some(failure) = self.overtaken.take() {
                        return Leave::Failed(failure);
                    }
                    if self.held_back && connection.resend_at.is_none() {
                        self.send_waiting(&connection.requests);
                    }
                }
                count = self.inbox.recv_many(&mut submitted, BATCH_COMMANDS), if self.inbox_open => {
                    if count == 0 {
                        self.inbox_open = false;
                    }
                    self.take_in(submitted);
                    // While something waits for its pause, all wait: the node is busy.
                    if connection.resend_at.is_none() {
                        self.send_waiting(&connection.requests);
                    }
                }
                () = sleep_until(resend_at.unwrap_or(stalled_at)), if resend_at.is_some() => {
                    connection.resend_at = None;
                    self.send_waiting(&connection.requests);
                }
                () = sleep_until(stalled_at), if in_flight => {
                    return Leave::Failed(Failure::timeout("the node did not answer"));
                }
                () = sleep_until(deadline.unwrap_or(stalled_at)), if deadline.is_some() => {
                    self.give_up(&Failure::timeout("no answer"), &connection.picked);
                }
                () = self.results.closed() => return Leave::Failed(Failure::stream_ended()),
            }
            self.hand_out();
        }
    }

    /// Numbers new commands. With the session gone they end at once, unsent.
    fn take_in(&mut self, submitted: Vec<Submitted>) {
        for Submitted { command, room, deadline } in submitted {
            let attempts = Attempts::none();
            let error = match (&self.session_gone, &self.broken) {
                (Some(message), _) => {
                    Some(session::expired(self.session_id, message.clone(), attempts.effect))
                }
                (None, Some((failure, address))) => Some(attempts.error(failure.clone(), address)),
                (None, None) => None,
            };
            let result = error.map(Err);
            self.unanswered += usize::from(result.is_none());
            self.slots.push_back(Slot {
                command,
                room,
                deadline,
                attempts,
                in_flight: false,
                result,
                refused: None,
                kept_bytes: 0,
            });
        }
        self.hand_out();
    }

    /// Sends what has no result and is not in flight, in order, as far as the cluster can keep the
    /// answers.
    fn send_waiting(&mut self, requests: &mpsc::UnboundedSender<v1::ApplyStreamRequest>) {
        self.held_back = false;
        let unanswered = self.slots.iter().position(|slot| slot.result.is_none());
        let Some(oldest) = unanswered else {
            return;
        };
        let acknowledged = self.first_sequence + oldest as u64 - 1;
        let (mut open, mut answers, mut bytes) = (0, 0, 0);
        for slot in self.slots.iter().skip(oldest) {
            open += u64::from(slot.in_flight);
            answers += u64::from(slot.kept_bytes > 0);
            bytes += slot.kept_bytes;
        }
        let now = Instant::now();
        let soonest_end = now + shortest_attempt(self.client.options.deadline);
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        for (n, slot) in self.slots.iter_mut().enumerate().skip(oldest) {
            if slot.in_flight || slot.result.is_some() {
                continue;
            }
            if slot.ends_without_effect(soonest_end) {
                match self.ordered {
                    // What is behind it would wait for it.
                    true => break,
                    false => continue,
                }
            }
            // The oldest always goes: without its answer nothing can be acknowledged.
            if n != oldest && !self.kept.takes(open, answers, bytes) {
                self.held_back = true;
                break;
            }
            slot.in_flight = true;
            open += 1;
            let full = batch_bytes + slot.command.len() > BATCH_BYTES && !batch.is_empty();
            if full || batch.len() == BATCH_COMMANDS {
                send_batch(requests, std::mem::take(&mut batch));
                batch_bytes = 0;
            }
            batch_bytes += slot.command.len();
            let sequence = self.first_sequence + n as u64;
            let skip = slot.refused.is_some();
            let session =
                v1::SessionCommand { session_id: self.session_id, sequence, acknowledged, skip };
            let command = if skip { Bytes::new() } else { slot.command.clone() };
            let request = self.client.options.apply_request(command, Some(session));
            let left = slot.deadline.saturating_duration_since(now).as_millis();
            // 0 would mean that it does not say.
            let timeout_ms = u64::try_from(left).unwrap_or(u64::MAX).max(1);
            batch.push(v1::TaggedCommand { tag: sequence, request: Some(request), timeout_ms });
        }
        if !batch.is_empty() {
            self.alive.sent(acknowledged);
            send_batch(requests, batch);
        }
    }

    /// Takes one answer; true when it finished a command.
    fn take_result(&mut self, result: v1::TaggedResult, connection: &mut Connection) -> bool {
        use v1::tagged_result::Result as Tagged;
        let number = result.tag.checked_sub(self.first_sequence);
        let slot = number
            .and_then(|number| usize::try_from(number).ok())
            .and_then(|number| self.slots.get_mut(number))
            .filter(|slot| slot.result.is_none());
        // Answered before, for example with a late second answer.
        let Some(slot) = slot else {
            return false;
        };
        let finished = match result.result {
            Some(Tagged::Response(response)) => match slot.refused.take() {
                Some(refused) => Err(refused),
                None => Ok(response),
            },
            Some(Tagged::Error(error)) => {
                let failure = Failure::from_stream(&error);
                if failure.is_session_expired() {
                    // That answer itself is no effect; an earlier attempt may have had one.
                    let effect = slot.attempts.effect;
                    self.session_gone = Some(failure.message.clone());
                    Err(session::expired(self.session_id, failure.message, effect))
                } else {
                    slot.attempts.failed(failure.effect);
                    if failure.transient {
                        slot.in_flight = false;
                        if self.ordered {
                            self.overtaken = Some(Failure { effect: Effect::Unknown, ..failure });
                            return false;
                        }
                        let backoff = &mut connection.backoff;
                        connection
                            .resend_at
                            .get_or_insert_with(|| Instant::now() + backoff.pause_after(&failure));
                        return false;
                    }
                    let address = &connection.picked.address;
                    if self.ordered && slot.refused.is_none() && is_its_own_fault(&failure) {
                        // When its number is skipped, no attempt can have an effect any more.
                        slot.refused = Some(Attempts::none().error(failure, address));
                        slot.in_flight = false;
                        self.held_back = true;
                        return false;
                    }
                    if self.ordered {
                        slot.in_flight = false;
                        self.break_off(&failure, address);
                        return true;
                    }
                    Err(slot.attempts.error(failure, address))
                }
            }
            None => return false,
        };
        connection.backoff = Backoff::new(&self.client.options);
        slot.in_flight = false;
        if let Ok(response) = &finished {
            slot.kept_bytes = cost_bytes(response);
            self.kept.learn(slot.kept_bytes);
        }
        slot.result = Some(finished);
        self.unanswered -= 1;
        true
    }

    /// The stream is gone, and with it the answers of what was in flight.
    fn stream_lost(&mut self, failure: &Failure, picked: &Picked) {
        for slot in &mut self.slots {
            if slot.in_flight {
                slot.in_flight = false;
                slot.attempts.failed(failure.effect);
            }
        }
        self.give_up(failure, picked);
        if !failure.transient {
            match self.ordered {
                true => self.break_off(failure, &picked.address),
                false => self.refuse_all(failure, picked),
            }
        }
        self.hand_out();
    }

    /// Ends the commands whose deadline is over.
    fn give_up(&mut self, failure: &Failure, picked: &Picked) {
        let now = Instant::now();
        let mut is_broken = false;
        for slot in self.slots.iter_mut().filter(|slot| slot.result.is_none()) {
            if slot.deadline > now {
                break;
            }
            is_broken = self.ordered;
            if slot.in_flight {
                slot.in_flight = false;
                slot.attempts.failed(failure.effect);
            }
            let failure = Failure { transient: true, ..failure.clone() };
            slot.result = Some(Err(slot.attempts.error(failure, &picked.address)));
            self.unanswered -= 1;
        }
        if is_broken {
            let failure = Failure { transient: true, ..failure.clone() };
            self.break_off(&failure, &picked.address);
        }
    }

    /// A command of an ordered session has no answer: what is behind it shall not happen, or waits for
    /// it until the session ends.
    fn break_off(&mut self, failure: &Failure, address: &str) {
        for slot in self.slots.iter_mut().filter(|slot| slot.result.is_none()) {
            if slot.in_flight {
                slot.in_flight = false;
                slot.attempts.failed(Effect::Unknown);
            }
            slot.result = Some(Err(slot.attempts.error(failure.clone(), address)));
            self.unanswered -= 1;
        }
        self.broken = Some((failure.clone(), address.to_owned()));
    }

    /// The cluster refuses the stream as such, so it would refuse it again.
    fn refuse_all(&mut self, failure: &Failure, picked: &Picked) {
        for slot in self.slots.iter_mut().filter(|slot| slot.result.is_none()) {
            slot.result = Some(Err(slot.attempts.error(failure.clone(), &picked.address)));
            self.unanswered -= 1;
        }
    }

    /// Hands out results in order of submission.
    fn hand_out(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.result.is_some()) {
            let slot = self.slots.pop_front().expect("just seen");
            let result = slot.result.expect("just seen");
            let result = PipelineResult { tag: self.first_tag, result };
            self.alive.received(self.first_sequence, slot.kept_bytes);
            self.first_tag += 1;
            self.first_sequence += 1;
            // Failing means that nobody wants results any more; the loops notice.
            let _ = self.results.send((result, slot.room));
        }
    }

    fn first_deadline(&self) -> Option<Instant> {
        self.slots.iter().find(|slot| slot.result.is_none()).map(|slot| slot.deadline)
    }
}

/// Whether a refusal is about this command, and another one may be taken. Commands may be denied by their
/// class; who may give none is denied the skipping of their numbers as well.
fn is_its_own_fault(failure: &Failure) -> bool {
    use tonic::Code;
    failure.effect == Effect::None
        && matches!(failure.code, Code::InvalidArgument | Code::OutOfRange | Code::PermissionDenied)
}

fn send_batch(
    requests: &mpsc::UnboundedSender<v1::ApplyStreamRequest>,
    commands: Vec<v1::TaggedCommand>,
) {
    // Failing means that the stream is gone, which its receiving half reports.
    let _ = requests.send(v1::ApplyStreamRequest { commands });
}
