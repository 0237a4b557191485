//! What a node counts while it works: plain atomics, written by its loops and read by whoever
//! shows them.
//!
//! Nothing here is ever read to decide anything. Durations come from the clock that the node
//! was started with, which stands still in a simulation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::answer::ProposeFailure;
use super::pace::Pace;
use crate::machine::{Applied, BodyKind, CommandRefused, Machine, QueryReply, QueryResult, Reply};
use crate::rehearsal::{ByKind, Kind};
use crate::types::{Index, Outcome, TrapKind};

/// One entry in so many has its pages counted: enough to see what commands write, too few to
/// cost anything.
const PAGES_EVERY: u64 = 1024;

/// What the apply loop may be busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum JobKind {
    /// An entry.
    Apply,
    /// An entry that makes another module active, or has the running one compiled again.
    Activate,
    /// A query.
    Query,
    /// Copying the machine for a snapshot.
    Capture,
    /// Putting a leader's snapshot in the place of the machine.
    Install,
}

impl JobKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [JobKind; 5] =
        [JobKind::Apply, JobKind::Activate, JobKind::Query, JobKind::Capture, JobKind::Install];

    /// That of an entry; `None`: a change of the members.
    pub(super) fn of(entry: Option<BodyKind>) -> JobKind {
        match entry {
            Some(BodyKind::ActivateModule | BodyKind::SetLimits) => JobKind::Activate,
            _ => JobKind::Apply,
        }
    }

    /// Its name in metrics and log lines.
    pub fn name(self) -> &'static str {
        match self {
            JobKind::Apply => "apply",
            JobKind::Activate => "activate",
            JobKind::Query => "query",
            JobKind::Capture => "capture",
            JobKind::Install => "install",
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// It grew.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that grows and shrinks: what waits somewhere.
#[derive(Debug, Default)]
pub struct Waiting(AtomicU64);

impl Waiting {
    /// More waits.
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// So much waits no longer.
    pub(super) fn take(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// What waits now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's buckets, in seconds; the last bucket has none.
pub const BUCKETS_SECONDS: [f64; 13] =
    [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
const BUCKETS: usize = BUCKETS_SECONDS.len() + 1;
const BUCKETS_NANOS: [u64; BUCKETS - 1] = [
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
];

/// How long something took, by [`BUCKETS_SECONDS`].
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Counter; BUCKETS],
    nanos: Counter,
}

fn nanos_of(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// The bucket of a duration.
fn bucket_of(nanos: u64) -> usize {
    BUCKETS_NANOS.partition_point(|bound| *bound < nanos)
}

impl Durations {
    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let nanos = nanos_of(took);
        self.buckets[bucket_of(nanos)].add(1);
        self.nanos.add(nanos);
    }

    /// Takes over what one thread has noted, which is empty then.
    pub fn take_over(&self, noted: &mut NotedDurations) {
        for (bucket, more) in self.buckets.iter().zip(&mut noted.buckets) {
            match std::mem::take(more) {
                0 => {}
                more => bucket.add(more),
            }
        }
        self.nanos.add(std::mem::take(&mut noted.nanos));
    }

    /// Observations per bucket, not cumulated; one more than [`BUCKETS_SECONDS`] has.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.buckets[at].get())
    }

    /// All observations added up, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.nanos.get() as f64 / 1e9
    }
}

/// Durations that one thread notes for itself, to be taken over by a [`Durations`] now and then.
#[derive(Debug, Default)]
pub struct NotedDurations {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl NotedDurations {
    /// Something took so long.
    pub fn observe(&mut self, took: Duration) {
        let nanos = nanos_of(took);
        self.buckets[bucket_of(nanos)] += 1;
        self.nanos = self.nanos.saturating_add(nanos);
    }
}

/// How a call of the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Outcome`")]
pub enum Ending {
    Ok,
    Rejected,
    Trapped(TrapKind),
}

impl Ending {
    /// Every ending.
    pub fn all() -> impl Iterator<Item = Ending> {
        let trapped = TrapKind::ALL.into_iter().map(Ending::Trapped);
        [Ending::Ok, Ending::Rejected].into_iter().chain(trapped)
    }

    /// `None`: the guest did not run.
    fn of(outcome: &Outcome) -> Option<Ending> {
        match outcome {
            Outcome::Ok(_) => Some(Ending::Ok),
            Outcome::Rejected(_) => Some(Ending::Rejected),
            Outcome::Trapped(kind) => Some(Ending::Trapped(*kind)),
            Outcome::Duplicate(_) => None,
        }
    }

    fn place(self) -> usize {
        match self {
            Ending::Ok => 0,
            Ending::Rejected => 1,
            Ending::Trapped(kind) => 1 + kind as usize,
        }
    }
}

/// Something counted apart for each [`Ending`].
#[derive(Debug, Default)]
pub struct PerEnding<T>([T; 2 + TrapKind::ALL.len()]);

impl<T> PerEnding<T> {
    /// What belongs to one ending.
    pub fn of(&self, ending: Ending) -> &T {
        &self.0[ending.place()]
    }
}

/// Commands that ended alike.
#[derive(Debug, Default)]
pub struct Applies {
    /// How many.
    pub count: Counter,
    /// Fuel that they used.
    pub fuel: Counter,
    /// Those of them whose pages were counted.
    pub pages_samples: Counter,
    /// Pages that those wrote.
    pub pages_dirtied: Counter,
}

/// Queries that ended alike.
#[derive(Debug, Default)]
pub struct Queries {
    /// How many.
    pub count: Counter,
    /// Fuel that they used.
    pub fuel: Counter,
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// As a metric's label.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// Why the guest did not see a command.
    NotRun {
        Duplicate = "duplicate",
        NoModule = "no_module",
        SessionExpired = "session_expired",
        SequenceTooOld = "sequence_too_old",
        SequenceReused = "sequence_reused",
        SessionFull = "session_full",
        SessionsFull = "sessions_full",
        TooLarge = "too_large",
        Malformed = "malformed",
        Denied = "denied",
    }
}

reasons! {
    /// Why a query was not asked.
    NotAsked {
        NoModule = "no_module",
        NoQueryExport = "no_query_export",
        TooLarge = "too_large",
        HostShort = "host_short",
    }
}

reasons! {
    /// Why a proposal failed.
    Refusal {
        NotLeader = "not_leader",
        Busy = "busy",
        TooLarge = "too_large",
        Superseded = "superseded",
        Membership = "membership",
        Stopping = "stopping",
        Quarantined = "quarantined",
        InDoubt = "in_doubt",
        Unconfirmed = "unconfirmed",
        NoSpace = "no_space",
        Unknown = "unknown",
    }
}

reasons! {
    /// Why a session ended.
    SessionEnd {
        Closed = "closed",
        Expired = "expired",
    }
}

/// Sessions that a machine has seen the end of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionsEnded {
    pub(super) all: u64,
    pub(super) expired: u64,
}

impl SessionsEnded {
    pub(super) fn of(machine: &Machine) -> SessionsEnded {
        SessionsEnded { all: machine.sessions_ended(), expired: machine.sessions_expired() }
    }
}

/// All that a node counts. See the texts in `api::http` for what each means to people.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// Commands that the guest ran.
    pub applies: PerEnding<Applies>,
    /// Commands that it did not.
    pub commands_not_run: [Counter; NotRun::ALL.len()],
    /// Applied entries by [`BodyKind`], then membership changes.
    entries: [Counter; BodyKind::ALL.len() + 1],
    /// Time to apply an entry.
    pub apply_duration: Durations,
    /// Queries that the guest answered, one way or another.
    pub queries: PerEnding<Queries>,
    /// Queries that it was not asked.
    pub queries_not_asked: [Counter; NotAsked::ALL.len()],
    /// Jobs that took longer than `slow_apply_ms`.
    slow_jobs: [Counter; JobKind::ALL.len()],
    /// Snapshots written.
    pub snapshots_saved: Counter,
    /// Snapshots that could not be written.
    pub snapshots_failed: Counter,
    /// Snapshots of a leader that replaced the machine.
    pub snapshots_installed: Counter,
    /// Size of the newest snapshot, in bytes; 0 when there is none.
    pub snapshot_bytes: Counter,
    /// The log's clock as of the newest snapshot, in milliseconds since the Unix epoch; 0 when there is
    /// none.
    pub snapshot_time_ms: Counter,
    /// How long applies stood still for a snapshot.
    pub snapshot_capture_duration: Durations,
    /// How long it took to write one out.
    pub snapshot_write_duration: Durations,
    /// How long applies stood still for another module.
    pub switch_duration: Durations,
    /// How long rehearsals took that came to an end.
    pub rehearsal_duration: Durations,
    /// Shadows that run.
    pub shadows_running: Waiting,
    /// Commands that shadows have compared.
    pub shadow_commands: Counter,
    /// Commands that wait for the shadow.
    pub shadow_waiting: Counter,
    /// What shadows have found, in the order of [`Kind::ALL`].
    shadow_differences: [Counter; Kind::ALL.len()],
    /// Other leaders than the one before, as seen here.
    pub leader_changes: Counter,
    /// Messages of peers that no correct peer sends.
    pub nonsense: Counter,
    /// Requests to append an entry.
    pub proposals: Counter,
    /// Those that failed.
    pub proposals_failed: [Counter; Refusal::ALL.len()],
    /// From when what callers propose reaches a node until its entry is committed, durable there and on
    /// its way to the machine. Of an entry with several commands: of the first.
    pub commit_duration: Durations,
    /// From then on until the entry is applied, and all its commands are answered.
    pub committed_apply_duration: Durations,
    /// Sessions that were opened.
    pub sessions_opened: Counter,
    /// Sessions that were not, because there are too many.
    pub sessions_refused: Counter,
    /// Sessions that ended, by [`SessionEnd`].
    pub sessions_ended: [Counter; SessionEnd::ALL.len()],
    /// Bytes of entries that wait for the log writer, or are being written.
    pub log_waiting_bytes: Waiting,
    /// Time to write a batch of the log with its fsync.
    pub log_write_duration: Durations,
    /// The same, of the last minute.
    pub log_write_pace: Pace,
    /// Entries in those batches.
    pub log_entries_written: Counter,
    /// Bytes of those entries.
    pub log_bytes_written: Counter,
}

impl NodeMetrics {
    /// Applied entries of a kind; `None`: membership changes.
    pub fn entries_applied(&self, kind: Option<BodyKind>) -> u64 {
        self.entries[kind_place(kind)].get()
    }

    /// Jobs of a kind that took longer than `slow_apply_ms`.
    pub fn slow_jobs(&self, kind: JobKind) -> u64 {
        self.slow_jobs[kind as usize].get()
    }

    /// Differences of a kind that shadows have found.
    pub fn shadow_differences(&self, kind: Kind) -> u64 {
        self.shadow_differences[kind as usize].get()
    }

    /// A shadow has found so many, and had found so many before.
    pub(super) fn on_shadow_differences(&self, before: ByKind, now: ByKind) {
        for (counter, (now, before)) in self.shadow_differences.iter().zip(now.iter().zip(before)) {
            counter.add(now.saturating_sub(before));
        }
    }

    /// Whether the pages that this entry writes shall be counted.
    pub(super) fn samples_pages(index: Index) -> bool {
        index.0.is_multiple_of(PAGES_EVERY)
    }

    pub(super) fn on_entry(&self, kind: Option<BodyKind>, took: Duration) {
        self.entries[kind_place(kind)].add(1);
        self.apply_duration.observe(took);
    }

    /// What came of a command; what came of other entries counts for nothing.
    pub(super) fn on_answer(&self, applied: &Applied) {
        let not_run = match &applied.reply {
            Reply::Command(outcome) => match Ending::of(outcome) {
                Some(ending) => return self.on_command(ending, applied),
                None => NotRun::Duplicate,
            },
            Reply::NoModule => NotRun::NoModule,
            Reply::Refused(CommandRefused::SessionExpired) => NotRun::SessionExpired,
            Reply::Refused(CommandRefused::SequenceTooOld) => NotRun::SequenceTooOld,
            Reply::Refused(CommandRefused::SequenceReused { .. }) => NotRun::SequenceReused,
            Reply::Refused(CommandRefused::SessionFull { .. }) => NotRun::SessionFull,
            Reply::Refused(CommandRefused::SessionsFull { .. }) => NotRun::SessionsFull,
            Reply::SessionOpened { .. } => return self.sessions_opened.add(1),
            Reply::Refused(CommandRefused::TooManySessions { .. }) => {
                return self.sessions_refused.add(1);
            }
            Reply::Refused(CommandRefused::TooLarge { .. }) => NotRun::TooLarge,
            Reply::Refused(CommandRefused::Malformed(_)) => NotRun::Malformed,
            Reply::Refused(CommandRefused::Denied(_)) => NotRun::Denied,
            _ => return,
        };
        self.commands_not_run[not_run as usize].add(1);
    }

    fn on_command(&self, ending: Ending, applied: &Applied) {
        let applies = self.applies.of(ending);
        applies.count.add(1);
        applies.fuel.add(applied.fuel_used);
        if let Some(pages) = applied.pages_dirtied {
            applies.pages_samples.add(1);
            applies.pages_dirtied.add(pages);
        }
    }

    pub(super) fn on_query(&self, reply: &QueryReply) {
        let not_asked = match &reply.result {
            QueryResult::Answer(outcome) => {
                let ending = Ending::of(outcome).expect("queries have no sessions");
                let queries = self.queries.of(ending);
                queries.count.add(1);
                queries.fuel.add(reply.fuel_used);
                return;
            }
            QueryResult::NoModule => NotAsked::NoModule,
            QueryResult::NoQueryExport => NotAsked::NoQueryExport,
            QueryResult::TooLarge { .. } => NotAsked::TooLarge,
            QueryResult::Unanswered(_) => NotAsked::HostShort,
        };
        self.queries_not_asked[not_asked as usize].add(1);
    }

    /// Sessions ended between these two looks at a machine.
    pub(super) fn on_sessions_ended(&self, before: SessionsEnded, now: SessionsEnded) {
        let all = now.all.saturating_sub(before.all);
        let expired = now.expired.saturating_sub(before.expired);
        self.sessions_ended[SessionEnd::Expired as usize].add(expired);
        self.sessions_ended[SessionEnd::Closed as usize].add(all.saturating_sub(expired));
    }

    pub(super) fn on_slow(&self, kind: JobKind) {
        self.slow_jobs[kind as usize].add(1);
    }

    /// So many callers were refused.
    pub(super) fn on_refusal(&self, failure: &ProposeFailure, callers: u64) {
        let refusal = match failure {
            ProposeFailure::NotLeader(_) => Refusal::NotLeader,
            ProposeFailure::Busy(_) => Refusal::Busy,
            ProposeFailure::TooLarge { .. } | ProposeFailure::BatchSize { .. } => Refusal::TooLarge,
            ProposeFailure::Superseded => Refusal::Superseded,
            ProposeFailure::ConfChange(_) | ProposeFailure::Level(_) => Refusal::Membership,
            ProposeFailure::Stopping => Refusal::Stopping,
            ProposeFailure::Quarantined => Refusal::Quarantined,
            ProposeFailure::InDoubt => Refusal::InDoubt,
            ProposeFailure::Unconfirmed => Refusal::Unconfirmed,
            ProposeFailure::NoSpace(_) => Refusal::NoSpace,
            // Counted where it was applied.
            ProposeFailure::Denied(_) => return,
            ProposeFailure::Unknown(_) => Refusal::Unknown,
        };
        self.proposals_failed[refusal as usize].add(callers);
    }
}

fn kind_place(kind: Option<BodyKind>) -> usize {
    kind.map_or(BodyKind::ALL.len(), |kind| kind as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_a_place_of_its_own() {
        let counts = PerEnding::<Counter>::default();
        for (number, ending) in Ending::all().enumerate() {
            counts.of(ending).add(number as u64 + 1);
        }
        for (number, ending) in Ending::all().enumerate() {
            assert_eq!(counts.of(ending).get(), number as u64 + 1, "{ending:?}");
        }
        for (number, kind) in BodyKind::ALL.into_iter().enumerate() {
            assert_eq!(kind_place(Some(kind)), number);
        }
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        durations.observe(Duration::ZERO);
        durations.observe(Duration::from_micros(10));
        durations.observe(Duration::from_millis(2));
        durations.observe(Duration::from_secs(99));
        let mut expected = [0; BUCKETS];
        (expected[0], expected[5], expected[BUCKETS - 1]) = (2, 1, 1);
        assert_eq!(durations.buckets(), expected);
        assert!((durations.sum_seconds() - 99.002_01).abs() < 1e-6);
        for (seconds, nanos) in BUCKETS_SECONDS.into_iter().zip(BUCKETS_NANOS) {
            assert_eq!((seconds * 1e9).round() as u64, nanos);
        }
    }

    #[test]
    fn what_a_thread_notes_is_counted_once_as_if_it_was_observed() {
        let (noted, observed) = (Durations::default(), Durations::default());
        let mut notes = NotedDurations::default();
        for took in [1, 70_000, 3_000_000, 40_000_000_000].map(Duration::from_nanos) {
            notes.observe(took);
            observed.observe(took);
        }
        noted.take_over(&mut notes);
        noted.take_over(&mut notes);
        assert_eq!(noted.buckets(), observed.buckets());
        assert_eq!(noted.sum_seconds(), observed.sum_seconds());
    }

    #[test]
    fn sessions_end_by_their_clients_or_by_the_clock() {
        let metrics = NodeMetrics::default();
        let before = SessionsEnded { all: 3, expired: 1 };
        metrics.on_sessions_ended(before, SessionsEnded { all: 8, expired: 3 });
        assert_eq!(metrics.sessions_ended[SessionEnd::Closed as usize].get(), 3);
        assert_eq!(metrics.sessions_ended[SessionEnd::Expired as usize].get(), 2);
    }

    #[test]
    fn what_was_not_run_used_nothing_and_is_counted_by_its_reason() {
        let metrics = NodeMetrics::default();
        let applied = |reply, pages_dirtied| Applied {
            reply,
            fuel_used: 5,
            events: Vec::new(),
            trap_message: None,
            pages_dirtied,
            waited: None,
        };
        let command = Some(BodyKind::Command);
        let trapped = Reply::Command(Outcome::Trapped(TrapKind::OutOfFuel));
        metrics.on_entry(command, Duration::ZERO);
        metrics.on_answer(&applied(trapped, Some(3)));
        let first = Box::new(Outcome::Ok(Vec::new()));
        let duplicate = Reply::Command(Outcome::Duplicate(first));
        metrics.on_answer(&applied(duplicate, None));
        metrics.on_entry(Some(BodyKind::Nothing), Duration::ZERO);
        metrics.on_answer(&applied(Reply::Nothing, None));
        let out_of_fuel = metrics.applies.of(Ending::Trapped(TrapKind::OutOfFuel));
        assert_eq!((out_of_fuel.count.get(), out_of_fuel.fuel.get()), (1, 5));
        assert_eq!((out_of_fuel.pages_samples.get(), out_of_fuel.pages_dirtied.get()), (1, 3));
        assert_eq!(metrics.applies.of(Ending::Ok).count.get(), 0);
        assert_eq!(metrics.commands_not_run[NotRun::Duplicate as usize].get(), 1);
        assert_eq!(metrics.entries_applied(command), 1, "both were in one entry");
        assert_eq!(metrics.entries_applied(Some(BodyKind::Nothing)), 1);
    }
}
