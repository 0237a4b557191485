//! How a rehearsal leaves a busy node alone.
//!
//! A thread of the lowest priority takes only what others leave of the processors. But they share caches and the way to
//! the memory with it, and where they have all the work that they can do, they are the slower for it. So it pauses now
//! and then, looks in its pauses at how much the process does without it, and works the less of the time the more that
//! is.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// It works so long between two pauses, if it can be held up then.
const TURN: Duration = Duration::from_millis(20);
/// How long it looks before it begins.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// What it looks at counts by the time that it looked: so long, and nothing of before is left.
const LOOKED_MAX: Duration = Duration::from_millis(100);
/// No pause is longer; what is owed for a long turn is made up for after the next ones.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// What it owes at most.
const OWED_MAX: Duration = Duration::from_secs(10);

/// Of its time that it works: at most, so that it sees what the others do,
const SHARE_MAX: f64 = 0.9;
/// and at least, so that it ends,
const SHARE_MIN: f64 = 0.1;
/// also while something is kept for it that grows with what the others do.
const SHARE_MIN_IN_HASTE: f64 = 0.5;
/// After so much of pausing it has waited enough: whoever asked for it does not wait for ever.
const PAUSED_MAX: Duration = Duration::from_secs(240);

/// A clock, and how much the process has computed.
pub(super) trait Look {
    fn now(&self) -> Duration;
    fn computed(&self) -> Duration;
    fn sleep(&mut self, pause: Duration);
}

/// The system's.
pub(super) struct System(Instant);

impl System {
    pub(super) fn new() -> System {
        System(Instant::now())
    }
}

impl Look for System {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn computed(&self) -> Duration {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
        let of = |time: TimeVal| {
            let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        of(usage.user_time()) + of(usage.system_time())
    }

    fn sleep(&mut self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// Of one thread.
pub(super) struct Courtesy<L> {
    look: L,
    /// Since when it works.
    since: Duration,
    owed: Duration,
    paused: Duration,
    /// Processors that the process uses while this thread pauses.
    others: f64,
}

impl<L: Look> Courtesy<L> {
    /// Looks first.
    pub(super) fn new(look: L) -> Courtesy<L> {
        let since = look.now();
        let mut courtesy =
            Courtesy { look, since, owed: Duration::ZERO, paused: Duration::ZERO, others: 0.0 };
        let (_, others) = courtesy.rest(FIRST_LOOK);
        courtesy.others = others;
        courtesy
    }

    /// A moment at which it can be held up; for how long it was. `at_leisure`: nothing is kept for it meanwhile.
    pub(super) fn offer(&mut self, at_leisure: bool) -> Duration {
        let worked = self.look.now().saturating_sub(self.since);
        if worked < TURN || self.paused >= PAUSED_MAX {
            return Duration::ZERO;
        }
        let least = if at_leisure { SHARE_MIN } else { SHARE_MIN_IN_HASTE };
        self.owed = (self.owed + owed(worked, share(self.others).max(least))).min(OWED_MAX);
        let (paused, others) = self.rest(self.owed.min(PAUSE_MAX));
        self.owed = self.owed.saturating_sub(paused);
        self.paused += paused;
        let weight = paused.div_duration_f64(LOOKED_MAX).min(1.0);
        self.others += (others - self.others) * weight;
        paused
    }

    /// Pauses; for how long, and how many processors the others used.
    fn rest(&mut self, pause: Duration) -> (Duration, f64) {
        let (began, before) = (self.look.now(), self.look.computed());
        self.look.sleep(pause);
        self.since = self.look.now();
        let paused = self.since.saturating_sub(began);
        let computed = self.look.computed().saturating_sub(before);
        match paused.is_zero() {
            true => (paused, 0.0),
            false => (paused, computed.div_duration_f64(paused)),
        }
    }
}

/// The share of its time that it works while the others use so many processors: nearly all up to a third of one, and
/// little from one on, for then a thread of theirs may have no time left.
fn share(others: f64) -> f64 {
    (1.25 - others).clamp(SHARE_MIN, SHARE_MAX)
}

/// The pause that makes a turn that share of both.
fn owed(worked: Duration, share: f64) -> Duration {
    worked.mul_f64(1.0 / share - 1.0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Others compute at a rate, and a thread that works does as well.
    struct Scripted {
        now: Rc<Cell<Duration>>,
        computed: Rc<Cell<Duration>>,
        others: Rc<Cell<f64>>,
    }

    impl Look for Scripted {
        fn now(&self) -> Duration {
            self.now.get()
        }

        fn computed(&self) -> Duration {
            self.computed.get()
        }

        fn sleep(&mut self, pause: Duration) {
            self.now.set(self.now.get() + pause);
            self.computed.set(self.computed.get() + pause.mul_f64(self.others.get()));
        }
    }

    struct Scene {
        courtesy: Courtesy<Scripted>,
        now: Rc<Cell<Duration>>,
        computed: Rc<Cell<Duration>>,
        others: Rc<Cell<f64>>,
        at_leisure: bool,
    }

    impl Scene {
        fn with(others: f64) -> Scene {
            let (now, computed) = <(Rc<Cell<Duration>>, Rc<Cell<Duration>>)>::default();
            let others = Rc::new(Cell::new(others));
            let (now_, computed_) = (Rc::clone(&now), Rc::clone(&computed));
            let look = Scripted { now: now_, computed: computed_, others: Rc::clone(&others) };
            Scene { courtesy: Courtesy::new(look), now, computed, others, at_leisure: true }
        }

        /// What share of some time it works whose steps take that long.
        fn share(&mut self, step: Duration, until: Duration) -> f64 {
            let (began, mut worked) = (self.now.get(), Duration::ZERO);
            while self.now.get() - began < until {
                worked += step;
                self.now.set(self.now.get() + step);
                let computed = step.mul_f64(1.0 + self.others.get());
                self.computed.set(self.computed.get() + computed);
                self.courtesy.offer(self.at_leisure);
            }
            worked.div_duration_f64(self.now.get() - began)
        }
    }

    const STEP: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_more_the_others_do_the_less_it_works_and_it_always_does() {
        for (others, expected) in [(0.0, 0.9), (0.3, 0.9), (0.75, 0.5), (1.2, 0.1), (7.0, 0.1)] {
            let share = Scene::with(others).share(STEP, LONG);
            assert!((share - expected).abs() < 0.02, "{others}: {share}");
        }
    }

    #[test]
    fn it_hurries_while_something_is_kept_for_it_and_when_it_has_waited_long() {
        let mut scene = Scene { at_leisure: false, ..Scene::with(2.0) };
        assert!((scene.share(STEP, LONG) - 0.5).abs() < 0.02);
        scene.at_leisure = true;
        scene.share(STEP, 5 * LONG);
        assert!(scene.share(STEP, LONG) > 0.99);
    }

    #[test]
    fn it_sees_within_seconds_that_the_others_begin_or_have_done() {
        let mut scene = Scene::with(0.0);
        scene.share(STEP, LONG);
        scene.others.set(2.0);
        scene.share(STEP, Duration::from_secs(2));
        assert!(scene.share(STEP, LONG) < 0.12);
        scene.others.set(0.0);
        scene.share(STEP, Duration::from_secs(2));
        assert!(scene.share(STEP, LONG) > 0.88);
    }

    #[test]
    fn what_cannot_be_held_up_is_made_up_for_later_within_bounds() {
        let step = Duration::from_millis(700);
        let share = Scene::with(2.0).share(step, LONG);
        assert!(share > 0.1, "a pause has a bound: {share}");
        // One long turn and then short ones.
        let mut scene = Scene::with(2.0);
        scene.share(step, Duration::ZERO + step);
        let share = scene.share(STEP, LONG);
        assert!(share < 0.1, "{share}");
    }
}
