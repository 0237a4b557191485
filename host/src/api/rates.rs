//! How many requests a second: of each principal, and of each address while nobody knows who asks.
//!
//! A bucket is one number, the time at which it will be empty (the generic cell rate algorithm), so to take from
//! it needs no lock and no memory; it is looked up once a call, and streams keep theirs. Without a bound there
//! are no buckets.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::middleware::Next;
use raft_host_proto::FORWARDED_KEY;
use raft_host_proto::peer::{enrollment_server, membership_server};
use raft_host_proto::v1::Reason;

use super::config::ApiConfig;
use super::connections::Table;
use super::failure::Failure;
use super::io::{Caller, Presented};
use super::source::Source;
use crate::types::{Actor, PrincipalId};

/// Buckets of one kind; those that were used least recently are forgotten.
const BUCKETS: usize = 10_000;
/// First contacts of newcomers from one address, whatever the settings say: nobody needs many.
const NEWCOMERS_PER_SECOND: u64 = 2;
const NEWCOMERS_BURST: u64 = 20;
/// Longest time that bursts make up for; it cannot overflow.
const BURST_MAX: Duration = Duration::from_secs(86_400);

/// See the module.
pub(super) struct Rates {
    /// Of whoever may ask.
    callers: Option<Buckets<Whose>>,
    /// Of those that should have said who they are.
    strangers: Option<Buckets<Source>>,
    /// Of those that ask for a node's first certificate.
    newcomers: Option<Buckets<Source>>,
    table: Arc<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Principal(PrincipalId),
    Source(Source),
}

/// What a call may take from; an extension of its request. By default it has no bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowance(Option<Arc<Bucket>>);

impl Rates {
    pub(super) fn new(config: &ApiConfig, table: Arc<Table>) -> Arc<Rates> {
        let strangers = config.unauthenticated_per_second;
        Arc::new(Rates {
            callers: Buckets::new(config.requests_per_second, config.requests_burst),
            strangers: Buckets::new(strangers, 0),
            newcomers: Buckets::new(NEWCOMERS_PER_SECOND, NEWCOMERS_BURST),
            table,
        })
    }

    /// What newcomers from an address may take from.
    fn newcomer(&self, address: IpAddr, now: Instant) -> Allowance {
        Allowance(self.newcomers.as_ref().map(|buckets| buckets.of(Source::of(address), now)))
    }

    /// What somebody may take from. `address`: `None` at the Unix socket.
    pub(super) fn allowance(
        &self,
        actor: Actor,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Allowance {
        let source = address.map(Source::of);
        Allowance(match (actor, source) {
            (Actor::Local(_), _) | (Actor::Nobody, None) => None,
            (Actor::Principal { id, .. }, _) => {
                self.callers.as_ref().map(|buckets| buckets.of(Whose::Principal(id), now))
            }
            (Actor::Nobody, Some(source)) if self.table.demands_identity() => {
                self.strangers.as_ref().map(|buckets| buckets.of(source, now))
            }
            (Actor::Nobody, Some(source)) => {
                self.callers.as_ref().map(|buckets| buckets.of(Whose::Source(source), now))
            }
        })
    }
}

/// Whether somebody asks for a node's first certificate.
fn enrolls(request: &Request) -> bool {
    let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
    path.is_some_and(|(service, _)| service == enrollment_server::SERVICE_NAME)
}

impl Allowance {
    /// What the middleware has found for this call.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Allowance {
        request.extensions().get::<Allowance>().cloned().unwrap_or_default()
    }

    /// Takes one request from it.
    pub(super) fn take(&self, now: Instant) -> Result<(), Failure> {
        let Some(bucket) = &self.0 else { return Ok(()) };
        bucket.take(now).map_err(|wait| {
            let words = format!(
                "more requests a second than one caller may make of this node; the next one may come in {} ms",
                wait.as_millis().max(1)
            );
            Failure::none(Reason::RateLimited, words).after(wait)
        })
    }
}

/// Whether a request is one of those that nodes make of each other, or pass on: those were counted where they
/// came from.
fn is_of_nodes(request: &Request, presented: &Presented) -> bool {
    if !presented.may_pass_on() {
        return false;
    }
    const JOIN: &str = "Join";
    let path = request.uri().path();
    let method = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let joins = method == Some((membership_server::SERVICE_NAME, JOIN));
    (path.starts_with("/raft_host.peer.") && !joins)
        || request.headers().contains_key(FORWARDED_KEY)
}

/// The middleware. Who asks has been found out before.
pub(super) async fn limit(
    State(rates): State<Arc<Rates>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let Some(Caller { place, presented, .. }) = request.extensions().get::<Caller>().cloned()
    else {
        // Not from a socket: there is nothing to protect from.
        return next.run(request).await;
    };
    let actor = request.extensions().get::<Actor>().copied().unwrap_or_default();
    if actor != Actor::Nobody {
        place.know();
    }
    if !is_of_nodes(&request, &presented) {
        let now = Instant::now();
        if enrolls(&request)
            && let Some(address) = place.address
            && let Err(failure) = rates.newcomer(address, now).take(now)
        {
            return failure.into_status().into_http();
        }
        let allowance = rates.allowance(actor, place.address, now);
        if let Err(failure) = allowance.take(now) {
            return failure.into_status().into_http();
        }
        request.extensions_mut().insert(allowance);
    }
    next.run(request).await
}

/// What fills up by the time, and is taken from.
#[derive(Debug)]
struct Bucket {
    began: Instant,
    /// Between two requests at the rate.
    pace_ns: u64,
    /// What may be taken at once, as time.
    burst_ns: u64,
    /// When all that was taken has flowed in again, after `began`.
    full_ns: AtomicU64,
}

impl Bucket {
    /// Takes one, or says in what time that can be done.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.began));
        let after = |full: u64| full.max(now).saturating_add(self.pace_ns);
        let fits = |full: u64| (after(full) - now <= self.burst_ns).then(|| after(full));
        let taken = self.full_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|full| Duration::from_nanos(after(full) - now - self.burst_ns))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Buckets by whose they are.
struct Buckets<K> {
    pace_ns: u64,
    burst_ns: u64,
    kept: Mutex<Kept<K>>,
}

struct Kept<K> {
    of: HashMap<K, (u64, Arc<Bucket>)>,
    /// By when they were used last.
    by_use: BTreeMap<u64, K>,
    next: u64,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// `per_second`: 0 for no bound. `burst`: 0 for those of a second.
    fn new(per_second: u64, burst: u64) -> Option<Buckets<K>> {
        let pace_ns = nanos(Duration::from_secs(1)).checked_div(per_second)?.max(1);
        let burst = if burst == 0 { per_second } else { burst };
        let burst_ns = pace_ns.saturating_mul(burst.max(1)).min(nanos(BURST_MAX)).max(pace_ns);
        let kept = Kept { of: HashMap::new(), by_use: BTreeMap::new(), next: 0 };
        Some(Buckets { pace_ns, burst_ns, kept: Mutex::new(kept) })
    }

    fn of(&self, whose: K, now: Instant) -> Arc<Bucket> {
        // Nothing that can panic half way runs under this lock.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        kept.next += 1;
        let used = kept.next;
        if let Some((last, bucket)) = kept.of.get_mut(&whose) {
            kept.by_use.remove(last);
            *last = used;
            let bucket = Arc::clone(bucket);
            kept.by_use.insert(used, whose);
            return bucket;
        }
        if kept.of.len() >= BUCKETS
            && let Some((_, oldest)) = kept.by_use.pop_first()
        {
            kept.of.remove(&oldest);
        }
        let bucket = Arc::new(Bucket {
            began: now,
            pace_ns: self.pace_ns,
            burst_ns: self.burst_ns,
            full_ns: AtomicU64::new(0),
        });
        kept.of.insert(whose, (used, Arc::clone(&bucket)));
        kept.by_use.insert(used, whose);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use raft_host_proto::v1;

    use super::super::connections::Bounds;
    use super::*;

    const STRANGER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    fn table(demands_identity: bool) -> Arc<Table> {
        let bounds = Bounds {
            most: 4,
            per_address: 4,
            strangers: 4,
            greeting_bytes: 1,
            idle: Duration::from_secs(1),
            age: None,
        };
        Table::demanding(bounds, Arc::new(move || demands_identity))
    }

    fn principal(id: u64) -> Actor {
        Actor::Principal { id: PrincipalId(id), token: None }
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate_and_says_when_to_come_back() {
        let config =
            ApiConfig { requests_per_second: 10, requests_burst: 3, ..ApiConfig::default() };
        let (rates, now) = (Rates::new(&config, table(false)), Instant::now());
        let allowance = rates.allowance(principal(1), STRANGER, now);
        assert!((0..3).all(|_| allowance.take(now).is_ok()));
        let failure = allowance.take(now).expect_err("the burst is over");
        assert_eq!(failure.reason(), Reason::RateLimited);
        let status = failure.into_status();
        let detail = v1::ErrorDetail::of(&status).expect("ours");
        assert_eq!(detail.retry_after_ms, Some(100));
        let later = now + Duration::from_millis(100);
        assert!(allowance.take(later).is_ok() && allowance.take(later).is_err());
        assert!(rates.allowance(principal(2), STRANGER, now).take(now).is_ok(), "somebody else");
        let again = rates.allowance(principal(1), None, later);
        assert!(again.take(later).is_err(), "the same, from wherever");
        let much_later = later + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| again.take(much_later).is_ok()).count(), 3);
    }

    #[test]
    fn without_a_bound_there_are_no_buckets_and_strangers_have_their_own() {
        let now = Instant::now();
        let rates = Rates::new(&ApiConfig::default(), table(false));
        let without = |rates: &Rates, actor| rates.allowance(actor, STRANGER, now).0.is_none();
        assert!(without(&rates, principal(1)) && without(&rates, Actor::Nobody));
        let config = ApiConfig { unauthenticated_per_second: 2, ..ApiConfig::default() };
        let rates = Rates::new(&config, table(true));
        assert!(without(&rates, principal(1)));
        let stranger = rates.allowance(Actor::Nobody, STRANGER, now);
        assert_eq!((0..10).filter(|_| stranger.take(now).is_ok()).count(), 2);
        let local = Actor::Local(crate::types::NodeId(1));
        assert!(rates.allowance(local, None, now).0.is_none());
    }

    #[test]
    fn however_many_ask_few_are_remembered_and_those_that_ask_often() {
        let buckets = Buckets::<u64>::new(1, 1).expect("a bound");
        let now = Instant::now();
        buckets.of(0, now).take(now).expect("the first");
        for whose in 1..3 * BUCKETS as u64 {
            buckets.of(whose, now);
            assert!(buckets.of(0, now).take(now).is_err(), "it is remembered");
        }
        let kept = buckets.kept.lock().expect("not poisoned");
        assert_eq!((kept.of.len(), kept.by_use.len()), (BUCKETS, BUCKETS));
    }
}
