//! What a task is made of and stands in.

use std::sync::Arc;

use super::chain::Chain;
use super::source_head::SourceHead;
use super::{Background, Clock, EdgeWriter, InputGate, TaskProbe};
use crate::Result;
use crate::checkpoint::CheckpointStorage;
use crate::cluster::{FromTask, TaskId};
use crate::metrics::{Counter, Gauge, MetricGroup};
use crate::state::StateBackend;

/// Where a task's messages to the coordinator go.
pub type Reports = Arc<dyn Fn(TaskId, FromTask) + Send + Sync>;

/// What feeds a task.
pub enum Head {
    /// A reader.
    Source(Box<SourceHead>),
    /// Channels.
    Gate(InputGate),
}

/// What a task needs of its surroundings.
#[derive(Clone)]
pub struct TaskEnvironment {
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Where snapshots are written and uploaded.
    pub background: Arc<dyn Background>,
    /// Where its messages go.
    pub reports: Reports,
    /// Where checkpoints are.
    pub storage: Arc<dyn CheckpointStorage>,
    /// Where state lives.
    pub backend: Arc<dyn StateBackend>,
    /// The job's directory in the store.
    pub job_path: Arc<str>,
}

/// How the task makes its chain when it first runs: restoring state may take long, and belongs on
/// the task's own thread.
pub type Opener = Box<dyn FnOnce() -> Result<(Head, Chain, Vec<EdgeWriter>)> + Send>;

/// What a task shows of itself.
pub struct TaskMetrics {
    /// The current watermark, in microseconds.
    pub watermark: Gauge,
    /// How long the last checkpoint made it stand still, in microseconds.
    pub pause: Gauge,
    /// Bytes that its snapshots have written, those of checkpoints that came to nothing too.
    pub written: Counter,
    /// What it is doing.
    pub probe: Arc<TaskProbe>,
}

impl TaskMetrics {
    /// In a task's group.
    pub fn new(group: &MetricGroup) -> TaskMetrics {
        TaskMetrics {
            watermark: group.gauge("watermark_us", "The task's watermark, microseconds since the epoch."),
            pause: group.gauge("checkpoint_pause_us", "How long the last barrier stopped the task."),
            written: group
                .counter("checkpoint_written_bytes_total", "Bytes written by the task's snapshots."),
            probe: Arc::default(),
        }
    }
}
