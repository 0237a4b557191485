//! Who runs the event loop: a thread of its own when there is much to do, else whoever brings the news.
//!
//! To wake a thread for one message costs more than the message. So while little goes on, whoever puts
//! mail into the queue and finds nobody at it takes a turn on the spot: a turn waits for nothing (no disk,
//! no guest, no peer). When much goes on, that would be a turn for each letter, and an entry for each
//! command: then the thread is woken, and until it runs more letters come that share its turn. So it is for the letter of a
//! thread that lets all others go first: everybody would wait for its turn.
//!
//! ```text
//!   mail, nobody at it ─┬─ calm ─► a turn, here ─┬─► queue empty: done
//!                       └─ else ─┐               └─► more came ─┐
//!                                ├◄─────────────────────────────┘
//!                                └─► wake the thread ─► turns until the queue is empty
//!   mail, somebody at it ─► leave it to them
//!   tick ─► the thread
//! ```

use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::Instant;

use super::event_loop::EventLoop;
use crate::node::message::Postman;
use crate::node::priority::yields_to_others;
use crate::node::stop::{StopOnPanic, Stops};

/// See the module.
#[derive(Default)]
pub(super) struct Driver {
    /// Letters that were announced, less those that were taken in; below 0 while one was taken in before
    /// it was announced. Whoever announces one while this is 0 sees to it that it is taken in.
    pending: AtomicIsize,
    /// Taken out during a turn: a panic in one ends the loop. Nothing before it is started, and after
    /// its end.
    event_loop: Mutex<Option<(EventLoop, Stops)>>,
    thread: OnceLock<Thread>,
    /// The thread is to see to it that all mail is taken in.
    is_handed_over: AtomicBool,
}

type Place<'a> = MutexGuard<'a, Option<(EventLoop, Stops)>>;

impl Driver {
    /// The loop runs from now on; until the thread does, others take its turns. `stops`: what a panic
    /// ends.
    pub(super) fn start(&self, event_loop: EventLoop, stops: Stops) {
        *self.event_loop.lock().unwrap_or_else(PoisonError::into_inner) = Some((event_loop, stops));
        self.hand_over();
    }

    /// The loop's own thread, until the loop has ended.
    pub(super) fn run(&self) {
        // Nobody else runs it.
        let _ = self.thread.set(std::thread::current());
        loop {
            if self.is_handed_over.swap(false, Ordering::AcqRel) {
                while self.turn(self.lock()) {}
            }
            let Some(next_tick) = self.next_tick() else { return };
            let patience = next_tick.saturating_duration_since(Instant::now());
            match patience.is_zero() {
                true => drop(self.turn(self.lock())),
                false => std::thread::park_timeout(patience),
            }
        }
    }

    fn lock(&self) -> Place<'_> {
        self.event_loop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_tick(&self) -> Option<Instant> {
        self.lock().as_ref().map(|(event_loop, _)| event_loop.next_tick())
    }

    /// Whether more mail waits.
    fn turn(&self, mut place: Place<'_>) -> bool {
        let Some((mut event_loop, stops)) = place.take() else { return false };
        let guard = StopOnPanic(stops.clone(), "event loop");
        let taken = event_loop.turn() as isize;
        drop(guard);
        if event_loop.has_ended() {
            drop(place);
            drop(event_loop);
            self.wake();
            return false;
        }
        *place = Some((event_loop, stops));
        drop(place);
        self.pending.fetch_sub(taken, Ordering::AcqRel) > taken
    }

    fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Postman for Driver {
    fn mail_came(&self) {
        if self.pending.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        if yields_to_others() {
            return self.hand_over();
        }
        let place = match self.event_loop.try_lock() {
            Ok(place) => place,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody is at a tick, or looks; or this is one of the steps of a turn.
            Err(TryLockError::WouldBlock) => return self.hand_over(),
        };
        let is_calm = place.as_ref().is_some_and(|(event_loop, _)| event_loop.is_calm());
        if !is_calm {
            drop(place);
            self.hand_over();
        } else if self.turn(place) {
            self.hand_over();
        }
    }
}
