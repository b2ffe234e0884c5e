//! What a task is told.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::ToTask;
use crate::operator::Waker;

/// Commands to a task, in order, and whom to wake for them.
pub struct Mailbox {
    commands: Mutex<VecDeque<ToTask>>,
    waker: Waker,
}

impl Mailbox {
    /// An empty mailbox of the task that `waker` wakes.
    pub fn new(waker: Waker) -> Arc<Mailbox> {
        Arc::new(Mailbox { commands: Mutex::new(VecDeque::new()), waker })
    }

    /// Sends a command.
    pub fn send(&self, command: ToTask) {
        self.commands.lock().push_back(command);
        self.waker.wake();
    }

    /// Takes the oldest command.
    pub(super) fn take(&self) -> Option<ToTask> {
        self.commands.lock().pop_front()
    }
}
