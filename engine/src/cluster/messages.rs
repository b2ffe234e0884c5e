//! What the coordinator and the tasks say to each other. Plain data: today handed over in one
//! process, on a cluster the same over the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Barrier, CheckpointId, FileHandle, SnapshotPart};
use crate::error::{Blame, Error, ErrorKind};
use crate::graph::{ChainId, Uid};
use crate::source::{SplitId, SplitState};

/// Names one task of one deployment. Displays as `<head uid>[<subtask>]#<attempt>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// Which deployment.
    pub attempt: u64,
    /// Which chain.
    pub chain: ChainId,
    /// Which instance.
    pub subtask: u32,
    /// The uid of the chain's head.
    pub head: Uid,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]#{}", self.head, self.subtask, self.attempt)
    }
}

/// From the coordinator to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTask {
    /// A checkpoint begins. A source sends the barrier, before it does what it is told later;
    /// others learn which shared files exist.
    Trigger {
        /// The barrier that a source sends.
        barrier: Barrier,
        /// The shared files of the checkpoint that it builds on, by content hash.
        known: Arc<BTreeMap<String, FileHandle>>,
    },
    /// The checkpoint is published; the barrier of the next one says so too.
    Completed(CheckpointId),
    /// The checkpoint will never be published; the barrier of the next one says so too.
    Aborted(CheckpointId),
    /// Read these splits; an empty list says that the first assignment is made.
    AssignSplits(Vec<SplitState>),
    /// Give these splits back at the next barrier.
    ReleaseSplits(Vec<SplitId>),
    /// No split follows.
    NoMoreSplits,
    /// A message of the source's enumerator.
    SourceMessage(Vec<u8>),
    /// The last checkpoint is committed: send the end.
    Finish,
    /// Stop at once.
    Cancel,
}

/// From a task to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromTask {
    /// State is restored, the task runs.
    Running,
    /// Its part of a checkpoint is in the store.
    Acknowledged {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// The parts, by operator.
        parts: Vec<(Uid, Vec<SnapshotPart>)>,
        /// Splits given back at the barrier.
        released: Vec<(Uid, SplitState)>,
        /// Whether the task had reached the end of its data.
        finished: bool,
        /// The objects that it wrote into the store for this checkpoint.
        written: Vec<String>,
    },
    /// Its part of a checkpoint could not be made.
    Declined {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
        /// The objects that it wrote into the store all the same, or tried to.
        written: Vec<String>,
    },
    /// The task has seen the end of all its data.
    DataEnded,
    /// A bounded split is read to its end.
    SplitFinished {
        /// The source.
        uid: Uid,
        /// The split at its end.
        split: SplitState,
    },
    /// A message of a reader to its enumerator.
    SourceMessage {
        /// The source.
        uid: Uid,
        /// The message.
        message: Vec<u8>,
    },
    /// The task failed; `Stopped` follows.
    Failed(Cause),
    /// The task has sent the end; `Stopped` follows.
    Ended,
    /// The task's thread is gone.
    Stopped,
}

/// [`Blame`], for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskBlame {
    /// The job's author.
    User,
    /// The world.
    External,
    /// The engine.
    Internal,
}

/// [`Error`], for the wire: what is decided by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The whole chain of causes.
    pub error: String,
    /// Whose it is.
    pub blame: TaskBlame,
    /// What it is about.
    pub kind: ErrorKind,
    /// Whether another try can help.
    pub retryable: bool,
}

impl Cause {
    /// With who failed in front.
    #[must_use]
    pub fn of(self, who: impl std::fmt::Display) -> Cause {
        Cause { error: format!("{who}: {}", self.error), ..self }
    }
}

impl From<&Error> for Cause {
    fn from(error: &Error) -> Cause {
        let blame = match error.blame() {
            Blame::User => TaskBlame::User,
            Blame::External => TaskBlame::External,
            Blame::Internal => TaskBlame::Internal,
        };
        Cause { error: error.to_string(), blame, kind: error.kind(), retryable: error.is_retryable() }
    }
}

impl FromTask {
    /// The report of a failed task.
    pub fn failed(error: &Error) -> FromTask {
        FromTask::Failed(Cause::from(error))
    }
}
