//! What happens when a job's tasks fail: when they are restarted from the last checkpoint, and when
//! the job has failed. Pure: what happened before and the time are values.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::time::{Micros, SECOND};

/// A delay is off by up to one part in so many, so that jobs which fail together do not come back
/// together.
const JITTER_PARTS: i64 = 5;

/// When and how often to restart from the last checkpoint. As Flink's strategies of these names; an
/// error that no retry mends ends the job whatever the strategy, and a checkpoint store that is
/// away is waited for without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartStrategy {
    /// Never: the first failure is the job's.
    None,
    /// After a delay that doubles with each failure, with jitter of up to a fifth; from the
    /// beginning again once all tasks have run for a healthy time.
    ExponentialDelay {
        /// The first delay, in microseconds.
        initial: Micros,
        /// The longest, in microseconds.
        max: Micros,
        /// The healthy time, in microseconds.
        reset_after: Micros,
        /// Restarts without a healthy time between them; `None`: any number.
        attempts: Option<u32>,
    },
    /// So many times, each after the same delay.
    FixedDelay {
        /// Restarts in the life of the process.
        attempts: u32,
        /// Microseconds.
        delay: Micros,
    },
    /// After the same delay, unless more failures come in a span of time than are tolerated.
    FailureRate {
        /// Failures that are tolerated in any span.
        failures: u32,
        /// The span, in microseconds.
        within: Micros,
        /// The delay, in microseconds.
        delay: Micros,
    },
}

impl Default for RestartStrategy {
    /// Any number of restarts, after a second at first and a minute at most; ten minutes are healthy.
    fn default() -> Self {
        RestartStrategy::ExponentialDelay {
            initial: SECOND,
            max: 60 * SECOND,
            reset_after: 600 * SECOND,
            attempts: None,
        }
    }
}

/// A failure of a job's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When, in microseconds of a clock that does not jump.
    pub at: Micros,
    /// How long all tasks had run; 0 when they never did.
    pub ran_for: Micros,
    /// Decides the jitter: another number for another job and another failure.
    pub spread: u64,
}

/// The failures that a strategy looks back on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartHistory {
    /// Since the last healthy time.
    in_row: u32,
    /// Since the beginning.
    total: u32,
    /// When the newest were, no more than the strategy tolerates.
    times: VecDeque<Micros>,
}

/// What a strategy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// Restart after so many microseconds.
    After(Micros),
    /// The job has failed.
    GiveUp,
}

impl RestartStrategy {
    /// Decides what follows a failure, and remembers it.
    pub fn decide(&self, history: &mut RestartHistory, failure: Failure) -> RestartDecision {
        let total = history.total;
        history.total = total.saturating_add(1);
        match *self {
            RestartStrategy::None => RestartDecision::GiveUp,
            RestartStrategy::FixedDelay { attempts, delay } if total < attempts => {
                RestartDecision::After(delay)
            }
            RestartStrategy::FixedDelay { .. } => RestartDecision::GiveUp,
            RestartStrategy::ExponentialDelay { initial, max, reset_after, attempts } => {
                if failure.ran_for >= reset_after {
                    history.in_row = 0;
                }
                let in_row = history.in_row;
                history.in_row = in_row.saturating_add(1);
                if attempts.is_some_and(|attempts| in_row >= attempts) {
                    return RestartDecision::GiveUp;
                }
                RestartDecision::After(jittered(doubled(initial, in_row).min(max), failure.spread))
            }
            RestartStrategy::FailureRate { failures, within, delay } => {
                history.times.retain(|&time| failure.at - time < within);
                if history.times.len() >= failures as usize {
                    return RestartDecision::GiveUp;
                }
                history.times.push_back(failure.at);
                RestartDecision::After(delay)
            }
        }
    }
}

/// `initial`, doubled so often.
pub(super) fn doubled(initial: Micros, times: u32) -> Micros {
    initial.saturating_mul(1_i64.checked_shl(times.min(62)).unwrap_or(Micros::MAX))
}

/// `delay`, off by up to a fifth, as `spread` decides.
fn jittered(delay: Micros, spread: u64) -> Micros {
    let most = delay / JITTER_PARTS;
    let off = i64::try_from(spread % (2 * most.unsigned_abs() + 1)).unwrap_or(most) - most;
    delay.saturating_add(off)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure(at: Micros, ran_for: Micros, spread: u64) -> Failure {
        Failure { at, ran_for, spread }
    }

    fn delays(strategy: &RestartStrategy, failures: &[Failure]) -> Vec<Option<Micros>> {
        let mut history = RestartHistory::default();
        let mut decide = |failure: &Failure| match strategy.decide(&mut history, *failure) {
            RestartDecision::After(delay) => Some(delay),
            RestartDecision::GiveUp => None,
        };
        failures.iter().map(&mut decide).collect()
    }

    #[test]
    fn the_default_never_gives_up_and_slows_down_to_a_minute() {
        let failures: Vec<_> = (0..1_000).map(|n| failure(n * SECOND, 0, n as u64)).collect();
        let delays = delays(&RestartStrategy::default(), &failures);
        assert!(delays.iter().all(Option::is_some));
        assert!(delays[0] <= Some(2 * SECOND) && delays[999] >= Some(48 * SECOND), "{delays:?}");
    }

    #[test]
    fn fixed_delay_counts_over_the_whole_life_and_none_gives_up_at_once() {
        let failures = [failure(0, 0, 1), failure(1, 1_000 * SECOND, 2), failure(2, 0, 3)];
        let fixed = RestartStrategy::FixedDelay { attempts: 2, delay: 7 };
        assert_eq!(delays(&fixed, &failures), [Some(7), Some(7), None]);
        assert_eq!(delays(&RestartStrategy::None, &failures[..1]), [None]);
    }

    proptest! {
        #[test]
        fn exponential_delays_double_from_the_last_healthy_time(
            initial in 1..10 * SECOND,
            max in SECOND..600 * SECOND,
            reset_after in SECOND..600 * SECOND,
            attempts in proptest::option::of(0..8_u32),
            runs in proptest::collection::vec((0..1_000 * SECOND, any::<u64>()), 1..40),
        ) {
            let strategy = RestartStrategy::ExponentialDelay { initial, max, reset_after, attempts };
            let mut at = 0;
            let failures: Vec<_> = runs.iter().map(|&(ran_for, spread)| {
                at += ran_for;
                failure(at, ran_for, spread)
            }).collect();
            let mut in_row = 0_u32;
            for (failure, delay) in failures.iter().zip(delays(&strategy, &failures)) {
                if failure.ran_for >= reset_after {
                    in_row = 0;
                }
                let gives_up = attempts.is_some_and(|attempts| in_row >= attempts);
                prop_assert_eq!(delay.is_none(), gives_up);
                if let Some(delay) = delay {
                    let plain = (i128::from(initial) << in_row.min(60)).min(i128::from(max)) as i64;
                    let off = (delay - plain).abs();
                    prop_assert!(off <= plain / JITTER_PARTS, "{} is not near {}", delay, plain);
                }
                in_row += 1;
            }
        }

        #[test]
        fn a_failure_rate_tolerates_so_many_failures_in_any_span(
            failures in 0..6_u32,
            within in 1..100_i64,
            pauses in proptest::collection::vec(0..80_i64, 1..40),
        ) {
            let strategy = RestartStrategy::FailureRate { failures, within, delay: 7 };
            let mut at = 0;
            let times: Vec<_> = pauses.iter().map(|pause| { at += pause; at }).collect();
            let all: Vec<_> = times.iter().map(|&at| failure(at, 0, 0)).collect();
            // Whoever gives up is not asked again.
            let decided = delays(&strategy, &all);
            let first = decided.iter().position(Option::is_none).unwrap_or(times.len());
            for (index, &at) in times.iter().enumerate().take(first + 1) {
                let in_span = times[..=index].iter().filter(|&&time| at - time < within).count();
                prop_assert_eq!(decided[index].is_none(), in_span > failures as usize);
            }
        }
    }
}
