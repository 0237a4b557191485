//! `QueryStream`: many questions over one stream, answered as the answers come.
//!
//! One task per stream owns its questions until they are answered. What a question waits for before
//! it may be asked (an entry, a leader) holds up no other one, and neither does one whose answer takes
//! long. Answers are taken and counted as they come, whether the client reads or not; while it does
//! not, nothing more is asked.
//!
//! ```text
//!   incoming ──► unfit (min_index, ...) ──► waiting ──► asked: NodeHandle::query ──► results ──► client
//!       ▲             └─────────────────────────▲        as many as the window allows
//!       └─ not read while too many are here
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use raft_host_proto::v1::{self, Effect, Reason};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::streaming::{
    self, ANSWERS, PENDING, REQUEST_OVERHEAD, RESPONSES_QUEUED, Terms, UNREAD_TIME, Window,
    next_message,
};
use super::traffic::Noted;
use crate::node::{Charge, Consistency};

/// How often late questions are given up that wait for others.
const TICK: Duration = Duration::from_millis(20);

/// What a client gets.
pub(super) type Responses = BoxStream<'static, Result<v1::QueryStreamResponse, Status>>;

type Outgoing = streaming::Outgoing<v1::QueryStreamResponse>;

/// Starts the stream's task and returns its answers.
pub(super) fn run(
    context: Arc<Context>,
    caller: Caller,
    terms: Terms,
    incoming: Streaming<v1::QueryStreamRequest>,
) -> Responses {
    let (out, answers) = mpsc::channel(RESPONSES_QUEUED);
    let stream = Stream {
        window: Window::new(context.config.stream_max_commands),
        waiting: VecDeque::new(),
        results: VecDeque::new(),
        noted: Noted::default(),
        unread_since: None,
        here: 0,
        bytes: 0,
        terms,
        caller,
        context,
    };
    // Ends with the stream: when both sides are done, or the client is gone.
    tokio::spawn(stream.serve(incoming, out));
    // What has been taken is counted by the connection until it has left.
    ReceiverStream::new(answers).map(|item: Outgoing| Ok(item?.0)).boxed()
}

/// A question without an answer.
struct Question {
    tag: u64,
    arrived: Instant,
    query: Bytes,
    consistency: Consistency,
    caller: Caller,
    _charge: Charge,
}

impl Question {
    fn bytes(&self) -> usize {
        self.query.len() + REQUEST_OVERHEAD
    }

    fn answered(&self, result: Result<v1::QueryResponse, Failure>) -> Answered {
        Answered { tag: self.tag, arrived: self.arrived, bytes: self.bytes(), result }
    }
}

/// What became of a question.
struct Answered {
    tag: u64,
    /// When the question came.
    arrived: Instant,
    /// What the question took.
    bytes: usize,
    result: Result<v1::QueryResponse, Failure>,
}

struct Stream {
    context: Arc<Context>,
    caller: Caller,
    terms: Terms,
    /// For their turn, in the order in which they came.
    waiting: VecDeque<Question>,
    window: Window,
    results: VecDeque<(v1::TaggedAnswer, Option<Charge>)>,
    /// What became of questions since that was told last.
    noted: Noted,
    /// Since when the client takes no answer while there are some.
    unread_since: Option<Instant>,
    /// Questions without an answer, and their bytes.
    here: usize,
    bytes: usize,
}

impl Stream {
    async fn serve(
        mut self,
        mut incoming: Streaming<v1::QueryStreamRequest>,
        out: mpsc::Sender<Outgoing>,
    ) {
        let stopping = self.context.stopping.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unfit = FuturesUnordered::new();
        let mut asked = FuturesUnordered::new();
        let (mut reading, mut end) = (true, None);
        while reading || self.here > 0 || !self.results.is_empty() {
            tokio::select! {
                biased;
                () = stopping.cancelled(), if reading => {
                    // All that was read gets its answer.
                    reading = false;
                    end = Some(Failure::none(Reason::Stopping, "this node is shutting down"));
                }
                Some(first) = asked.next(), if !asked.is_empty() => {
                    let now = Instant::now();
                    self.finish(first, now);
                    while let Some(Some(next)) = asked.next().now_or_never() {
                        self.finish(next, now);
                    }
                }
                Some(ready) = unfit.next(), if !unfit.is_empty() => match ready {
                    Ok(question) => self.waiting.push_back(question),
                    Err(answered) => self.finish(answered, Instant::now()),
                },
                message = incoming.message(), if reading && self.has_room() => match message {
                    Ok(Some(message)) => {
                        let now = Instant::now();
                        for question in message.queries {
                            if let Some((question, request)) = self.take(question, now) {
                                let context = Arc::clone(&self.context);
                                unfit.push(until_fit(context, question, request));
                            }
                        }
                    }
                    Ok(None) => reading = false,
                    Err(status) => {
                        reading = false;
                        end = Some(Failure::of_library(&status, Effect::None));
                    }
                },
                room = out.reserve(), if !self.results.is_empty() => {
                    // The client may be gone.
                    let Ok(room) = room else { return };
                    let (answers, charges) = next_message(&mut self.results);
                    room.send(Ok((v1::QueryStreamResponse { answers }, charges)));
                    self.unread_since = None;
                }
                _ = tick.tick(), if !(self.waiting.is_empty() && self.results.is_empty()) => {
                    self.give_up_late();
                    if self.is_unread() {
                        tracing::warn!("a client takes no answers of its stream: ended it");
                        return;
                    }
                }
                () = tokio::time::sleep_until(self.caller.deadline),
                    if self.caller.has_deadline && reading =>
                {
                    reading = false;
                    let words = "the time of this stream is over; nothing was changed";
                    end = Some(Failure::none(Reason::DeadlineExceeded, words));
                }
                () = out.closed() => return,
            }
            self.noted.tell(&self.context.info.traffic.questions);
            // Answers that wait to be sent have no less need of room than those to come.
            while asked.len() + self.results.len() < self.window.allowed()
                && let Some(question) = self.waiting.pop_front()
            {
                asked.push(ask(Arc::clone(&self.context), question));
            }
        }
        if let Some(failure) = end {
            // A client that went away does not want to know.
            let _ = out.send(Err(failure.into_status())).await;
        }
    }

    fn has_room(&self) -> bool {
        let config = &self.context.config;
        self.here + self.results.len() < config.stream_max_commands
            && self.bytes < config.stream_max_bytes
            && self.waiting.len() < self.window.allowed()
            && (self.here == 0 || self.context.pending.has_room())
    }

    /// Takes in a question. Gives back one that has to wait before it may be asked.
    fn take(
        &mut self,
        question: v1::TaggedQuery,
        arrived: Instant,
    ) -> Option<(Question, v1::QueryRequest)> {
        let v1::TaggedQuery { tag, request, timeout_ms } = question;
        let checked = request
            .ok_or_else(|| Failure::none(Reason::InvalidRequest, "the question is missing"))
            .and_then(|request| {
                self.terms.allowance.take(arrived.into_std())?;
                let consistency = self.context.check_query(&request)?;
                let bytes = request.query.len() + REQUEST_OVERHEAD;
                let charge = self.context.pending.take_of(PENDING, bytes as u64);
                let charge = charge.map_err(|exceeded| too_many().exceeding(exceeded))?;
                Ok((request, consistency, charge))
            });
        let (mut request, consistency, charge) = match checked {
            Ok(checked) => checked,
            Err(failure) => {
                self.noted.answered(failure.code(), Duration::ZERO);
                self.terms.notes.refuse(failure.reason(), failure.effect());
                self.results.push_back((failed(tag, failure), None));
                return None;
            }
        };
        let default = self.context.request_timeout();
        let deadline = self.caller.deadline_within(timeout_ms, default);
        let caller = Caller { deadline, ..self.caller };
        let query = std::mem::take(&mut request.query);
        let question = Question { tag, arrived, query, consistency, caller, _charge: charge };
        self.here += 1;
        self.bytes += question.bytes();
        if self.context.is_fit(&request, consistency) {
            self.waiting.push_back(question);
            return None;
        }
        Some((question, request))
    }

    fn finish(&mut self, answered: Answered, now: Instant) {
        let Answered { tag, arrived, bytes, result } = answered;
        self.here -= 1;
        self.bytes -= bytes;
        let result = result.and_then(|response| {
            let result = Some(v1::tagged_answer::Result::Response(response));
            let answer = v1::TaggedAnswer { tag, result };
            let bytes = answer.encoded_len();
            self.window.learn(bytes);
            let charge = self.context.answers.take_of(ANSWERS, bytes as u64);
            let charge = charge.map_err(|exceeded| {
                let words = "the answer was dropped: too many answers wait to be read";
                Failure::none(Reason::Busy, words).exceeding(exceeded)
            })?;
            Ok((answer, Some(charge)))
        });
        let code = result.as_ref().map_or_else(Failure::code, |_| Code::Ok);
        self.noted.answered(code, now.saturating_duration_since(arrived));
        self.results.push_back(result.unwrap_or_else(|failure| (failed(tag, failure), None)));
    }

    /// Those that have not had their turn in time.
    fn give_up_late(&mut self) {
        let now = Instant::now();
        let is_late = |question: &Question| question.caller.deadline <= now;
        if !self.waiting.iter().any(is_late) {
            return;
        }
        let (late, waiting) = self.waiting.drain(..).partition(is_late);
        self.waiting = waiting;
        let late: VecDeque<Question> = late;
        for question in late {
            self.finish(question.answered(Err(too_many())), now);
        }
    }

    /// Whether the client has taken nothing for too long.
    fn is_unread(&mut self) -> bool {
        match self.results.is_empty() {
            true => false,
            false => self.unread_since.get_or_insert_with(Instant::now).elapsed() >= UNREAD_TIME,
        }
    }
}

/// Waits until the node may be asked.
async fn until_fit(
    context: Arc<Context>,
    question: Question,
    request: v1::QueryRequest,
) -> Result<Question, Answered> {
    match context.until_fit(&question.caller, &request, question.consistency).await {
        Ok(()) => Ok(question),
        Err(failure) => Err(question.answered(Err(failure))),
    }
}

async fn ask(context: Arc<Context>, question: Question) -> Answered {
    let (tag, arrived, bytes) = (question.tag, question.arrived, question.bytes());
    let Question { query, consistency, caller, _charge, .. } = question;
    let result = context.ask_machine(&caller, query, consistency).await;
    Answered { tag, arrived, bytes, result }
}

fn failed(tag: u64, failure: Failure) -> v1::TaggedAnswer {
    let error = v1::tagged_answer::Result::Error(failure.into_apply_error());
    v1::TaggedAnswer { tag, result: Some(error) }
}

fn too_many() -> Failure {
    let words = "too many questions of streams wait for an answer on this node; try again later";
    Failure::none(Reason::Busy, words)
}
