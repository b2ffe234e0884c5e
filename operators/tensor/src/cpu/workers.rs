//! Threads: the caller and as many more as the plan may use, no others.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// The threads of a plan, the caller's among them.
pub(super) struct Pool {
    others: Option<ThreadPool>,
    threads: usize,
}

impl Pool {
    /// For `threads` in all.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn new(threads: usize) -> Result<Pool> {
        let threads = threads.max(1);
        let failed = |error: rayon::ThreadPoolBuildError| Error::Device {
            device: "cpu".to_string(),
            reason: error.to_string(),
        };
        let others = match threads {
            1 => None,
            _ => Some(
                ThreadPoolBuilder::new()
                    .num_threads(threads - 1)
                    .thread_name(|index| format!("tensor-{index}"))
                    .build()
                    .map_err(failed)?,
            ),
        };
        Ok(Pool { others, threads })
    }

    /// Threads in all.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }
}

/// Runs `work` for each item, at once; there should be no more of them than threads. The first is
/// the caller's.
pub(super) fn each_of<T: Send>(pool: &Pool, items: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
    match (&pool.others, items) {
        (Some(others), [first, rest @ ..]) if !rest.is_empty() => others.in_place_scope(|scope| {
            let work = &work;
            for (index, item) in rest.iter_mut().enumerate() {
                scope.spawn(move |_| work(index + 1, item));
            }
            work(0, first);
        }),
        (_, items) => {
            for (index, item) in items.iter_mut().enumerate() {
                work(index, item);
            }
        }
    }
}
