//! `ApplyStream`: many commands over one stream, answered as they are applied.
//!
//! One task per stream owns its commands until they are answered, so that a command that surely
//! did not happen can go to the next leader instead of failing. Commands travel under numbers of
//! our own; the client's tags need not be unique.
//!
//! ```text
//!   incoming ──► pending (numbered) ──► NodeHandle::submit ──► answers ──┐
//!       ▲            │  ▲     └───────► upstream to the leader ──────────┼──► results ──► client
//!       │            ▼  │ not the leader, busy                           │
//!       └─ not read  parked ◄────────────────────────────────────────────┘
//!          while too much is pending
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use raft_host_proto::v1::{self, Effect, Reason};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use super::caller::Caller;
use super::context::{Again, Context, Route, no_leader, not_leader_but};
use super::convert::{command_from_wire, index_of};
use super::failure::{Failure, apply_response};
use super::forward::passed_on;
use super::streaming::{
    self, ANSWERS, MESSAGE_BYTES, PENDING, REQUEST_OVERHEAD, RESPONSES_QUEUED, Terms, UNREAD_TIME,
    Window, next_message,
};
use super::traffic::Noted;
use crate::node::{Charge, ChargedAnswer, Leadership, ProposeFailure, ReplySink, Submit};
use crate::types::Member;

/// Answers taken in at once.
const ANSWERS_AT_ONCE: usize = 2048;
/// Messages of the leader that wait to be looked at.
const UPSTREAM_QUEUED: usize = 4;
/// How often parked commands are tried again and late ones given up.
const TICK: Duration = Duration::from_millis(20);

/// What a client gets.
pub(super) type Responses = BoxStream<'static, Result<v1::ApplyStreamResponse, Status>>;

type Outgoing = streaming::Outgoing<v1::ApplyStreamResponse>;

/// Starts the stream's task and returns its answers.
pub(super) fn run(
    context: Arc<Context>,
    caller: Caller,
    terms: Terms,
    incoming: Streaming<v1::ApplyStreamRequest>,
) -> Responses {
    let (out, answers_out) = mpsc::channel(RESPONSES_QUEUED);
    let (answer_to, answers) = mpsc::unbounded_channel();
    let (upstream_to, upstream_events) = mpsc::channel(UPSTREAM_QUEUED);
    let leadership = context.handle.leadership();
    let stream = Stream {
        commands: Commands::default(),
        leadership,
        answer_to,
        upstream_to,
        upstream: None,
        upstream_tasks: BTreeMap::new(),
        replaced: Vec::new(),
        next_upstream: 0,
        parked: VecDeque::new(),
        waiting: VecDeque::new(),
        under_way: 0,
        window: Window::new(context.config.stream_max_commands),
        results: VecDeque::new(),
        noted: Noted::default(),
        now: Instant::now(),
        stopping: false,
        terms,
        caller,
        context,
    };
    // Ends with the stream: when both sides are done, or the client is gone.
    tokio::spawn(stream.serve(incoming, answers, upstream_events, out));
    // What has been taken is counted by the connection until it has left.
    ReceiverStream::new(answers_out).map(|item: Outgoing| Ok(item?.0)).boxed()
}

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind others, for its turn.
    Waiting,
    /// For a place where it can be applied.
    Parked,
    Here,
    Upstream(u64),
}

struct Command {
    tag: u64,
    request: v1::ApplyRequest,
    arrived: Instant,
    /// When its client wants to hear of it.
    deadline: Instant,
    place: Place,
    /// It waits for its turn in an ordered session: it may take long, and those that it waits for must
    /// not wait for it.
    is_early: bool,
    /// It was passed to a leader that was replaced before it answered.
    is_in_doubt: bool,
    _charge: Option<Charge>,
}

impl Command {
    fn is_under_way(&self) -> bool {
        !self.is_early && matches!(self.place, Place::Here | Place::Upstream(_))
    }

    /// Whether it may be given to another leader without knowing what became of it at the first.
    fn is_repeatable(&self) -> bool {
        self.request.session.is_some()
    }
}

/// Commands without an answer, by number. `slots.len()` also counts the gaps behind the oldest.
#[derive(Default)]
struct Commands {
    first: u64,
    slots: VecDeque<Option<Command>>,
    bytes: usize,
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Commands {
    fn push(&mut self, command: Command) -> u64 {
        self.bytes += command.request.command.len() + REQUEST_OVERHEAD;
        let number = self.first + self.slots.len() as u64;
        self.deadlines.insert((command.deadline, number));
        self.slots.push_back(Some(command));
        number
    }

    /// One whose deadline is over.
    fn overdue(&self, now: Instant) -> Option<u64> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, number)| *number)
    }

    fn get(&mut self, number: u64) -> Option<&mut Command> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)?.as_mut()
    }

    fn take(&mut self, number: u64) -> Option<Command> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let command = self.slots.get_mut(at)?.take()?;
        self.bytes -= command.request.command.len() + REQUEST_OVERHEAD;
        self.deadlines.remove(&(command.deadline, number));
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(command)
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn numbers(&self, wanted: impl Fn(&Command) -> bool) -> Vec<u64> {
        let numbered = (self.first..).zip(&self.slots);
        numbered
            .filter(|(_, slot)| slot.as_ref().is_some_and(&wanted))
            .map(|(number, _)| number)
            .collect()
    }
}

enum UpstreamEvent {
    Results(u64, Vec<v1::TaggedResult>),
    /// No more answers come from it; those missing are lost for this reason.
    Ended(u64, Failure),
}

struct Upstream {
    number: u64,
    leader: Member,
    requests: mpsc::UnboundedSender<v1::ApplyStreamRequest>,
}

struct Stream {
    context: Arc<Context>,
    caller: Caller,
    terms: Terms,
    commands: Commands,
    leadership: watch::Receiver<Leadership>,
    answer_to: mpsc::UnboundedSender<ChargedAnswer>,
    upstream_to: mpsc::Sender<UpstreamEvent>,
    /// The one that takes new commands. Dropping it half-closes the stream to the old leader,
    /// whose answers still come.
    upstream: Option<Upstream>,
    upstream_tasks: BTreeMap<u64, AbortOnDropHandle<()>>,
    next_upstream: u64,
    /// Upstreams to leaders that were replaced, since when, and whether their commands with a
    /// session went to the next one already.
    replaced: Vec<(u64, Instant, bool)>,
    parked: VecDeque<u64>,
    /// For their turn, in the order in which they came.
    waiting: VecDeque<u64>,
    /// Commands that may be answered any moment.
    under_way: usize,
    /// How many of them there may be.
    window: Window,
    results: VecDeque<(v1::TaggedResult, Option<Charge>)>,
    /// What became of commands since that was told last.
    noted: Noted,
    /// When what is being dealt with came.
    now: Instant,
    /// Nothing is tried again.
    stopping: bool,
}

/// The client is gone.
struct Gone;

impl Stream {
    async fn serve(
        mut self,
        mut incoming: Streaming<v1::ApplyStreamRequest>,
        mut answers: mpsc::UnboundedReceiver<ChargedAnswer>,
        mut upstream_events: mpsc::Receiver<UpstreamEvent>,
        out: mpsc::Sender<Outgoing>,
    ) {
        let stopping = self.context.stopping.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::with_capacity(ANSWERS_AT_ONCE);
        let mut reading = true;
        let mut end = None;
        while reading || !self.commands.is_empty() {
            tokio::select! {
                _ = answers.recv_many(&mut taken, ANSWERS_AT_ONCE) => {
                    self.now = Instant::now();
                    for answer in taken.drain(..) {
                        self.on_answer(answer);
                    }
                }
                Some(event) = upstream_events.recv() => self.on_upstream(event),
                message = incoming.message(), if reading && self.has_room() => match message {
                    Ok(Some(message)) => self.on_message(message),
                    Ok(None) => reading = false,
                    Err(status) => {
                        reading = false;
                        end = Some(Failure::of_library(&status, Effect::None).into_status());
                    }
                },
                Ok(()) = self.leadership.changed(),
                    if !self.parked.is_empty() || self.upstream.is_some() =>
                {
                    self.leave_replaced();
                    self.unpark();
                }
                _ = tick.tick(), if !self.commands.is_empty() => self.on_tick(),
                () = tokio::time::sleep_until(self.caller.deadline),
                    if self.caller.has_deadline && reading =>
                {
                    reading = false;
                    end = Some(deadline_exceeded().into_status());
                }
                () = stopping.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    reading = false;
                    self.unpark();
                    // All that was read gets its answer; what was not read did not happen.
                    end = Some(Failure::none(Reason::Stopping, "this node is shutting down")
                        .into_status());
                }
                () = out.closed() => return,
            }
            self.take_turns();
            self.noted.tell(&self.context.info.traffic.commands);
            match tokio::time::timeout(UNREAD_TIME, self.flush(&out)).await {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return,
                Err(_) => {
                    tracing::warn!("a client takes no answers of its stream: ended it");
                    return;
                }
            }
        }
        if let Some(status) = end {
            // A client that went away does not want to know.
            let _ = out.send(Err(status)).await;
        }
    }

    fn has_room(&self) -> bool {
        let config = &self.context.config;
        self.commands.slots.len() < config.stream_max_commands
            && self.commands.bytes < config.stream_max_bytes
            && self.waiting.len() < self.window.allowed()
            && (self.commands.is_empty() || self.context.pending.has_room())
    }

    /// Sends on what waits for its turn.
    fn take_turns(&mut self) {
        if !self.parked.is_empty() {
            // Behind those that came before.
            return;
        }
        let free = self.window.allowed().saturating_sub(self.under_way);
        let numbers: Vec<u64> = self.waiting.drain(..free.min(self.waiting.len())).collect();
        if !numbers.is_empty() {
            self.dispatch(numbers);
        }
    }

    fn on_message(&mut self, message: v1::ApplyStreamRequest) {
        let arrived = Instant::now();
        self.now = arrived;
        let default = self.context.request_timeout();
        for v1::TaggedCommand { tag, request, timeout_ms } in message.commands {
            let checked = request
                .ok_or_else(|| Failure::none(Reason::InvalidRequest, "the command is missing"))
                .and_then(|request| {
                    self.terms.allowance.take(arrived.into_std())?;
                    self.context.check_group(&request.group)?;
                    let bytes = request.command.len() + REQUEST_OVERHEAD;
                    let charge = self.context.pending.take_of(PENDING, bytes as u64);
                    let charge = charge.map_err(|exceeded| too_many().exceeding(exceeded))?;
                    Ok((request, charge))
                });
            match checked {
                Ok((request, charge)) => {
                    let number = self.commands.push(Command {
                        tag,
                        request,
                        arrived,
                        deadline: self.caller.deadline_within(timeout_ms, default),
                        place: Place::Waiting,
                        is_early: false,
                        is_in_doubt: false,
                        _charge: Some(charge),
                    });
                    self.waiting.push_back(number);
                }
                Err(failure) => {
                    self.noted.answered(failure.code(), Duration::ZERO);
                    self.terms.notes.refuse(failure.reason(), failure.effect());
                    self.results.push_back((failed(tag, failure), None));
                }
            }
        }
    }

    /// Sends commands where they can be applied, or parks them until there is such a place.
    fn dispatch(&mut self, mut numbers: Vec<u64>) {
        let now = Instant::now();
        self.now = now;
        numbers.retain(|number| {
            let is_late = self.commands.get(*number).is_some_and(|it| it.deadline <= now);
            if is_late {
                // Nobody waits for it any more, and here it surely has no effect yet.
                self.give_up(*number);
            }
            !is_late
        });
        if numbers.is_empty() {
            return;
        }
        let route = self.context.route_for(&self.leadership.borrow_and_update());
        match route {
            Route::Here => self.submit(&numbers),
            Route::There(leader) if !self.caller.forwarded => self.send_upstream(leader, &numbers),
            Route::There(leader) => {
                let failure = not_leader_but(&leader);
                numbers.into_iter().for_each(|number| self.on_failure(number, failure.clone()));
            }
            Route::Nowhere => {
                numbers.into_iter().for_each(|number| self.on_failure(number, no_leader()));
            }
        }
    }

    fn submit(&mut self, numbers: &[u64]) {
        let mut proposals = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(command) = self.commands.get(*number) else { continue };
            self.under_way += usize::from(!command.is_under_way());
            (command.place, command.is_early) = (Place::Here, false);
            let room = self.context.answers.clone();
            let sink = ReplySink::Charged(*number, self.answer_to.clone(), room);
            let count_pages = command.request.count_pages;
            let request = command_from_wire(&command.request).into();
            proposals.push(Submit { request, sink, count_pages });
        }
        self.context.handle.acting_for(self.caller.actor).submit(proposals);
    }

    fn send_upstream(&mut self, leader: Member, numbers: &[u64]) {
        self.leave_replaced();
        if self.upstream.as_ref().is_none_or(|upstream| upstream.leader != leader) {
            self.open_upstream(leader);
        }
        let Some(upstream) = &self.upstream else { return };
        let mut message = v1::ApplyStreamRequest::default();
        let mut bytes = 0;
        let now = Instant::now();
        for number in numbers {
            let Some(command) = self.commands.get(*number) else { continue };
            self.under_way += usize::from(!command.is_under_way());
            (command.place, command.is_early) = (Place::Upstream(upstream.number), false);
            bytes += command.request.command.len() + REQUEST_OVERHEAD;
            let request = Some(command.request.clone());
            let left = command.deadline.saturating_duration_since(now).as_millis();
            // 0 would mean that there is no deadline.
            let timeout_ms = u64::try_from(left).unwrap_or(u64::MAX).max(1);
            message.commands.push(v1::TaggedCommand { tag: *number, request, timeout_ms });
            if bytes >= MESSAGE_BYTES {
                // A stream that has ended reports that, and then what it got is sorted out.
                let _ = upstream.requests.send(std::mem::take(&mut message));
                bytes = 0;
            }
        }
        if !message.commands.is_empty() {
            let _ = upstream.requests.send(message);
        }
    }

    fn open_upstream(&mut self, leader: Member) {
        let number = self.next_upstream;
        self.next_upstream += 1;
        // Bounded by what the stream may have pending.
        let (requests, receiver) = mpsc::unbounded_channel();
        let context = Arc::clone(&self.context);
        let events = self.upstream_to.clone();
        let (asked, caller) = (leader.clone(), self.caller);
        let task = tokio::spawn(async move {
            let failure = relay(&context, &caller, &asked, number, receiver, &events).await;
            // A stream that has ended needs no news.
            let _ = events.send(UpstreamEvent::Ended(number, failure)).await;
        });
        self.upstream_tasks.insert(number, AbortOnDropHandle::new(task));
        self.upstream = Some(Upstream { number, leader, requests });
    }

    /// Sends nothing more to a leader that was replaced; its answers still count.
    fn leave_replaced(&mut self) {
        let leads = |leader: &Member| {
            self.leadership.borrow().leader.as_ref().is_none_or(|now| now.id == leader.id)
        };
        if let Some(left) = self.upstream.take_if(|upstream| !leads(&upstream.leader)) {
            self.replaced.push((left.number, Instant::now(), false));
        }
    }

    /// Does what is due about commands that replaced leaders have not answered.
    fn on_replaced(&mut self) {
        let now = Instant::now();
        let (short, long) =
            (self.context.grace(Again::Harmless), self.context.grace(Again::Harmful));
        let replaced = std::mem::take(&mut self.replaced);
        for (upstream, since, mut passed_on) in replaced {
            let elapsed = now.duration_since(since);
            let there = Place::Upstream(upstream);
            if elapsed >= short && !passed_on {
                passed_on = true;
                for number in self.commands.numbers(|it| it.place == there && it.is_repeatable()) {
                    self.doubt_and_park(number);
                }
            }
            if elapsed < long && self.upstream_tasks.contains_key(&upstream) {
                self.replaced.push((upstream, since, passed_on));
                continue;
            }
            self.upstream_tasks.remove(&upstream);
            for number in self.commands.numbers(|it| it.place == there) {
                self.fail(number, Failure::replaced());
            }
        }
    }

    fn doubt_and_park(&mut self, number: u64) {
        let Some(command) = self.commands.get(number) else { return };
        command.is_in_doubt = true;
        self.under_way -= usize::from(command.is_under_way());
        command.place = Place::Parked;
        self.parked.push_back(number);
    }

    fn on_answer(&mut self, answer: ChargedAnswer) {
        let ChargedAnswer { tag: number, result, charge } = answer;
        let Some(result) = result else { return self.on_early(number) };
        if let Err(failure @ ProposeFailure::Busy(_)) = result {
            return self.park_or_fail(number, true, failure.into());
        }
        match result.map_err(Failure::from).and_then(apply_response) {
            Ok(response) => {
                self.window.learn(response.encoded_len());
                let result = v1::tagged_result::Result::Response(response);
                self.finish(number, result, Code::Ok, charge);
            }
            Err(failure) => self.on_failure(number, failure),
        }
    }

    /// A command waits in its session. Whoever passed it on here counts what is under way as well.
    fn on_early(&mut self, number: u64) {
        let Some(command) = self.commands.get(number) else { return };
        self.under_way -= usize::from(command.is_under_way());
        command.is_early = true;
        if self.caller.forwarded {
            self.results.push_back((v1::TaggedResult { tag: command.tag, result: None }, None));
        }
    }

    fn on_upstream(&mut self, event: UpstreamEvent) {
        self.now = Instant::now();
        match event {
            UpstreamEvent::Results(upstream, results) => {
                for result in results {
                    // A late answer to a command that went elsewhere meanwhile is none.
                    let place = self.commands.get(result.tag).map(|command| command.place);
                    if place == Some(Place::Upstream(upstream)) {
                        self.on_upstream_result(result);
                    }
                }
            }
            UpstreamEvent::Ended(number, failure) => {
                self.upstream_tasks.remove(&number);
                if self.upstream.as_ref().is_some_and(|upstream| upstream.number == number) {
                    self.upstream = None;
                }
                let lost = self.commands.numbers(|it| it.place == Place::Upstream(number));
                lost.into_iter().for_each(|number| self.on_failure(number, failure.clone()));
            }
        }
    }

    fn on_upstream_result(&mut self, result: v1::TaggedResult) {
        use v1::tagged_result::Result as Answer;
        match result.result {
            Some(Answer::Error(error)) => {
                self.on_failure(result.tag, Failure::from_apply_error(error));
            }
            Some(answer) => {
                let bytes = answer.encoded_len();
                self.window.learn(bytes);
                match self.context.answers.take_of(ANSWERS, bytes as u64) {
                    Ok(charge) => self.finish(result.tag, answer, Code::Ok, Some(charge)),
                    Err(exceeded) => {
                        let words = "the command was executed, and its answer dropped: too many \
                                     answers wait to be read";
                        let failure = Failure::unknown(Reason::Busy, words).exceeding(exceeded);
                        self.on_failure(result.tag, failure);
                    }
                }
            }
            None => self.on_early(result.tag),
        }
    }

    /// Tries again what surely did not happen and may happen elsewhere.
    fn on_failure(&mut self, number: u64, failure: Failure) {
        let elsewhere = failure.worth_rerouting() && !self.caller.forwarded;
        self.park_or_fail(number, elsewhere, failure);
    }

    fn park_or_fail(&mut self, number: u64, may_pass: bool, failure: Failure) {
        let patience = self.context.election_patience();
        let Some(command) = self.commands.get(number) else { return };
        if may_pass && !self.stopping && command.arrived.elapsed() < patience {
            self.under_way -= usize::from(command.is_under_way());
            command.place = Place::Parked;
            self.parked.push_back(number);
        } else {
            self.fail(number, failure);
        }
    }

    fn fail(&mut self, number: u64, failure: Failure) {
        let Some(command) = self.commands.get(number) else { return };
        let failure = failure.in_doubt(command.is_in_doubt);
        let code = failure.code();
        let result = v1::tagged_result::Result::Error(failure.into_apply_error());
        self.finish(number, result, code, None);
    }

    fn finish(
        &mut self,
        number: u64,
        result: v1::tagged_result::Result,
        code: Code,
        charge: Option<Charge>,
    ) {
        if let Some(command) = self.commands.take(number) {
            self.noted.answered(code, self.now.saturating_duration_since(command.arrived));
            self.under_way -= usize::from(command.is_under_way());
            self.terms.notes.note(&command.request, outcome_of(&result));
            let result = v1::TaggedResult { tag: command.tag, result: Some(result) };
            self.results.push_back((result, charge));
        }
    }

    fn unpark(&mut self) {
        let mut numbers: Vec<u64> = self.parked.drain(..).collect();
        // In the order in which they came.
        numbers.sort_unstable();
        if !numbers.is_empty() {
            self.dispatch(numbers);
        }
    }

    fn on_tick(&mut self) {
        self.on_replaced();
        self.unpark();
        let now = Instant::now();
        self.now = now;
        while let Some(number) = self.commands.overdue(now) {
            self.give_up(number);
        }
    }

    /// Its deadline is over.
    fn give_up(&mut self, number: u64) {
        let place = self.commands.get(number).map(|command| command.place);
        let failure = match place {
            Some(Place::Waiting) => too_many(),
            Some(Place::Parked) => no_leader(),
            _ => deadline_exceeded(),
        };
        self.fail(number, failure);
    }

    /// Sends what is there, in messages that every client can take.
    async fn flush(&mut self, out: &mpsc::Sender<Outgoing>) -> Result<(), Gone> {
        while !self.results.is_empty() {
            let (results, charges) = next_message(&mut self.results);
            let message = v1::ApplyStreamResponse { results };
            out.send(Ok((message, charges))).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// Passes commands to the leader and its answers back; returns why there are no more.
async fn relay(
    context: &Context,
    caller: &Caller,
    leader: &Member,
    number: u64,
    requests: mpsc::UnboundedReceiver<v1::ApplyStreamRequest>,
    events: &mpsc::Sender<UpstreamEvent>,
) -> Failure {
    let mut client = match context.forwarder.client(leader) {
        Ok(client) => client,
        Err(failure) => return failure,
    };
    let requests = passed_on(UnboundedReceiverStream::new(requests), caller, None);
    let mut answers = match client.apply_stream(requests).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Failure::from_status(&status),
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => {
                // A stream that has ended needs no answers.
                let _ = events.send(UpstreamEvent::Results(number, message.results)).await;
            }
            Ok(None) => {
                let words = "the leader ended the stream without an answer to this command";
                return Failure::unknown(Reason::LeaderUnreachable, words);
            }
            Err(status) => return Failure::from_status(&status),
        }
    }
}

/// Where it stands in the log, or why it does not.
fn outcome_of(result: &v1::tagged_result::Result) -> Result<u64, (Reason, Effect)> {
    match result {
        v1::tagged_result::Result::Response(response) => Ok(index_of(response)),
        v1::tagged_result::Result::Error(error) => {
            let reason = error.detail.as_ref().map(v1::ErrorDetail::reason);
            Err((reason.unwrap_or_default(), error.effect()))
        }
    }
}

fn failed(tag: u64, failure: Failure) -> v1::TaggedResult {
    let error = v1::tagged_result::Result::Error(failure.into_apply_error());
    v1::TaggedResult { tag, result: Some(error) }
}

fn too_many() -> Failure {
    let words = "too many commands of streams wait for an answer on this node; try again later";
    Failure::none(Reason::Busy, words)
}

fn deadline_exceeded() -> Failure {
    Failure::unknown(
        Reason::DeadlineExceeded,
        "no answer in time; the command may have been applied, or may still be",
    )
}
