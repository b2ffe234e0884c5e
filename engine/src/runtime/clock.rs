//! Where the engine gets its processing time from.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::Micros;

/// Tells the processing time.
pub trait Clock: Send + Sync {
    /// Microseconds since the epoch, UTC. Never goes back.
    fn now(&self) -> Micros;
}

/// The system's clock, held so that it never goes back.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

/// A clock that stands still until it is moved.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Micros) -> Self {
        ManualClock(Arc::new(AtomicI64::new(now)))
    }

    /// Moves it to `now`; never back.
    pub fn advance_to(&self, now: Micros) {
        self.0.fetch_max(now, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.0.load(Ordering::Relaxed)
    }
}
