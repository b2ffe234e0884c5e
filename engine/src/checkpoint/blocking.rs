//! From blocking calls to asynchronous clients: one runtime of this process for object stores.
//!
//! The rule: the caller blocks, the runtime never waits for the caller. The future runs on the
//! store's own threads and its answer comes back over a channel, so a call is safe from a plain
//! thread and from a thread of any other runtime. From one of the store's own threads it would
//! wait for itself; that is refused.

use std::cell::Cell;
use std::future::Future;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Runtime};

use crate::{Error, Result};

/// Threads that drive sockets and file chunks; the work on them is short.
const WORKER_THREADS: usize = 2;

thread_local! {
    static IS_STORE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `future` to its end on the store's runtime and returns what it returned.
///
/// # Errors
/// The future's own; an internal one when called from the store's own threads, when the runtime
/// cannot be made, or when the future panicked.
pub(super) fn block_on<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    if IS_STORE_THREAD.get() {
        return Err(Error::internal("a checkpoint store was called from its own runtime"));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        // The caller waits in `recv`, so the send cannot fail.
        let _ = sender.send(future.await);
    });
    receiver.recv().map_err(|_| Error::internal("a call to the checkpoint store panicked"))?
}

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .thread_name("thalweg-store")
            .on_thread_start(|| IS_STORE_THREAD.set(true))
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|why| Error::external(format!("cannot start the store's runtime: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_from_plain_threads_and_from_other_runtimes() {
        assert_eq!(block_on(async { Ok(1) }).unwrap(), 1);
        let current = Builder::new_current_thread().build().unwrap();
        assert_eq!(current.block_on(async { block_on(async { Ok(2) }) }).unwrap(), 2);
        let several = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert_eq!(several.block_on(async { block_on(async { Ok(3) }) }).unwrap(), 3);
    }

    #[test]
    fn its_own_threads_are_refused_and_a_panic_is_an_error() {
        let nested = block_on(async { block_on(async { Ok(()) }) });
        assert!(nested.unwrap_err().to_string().contains("its own runtime"));
        let panicked: Result<()> = block_on(async { panic!("on purpose") });
        assert!(panicked.unwrap_err().to_string().contains("panicked"));
    }
}
