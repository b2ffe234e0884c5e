//! What a coordinator is told, what it wants done, and how a job ends. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::restart::RestartStrategy;
use super::{FromTask, TaskBlame, TaskId, ToTask};
use crate::checkpoint::{CheckpointId, FileHandle, SnapshotPart};
use crate::graph::Uid;
use crate::sink::Committable;
use crate::source::SplitState;
use crate::time::{Micros, SECOND};

/// How a coordinator behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorConfig {
    /// From the trigger of one checkpoint to that of the next. Microseconds.
    pub checkpoint_interval: Micros,
    /// A checkpoint that takes longer is aborted. Microseconds.
    pub checkpoint_timeout: Micros,
    /// So many failed checkpoints in a row fail the job.
    pub checkpoint_failures_max: u32,
    /// What happens when a task fails.
    pub restart: RestartStrategy,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        CoordinatorConfig {
            checkpoint_interval: 10 * SECOND,
            checkpoint_timeout: 600 * SECOND,
            checkpoint_failures_max: 10,
            restart: RestartStrategy::default(),
        }
    }
}

/// What is known of the job before its tasks are deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredJob {
    /// The checkpoint, if there is one.
    pub checkpoint: Option<CheckpointId>,
    /// What the sources' enumerators knew.
    pub enumerators: BTreeMap<Uid, Vec<u8>>,
    /// The splits that their readers held.
    pub splits: BTreeMap<Uid, Vec<SplitState>>,
    /// What is not known to be committed, by checkpoint.
    pub uncommitted: BTreeMap<CheckpointId, Vec<Committable>>,
    /// The shared files of the checkpoint, by content hash.
    pub known: Arc<BTreeMap<String, FileHandle>>,
    /// The number that the next checkpoint gets.
    pub next_number: u64,
}

/// What a published checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointContent {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// The parts of each operator and subtask.
    pub parts: BTreeMap<(Uid, u32), Vec<SnapshotPart>>,
    /// What the enumerators know.
    pub enumerators: BTreeMap<Uid, Vec<u8>>,
    /// The operators and subtasks that had reached the end of their data.
    pub finished: BTreeSet<(Uid, u32)>,
    /// Committables of earlier checkpoints that are not known to be committed.
    pub uncommitted: BTreeMap<CheckpointId, Vec<Committable>>,
}

/// What a coordinator hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The generation is claimed and the checkpoint to start from is read.
    Restored(RestoredJob),
    /// There is nothing to start from that may be used.
    RestoreFailed {
        /// Why.
        error: String,
        /// Whether another try can help.
        retryable: bool,
        /// Another generation has taken the job over.
        fenced: bool,
    },
    /// A task reports.
    Task(TaskId, FromTask),
    /// A source's discovery found something.
    Discovered(Uid, Vec<u8>),
    /// The checkpoint stands in the log.
    Published {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Its shared files, by content hash.
        known: Arc<BTreeMap<String, FileHandle>>,
    },
    /// It does not, and never will.
    PublishFailed {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        error: String,
        /// Another generation has taken the job over.
        fenced: bool,
    },
    /// The store did not say whether it does. Answered with [`Action::Settle`] after a while.
    PublishInDoubt {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        error: String,
    },
    /// The checkpoint's committables are committed, and the log says so.
    Committed(CheckpointId),
    /// They are not, and no retry is left.
    CommitFailed {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        error: String,
        /// Another generation has taken the job over.
        fenced: bool,
    },
    /// The store is tidy, as far as could be.
    Tidied,
    /// Take a last checkpoint and leave.
    Stop,
    /// Leave at once.
    Abandon,
    /// Time has passed.
    Tick,
}

/// What a coordinator wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Read the newest checkpoint, once it is known whether one in doubt is published; answer with
    /// `Restored` or `RestoreFailed`.
    Restore,
    /// A file of this checkpoint is damaged: read an older one, if that is allowed.
    PassOver(CheckpointId, String),
    /// Start the tasks of an attempt, restored from what was read last.
    Deploy {
        /// Which attempt.
        attempt: u64,
    },
    /// Send to a task.
    ToTask(TaskId, ToTask),
    /// Write the manifest and the log entry; answer with `Published`, `PublishFailed` or
    /// `PublishInDoubt`.
    Publish(Box<CheckpointContent>),
    /// Find out about the log entry, or write it again; answer as to `Publish`.
    Settle(CheckpointId),
    /// Commit, then log it.
    Commit(CheckpointId, Vec<Committable>),
    /// No task runs any more, all is committed: delete what nobody needs; answer with `Tidied`.
    Tidy,
    /// The job is over.
    Finish(Outcome),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every source reached its end and the last checkpoint is committed.
    Completed,
    /// It was asked to stop; the last checkpoint is committed.
    Stopped,
    /// It was told to leave at once.
    Abandoned,
    /// It failed for good.
    Failed {
        /// The whole chain of causes.
        error: String,
        /// Whose it is.
        blame: TaskBlame,
    },
    /// Another generation has taken the job over.
    Fenced {
        /// What the store said.
        error: String,
    },
}

/// A task's place in the job: its chain and subtask, and what the coordinator must know of it.
#[derive(Clone, Debug)]
pub struct TaskRole {
    /// Names the task, with attempt 0.
    pub id: TaskId,
    /// The source at its head, if there is one.
    pub source: Option<Uid>,
    /// The operators in it.
    pub uids: Vec<Uid>,
}
