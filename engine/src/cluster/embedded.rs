//! Runs a whole job in this process: the coordinator on a thread, each task on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::decision::{CoordinatorConfig, Outcome};
use super::driver::{DriverPoll, Inbox, JobDriver, JobEnvironment};
use crate::checkpoint::log::fresh_nonce;
use crate::checkpoint::{AllowedChanges, CheckpointId, CheckpointStorage, ORPHAN_GRACE};
use crate::graph::Graph;
use crate::metrics::Registry;
use crate::operator::Waker;
use crate::runtime::{ChannelBounds, Clock, Signal, SystemClock, ThreadedBackground, ThreadedRunner};
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
    /// Which changes of the job since its last checkpoint may cost state.
    pub changes: AllowedChanges,
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
            coordinator: CoordinatorConfig {
                restart_spread: xxhash_rust::xxh3::xxh3_64(name.as_bytes()),
                ..CoordinatorConfig::default()
            },
            checkpoints_retained: 2,
            use_older_when_damaged: false,
            changes: AllowedChanges::default(),
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
    /// The checkpoint that it went on from when it was started; `None`: it started afresh.
    pub started_from: Option<StartedFrom>,
    /// How long it ran.
    pub elapsed: Duration,
}

/// The checkpoint that a job was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartedFrom {
    /// Which.
    pub checkpoint: CheckpointId,
    /// Whether the job had come to its end there.
    pub is_finished: bool,
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
    let clock = Arc::new(SystemClock::default());
    let environment = JobEnvironment {
        clock: clock.clone(),
        background: Arc::new(ThreadedBackground::new()),
        storage,
        backend,
        registry: registry.clone(),
        bounds,
        nonce: Arc::new(fresh_nonce),
    };
    let signal = Arc::new(Signal::default());
    let waking = signal.clone();
    let inbox = Inbox::new(Waker::new(move || waking.wake()));
    let runner = Box::new(ThreadedRunner::new(clock.clone()));
    let driver = JobDriver::new(graph, config, environment, runner, inbox.clone())?;
    let thread = std::thread::Builder::new()
        .name("thalweg-coordinator".to_string())
        .spawn(move || drive(driver, &signal, clock.as_ref()))
        .map_err(|error| Error::external("cannot start the coordinator's thread").caused_by(error))?;
    Ok(JobHandle { inbox, registry, thread })
}

fn drive(mut driver: JobDriver, signal: &Signal, clock: &dyn Clock) -> JobSummary {
    let started = Instant::now();
    loop {
        match driver.poll() {
            DriverPoll::Ready => {}
            DriverPoll::Waiting(until) => signal.sleep(until, clock),
            DriverPoll::Finished(outcome) => {
                let (restarts, started_from) = (driver.restarts(), driver.started_from());
                return JobSummary { outcome, restarts, started_from, elapsed: started.elapsed() };
            }
        }
    }
}
