//! A thread that looks, waits, and looks again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_engine::{Error, Result};

use crate::kafka::client::Watch;

/// Ends its thread when it is dropped.
pub(crate) struct WatchThread(Arc<Stop>);

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the next look is due; true when there is to be none.
    fn wait(&self, interval: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), interval, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl WatchThread {
    /// Looks at once.
    ///
    /// # Errors
    /// An external error when no thread can be had.
    pub fn start(name: &str, interval: Duration, mut look: Box<dyn FnMut() + Send>) -> Result<Self> {
        let stop = Arc::new(Stop::default());
        let asked = stop.clone();
        let looking = move || {
            loop {
                look();
                if asked.wait(interval) {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name(name.to_string())
            .spawn(looking)
            .map_err(|error| Error::external("cannot start a thread").caused_by(error))?;
        Ok(WatchThread(stop))
    }
}

impl Watch for WatchThread {
    fn turn(&mut self) {}
}

impl Drop for WatchThread {
    fn drop(&mut self) {
        *self.0.lock() = true;
        self.0.changed.notify_all();
    }
}
