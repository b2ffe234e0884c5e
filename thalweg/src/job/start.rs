//! Starts a loaded job: what its file says becomes the settings of a [`Job`].

use thalweg_engine::Result;
use thalweg_engine::checkpoint::AllowedChanges;
use thalweg_engine::metrics::Registry;

use super::LoadedJob;
use super::spec::{OnDamaged, SettingsSpec};
use crate::run::{Job, RunningJob};

/// Starts a job in this process; it goes on from its store's last checkpoint, if there is one.
///
/// # Errors
/// A user error when the store's URL or the graph is wrong; an external one when the store or the
/// state's directory cannot be used.
pub fn start(job: LoadedJob, registry: Registry) -> Result<RunningJob> {
    let LoadedJob { spec, graph, memory, changes, .. } = job;
    settings(&spec.settings, changes).metrics(registry).start_planned(graph, &memory)
}

/// The job that a file's settings describe.
pub(super) fn settings(spec: &SettingsSpec, changes: AllowedChanges) -> Job {
    let job = Job::new(&spec.name)
        .parallelism(spec.parallelism)
        .memory(spec.memory_bytes)
        .checkpoints(spec.checkpoint.store.value.reveal().reveal())
        .checkpoint_every(spec.checkpoint.interval)
        .restart(spec.restart.clone())
        .configure(|config| {
            config.max_parallelism = spec.max_parallelism;
            config.changes = changes;
            config.checkpoints_retained = spec.checkpoint.retain;
            config.use_older_when_damaged = spec.checkpoint.on_damaged == OnDamaged::Older;
            config.coordinator.checkpoint_failures_max =
                spec.checkpoint.failures_tolerated.map(|tolerated| tolerated.saturating_add(1));
        });
    match &spec.state_dir {
        Some(directory) => job.state_directory(directory.reveal()),
        None => job,
    }
}
