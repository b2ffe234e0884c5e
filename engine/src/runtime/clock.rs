//! The two times that the engine knows, and what happens when one of them jumps.
//!
//! *Durations* (intervals, timeouts, delays, idleness, how long something took) are differences of
//! [`Clock::monotonic`], which runs evenly whatever happens to the system's clock: a clock that is set
//! neither stops checkpoints nor ends a timeout early.
//!
//! *Processing time* ([`Clock::now`]) is what the system's clock shows, and jumps when that is set. Only
//! what names a moment of the day depends on it: what an operator asks for with
//! [`wake_at`](crate::operator::OperatorContext::wake_at), such as a user's processing-time timers.
//! - A step forward: timers that it passes over fire at once, at the latest when the task next looks
//!   ([`LOOK_EVERY`]); each fires once.
//! - A step back: a timer that has fired does not fire again, and one that is set fires when the clock
//!   comes to its time again. After a step of more than [`STEP_MIN`] every operator is woken, so one
//!   that meant "in a while" can set its alarm anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{MILLI, Micros, SECOND};

/// A task that waits for a processing time looks at the clock so often, in microseconds: nobody tells
/// it that the clock was set.
pub const LOOK_EVERY: Micros = 10 * SECOND;
/// Smaller differences between the two clocks are drift, in microseconds.
pub const STEP_MIN: Micros = 100 * MILLI;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The processing time: microseconds since the epoch, UTC. May jump, either way.
    fn now(&self) -> Micros;

    /// Microseconds since a moment that is fixed for the clock's life. Never goes back, never jumps.
    fn monotonic(&self) -> Micros;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    since: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { since: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Micros {
        i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still until it is moved.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    monotonic: Arc<AtomicI64>,
    /// How far the processing time is ahead.
    ahead: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock whose two times are both `now`.
    pub fn new(now: Micros) -> Self {
        ManualClock { monotonic: Arc::new(AtomicI64::new(now)), ahead: Arc::default() }
    }

    /// Lets time pass until the monotonic time is `monotonic`; never back.
    pub fn advance_to(&self, monotonic: Micros) {
        self.monotonic.fetch_max(monotonic, Ordering::Relaxed);
    }

    /// Sets the processing time `by` microseconds forward, or back.
    pub fn step(&self, by: Micros) {
        self.ahead.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.monotonic().saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Micros {
        self.monotonic.load(Ordering::Relaxed)
    }
}

/// What both clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The processing time.
    pub now: Micros,
    /// The monotonic time.
    pub monotonic: Micros,
}

impl Now {
    /// This moment.
    pub(crate) fn of(clock: &dyn Clock) -> Now {
        Now { now: clock.now(), monotonic: clock.monotonic() }
    }

    /// The monotonic time at which to look whether it is processing time `at`.
    pub(crate) fn look_at(self, at: Micros) -> Micros {
        self.monotonic.saturating_add(at.saturating_sub(self.now).clamp(0, LOOK_EVERY))
    }

    /// Whether the system's clock was set since `earlier`.
    pub(crate) fn is_stepped_since(self, earlier: Now) -> bool {
        let passed = self.monotonic - earlier.monotonic;
        self.now.saturating_sub(earlier.now).saturating_sub(passed).abs() > STEP_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_moves_the_processing_time_alone() {
        let clock = ManualClock::new(1_000);
        clock.advance_to(5_000);
        clock.step(-4_000);
        assert_eq!((clock.now(), clock.monotonic()), (1_000, 5_000));
        clock.advance_to(6_000);
        assert_eq!((clock.now(), clock.monotonic()), (2_000, 6_000));
    }

    #[test]
    fn a_step_is_told_from_the_passing_of_time_and_from_drift() {
        let clock = ManualClock::new(0);
        let before = Now::of(&clock);
        clock.advance_to(3_600 * SECOND);
        clock.step(STEP_MIN);
        assert!(!Now::of(&clock).is_stepped_since(before));
        for by in [-SECOND, SECOND] {
            let before = Now::of(&clock);
            clock.step(by);
            assert!(Now::of(&clock).is_stepped_since(before), "{by}");
        }
    }

    #[test]
    fn who_waits_for_a_processing_time_looks_in_time_and_often_enough_to_see_a_step() {
        let moment = Now { now: 1_000 * SECOND, monotonic: 7 * SECOND };
        assert_eq!(moment.look_at(1_002 * SECOND), 9 * SECOND);
        assert_eq!(moment.look_at(5_000 * SECOND), 7 * SECOND + LOOK_EVERY);
        assert_eq!(moment.look_at(10 * SECOND), 7 * SECOND);
    }
}
