//! The accepted connections of a port: how many, how long, and which of them go first.
//!
//! Each costs a descriptor and some memory, and whoever reaches the port may open them. So they
//! are counted; who says nothing is sent away soon; and when there are too many, those that do
//! nothing make room. Peers of the cluster come first: their connections are not counted, and
//! when the table is full new ones are taken on probation, which ends soon unless a member
//! introduces itself.
//!
//! ```text
//!   accept ─► full? ─► end one that says nothing, or does nothing ─► serve ─► gone
//!               │ none of these                                        ▲
//!               └─► on probation (a few places) ─► a member speaks ────┘
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::transport::grpc::PeerMark;

/// Bounds of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once, besides those of peers.
    pub(super) most: usize,
    /// Bytes after which a connection has said what it is.
    pub(super) greeting_bytes: u64,
    /// A connection without a call is ended after this time.
    pub(super) idle: Duration,
    /// How old a connection may get, if there is a bound.
    pub(super) age: Option<Duration>,
}

/// How long a connection may take for its greeting.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// How long a connection beyond the bound may take until a member has introduced itself.
const PROBATION: Duration = Duration::from_secs(3);
/// Places for connections on probation.
pub(crate) const PROBATION_PLACES: usize = 16;
/// How often the table is looked through.
const SWEEP: Duration = Duration::from_millis(500);
/// A connection that does nothing for so long may be ended in favour of a new one.
const DISPENSABLE: Duration = Duration::from_secs(1);
/// Calls that only wait may be ended in favour of new ones when nothing of them moved for so long.
const WAITED_OUT: Duration = Duration::from_secs(10);
/// The bound is reported at most this often.
const REPORT: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Table {
    bounds: Bounds,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, Arc<Place>>,
    reported: Option<Instant>,
}

/// What is known of a connection.
pub(super) struct Place {
    number: u64,
    opened: Instant,
    /// Bytes received.
    received: AtomicU64,
    /// Calls that are not done.
    calls: AtomicUsize,
    /// Those of them whose answer has begun: they wait for their client, or for news.
    answering: AtomicUsize,
    /// When anything of a call came or left last; milliseconds after `opened`.
    moved_ms: AtomicU64,
    /// When the last call ended, or the connection began; milliseconds after `opened`.
    busy_until_ms: AtomicU64,
    on_probation: AtomicBool,
    /// A member of the cluster uses it.
    pub(super) peer: PeerMark,
    /// Bytes of answers that were made and have not left.
    unread: AtomicU64,
    pub(super) kill: CancellationToken,
}

/// Connections of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Open ones of clients, and of whom nobody knows yet.
    pub(super) clients: u64,
    /// Open ones of members.
    pub(super) members: u64,
    /// All that were taken in.
    pub(super) accepted: u64,
}

/// A connection's entry in the table; dropping it takes it out.
pub(super) struct Registration {
    table: Arc<Table>,
    pub(super) place: Arc<Place>,
}

/// A call that is not done; dropping it ends it.
pub(super) struct Call(Arc<Place>);

/// An answer that has begun and is not done; dropping it ends it.
pub(super) struct Answer(Arc<Place>);

impl Table {
    pub(super) fn new(bounds: Bounds) -> Arc<Table> {
        Arc::new(Table { bounds, places: Mutex::default() })
    }

    /// Takes a new connection in. `None`: there is no place for it. `kill`: ends all of them.
    pub(super) fn register(
        self: &Arc<Table>,
        kill: &CancellationToken,
        now: Instant,
    ) -> Option<Registration> {
        let mut places = self.places();
        let full = places.counted() >= self.bounds.most;
        let on_probation = full && !places.dismiss_one(now, self.bounds.greeting_bytes);
        if full {
            places.report(now, self.bounds.most);
        }
        if on_probation && places.on_probation() >= PROBATION_PLACES {
            let oldest = places.taken.values().find(|place| place.is_on_probation())?;
            oldest.kill.cancel();
            let number = oldest.number;
            places.taken.remove(&number);
        }
        let number = places.next;
        places.next += 1;
        let place = Arc::new(Place {
            number,
            opened: now,
            received: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            busy_until_ms: AtomicU64::new(0),
            on_probation: AtomicBool::new(on_probation),
            peer: PeerMark::until(self.bounds.age.map(|age| now + age)),
            unread: AtomicU64::new(0),
            kill: kill.child_token(),
        });
        places.taken.insert(number, Arc::clone(&place));
        Some(Registration { table: Arc::clone(self), place })
    }

    /// Sweeps for ever.
    pub(super) async fn keep_swept(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            self.sweep(Instant::now());
        }
    }

    /// Ends connections whose time is over.
    fn sweep(&self, now: Instant) {
        let Bounds { greeting_bytes, idle, most, .. } = self.bounds;
        let mut places = self.places();
        let has_room = places.counted() < most;
        let over = |place: &Place| {
            let age = now.duration_since(place.opened);
            let is_silent = !place.has_greeted(greeting_bytes) && age >= GREETING_TIME;
            let is_idle = place.idle_time(now).is_some_and(|time| time >= idle);
            let failed = place.is_on_probation() && !has_room && age >= PROBATION;
            !place.peer.is_set() && (is_silent || is_idle || failed)
        };
        places.taken.retain(|_, place| {
            let ends = over(place);
            if ends {
                place.kill.cancel();
            } else if has_room {
                place.on_probation.store(false, Ordering::Relaxed);
            }
            !ends
        });
    }

    /// Ends the connection that leaves most of its answers unread. Whether there is one.
    pub(super) fn dismiss_who_does_not_read(&self) -> bool {
        let mut places = self.places();
        let unread = |place: &Place| place.unread.load(Ordering::Relaxed);
        let Some(worst) = places.taken.values().max_by_key(|place| unread(place)).cloned() else {
            return false;
        };
        if unread(&worst) == 0 {
            return false;
        }
        tracing::warn!(
            bytes = unread(&worst),
            "answers that nobody reads take too much memory: ended the connection with the most"
        );
        worst.kill.cancel();
        places.taken.remove(&worst.number);
        true
    }

    /// Ends a connection whose calls all wait for their client, of which nothing has moved for a
    /// while: the one with the most calls. Whether there is one.
    pub(super) fn dismiss_who_only_waits(&self, now: Instant) -> bool {
        let mut places = self.places();
        let waiting = places.taken.values().filter(|place| place.only_waits(now));
        let Some(worst) = waiting.max_by_key(|place| place.calls()).cloned() else { return false };
        tracing::warn!(
            calls = worst.calls(),
            "as many calls as this node serves: ended the connection with the most that only wait"
        );
        worst.kill.cancel();
        places.taken.remove(&worst.number);
        true
    }

    pub(super) fn counts(&self) -> Counts {
        let places = self.places();
        let (all, clients) = (places.taken.len(), places.counted());
        Counts { clients: clients as u64, members: (all - clients) as u64, accepted: places.next }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing that can panic half way runs under this lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Connections that the bound is for.
    fn counted(&self) -> usize {
        self.taken.values().filter(|place| !place.peer.is_set()).count()
    }

    fn on_probation(&self) -> usize {
        self.taken.values().filter(|place| place.is_on_probation()).count()
    }

    /// Ends the connection that is missed least, if one is not missed at all: one that has said
    /// nothing, or else the one that has been without a call for longest.
    fn dismiss_one(&mut self, now: Instant, greeting_bytes: u64) -> bool {
        let silent = self.taken.values().find(|place| {
            !place.has_greeted(greeting_bytes) && now.duration_since(place.opened) >= DISPENSABLE
        });
        let idle = || {
            let idle = self.taken.values().filter(|place| !place.peer.is_set());
            idle.filter_map(|place| Some((place.idle_time(now)?, place)))
                .filter(|(time, _)| *time >= DISPENSABLE)
                .max_by_key(|(time, place)| (*time, std::cmp::Reverse(place.number)))
                .map(|(_, place)| place)
        };
        let Some(place) = silent.or_else(idle).cloned() else { return false };
        place.kill.cancel();
        self.taken.remove(&place.number);
        true
    }

    fn report(&mut self, now: Instant, most: usize) {
        if self.reported.is_none_or(|at| now.duration_since(at) >= REPORT) {
            self.reported = Some(now);
            tracing::warn!(
                most,
                "as many connections as this node serves: idle ones are ended in favour of new \
                 ones; see api.max_connections, and the limit of open files"
            );
        }
    }
}

impl Place {
    /// Bytes arrived.
    pub(super) fn receive(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A call begins.
    pub(super) fn begin(self: &Arc<Place>, now: Instant) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.moves(now);
        Call(Arc::clone(self))
    }

    /// The answer of a call begins.
    pub(super) fn answer(self: &Arc<Place>) -> Answer {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answer(Arc::clone(self))
    }

    /// Something of a call came or left.
    pub(super) fn moves(&self, now: Instant) {
        self.moved_ms.store(millis(now.duration_since(self.opened)), Ordering::Relaxed);
    }

    /// Calls that are not done.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Answers were made.
    pub(super) fn add_unread(&self, bytes: u64) {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Answers have left.
    pub(super) fn take_unread(&self, bytes: u64) {
        self.unread.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn has_greeted(&self, greeting_bytes: u64) -> bool {
        self.received.load(Ordering::Relaxed) >= greeting_bytes
    }

    fn is_on_probation(&self) -> bool {
        self.on_probation.load(Ordering::Relaxed) && !self.peer.is_set()
    }

    /// Since when there is no call; `None` while there is one.
    fn idle_time(&self, now: Instant) -> Option<Duration> {
        if self.calls() > 0 {
            return None;
        }
        let busy_until = Duration::from_millis(self.busy_until_ms.load(Ordering::Relaxed));
        Some(now.duration_since(self.opened).saturating_sub(busy_until))
    }

    fn only_waits(&self, now: Instant) -> bool {
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        let quiet = now.duration_since(self.opened).saturating_sub(moved);
        let calls = self.calls();
        let all_wait = self.answering.load(Ordering::Relaxed) >= calls;
        calls > 0 && all_wait && quiet >= WAITED_OUT && !self.peer.is_set()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.table.places().taken.remove(&self.place.number);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.busy_until_ms.store(millis(self.0.opened.elapsed()), Ordering::Relaxed);
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { most: 4, greeting_bytes: 33, idle: Duration::from_secs(60), age: None };

    struct Clock(Instant);

    impl Clock {
        fn open(&self, table: &Arc<Table>) -> Registration {
            table.register(&CancellationToken::new(), self.0).expect("a place")
        }

        fn advance(&mut self, time: Duration) {
            self.0 += time;
        }
    }

    fn is_ended(registration: &Registration) -> bool {
        registration.place.kill.is_cancelled()
    }

    #[test]
    fn who_says_nothing_or_does_nothing_is_ended_and_who_works_is_not() {
        let (table, mut clock) = (Table::new(BOUNDS), Clock(Instant::now()));
        let [silent, idle, busy] = [(); 3].map(|()| clock.open(&table));
        idle.place.receive(33);
        busy.place.receive(33);
        let _call = busy.place.begin(clock.0);
        table.sweep(clock.0);
        assert!(!is_ended(&silent));
        assert_eq!(table.counts(), Counts { clients: 3, members: 0, accepted: 3 });
        clock.advance(GREETING_TIME);
        table.sweep(clock.0);
        assert!(is_ended(&silent) && !is_ended(&idle));
        clock.advance(BOUNDS.idle);
        table.sweep(clock.0);
        assert!(is_ended(&idle) && !is_ended(&busy));
        assert_eq!(table.counts(), Counts { clients: 1, members: 0, accepted: 3 });
    }

    #[test]
    fn a_full_table_ends_the_silent_then_the_idle_and_never_the_busy() {
        let (table, mut clock) = (Table::new(BOUNDS), Clock(Instant::now()));
        let all = [(); 4].map(|()| clock.open(&table));
        for one in &all[..3] {
            one.place.receive(100);
        }
        let calls: Vec<Call> = all[..2].iter().map(|one| one.place.begin(clock.0)).collect();
        clock.advance(DISPENSABLE);
        let fifth = clock.open(&table);
        assert!(is_ended(&all[3]), "it has said nothing");
        let sixth = clock.open(&table);
        assert!(is_ended(&all[2]), "it does nothing");
        fifth.place.receive(100);
        sixth.place.receive(100);
        let more = [fifth.place.begin(clock.0), sixth.place.begin(clock.0)];
        let seventh = clock.open(&table);
        assert!(seventh.place.is_on_probation());
        clock.advance(PROBATION);
        table.sweep(clock.0);
        assert!(is_ended(&seventh), "nobody introduced itself");
        assert!(all[..2].iter().chain([&fifth, &sixth]).all(|one| !is_ended(one)));
        drop((calls, more));
    }

    #[test]
    fn probation_has_few_places_and_the_oldest_makes_room() {
        let (table, clock) = (Table::new(Bounds { most: 0, ..BOUNDS }), Clock(Instant::now()));
        let all: Vec<Registration> = (0..=PROBATION_PLACES).map(|_| clock.open(&table)).collect();
        assert!(is_ended(&all[0]));
        assert!(all[1..].iter().all(|one| !is_ended(one)));
    }

    #[test]
    fn of_those_that_only_wait_the_one_with_the_most_calls_goes_first() {
        let (table, mut clock) = (Table::new(BOUNDS), Clock(Instant::now()));
        let [few, many, moving, working] = [(); 4].map(|()| clock.open(&table));
        let mut calls = Vec::new();
        for (one, count) in [(&few, 1), (&many, 2), (&moving, 3), (&working, 4)] {
            for _ in 0..count {
                calls.push((one.place.begin(clock.0), Some(one.place.answer())));
            }
        }
        // One that is being worked on, whose answer has not begun.
        calls.last_mut().expect("ten calls").1 = None;
        assert!(!table.dismiss_who_only_waits(clock.0));
        clock.advance(WAITED_OUT);
        moving.place.moves(clock.0);
        assert!(table.dismiss_who_only_waits(clock.0) && is_ended(&many));
        assert!(table.dismiss_who_only_waits(clock.0) && is_ended(&few));
        assert!(!table.dismiss_who_only_waits(clock.0));
        assert!(!is_ended(&moving) && !is_ended(&working));
    }

    #[test]
    fn who_leaves_most_unread_goes_first() {
        let (table, clock) = (Table::new(BOUNDS), Clock(Instant::now()));
        let [one, two] = [(); 2].map(|()| clock.open(&table));
        assert!(!table.dismiss_who_does_not_read());
        one.place.add_unread(5);
        two.place.add_unread(9);
        assert!(table.dismiss_who_does_not_read());
        assert!(is_ended(&two) && !is_ended(&one));
    }
}
