//! The same work on several things at a time, for files that travel: threads that end before the
//! call does.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::{Error, Result};

/// Does `work` on every item, at most `threads` at a time; one and nothing leaves this thread.
/// Results come in the items' order.
///
/// # Errors
/// The error of the first item, in their order, that failed; items that nobody began are left.
pub(super) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    *done[index].lock() = Some(result);
                }
            });
        }
    });
    let mut results = Vec::with_capacity(items.len());
    let mut missing = false;
    for result in done {
        match result.into_inner() {
            Some(result) => results.push(result?),
            None => missing = true,
        }
    }
    if missing { Err(Error::internal("a transfer was left out")) } else { Ok(results) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_a_failure_is_told() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(in_parallel(4, &items, |item| Ok(item * 2)).unwrap()[99], 198);
        let failed = in_parallel(4, &items, |&item| match item {
            40 => Err(Error::external("forty")),
            item => Ok(item),
        });
        assert_eq!(failed.unwrap_err().to_string(), "forty");
    }
}
