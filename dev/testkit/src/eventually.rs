//! Waiting for a condition, with a bound: what tests do instead of sleeping for luck.

use std::time::{Duration, Instant};

use crate::{Error, Result};

const POLL_EVERY: Duration = Duration::from_millis(10);

/// Polls `look` until it gives a value, for at most `bound`; `what` is named in the error when the time is up.
///
/// ```
/// # use std::{sync::atomic::{AtomicBool, Ordering}, time::Duration};
/// # static DONE: AtomicBool = AtomicBool::new(false);
/// # std::thread::spawn(|| DONE.store(true, Ordering::SeqCst));
/// thalweg_testkit::eventually(Duration::from_secs(5), "the thread's end", || {
///     DONE.load(Ordering::SeqCst).then_some(())
/// })?;
/// # Ok::<(), thalweg_testkit::Error>(())
/// ```
///
/// # Errors
/// When `bound` has passed.
pub fn eventually<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if start.elapsed() >= bound {
            return Err(Error::new(format!("waiting for {what}"), format!("not within {bound:?}")));
        }
        std::thread::sleep(POLL_EVERY);
    }
}
