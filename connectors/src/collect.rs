//! A sink whose rows can be looked at in the same process: for tests of jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use thalweg_engine::checkpoint::{CheckpointId, CheckpointStorage, SnapshotPart};
use thalweg_engine::graph::Uid;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema, Mode, Record, RecordReader};
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use crate::epochs::Unconfirmed;
use crate::format::{EncodedRows, Encoder, JsonEncoder};
use crate::position;
use crate::sink::{Sink, SinkParts};

#[derive(Debug, Default)]
struct Shelf {
    /// Rows that count, in the order in which they came to count.
    rows: Vec<RecordBatch>,
    /// Sealed rows that nobody has committed, by the name that their committable holds.
    staged: BTreeMap<String, Vec<RecordBatch>>,
    committed: BTreeSet<String>,
}

/// What a [`CollectSink`] has collected. Clones share it; it outlives the job, its restarts and
/// its crashes, as a database would.
#[derive(Clone, Debug, Default)]
pub struct Collected(Arc<Mutex<Shelf>>);

impl Collected {
    /// Nothing yet.
    pub fn new() -> Collected {
        Collected::default()
    }

    /// A sink whose rows count at once: after a restore, rows since the checkpoint come twice.
    pub fn sink(&self) -> CollectSink {
        CollectSink { shelf: self.clone(), exactly_once: false }
    }

    /// A sink whose rows count when their checkpoint has committed: each exactly once.
    pub fn exactly_once_sink(&self) -> CollectSink {
        CollectSink { shelf: self.clone(), exactly_once: true }
    }

    /// The batches that count, in the order in which they came to count.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.0.lock().rows.clone()
    }

    /// How many rows count.
    pub fn row_count(&self) -> usize {
        self.0.lock().rows.iter().map(RecordBatch::num_rows).sum()
    }

    /// The rows that count as records, in the order in which they came to count.
    ///
    /// # Errors
    /// A user error when the rows are not such records.
    pub fn records<T: Record>(&self) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for batch in self.batches() {
            records.extend(RecordReader::<T>::new(&batch)?.rows().map(T::from_row));
        }
        Ok(records)
    }

    /// The rows that count as JSON objects, sorted: two runs with the same multiset of rows have
    /// the same lines.
    ///
    /// # Errors
    /// A user error when a column's type has no JSON form.
    pub fn sorted_lines(&self) -> Result<Vec<String>> {
        let mut rows = EncodedRows::new();
        for batch in self.batches() {
            JsonEncoder::new().encode(&batch, &mut rows)?;
        }
        let mut lines: Vec<_> = rows.iter().map(|row| String::from_utf8_lossy(row).into_owned()).collect();
        lines.sort();
        Ok(lines)
    }
}

/// Collects rows of any mode for [`Collected`], which makes it.
#[derive(Clone, Debug)]
pub struct CollectSink {
    shelf: Collected,
    exactly_once: bool,
}

impl Sink for CollectSink {
    fn into_parts(self) -> SinkParts {
        let committer =
            self.exactly_once.then(|| Arc::new(CollectCommitter(self.shelf.clone())) as Arc<dyn Committer>);
        SinkParts { factory: Arc::new(self), committer }
    }
}

impl OperatorFactory for CollectSink {
    fn name(&self) -> String {
        "collect".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Collect {
            sink: self.clone(),
            instance: None,
            epoch: Vec::new(),
            sealed: 0,
            unconfirmed: Unconfirmed::default(),
        }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        single_input(inputs)?;
        Ok(Vec::new())
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        self.exactly_once.then(|| StateIdentity::of("collect"))
    }
}

struct Collect {
    sink: CollectSink,
    /// The operator, and a name that no other instance has or had.
    instance: Option<(Uid, String)>,
    epoch: Vec<RecordBatch>,
    sealed: u64,
    unconfirmed: Unconfirmed<String>,
}

impl Operator for Collect {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.instance = Some((cx.info.uid.clone(), cx.info.instance_name()));
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        let rows = batch.compacted()?.into_records();
        if self.sink.exactly_once {
            self.epoch.push(rows);
        } else {
            self.sink.shelf.0.lock().rows.push(rows);
        }
        Ok(Step::Done)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let mut snapshot = OperatorSnapshot::default();
        let Some((uid, instance)) = self.instance.as_ref().filter(|_| self.sink.exactly_once) else {
            return Ok(snapshot);
        };
        if !self.epoch.is_empty() {
            let name = format!("{instance}-{}", self.sealed);
            self.sealed += 1;
            self.sink.shelf.0.lock().staged.insert(name.clone(), std::mem::take(&mut self.epoch));
            self.unconfirmed.seal(checkpoint, name);
        }
        let names = self.unconfirmed.items();
        if !names.is_empty() {
            let committable =
                Committable { uid: uid.clone(), payload: position::encode(&names)?, objects: Vec::new() };
            snapshot.parts.push(SnapshotPart::Committable(committable));
        }
        Ok(snapshot)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.unconfirmed.completed(checkpoint);
        Ok(())
    }
}

struct CollectCommitter(Collected);

impl Committer for CollectCommitter {
    fn commit(
        &self,
        committables: &[Committable],
        _storage: &dyn CheckpointStorage,
        _cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut shelf = self.0.0.lock();
        for committable in committables {
            let names: Vec<String> = position::decode(&committable.payload, "the committable")?;
            for name in names {
                if shelf.committed.contains(&name) {
                    continue;
                }
                let Some(batches) = shelf.staged.remove(&name) else {
                    return Err(Error::internal(format!("nothing is staged under {name:?}")));
                };
                shelf.rows.extend(batches);
                shelf.committed.insert(name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sink::{NoStorage, SinkSuite, suite_rows};
    use crate::sink::StreamSink;
    use crate::vec::VecSource;
    use arrow::array::cast::AsArray;
    use arrow::datatypes::Int64Type;
    use thalweg_engine::checkpoint::MemoryStorage;
    use thalweg_engine::cluster::{JobConfig, Outcome, start};
    use thalweg_engine::graph::Environment;
    use thalweg_engine::metrics::Registry;
    use thalweg_engine::runtime::ChannelBounds;
    use thalweg_engine::state::MapBackend;

    #[test]
    fn rows_count_exactly_once() {
        let collected = Collected::new();
        let numbers = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        let suite = SinkSuite {
            make: &|| collected.exactly_once_sink().into_parts(),
            visible: &|| Ok(collected.batches().iter().flat_map(numbers).collect()),
            storage: Arc::new(NoStorage),
            other_storage: Arc::new(NoStorage),
        };
        suite.check().unwrap();
        assert_eq!(collected.row_count(), 20_090);
    }

    #[test]
    fn p5_a_job_that_starts_again_in_a_fresh_store_is_not_taken_for_a_repetition() {
        let collected = Collected::new();
        for run in 1..=2 {
            let env = Environment::new();
            let rows = suite_rows(0..100).unwrap();
            env.source(VecSource::new(rows.schema(), [rows])).sink(collected.exactly_once_sink());
            let job = start(
                env.build().unwrap(),
                JobConfig::new("again"),
                Arc::new(MemoryStorage::new()),
                Arc::new(MapBackend::default()),
                Registry::default(),
                ChannelBounds::default(),
            );
            assert_eq!(job.unwrap().wait().unwrap().outcome, Outcome::Completed);
            assert_eq!(collected.row_count(), run * 100, "run {run}");
        }
    }

    #[test]
    fn a_committable_that_names_nothing_is_an_error() {
        let committer = CollectCommitter(Collected::new());
        let payload = position::encode(&vec!["gone"]).unwrap();
        let committable = Committable { uid: Uid::new("s").unwrap(), payload, objects: Vec::new() };
        assert!(committer.commit(&[committable], &NoStorage, &|| false).is_err());
    }
}
