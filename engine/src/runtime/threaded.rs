//! Gives each task an OS thread. The thread sleeps when the task waits, and wakes by the task's
//! waker or at the time it asked for. A panic in a user's function fails its task, not the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Clock, Mailbox, Reports, Task, TaskPoll};
use crate::Error;
use crate::cluster::FromTask;
use crate::operator::Waker;
use crate::time::Micros;

/// Runs tasks; the coordinator's driver knows executors by this alone.
pub trait TaskRunner: Send {
    /// A waker for a task that is still to be made, and the slot that ties the two together.
    fn waker(&mut self) -> (Waker, TaskSlot);

    /// The mailbox of the task that `waker` wakes.
    fn mailbox(&mut self, waker: &Waker) -> Arc<Mailbox> {
        Mailbox::new(waker.clone())
    }

    /// Runs a task to its end. It reports by itself; the runner reports a failure and the stop.
    fn run(&mut self, slot: TaskSlot, task: Task, reports: Reports);
}

/// Ties a waker to its task.
#[derive(Clone, Default)]
pub struct TaskSlot {
    /// The simulator's name for it.
    pub number: usize,
    signal: Arc<Signal>,
}

impl TaskSlot {
    /// A slot that the simulator knows by a number.
    pub(crate) fn numbered(number: usize) -> TaskSlot {
        TaskSlot { number, signal: Arc::default() }
    }
}

/// Lets a thread sleep until somebody wakes it; a wake-up that comes before counts.
#[derive(Default)]
pub(crate) struct Signal {
    woken: Mutex<bool>,
    condition: Condvar,
}

impl Signal {
    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        let mut woken = self.woken.lock();
        if !*woken {
            *woken = true;
            self.condition.notify_one();
        }
    }

    /// Sleeps until woken, or until it is `until` by the monotonic time of `clock`.
    pub(crate) fn sleep(&self, until: Option<Micros>, clock: &dyn Clock) {
        let limit = until.map(|at| Duration::from_micros(u64::try_from(at - clock.monotonic()).unwrap_or(0)));
        let mut woken = self.woken.lock();
        if !*woken {
            match limit {
                Some(limit) => {
                    self.condition.wait_for(&mut woken, limit);
                }
                None => self.condition.wait(&mut woken),
            }
        }
        *woken = false;
    }
}

/// One thread for each task.
pub struct ThreadedRunner {
    clock: Arc<dyn Clock>,
}

impl ThreadedRunner {
    /// Tasks see the time of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        ThreadedRunner { clock }
    }
}

impl TaskRunner for ThreadedRunner {
    fn waker(&mut self) -> (Waker, TaskSlot) {
        let slot = TaskSlot::default();
        let signal = slot.signal.clone();
        (Waker::new(move || signal.wake()), slot)
    }

    fn run(&mut self, slot: TaskSlot, task: Task, reports: Reports) {
        let clock = self.clock.clone();
        let id = task.id().clone();
        let name: String = id.to_string();
        let failed = reports.clone();
        let failed_id = id.clone();
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| drive(task, &slot, clock.as_ref())));
            let error = match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(panic) => Some(Error::user(format!("panicked: {}", panic_message(panic.as_ref())))),
            };
            if let Some(error) = error {
                reports(id.clone(), FromTask::failed(&error));
            }
            reports(id, FromTask::Stopped);
        });
        if let Err(error) = spawned {
            let error = Error::external("cannot start a thread").caused_by(error);
            failed(failed_id.clone(), FromTask::failed(&error));
            failed(failed_id, FromTask::Stopped);
        }
    }
}

fn drive(mut task: Task, slot: &TaskSlot, clock: &dyn Clock) -> crate::Result<()> {
    loop {
        match task.poll()? {
            TaskPoll::Ready => {}
            TaskPoll::Waiting(until) => slot.signal.sleep(until, clock),
            TaskPoll::Finished => return Ok(()),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_string())
}
