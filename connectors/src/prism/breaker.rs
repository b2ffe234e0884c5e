//! The circuit breaker of one cluster: a pure state machine. Times are milliseconds of any clock
//! that does not go back.
//!
//! Failures in a row, or the word that no broker can be reached, open it: nothing is sent. While
//! it is open the cluster is probed; a probe that succeeds half opens it: one record may try. Its
//! success closes the breaker, its failure opens it again, for twice as long.

use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures_to_open: u32,
    /// How long it waits before the first probe.
    pub open_for: Duration,
    /// The longest wait before a probe.
    pub open_for_max: Duration,
}

impl Default for BreakerConfig {
    /// Five failures; half a second, up to ten.
    fn default() -> Self {
        BreakerConfig {
            failures_to_open: 5,
            open_for: Duration::from_millis(500),
            open_for_max: Duration::from_secs(10),
        }
    }
}

/// What may be sent to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything.
    Closed,
    /// One record, to try; then nothing until its outcome is known.
    HalfOpen,
    /// Nothing.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { probe_at: u64, wait: u64 },
    HalfOpen { trying: bool, wait: u64 },
}

/// The breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        Breaker { config, state: State::Closed { failures: 0 } }
    }

    /// What may be sent now.
    pub fn health(&self) -> Health {
        match self.state {
            State::Closed { .. } => Health::Closed,
            State::HalfOpen { trying: false, .. } => Health::HalfOpen,
            State::HalfOpen { trying: true, .. } | State::Open { .. } => Health::Open,
        }
    }

    /// Takes the right to send one record to a half open cluster. False when there is none.
    pub fn take_trial(&mut self) -> bool {
        match &mut self.state {
            State::HalfOpen { trying, .. } => !std::mem::replace(trying, true),
            _ => false,
        }
    }

    /// The trial was not sent after all.
    pub fn return_trial(&mut self) {
        if let State::HalfOpen { trying, .. } = &mut self.state {
            *trying = false;
        }
    }

    /// A record was acknowledged. One that was sent before the breaker opened does not close it.
    pub fn succeeded(&mut self) {
        match self.state {
            State::Closed { .. } | State::HalfOpen { .. } => self.state = State::Closed { failures: 0 },
            State::Open { .. } => {}
        }
    }

    /// A record failed through the cluster's fault.
    pub fn failed(&mut self, now_ms: u64) {
        match self.state {
            State::Closed { failures } if failures + 1 < self.config.failures_to_open => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } => self.open(now_ms, millis(self.config.open_for)),
            State::HalfOpen { wait, .. } => self.open(now_ms, wait.saturating_mul(2)),
            State::Open { .. } => {}
        }
    }

    /// No broker of the cluster can be reached.
    pub fn unreachable(&mut self, now_ms: u64) {
        match self.state {
            State::Closed { .. } => self.open(now_ms, millis(self.config.open_for)),
            State::HalfOpen { wait, .. } => self.open(now_ms, wait.saturating_mul(2)),
            State::Open { .. } => {}
        }
    }

    /// Whether the cluster should be probed now.
    pub fn probe_is_due(&self, now_ms: u64) -> bool {
        matches!(self.state, State::Open { probe_at, .. } if now_ms >= probe_at)
    }

    /// What a probe found.
    pub fn probed(&mut self, now_ms: u64, alive: bool) {
        if let State::Open { wait, .. } = self.state {
            match alive {
                true => self.state = State::HalfOpen { trying: false, wait },
                false => self.open(now_ms, wait.saturating_mul(2)),
            }
        }
    }

    fn open(&mut self, now_ms: u64, wait: u64) {
        let wait = wait.min(millis(self.config.open_for_max));
        self.state = State::Open { probe_at: now_ms + wait, wait };
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig::default());
        (0..5).for_each(|_| breaker.failed(1_000));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_them() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..4 {
            breaker.failed(0);
        }
        breaker.succeeded();
        for _ in 0..4 {
            breaker.failed(0);
        }
        assert_eq!(breaker.health(), Health::Closed);
        breaker.failed(0);
        assert_eq!(breaker.health(), Health::Open);
    }

    #[test]
    fn a_probe_half_opens_it_and_one_trial_decides() {
        let mut breaker = opened();
        breaker.succeeded();
        assert_eq!(breaker.health(), Health::Open, "a late acknowledgement proves little");
        assert!(!breaker.probe_is_due(1_499) && breaker.probe_is_due(1_500));
        breaker.probed(1_500, true);
        assert_eq!(breaker.health(), Health::HalfOpen);
        assert!(breaker.take_trial());
        assert!(!breaker.take_trial());
        assert_eq!(breaker.health(), Health::Open, "nothing but the trial");
        breaker.succeeded();
        assert_eq!(breaker.health(), Health::Closed);
    }

    #[test]
    fn each_failed_probe_or_trial_doubles_the_wait_up_to_the_bound() {
        let mut breaker = opened();
        breaker.probed(2_000, true);
        assert!(breaker.take_trial());
        breaker.failed(3_000);
        assert!(!breaker.probe_is_due(3_999) && breaker.probe_is_due(4_000));
        let mut now = 4_000;
        for _ in 0..10 {
            breaker.probed(now, false);
            now += 10_000;
            assert!(breaker.probe_is_due(now));
        }
        breaker.probed(now, false);
        assert!(!breaker.probe_is_due(now + 9_999));
    }
}
