//! What a coordinator is told, what it wants done, and how a job ends. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::restart::RestartStrategy;
use super::{Cause, FromTask, TaskBlame, TaskId, ToTask};
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
    /// So many failed checkpoints in a row end the job; `None`: no number does.
    pub checkpoint_failures_max: Option<u32>,
    /// What happens when a task fails.
    pub restart: RestartStrategy,
    /// Spreads the restarts of jobs that fail together: another number for another job.
    pub restart_spread: u64,
    /// How long a job that has never run waits for its store. One that has run waits without end.
    /// Microseconds.
    pub store_wait_at_start: Micros,
    /// A task that does not return for so long after it was cancelled is stuck, and with it the
    /// process. Microseconds.
    pub cancel_timeout: Micros,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        CoordinatorConfig {
            checkpoint_interval: 10 * SECOND,
            checkpoint_timeout: 600 * SECOND,
            checkpoint_failures_max: None,
            restart: RestartStrategy::default(),
            restart_spread: 0,
            store_wait_at_start: 60 * SECOND,
            cancel_timeout: 180 * SECOND,
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
        cause: Cause,
        /// Another generation has taken the job over.
        fenced: bool,
        /// The job is not the one that the checkpoint is of, and nobody allowed that.
        refused: bool,
    },
    /// A task reports.
    Task(TaskId, FromTask),
    /// A source's discovery looked: all that it knows.
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
    /// They are not, as far as is known.
    CommitFailed {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        cause: Cause,
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
    /// The attempt is over and another will follow: forget what its tasks showed of themselves.
    Retire {
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
    /// Nothing was run: the job does not fit its last checkpoint.
    Refused {
        /// What does not fit, and what to do.
        error: String,
    },
    /// Tasks that were cancelled did not return in time. What they still do cannot be ended but
    /// with the process; they can publish and commit nothing.
    Stuck {
        /// Which tasks, what they are doing, and why they were cancelled.
        error: String,
        /// The tasks.
        tasks: Vec<TaskId>,
    },
}

/// What a job waits for before it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedEnd {
    /// In words.
    pub what: String,
    /// The tasks that it waits for, if it is they.
    pub tasks: Vec<TaskId>,
    /// When it waits no longer, and what is done then; `None`: it waits as long as it takes.
    pub until: Option<(Micros, &'static str)>,
    /// Whether somebody has asked it to end; else its tasks make room for another attempt.
    pub is_asked: bool,
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
