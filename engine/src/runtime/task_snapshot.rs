//! A task's part of a checkpoint: frozen on the task's thread, written to the disk on one helper's,
//! uploaded on another's. So nothing that was frozen waits behind somebody's network; and once the
//! checkpoint is aborted, nothing of it goes on travelling.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::task_environment::{Head, TaskEnvironment};
use super::{Chain, Pool};
use crate::checkpoint::{
    Cancellation, CheckpointId, FileHandle, RecordingStorage, SnapshotFlush, SnapshotPart, SnapshotSite,
    SnapshotTask,
};
use crate::cluster::{FromTask, TaskId};
use crate::graph::Uid;
use crate::metrics::Counter;
use crate::operator::OperatorSnapshot;
use crate::source::SplitState;
use crate::time::Micros;
use crate::{Blame, Context, Error, Result};

/// What one operator froze.
struct Frozen {
    uid: Uid,
    keeps_state: bool,
    snapshot: OperatorSnapshot,
}

/// What the operators of a task, and its source, froze at a barrier.
pub(super) struct TaskSnapshot {
    checkpoint: CheckpointId,
    operators: Vec<Frozen>,
    released: Vec<(Uid, SplitState)>,
}

impl TaskSnapshot {
    /// Freezes what head and chain know.
    ///
    /// # Errors
    /// The first operator's that cannot.
    pub(super) fn freeze(
        checkpoint: CheckpointId,
        head: &mut Head,
        chain: &mut Chain,
        now: Micros,
    ) -> Result<TaskSnapshot> {
        let mut snapshot = TaskSnapshot { checkpoint, operators: Vec::new(), released: Vec::new() };
        if let Head::Source(head) = head {
            let (splits, given_back) = head.snapshot(checkpoint, now)?;
            snapshot.released.extend(given_back.into_iter().map(|split| (head.uid.clone(), split)));
            let parts = vec![SnapshotPart::Splits(splits)];
            let frozen = OperatorSnapshot { parts, ..OperatorSnapshot::default() };
            snapshot.operators.push(Frozen { uid: head.uid.clone(), keeps_state: true, snapshot: frozen });
        }
        for link in chain.links_mut() {
            let frozen = link.operator.snapshot(checkpoint).context(|| format!("operator {}", link.uid))?;
            let (uid, keeps_state) = (link.uid.clone(), link.keeps_state);
            snapshot.operators.push(Frozen { uid, keeps_state, snapshot: frozen });
        }
        Ok(snapshot)
    }

    /// Has the operators' work done in the background, and the coordinator told what came of it.
    pub(super) fn upload(self, uploader: Uploader) {
        let TaskSnapshot { checkpoint, operators, released } = self;
        let storage = uploader.environment.storage.clone();
        let storage = Arc::new(RecordingStorage::new(storage, uploader.cancelled.clone()));
        let mut making = Making {
            uploader,
            checkpoint,
            storage,
            parts: Vec::new(),
            stateless: Vec::new(),
            released,
            sites: 0,
        };
        let (mut flushes, mut tasks) = (Vec::new(), Vec::new());
        for (operator, Frozen { uid, keeps_state, snapshot }) in operators.into_iter().enumerate() {
            making.parts.push((uid, snapshot.parts));
            if !keeps_state {
                making.stateless.push(operator);
            }
            flushes.extend(snapshot.flushes.into_iter().map(|flush| (operator, flush)));
            tasks.extend(snapshot.tasks.into_iter().map(|task| (operator, task)));
        }
        if flushes.is_empty() {
            making.spawn(Pool::Network, "upload", move |making| making.upload(Vec::new(), tasks));
        } else {
            making.spawn(Pool::Disk, "flush", move |making| making.flush(flushes, tasks));
        }
    }
}

/// Whether the next checkpoint may come about where this one has not: what the world does passes,
/// a mistake of the job or of the engine stays, and no checkpoint would ever complete.
pub(super) fn can_pass(error: &Error) -> bool {
    error.blame() == Blame::External
}

/// Who uploads a snapshot.
pub(super) struct Uploader {
    pub(super) environment: TaskEnvironment,
    pub(super) id: TaskId,
    /// The shared files that the last complete checkpoint names.
    pub(super) known: Arc<BTreeMap<String, FileHandle>>,
    /// Whether the task was at the end of its data.
    pub(super) finished: bool,
    pub(super) written_bytes: Counter,
    /// Told when the checkpoint is aborted.
    pub(super) cancelled: Cancellation,
}

/// A place to work at, whose local directory goes with it: what is left there is of no use to anybody.
struct Workplace(SnapshotSite);

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.scratch);
    }
}

/// A snapshot on its way.
struct Making {
    uploader: Uploader,
    checkpoint: CheckpointId,
    storage: Arc<RecordingStorage>,
    /// What is there, by operator.
    parts: Vec<(Uid, Vec<SnapshotPart>)>,
    /// The operators that say that they keep no state.
    stateless: Vec<usize>,
    released: Vec<(Uid, SplitState)>,
    /// How many workplaces there were.
    sites: usize,
}

impl Making {
    fn spawn(self, pool: Pool, what: &str, work: impl FnOnce(Making) + Send + 'static) {
        let (checkpoint, storage, id) = (self.checkpoint, self.storage.clone(), self.uploader.id.clone());
        let TaskEnvironment { background, reports, .. } = self.uploader.environment.clone();
        let name = format!("{what} {checkpoint} {id}");
        let on_panic = move |reason| {
            reports(id, FromTask::Declined { checkpoint, reason, written: storage.written() });
        };
        background.spawn(pool, &name, Box::new(move || work(self)), Box::new(on_panic));
    }

    /// Does what needs the disk alone, then has the rest done.
    fn flush(mut self, flushes: Vec<(usize, SnapshotFlush)>, tasks: Vec<(usize, SnapshotTask)>) {
        let mut flushed = Vec::with_capacity(flushes.len());
        for (operator, flush) in flushes {
            let done = self.workplace(operator).and_then(|place| Ok((flush(&place.0)?, place)));
            match done {
                Ok((task, place)) => flushed.push((operator, place, task)),
                Err(error) => return self.decline(operator, error),
            }
        }
        self.spawn(Pool::Network, "upload", move |making| making.upload(flushed, tasks));
    }

    /// Does what may wait for the world, and says that all is done.
    fn upload(mut self, flushed: Vec<(usize, Workplace, SnapshotTask)>, tasks: Vec<(usize, SnapshotTask)>) {
        for (operator, place, task) in flushed {
            match task(&place.0) {
                Ok(parts) => self.parts[operator].1.extend(parts),
                Err(error) => return self.decline(operator, error),
            }
        }
        for (operator, task) in tasks {
            match self.workplace(operator).and_then(|place| task(&place.0)) {
                Ok(parts) => self.parts[operator].1.extend(parts),
                Err(error) => return self.decline(operator, error),
            }
        }
        if let Some(&operator) = self.stateless.iter().find(|&&operator| !self.parts[operator].1.is_empty()) {
            let what = "it adds state to a checkpoint, and does not say what its state is";
            return self.decline(operator, Error::internal(what));
        }
        let Making { uploader, checkpoint, storage, parts, released, .. } = self;
        uploader.written_bytes.add(storage.written_bytes());
        let (finished, written) = (uploader.finished, storage.written());
        let done = FromTask::Acknowledged { checkpoint, parts, released, finished, written };
        (uploader.environment.reports)(uploader.id, done);
    }

    fn decline(self, operator: usize, error: Error) {
        let Making { uploader, checkpoint, storage, parts, .. } = self;
        let error = error.context(format!("operator {}", parts[operator].0));
        let reason = error.to_string();
        tracing::debug!(task = %uploader.id, %checkpoint, reason, "a snapshot came to nothing");
        uploader.written_bytes.add(storage.written_bytes());
        let declined = FromTask::Declined { checkpoint, reason, written: storage.written() };
        (uploader.environment.reports)(uploader.id.clone(), declined);
        if !can_pass(&error) {
            (uploader.environment.reports)(uploader.id, FromTask::failed(&error));
        }
    }

    fn workplace(&mut self, operator: usize) -> Result<Workplace> {
        let Uploader { environment, id, known, cancelled, .. } = &self.uploader;
        let (checkpoint, uid) = (self.checkpoint, &self.parts[operator].0);
        let unique = format!("{checkpoint}-{}-{uid}-{}-{}", id.attempt, id.subtask, self.sites);
        self.sites += 1;
        Ok(Workplace(SnapshotSite {
            storage: self.storage.clone(),
            job_path: environment.job_path.to_string(),
            checkpoint,
            uid: uid.clone(),
            subtask: id.subtask,
            known: known.clone(),
            scratch: environment.backend.scratch(&unique)?,
            cancelled: cancelled.clone(),
        }))
    }
}
