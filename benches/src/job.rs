//! Runs a job as a user's program would: embedded coordinator, RocksDB, checkpoints in a local
//! directory.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use thalweg_engine::checkpoint::ObjectStoreStorage;
use thalweg_engine::cluster::{JobConfig, JobHandle, Outcome, start};
use thalweg_engine::graph::Environment;
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::{RocksBackend, RocksConfig};
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

use crate::sample::Sample;
use crate::usage::Meter;

/// The uid of the source whose rows are the events.
pub const EVENTS: &str = "events";
/// Before a steady measurement: threads are up, caches are warm.
const WARM_UP: Duration = Duration::from_secs(2);
/// How often a running job is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a job is run with.
pub struct JobOptions {
    /// From checkpoint to checkpoint.
    pub interval: Duration,
    /// Bytes of RocksDB's block cache; `None`: the backend's default.
    pub block_cache_bytes: Option<usize>,
    /// Bytes of RocksDB's memtables; `None`: the backend's default.
    pub write_buffer_bytes: Option<usize>,
    /// Bytes of a channel; `None`: the runtime's default.
    pub channel_bytes: Option<usize>,
}

impl Default for JobOptions {
    fn default() -> Self {
        JobOptions {
            interval: Duration::from_secs(10),
            block_cache_bytes: None,
            write_buffer_bytes: None,
            channel_bytes: None,
        }
    }
}

/// A job under way, and the directories that it works in.
pub struct RunningJob {
    handle: JobHandle,
    registry: Registry,
    _directory: TempDir,
}

impl RunningJob {
    /// Starts what `environment` holds.
    ///
    /// # Errors
    /// A user error for a graph with mistakes, an external one for a directory that cannot be made.
    pub fn start(environment: &Environment, options: &JobOptions) -> Result<RunningJob> {
        let directory = tempfile::tempdir()
            .map_err(|error| Error::external("cannot make a directory").caused_by(error))?;
        let storage =
            ObjectStoreStorage::directory(&directory.path().join("checkpoints"), Duration::from_secs(60))?;
        let mut rocks = RocksConfig::new(directory.path().join("state"));
        rocks.block_cache_bytes = options.block_cache_bytes.unwrap_or(rocks.block_cache_bytes);
        rocks.write_buffer_bytes = options.write_buffer_bytes.unwrap_or(rocks.write_buffer_bytes);
        let mut config = JobConfig::new("bench");
        config.coordinator.checkpoint_interval = options.interval.as_micros() as Micros;
        let mut bounds = ChannelBounds::default();
        bounds.bytes_max = options.channel_bytes.unwrap_or(bounds.bytes_max);
        let registry = Registry::default();
        let backend = Arc::new(RocksBackend::new(rocks)?);
        let storage = Arc::new(storage);
        let handle = start(environment.build()?, config, storage, backend, registry.clone(), bounds)?;
        Ok(RunningJob { handle, registry, _directory: directory })
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Registry {
        &self.registry
    }

    /// Rows that the sources have emitted whose uid is [`EVENTS`] or begins so.
    pub fn events(&self) -> u64 {
        rows_out(&self.registry, |uid| uid.starts_with(EVENTS))
    }

    /// Rows that the operator or source of this uid has emitted.
    pub fn rows_out(&self, uid: &str) -> u64 {
        rows_out(&self.registry, |of| of == uid)
    }

    /// Waits until `done`, looking every few milliseconds.
    ///
    /// # Errors
    /// An external error when the job ends before, with what it ended with.
    pub fn wait_until(self, mut done: impl FnMut(&RunningJob) -> bool) -> Result<RunningJob> {
        while !done(&self) {
            if self.handle.is_over() {
                let summary = self.handle.wait()?;
                return Err(Error::external(format!("the job ended too soon: {:?}", summary.outcome)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(self)
    }

    /// Leaves at once.
    ///
    /// # Errors
    /// An internal error when the coordinator panicked.
    pub fn abandon(self) -> Result<()> {
        self.handle.abandon();
        self.handle.wait().map(drop)
    }

    /// Waits for the end of a bounded job.
    ///
    /// # Errors
    /// An external error when it did not complete, or had to be restarted.
    pub fn finish(self) -> Result<()> {
        let summary = self.handle.wait()?;
        if summary.outcome != Outcome::Completed || summary.restarts > 0 {
            return Err(Error::external(format!("{:?}, {} restarts", summary.outcome, summary.restarts)));
        }
        Ok(())
    }
}

fn rows_out(registry: &Registry, of: impl Fn(&str) -> bool) -> u64 {
    let series = registry.series("rows_out_total");
    let chosen =
        series.iter().filter(|(labels, _)| labels.iter().any(|(label, value)| *label == "uid" && of(value)));
    chosen.map(|(_, rows)| *rows as u64).sum()
}

/// Measures an endless job for `window`, after a warm-up of two seconds and `warm_rows` events.
///
/// # Errors
/// What fails the job.
pub fn steady(
    environment: &Environment,
    options: &JobOptions,
    warm_rows: u64,
    window: Duration,
) -> Result<Sample> {
    let begun = Meter::start(0);
    let job = RunningJob::start(environment, options)?
        .wait_until(|job| begun.elapsed() >= WARM_UP && job.events() >= warm_rows)?;
    let meter = Meter::start(job.events());
    let job = job.wait_until(|_| meter.elapsed() >= window)?;
    let sample = meter.stop(job.events());
    let checkpoints = job.metrics().total("checkpoints_completed_total");
    job.abandon()?;
    Ok(sample.with("checkpoints", checkpoints as f64))
}

/// Measures a bounded job from its start to its end; `rows` are what it must have read.
///
/// # Errors
/// What fails the job; an external error when it read another number of rows.
pub fn whole(environment: &Environment, options: &JobOptions, rows: u64) -> Result<Sample> {
    let meter = Meter::start(0);
    let job = RunningJob::start(environment, options)?;
    let registry = job.metrics().clone();
    job.finish()?;
    let sample = meter.stop(rows_out(&registry, |uid| uid.starts_with(EVENTS)));
    if sample.get("rows") as u64 != rows {
        return Err(Error::external(format!("{} rows were read, not {rows}", sample.get("rows"))));
    }
    Ok(sample.with("checkpoints", registry.total("checkpoints_completed_total") as f64))
}
