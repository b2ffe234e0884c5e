//! A job's checkpoints in the store, as the driver uses them: claim, read, publish, commit,
//! collect. Blocks; called on background threads. What to do is decided in `checkpoint`; this
//! file only puts those decisions in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::JobConfig;
use super::decision::{CheckpointContent, RestoredJob};
use crate::checkpoint::log::{JobLog, LogView, fresh_nonce};
use crate::checkpoint::{
    CheckpointId, CheckpointStorage, Collector, FileHandle, JobLayout, Manifest, RestorePolicy, Sweep, select,
};
use crate::graph::Uid;
use crate::time::Micros;
use crate::{Error, Result};

/// Deletions that fail one after the other before a round of them is given up: the store is away.
const DELETE_FAILURES_IN_ROW_MAX: usize = 3;
/// How often a job that is over tries to leave its store tidy.
const TIDY_TRIES: usize = 8;

/// What became of a checkpoint that was to be entered into the log.
pub(super) enum Publication {
    /// It stands there; these are its shared files, by content hash.
    Done(Arc<BTreeMap<String, FileHandle>>),
    /// It does not, and never will.
    Failed(Error),
    /// Nobody knows yet; [`JobStore::settle`] finds out.
    InDoubt(Error),
}

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
    /// The manifest of the checkpoint whose publication is in doubt.
    in_doubt: Mutex<Option<Manifest>>,
    orphan_grace: Micros,
    claimed_at: Mutex<Micros>,
    /// What lower generations left is deleted.
    is_swept: Mutex<bool>,
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
            in_doubt: Mutex::default(),
            orphan_grace: config.orphan_grace,
            claimed_at: Mutex::new(Micros::MAX),
            is_swept: Mutex::new(false),
        })
    }

    pub fn job_path(&self) -> &str {
        self.layout.job_path()
    }

    pub fn is_fenced(&self) -> bool {
        self.log.lock().as_ref().is_some_and(JobLog::is_fenced)
    }

    /// Claims the next generation; it is `now`.
    pub fn claim(&self, now: Micros) -> Result<u64> {
        let log = JobLog::claim(self.storage.clone(), self.layout.clone(), fresh_nonce())?;
        let generation = log.generation();
        *self.log.lock() = Some(log);
        *self.claimed_at.lock() = now;
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
        if let Some(Publication::InDoubt(error)) = self.settle() {
            return Err(error);
        }
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
        self.collector.lock().build_on(selected.manifest.checkpoint);
        Ok(self.restored(&view, selected.manifest))
    }

    /// What the log names must not be collected before it is retired.
    fn hold_published(&self, view: &LogView) -> Result<()> {
        for &checkpoint in view.published() {
            match Manifest::read(self.storage.as_ref(), &self.layout, checkpoint) {
                Ok(manifest) => self.collector.lock().retain(checkpoint, manifest.names(&self.layout)),
                Err(error) if error.is_retryable() => return Err(error),
                // Damaged: what it names is not known, so its files stay until the log lets it go.
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

    /// A task wrote these objects for a checkpoint.
    pub fn wrote(&self, checkpoint: CheckpointId, names: Vec<String>) {
        self.collector.lock().wrote(checkpoint, names);
    }

    /// Writes the manifest, then the log entry.
    pub fn publish(&self, content: CheckpointContent, parallelism: BTreeMap<Uid, u32>) -> Publication {
        let manifest = self.manifest(content, parallelism);
        let path = self.layout.manifest(manifest.checkpoint);
        self.collector.lock().wrote(manifest.checkpoint, [path]);
        match manifest.write(self.storage.as_ref(), &self.layout) {
            Ok(()) => self.enter(manifest),
            Err(error) => Publication::Failed(error),
        }
    }

    /// Finds out about the publication in doubt: reads its slot back, and writes the entry again
    /// where it is not there. `None`: there is no doubt.
    pub fn settle(&self) -> Option<Publication> {
        let manifest = self.in_doubt.lock().take()?;
        Some(self.enter(manifest))
    }

    fn manifest(&self, content: CheckpointContent, parallelism: BTreeMap<Uid, u32>) -> Manifest {
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
        manifest
    }

    /// Enters a checkpoint whose manifest is written into the log.
    fn enter(&self, manifest: Manifest) -> Publication {
        let entered = self.with_log(|log| {
            log.publish(manifest.checkpoint)?;
            self.collector.lock().publish(manifest.checkpoint, manifest.names(&self.layout));
            Ok(())
        });
        match entered {
            Ok(()) => Publication::Done(Arc::new(manifest.shared_files(&self.layout))),
            Err(error) if error.is_retryable() => {
                *self.in_doubt.lock() = Some(manifest);
                Publication::InDoubt(error)
            }
            Err(error) => Publication::Failed(error),
        }
    }

    /// Records that a checkpoint and those before it are committed, and collects what nobody
    /// needs any more. It is `now`.
    pub fn committed(&self, checkpoint: CheckpointId, now: Micros) -> Result<()> {
        self.with_log(|log| log.committed(checkpoint))?;
        if let Err(error) = self.collect().and_then(|()| self.sweep(now, false)) {
            tracing::warn!(job = self.job, %error, "cannot collect old checkpoints; tried again after the next one");
        }
        Ok(())
    }

    /// The job is over and every task gone: deletes what no retained checkpoint names. It is `now`.
    pub fn tidy(&self, now: Micros) {
        for _ in 0..TIDY_TRIES {
            match self.collect().and_then(|()| self.sweep(now, true)) {
                Ok(()) => return,
                Err(error) => tracing::warn!(job = self.job, %error, "cannot leave the store tidy"),
            }
            if self.is_fenced() {
                return;
            }
        }
    }

    /// Retires what is too old and deletes what only that needed, or what nothing came of. A name
    /// whose deletion failed is tried again with the next checkpoint.
    fn collect(&self) -> Result<()> {
        self.with_log(|log| {
            let retirable = self.collector.lock().retirable(log.view(), self.retained);
            let retired = log.retire(&retirable);
            // What the log says counts; an earlier entry in doubt may stand in it after all.
            self.collector.lock().follow(log.view());
            retired
        })?;
        let names = self.collector.lock().collectable();
        self.delete_all(names, |name| self.collector.lock().deleted(name))
    }

    /// Deletes what lower generations left behind, once, and at the job's end what its own did.
    fn sweep(&self, now: Micros, job_over: bool) -> Result<()> {
        let claimed_at = *self.claimed_at.lock();
        let generation = self.with_log(|log| Ok(log.generation()))?;
        let sweep = Sweep::new(generation, claimed_at, now, self.orphan_grace, job_over);
        if !sweep.is_due() || (*self.is_swept.lock() && !job_over) {
            return Ok(());
        }
        let mut listed = self.storage.list(&self.layout.shared_directory())?;
        listed.extend(self.storage.list(&self.layout.checkpoints_directory())?);
        let orphans =
            self.with_log(|log| Ok(self.collector.lock().orphans(&self.layout, log.view(), sweep, &listed)))?;
        let Some(orphans) = orphans else { return Ok(()) };
        let count = orphans.len();
        self.delete_all(orphans, |_| {})?;
        *self.is_swept.lock() |= sweep.grace_over;
        tracing::info!(job = self.job, count, "deleted what nobody names");
        Ok(())
    }

    /// Deletes every one that can be; the error is the last one's that could not.
    fn delete_all(&self, names: Vec<String>, deleted: impl Fn(&str)) -> Result<()> {
        let mut last_error = None;
        let mut failures_in_row = 0;
        for name in names {
            match self.storage.delete(&name) {
                Ok(()) => {
                    failures_in_row = 0;
                    deleted(&name);
                }
                Err(error) => {
                    failures_in_row += 1;
                    last_error = Some(error);
                    if failures_in_row == DELETE_FAILURES_IN_ROW_MAX {
                        break;
                    }
                }
            }
        }
        last_error.map_or(Ok(()), Err)
    }
}
