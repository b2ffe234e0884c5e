//! What happens when a task fails.

use serde::{Deserialize, Serialize};

use crate::time::{Micros, SECOND};

/// When and how often to restart from the last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartStrategy {
    /// So many times, each after a fixed delay. Flink's `fixed-delay`.
    FixedDelay {
        /// Restarts within a generation.
        attempts: u32,
        /// Microseconds.
        delay: Micros,
    },
}

impl Default for RestartStrategy {
    fn default() -> Self {
        RestartStrategy::FixedDelay { attempts: 3, delay: SECOND }
    }
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
    /// Decides after `restarts` restarts.
    pub fn decide(&self, restarts: u32) -> RestartDecision {
        match *self {
            RestartStrategy::FixedDelay { attempts, delay } if restarts < attempts => {
                RestartDecision::After(delay)
            }
            RestartStrategy::FixedDelay { .. } => RestartDecision::GiveUp,
        }
    }
}
