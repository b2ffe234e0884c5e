//! The one place where a loaded job meets the engine: its settings become the engine's, its
//! store and its state's directory are opened, its tasks start.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_engine::Result;
use thalweg_engine::checkpoint::{self, StoreOptions};
use thalweg_engine::cluster::{
    self, CoordinatorConfig, Inbox, JobConfig, JobHandle, JobSummary, RestartStrategy,
};
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::{RocksBackend, RocksConfig};

use super::LoadedJob;
use super::memory::UPLOADS;
use super::spec::{OnDamaged, SettingsSpec};

/// Starts a job in this process; it goes on from its store's last checkpoint, if there is one.
///
/// # Errors
/// A user error when the store's URL or the graph is wrong; an external one when the store or the
/// state's directory cannot be used.
pub fn start(job: LoadedJob, registry: Registry) -> Result<RunningJob> {
    let LoadedJob { spec, graph, memory } = job;
    let settings = &spec.settings;
    let storage = checkpoint::open(&settings.checkpoint.store.value.0, &StoreOptions::from_environment())?;
    let directory = StateDirectory::of(settings);
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let rocks = RocksConfig {
        block_cache_bytes: bytes(memory.block_cache_bytes),
        write_buffer_bytes: bytes(memory.write_buffer_bytes),
        transfers: UPLOADS,
        ..RocksConfig::new(directory.0.clone())
    };
    let backend = Arc::new(RocksBackend::new(rocks)?);
    let bounds = ChannelBounds { bytes_max: bytes(memory.channel_bytes), ..ChannelBounds::default() };
    let handle = cluster::start(graph, config(settings), storage, backend, registry, bounds)?;
    Ok(RunningJob { handle, _directory: directory })
}

/// A job that runs in this process, and the directory of its state, which goes with it.
pub struct RunningJob {
    handle: JobHandle,
    _directory: StateDirectory,
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

    /// Waits for the end.
    ///
    /// # Errors
    /// An internal error when the coordinator's thread panicked.
    pub fn wait(self) -> Result<JobSummary> {
        self.handle.wait()
    }
}

fn config(settings: &SettingsSpec) -> JobConfig {
    let defaults = CoordinatorConfig::default();
    let coordinator = CoordinatorConfig {
        checkpoint_interval: settings.checkpoint.interval,
        checkpoint_failures_max: settings
            .checkpoint
            .failures_tolerated
            .map_or(defaults.checkpoint_failures_max, |tolerated| tolerated.saturating_add(1)),
        restart: RestartStrategy::FixedDelay {
            attempts: settings.restart.attempts,
            delay: settings.restart.delay,
        },
        ..defaults
    };
    JobConfig {
        parallelism: settings.parallelism,
        max_parallelism: settings.max_parallelism,
        coordinator,
        checkpoints_retained: settings.checkpoint.retain,
        use_older_when_damaged: settings.checkpoint.on_damaged == OnDamaged::Older,
        ..JobConfig::new(&settings.name)
    }
}

/// Where the job's RocksDB keeps its files. They are worth nothing once the job is over.
struct StateDirectory(PathBuf);

impl StateDirectory {
    fn of(settings: &SettingsSpec) -> StateDirectory {
        let own = format!("{}-{}", settings.name, std::process::id());
        StateDirectory(match &settings.state_dir {
            Some(directory) => directory.join(own),
            None => std::env::temp_dir().join("thalweg-state").join(own),
        })
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %self.0.display(), %error, "cannot remove the state's directory");
        }
    }
}
