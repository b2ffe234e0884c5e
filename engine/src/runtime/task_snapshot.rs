//! A task's part of a checkpoint: frozen on the task's thread, written and uploaded on a helper's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Chain;
use super::task_environment::{Head, TaskEnvironment};
use crate::checkpoint::{
    CheckpointId, FileHandle, RecordingStorage, SnapshotPart, SnapshotSite, SnapshotTask,
};
use crate::cluster::{FromTask, TaskId};
use crate::graph::Uid;
use crate::metrics::Counter;
use crate::source::SplitState;
use crate::time::Micros;
use crate::{Context, Result};

/// What the operators of a task, and its source, froze at a barrier.
pub(super) struct TaskSnapshot {
    checkpoint: CheckpointId,
    /// Of each operator the parts that are there, and the work that makes more of them.
    operators: Vec<(Uid, Vec<SnapshotPart>, Vec<SnapshotTask>)>,
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
            snapshot.operators.push((head.uid.clone(), vec![SnapshotPart::Splits(splits)], Vec::new()));
        }
        for link in chain.links_mut() {
            let frozen = link.operator.snapshot(checkpoint).context(|| format!("operator {}", link.uid))?;
            snapshot.operators.push((link.uid.clone(), frozen.parts, frozen.tasks));
        }
        Ok(snapshot)
    }

    /// Does the operators' work and says what came of it. `finished`: the task was at the end of
    /// its data.
    pub(super) fn upload(
        self,
        environment: &TaskEnvironment,
        id: &TaskId,
        known: &Arc<BTreeMap<String, FileHandle>>,
        finished: bool,
        written_bytes: &Counter,
    ) -> FromTask {
        let TaskSnapshot { checkpoint, operators, released } = self;
        let storage = Arc::new(RecordingStorage::new(environment.storage.clone()));
        let mut parts = Vec::with_capacity(operators.len());
        let mut made: Result<()> = Ok(());
        for (uid, ready, tasks) in operators {
            let mut all = ready;
            made = tasks.into_iter().enumerate().try_for_each(|(index, task)| {
                let unique = format!("{checkpoint}-{}-{uid}-{}-{index}", id.attempt, id.subtask);
                let site = SnapshotSite {
                    storage: storage.clone(),
                    job_path: environment.job_path.to_string(),
                    checkpoint,
                    uid: uid.clone(),
                    subtask: id.subtask,
                    known: known.clone(),
                    scratch: environment.backend.scratch(&unique)?,
                };
                let made = task(&site).context(|| format!("operator {uid}"));
                // The directory is the task's own; what is left in it is of no use to anybody.
                let _ = std::fs::remove_dir_all(&site.scratch);
                all.extend(made?);
                Ok(())
            });
            if made.is_err() {
                break;
            }
            parts.push((uid, all));
        }
        written_bytes.add(storage.written_bytes());
        let written = storage.written();
        match made {
            Ok(()) => FromTask::Acknowledged { checkpoint, parts, released, finished, written },
            Err(error) => {
                tracing::warn!(task = %id, %checkpoint, %error, "snapshot failed");
                FromTask::Declined { checkpoint, reason: error.to_string(), written }
            }
        }
    }
}
