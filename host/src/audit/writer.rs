//! The queue, and the thread that writes what is in it.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::config::AuditConfig;
use super::event::{Event, Writer, line};
use super::flood::Flood;
use super::sink::{AuditError, Sink};
use crate::types::{ClusterId, NodeId};

/// Events that wait, and places that are kept for some to come.
const QUEUE: usize = 4_096;
/// How often a sink that failed is tried again, and what is due is looked for.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the process's log says that nothing can be written.
const REPORT: Duration = Duration::from_secs(60);

/// The audit log of a node. Dropping it writes what waits, if that can be done at once.
#[derive(Debug)]
pub struct Audit {
    shared: Arc<Shared>,
    required: bool,
    commands: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something is to be done.
    wake: Condvar,
    /// The thread has ended.
    ended: Condvar,
    written: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
    is_failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<(SystemTime, Event)>,
    /// Places that are kept.
    kept: usize,
    /// Lost since the last line that says so.
    lost: u64,
    flood: Flood,
    reopen: bool,
    closed: bool,
    ended: bool,
}

/// A place for an event to come; dropping it gives it back.
#[derive(Debug)]
pub struct Place(Option<Arc<Shared>>);

/// Nothing can be noted at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the audit log cannot be written, and this node does nothing that it cannot note \
     (audit.required): see the node's own log"
)]
pub struct NotWritable;

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Lines that were written.
    pub written: u64,
    /// Events for which there was no room.
    pub lost: u64,
    /// Attempts to write that failed.
    pub failures: u64,
    /// The last attempt failed.
    pub is_failing: bool,
}

impl Audit {
    /// Begins to write for a node; `None`: it is not to be. `knows_callers`: it is known who asks.
    ///
    /// # Errors
    /// When it goes where nothing can be written.
    pub fn open(
        config: &AuditConfig,
        data_dir: Option<&Path>,
        knows_callers: bool,
        (cluster, node): (ClusterId, NodeId),
    ) -> Result<Option<Audit>, AuditError> {
        let Some(sink) = Sink::open(config, data_dir, knows_callers)? else { return Ok(None) };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        });
        let (writer, own) = (Writer { cluster, node }, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || own.write_all(&writer, sink))
            .map_err(AuditError::Thread)?;
        let AuditConfig { required, commands, .. } = *config;
        Ok(Some(Audit { shared, required, commands }))
    }

    /// Whether each command is noted.
    pub fn notes_commands(&self) -> bool {
        self.commands
    }

    /// A place for what is about to be done, where that must be noted.
    ///
    /// # Errors
    /// It must, and cannot be.
    pub fn expect_one(&self) -> Result<Option<Place>, NotWritable> {
        if !self.required {
            return Ok(None);
        }
        let mut queue = self.shared.queue();
        if self.shared.is_failing.load(Ordering::Relaxed) || queue.is_full() {
            return Err(NotWritable);
        }
        queue.kept += 1;
        Ok(Some(Place(Some(Arc::clone(&self.shared)))))
    }

    /// Notes an event, in the place that was kept for it if there is one. Never waits.
    pub fn note(&self, event: Event, place: Option<Place>) {
        let mut queue = self.shared.queue();
        if place.and_then(|mut place| place.0.take()).is_some() {
            queue.kept -= 1;
        }
        self.shared.push(&mut queue, event);
    }

    /// Notes a refusal: of each source a few are written in a second.
    pub fn note_refusal(&self, event: Event) {
        let event = event.bounded();
        let mut queue = self.shared.queue();
        if queue.flood.passes(&event, Instant::now()) {
            self.shared.push(&mut queue, event);
        }
    }

    /// Opens the file anew: somebody has put it aside.
    pub fn reopen(&self) {
        self.shared.queue().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Writes what waits, for at most so long, and nothing after that.
    pub fn close(&self, patience: Duration) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        self.shared.wake.notify_one();
        let waited = self.shared.ended.wait_timeout_while(queue, patience, |queue| !queue.ended);
        // Nothing that can panic half way runs under this lock.
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !queue.ended {
            tracing::warn!("the audit log could not be written to its end");
        }
    }

    /// For the metrics.
    pub fn counts(&self) -> AuditCounts {
        AuditCounts {
            written: self.shared.written.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
            is_failing: self.shared.is_failing.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.queue().kept -= 1;
        }
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        self.events.len() + self.kept >= QUEUE
    }

    fn is_idle(&self) -> bool {
        self.events.is_empty() && !self.reopen && !self.closed
    }
}

/// Why the thread goes on.
struct Work {
    events: VecDeque<(SystemTime, Event)>,
    lost: u64,
    reopen: bool,
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic half way runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, queue: &mut Queue, event: Event) {
        if queue.is_full() || queue.ended {
            queue.lost += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.events.push_back((SystemTime::now(), event.bounded()));
        self.wake.notify_one();
    }

    /// The thread.
    fn write_all(&self, writer: &Writer, mut sink: Sink) {
        let mut failed = Failed { reported: None };
        loop {
            let work = self.next();
            if work.reopen
                && let Err(error) = sink.reopen()
            {
                failed.report(self, &error);
            }
            if !work.events.is_empty() && !self.write(writer, &mut sink, &mut failed, &work) {
                break;
            }
            if work.closed {
                break;
            }
        }
        self.queue().ended = true;
        self.ended.notify_all();
    }

    /// Waits for something to do.
    fn next(&self) -> Work {
        let mut queue = self.queue();
        loop {
            let now = Instant::now();
            let due = queue.flood.due(now);
            queue.events.extend(due.into_iter().map(|event| (SystemTime::now(), event)));
            if !queue.is_idle() {
                break;
            }
            // Nothing is due while no source is remembered.
            queue = match queue.flood.is_empty() {
                true => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                false => {
                    let waited = self.wake.wait_timeout(queue, PAUSE);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Work {
            events: std::mem::take(&mut queue.events),
            lost: std::mem::take(&mut queue.lost),
            reopen: std::mem::take(&mut queue.reopen),
            closed: queue.closed,
        }
    }

    /// Writes a batch, however often that has to be tried. `false`: it was closed before that.
    fn write(&self, writer: &Writer, sink: &mut Sink, failed: &mut Failed, work: &Work) -> bool {
        let (mut lost, mut at) = (work.lost, 0);
        while !self.attempt(
            || {
                sink.prepare()?;
                while let Some((time, event)) = work.events.get(at) {
                    sink.write(*time, &line(writer, *time, event, lost))?;
                    (lost, at) = (0, at + 1);
                    self.written.fetch_add(1, Ordering::Relaxed);
                }
                sink.flush()
            },
            failed,
        ) {
            let queue = self.queue();
            let waited = self.wake.wait_timeout_while(queue, PAUSE, |queue| !queue.closed);
            if waited.unwrap_or_else(PoisonError::into_inner).0.closed {
                return false;
            }
            if let Err(error) = sink.reopen() {
                failed.report(self, &error);
            }
        }
        true
    }

    fn attempt(&self, write: impl FnOnce() -> io::Result<()>, failed: &mut Failed) -> bool {
        match write() {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the audit log is written again");
                }
                true
            }
            Err(error) => {
                failed.report(self, &error);
                false
            }
        }
    }
}

/// When it was last said that writing fails.
struct Failed {
    reported: Option<Instant>,
}

impl Failed {
    fn report(&mut self, shared: &Shared, error: &io::Error) {
        shared.failures.fetch_add(1, Ordering::Relaxed);
        shared.is_failing.store(true, Ordering::Relaxed);
        let now = Instant::now();
        if self.reported.is_none_or(|at| now.duration_since(at) >= REPORT) {
            self.reported = Some(now);
            tracing::error!(%error, "the audit log cannot be written; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    use super::super::config::AuditSink;
    use super::super::flood::LINES;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const NODE: (ClusterId, NodeId) = (ClusterId([7; 16]), NodeId(1));

    fn event(what: usize) -> Event {
        Event::of_node("test", "test", what.to_string())
    }

    fn open(config: &AuditConfig) -> Audit {
        Audit::open(config, None, false, NODE).expect("opened").expect("not off")
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).expect("readable");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn eventually(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_is_noted_is_written_in_order_and_nothing_after_the_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        let audit = open(&AuditConfig { file: Some(path.clone()), ..AuditConfig::default() });
        for what in 0..100 {
            audit.note(event(what), None);
        }
        audit.close(PATIENCE);
        audit.note(event(100), None);
        let written: Vec<String> =
            lines(&path).iter().map(|line| line["what"].as_str().expect("text").into()).collect();
        assert_eq!(written, (0..100).map(|what| what.to_string()).collect::<Vec<_>>());
        let counts = AuditCounts { written: 100, lost: 1, ..AuditCounts::default() };
        assert_eq!(audit.counts(), counts);
    }

    /// A socket that nobody reads.
    fn stuck(dir: &Path) -> (UnixDatagram, PathBuf) {
        let path = dir.join("log");
        (UnixDatagram::bind(&path).expect("bound"), path)
    }

    #[test]
    fn a_full_queue_loses_lines_and_the_next_one_says_how_many() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (listening, socket) = stuck(dir.path());
        let config = AuditConfig {
            sink: AuditSink::Syslog,
            socket,
            required: true,
            ..AuditConfig::default()
        };
        let audit = open(&config);
        let place = audit.expect_one().expect("all is well").expect("it is required");
        let began = Instant::now();
        // What is with the kernel and the thread, all that waits, and more.
        let more = QUEUE * 4;
        (0..more).for_each(|what| audit.note(event(what), None));
        assert!(began.elapsed() < PATIENCE, "whoever notes never waits");
        eventually("a failure", || audit.counts().is_failing);
        assert_eq!(audit.expect_one().expect_err("it fails"), NotWritable);
        let lost = audit.counts().lost;
        assert!(lost > QUEUE as u64, "{lost}");
        audit.note(event(more), Some(place));
        assert_eq!(audit.counts().lost, lost, "its place was kept");
        let mut bytes = vec![0; 8_192];
        let mut next = || {
            let length = listening.recv(&mut bytes).expect("received");
            let text = std::str::from_utf8(&bytes[..length]).expect("UTF-8");
            let (_, json) = text.split_once(" - {").expect("a line");
            serde_json::from_str::<serde_json::Value>(&format!("{{{json}")).expect("JSON")
        };
        let said = loop {
            let line = next();
            if let Some(lost) = line["lost_before"].as_u64() {
                break lost;
            }
        };
        assert_eq!(said, lost);
        let last = more.to_string();
        while next()["what"] != last.as_str() {}
        eventually("the end of the failure", || !audit.counts().is_failing);
        assert!(audit.expect_one().is_ok());
    }

    #[test]
    fn a_flood_of_refusals_is_few_lines_and_a_number() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        let audit = open(&AuditConfig { file: Some(path.clone()), ..AuditConfig::default() });
        for what in 0..1_000 {
            audit.note_refusal(Event { from: "1.2.3.4".into(), ..event(what) });
        }
        eventually("the number", || {
            lines(&path).iter().any(|line| line["event"] == "refused.more")
        });
        let lines = lines(&path);
        assert!(lines.len() as u64 <= 3 * LINES, "{}", lines.len());
    }

    #[test]
    fn a_file_that_was_moved_is_followed_by_another_when_somebody_says_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        let audit = open(&AuditConfig { file: Some(path.clone()), ..AuditConfig::default() });
        std::fs::rename(&path, dir.path().join("b")).expect("moved");
        audit.reopen();
        eventually("another file", || path.exists());
    }
}
