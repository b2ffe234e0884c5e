//! The plain sink: what came before a barrier is acknowledged before the snapshot is done; a full
//! queue loses nothing; a refusal fails the task.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, cast::AsArray};
use bytes::Bytes;
use thalweg_connectors::format::{EncodedRows, Encoder};
use thalweg_connectors::kafka::KafkaSink;
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_engine::checkpoint::{CheckpointId, CheckpointStorage, ObjectInfo, PutOutcome, SnapshotSite};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, SubtaskInfo, Waker,
};
use thalweg_engine::record::Batch;
use thalweg_engine::state::{KvStore, RestoredState, StateBackend, StoreSite};
use thalweg_engine::time::Watermark;
use thalweg_engine::{Error, Result};
use thalweg_testkit::{KafkaCluster, ProxyMode};

use crate::driver::BOUND;
use crate::world::topic;

/// A place without state or storage: the sink needs neither.
struct Nowhere;

fn nothing<T>() -> Result<T> {
    Err(Error::internal("there is nothing here"))
}

impl StateBackend for Nowhere {
    fn kind(&self) -> &'static str {
        "nowhere"
    }

    fn open(&self, _: &StoreSite<'_>) -> Result<Box<dyn KvStore>> {
        nothing()
    }

    fn scratch(&self, _: &str) -> Result<PathBuf> {
        nothing()
    }
}

impl CheckpointStorage for Nowhere {
    fn put(&self, _: &str, _: Bytes) -> Result<()> {
        nothing()
    }

    fn put_if_absent(&self, _: &str, _: Bytes) -> Result<PutOutcome> {
        nothing()
    }

    fn put_file(&self, _: &str, _: &Path) -> Result<u64> {
        nothing()
    }

    fn get(&self, _: &str) -> Result<Option<Bytes>> {
        nothing()
    }

    fn get_range(&self, _: &str, _: Range<u64>) -> Result<Option<Bytes>> {
        nothing()
    }

    fn get_file(&self, _: &str, _: &Path) -> Result<Option<u64>> {
        nothing()
    }

    fn list(&self, _: &str) -> Result<Vec<ObjectInfo>> {
        nothing()
    }

    fn delete(&self, _: &str) -> Result<()> {
        nothing()
    }
}

/// The column `value` as it is.
struct Values;

impl Encoder for Values {
    fn encode(&mut self, records: &RecordBatch, rows: &mut EncodedRows) -> Result<()> {
        for value in records.column(0).as_string_view() {
            rows.buffer().extend_from_slice(value.unwrap_or_default().as_bytes());
            rows.end_row();
        }
        Ok(())
    }
}

struct Bench {
    operator: Box<dyn Operator>,
    registry: Registry,
    checkpoints: u64,
}

impl Bench {
    fn new(sink: &KafkaSink) -> Bench {
        let info = SubtaskInfo {
            job: "test".into(),
            uid: Uid::new("sink").unwrap(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: 128,
            generation: 1,
            attempt: 1,
        };
        let registry = Registry::default();
        let mut operator = sink.create().unwrap();
        operator
            .open(&mut OpenContext {
                info: &info,
                restored: &RestoredState::default(),
                backend: &(Arc::new(Nowhere) as Arc<dyn StateBackend>),
                storage: &(Arc::new(Nowhere) as Arc<dyn CheckpointStorage>),
                metrics: &registry.group(vec![]),
                waker: &Waker::new(|| {}),
                now: 0,
                has_keyed_state: false,
            })
            .unwrap();
        Bench { operator, registry, checkpoints: 0 }
    }

    fn call(
        &mut self,
        call: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Step>,
    ) -> Result<Step> {
        let (mut outputs, mut wake_at) = (Vec::new(), None);
        let mut cx = OperatorContext::new(&mut outputs, &mut wake_at, Watermark::MIN, 0);
        call(&mut *self.operator, &mut cx)
    }

    /// Writes all of a batch.
    fn write(&mut self, batch: Batch) -> Result<()> {
        let start = Instant::now();
        let mut step = self.call(|operator, cx| operator.process(0, batch, cx))?;
        while step == Step::More {
            assert!(start.elapsed() < BOUND);
            step = self.call(|operator, cx| operator.resume(cx))?;
        }
        Ok(())
    }

    fn barrier(&mut self) -> Result<OperatorSnapshot> {
        self.checkpoints += 1;
        self.operator.snapshot(CheckpointId { generation: 1, number: self.checkpoints })
    }
}

fn finish(snapshot: OperatorSnapshot) -> Result<()> {
    let site = SnapshotSite {
        storage: Arc::new(Nowhere),
        job_path: "job".into(),
        checkpoint: CheckpointId { generation: 1, number: 1 },
        uid: Uid::new("sink").unwrap(),
        subtask: 0,
        known: Arc::default(),
        scratch: PathBuf::new(),
    };
    for task in snapshot.tasks {
        assert!(task(&site)?.is_empty());
    }
    Ok(())
}

fn batch(numbers: Range<i64>) -> Batch {
    let values = StringViewArray::from_iter_values(numbers.clone().map(|number| format!("a value {number}")));
    let values: ArrayRef = Arc::new(values);
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(|number| number % 10)));
    Batch::new(RecordBatch::try_from_iter([("value", values), ("number", keys)]).unwrap())
}

fn sink(cluster: &KafkaCluster, topic: &str, settings: &[(&str, &str)]) -> KafkaSink {
    let mut address =
        Cluster::at(cluster.bootstrap()).with("broker.address.family", Setting::Plain("v4".into()));
    for (name, value) in settings {
        address = address.with(name, Setting::Plain(value.to_string()));
    }
    KafkaSink::new("west", address, topic, || Ok(Box::new(Values))).key(["number"])
}

#[test]
fn all_that_came_before_a_barrier_is_there_when_its_snapshot_is_done() {
    let west = KafkaCluster::shared("west").unwrap();
    let name = topic("sink");
    west.create_topic(&name, 3).unwrap();
    let mut bench = Bench::new(&sink(west, &name, &[("linger.ms", "1000")]));
    bench.write(batch(0..500)).unwrap();
    let before = Instant::now();
    let snapshot = bench.barrier().unwrap();
    assert!(before.elapsed() < Duration::from_millis(500), "the barrier waited");
    bench.write(batch(500..600)).unwrap();
    finish(snapshot).unwrap();
    let records = west.consume(&name).unwrap();
    let mut values: Vec<_> = records.iter().map(|record| record.text()).collect();
    values.sort();
    let mut expected: Vec<_> = (0..500).map(|number| format!("a value {number}")).collect();
    expected.sort();
    let there = expected.iter().filter(|value| values.binary_search(value).is_ok()).count();
    assert_eq!(there, 500);
    for record in &records {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        assert!(record.text().ends_with(&key), "{key} is not the key of {}", record.text());
    }
    finish(bench.barrier().unwrap()).unwrap();
    assert_eq!(west.consume(&name).unwrap().len(), 600);
    assert_eq!(bench.registry.total("kafka_records_written_total"), 600);
}

#[test]
fn a_full_queue_holds_the_input_back_and_loses_nothing() {
    let west = KafkaCluster::start_behind_proxy("sink-west").unwrap();
    let name = topic("sink-full");
    west.create_topic(&name, 2).unwrap();
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let mut bench = Bench::new(&sink(&west, &name, &[("queue.buffering.max.messages", "100")]));
    let step = bench.call(|operator, cx| operator.process(0, batch(0..1000), cx)).unwrap();
    assert_eq!(step, Step::More);
    assert_eq!(bench.call(|operator, cx| operator.resume(cx)).unwrap(), Step::More);
    assert!(bench.barrier().is_err(), "rows that are not sent yet decline the checkpoint");
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    let start = Instant::now();
    while bench.call(|operator, cx| operator.resume(cx)).unwrap() == Step::More {
        assert!(start.elapsed() < BOUND);
    }
    finish(bench.barrier().unwrap()).unwrap();
    let mut values: Vec<_> = west.consume(&name).unwrap().iter().map(|record| record.text()).collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 1000);
    assert!(bench.registry.total("kafka_producer_stalls_total") > 0);
}

#[test]
fn a_record_that_is_not_delivered_fails_the_snapshot_and_the_task() {
    let west = KafkaCluster::start_behind_proxy("sink-dead").unwrap();
    let name = topic("sink-dead");
    west.create_topic(&name, 1).unwrap();
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let mut bench = Bench::new(&sink(&west, &name, &[("message.timeout.ms", "1500")]));
    bench.write(batch(0..3)).unwrap();
    let failed = finish(bench.barrier().unwrap()).unwrap_err().to_string();
    assert!(failed.contains(&format!("west/{name}/")), "{failed}");
    assert!(bench.write(batch(3..4)).is_err());
    assert!(bench.call(|operator, cx| operator.wake(cx)).is_err());
}
