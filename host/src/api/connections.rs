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
//!
//! The same holds for the connections of one address, of which there may be fewer. And while whoever asks
//! must say who they are, connections that have not done so make room for each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::source::Source;
use crate::transport::grpc::PeerMark;

/// Bounds of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once, besides those of peers.
    pub(super) most: usize,
    /// Of these, from one address.
    pub(super) per_address: usize,
    /// Of these, by which nobody has said who it is, while that must be said.
    pub(super) strangers: usize,
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
/// Of those beyond the bound on one address.
const PROBATION_PLACES_OF_ADDRESS: usize = 4;
/// Connections that were told to end beyond the bound and have not ended yet: their files are still open.
pub(crate) const LEAVING_PLACES: usize = 16;
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
    demands_identity: Demand,
    places: Mutex<Places>,
}

/// Whether whoever asks must say who they are, at the moment.
pub(super) type Demand = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, Arc<Place>>,
    /// Those that were taken out, and have not ended yet.
    leaving: usize,
    reported: Option<Instant>,
}

/// What is known of a connection.
pub(super) struct Place {
    number: u64,
    /// Where it comes from; `None`: from this machine, by a Unix socket.
    pub(super) address: Option<IpAddr>,
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
    /// Somebody has said by it who they are.
    is_known: AtomicBool,
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
    /// For a port where nobody has to say who they are.
    pub(super) fn new(bounds: Bounds) -> Arc<Table> {
        Table::demanding(bounds, Arc::new(|| false))
    }

    pub(super) fn demanding(bounds: Bounds, demands_identity: Demand) -> Arc<Table> {
        Arc::new(Table { bounds, demands_identity, places: Mutex::default() })
    }

    /// Whether whoever asks must say who they are.
    pub(super) fn demands_identity(&self) -> bool {
        (self.demands_identity)()
    }

    /// Takes a new connection in. `None`: there is no place for it. `kill`: ends all of them.
    pub(super) fn register(
        self: &Arc<Table>,
        kill: &CancellationToken,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Option<Registration> {
        let Bounds { most, per_address, strangers, greeting_bytes, .. } = self.bounds;
        let demands_identity = address.is_some() && self.demands_identity();
        let source = address.map(Source::of);
        let mut places = self.places();
        let counted = places.counted(None);
        if counted + places.leaving >= most + PROBATION_PLACES + LEAVING_PLACES {
            // To end yet another one would give no file back in time.
            return None;
        }
        let full = counted >= most;
        let crowd = source.filter(|source| places.counted(Some(*source)) >= per_address);
        let has_no_place = full || crowd.is_some();
        let on_probation = has_no_place && !places.dismiss_one(now, greeting_bytes, crowd);
        if full {
            places.report(now, most);
        }
        let (scope, places_on_probation) = match full {
            true => (None, PROBATION_PLACES),
            false => (crowd, PROBATION_PLACES_OF_ADDRESS),
        };
        if on_probation && places.on_probation(scope).count() >= places_on_probation {
            let oldest = places.on_probation(scope).next().map(|oldest| oldest.number);
            places.end(oldest?);
        }
        if demands_identity && places.strangers().count() >= strangers {
            // Whoever has something to say has said it, or says it soon.
            let oldest = places.strangers().next().map(|oldest| oldest.number);
            places.end(oldest?);
        }
        let number = places.next;
        places.next += 1;
        let place = Arc::new(Place {
            number,
            address,
            opened: now,
            received: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            busy_until_ms: AtomicU64::new(0),
            on_probation: AtomicBool::new(on_probation),
            is_known: AtomicBool::new(address.is_none()),
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
        let Bounds { greeting_bytes, idle, most, per_address, .. } = self.bounds;
        let mut places = self.places();
        let is_full = places.counted(None) >= most;
        let by_source = places.by_source();
        let has_room = |place: &Place| {
            let others = place.source().and_then(|source| by_source.get(&source));
            !is_full && others.is_none_or(|others| *others <= per_address)
        };
        let over = |place: &Place| {
            let age = now.duration_since(place.opened);
            let is_silent = !place.has_greeted(greeting_bytes) && age >= GREETING_TIME;
            let is_idle = place.idle_time(now).is_some_and(|time| time >= idle);
            let failed = place.is_on_probation() && !has_room(place) && age >= PROBATION;
            !place.peer.is_set() && (is_silent || is_idle || failed)
        };
        let mut ended = Vec::new();
        for (number, place) in &places.taken {
            if over(place) {
                ended.push(*number);
            } else if has_room(place) {
                place.on_probation.store(false, Ordering::Relaxed);
            }
        }
        ended.into_iter().for_each(|number| places.end(number));
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
        places.end(worst.number);
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
        places.end(worst.number);
        true
    }

    pub(super) fn counts(&self) -> Counts {
        let places = self.places();
        let (all, clients) = (places.taken.len(), places.counted(None));
        Counts { clients: clients as u64, members: (all - clients) as u64, accepted: places.next }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing that can panic half way runs under this lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Connections that the bound is for; of one source, if one is named.
    fn counted(&self, source: Option<Source>) -> usize {
        self.of(source).filter(|place| !place.peer.is_set()).count()
    }

    fn of(&self, source: Option<Source>) -> impl Iterator<Item = &Arc<Place>> {
        let is_meant = move |place: &&Arc<Place>| source.is_none() || place.source() == source;
        self.taken.values().filter(is_meant)
    }

    fn by_source(&self) -> BTreeMap<Source, usize> {
        let mut counts = BTreeMap::new();
        for place in self.taken.values().filter(|place| !place.peer.is_set()) {
            if let Some(source) = place.source() {
                *counts.entry(source).or_default() += 1;
            }
        }
        counts
    }

    /// From the oldest on, as are the next.
    fn on_probation(&self, source: Option<Source>) -> impl Iterator<Item = &Arc<Place>> {
        self.of(source).filter(|place| place.is_on_probation())
    }

    fn strangers(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.taken.values().filter(|place| place.is_of_stranger())
    }

    fn end(&mut self, number: u64) {
        if let Some(place) = self.taken.remove(&number) {
            place.kill.cancel();
            self.leaving += 1;
        }
    }

    /// Ends the connection that is missed least, if one is not missed at all: one that has said
    /// nothing, or else the one that has been without a call for longest.
    fn dismiss_one(&mut self, now: Instant, greeting_bytes: u64, source: Option<Source>) -> bool {
        let silent = self.of(source).find(|place| {
            !place.has_greeted(greeting_bytes) && now.duration_since(place.opened) >= DISPENSABLE
        });
        let idle = || {
            let idle = self.of(source).filter(|place| !place.peer.is_set());
            idle.filter_map(|place| Some((place.idle_time(now)?, place)))
                .filter(|(time, _)| *time >= DISPENSABLE)
                .max_by_key(|(time, place)| (*time, std::cmp::Reverse(place.number)))
                .map(|(_, place)| place)
        };
        let dispensable = silent.or_else(idle).map(|place| place.number);
        dispensable.map(|number| self.end(number)).is_some()
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
    /// Somebody has said by it who they are.
    pub(super) fn know(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

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

    fn source(&self) -> Option<Source> {
        self.address.map(Source::of)
    }

    fn is_of_stranger(&self) -> bool {
        !self.is_known.load(Ordering::Relaxed) && !self.peer.is_set()
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
        let mut places = self.table.places();
        if places.taken.remove(&self.place.number).is_none() {
            places.leaving -= 1;
        }
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

    const BOUNDS: Bounds = Bounds {
        most: 4,
        per_address: 4,
        strangers: 2,
        greeting_bytes: 33,
        idle: Duration::from_secs(60),
        age: None,
    };

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    struct Clock(Instant);

    impl Clock {
        fn open(&self, table: &Arc<Table>) -> Registration {
            self.open_from(table, address(1))
        }

        fn open_from(&self, table: &Arc<Table>, from: Option<IpAddr>) -> Registration {
            table.register(&CancellationToken::new(), from, self.0).expect("a place")
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
        let mut all: Vec<Registration> =
            (0..=PROBATION_PLACES).map(|_| clock.open(&table)).collect();
        assert!(is_ended(&all[0]));
        assert!(all[1..].iter().all(|one| !is_ended(one)));
        // What has been told to end has its file until it ends.
        let try_open = || table.register(&CancellationToken::new(), address(1), clock.0);
        let more: Vec<Registration> = std::iter::from_fn(try_open).take(1_000).collect();
        assert_eq!(all.len() + more.len(), PROBATION_PLACES + LEAVING_PLACES);
        all.retain(|one| !is_ended(one));
        assert!(try_open().is_some(), "some have ended");
    }

    #[test]
    fn one_address_has_few_connections_and_takes_nobody_elses_place() {
        let bounds = Bounds { most: 100, per_address: 3, ..BOUNDS };
        let (table, mut clock) = (Table::new(bounds), Clock(Instant::now()));
        let other = clock.open_from(&table, address(2));
        let own = [(); 3].map(|()| clock.open(&table));
        let calls: Vec<Call> = own[1..].iter().map(|one| one.place.begin(clock.0)).collect();
        for one in own.iter().chain([&other]) {
            one.place.receive(100);
        }
        clock.advance(DISPENSABLE);
        let fourth = clock.open(&table);
        assert!(is_ended(&own[0]) && !is_ended(&other), "its own makes room");
        fourth.place.receive(100);
        let more = fourth.place.begin(clock.0);
        let beyond: Vec<Registration> =
            (0..=PROBATION_PLACES_OF_ADDRESS).map(|_| clock.open(&table)).collect();
        assert!(is_ended(&beyond[0]), "few are on probation");
        assert!(!clock.open_from(&table, address(2)).place.is_on_probation());
        clock.advance(PROBATION);
        table.sweep(clock.0);
        assert!(beyond.iter().all(is_ended), "no member has introduced itself");
        assert!(own[1..].iter().chain([&fourth, &other]).all(|one| !is_ended(one)));
        drop((calls, more));
    }

    #[test]
    fn where_it_must_be_said_who_asks_those_that_have_not_make_room_for_each_other() {
        let demanded = Arc::new(AtomicBool::new(false));
        let demand = Arc::clone(&demanded);
        let bounds = Bounds { most: 100, per_address: 100, ..BOUNDS };
        let table = Table::demanding(bounds, Arc::new(move || demand.load(Ordering::Relaxed)));
        let clock = Clock(Instant::now());
        let [known, one, two] = [(); 3].map(|()| clock.open(&table));
        known.place.know();
        let local = clock.open_from(&table, None);
        assert!(!is_ended(&one), "nothing is demanded");
        demanded.store(true, Ordering::Relaxed);
        let three = clock.open(&table);
        assert!(is_ended(&one) && ![&known, &two, &local, &three].into_iter().any(is_ended));
        let _by_socket = clock.open_from(&table, None);
        assert!(!is_ended(&two), "whoever comes by the socket takes nobody's place");
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
