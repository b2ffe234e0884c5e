//! The simulated executor: a whole job in one thread, with a virtual clock, in an order that a
//! seed decides. The same tasks, coordinator and driver as in production; a run replays exactly
//! from its seed.
//!
//! Runnable things are tasks that are awake, pieces of background work, commands that arrive at a
//! task, and the driver. A step takes
//! some virtual time; when nothing is runnable the clock jumps to the next time that somebody waits
//! for. A crash drops everything at once but the store and the world outside; the caller then starts
//! anew.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::driver::{DriverPoll, Inbox, JobDriver, JobEnvironment};
use super::{FromTask, JobConfig, Outcome, ToTask};
use crate::checkpoint::CheckpointStorage;
use crate::checkpoint::fault::{Fault, FaultPlan};
use crate::graph::Graph;
use crate::metrics::Registry;
use crate::operator::Waker;
use crate::runtime::{
    Background, ChannelBounds, Clock, Job, Mailbox, ManualClock, OnPanic, Pool, Reports, Task, TaskPoll,
    TaskRunner, TaskSlot,
};
use crate::state::StateBackend;
use crate::time::Micros;
use crate::{Error, Result};

/// A step takes less than so many microseconds of virtual time.
const STEP_MICROS_MAX: usize = 100;
/// A command to a task is on its way for less than so many, should it be late.
const LATE_MICROS_MAX: usize = 20_000;

/// A small deterministic generator (SplitMix64; Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct SeededOrder(u64);

impl SeededOrder {
    /// A generator that a seed decides.
    pub fn new(seed: u64) -> Self {
        SeededOrder(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    /// A plan by which so many in a thousand calls of a store fail, half of them after they have taken
    /// effect; `injected` counts them.
    pub fn faults(mut self, per_thousand: usize, injected: Arc<AtomicU64>) -> FaultPlan {
        Box::new(move |_| {
            let hit = self.below(1_000);
            if hit >= per_thousand {
                return Fault::None;
            }
            injected.fetch_add(1, Ordering::Relaxed);
            if hit.is_multiple_of(2) { Fault::FailBefore } else { Fault::FailAfter }
        })
    }
}

struct SimulatedTask {
    task: Option<Task>,
    reports: Reports,
    awake: Arc<AtomicBool>,
    wake_at: Option<Micros>,
}

#[derive(Clone, Default)]
struct Work(Arc<Mutex<Vec<(String, Job)>>>);

impl Background for Work {
    fn spawn(&self, _pool: Pool, name: &str, job: Job, _on_panic: OnPanic) {
        self.0.lock().push((name.to_string(), job));
    }
}

#[derive(Clone)]
struct Tasks {
    wakers: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
    tasks: Arc<Mutex<Vec<SimulatedTask>>>,
    post: Arc<Mutex<Post>>,
}

impl Tasks {
    fn new(order: SeededOrder, clock: ManualClock) -> Tasks {
        let post = Post { order, clock, boxes: Vec::new() };
        Tasks { wakers: Arc::default(), tasks: Arc::default(), post: Arc::new(Mutex::new(post)) }
    }
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
        let (number, post) = (self.post.lock().boxes.len(), self.post.clone());
        let mailbox = Mailbox::behind(waker.clone(), move |command| post.lock().accept(number, command));
        let letters =
            Letters { mailbox: Arc::downgrade(&mailbox), is_source: false, waiting: VecDeque::new() };
        self.post.lock().boxes.push(letters);
        mailbox
    }

    fn run(&mut self, slot: TaskSlot, task: Task, reports: Reports) {
        let awake = self.wakers.lock()[slot.number].clone();
        self.tasks.lock().push(SimulatedTask { task: Some(task), reports, awake, wake_at: None });
    }
}

/// Commands on their way to the tasks: each task's arrive in their order, and in none with what
/// comes through its channels.
struct Post {
    order: SeededOrder,
    clock: ManualClock,
    boxes: Vec<Letters>,
}

/// What is on its way to one task, with the times at which it is there.
struct Letters {
    mailbox: Weak<Mailbox>,
    is_source: bool,
    waiting: VecDeque<(Micros, ToTask)>,
}

impl Post {
    /// Mostly little: what is late now and then comes behind several barriers. Triggers of sources
    /// are not late, nor what was said before them: a full sink that has heard of a checkpoint takes
    /// what they give until they have (`Operator::is_full`).
    fn accept(&mut self, number: usize, command: ToTask) {
        let in_time = self.clock.now() + self.order.below(STEP_MICROS_MAX) as Micros;
        let is_late = self.order.below(4) == 0;
        let late_at = in_time + self.order.below(LATE_MICROS_MAX) as Micros;
        let Letters { is_source, waiting, .. } = &mut self.boxes[number];
        *is_source |= matches!(command, ToTask::AssignSplits(_));
        if *is_source && matches!(command, ToTask::Trigger { .. }) {
            waiting.iter_mut().for_each(|(at, _)| *at = in_time.min(*at));
            waiting.push_back((in_time, command));
            return;
        }
        let at = if is_late { late_at } else { in_time };
        let at = waiting.back().map_or(at, |(last, _)| at.max(*last));
        waiting.push_back((at, command));
    }

    fn deliver(&mut self, number: usize) {
        let Letters { mailbox, waiting, .. } = &mut self.boxes[number];
        if let (Some(mailbox), Some((_, command))) = (mailbox.upgrade(), waiting.pop_front()) {
            mailbox.deliver(command);
        }
    }

    fn next_time(&self) -> Option<Micros> {
        self.boxes.iter().filter_map(|letters| letters.waiting.front()).map(|(at, _)| *at).min()
    }

    /// Those for which something is there.
    fn due(&self, now: Micros) -> impl Iterator<Item = usize> {
        let due = move |letters: &Letters| letters.waiting.front().is_some_and(|(at, _)| *at <= now);
        self.boxes.iter().enumerate().filter(move |(_, letters)| due(letters)).map(|(number, _)| number)
    }
}

/// What a simulated run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Simulated {
    /// The job ended.
    Ended(Outcome),
    /// The run was crashed at the step asked for.
    Crashed,
}

/// What a simulated run is given.
pub struct SimulationSetup {
    /// Decides the order of everything.
    pub seed: u64,
    /// After so many steps everything is dropped; `None`: never.
    pub crash_at: Option<u64>,
    /// A run of more steps is stuck.
    pub steps_max: u64,
    /// Starts where the last run's clock stood.
    pub clock: ManualClock,
    /// Survives a crash.
    pub storage: Arc<dyn CheckpointStorage>,
    /// Where state lives; does not survive.
    pub backend: Arc<dyn StateBackend>,
    /// Bounds of each channel; small ones find more.
    pub bounds: ChannelBounds,
}

/// Runs a job until it ends or is crashed.
///
/// # Errors
/// An internal error when the job is stuck: nobody can run and nobody waits for a time, or the
/// steps ran out. It says who waits for what.
pub fn simulate(graph: Graph, config: JobConfig, setup: SimulationSetup) -> Result<Simulated> {
    let mut order = SeededOrder::new(setup.seed);
    let work = Work::default();
    let tasks = Tasks::new(SeededOrder::new(order.next_u64()), setup.clock.clone());
    let driver_awake = Arc::new(AtomicBool::new(true));
    let waking = driver_awake.clone();
    let inbox = Inbox::new(Waker::new(move || waking.store(true, Ordering::Release)));
    // Another one for each run: the clock goes on over a crash.
    let started = crate::runtime::Clock::now(&setup.clock) as u64;
    let mut nonces = SeededOrder::new(setup.seed ^ started.rotate_left(32));
    let nonce = format!("{:016x}{:016x}", nonces.next_u64(), nonces.next_u64());
    let environment = JobEnvironment {
        clock: Arc::new(setup.clock.clone()),
        background: Arc::new(work.clone()),
        storage: setup.storage,
        backend: setup.backend,
        registry: Registry::default(),
        bounds: setup.bounds,
        nonce: Arc::new(move || nonce.clone()),
    };
    let mut driver = JobDriver::new(graph, config, environment, Box::new(tasks.clone()), inbox)?;
    let mut driver_wake_at = None;
    for step in 0..setup.steps_max {
        if setup.crash_at == Some(step) {
            return Ok(Simulated::Crashed);
        }
        let now = setup.clock.now() + order.below(STEP_MICROS_MAX) as Micros;
        setup.clock.advance_to(now);
        let runnable = runnable(&tasks, &work, &driver_awake, driver_wake_at, now);
        if runnable.is_empty() {
            let next = next_time(&tasks, driver_wake_at);
            let Some(next) = next else {
                return Err(Error::internal(format!("stuck after {step} steps: {}", describe(&tasks))));
            };
            setup.clock.advance_to(next);
            continue;
        }
        match runnable[order.below(runnable.len())] {
            Runnable::Driver => {
                driver_awake.store(false, Ordering::Release);
                match driver.poll() {
                    DriverPoll::Ready => driver_awake.store(true, Ordering::Release),
                    DriverPoll::Waiting(until) => driver_wake_at = until,
                    DriverPoll::Finished(outcome) => return Ok(Simulated::Ended(outcome)),
                }
            }
            Runnable::Work(index) => {
                let (_, job) = work.0.lock().remove(index);
                job();
            }
            Runnable::Command(number) => tasks.post.lock().deliver(number),
            Runnable::Task(index) => poll_task(&tasks, index),
        }
    }
    Err(Error::internal(format!("not over after {} steps: {}", setup.steps_max, describe(&tasks))))
}

#[derive(Clone, Copy)]
enum Runnable {
    Driver,
    Work(usize),
    Command(usize),
    Task(usize),
}

fn runnable(
    tasks: &Tasks,
    work: &Work,
    driver: &AtomicBool,
    driver_at: Option<Micros>,
    now: Micros,
) -> Vec<Runnable> {
    let mut runnable = Vec::new();
    if driver.load(Ordering::Acquire) || driver_at.is_some_and(|at| at <= now) {
        runnable.push(Runnable::Driver);
    }
    runnable.extend((0..work.0.lock().len()).map(Runnable::Work));
    runnable.extend(tasks.post.lock().due(now).map(Runnable::Command));
    for (index, task) in tasks.tasks.lock().iter().enumerate() {
        let due = task.awake.load(Ordering::Acquire) || task.wake_at.is_some_and(|at| at <= now);
        if task.task.is_some() && due {
            runnable.push(Runnable::Task(index));
        }
    }
    runnable
}

fn next_time(tasks: &Tasks, driver_at: Option<Micros>) -> Option<Micros> {
    let arrives_at = tasks.post.lock().next_time();
    let tasks = tasks.tasks.lock();
    let waiting = tasks.iter().filter(|task| task.task.is_some()).filter_map(|task| task.wake_at);
    waiting.chain(driver_at).chain(arrives_at).min()
}

fn poll_task(tasks: &Tasks, index: usize) {
    // Polling may start other tasks' wake-ups but never takes this lock.
    let (mut task, reports, awake) = {
        let mut tasks = tasks.tasks.lock();
        let slot = &mut tasks[index];
        slot.wake_at = None;
        let Some(task) = slot.task.take() else { return };
        (task, slot.reports.clone(), slot.awake.clone())
    };
    awake.store(false, Ordering::Release);
    let polled = task.poll();
    match polled {
        Ok(TaskPoll::Ready) => awake.store(true, Ordering::Release),
        Ok(TaskPoll::Waiting(until)) => tasks.tasks.lock()[index].wake_at = until,
        Ok(TaskPoll::Finished) => {
            reports(task.id().clone(), FromTask::Stopped);
            return;
        }
        Err(error) => {
            reports(task.id().clone(), FromTask::failed(&error));
            reports(task.id().clone(), FromTask::Stopped);
            return;
        }
    }
    tasks.tasks.lock()[index].task = Some(task);
}

fn describe(tasks: &Tasks) -> String {
    let tasks = tasks.tasks.lock();
    let alive = tasks.iter().filter_map(|slot| slot.task.as_ref());
    alive.map(|task| task.id().to_string()).collect::<Vec<_>>().join(", ")
}
