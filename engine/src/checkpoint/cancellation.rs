//! Ends work that nobody waits for any more: the uploads of an aborted checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::{Error, Result};

/// Told once, heard by everybody who holds a clone.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<State>);

#[derive(Debug, Default)]
struct State {
    cancelled: AtomicBool,
    told: Notify,
}

impl Cancellation {
    /// Tells it.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.told.notify_waiters();
    }

    /// Whether it was told.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// A permanent external error when it was told.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Does asynchronous work to its end, or drops it when it is told.
    ///
    /// # Errors
    /// The work's own; a permanent external one when it was dropped.
    pub async fn bound<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let told = self.0.told.notified();
        self.check()?;
        tokio::select! {
            done = work => done,
            () = told => Err(cancelled()),
        }
    }
}

fn cancelled() -> Error {
    Error::external("cancelled: nobody waits for it any more").permanent()
}

/// Cancels when it is dropped.
#[derive(Debug, Default)]
pub struct CancelOnDrop(pub Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocking::block_on;
    use super::*;

    #[test]
    fn work_that_never_ends_ends_when_it_is_cancelled() {
        let cancellation = Cancellation::default();
        let held = CancelOnDrop(cancellation.clone());
        let worker = {
            let cancellation = cancellation.clone();
            std::thread::spawn(move || {
                block_on(async move { cancellation.bound(std::future::pending::<Result<()>>()).await })
            })
        };
        drop(held);
        let error = worker.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("cancelled") && !error.is_retryable(), "{error}");
        assert!(
            block_on(async move { cancellation.bound(async { Ok(1) }).await }).is_err(),
            "and is not begun"
        );
    }

    #[test]
    fn work_that_ends_is_not_disturbed() {
        let cancellation = Cancellation::default();
        assert_eq!(block_on(async move { cancellation.bound(async { Ok(1) }).await }).unwrap(), 1);
    }
}
