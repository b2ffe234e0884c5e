//! The simulated executor: a whole job in one thread, with a virtual clock, in an order that a
//! seed decides. The same tasks, coordinator and driver as in production; a run replays exactly
//! from its seed.
//!
//! Runnable things are tasks that are awake, pieces of background work, commands that arrive at a
//! task, and the driver. A step takes some virtual time; when nothing is runnable the clock jumps to the next time that somebody waits
//! for. What befalls the process besides (crashes, failing tasks, pauses, slow calls) is decided by
//! its [`ProcessFaults`], what befalls its store by a [`FaultPlan`](crate::checkpoint::fault::FaultPlan).
//! A crash drops everything at once but the store and the world outside; the caller then starts anew.

mod executor;
mod faults;
mod post;
mod seeded_faults;
mod seeded_order;
mod simulated_job;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::executor::{Tasks, Work};
pub use self::faults::{CrashAt, Moment, ProcessFault, ProcessFaults, WorkFault};
use self::post::Post;
pub use self::seeded_faults::{FaultCounts, SeededFaults, seeded_store_faults};
pub use self::seeded_order::SeededOrder;
pub use self::simulated_job::{SimulatedJob, holds_only_what_is_named};
use super::driver::{DriverPoll, Inbox, JobDriver, JobEnvironment};
use super::{JobConfig, Outcome};
use crate::checkpoint::CheckpointStorage;
use crate::graph::Graph;
use crate::metrics::Registry;
use crate::operator::Waker;
use crate::runtime::{ChannelBounds, Clock, ManualClock};
use crate::state::StateBackend;
use crate::time::Micros;
use crate::{Error, Result};

/// A step takes less than so many microseconds of virtual time.
const STEP_MICROS_MAX: usize = 100;

/// What a simulated run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Simulated {
    /// The job ended.
    Ended(Outcome),
    /// The run was crashed.
    Crashed,
}

/// What a simulated run is given.
pub struct SimulationSetup {
    /// Decides the order of everything.
    pub seed: u64,
    /// What befalls the process.
    pub faults: Box<dyn ProcessFaults>,
    /// A run of more steps is stuck.
    pub steps_max: u64,
    /// Starts where the last run's clock stood. Steps are taken in its monotonic time.
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
    let steps_max = setup.steps_max;
    let mut process = Process::start(graph, config, setup)?;
    for step in 0..steps_max {
        if let Some(ended) = process.step(step)? {
            return Ok(ended);
        }
    }
    Err(Error::internal(format!("not over after {steps_max} steps: {}", process.describe())))
}

#[derive(Clone, Copy)]
enum Runnable {
    Driver,
    Work(usize),
    Command(usize),
    Task(usize),
}

/// A simulated process.
struct Process {
    order: SeededOrder,
    faults: Box<dyn ProcessFaults>,
    clock: ManualClock,
    work: Work,
    tasks: Tasks,
    driver: JobDriver,
    driver_awake: Arc<AtomicBool>,
    driver_wake_at: Option<Micros>,
}

impl Process {
    fn start(graph: Graph, config: JobConfig, setup: SimulationSetup) -> Result<Process> {
        let mut order = SeededOrder::new(setup.seed);
        let post = Post::new(SeededOrder::new(order.next_u64()), setup.clock.clone());
        let (work, tasks) = (Work::default(), Tasks::new(post));
        let driver_awake = Arc::new(AtomicBool::new(true));
        let waking = driver_awake.clone();
        let inbox = Inbox::new(Waker::new(move || waking.store(true, Ordering::Release)));
        // Another one for each run: the clock goes on over a crash.
        let started = setup.clock.monotonic() as u64;
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
        let driver = JobDriver::new(graph, config, environment, Box::new(tasks.clone()), inbox)?;
        Ok(Process {
            order,
            faults: setup.faults,
            clock: setup.clock,
            work,
            tasks,
            driver,
            driver_awake,
            driver_wake_at: None,
        })
    }

    /// Does one step; returns what the run came to when it is over.
    fn step(&mut self, step: u64) -> Result<Option<Simulated>> {
        let mut now = self.clock.monotonic() + self.order.below(STEP_MICROS_MAX) as Micros;
        match self.faults.strike(&self.moment(step)) {
            None => {}
            Some(ProcessFault::Crash) => return Ok(Some(Simulated::Crashed)),
            Some(ProcessFault::TaskFails(nth)) => self.tasks.fail(nth),
            Some(ProcessFault::TaskStalls(nth, length)) => self.tasks.stall(nth, now + length),
            Some(ProcessFault::Pause(length)) => now += length,
            Some(ProcessFault::ClockSteps(by)) => self.clock.step(by),
            Some(ProcessFault::LooksAgain) => {
                self.driver.look_again(now);
                self.driver_awake.store(true, Ordering::Release);
            }
        }
        self.clock.advance_to(now);
        self.work.fate(now, |name| self.faults.on_work(name));
        let runnable = self.runnable(now);
        if runnable.is_empty() {
            let next = [self.tasks.next_due(), self.work.next_due(), self.driver_wake_at];
            let Some(next) = next.into_iter().flatten().min() else {
                return Err(Error::internal(format!("stuck after {step} steps: {}", self.describe())));
            };
            self.clock.advance_to(next);
            return Ok(None);
        }
        match runnable[self.order.below(runnable.len())] {
            Runnable::Driver => {
                self.driver_awake.store(false, Ordering::Release);
                match self.driver.poll() {
                    DriverPoll::Ready => self.driver_awake.store(true, Ordering::Release),
                    DriverPoll::Waiting(until) => self.driver_wake_at = until,
                    DriverPoll::Finished(outcome) => return Ok(Some(Simulated::Ended(outcome))),
                }
            }
            Runnable::Work(index) => self.work.run(index),
            Runnable::Command(number) => self.tasks.deliver(number),
            Runnable::Task(index) => self.tasks.poll(index),
        }
        Ok(None)
    }

    fn moment(&self, step: u64) -> Moment {
        Moment {
            step,
            restarts: self.driver.restarts(),
            published: self.driver.last_published(),
            tasks: self.tasks.count(),
            looking: self.work.looks(),
        }
    }

    fn runnable(&self, now: Micros) -> Vec<Runnable> {
        let mut runnable = Vec::new();
        if self.driver_awake.load(Ordering::Acquire) || self.driver_wake_at.is_some_and(|at| at <= now) {
            runnable.push(Runnable::Driver);
        }
        runnable.extend(self.work.due(now).into_iter().map(Runnable::Work));
        runnable.extend(self.tasks.commanded(now).into_iter().map(Runnable::Command));
        runnable.extend(self.tasks.due(now).into_iter().map(Runnable::Task));
        runnable
    }

    fn describe(&self) -> String {
        format!("tasks {}; work {}", self.tasks.describe(), self.work.describe())
    }
}
