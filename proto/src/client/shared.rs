//! Requests of any number of callers over one stream: commands over one, queries over another.
//!
//! ```text
//!   apply ──► attempts ([`super::retry`]) ──► queued ──► Outgoing ══ ApplyStream ══► node
//!     ▲                                                                               │
//!     └──────────────────── by tag ◄── sent ◄── the line's task ◄─────────────────────┘
//! ```
//!
//! Each caller makes its own attempts, as it does for any request: its deadline, its pauses and what is
//! known of its command are nobody else's. An attempt leaves its request with the *line* of the
//! endpoint, a stream that is opened for the first one and ends when it was not used for a while. What
//! waits when the connection is ready to send goes out in one message: the message is made when HTTP/2
//! asks for it, so nothing waits for a timer, no more is buffered than the node takes, and a lone
//! request leaves at once. What the two kinds of streams differ in is their [`Traffic`].
//!
//! A caller that no longer waits takes its request out of the line, wherever it is. What was still queued
//! surely has no effect. Long requests travel alone, and HTTP/2 shares the
//! connection between them: they would gain nothing by company, and hold it up.

mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::Stream;

use self::traffic::Traffic;
use super::error::Failure;
use super::retry::{Attempt, Repeat, Timed, Whom, endless};
use super::{Client, ClientError, Effect, grpc};
use crate::v1;

pub(super) use self::traffic::{Commands, Queries};

/// A line that was not used for so long, or up to twice as long, is closed.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// A line takes requests for so long; then another one is opened. A node that lets go of a connection, to have one
/// with a newer certificate instead, waits longer than that for the streams on it.
const LIFETIME: Duration = Duration::from_secs(60);
/// Longer requests travel alone.
const LONG_BYTES: usize = 64 << 10;
/// Most bytes of requests that one message carries.
const MESSAGE_BYTES: usize = 256 << 10;
/// Most requests that one message carries.
const MESSAGE_REQUESTS: usize = 512;
/// Bytes of requests that the lines of a client take before they are answered, commands and queries
/// each; callers wait for room in the order in which they came.
const ROOM_BYTES: usize = 16 << 20;
/// Bookkeeping of a request, counted as bytes.
const REQUEST_OVERHEAD: usize = 256;

/// What an attempt came to.
type Answer<T> = Result<<T as Traffic>::Response, Failure>;

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
                if self.options.sharing && Commands::bytes(&request) <= LONG_BYTES {
                    return self.commands.ask(attempt, request).await;
                }
                attempt.ask(|channel| async { grpc(channel).apply(request).await }).await
            }
        })
        .await
    }

    /// Asks a question, over and over while nobody answers.
    pub(super) async fn query_shared(
        &self,
        request: v1::QueryRequest,
    ) -> Result<v1::QueryResponse, ClientError> {
        let patience = self.options.deadline;
        let asked = self.attempt(Whom::Cluster, Repeat::Always, patience, |attempt| {
            let request = request.clone();
            async move {
                if self.options.sharing && Queries::bytes(&request) <= LONG_BYTES {
                    return self.queries.ask(attempt, request).await;
                }
                attempt.ask(|channel| async { grpc(channel).query(request).await }).await
            }
        });
        asked.await.map_err(|(error, _)| error)
    }
}

/// The lines of a client. They end with it.
#[derive(Debug)]
pub(super) struct Shared<T: Traffic> {
    /// By the number of the endpoint. Closed ones stay until another one is needed there.
    lines: Mutex<HashMap<usize, Arc<Line<T>>>>,
    room: Semaphore,
    idle: Duration,
}

impl<T: Traffic> Shared<T> {
    /// With lines that are closed when they were not used for so long.
    pub(super) fn new(idle: Duration) -> Shared<T> {
        Shared { lines: Mutex::default(), room: Semaphore::new(ROOM_BYTES), idle }
    }

    async fn ask(&self, attempt: Attempt, request: T::Request) -> Answer<T> {
        let bytes = (T::bytes(&request) + REQUEST_OVERHEAD) as u32;
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

    /// Leaves a request with the line of the endpoint, which is opened if there is none.
    fn submit(&self, attempt: Attempt, request: T::Request) -> Ticket<T> {
        let (to, answer) = oneshot::channel();
        let mut waiting = Waiting { request, end: attempt.end, to };
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(&attempt.picked.number) {
            if line.opened.elapsed() >= LIFETIME {
                line.close();
            }
            match line.queue(waiting) {
                Ok(tag) => return Ticket { line: Arc::clone(line), tag, answer, is_over: false },
                Err(back) => waiting = back,
            }
        }
        let (line, tag) = Line::with(waiting);
        lines.insert(attempt.picked.number, Arc::clone(&line));
        drop(lines);
        let channel = endless(attempt.picked, attempt.cluster);
        tokio::spawn(serve(Served(Arc::clone(&line)), channel, self.idle));
        Ticket { line, tag, answer, is_over: false }
    }
}

impl<T: Traffic> Drop for Shared<T> {
    fn drop(&mut self) {
        lock(&self.lines).values().for_each(|line| line.close());
    }
}

/// A caller's request in a line; dropped, it is taken out of it.
struct Ticket<T: Traffic> {
    line: Arc<Line<T>>,
    tag: u64,
    answer: oneshot::Receiver<Answer<T>>,
    /// The line knows nothing of it any more.
    is_over: bool,
}

impl<T: Traffic> Ticket<T> {
    /// The time is over.
    fn give_up(mut self) -> Answer<T> {
        self.is_over = true;
        match self.line.forget(self.tag) {
            Some(Place::Queued) => Err(Failure::timeout("it was not sent").unsent()),
            Some(Place::Sent) => {
                // Nodes answer in time, so the stream may be stuck: the next request takes another.
                self.line.close();
                Err(Failure::timeout("no answer"))
            }
            // Answered at this very moment.
            None => self.answer.try_recv().unwrap_or_else(|_| Err(Failure::timeout("no answer"))),
        }
    }
}

impl<T: Traffic> Drop for Ticket<T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.forget(self.tag);
        }
    }
}

/// A request that is not sent yet.
#[derive(Debug)]
struct Waiting<T: Traffic> {
    request: T::Request,
    end: Instant,
    to: oneshot::Sender<Answer<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    Sent,
}

/// A stream to one endpoint, and who waits for it.
#[derive(Debug)]
struct Line<T: Traffic> {
    opened: Instant,
    state: Mutex<State<T>>,
    /// Told when it is closed, and when nobody waits any more after that.
    news: Notify,
}

#[derive(Debug)]
struct State<T: Traffic> {
    next_tag: u64,
    /// Not sent, in the order in which they came.
    queued: BTreeMap<u64, Waiting<T>>,
    /// Sent, and not answered.
    sent: HashMap<u64, oneshot::Sender<Answer<T>>>,
    /// Of the stream's outgoing side, while it has nothing to send.
    body: Option<Waker>,
    /// Takes no more requests.
    closed: bool,
    /// Since somebody looked last.
    used: bool,
}

impl<T: Traffic> Default for State<T> {
    fn default() -> State<T> {
        let (queued, sent) = (BTreeMap::new(), HashMap::new());
        State { next_tag: 0, queued, sent, body: None, closed: false, used: false }
    }
}

impl<T: Traffic> State<T> {
    fn push(&mut self, waiting: Waiting<T>) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.used = true;
        self.queued.insert(tag, waiting);
        tag
    }

    /// Takes no more requests. The outgoing side ends when there are none left.
    fn close(&mut self) {
        self.closed = true;
        self.body.take().into_iter().for_each(Waker::wake);
    }

    /// As many requests as one message carries.
    fn take_queued(&mut self, now: Instant) -> Vec<T::Tagged> {
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while let Some(first) = self.queued.first_entry() {
            bytes += T::bytes(&first.get().request) + REQUEST_OVERHEAD;
            let is_full = requests.len() == MESSAGE_REQUESTS || bytes > MESSAGE_BYTES;
            if is_full && !requests.is_empty() {
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
            requests.push(T::tagged(tag, request, timeout_ms));
            self.sent.insert(tag, to);
        }
        requests
    }

    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.sent.is_empty()
    }
}

impl<T: Traffic> Line<T> {
    /// A line with one request in it.
    fn with(waiting: Waiting<T>) -> (Arc<Line<T>>, u64) {
        let mut state = State::default();
        let tag = state.push(waiting);
        (
            Arc::new(Line {
                opened: Instant::now(),
                state: Mutex::new(state),
                news: Notify::new(),
            }),
            tag,
        )
    }

    /// Takes a request, or gives it back when the line is closed.
    fn queue(&self, waiting: Waiting<T>) -> Result<u64, Waiting<T>> {
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

    /// Nobody waits for this request any more. Tells where it was.
    fn forget(&self, tag: u64) -> Option<Place> {
        let mut state = lock(&self.state);
        let queued = state.queued.remove(&tag).map(|_| Place::Queued);
        let place = queued.or_else(|| state.sent.remove(&tag).map(|_| Place::Sent));
        if state.closed && state.is_empty() {
            self.news.notify_one();
        }
        place
    }

    /// Takes no more requests; what it has is sent and answered.
    fn close(&self) {
        lock(&self.state).close();
        self.news.notify_one();
    }

    /// What goes out next. Callers that are about to run may have more: they have their turn before a
    /// message is made. If there are none, this is asked again at once.
    fn poll_message(&self, has_yielded: &mut bool, body: &Waker) -> Poll<Option<T::Message>> {
        let mut state = lock(&self.state);
        if !state.queued.is_empty() && !std::mem::replace(has_yielded, true) {
            body.wake_by_ref();
            return Poll::Pending;
        }
        *has_yielded = false;
        let requests = state.take_queued(Instant::now());
        if !requests.is_empty() {
            return Poll::Ready(Some(T::message(requests)));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.body = Some(body.clone());
        Poll::Pending
    }

    /// Hands answers to those who wait for them.
    fn answer(&self, results: impl Iterator<Item = (u64, Answer<T>)>) {
        let mut state = lock(&self.state);
        state.used = true;
        let answers: Vec<_> =
            results.filter_map(|(tag, answer)| Some((state.sent.remove(&tag)?, answer))).collect();
        if state.closed && state.is_empty() {
            self.news.notify_one();
        }
        drop(state);
        for (to, answer) in answers {
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
struct Served<T: Traffic>(Arc<Line<T>>);

impl<T: Traffic> Drop for Served<T> {
    fn drop(&mut self) {
        self.0.end(&abandoned());
    }
}

async fn serve<T: Traffic>(served: Served<T>, channel: Timed, idle: Duration) {
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
async fn converse<T: Traffic>(line: &Arc<Line<T>>, channel: Timed) -> Failure {
    let outgoing = Outgoing { line: Arc::clone(line), has_yielded: false };
    let mut answers = match T::open(grpc(channel), outgoing).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Failure::from_status(&status),
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => line.answer(T::answers(message)),
            Ok(None) => return Failure::stream_ended(),
            Err(status) => return Failure::from_status(&status),
        }
    }
}

/// The outgoing side of a line's stream: a message for each time that the connection can send one.
pub(super) struct Outgoing<T: Traffic> {
    line: Arc<Line<T>>,
    has_yielded: bool,
}

impl<T: Traffic> Stream for Outgoing<T> {
    type Item = T::Message;

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
