//! What a running job has counted: a line that is written anew each second on a terminal, a line in
//! the log each minute elsewhere.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const ON_A_TERMINAL: Duration = Duration::from_secs(1);
const IN_A_LOG: Duration = Duration::from_secs(60);
/// Clears the line that the cursor is in.
const CLEAR: &str = "\x1b[2K";

/// The line; gone when it is dropped.
pub(super) struct LiveLine {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LiveLine {
    /// Shows what `text` says.
    ///
    /// # Errors
    /// That no thread can be started.
    pub(super) fn start(text: impl Fn() -> String + Send + 'static) -> std::io::Result<LiveLine> {
        let (over, is_over) = channel();
        let on_terminal = std::io::stderr().is_terminal();
        let interval = if on_terminal { ON_A_TERMINAL } else { IN_A_LOG };
        let show = move || {
            while is_over.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                match on_terminal {
                    // What is logged meanwhile begins at the line's start again.
                    true => eprint!("{CLEAR}{}\r", text()),
                    false => tracing::info!("{}", text()),
                }
            }
            if on_terminal {
                eprint!("{CLEAR}");
            }
        };
        let thread = std::thread::Builder::new().name("live-line".into()).spawn(show)?;
        Ok(LiveLine { over: Some(over), thread: Some(thread) })
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            // It ends with its channel; what it could panic with was shown.
            let _ = thread.join();
        }
    }
}
