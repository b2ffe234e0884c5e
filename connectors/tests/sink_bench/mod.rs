//! A sink's instance, driven by hand: rows in, barriers, snapshots, the fate of checkpoints.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, cast::AsArray};
use thalweg_connectors::format::{EncodedRows, Encoder};
use thalweg_connectors::sink::Sink;
use thalweg_engine::Result;
use thalweg_engine::checkpoint::{Cancellation, CheckpointId, CheckpointStorage, SnapshotPart, SnapshotSite};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorSnapshot, Step, SubtaskInfo, Waker,
};
use thalweg_engine::record::Batch;
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::state::{MapBackend, RestoredState, StateBackend};
use thalweg_engine::time::Watermark;

/// Longest wait for a sink.
const BOUND: Duration = Duration::from_secs(90);

/// The column `value` as it is.
pub struct Values;

impl Encoder for Values {
    fn encode(&mut self, records: &RecordBatch, rows: &mut EncodedRows) -> Result<()> {
        for value in records.column(0).as_string_view() {
            rows.buffer().extend_from_slice(value.unwrap_or_default().as_bytes());
            rows.end_row();
        }
        Ok(())
    }
}

/// `value` is `v-<number>`, `key` is `number % 20`.
pub fn batch(numbers: Range<i64>) -> Batch {
    let values: ArrayRef = Arc::new(StringViewArray::from_iter_values(values(numbers.clone())));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(|number| number % 20)));
    Batch::new(RecordBatch::try_from_iter([("value", values), ("key", keys)]).unwrap())
}

/// The values of [`batch`].
pub fn values(numbers: Range<i64>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("v-{number:06}"))
}

/// One instance and its surroundings.
pub struct Bench {
    pub operator: Box<dyn Operator>,
    pub committer: Option<Arc<dyn Committer>>,
    pub storage: Arc<dyn CheckpointStorage>,
    pub registry: Registry,
    checkpoints: u64,
    _scratch: tempfile::TempDir,
}

/// What a barrier left to do.
pub struct Pending {
    pub id: CheckpointId,
    snapshot: OperatorSnapshot,
    storage: Arc<dyn CheckpointStorage>,
}

impl Pending {
    /// Runs the snapshot's tasks, on whatever thread.
    pub fn finish(self) -> Result<Vec<Committable>> {
        let scratch = tempfile::tempdir().unwrap();
        let site = SnapshotSite {
            storage: self.storage,
            job_path: "job".into(),
            checkpoint: self.id,
            uid: Uid::new("sink").unwrap(),
            subtask: 0,
            known: Arc::default(),
            scratch: scratch.path().into(),
            cancelled: Cancellation::default(),
        };
        let parts = self.snapshot.make(&site)?.into_iter();
        let committables = parts.filter_map(|part| match part {
            SnapshotPart::Committable(committable) => Some(committable),
            _ => None,
        });
        Ok(committables.collect())
    }
}

impl Bench {
    /// An instance of an attempt, after `checkpoints`.
    pub fn open(
        sink: impl Sink,
        attempt: u64,
        checkpoints: u64,
        storage: Arc<dyn CheckpointStorage>,
    ) -> Bench {
        let info = SubtaskInfo {
            job: "test".into(),
            uid: Uid::new("sink").unwrap(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: 128,
            generation: 1,
            attempt,
            claim: "test".into(),
        };
        let registry = Registry::default();
        let scratch = tempfile::tempdir().unwrap();
        let parts = sink.into_parts();
        let mut operator = parts.factory.create().unwrap();
        let mut cx = OpenContext {
            info: &info,
            restored: &RestoredState::default(),
            backend: &(Arc::new(MapBackend::new(scratch.path())) as Arc<dyn StateBackend>),
            storage: &storage,
            metrics: &registry.group(vec![]),
            waker: &Waker::new(|| {}),
            now: 0,
            has_keyed_state: false,
        };
        operator.open(&mut cx).unwrap();
        Bench { operator, committer: parts.committer, storage, registry, checkpoints, _scratch: scratch }
    }

    pub fn call(
        &mut self,
        call: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Step>,
    ) -> Result<Step> {
        let (mut outputs, mut wake_at) = (Vec::new(), None);
        let mut cx = OperatorContext::new(&mut outputs, &mut wake_at, Watermark::MIN, 0);
        call(&mut *self.operator, &mut cx)
    }

    /// Gives rows to the sink; `More`: it could not take all.
    pub fn offer(&mut self, numbers: Range<i64>) -> Result<Step> {
        self.call(|operator, cx| operator.process(0, batch(numbers), cx))
    }

    pub fn resume(&mut self) -> Result<Step> {
        self.call(|operator, cx| operator.resume(cx))
    }

    /// Writes all rows.
    pub fn write(&mut self, numbers: Range<i64>) -> Result<()> {
        let start = Instant::now();
        let mut step = self.offer(numbers)?;
        while step == Step::More {
            assert!(start.elapsed() < BOUND, "the sink takes nothing");
            step = self.resume()?;
        }
        Ok(())
    }

    pub fn barrier(&mut self) -> Result<Pending> {
        self.checkpoints += 1;
        let id = CheckpointId { generation: 1, number: self.checkpoints };
        let start = Instant::now();
        let snapshot = self.operator.snapshot(id)?;
        assert!(start.elapsed().as_millis() < 500, "the barrier waited for {:?}", start.elapsed());
        Ok(Pending { id, snapshot, storage: self.storage.clone() })
    }
}
