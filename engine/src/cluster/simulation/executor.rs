//! Tasks and background work of a simulated process: who can run, and who waits for which time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::faults::WorkFault;
use super::post::Post;
use crate::cluster::FromTask;
use crate::operator::Waker;
use crate::runtime::{
    Background, Job, Mailbox, OnPanic, Pool, Reports, Task, TaskPoll, TaskRunner, TaskSlot,
};
use crate::time::Micros;
use crate::{Error, Result};

struct SimulatedTask {
    /// `None` when it is gone.
    task: Option<Task>,
    reports: Reports,
    awake: Arc<AtomicBool>,
    wake_at: Option<Micros>,
    /// Its thread gets no processor before.
    stalled_until: Micros,
}

impl SimulatedTask {
    fn is_due(&self, now: Micros) -> bool {
        let due = self.awake.load(Ordering::Acquire) || self.wake_at.is_some_and(|at| at <= now);
        self.task.is_some() && due && self.stalled_until <= now
    }

    /// When it is due by time.
    fn due_at(&self) -> Option<Micros> {
        self.task.as_ref()?;
        let wake_at =
            if self.awake.load(Ordering::Acquire) { Some(self.stalled_until) } else { self.wake_at };
        wake_at.map(|at| at.max(self.stalled_until))
    }
}

#[derive(Clone)]
pub(super) struct Tasks {
    wakers: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
    tasks: Arc<Mutex<Vec<SimulatedTask>>>,
    post: Arc<Mutex<Post>>,
}

impl TaskRunner for Tasks {
    fn waker(&mut self) -> (Waker, TaskSlot) {
        let awake = Arc::new(AtomicBool::new(true));
        let mut wakers = self.wakers.lock();
        let slot = TaskSlot::numbered(wakers.len());
        wakers.push(awake.clone());
        (Waker::new(move || awake.store(true, Ordering::Release)), slot)
    }

    fn mailbox(&mut self, waker: &Waker) -> Arc<Mailbox> {
        let (number, post) = (self.post.lock().next_number(), self.post.clone());
        let mailbox = Mailbox::behind(waker.clone(), move |command| post.lock().accept(number, command));
        self.post.lock().serve(&mailbox);
        mailbox
    }

    fn run(&mut self, slot: TaskSlot, task: Task, reports: Reports) {
        let awake = self.wakers.lock()[slot.number].clone();
        let task =
            SimulatedTask { task: Some(task), reports, awake, wake_at: None, stalled_until: Micros::MIN };
        self.tasks.lock().push(task);
    }
}

impl Tasks {
    /// No tasks yet; `post` brings their commands.
    pub fn new(post: Post) -> Tasks {
        Tasks { wakers: Arc::default(), tasks: Arc::default(), post: Arc::new(Mutex::new(post)) }
    }

    /// The tasks for which a command is there.
    pub fn commanded(&self, now: Micros) -> Vec<usize> {
        self.post.lock().due(now)
    }

    /// Hands a task its next command.
    pub fn deliver(&self, number: usize) {
        self.post.lock().deliver(number);
    }

    /// The tasks that can run now.
    pub fn due(&self, now: Micros) -> Vec<usize> {
        let tasks = self.tasks.lock();
        tasks.iter().enumerate().filter(|(_, task)| task.is_due(now)).map(|(index, _)| index).collect()
    }

    /// When the next one can, or gets a command.
    pub fn next_due(&self) -> Option<Micros> {
        let arrives_at = self.post.lock().next_due();
        self.tasks.lock().iter().filter_map(SimulatedTask::due_at).chain(arrives_at).min()
    }

    /// How many are not gone.
    pub fn count(&self) -> usize {
        self.tasks.lock().iter().filter(|task| task.task.is_some()).count()
    }

    /// The n-th of those that are not gone.
    fn nth(&self, nth: usize) -> Option<usize> {
        let tasks = self.tasks.lock();
        let alive = tasks.iter().enumerate().filter(|(_, task)| task.task.is_some());
        let alive: Vec<_> = alive.map(|(index, _)| index).collect();
        alive.get(nth % alive.len().max(1)).copied()
    }

    /// The n-th gets no processor before `until`.
    pub fn stall(&self, nth: usize, until: Micros) {
        if let Some(index) = self.nth(nth) {
            self.tasks.lock()[index].stalled_until = until;
        }
    }

    /// The n-th fails where it stands.
    pub fn fail(&self, nth: usize) {
        if let Some(index) = self.nth(nth)
            && let Some((task, reports, _)) = self.take(index)
        {
            ended(task, &reports, Err(Error::external("injected failure of a task")));
        }
    }

    /// Takes a task out of its slot: what it does may need the slots.
    fn take(&self, index: usize) -> Option<(Task, Reports, Arc<AtomicBool>)> {
        let mut tasks = self.tasks.lock();
        let slot = &mut tasks[index];
        slot.wake_at = None;
        Some((slot.task.take()?, slot.reports.clone(), slot.awake.clone()))
    }

    pub fn poll(&self, index: usize) {
        let Some((mut task, reports, awake)) = self.take(index) else { return };
        awake.store(false, Ordering::Release);
        match task.poll() {
            Ok(TaskPoll::Ready) => awake.store(true, Ordering::Release),
            Ok(TaskPoll::Waiting(until)) => self.tasks.lock()[index].wake_at = until,
            Ok(TaskPoll::Finished) => return ended(task, &reports, Ok(())),
            Err(error) => return ended(task, &reports, Err(error)),
        }
        self.tasks.lock()[index].task = Some(task);
    }

    /// Those that are not gone.
    pub fn describe(&self) -> String {
        let tasks = self.tasks.lock();
        let alive = tasks.iter().filter_map(|slot| slot.task.as_ref());
        alive.map(|task| task.id().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// Says how a task ended, when it is gone: as a thread does.
fn ended(task: Task, reports: &Reports, result: Result<()>) {
    let id = task.id().clone();
    drop(task);
    if let Err(error) = result {
        reports(id.clone(), FromTask::failed(&error));
    }
    reports(id, FromTask::Stopped);
}

struct Piece {
    name: String,
    job: Job,
    on_panic: OnPanic,
    /// Whether it was decided what befalls it.
    is_fated: bool,
    not_before: Micros,
    fails: bool,
}

#[derive(Clone, Default)]
pub(super) struct Work(Arc<Mutex<Vec<Piece>>>);

impl Background for Work {
    fn spawn(&self, _pool: Pool, name: &str, job: Job, on_panic: OnPanic) {
        let name = name.to_string();
        let not_before = Micros::MIN;
        self.0.lock().push(Piece { name, job, on_panic, is_fated: false, not_before, fails: false });
    }
}

impl Work {
    /// Has `decide` say what befalls the pieces that are new.
    pub fn fate(&self, now: Micros, mut decide: impl FnMut(&str) -> WorkFault) {
        for piece in self.0.lock().iter_mut().filter(|piece| !piece.is_fated) {
            piece.is_fated = true;
            match decide(&piece.name) {
                WorkFault::None => {}
                WorkFault::Late(by) => piece.not_before = now + by,
                WorkFault::Fails => piece.fails = true,
            }
        }
    }

    /// The pieces that can run now.
    pub fn due(&self, now: Micros) -> Vec<usize> {
        let pieces = self.0.lock();
        let due = pieces.iter().enumerate().filter(|(_, piece)| piece.not_before <= now);
        due.map(|(index, _)| index).collect()
    }

    /// When the next one can.
    pub fn next_due(&self) -> Option<Micros> {
        self.0.lock().iter().map(|piece| piece.not_before).min()
    }

    /// Whether a discovery is looking.
    pub fn looks(&self) -> bool {
        self.0.lock().iter().any(|piece| piece.name.starts_with("discovery "))
    }

    pub fn run(&self, index: usize) {
        let Piece { name, job, on_panic, fails, .. } = self.0.lock().remove(index);
        if fails {
            on_panic(format!("{name}: injected failure"));
        } else {
            job();
        }
    }

    /// What waits to be done.
    pub fn describe(&self) -> String {
        self.0.lock().iter().map(|piece| piece.name.clone()).collect::<Vec<_>>().join(", ")
    }
}
