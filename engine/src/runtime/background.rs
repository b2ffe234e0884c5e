//! Where work runs that may block: snapshots, uploads, commits, the coordinator's I/O.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::panic_message;

/// A piece of work that may block. Runs once, or is dropped when the executor goes away.
pub type Job = Box<dyn FnOnce() + Send>;

/// Told what the panic said when a piece of work panics: somebody waits for its outcome. User code
/// runs in it (a sink's uploads and commits), and its panic fails the task, not the process.
pub type OnPanic = Box<dyn FnOnce(String) + Send>;

/// Runs work beside the tasks.
pub trait Background: Send + Sync {
    /// Runs `job` at some time. `name` says what it is, for logs and for the simulator's faults. An
    /// executor for tests may let a panic through instead of telling `on_panic`.
    fn spawn(&self, name: &str, job: Job, on_panic: OnPanic);
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
    fn spawn(&self, name: &str, job: Job, on_panic: OnPanic) {
        let name = name.to_string();
        self.runtime.spawn_blocking(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                on_panic(format!("{name} panicked: {}", panic_message(panic.as_ref())));
            }
        });
    }
}
