//! Sources: an enumerator in the coordinator decides which task reads which split; readers in
//! tasks read them. As Flink's FLIP-27, with one difference: a split that has an owner moves only
//! as "released with its offset at barrier n", then "taken after n completes".
//!
//! The enumerator is pure: facts in, assignments out. Whoever looks at the world for it is its
//! [`Discovery`], which runs on a thread of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::checkpoint::CheckpointId;
use crate::metrics::MetricGroup;
use crate::operator::{SubtaskInfo, Waker};
use crate::record::{Batch, EdgeSchema};
use crate::state::StateIdentity;
use crate::time::Micros;

/// The stable name of a split, such as `east/flights/3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitId(pub Arc<str>);

impl std::fmt::Display for SplitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A split and how far it has been read, in the source's own encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// Which split.
    pub id: SplitId,
    /// Where reading goes on; the source's own encoding, with its version in front.
    #[serde(with = "crate::checkpoint::base64_text")]
    pub position: Vec<u8>,
}

/// A source: a node of the graph that makes an enumerator, a discovery and readers.
pub trait Source: Send + Sync {
    /// What the source is, for `explain`, logs and metrics.
    fn name(&self) -> String;

    /// What its edge promises (the time column is set by the job's `watermarks`).
    ///
    /// # Errors
    /// A user error when the schema cannot be told.
    fn output(&self) -> Result<EdgeSchema>;

    /// The schemas of its side outputs, from index 1: dead letters.
    ///
    /// # Errors
    /// A user error when a schema cannot be told.
    fn side_outputs(&self) -> Result<Vec<EdgeSchema>> {
        Ok(Vec::new())
    }

    /// What the positions in a checkpoint are positions in: the topic, the path. A checkpoint of
    /// another identity is refused. Not what may change freely: addresses, credentials, formats,
    /// rates, where reading ends.
    fn identity(&self) -> StateIdentity;

    /// Makes the enumerator: fresh when `restored` is `None`.
    ///
    /// # Errors
    /// When the restored bytes cannot be read.
    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>>;

    /// Makes what looks at the world for the enumerator; `None` for a source whose splits are
    /// known from its configuration.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    fn discovery(&self) -> Result<Option<Box<dyn Discovery>>> {
        Ok(None)
    }

    /// Makes the reader of one subtask.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    fn reader(&self, cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>>;

    /// What distinguishes this source from another configuration, for the graph's fingerprint.
    fn describe(&self) -> String {
        self.name()
    }
}

/// What an enumerator hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnumeratorEvent {
    /// The tasks of an attempt are deployed: nobody owns a split. `splits` are those that the
    /// restored checkpoint's readers held, each once; empty at a fresh start.
    Started {
        /// Number of readers.
        parallelism: u32,
        /// What the readers held in the checkpoint that is restored.
        splits: Vec<SplitState>,
    },
    /// Everything that the discovery knows, in the source's own encoding. Each attempt's enumerator
    /// hears what is known by then right after [`EnumeratorEvent::Started`], and what is news later.
    Discovered(Vec<u8>),
    /// A reader has read a bounded split to its end.
    Finished {
        /// Which reader.
        subtask: u32,
        /// The split and its final position.
        split: SplitState,
    },
    /// Splits that were asked back, with their positions as of `checkpoint`'s barrier, and that
    /// checkpoint is complete: they may be given to another reader.
    Released {
        /// The checkpoint that holds the positions.
        checkpoint: CheckpointId,
        /// The splits.
        splits: Vec<SplitState>,
    },
    /// A message of one of the source's readers, in the source's own encoding.
    FromReader {
        /// Which reader.
        subtask: u32,
        /// The message.
        message: Vec<u8>,
    },
}

/// What an enumerator wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnumeratorAction {
    /// Give these splits, which nobody owns, to a reader.
    Assign {
        /// Which reader.
        subtask: u32,
        /// The splits.
        splits: Vec<SplitState>,
    },
    /// Ask a reader to give splits back at the next barrier.
    Release {
        /// Which reader.
        subtask: u32,
        /// The splits.
        splits: Vec<SplitId>,
    },
    /// No reader will ever get another split: a reader that has read its own is at its end.
    NoMoreSplits,
    /// A message to one reader, in the source's own encoding.
    ToReader {
        /// Which reader.
        subtask: u32,
        /// The message.
        message: Vec<u8>,
    },
}

/// Decides which reader reads which split. Pure: no clock, no I/O.
pub trait Enumerator: Send {
    /// Takes an event in.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<EnumeratorAction>>;

    /// What the enumerator knows, for the checkpoint: taken when a checkpoint is triggered,
    /// before its barriers start. Splits that readers hold are not in it (readers snapshot them);
    /// splits that nobody holds, and those finished or removed, are.
    fn snapshot(&self) -> Vec<u8>;
}

/// Looks at the world for the enumerators of a source. It belongs to no attempt, and does not
/// remember whom it told what: a look answers with the whole of what is known, and the coordinator
/// keeps it, tells it to the enumerator of each attempt, and passes over what is no news.
pub trait Discovery: Send {
    /// Looks once; blocks for a bounded time. Everything that is known now, in the source's own
    /// encoding, however often it was said before; the same knowledge has the same bytes. `None`:
    /// nothing is known, or nothing more than before.
    ///
    /// # Errors
    /// Counted and logged; the next look follows after [`Discovery::interval`].
    fn look(&mut self) -> Result<Option<Vec<u8>>>;

    /// How long to wait between two looks. Microseconds.
    fn interval(&self) -> Micros;
}

/// What a reader may reach for when it is made.
pub struct ReaderOpenContext<'a> {
    /// Who this instance is.
    pub info: &'a SubtaskInfo,
    /// Wakes this task: for a reader whose input arrives on another thread.
    pub waker: &'a Waker,
    /// Counters and gauges labelled with job, uid, subtask and attempt.
    pub metrics: &'a MetricGroup,
}

/// What a reader answers to a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderStatus {
    /// More may be there at once: poll again.
    Ready,
    /// Every split was asked, and none has anything now. Poll again when the waker was used, or at
    /// this time, by [`ReaderContext::now`].
    Waiting(Option<Micros>),
    /// The reader takes nothing before this time, whatever is there: a limit of its own.
    Paused(Micros),
    /// `no_more_splits` was said and every split is read to its end.
    Finished,
}

/// Whether a split takes part in the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitActivity {
    /// It does; the watermark waits for it.
    Active,
    /// It does not: a cluster that is away with `on_outage: advance`.
    Idle,
    /// As active, but never idle by time: a cluster that is away with `on_outage: hold`.
    Held,
}

/// Reads splits in one task. All calls come from the task's thread.
pub trait SourceReader: Send {
    /// Takes splits, from their positions.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn add_splits(&mut self, splits: Vec<SplitState>, cx: &mut ReaderContext<'_>) -> Result<()>;

    /// Gives splits back: stops reading them and returns where. Called at a barrier.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn release_splits(&mut self, splits: &[SplitId], cx: &mut ReaderContext<'_>) -> Result<Vec<SplitState>>;

    /// No split follows.
    fn no_more_splits(&mut self);

    /// A message of the enumerator.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn message(&mut self, message: &[u8], cx: &mut ReaderContext<'_>) -> Result<()> {
        let _ = (message, cx);
        Ok(())
    }

    /// Reads a bounded amount (about one target batch) without blocking, and emits it.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus>;

    /// The positions after what was emitted so far, of every split that the reader holds and has
    /// not reported finished.
    ///
    /// # Errors
    /// The checkpoint is declined with it.
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<SplitState>>;

    /// The checkpoint was published.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }
}

/// Rows of one split within an emitted batch: `rows` consecutive rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitRun {
    /// Whose rows.
    pub split: SplitId,
    /// How many.
    pub rows: usize,
}

/// One effect of a reader.
#[derive(Clone, Debug)]
pub enum ReaderEffect {
    /// Rows, and which split each run of them is of; the runs add up to the batch's rows.
    Batch(Batch, Vec<SplitRun>),
    /// A batch for a side output (dead letters): 1 and up.
    Side(u16, Batch),
    /// These splits were asked, and what they had is emitted: one that had nothing is silent, and
    /// by [`WatermarkStrategy::idle_after`](crate::time::WatermarkStrategy) idle after a while. For a
    /// reader that is [`Ready`](ReaderStatus::Ready) all the time; [`Waiting`](ReaderStatus::Waiting)
    /// says so of all splits.
    Asked(Vec<SplitId>),
    /// How a split takes part in the watermark.
    Activity(SplitId, SplitActivity),
    /// The whole reader's watermark waits (`true`) though it may hold no split: a cluster whose
    /// splits are not known yet, with `on_outage: hold`.
    Hold(bool),
    /// A bounded split is read to its end.
    SplitFinished(SplitState),
    /// A message to the enumerator.
    Message(Vec<u8>),
}

/// What a reader may do.
pub struct ReaderContext<'a> {
    effects: &'a mut Vec<ReaderEffect>,
    now: Micros,
}

impl<'a> ReaderContext<'a> {
    /// A context that gathers effects.
    pub fn new(effects: &'a mut Vec<ReaderEffect>, now: Micros) -> Self {
        ReaderContext { effects, now }
    }

    /// Emits rows of one split.
    pub fn emit(&mut self, split: &SplitId, batch: Batch) {
        let run = SplitRun { split: split.clone(), rows: batch.row_count() };
        self.emit_runs(batch, vec![run]);
    }

    /// Emits rows of several splits, one run after the other.
    pub fn emit_runs(&mut self, batch: Batch, runs: Vec<SplitRun>) {
        self.effects.push(ReaderEffect::Batch(batch, runs));
    }

    /// Does any other effect.
    pub fn effect(&mut self, effect: ReaderEffect) {
        self.effects.push(effect);
    }

    /// The time now, in microseconds since some moment: for durations. It runs evenly, and does not
    /// jump when the system's clock is set; it says nothing about the time of day.
    pub fn now(&self) -> Micros {
        self.now
    }
}
