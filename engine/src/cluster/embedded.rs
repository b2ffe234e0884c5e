//! Runs a whole job in this process: the coordinator on a thread, each task on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use super::decision::{CoordinatorConfig, Outcome};
use super::driver::{DriverPoll, Inbox, JobDriver, JobEnvironment};
use crate::checkpoint::{CheckpointStorage, ORPHAN_GRACE};
use crate::graph::Graph;
use crate::metrics::Registry;
use crate::operator::Waker;
use crate::runtime::{ChannelBounds, SystemClock, ThreadedBackground, ThreadedRunner};
use crate::state::StateBackend;
use crate::time::Micros;
use crate::{Error, Result};

/// What a job is, beside its graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobConfig {
    /// The job's name: its directory in the store, and a label of its metrics.
    pub name: String,
    /// Tasks of each chain that does not say otherwise.
    pub parallelism: u32,
    /// The number of key groups; fixed for the job's life.
    pub max_parallelism: u32,
    /// Checkpoints and restarts.
    pub coordinator: CoordinatorConfig,
    /// How many complete checkpoints are kept; at least 1.
    pub checkpoints_retained: u32,
    /// Whether an older checkpoint may be used when the newest is damaged.
    pub use_older_when_damaged: bool,
    /// How long after the start files that earlier runs left behind are not deleted: time for one
    /// of them that still runs to find out that it is fenced. Microseconds.
    pub orphan_grace: Micros,
}

impl JobConfig {
    /// Parallelism 1, 128 key groups, a checkpoint every 10 s, two retained, orphans left alone for
    /// ten minutes.
    pub fn new(name: &str) -> JobConfig {
        JobConfig {
            name: name.to_string(),
            parallelism: 1,
            max_parallelism: 128,
            coordinator: CoordinatorConfig::default(),
            checkpoints_retained: 2,
            use_older_when_damaged: false,
            orphan_grace: ORPHAN_GRACE,
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSummary {
    /// How it ended.
    pub outcome: Outcome,
    /// How often its tasks were restarted.
    pub restarts: u32,
    /// How long it ran.
    pub elapsed: Duration,
}

#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    condition: Condvar,
}

/// A running job.
pub struct JobHandle {
    inbox: Inbox,
    registry: Registry,
    thread: std::thread::JoinHandle<JobSummary>,
}

impl JobHandle {
    /// Takes a last checkpoint and leaves.
    pub fn stop(&self) {
        self.inbox.stop();
    }

    /// Leaves at once.
    pub fn abandon(&self) {
        self.inbox.abandon();
    }

    /// Something that can stop the job from another thread.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// The job's metrics.
    pub fn metrics(&self) -> &Registry {
        &self.registry
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// An internal error when the coordinator's thread panicked.
    pub fn wait(self) -> Result<JobSummary> {
        self.thread.join().map_err(|panic| {
            Error::internal(format!(
                "the coordinator panicked: {}",
                crate::runtime::panic_message(panic.as_ref())
            ))
        })
    }
}

/// Starts a job in this process.
///
/// # Errors
/// A user error when the graph cannot be planned; an external one when threads cannot be started.
pub fn start(
    graph: Graph,
    config: JobConfig,
    storage: Arc<dyn CheckpointStorage>,
    backend: Arc<dyn StateBackend>,
    registry: Registry,
    bounds: ChannelBounds,
) -> Result<JobHandle> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(16)
        .thread_name("thalweg-background")
        .enable_all()
        .build()
        .map_err(|error| Error::external("cannot start the background threads").caused_by(error))?;
    let clock = Arc::new(SystemClock::default());
    let environment = JobEnvironment {
        clock: clock.clone(),
        background: Arc::new(ThreadedBackground::new(Arc::new(runtime))),
        storage,
        backend,
        registry: registry.clone(),
        bounds,
    };
    let signal = Arc::new(Signal::default());
    let waking = signal.clone();
    let inbox = Inbox::new(Waker::new(move || {
        *waking.woken.lock() = true;
        waking.condition.notify_one();
    }));
    let runner = Box::new(ThreadedRunner::new(clock.clone()));
    let driver = JobDriver::new(graph, config, environment, runner, inbox.clone())?;
    let thread = std::thread::Builder::new()
        .name("thalweg-coordinator".to_string())
        .spawn(move || drive(driver, &signal, clock.as_ref()))
        .map_err(|error| Error::external("cannot start the coordinator's thread").caused_by(error))?;
    Ok(JobHandle { inbox, registry, thread })
}

fn drive(mut driver: JobDriver, signal: &Signal, clock: &dyn crate::runtime::Clock) -> JobSummary {
    let started = Instant::now();
    loop {
        match driver.poll() {
            DriverPoll::Ready => {}
            DriverPoll::Waiting(until) => {
                let mut woken = signal.woken.lock();
                if !*woken {
                    match until {
                        Some(at) => {
                            let wait = Duration::from_micros(u64::try_from(at - clock.now()).unwrap_or(0));
                            signal.condition.wait_for(&mut woken, wait);
                        }
                        None => signal.condition.wait(&mut woken),
                    }
                }
                *woken = false;
            }
            DriverPoll::Finished(outcome) => {
                return JobSummary { outcome, restarts: driver.restarts(), elapsed: started.elapsed() };
            }
        }
    }
}
