//! SIGINT and SIGTERM: the first asks for a last checkpoint, the second leaves at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::Exit;

/// Listens until it is dropped.
pub struct SignalWatch {
    first: Arc<AtomicI32>,
    handle: Handle,
}

impl SignalWatch {
    /// Calls `stop` at the first signal; ends the process at the second.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn start(stop: impl Fn() + Send + 'static) -> std::io::Result<SignalWatch> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let first = Arc::new(AtomicI32::new(0));
        let seen = first.clone();
        std::thread::Builder::new().name("signals".to_string()).spawn(move || {
            for signal in signals.forever() {
                if seen.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    tracing::info!(
                        signal,
                        "stopping after a last checkpoint; a second signal leaves at once"
                    );
                    stop();
                } else {
                    tracing::warn!(signal, "leaving at once");
                    // At once: no destructor may wait for a thread that waits for the world.
                    signal_hook::low_level::exit(i32::from(Exit::Interrupted.code()));
                }
            }
        })?;
        Ok(SignalWatch { first, handle })
    }

    /// The first signal that came.
    pub fn first(&self) -> Option<i32> {
        Some(self.first.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
    }
}
