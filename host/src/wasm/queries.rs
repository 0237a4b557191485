//! Forks for questions, one for each thread that answers them.
//!
//! A fork shows the live memory without copying it, and what it writes stays its own. While
//! questions are answered the live instance rests, so any number of forks may look at it.
//!
//! What the host refuses to a fork (a mapping, a page, a thread's stack) concerns the fork alone:
//! it is dropped, what was asked of it goes without an answer, and the next question finds a new
//! one. The live instance does not depend on any of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::abi::{CallKind, Given};
use super::guest::{Compiled, Ended, Guest, Origin};
use super::workers::Workers;
use crate::fsm::{Bystander, Call, Context, HostFailure, QueryError, Unanswered};

/// Forks of one live instance; they must be dropped with it.
pub(super) struct Forks {
    compiled: Arc<Compiled>,
    workers: Arc<Workers>,
    /// Each is free; a thread takes one along.
    idle: Vec<Guest>,
}

impl Forks {
    pub(super) fn new(compiled: &Arc<Compiled>, workers: &Arc<Workers>) -> Forks {
        Forks { compiled: Arc::clone(compiled), workers: Arc::clone(workers), idle: Vec::new() }
    }

    /// Gives back what idle forks hold.
    pub(super) fn release(&mut self) {
        self.idle.clear();
    }

    /// Runs one call where nothing that it does remains; `finish` sees the fork afterwards.
    /// `None` if the module does not have the export. The failure is that of the fork.
    pub(super) fn call<T>(
        &mut self,
        origin: &Origin,
        kind: CallKind,
        context: Context,
        given: Given<'_>,
        finish: impl Fn(&mut Guest, Ended) -> T,
    ) -> Result<Option<T>, HostFailure> {
        let mut fork = self.idle.pop();
        let called = call_on(&mut fork, &self.compiled, origin, kind, context, given, finish);
        self.idle.extend(fork);
        if called.is_err() {
            self.release();
        }
        called
    }

    /// Answers queries about one state, on several threads if there are, until they have used
    /// `enough` fuel together. The module must have the export.
    pub(super) fn query_some(
        &mut self,
        origin: &Origin,
        context: Context,
        queries: &[Bytes],
        enough: u64,
        finish: impl Fn(&mut Guest, Ended) -> Call + Sync,
    ) -> Vec<Result<Call, Unanswered>> {
        let pool = self.workers.pool().filter(|_| queries.len() > 1);
        let threads = pool.map_or(1, |_| self.workers.threads().min(queries.len()));
        let mut forks: Vec<Option<Guest>> = Vec::new();
        forks.resize_with(threads, || self.idle.pop());

        let (compiled, next) = (&self.compiled, AtomicUsize::new(0));
        let answers = Mutex::new(Vec::with_capacity(queries.len()));
        let spent = AtomicU64::new(0);
        let answer_some = |fork: &mut Option<Guest>| {
            // Whoever takes a number answers it, so the answers belong to the first questions.
            while spent.load(Relaxed) < enough
                && let number = next.fetch_add(1, Relaxed)
                && let Some(query) = queries.get(number)
            {
                let kind = CallKind::Query;
                let query = Given::Input(query);
                let answer = call_on(fork, compiled, origin, kind, context, query, &finish);
                let answer = answered(answer);
                let fuel = answer.as_ref().map_or(0, |call| call.fuel_used);
                spent.fetch_add(fuel, Relaxed);
                // Whoever panics with the lock has added its answer or not.
                answers.lock().unwrap_or_else(PoisonError::into_inner).push((number, answer));
            }
        };
        match (pool, forks.split_first_mut()) {
            (Some(pool), Some((own, others))) => pool.in_place_scope(|scope| {
                for fork in others {
                    scope.spawn(|_| answer_some(fork));
                }
                answer_some(own);
            }),
            _ => forks.iter_mut().for_each(answer_some),
        }
        self.idle.extend(forks.into_iter().flatten());
        let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.sort_unstable_by_key(|(number, _)| *number);
        let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        if answers.iter().any(Result::is_err) {
            // Whatever the host is short of, the next question shall not lack it because of these.
            self.release();
        }
        answers
    }

    /// What the idle ones hold of their own, in bytes.
    #[cfg(test)]
    pub(super) fn private_bytes(&self) -> Vec<u64> {
        self.idle.iter().map(|fork| fork.region().private_bytes()).collect()
    }
}

/// An answer of [`call_on`] to a query, which the module was seen to export.
pub(super) fn answered(call: Result<Option<Call>, HostFailure>) -> Result<Call, Unanswered> {
    call.map(|call| call.expect("a module with `query` was asked"))
        .map_err(|HostFailure(reason)| Unanswered(reason))
}

/// Answers questions about the state that a live instance had when this was made, for as long as
/// that instance rests.
pub(super) struct Apart {
    compiled: Arc<Compiled>,
    origin: Origin,
    fork: Option<Guest>,
    finish: fn(&mut Guest, CallKind, Ended) -> Call,
}

impl Apart {
    pub(super) fn from(
        compiled: &Arc<Compiled>,
        live: &mut Guest,
        finish: fn(&mut Guest, CallKind, Ended) -> Call,
    ) -> Result<Apart, HostFailure> {
        let origin = live.origin()?;
        Ok(Apart { compiled: Arc::clone(compiled), origin, fork: None, finish })
    }
}

impl Bystander for Apart {
    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, QueryError> {
        let Apart { compiled, origin, fork, finish } = self;
        let kind = CallKind::Query;
        let finish = |guest: &mut Guest, ended| finish(guest, kind, ended);
        let query = Given::Input(query);
        Ok(answered(call_on(fork, compiled, origin, kind, context, query, finish))?)
    }
}

/// Runs one call on a fork, which is made if there is none.
fn call_on<T>(
    slot: &mut Option<Guest>,
    compiled: &Compiled,
    origin: &Origin,
    kind: CallKind,
    context: Context,
    given: Given<'_>,
    finish: impl Fn(&mut Guest, Ended) -> T,
) -> Result<Option<T>, HostFailure> {
    let mut fork = match slot.take() {
        Some(fork) => fork,
        None => Guest::fork(compiled, origin)?,
    };
    if !fork.follow(origin)? {
        fork = Guest::fork(compiled, origin)?;
        let followed = fork.follow(origin)?;
        assert!(followed, "a new fork is no larger than the live instance");
    }
    let Some(ended) = fork.call(kind, context, given, false)? else {
        return Ok(None);
    };
    let trapped = ended.status.is_err();
    let finished = finish(&mut fork, ended);
    // Nothing speaks against reusing an instance that trapped, but nothing is gained.
    if !trapped && fork.rest(origin) {
        *slot = Some(fork);
    }
    Ok(Some(finished))
}
