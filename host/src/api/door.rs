//! What every call passes: the counting of calls, and of the bytes that it brings and takes away.
//!
//! A request's bytes are taken from a budget as they arrive and given back when the message that
//! they make has been handed on, or the call is over; who would exceed the budget is not read
//! meanwhile. Short messages have a budget of their own, so that none waits for long ones; and while a budget is
//! all but used up, whoever is slow to send what they have begun is given less time. An answer's bytes are counted until they have left. When too many have not,
//! the connection that reads least is ended. Peers of the cluster have a budget of their own,
//! which strangers cannot use up.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::Response;
use axum::middleware::Next;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, poll_fn};
use http_body::{Frame, SizeHint};
use raft_host_proto::peer::peer_server;
use raft_host_proto::v1::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;

use super::connections::{Answer, Call, Place, Table};
use super::failure::Failure;
use super::io::Caller;
use crate::types::Exceeded;

/// Budgets are counted in units of so many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// Units that may be taken by long requests on their way in, decoded or not.
const LONG_UNITS: usize = (128 << 20) / UNIT_BYTES;
/// The same for short ones.
const SHORT_UNITS: usize = (32 << 20) / UNIT_BYTES;
/// Messages of no more bytes are short.
const SHORT_BYTES: usize = 64 << 10;
/// The same for those of peers.
const PEER_UNITS: usize = (128 << 20) / UNIT_BYTES;
/// Bytes that one message takes at most, however long it is: it must fit into the budget.
const MESSAGE_UNITS_MAX: usize = (32 << 20) / UNIT_BYTES;
/// What decoding makes of a byte at most, where a message repeats small parts
/// ([`raft_host_proto::codec`]).
const EXPANSION: usize = 16;
/// Answers that have not left.
const UNREAD_BYTES_MAX: u64 = 128 << 20;
/// Calls at once, on all connections but those of peers.
const CALLS_MAX: usize = 8_192;
/// Calls at once to the peers' service on one connection: more than a member makes. They are not
/// bounded by [`CALLS_MAX`], so that strangers' calls keep no member out.
const PEER_CALLS_MAX: usize = 16;
/// How long a message may take to arrive, or to find room.
const MESSAGE_TIME: Duration = Duration::from_secs(20);
/// The same while a budget is all but used up.
const MESSAGE_TIME_SHORT: Duration = Duration::from_secs(2);
/// It is when no more than this part of it is left.
const LITTLE_PART: usize = 8;
/// Longest first message of a peer: its hello. Nobody knows yet who speaks.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// gRPC puts a flag and the length before each message.
const PREFIX_BYTES: usize = 5;

/// See the module.
pub(super) struct Door {
    table: Arc<Table>,
    long: Arc<Semaphore>,
    short: Arc<Semaphore>,
    peers: Arc<Semaphore>,
    calls: AtomicUsize,
    unread: AtomicU64,
}

impl Door {
    pub(super) fn new(table: Arc<Table>) -> Arc<Door> {
        Arc::new(Door {
            table,
            long: Arc::new(Semaphore::new(LONG_UNITS)),
            short: Arc::new(Semaphore::new(SHORT_UNITS)),
            peers: Arc::new(Semaphore::new(PEER_UNITS)),
            calls: AtomicUsize::new(0),
            unread: AtomicU64::new(0),
        })
    }

    /// What waits here, in bytes, and its bound: requests on their way in, those of members, and answers
    /// on their way out.
    pub(super) fn waiting(&self) -> [(u64, u64); 3] {
        let taken = |left: usize, units: usize| {
            let bytes = |units: usize| (units * UNIT_BYTES) as u64;
            (bytes(units.saturating_sub(left)), bytes(units))
        };
        let left = self.long.available_permits() + self.short.available_permits();
        let unread = self.unread.load(Ordering::Relaxed);
        [
            taken(left, LONG_UNITS + SHORT_UNITS),
            taken(self.peers.available_permits(), PEER_UNITS),
            (unread, UNREAD_BYTES_MAX),
        ]
    }

    /// Whether others may have to wait for what is not there yet.
    fn is_short_of_room(&self) -> bool {
        let is_little =
            |budget: &Semaphore, units: usize| budget.available_permits() < units / LITTLE_PART;
        is_little(&self.long, LONG_UNITS) || is_little(&self.short, SHORT_UNITS)
    }

    /// Answers of this many bytes were made. Ends who leaves most of theirs unread when that is
    /// too much.
    fn add_unread(&self, place: &Place, bytes: u64) {
        place.add_unread(bytes);
        let unread = self.unread.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unread > UNREAD_BYTES_MAX {
            // Its bytes are given back when its connection notices, soon.
            self.table.dismiss_who_does_not_read();
        }
    }
}

/// A call in progress.
struct Passage {
    door: Arc<Door>,
    /// Among the calls of the door: not one of a peer.
    is_counted: bool,
    _call: Call,
    /// For the request of a call that has only one, which is there as long as the call.
    held: Mutex<Vec<OwnedSemaphorePermit>>,
}

impl Passage {
    fn keep(&self, permit: OwnedSemaphorePermit) {
        // Nothing that can panic half way runs under this lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(permit);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.is_counted {
            self.door.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn too_many_calls(words: String, limit: &'static str, calls: usize, max: usize) -> Response<Body> {
    let exceeded = Exceeded { limit, value: calls as u64, max: max as u64 };
    Failure::none(Reason::Busy, words).exceeding(exceeded).into_status().into_http()
}

/// `package.Service` in `/package.Service/Method`.
fn service_of(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service)
}

/// The middleware.
pub(super) async fn pass(
    State(door): State<Arc<Door>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let Some(Caller { place, .. }) = request.extensions().get::<Caller>().cloned() else {
        // Not from a socket: there is nothing to protect from.
        return next.run(request).await;
    };
    let is_peer_service = service_of(request.uri().path()) == peer_server::SERVICE_NAME;
    let now = Instant::now();
    let passage = Arc::new(Passage {
        door: Arc::clone(&door),
        is_counted: !is_peer_service,
        _call: place.begin(now),
        held: Mutex::default(),
    });
    if is_peer_service && place.calls() > PEER_CALLS_MAX {
        let words = format!("peers make at most {PEER_CALLS_MAX} calls at once on a connection");
        return too_many_calls(words, "peer_calls_max", place.calls(), PEER_CALLS_MAX);
    }
    if !is_peer_service && door.calls.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
        // Whoever tries again finds room.
        door.table.dismiss_who_only_waits(now);
        let words = format!("this node has {CALLS_MAX} calls in progress; try again later");
        return too_many_calls(words, "calls_max", CALLS_MAX + 1, CALLS_MAX);
    }
    if is_peer_service {
        request.extensions_mut().insert(place.peer.clone());
    }
    let streams = is_peer_service || request.uri().path().ends_with("Stream");
    let request = request.map(|body| {
        Body::new(Incoming {
            body,
            door: Arc::clone(&door),
            place: Arc::clone(&place),
            is_peer_service,
            streams,
            message: Message::default(),
            held: Vec::new(),
            waiting: None,
            patience: None,
            begun: None,
            messages: 0,
            passage: Arc::clone(&passage),
        })
    });
    let mut response = next.run(request).await;
    let mut outgoing = Outgoing {
        body: std::mem::take(response.body_mut()),
        _answer: place.answer(),
        first: None,
        door,
        place,
        _passage: passage,
    };
    if !streams {
        // The answer is there, and is counted from now on, though its reader may not want it.
        outgoing.first = poll_fn(|cx| outgoing.poll_body(cx)).await;
    }
    response.map(|_| Body::new(outgoing))
}

/// Where a body is in the message that arrives.
#[derive(Default)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Of the message, still to come. Meaningful when the prefix is whole.
    missing: usize,
    units: usize,
    is_long: bool,
}

impl Message {
    fn is_begun(&self) -> bool {
        self.prefix_bytes > 0
    }
}

/// The body of a request.
struct Incoming {
    body: Body,
    door: Arc<Door>,
    place: Arc<Place>,
    is_peer_service: bool,
    /// More than one request may come.
    streams: bool,
    message: Message,
    /// For what was handed on and may not be decoded and dropped yet; one of each budget.
    held: Vec<OwnedSemaphorePermit>,
    /// Data that waits for room.
    waiting: Option<(BoxFuture<'static, Option<OwnedSemaphorePermit>>, Bytes)>,
    /// Ends the wait for the rest of a message, or for room.
    patience: Option<Pin<Box<Sleep>>>,
    /// Since when that is waited for.
    begun: Option<Instant>,
    /// Whole messages so far.
    messages: u64,
    passage: Arc<Passage>,
}

impl Incoming {
    /// Follows gRPC's framing through new data; returns the units that it takes, and whether any of that is
    /// of a long message.
    fn follow(&mut self, mut data: &[u8]) -> Result<(usize, bool), Status> {
        let (mut units, mut is_long) = (0, self.message.is_long);
        while !data.is_empty() {
            let message = &mut self.message;
            if message.prefix_bytes < PREFIX_BYTES {
                let taken = data.len().min(PREFIX_BYTES - message.prefix_bytes);
                let place = message.prefix_bytes..message.prefix_bytes + taken;
                message.prefix[place].copy_from_slice(&data[..taken]);
                message.prefix_bytes += taken;
                data = &data[taken..];
                if message.prefix_bytes < PREFIX_BYTES {
                    break;
                }
                let [_, length @ ..] = message.prefix;
                message.missing = u32::from_be_bytes(length) as usize;
                message.is_long = message.missing > SHORT_BYTES;
                is_long |= message.is_long;
                let is_hello = self.is_peer_service && self.messages == 0;
                if is_hello && message.missing > HELLO_BYTES_MAX {
                    let words = format!(
                        "the first message must be a hello, and has {} bytes",
                        message.missing
                    );
                    return Err(Status::invalid_argument(words));
                }
            }
            let message = &mut self.message;
            let taken = data.len().min(message.missing);
            message.missing -= taken;
            data = &data[taken..];
            let expansion = if self.streams { EXPANSION } else { 1 };
            let wanted = (taken * expansion).div_ceil(UNIT_BYTES);
            let granted = wanted.min(MESSAGE_UNITS_MAX - message.units);
            message.units += granted;
            units += granted;
            if message.missing == 0 {
                self.messages += 1;
                self.message = Message::default();
            }
        }
        Ok((units, is_long))
    }

    /// Whether the sender owes something: the rest of a message, its only request, its hello.
    fn is_expected(&self) -> bool {
        let owes_first = self.is_peer_service || !self.streams;
        self.message.is_begun() || (self.messages == 0 && owes_first)
    }

    fn budget(&self, is_long: bool) -> &Arc<Semaphore> {
        match self.is_peer_service && self.place.peer.is_set() {
            true => &self.door.peers,
            false if is_long => &self.door.long,
            false => &self.door.short,
        }
    }

    /// Whether the time for a message is over: of one that its sender is slow to send, sooner while others wait
    /// for the room that it takes.
    fn is_late(&mut self, cx: &mut Context<'_>, is_owed: bool) -> bool {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let patience =
            self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(MESSAGE_TIME_SHORT)));
        while patience.as_mut().poll(cx).is_ready() {
            let is_owed = is_owed && self.message.units > 0;
            if begun.elapsed() >= MESSAGE_TIME || (is_owed && self.door.is_short_of_room()) {
                return true;
            }
            patience.as_mut().reset(tokio::time::Instant::now() + MESSAGE_TIME_SHORT);
        }
        false
    }

    fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) {
        let Some(permit) = permit else { return };
        if !self.streams {
            return self.passage.keep(permit);
        }
        let same =
            |held: &&mut OwnedSemaphorePermit| Arc::ptr_eq(held.semaphore(), permit.semaphore());
        match self.held.iter_mut().find(same) {
            Some(held) => held.merge(permit),
            None => self.held.push(permit),
        }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.waiting.is_none() && !this.message.is_begun() {
            // Whoever asks for more has taken what came before.
            this.held.clear();
            this.patience = None;
            this.begun = None;
        }
        loop {
            if let Some((room, _)) = &mut this.waiting {
                match room.as_mut().poll(cx) {
                    Poll::Ready(permit) => {
                        this.hold(permit);
                        let data = this.waiting.take().map(|(_, data)| data).unwrap_or_default();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Poll::Pending if this.is_late(cx, false) => {
                        let words = "too many requests are on their way; try again later";
                        return Poll::Ready(Some(Err(Status::resource_exhausted(words))));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                // A stream may be silent between messages, and only there.
                Poll::Pending if this.is_expected() => {
                    if this.is_late(cx, true) {
                        let words = format!(
                            "a message did not arrive within {MESSAGE_TIME:?}, or {MESSAGE_TIME_SHORT:?} \
                             while others wait"
                        );
                        return Poll::Ready(Some(Err(Status::deadline_exceeded(words))));
                    }
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            };
            let Some(frame) = frame else { return Poll::Ready(None) };
            let frame = frame.map_err(|error| Status::unavailable(error.to_string()))?;
            let Ok(data) = frame.into_data() else {
                // Trailers of a request say nothing.
                continue;
            };
            this.place.moves(Instant::now());
            let (units, is_long) = this.follow(&data)?;
            if units == 0 {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let budget = Arc::clone(this.budget(is_long));
            let units = u32::try_from(units).unwrap_or(u32::MAX);
            let room = async move { budget.acquire_many_owned(units).await.ok() };
            this.waiting = Some((room.boxed(), data));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }
}

/// The body of an answer.
struct Outgoing {
    body: Body,
    /// What was taken from the body already.
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    door: Arc<Door>,
    place: Arc<Place>,
    _answer: Answer,
    _passage: Arc<Passage>,
}

/// Bytes of an answer that have not left.
struct Unread {
    bytes: Bytes,
    door: Arc<Door>,
    place: Arc<Place>,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let bytes = self.bytes.len() as u64;
        self.place.take_unread(bytes);
        self.door.unread.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Outgoing {
    /// The next part, counted until it has left.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.place.moves(Instant::now());
        Poll::Ready(frame.map(|frame| {
            Ok(frame?.map_data(|bytes| {
                self.door.add_unread(&self.place, bytes.len() as u64);
                let (door, place) = (Arc::clone(&self.door), Arc::clone(&self.place));
                Bytes::from_owner(Unread { bytes, door, place })
            }))
        }))
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => this.poll_body(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.first {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}
