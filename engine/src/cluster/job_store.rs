//! A job's checkpoints in the store, as the driver uses them: claim, read, publish, commit,
//! collect. Nothing else is needed to find a job again (H1). Blocks; called on background threads.
//! What to do is decided in `checkpoint`; this file only puts those decisions in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::decision::{CheckpointContent, RestoredJob};
use super::{JobConfig, StartedFrom, outlook};
use crate::checkpoint::log::{JobLog, LogView, Writer};
use crate::checkpoint::{
    AllowedChanges, CarryOver, CheckpointId, CheckpointStorage, Collector, Fate, FileHandle, JobLayout,
    Manifest, RestorePolicy, Sweep, carry_over, select,
};
use crate::graph::{Graph, Uid};
use crate::time::Micros;
use crate::{Blame, Error, ErrorKind, Result};

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
    /// Which it was; `None` at a fresh start.
    pub started_from: Option<StartedFrom>,
}

/// A start without a checkpoint.
fn afresh(view: &LogView) -> RestoredCheckpoint {
    let job = RestoredJob { next_number: view.next_number(), ..RestoredJob::default() };
    RestoredCheckpoint { job, manifest: None, started_from: None }
}

/// One job's directory in the store.
pub(super) struct JobStore {
    storage: Arc<dyn CheckpointStorage>,
    layout: JobLayout,
    config: JobConfig,
    graph: Arc<Graph>,
    fingerprint: u64,
    policy: Mutex<RestorePolicy>,
    /// What a task said of the last checkpoint that it found damaged.
    damage: Mutex<Option<String>>,
    log: Mutex<Option<JobLog>>,
    collector: Mutex<Collector>,
    /// The manifest of the checkpoint whose publication is in doubt.
    in_doubt: Mutex<Option<Manifest>>,
    claimed_at: Mutex<Micros>,
    /// What lower generations left is deleted.
    is_swept: Mutex<bool>,
}

impl JobStore {
    pub fn new(
        storage: Arc<dyn CheckpointStorage>,
        config: &JobConfig,
        graph: Arc<Graph>,
    ) -> Result<JobStore> {
        Ok(JobStore {
            storage,
            layout: JobLayout::new(&config.name)?,
            config: config.clone(),
            fingerprint: graph.fingerprint(),
            graph,
            policy: Mutex::new(RestorePolicy {
                allow_older: config.use_older_when_damaged,
                ..RestorePolicy::default()
            }),
            damage: Mutex::default(),
            log: Mutex::new(None),
            collector: Mutex::default(),
            in_doubt: Mutex::default(),
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

    /// Claims the next generation under a nonce that no claim has had; it is `now`. A job that does not
    /// fit its last checkpoint claims nothing: another run of it goes on undisturbed.
    pub fn claim(&self, now: Micros, nonce: String) -> Result<Writer> {
        match outlook(self.storage.as_ref(), &self.config, &self.graph) {
            Ok(Some(carry_over)) => carry_over.check()?,
            Err(error) if error.blame() == Blame::User => return Err(error),
            // What cannot be read now is read again, and judged, when the job is claimed.
            Ok(None) | Err(_) => {}
        }
        let log = JobLog::claim(self.storage.clone(), self.layout.clone(), nonce)?;
        let claim = log.writer().clone();
        *self.log.lock() = Some(log);
        *self.claimed_at.lock() = now;
        Ok(claim)
    }

    fn with_log<T>(&self, act: impl FnOnce(&mut JobLog) -> Result<T>) -> Result<T> {
        let mut log = self.log.lock();
        act(log
            .as_mut()
            .ok_or_else(|| Error::internal(format!("job {} is not claimed", self.config.name)))?)
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
            return Ok(afresh(&view));
        };
        for warning in &selected.warnings {
            tracing::warn!(job = self.config.name, "{warning}");
        }
        let carry_over = self.carry_over(&selected.manifest, view.generation());
        carry_over.check()?;
        self.tell(&carry_over);
        self.hold_published(&view)?;
        if carry_over.starts_over {
            return Ok(afresh(&view));
        }
        self.collector.lock().build_on(selected.manifest.checkpoint);
        let restored = self.restored(&view, selected.manifest.taken_over(&carry_over));
        let CarryOver { checkpoint, is_finished, .. } = carry_over;
        Ok(RestoredCheckpoint { started_from: Some(StartedFrom { checkpoint, is_finished }), ..restored })
    }

    /// What the job takes over of a checkpoint. Starting over is for those of earlier runs.
    fn carry_over(&self, manifest: &Manifest, generation: u64) -> CarryOver {
        let JobConfig { changes, max_parallelism, .. } = &self.config;
        let start_over = changes.start_over && manifest.checkpoint.generation < generation;
        let allowed = AllowedChanges { start_over, ..changes.clone() };
        carry_over(&manifest.held(), &self.graph.states(), *max_parallelism, &allowed)
    }

    /// Says what becomes of the state that is not simply kept.
    fn tell(&self, carry_over: &CarryOver) {
        let (job, summary) = (&self.config.name, carry_over.summary());
        match carry_over.starts_over {
            true => tracing::warn!(job, "starts over, as asked for; passes over {summary}"),
            false => tracing::info!(job, "goes on from {summary}"),
        }
        for row in &carry_over.rows {
            let (uid, outcome) = (&row.uid, row.outcome());
            match &row.fate {
                Fate::Kept { from } if from == uid => {}
                Fate::Kept { .. } | Fate::New => tracing::info!(job, %uid, "{outcome}"),
                Fate::Gone { .. } | Fate::Changed { .. } => tracing::warn!(job, %uid, "{outcome}"),
            }
        }
    }

    /// What the log names must not be collected before it is retired.
    fn hold_published(&self, view: &LogView) -> Result<()> {
        for &checkpoint in view.published() {
            match Manifest::read(self.storage.as_ref(), &self.layout, checkpoint) {
                Ok(manifest) => self.collector.lock().retain(checkpoint, manifest.names(&self.layout)),
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                // What it names is not known, so its files stay until the log lets it go.
                Err(error) => {
                    tracing::warn!(job = self.config.name, %error, "a published checkpoint cannot be read")
                }
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
        RestoredCheckpoint { job, manifest: Some(Arc::new(manifest)), started_from: None }
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
        let JobConfig { name, max_parallelism, .. } = &self.config;
        let mut manifest = Manifest::new(name, content.checkpoint, self.fingerprint, *max_parallelism);
        for node in &self.graph.nodes {
            if let Some(parallelism) = parallelism.get(&node.uid) {
                manifest.add_operator(&node.uid, *parallelism, node.identity.clone());
            }
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
            tracing::warn!(job = self.config.name, %error, "cannot collect old checkpoints; tried again after the next one");
        }
        Ok(())
    }

    /// The job is over and every task gone: deletes what no retained checkpoint names. It is `now`.
    pub fn tidy(&self, now: Micros) {
        for _ in 0..TIDY_TRIES {
            match self.collect().and_then(|()| self.sweep(now, true)) {
                Ok(()) => return,
                Err(error) => tracing::warn!(job = self.config.name, %error, "cannot leave the store tidy"),
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
            let retirable =
                self.collector.lock().retirable(log.view(), self.config.checkpoints_retained.max(1) as usize);
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
        let sweep = Sweep::new(generation, claimed_at, now, self.config.orphan_grace, job_over);
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
        tracing::info!(job = self.config.name, count, "deleted what nobody names");
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
