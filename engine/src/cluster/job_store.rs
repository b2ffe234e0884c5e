//! A job's checkpoints in the store, as the driver uses them: claim, read, publish, commit,
//! collect. Blocks; called on background threads. What to do is decided in `checkpoint`; this
//! file only puts those decisions in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::JobConfig;
use super::decision::{CheckpointContent, RestoredJob};
use crate::checkpoint::collect::Collector;
use crate::checkpoint::log::{JobLog, LogView, fresh_nonce};
use crate::checkpoint::{CheckpointId, CheckpointStorage, FileHandle, JobLayout, Manifest};
use crate::checkpoint::{RestorePolicy, select};
use crate::graph::Uid;
use crate::{Error, Result};

/// What a restore read.
pub(super) struct RestoredCheckpoint {
    /// For the coordinator.
    pub job: RestoredJob,
    /// For the tasks; `None` at a fresh start.
    pub manifest: Option<Arc<Manifest>>,
}

/// One job's directory in the store.
pub(super) struct JobStore {
    storage: Arc<dyn CheckpointStorage>,
    layout: JobLayout,
    job: String,
    fingerprint: u64,
    max_parallelism: u32,
    retained: usize,
    policy: Mutex<RestorePolicy>,
    /// What a task said of the last checkpoint that it found damaged.
    damage: Mutex<Option<String>>,
    log: Mutex<Option<JobLog>>,
    collector: Mutex<Collector>,
}

impl JobStore {
    pub fn new(
        storage: Arc<dyn CheckpointStorage>,
        config: &JobConfig,
        fingerprint: u64,
    ) -> Result<JobStore> {
        Ok(JobStore {
            storage,
            layout: JobLayout::new(&config.name)?,
            job: config.name.clone(),
            fingerprint,
            max_parallelism: config.max_parallelism,
            retained: config.checkpoints_retained.max(1) as usize,
            policy: Mutex::new(RestorePolicy {
                allow_older: config.use_older_when_damaged,
                ..RestorePolicy::default()
            }),
            damage: Mutex::default(),
            log: Mutex::new(None),
            collector: Mutex::default(),
        })
    }

    pub fn job_path(&self) -> &str {
        self.layout.job_path()
    }

    pub fn is_fenced(&self) -> bool {
        self.log.lock().as_ref().is_some_and(JobLog::is_fenced)
    }

    /// Claims the next generation.
    pub fn claim(&self) -> Result<u64> {
        let log = JobLog::claim(self.storage.clone(), self.layout.clone(), fresh_nonce())?;
        let generation = log.generation();
        *self.log.lock() = Some(log);
        Ok(generation)
    }

    fn with_log<T>(&self, act: impl FnOnce(&mut JobLog) -> Result<T>) -> Result<T> {
        let mut log = self.log.lock();
        act(log.as_mut().ok_or_else(|| Error::internal(format!("job {} is not claimed", self.job)))?)
    }

    /// A task found a damaged file in this checkpoint: it is not read again. `why` names the file.
    pub fn mark_damaged(&self, checkpoint: CheckpointId, why: String) {
        self.policy.lock().damaged.insert(checkpoint);
        *self.damage.lock() = Some(why);
    }

    /// Reads the newest checkpoint that can be used.
    pub fn read_newest(&self) -> Result<RestoredCheckpoint> {
        let view = self.with_log(|log| Ok(log.view().clone()))?;
        let policy = self.policy.lock().clone();
        let selected = select(self.storage.as_ref(), &self.layout, &view, &policy);
        let selected = selected.map_err(|error| match self.damage.lock().clone() {
            Some(why) => error.context(why),
            None => error,
        })?;
        let Some(selected) = selected else {
            let job = RestoredJob { next_number: view.next_number(), ..RestoredJob::default() };
            return Ok(RestoredCheckpoint { job, manifest: None });
        };
        for warning in &selected.warnings {
            tracing::warn!(job = self.job, "{warning}");
        }
        self.hold_published(&view)?;
        Ok(self.restored(&view, selected.manifest))
    }

    /// What the log names must not be collected before it is retired.
    fn hold_published(&self, view: &LogView) -> Result<()> {
        for &checkpoint in view.published() {
            match Manifest::read(self.storage.as_ref(), &self.layout, checkpoint) {
                Ok(manifest) => self.collector.lock().retain(checkpoint, manifest.names(&self.layout)),
                Err(error) if error.is_retryable() => return Err(error),
                // Damaged: nothing that it may name is known to be unneeded, so nothing of it is deleted.
                Err(error) => tracing::warn!(job = self.job, %error, "a published checkpoint cannot be read"),
            }
        }
        Ok(())
    }

    fn restored(&self, view: &LogView, manifest: Manifest) -> RestoredCheckpoint {
        let mut job = RestoredJob {
            checkpoint: Some(manifest.checkpoint),
            next_number: view.next_number(),
            known: Arc::new(manifest.shared_files(&self.layout)),
            ..RestoredJob::default()
        };
        for uid in manifest.operators.keys() {
            if let Some(state) = manifest.enumerator(uid) {
                job.enumerators.insert(uid.clone(), state.to_vec());
                job.splits.insert(uid.clone(), manifest.splits(uid));
            }
        }
        if !view.is_committed(manifest.checkpoint) {
            job.uncommitted.insert(manifest.checkpoint, manifest.committables.clone());
        }
        RestoredCheckpoint { job, manifest: Some(Arc::new(manifest)) }
    }

    /// Writes the manifest, then the log entry; then retires what is too old. Returns the shared
    /// files that the next checkpoint may refer to.
    pub fn publish(
        &self,
        content: CheckpointContent,
        parallelism: BTreeMap<Uid, u32>,
    ) -> Result<Arc<BTreeMap<String, FileHandle>>> {
        let mut manifest =
            Manifest::new(&self.job, content.checkpoint, self.fingerprint, self.max_parallelism);
        for (uid, parallelism) in &parallelism {
            manifest.add_operator(uid, *parallelism);
        }
        manifest.committables = content.uncommitted.into_values().flatten().collect();
        for ((uid, subtask), parts) in content.parts {
            manifest.add_parts(&uid, subtask, parts);
        }
        for (uid, subtask) in &content.finished {
            manifest.add_finished(uid, *subtask);
        }
        for (uid, state) in content.enumerators {
            manifest.add_enumerator(&uid, state);
        }
        manifest.write(self.storage.as_ref(), &self.layout)?;
        self.with_log(|log| log.publish(content.checkpoint))?;
        let known = Arc::new(manifest.shared_files(&self.layout));
        self.collector.lock().retain(content.checkpoint, manifest.names(&self.layout));
        Ok(known)
    }

    /// Records that a checkpoint and those before it are committed, and collects what nobody
    /// needs any more.
    pub fn committed(&self, checkpoint: CheckpointId) -> Result<()> {
        self.with_log(|log| log.committed(checkpoint))?;
        if let Err(error) = self.collect() {
            tracing::warn!(job = self.job, %error, "cannot collect old checkpoints; tried again after the next one");
        }
        Ok(())
    }

    /// Retires what is too old and deletes what only that needed. A name whose deletion failed is
    /// tried again with the next checkpoint.
    fn collect(&self) -> Result<()> {
        let retired = self.with_log(|log| {
            let retired = log.view().retirable(self.retained);
            log.retire(&retired)?;
            Ok(retired)
        })?;
        let names = {
            let mut collector = self.collector.lock();
            retired.into_iter().for_each(|checkpoint| collector.retire(checkpoint));
            collector.collectable()
        };
        for name in names {
            self.storage.delete(&name)?;
            self.collector.lock().deleted(&name);
        }
        Ok(())
    }
}
