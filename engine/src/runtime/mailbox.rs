//! What a task is told.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::ToTask;
use crate::operator::Waker;

/// Has a command delivered, now or later; commands to one task stay in their order.
type Carrier = Box<dyn Fn(ToTask) + Send + Sync>;

/// Commands to a task, in order, and whom to wake for them.
pub struct Mailbox {
    commands: Mutex<VecDeque<ToTask>>,
    waker: Waker,
    carrier: Option<Carrier>,
}

impl Mailbox {
    /// An empty mailbox of the task that `waker` wakes.
    pub fn new(waker: Waker) -> Arc<Mailbox> {
        Arc::new(Mailbox { commands: Mutex::default(), waker, carrier: None })
    }

    /// The same with a way between sender and task: whoever is at its end calls
    /// [`Mailbox::deliver`].
    pub(crate) fn behind(waker: Waker, carrier: impl Fn(ToTask) + Send + Sync + 'static) -> Arc<Mailbox> {
        Arc::new(Mailbox { commands: Mutex::default(), waker, carrier: Some(Box::new(carrier)) })
    }

    /// Sends a command.
    pub fn send(&self, command: ToTask) {
        match &self.carrier {
            Some(carrier) => carrier(command),
            None => self.deliver(command),
        }
    }

    /// Puts a command in.
    pub(crate) fn deliver(&self, command: ToTask) {
        self.commands.lock().push_back(command);
        self.waker.wake();
    }

    /// Takes the oldest command.
    pub(super) fn take(&self) -> Option<ToTask> {
        self.commands.lock().pop_front()
    }
}
