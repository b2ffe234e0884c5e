//! How long a checkpoint store that does not answer is waited for, and how often that is said (H6). Pure:
//! the time is a value.

use super::restart::doubled;
use crate::time::{Micros, SECOND};

/// The first wait before another try.
const WAIT: Micros = SECOND / 4;
/// The longest: a store that is back is found within it.
const WAIT_MAX: Micros = 15 * SECOND;
/// How often the same trouble is said.
const SAID_EVERY: Micros = 60 * SECOND;

/// What follows when the store has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDecision {
    /// Try again at this time.
    RetryAt(Micros),
    /// It was waited for long enough, or waiting does not help.
    GiveUp,
}

/// The tries that a store has failed, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreWait {
    failures: u32,
    give_up_at: Option<Micros>,
    said: Rarely,
}

impl StoreWait {
    /// A wait at a process's start: up to a time, and not at all for a store that refuses, for its
    /// address or its credentials may be mistyped.
    pub fn at_start(give_up_at: Micros) -> StoreWait {
        StoreWait { give_up_at: Some(give_up_at), ..StoreWait::default() }
    }

    /// A wait of a job that has run: as long as it takes.
    pub fn without_end() -> StoreWait {
        StoreWait::default()
    }

    /// A try has failed. `refused`: the store has answered, and would not.
    pub fn failed(&mut self, now: Micros, refused: bool) -> StoreDecision {
        let retry_at = now + doubled(WAIT, self.failures).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        match self.give_up_at {
            Some(give_up_at) if refused || now >= give_up_at => StoreDecision::GiveUp,
            Some(give_up_at) => StoreDecision::RetryAt(retry_at.min(give_up_at)),
            None => StoreDecision::RetryAt(retry_at),
        }
    }

    /// Whether the trouble is to be said now, and how many times it was not since it was last.
    pub fn say(&mut self, now: Micros) -> Option<u64> {
        self.said.say(now)
    }

    /// A try has succeeded: the next failure is a first one.
    pub fn answered(&mut self) {
        self.failures = 0;
    }
}

/// Says the same thing once a minute, and knows how often it was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rarely {
    said_at: Option<Micros>,
    left_out: u64,
}

impl Rarely {
    /// Whether it is to be said now, and how often it was left out since it was last.
    pub fn say(&mut self, now: Micros) -> Option<u64> {
        if self.said_at.is_some_and(|at| now - at < SAID_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The times of the tries against a store that never answers.
    fn tries(mut wait: StoreWait, until: Micros) -> (Vec<Micros>, bool) {
        let (mut now, mut times) = (0, vec![0]);
        loop {
            match wait.failed(now, false) {
                StoreDecision::GiveUp => return (times, true),
                StoreDecision::RetryAt(at) if at > until => return (times, false),
                StoreDecision::RetryAt(at) => {
                    assert!(at > now);
                    now = at;
                    times.push(at);
                }
            }
        }
    }

    #[test]
    fn at_a_start_the_store_is_waited_for_a_minute_and_tried_at_its_end() {
        let (times, gave_up) = tries(StoreWait::at_start(60 * SECOND), Micros::MAX);
        assert!(gave_up && times.len() > 8, "{times:?}");
        assert_eq!(times.last(), Some(&(60 * SECOND)));
    }

    #[test]
    fn at_a_start_a_store_that_refuses_is_not_waited_for_and_later_it_is() {
        assert_eq!(StoreWait::at_start(60 * SECOND).failed(0, true), StoreDecision::GiveUp);
        assert!(matches!(StoreWait::without_end().failed(0, true), StoreDecision::RetryAt(_)));
    }

    #[test]
    fn a_running_job_waits_without_end_and_finds_the_store_soon_after_it_is_back() {
        let (times, gave_up) = tries(StoreWait::without_end(), 3_600 * SECOND);
        assert!(!gave_up);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= WAIT_MAX), "{times:?}");
        assert!(times.len() < 300, "{} tries in an hour", times.len());
    }

    #[test]
    fn a_try_that_succeeds_begins_the_waits_anew() {
        let mut wait = StoreWait::without_end();
        for _ in 0..20 {
            wait.failed(0, false);
        }
        wait.answered();
        assert_eq!(wait.failed(0, false), StoreDecision::RetryAt(WAIT));
    }

    proptest! {
        #[test]
        fn what_is_said_rarely_is_said_at_once_and_then_once_a_minute(
            pauses in proptest::collection::vec(0..40 * SECOND, 1..100),
        ) {
            let mut rarely = Rarely::default();
            let (mut now, mut said, mut left_out) = (0, Vec::new(), 0);
            for pause in &pauses {
                now += pause;
                match rarely.say(now) {
                    Some(before) => {
                        prop_assert_eq!(before, left_out);
                        left_out = 0;
                        said.push(now);
                    }
                    None => left_out += 1,
                }
            }
            prop_assert_eq!(said[0], pauses[0]);
            prop_assert!(said.windows(2).all(|pair| pair[1] - pair[0] >= SAID_EVERY));
            prop_assert!(now - said[said.len() - 1] < SAID_EVERY);
        }
    }
}
