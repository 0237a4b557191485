//! Commands of any number of callers over one stream.
//!
//! ```text
//!   apply ──► attempts ([`super::retry`]) ──► queued ──► Outgoing ══ ApplyStream ══► node
//!     ▲                                                                               │
//!     └──────────────────── by tag ◄── sent ◄── the line's task ◄─────────────────────┘
//! ```
//!
//! Each caller makes its own attempts, as it does for any request: its deadline, its pauses and what is
//! known of its command are nobody else's. An attempt leaves its command with the *line* of the
//! endpoint, a stream that is opened for the first one and ends when it was not used for a while. What
//! waits when the connection is ready to send goes out in one message: the message is made when HTTP/2
//! asks for it, so nothing waits for a timer, no more is buffered than the node takes, and a lone
//! command leaves at once.
//!
//! A caller that no longer waits takes its command out of the line, wherever it is. What was still queued
//! surely has no effect. Long commands are requests of their own, between which HTTP/2 shares the
//! connection: they would gain nothing by company, and hold it up.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::Stream;

use super::error::Failure;
use super::retry::{Attempt, Repeat, Timed, Whom, endless};
use super::{Client, ClientError, Effect, grpc};
use crate::v1;

/// A line that was not used for so long, or up to twice as long, is closed.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Longer commands are requests of their own.
const LONG_BYTES: usize = 64 << 10;
/// Most bytes of commands that one message carries.
const MESSAGE_BYTES: usize = 256 << 10;
/// Most commands that one message carries.
const MESSAGE_COMMANDS: usize = 512;
/// Bytes of commands that the lines of a client take before they are answered; callers wait for
/// room in the order in which they came.
const ROOM_BYTES: usize = 16 << 20;
/// Bookkeeping of a command, counted as bytes.
const COMMAND_OVERHEAD: usize = 256;

/// What an attempt came to.
type Answer = Result<v1::ApplyResponse, Failure>;

impl Client {
    /// Applies what `request` makes, anew for each attempt. The error comes with what the attempts
    /// *before* the last one may have done.
    pub(super) async fn apply_counting(
        &self,
        repeat: Repeat,
        request: impl Fn() -> v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, (ClientError, Effect)> {
        let patience = self.options.deadline;
        self.attempt(Whom::Cluster, repeat, patience, |attempt| {
            let request = request();
            async move {
                if self.options.sharing && request.command.len() <= LONG_BYTES {
                    return self.shared.ask(attempt, request).await;
                }
                attempt.ask(|channel| async { grpc(channel).apply(request).await }).await
            }
        })
        .await
    }
}

/// The lines of a client. They end with it.
#[derive(Debug)]
pub(super) struct Shared {
    /// By the number of the endpoint. Closed ones stay until another one is needed there.
    lines: Mutex<HashMap<usize, Arc<Line>>>,
    room: Semaphore,
    idle: Duration,
}

impl Shared {
    /// With lines that are closed when they were not used for so long.
    pub(super) fn new(idle: Duration) -> Shared {
        Shared { lines: Mutex::default(), room: Semaphore::new(ROOM_BYTES), idle }
    }

    async fn ask(&self, attempt: Attempt, request: v1::ApplyRequest) -> Answer {
        let bytes = (request.command.len() + COMMAND_OVERHEAD) as u32;
        let Ok(room) = timeout_at(attempt.end, self.room.acquire_many(bytes)).await else {
            return Err(Failure::timeout("it was not sent").unsent());
        };
        let _room = room.expect("it is never closed");
        let end = attempt.end;
        let mut ticket = self.submit(attempt, request);
        match timeout_at(end, &mut ticket.answer).await {
            Ok(answer) => {
                ticket.is_over = true;
                answer.unwrap_or_else(|_| Err(abandoned()))
            }
            Err(_) => ticket.give_up(),
        }
    }

    /// Leaves a command with the line of the endpoint, which is opened if there is none.
    fn submit(&self, attempt: Attempt, request: v1::ApplyRequest) -> Ticket {
        let (to, answer) = oneshot::channel();
        let mut waiting = Waiting { request, end: attempt.end, to };
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(&attempt.picked.number) {
            match line.queue(waiting) {
                Ok(tag) => return Ticket { line: Arc::clone(line), tag, answer, is_over: false },
                Err(back) => waiting = back,
            }
        }
        let (line, tag) = Line::with(waiting);
        lines.insert(attempt.picked.number, Arc::clone(&line));
        drop(lines);
        let channel = endless(attempt.picked.channel, attempt.cluster);
        tokio::spawn(serve(Served(Arc::clone(&line)), channel, self.idle));
        Ticket { line, tag, answer, is_over: false }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&self.lines).values().for_each(|line| line.close());
    }
}

/// A caller's command in a line; dropped, it is taken out of it.
struct Ticket {
    line: Arc<Line>,
    tag: u64,
    answer: oneshot::Receiver<Answer>,
    /// The line knows nothing of it any more.
    is_over: bool,
}

impl Ticket {
    /// The time is over.
    fn give_up(mut self) -> Answer {
        self.is_over = true;
        match self.line.forget(self.tag) {
            Some(Place::Queued) => Err(Failure::timeout("it was not sent").unsent()),
            Some(Place::Sent) => {
                // Nodes answer in time, so the stream may be stuck: the next command takes another.
                self.line.close();
                Err(Failure::timeout("no answer"))
            }
            // Answered at this very moment.
            None => self.answer.try_recv().unwrap_or_else(|_| Err(Failure::timeout("no answer"))),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.forget(self.tag);
        }
    }
}

/// A command that is not sent yet.
#[derive(Debug)]
struct Waiting {
    request: v1::ApplyRequest,
    end: Instant,
    to: oneshot::Sender<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    Sent,
}

/// A stream to one endpoint, and who waits for it.
#[derive(Debug)]
struct Line {
    state: Mutex<State>,
    /// Told when it is closed, and when nobody waits any more after that.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    next_tag: u64,
    /// Not sent, in the order in which they came.
    queued: BTreeMap<u64, Waiting>,
    /// Sent, and not answered.
    sent: HashMap<u64, oneshot::Sender<Answer>>,
    /// Of the request's body, while it has nothing to send.
    body: Option<Waker>,
    /// Takes no more commands.
    closed: bool,
    /// Since somebody looked last.
    used: bool,
}

impl State {
    fn push(&mut self, waiting: Waiting) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.used = true;
        self.queued.insert(tag, waiting);
        tag
    }

    /// Takes no more commands. The request's body ends when there are none left.
    fn close(&mut self) {
        self.closed = true;
        self.body.take().into_iter().for_each(Waker::wake);
    }

    /// As many commands as one message carries.
    fn take_queued(&mut self, now: Instant) -> Vec<v1::TaggedCommand> {
        let (mut commands, mut bytes) = (Vec::new(), 0);
        while let Some(first) = self.queued.first_entry() {
            bytes += first.get().request.command.len() + COMMAND_OVERHEAD;
            let is_full = commands.len() == MESSAGE_COMMANDS || bytes > MESSAGE_BYTES;
            if is_full && !commands.is_empty() {
                break;
            }
            let (tag, Waiting { request, end, to }) = first.remove_entry();
            let left = end.saturating_duration_since(now);
            if left.is_zero() {
                // Failing means that its caller has found out by itself.
                let _ = to.send(Err(Failure::timeout("it was not sent").unsent()));
                continue;
            }
            // 0 would mean that it does not say.
            let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
            commands.push(v1::TaggedCommand { tag, request: Some(request), timeout_ms });
            self.sent.insert(tag, to);
        }
        commands
    }

    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.sent.is_empty()
    }
}

impl Line {
    /// A line with one command in it.
    fn with(waiting: Waiting) -> (Arc<Line>, u64) {
        let mut state = State::default();
        let tag = state.push(waiting);
        (Arc::new(Line { state: Mutex::new(state), news: Notify::new() }), tag)
    }

    /// Takes a command, or gives it back when the line is closed.
    fn queue(&self, waiting: Waiting) -> Result<u64, Waiting> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(waiting);
        }
        let tag = state.push(waiting);
        let body = state.body.take();
        drop(state);
        body.into_iter().for_each(Waker::wake);
        Ok(tag)
    }

    /// Nobody waits for this command any more. Tells where it was.
    fn forget(&self, tag: u64) -> Option<Place> {
        let mut state = lock(&self.state);
        let queued = state.queued.remove(&tag).map(|_| Place::Queued);
        let place = queued.or_else(|| state.sent.remove(&tag).map(|_| Place::Sent));
        if state.closed && state.is_empty() {
            self.news.notify_one();
        }
        place
    }

    /// Takes no more commands; what it has is sent and answered.
    fn close(&self) {
        lock(&self.state).close();
        self.news.notify_one();
    }

    /// What goes out next. Callers that are about to run may have more: they have their turn before a
    /// message is made. If there are none, this is asked again at once.
    fn poll_message(
        &self,
        has_yielded: &mut bool,
        body: &Waker,
    ) -> Poll<Option<v1::ApplyStreamRequest>> {
        let mut state = lock(&self.state);
        if !state.queued.is_empty() && !std::mem::replace(has_yielded, true) {
            body.wake_by_ref();
            return Poll::Pending;
        }
        *has_yielded = false;
        let commands = state.take_queued(Instant::now());
        if !commands.is_empty() {
            return Poll::Ready(Some(v1::ApplyStreamRequest { commands }));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.body = Some(body.clone());
        Poll::Pending
    }

    /// Hands answers to those who wait for them.
    fn answer(&self, results: Vec<v1::TaggedResult>) {
        let mut state = lock(&self.state);
        state.used = true;
        let answers: Vec<_> = results
            .into_iter()
            .filter_map(|result| Some((state.sent.remove(&result.tag)?, result.result)))
            .collect();
        if state.closed && state.is_empty() {
            self.news.notify_one();
        }
        drop(state);
        for (to, result) in answers {
            use v1::tagged_result::Result as Tagged;
            let answer = match result {
                Some(Tagged::Response(response)) => Ok(response),
                Some(Tagged::Error(error)) => Err(Failure::from_stream(&error)),
                None => Err(Failure::nonsense("neither a response nor an error")),
            };
            // Failing means that its caller just went away.
            let _ = to.send(answer);
        }
    }

    /// The stream has ended, and with it what is not answered; what was not sent surely did not happen.
    fn end(&self, failure: &Failure) {
        let mut state = lock(&self.state);
        state.close();
        let queued = std::mem::take(&mut state.queued);
        let sent = std::mem::take(&mut state.sent);
        drop(state);
        for (_, to) in sent {
            let _ = to.send(Err(failure.clone()));
        }
        for (_, waiting) in queued {
            let _ = waiting.to.send(Err(failure.clone().unsent()));
        }
    }

    /// Waits until nobody needs it: it was closed and all are answered, or it was not used for a
    /// while. It is closed then.
    async fn unneeded(&self, idle: Duration) {
        loop {
            let has_rested = timeout(idle, self.news.notified()).await.is_err();
            let mut state = lock(&self.state);
            let was_used = has_rested && std::mem::take(&mut state.used);
            if state.is_empty() && (state.closed || (has_rested && !was_used)) {
                state.close();
                return;
            }
        }
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line whose task runs. However that ends, nobody waits for it any more.
struct Served(Arc<Line>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.end(&abandoned());
    }
}

async fn serve(served: Served, channel: Timed, idle: Duration) {
    let line = &served.0;
    tokio::select! {
        failure = converse(line, channel) => {
            tracing::debug!(message = failure.message, "a shared stream ended");
            line.end(&failure);
        }
        () = line.unneeded(idle) => {}
    }
}

/// Sends and receives until the stream ends; returns why.
async fn converse(line: &Arc<Line>, channel: Timed) -> Failure {
    let outgoing = Outgoing { line: Arc::clone(line), has_yielded: false };
    let mut answers = match grpc(channel).apply_stream(outgoing).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Failure::from_status(&status),
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => line.answer(message.results),
            Ok(None) => return Failure::stream_ended(),
            Err(status) => return Failure::from_status(&status),
        }
    }
}

/// The body of a line's request: a message for each time that the connection can send one.
struct Outgoing {
    line: Arc<Line>,
    has_yielded: bool,
}

impl Stream for Outgoing {
    type Item = v1::ApplyStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Outgoing { line, has_yielded } = &mut *self;
        line.poll_message(has_yielded, context.waker())
    }
}

/// The runtime that the stream's task ran in has ended.
fn abandoned() -> Failure {
    let message = "the client's task that reads answers was stopped".to_owned();
    Failure { message, ..Failure::stream_ended() }
}

#[cfg(test)]
mod tests;
