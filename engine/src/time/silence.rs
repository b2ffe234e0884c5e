//! Idleness: for how long somebody who is asked for rows has had none.
//!
//! The rule: only time between two asks counts, and of one such time at most a fourth of what makes
//! idle. So slowness is never taken for silence: not a function that holds the task up, not a
//! process that was stopped, not a clock that was set. Whoever was not asked has not been silent.

use super::Micros;

/// Between the last rows and idleness lie so many asks at least.
const ASKS_MIN: Micros = 4;

/// For how long somebody was asked and had nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    lasted: Micros,
    asked_at: Micros,
}

impl Silence {
    /// None yet, at `now`.
    pub fn new(now: Micros) -> Self {
        Silence { lasted: 0, asked_at: now }
    }

    /// There were rows.
    pub fn end(&mut self, now: Micros) {
        *self = Silence::new(now);
    }

    /// It was asked, and had nothing since it was asked last.
    pub fn asked(&mut self, now: Micros, idle_after: Micros) {
        let since = now.saturating_sub(self.asked_at).clamp(0, ask_every(idle_after));
        self.lasted = self.lasted.saturating_add(since).min(idle_after);
        self.asked_at = now;
    }

    /// Whether it has lasted for `idle_after` microseconds.
    pub fn is_idle(&self, idle_after: Micros) -> bool {
        self.lasted >= idle_after
    }

    /// When to ask again at the latest, so that idleness is noticed in time; `None`: it is idle.
    pub fn ask_at(&self, now: Micros, idle_after: Micros) -> Option<Micros> {
        let left = idle_after - self.lasted;
        (left > 0).then(|| now.saturating_add(left.min(ask_every(idle_after))))
    }
}

fn ask_every(idle_after: Micros) -> Micros {
    (idle_after / ASKS_MIN).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE_AFTER: Micros = 1_000;

    #[test]
    fn whoever_is_asked_in_time_is_idle_in_time() {
        let (mut silence, mut now, mut asks) = (Silence::new(5_000), 5_000, 0);
        while let Some(at) = silence.ask_at(now, IDLE_AFTER) {
            now = at;
            asks += 1;
            silence.asked(now, IDLE_AFTER);
        }
        assert_eq!((now, asks), (5_000 + IDLE_AFTER, ASKS_MIN));
        silence.end(now);
        assert!(!silence.is_idle(IDLE_AFTER));
    }

    proptest! {
        /// Clocks that jump either way, tasks that stand still: whatever lies between two asks.
        #[test]
        fn nothing_but_asks_makes_idle(steps in prop::collection::vec((any::<bool>(), -10_000i64..10_000), 0..40)) {
            let (mut silence, mut now, mut asks) = (Silence::new(0), 0, 0);
            for (has_rows, step) in steps {
                now += step;
                if has_rows {
                    silence.end(now);
                    asks = 0;
                } else {
                    silence.asked(now, IDLE_AFTER);
                    asks += 1;
                }
                prop_assert!(!silence.is_idle(IDLE_AFTER) || asks >= ASKS_MIN);
            }
            for _ in 0..ASKS_MIN {
                now += 10 * IDLE_AFTER;
                silence.asked(now, IDLE_AFTER);
            }
            prop_assert!(silence.is_idle(IDLE_AFTER), "and is not put off for ever");
        }
    }
}
