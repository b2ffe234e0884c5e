//! Where work runs that may block: snapshots, uploads, commits, the coordinator's I/O.

use std::sync::Arc;

/// A piece of work that may block. Runs once, or is dropped when the executor goes away.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs work beside the tasks.
pub trait Background: Send + Sync {
    /// Runs `job` at some time. `name` says what it is, for logs and for the simulator's faults.
    fn spawn(&self, name: &str, job: Job);
}

/// Runs work on a tokio runtime's blocking threads, so that what it calls may block on the same
/// runtime's I/O.
pub struct ThreadedBackground {
    runtime: Arc<tokio::runtime::Runtime>,
}

impl ThreadedBackground {
    /// Work runs on `runtime`'s blocking threads.
    pub fn new(runtime: Arc<tokio::runtime::Runtime>) -> Self {
        ThreadedBackground { runtime }
    }
}

impl Background for ThreadedBackground {
    fn spawn(&self, _name: &str, job: Job) {
        self.runtime.spawn_blocking(job);
    }
}
