//! Runs a job in this process: its settings, the division of its memory, its stores, its tasks.
//!
//! The one place where a graph meets the engine's parts; job files and programs both come through
//! here. It knows no job file and no command line.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_engine::checkpoint::{self, CarryOver, CheckpointStorage, MemoryStorage, StoreOptions};
use thalweg_engine::cluster::{
    self, Inbox, JobConfig, JobHandle, JobSummary, Outcome, RestartStrategy, TaskBlame,
};
use thalweg_engine::graph::{Environment, Graph, NodeKind, Partitioner, Plan};
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::{LockedDirectory, MemoryPlan, MemoryRequest, RocksBackend, RocksConfig};
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

use crate::state_directory::state_directory;

/// Files that each keyed instance uploads, or downloads, at the same time.
const TRANSFERS: usize = 2;
/// Memory of a job that does not say.
pub(crate) const MEMORY_BYTES_DEFAULT: u64 = 1 << 30;

enum Store {
    /// In memory, gone with the job.
    Own,
    Url(String),
    Given(Arc<dyn CheckpointStorage>),
}

/// A job that is about to run in this process.
///
/// State is in RocksDB, below a temporary directory; checkpoints are in memory, unless
/// [`Job::checkpoints`] names a store. A job that finds a checkpoint under its name in its store
/// goes on from there.
///
/// ```
/// use thalweg::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq, Record)]
/// struct Completion {
///     user: String,
///     tokens: i64,
/// }
///
/// let rows = [("ada", 7), ("bob", 1), ("ada", 5)];
/// let rows = rows.map(|(user, tokens)| Completion { user: user.into(), tokens });
///
/// let env = Environment::new();
/// let large = env.source(VecSource::of(&rows)?).filter("tokens > 4");
/// let found = Collected::new();
/// large.sink(found.exactly_once_sink());
/// let summary = Job::new("large").parallelism(2).run(&env)?;
///
/// assert_eq!(found.records::<Completion>()?, [rows[0].clone(), rows[2].clone()]);
/// assert_eq!(summary.restarts, 0);
/// # Ok::<(), Error>(())
/// ```
#[must_use]
pub struct Job {
    config: JobConfig,
    memory_bytes: u64,
    reserved_bytes: u64,
    store: Store,
    state_directory: Option<PathBuf>,
    registry: Registry,
}

impl Job {
    /// A job of this name with one task for each chain, 1 GiB of memory, a checkpoint every 10 s,
    /// and as many restarts as it takes.
    pub fn new(name: &str) -> Job {
        Job {
            config: JobConfig::new(name),
            memory_bytes: MEMORY_BYTES_DEFAULT,
            reserved_bytes: 0,
            store: Store::Own,
            state_directory: None,
            registry: Registry::default(),
        }
    }

    /// Tasks of each chain that does not say otherwise.
    pub fn parallelism(mut self, parallelism: u32) -> Job {
        self.config.parallelism = parallelism;
        self
    }

    /// What the whole process may hold, in bytes: see [`MemoryPlan`].
    pub fn memory(mut self, bytes: u64) -> Job {
        self.memory_bytes = bytes;
        self
    }

    /// Bytes of [`Job::memory`] that are left to what the engine does not see: the program's own,
    /// and what connectors were told to hold (`KafkaSource::queue_bytes`).
    pub fn reserve(mut self, bytes: u64) -> Job {
        self.reserved_bytes = bytes;
        self
    }

    /// Where checkpoints are: `file:///directory`, `az://container/prefix`, or `memory:name` for
    /// a store that later jobs of this process find again.
    pub fn checkpoints(mut self, url: &str) -> Job {
        self.store = Store::Url(url.to_string());
        self
    }

    /// Keeps checkpoints in this storage.
    pub fn checkpoint_storage(mut self, storage: Arc<dyn CheckpointStorage>) -> Job {
        self.store = Store::Given(storage);
        self
    }

    /// From one checkpoint to the next, in microseconds.
    pub fn checkpoint_every(mut self, interval: Micros) -> Job {
        self.config.coordinator.checkpoint_interval = interval;
        self
    }

    /// What happens when tasks fail. The default restarts them any number of times, after delays that
    /// grow from a second to a minute and begin anew after ten healthy minutes. A checkpoint store that
    /// is away fails no task: checkpoints wait for it, and the job goes on.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// let tolerant = RestartStrategy::FailureRate { failures: 5, within: 10 * MINUTE, delay: SECOND };
    /// let job = Job::new("usage").restart(tolerant);
    /// ```
    pub fn restart(mut self, strategy: RestartStrategy) -> Job {
        self.config.coordinator.restart = strategy;
        self
    }

    /// So many checkpoints that fail in a row end the job. The default is that no number does.
    pub fn checkpoint_failures_max(mut self, failures: u32) -> Job {
        self.config.coordinator.checkpoint_failures_max = Some(failures);
        self
    }

    /// Lets the state of operators that the job has no more be dropped at the restore: those that had
    /// this uid. Without that it is refused by name.
    pub fn allow_dropped_state(mut self, uid: &str) -> Job {
        self.config.changes.dropped.insert(uid.to_string());
        self
    }

    /// Lets the operator of this uid start empty when its state in the checkpoint is another one than
    /// it keeps now: another key, window, topic. Without that it is refused by name.
    pub fn start_empty(mut self, uid: &str) -> Job {
        self.config.changes.start_empty.insert(uid.to_string());
        self
    }

    /// Passes over what is in the store: reads everything again, with empty state.
    pub fn start_over(mut self) -> Job {
        self.config.changes.start_over = true;
        self
    }

    /// Where RocksDB has its files, which are gone when the job is over.
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Job {
        self.state_directory = Some(directory.into());
        self
    }

    /// Where the job's metrics go.
    pub fn metrics(mut self, registry: Registry) -> Job {
        self.registry = registry;
        self
    }

    /// Changes what has no method of its own: key groups, retained checkpoints, timeouts.
    pub fn configure(mut self, change: impl FnOnce(&mut JobConfig)) -> Job {
        change(&mut self.config);
        self
    }

    /// Starts the job.
    ///
    /// # Errors
    /// A user error with all mistakes that were made in building it, or that says what memory it
    /// needs; an external one when a store cannot be used.
    pub fn start(self, environment: &Environment) -> Result<RunningJob> {
        let graph = environment.build()?;
        let limit_bytes = self.memory_bytes.saturating_sub(self.reserved_bytes);
        let memory = divide(&graph, &self.config, limit_bytes, 0)?;
        self.start_planned(graph, &memory)
    }

    /// Runs the job to its end.
    ///
    /// # Errors
    /// As [`Job::start`]; a user error when the job does not fit its last checkpoint; and what the
    /// job failed with.
    pub fn run(self, environment: &Environment) -> Result<JobSummary> {
        let summary = self.start(environment)?.wait()?;
        match &summary.outcome {
            Outcome::Failed { error, blame } => Err(match blame {
                TaskBlame::User => Error::user(error),
                TaskBlame::External => Error::external(error),
                TaskBlame::Internal => Error::internal(error),
            }),
            Outcome::Fenced { error } => Err(Error::external(error).permanent()),
            Outcome::Refused { error } => Err(Error::user(error)),
            Outcome::Stuck { error, .. } => Err(Error::user(error)),
            Outcome::Completed | Outcome::Stopped | Outcome::Abandoned => Ok(summary),
        }
    }

    /// What a run would take over from the newest checkpoint in the job's store; `None` when there is
    /// none. Reads the store and claims nothing: a job that runs is not disturbed.
    ///
    /// # Errors
    /// A user error with all mistakes that were made in building the job; an external one when the
    /// store cannot be read.
    pub fn outlook(self, environment: &Environment) -> Result<Option<CarryOver>> {
        self.outlook_of(&environment.build()?)
    }

    /// As [`Job::outlook`], of a graph.
    pub(crate) fn outlook_of(self, graph: &Graph) -> Result<Option<CarryOver>> {
        let storage = open_store(self.store, &StoreOptions::from_environment())?;
        cluster::outlook(storage.as_ref(), &self.config, graph)
    }

    /// Starts a graph whose memory is divided already.
    pub(crate) fn start_planned(self, graph: Graph, memory: &MemoryPlan) -> Result<RunningJob> {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut options = StoreOptions::from_environment();
        options.file_bytes = Some(bytes(memory.upload_bytes));
        let storage = open_store(self.store, &options)?;
        let directory = state_directory(&self.config.name, self.state_directory)?;
        let rocks = RocksConfig {
            block_cache_bytes: bytes(memory.block_cache_bytes),
            write_buffer_bytes: bytes(memory.write_buffer_bytes),
            instance_bytes: Some(bytes(memory.cache_bytes_per_instance)),
            transfers: TRANSFERS,
            ..RocksConfig::new(directory.path())
        };
        let backend = Arc::new(RocksBackend::new(rocks)?);
        let bounds = ChannelBounds { bytes_max: bytes(memory.channel_bytes), ..ChannelBounds::default() };
        let handle = cluster::start(graph, self.config, storage, backend, self.registry, bounds)?;
        Ok(RunningJob { handle, _directory: directory })
    }
}

fn open_store(store: Store, options: &StoreOptions) -> Result<Arc<dyn CheckpointStorage>> {
    Ok(match store {
        Store::Own => Arc::new(MemoryStorage::default()),
        Store::Url(url) => checkpoint::open(&url, options)?,
        Store::Given(storage) => storage,
    })
}

/// Divides `limit_bytes` over what the graph will run, counted before anything does.
///
/// # Errors
/// A user error when the graph cannot be planned or the memory is too small; it says how much is
/// needed.
pub(crate) fn divide(
    graph: &Graph,
    config: &JobConfig,
    limit_bytes: u64,
    kafka_clients: u64,
) -> Result<MemoryPlan> {
    let plan = Plan::new(graph, config.parallelism, config.max_parallelism)?;
    let tasks = |own: Option<u32>| u64::from(own.unwrap_or(config.parallelism));
    let keyed = graph.nodes.iter().filter(|node| match &node.kind {
        NodeKind::Operator { factory, .. } => factory.is_keyed(),
        NodeKind::Source { .. } => false,
    });
    let keyed_instances: u64 = keyed.map(|node| tasks(node.parallelism)).sum();
    let held = graph.nodes.iter().map(|node| match &node.kind {
        NodeKind::Operator { factory, .. } => {
            factory.memory_bytes(node.parallelism.unwrap_or(config.parallelism))
        }
        NodeKind::Source { .. } => 0,
    });
    let channels = plan.edges.iter().map(|planned| {
        let [from, to] = [planned.from, planned.to]
            .map(|chain| plan.chains.get(chain.0).map_or(1, |chain| u64::from(chain.parallelism)));
        if planned.edge.partitioner == Partitioner::Forward { from } else { from * to }
    });
    MemoryPlan::divide(MemoryRequest {
        limit_bytes,
        keyed_instances,
        channels: channels.sum(),
        kafka_clients,
        uploads: TRANSFERS as u64 * keyed_instances,
        operator_bytes: held.sum(),
    })
}

/// A job that runs in this process, and the directory of its state, which goes with it.
pub struct RunningJob {
    handle: JobHandle,
    _directory: LockedDirectory,
}

impl RunningJob {
    /// Takes a last checkpoint and leaves.
    pub fn stop(&self) {
        self.handle.stop();
    }

    /// Something that can stop the job from another thread.
    pub fn inbox(&self) -> Inbox {
        self.handle.inbox()
    }

    /// Leaves at once.
    pub fn abandon(&self) {
        self.handle.abandon();
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        self.handle.is_over()
    }

    /// The job's metrics.
    pub fn metrics(&self) -> &Registry {
        self.handle.metrics()
    }

    /// Waits for the end, and says how it was.
    ///
    /// # Errors
    /// An internal error when the coordinator's thread panicked.
    pub fn wait(self) -> Result<JobSummary> {
        self.handle.wait()
    }
}
