//! What comes in by the port of the services, counted for the metrics: calls by method and code, what
//! streams carry, and what waits.
//!
//! To count takes no lock and no memory: every method that is served has its place from the start, and
//! all others share one. A stream notes what became of its items for itself, and tells it when it has
//! dealt with all that came at once.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use raft_host_proto::v1;
use tonic::Code;

use super::connections::{Counts, Table};
use super::door::Door;
use crate::node::{Budget, Counter, Durations, NotedDurations, Queue};

/// gRPC's codes by number, as in its own documents.
pub(super) const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// What calls of methods that nobody serves are counted as.
const OTHER: &str = "other";
/// Streams whose items are counted.
pub(super) const APPLY_STREAM: &str = "Client/ApplyStream";
pub(super) const QUERY_STREAM: &str = "Client/QueryStream";

/// What became of calls, or of the items of streams.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    codes: [Counter; CODES.len()],
    /// How long they took.
    pub(super) durations: Durations,
}

impl Outcomes {
    /// How many ended with each of [`CODES`].
    pub(super) fn codes(&self) -> [u64; CODES.len()] {
        std::array::from_fn(|code| self.codes[code].get())
    }
}

/// What became of items, as one stream notes it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    codes: [u64; CODES.len()],
    durations: NotedDurations,
    is_new: bool,
}

impl Noted {
    /// One that was there for so long has been answered.
    pub(super) fn answered(&mut self, code: Code, took: Duration) {
        self.codes[code as usize] += 1;
        self.durations.observe(took);
        self.is_new = true;
    }

    /// Tells all that was noted.
    pub(super) fn tell(&mut self, outcomes: &Outcomes) {
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        for (counter, more) in outcomes.codes.iter().zip(&mut self.codes) {
            match std::mem::take(more) {
                0 => {}
                more => counter.add(more),
            }
        }
        outcomes.durations.take_over(&mut self.durations);
    }
}

/// A method and what became of its calls.
#[derive(Debug)]
pub(super) struct Method {
    path: String,
    /// `Service/Method`.
    pub(super) name: String,
    /// How long a call takes says nothing: its client decides.
    pub(super) streams: bool,
    begun: Counter,
    pub(super) calls: Outcomes,
}

impl Method {
    fn new(path: String, name: String, streams: bool) -> Method {
        Method { path, name, streams, begun: Counter::default(), calls: Outcomes::default() }
    }

    /// Calls that have not ended.
    pub(super) fn active(&self) -> u64 {
        let ended: u64 = self.calls.codes().iter().sum();
        // One may have ended since.
        self.begun.get().saturating_sub(ended)
    }
}

/// The methods of the services that a set of descriptors describes.
fn methods_of(descriptors: &[u8]) -> Vec<Method> {
    let set = FileDescriptorSet::decode(descriptors).expect("made by our own build");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let name = format!("{}/{}", service.name(), method.name());
                let path = format!("/{}.{name}", file.package());
                let streams = method.client_streaming() || method.server_streaming();
                methods.push(Method::new(path, name, streams));
            }
        }
    }
    methods
}

/// See the module.
#[derive(Debug)]
pub struct Traffic {
    /// By path, and then those that nobody serves.
    methods: Vec<Method>,
    /// Commands of streams.
    pub(super) commands: Outcomes,
    /// Questions of streams.
    pub(super) questions: Outcomes,
    port: OnceLock<Port>,
}

/// What is there once the port is served.
pub(super) struct Port {
    pub(super) table: Arc<Table>,
    pub(super) door: Arc<Door>,
    /// See `Context`.
    pub(super) pending: Budget,
    pub(super) answers: Budget,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl Default for Traffic {
    fn default() -> Traffic {
        let sets = [v1::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut methods: Vec<Method> = sets.into_iter().flat_map(methods_of).collect();
        methods.sort_by(|one, other| one.path.cmp(&other.path));
        methods.dedup_by(|one, other| one.path == other.path);
        methods.push(Method::new(String::new(), OTHER.to_owned(), true));
        Traffic {
            methods,
            commands: Outcomes::default(),
            questions: Outcomes::default(),
            port: OnceLock::new(),
        }
    }
}

impl Traffic {
    /// The port is served from now on.
    pub(super) fn open(&self, port: Port) {
        // Who serves twice is counted once: nobody does.
        let _ = self.port.set(port);
    }

    /// Every method, and all that nobody serves as one.
    pub(super) fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Connections of the port.
    pub(super) fn connections(&self) -> Option<Counts> {
        self.port.get().map(|port| port.table.counts())
    }

    /// What waits at the port.
    pub(super) fn queues(&self) -> Vec<Queue> {
        let Some(port) = self.port.get() else { return Vec::new() };
        let [arriving, of_members, unread] = port.door.waiting();
        let of = |budget: &Budget| (budget.in_use(), budget.max());
        let queues = [
            ("requests_arriving", arriving),
            ("member_requests_arriving", of_members),
            ("stream_requests", of(&port.pending)),
            ("stream_answers", of(&port.answers)),
            ("answers_unread", unread),
        ];
        let queue = |(name, (bytes, max))| Queue { name, bytes, max_bytes: Some(max) };
        queues.map(queue).into()
    }

    /// A call begins.
    pub(super) fn begin(self: &Arc<Traffic>, path: &str) -> Call {
        let served = &self.methods[..self.methods.len() - 1];
        let found = served.binary_search_by(|method| method.path.as_str().cmp(path));
        let method = found.unwrap_or(served.len());
        self.methods[method].begun.add(1);
        Call { traffic: Arc::clone(self), method, began: Instant::now(), code: Code::Cancelled }
    }
}

/// A call that is not over; dropping it ends it.
pub(super) struct Call {
    traffic: Arc<Traffic>,
    method: usize,
    began: Instant,
    /// What it ends with, if it is dropped now: who asked has gone.
    code: Code,
}

impl Call {
    /// It is over.
    pub(super) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let method = &self.traffic.methods[self.method];
        if !method.streams {
            method.calls.durations.observe(self.began.elapsed());
        }
        method.calls.codes[self.code as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method<'a>(traffic: &'a Traffic, name: &str) -> &'a Method {
        traffic.methods().iter().find(|method| method.name == name).expect(name)
    }

    fn ended(method: &Method) -> Vec<(&str, u64)> {
        let codes = CODES.into_iter().zip(method.calls.codes());
        codes.filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let traffic = Arc::<Traffic>::default();
        traffic.begin("/raft_host.v1.Client/Apply").end(Code::Ok);
        traffic.begin("/raft_host.v1.Client/Apply").end(Code::Unavailable);
        let open = traffic.begin("/raft_host.v1.Client/Apply");
        assert_eq!(method(&traffic, "Client/Apply").active(), 1);
        drop(open);
        let apply = method(&traffic, "Client/Apply");
        assert_eq!(ended(apply), [("OK", 1), ("CANCELLED", 1), ("UNAVAILABLE", 1)]);
        assert_eq!(apply.active(), 0);
        assert_eq!(apply.calls.durations.buckets().iter().sum::<u64>(), 3);

        traffic.begin("/raft_host.v1.Client/ApplyStream").end(Code::Ok);
        let stream = method(&traffic, APPLY_STREAM);
        assert_eq!(ended(stream), [("OK", 1)]);
        assert_eq!(stream.calls.durations.buckets().iter().sum::<u64>(), 0, "its client decides");
    }

    #[test]
    fn whatever_is_asked_for_there_are_no_more_methods_than_are_served() {
        let traffic = Arc::<Traffic>::default();
        let before = traffic.methods().len();
        for path in ["", "/", "/x", "/raft_host.v1.Client/Nothing", "/raft_host.v1.Client/Apply/"] {
            traffic.begin(path).end(Code::Unimplemented);
        }
        assert_eq!(traffic.methods().len(), before);
        assert_eq!(ended(method(&traffic, OTHER)), [("UNIMPLEMENTED", 5)]);
        for name in ["Client/Query", QUERY_STREAM, "Admin/Status", "Health/Check"] {
            assert_eq!(ended(method(&traffic, name)), [], "{name}");
        }
    }

    #[test]
    fn what_a_stream_notes_is_told_once() {
        let (mut noted, outcomes) = (Noted::default(), Outcomes::default());
        noted.answered(Code::Ok, Duration::from_millis(1));
        noted.answered(Code::Aborted, Duration::from_secs(1));
        noted.tell(&outcomes);
        noted.tell(&outcomes);
        assert_eq!((outcomes.codes()[0], outcomes.codes()[10]), (1, 1));
        assert_eq!(CODES[Code::Aborted as usize], "ABORTED");
        assert_eq!(outcomes.durations.buckets().iter().sum::<u64>(), 2);
    }
}
