//! What every two-phase sink owes: nothing is visible before its commit; committing twice is
//! committing once; a committable needs nothing but itself, also in another process; the rows of
//! an aborted checkpoint ride with the next; what a crash left uncommitted is never seen; a fresh
//! start in another store, where generations count from 1 again, is not taken for a repetition.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use thalweg_engine::checkpoint::log::fresh_nonce;
use thalweg_engine::checkpoint::{Cancellation, CheckpointId, CheckpointStorage, SnapshotPart, SnapshotSite};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, SubtaskInfo, Waker};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::sink::Committable;
use thalweg_engine::state::{KvStore, RestoredState, StateBackend, StoreSite};
use thalweg_engine::time::Watermark;
use thalweg_engine::{Context, Error, Result};

use super::{broken, ensure};
use crate::sink::SinkParts;

/// A committable that is larger than this does not belong into a manifest.
const COMMITTABLE_BYTES_MAX: usize = 8 * 1024;

/// The rows that the suite writes: a non-null `Int64` column `n`, and a `Utf8View` column `s`.
pub fn suite_rows(numbers: Range<i64>) -> Result<RecordBatch> {
    let strings =
        numbers.clone().map(|n| (n % 7 != 0).then(|| format!("a string, \"{n}\", longer than a view")));
    let strings: ArrayRef = Arc::new(StringViewArray::from_iter(strings));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    Ok(RecordBatch::try_from_iter_with_nullable([("n", numbers, false), ("s", strings, true)])?)
}

/// The schema of [`suite_rows`].
///
/// # Errors
/// None in practice.
pub fn suite_schema() -> Result<SchemaRef> {
    Ok(suite_rows(0..0)?.schema())
}

/// The suite for one two-phase sink.
pub struct SinkSuite<'a> {
    /// Makes the sink's parts, as a new process would.
    pub make: &'a dyn Fn() -> SinkParts,
    /// The `n` of every row that the world can see, in any order.
    pub visible: &'a dyn Fn() -> Result<Vec<i64>>,
    /// Where checkpoints are.
    pub storage: Arc<dyn CheckpointStorage>,
    /// Where they are at a fresh start: another store.
    pub other_storage: Arc<dyn CheckpointStorage>,
}

impl SinkSuite<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<()> {
        let parts = (self.make)();
        ensure(parts.committer.is_some(), || "a two-phase sink has a committer".to_string())?;
        let outputs = parts.factory.outputs(&[EdgeSchema::new(suite_schema()?)])?;
        ensure(outputs.is_empty(), || "a sink has no outputs".to_string())?;

        let claim = fresh_nonce();
        let mut first = self.open(1, &claim, &self.storage)?;
        self.commits_once(&mut first).context(|| "commit".to_string())?;
        self.aborted_rides_with_the_next(&mut first).context(|| "abort".to_string())?;
        self.two_in_flight(&mut first).context(|| "two checkpoints in flight".to_string())?;
        self.crash_between_prepare_and_commit(first, &claim).context(|| "crash".to_string())?;
        self.fresh_start_in_another_store().context(|| "another store".to_string())
    }

    fn commits_once(&self, sink: &mut Instance) -> Result<()> {
        sink.write(0..10)?;
        sink.write(10..20_000)?;
        self.expect(0, "before the snapshot")?;
        let prepared = self.prepare(sink, 1)?;
        self.expect(0, "before the commit")?;
        ensure(!prepared.is_empty(), || "no committable for 20,000 rows".to_string())?;
        self.commit(&prepared)?;
        self.expect(20_000, "after the commit")?;
        self.commit(&prepared)?;
        self.expect(20_000, "after a second commit")?;
        sink.operator.checkpoint_completed(id(1))?;
        let empty = self.prepare(sink, 2)?;
        self.commit(&empty)?;
        sink.operator.checkpoint_completed(id(2))?;
        self.expect(20_000, "after an empty epoch")
    }

    fn aborted_rides_with_the_next(&self, sink: &mut Instance) -> Result<()> {
        sink.write(20_000..20_010)?;
        let _ = self.prepare(sink, 3)?;
        sink.operator.checkpoint_aborted(id(3))?;
        sink.write(20_010..20_020)?;
        // This one's tasks never run.
        drop(sink.operator.snapshot(id(4))?);
        sink.operator.checkpoint_aborted(id(4))?;
        sink.write(20_020..20_030)?;
        self.expect(20_000, "after two aborts")?;
        let prepared = self.prepare(sink, 5)?;
        self.commit(&prepared)?;
        sink.operator.checkpoint_completed(id(5))?;
        self.expect(20_030, "after the checkpoint behind two aborts")
    }

    fn two_in_flight(&self, sink: &mut Instance) -> Result<()> {
        sink.write(20_030..20_040)?;
        let first = self.prepare(sink, 6)?;
        sink.write(20_040..20_050)?;
        let second = self.prepare(sink, 7)?;
        sink.operator.checkpoint_completed(id(6))?;
        self.commit(&first)?;
        sink.operator.checkpoint_completed(id(7))?;
        self.commit(&second)?;
        self.expect(20_050, "after both")
    }

    fn crash_between_prepare_and_commit(&self, mut sink: Instance, claim: &str) -> Result<()> {
        sink.write(20_050..20_060)?;
        let prepared = self.prepare(&mut sink, 8)?;
        sink.write(20_060..20_070)?;
        let lost = self.prepare(&mut sink, 9)?;
        sink.write(20_070..20_080)?;
        drop(sink);
        // Checkpoint 8 is restored; 9 was never published, its rows and those behind come again.
        drop(lost);
        let mut restored = self.open(2, claim, &self.storage)?;
        restored.write(20_060..20_070)?;
        self.commit(&prepared)?;
        self.expect(20_060, "after the restored commit")?;
        let next = self.prepare(&mut restored, 10)?;
        self.commit(&prepared)?;
        self.commit(&next)?;
        restored.operator.checkpoint_completed(id(10))?;
        self.expect(20_070, "after the first checkpoint of the second attempt")?;
        restored.write(20_070..20_080)?;
        let last = self.prepare(&mut restored, 11)?;
        self.commit(&last)?;
        self.expect(20_080, "at the end of the second attempt")
    }

    /// Job, uid, generation, attempt, subtask, checkpoint: all are those of the first instance. Only
    /// the claim is another one.
    fn fresh_start_in_another_store(&self) -> Result<()> {
        let mut fresh = self.open(1, &fresh_nonce(), &self.other_storage)?;
        fresh.write(20_080..20_090)?;
        let prepared = self.prepare(&mut fresh, 1)?;
        self.commit_in(&prepared, &self.other_storage)?;
        self.expect(20_090, "at the end")
    }

    /// Rows `0..count` are visible, each once.
    fn expect(&self, count: i64, when: &str) -> Result<()> {
        let mut visible = (self.visible)()?;
        visible.sort_unstable();
        ensure(visible.iter().copied().eq(0..count), || {
            format!("{when}: {} rows are visible, of {count}, or not each once", visible.len())
        })
    }

    fn open(&self, attempt: u64, claim: &str, storage: &Arc<dyn CheckpointStorage>) -> Result<Instance> {
        let info = SubtaskInfo {
            job: "conformance".into(),
            uid: Uid::new("sink")?,
            subtask: 0,
            parallelism: 1,
            max_parallelism: 128,
            generation: 1,
            attempt,
            claim: claim.into(),
        };
        let backend: Arc<dyn StateBackend> = Arc::new(NoState);
        let mut operator = (self.make)().factory.create()?;
        let mut cx = OpenContext {
            info: &info,
            restored: &RestoredState::default(),
            backend: &backend,
            storage,
            metrics: &MetricGroup::default(),
            waker: &Waker::new(|| ()),
            now: 0,
            has_keyed_state: false,
        };
        operator.open(&mut cx)?;
        Ok(Instance { operator, uid: info.uid, storage: storage.clone() })
    }

    /// Snapshots, and runs the snapshot's tasks, as a published checkpoint does.
    fn prepare(&self, sink: &mut Instance, number: u64) -> Result<Vec<Committable>> {
        let snapshot = sink.operator.snapshot(id(number))?;
        let site = SnapshotSite {
            storage: Arc::clone(&sink.storage),
            job_path: "conformance".into(),
            checkpoint: id(number),
            uid: sink.uid.clone(),
            subtask: 0,
            known: Arc::default(),
            scratch: std::env::temp_dir(),
            cancelled: Cancellation::default(),
        };
        let mut committables = Vec::new();
        for part in snapshot.make(&site)? {
            if let SnapshotPart::Committable(committable) = part {
                let bytes = committable.payload.len();
                ensure(bytes <= COMMITTABLE_BYTES_MAX, || format!("a committable of {bytes} bytes"))?;
                ensure(committable.uid == sink.uid, || "a committable of another operator".to_string())?;
                committables.push(committable);
            }
        }
        Ok(committables)
    }

    /// Commits as another process would.
    fn commit(&self, committables: &[Committable]) -> Result<()> {
        self.commit_in(committables, &self.storage)
    }

    fn commit_in(&self, committables: &[Committable], storage: &Arc<dyn CheckpointStorage>) -> Result<()> {
        let committer = (self.make)().committer.ok_or_else(|| broken("no committer"))?;
        committer.commit(committables, storage.as_ref(), &|| false)
    }
}

fn id(number: u64) -> CheckpointId {
    CheckpointId { generation: 1, number }
}

struct Instance {
    operator: Box<dyn Operator>,
    uid: Uid,
    storage: Arc<dyn CheckpointStorage>,
}

impl Instance {
    fn write(&mut self, numbers: Range<i64>) -> Result<()> {
        let (mut outputs, mut wake_at) = (Vec::new(), None);
        let mut cx = OperatorContext::new(&mut outputs, &mut wake_at, Watermark::MIN, 0);
        let mut step = self.operator.process(0, Batch::new(suite_rows(numbers)?), &mut cx)?;
        while step == thalweg_engine::operator::Step::More {
            step = self.operator.resume(&mut cx)?;
        }
        ensure(outputs.is_empty(), || "a sink emits nothing".to_string())
    }
}

/// Sinks have no keyed state.
struct NoState;

impl StateBackend for NoState {
    fn kind(&self) -> &'static str {
        "none"
    }

    fn open(&self, _site: &StoreSite<'_>) -> Result<Box<dyn KvStore>> {
        Err(Error::internal("a sink asks for keyed state"))
    }

    fn scratch(&self, _unique: &str) -> Result<PathBuf> {
        Err(Error::internal("a sink asks for a state directory"))
    }
}

/// A store for sinks that never use it.
pub struct NoStorage;

impl CheckpointStorage for NoStorage {
    fn put(&self, _path: &str, _data: bytes::Bytes) -> Result<()> {
        Err(refused())
    }

    fn put_if_absent(
        &self,
        _path: &str,
        _data: bytes::Bytes,
    ) -> Result<thalweg_engine::checkpoint::PutOutcome> {
        Err(refused())
    }

    fn put_file(&self, _path: &str, _local: &std::path::Path, _cancelled: &Cancellation) -> Result<u64> {
        Err(refused())
    }

    fn get(&self, _path: &str) -> Result<Option<bytes::Bytes>> {
        Err(refused())
    }

    fn get_range(&self, _path: &str, _range: Range<u64>) -> Result<Option<bytes::Bytes>> {
        Err(refused())
    }

    fn get_file(&self, _path: &str, _local: &std::path::Path) -> Result<Option<u64>> {
        Err(refused())
    }

    fn list(&self, _prefix: &str) -> Result<Vec<thalweg_engine::checkpoint::ObjectInfo>> {
        Err(refused())
    }

    fn delete(&self, _path: &str) -> Result<()> {
        Err(refused())
    }
}

fn refused() -> Error {
    broken("this sink was not expected to use the checkpoint storage")
}
