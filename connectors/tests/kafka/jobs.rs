//! F2, F3, F4 and F8 in whole jobs: coordinator, tasks, checkpoints, the watermark that comes out.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{RecordBatch, StringViewArray, TimestampMicrosecondArray};
use thalweg_connectors::collect::{CollectSink, Collected};
use thalweg_connectors::kafka::{KafkaSource, MetadataColumn, OnOutage};
use thalweg_connectors::sink::StreamSink;
use thalweg_connectors::vec::VecSource;
use thalweg_engine::Result;
use thalweg_engine::checkpoint::{CheckpointStorage, MemoryStorage};
use thalweg_engine::cluster::{JobConfig, JobHandle, start};
use thalweg_engine::graph::{Environment, Stream};
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::source::Source;
use thalweg_engine::state::{MapBackend, StateIdentity};
use thalweg_engine::time::{MILLI, WatermarkStrategy};
use thalweg_testkit::{KafkaCluster, NewRecord, ProxyMode, eventually};

use crate::driver::BOUND;
use crate::world::{numbered, topic, topology};

/// A job that reads `source` by the records' own time into `sink`.
fn job(
    source: &KafkaSource,
    sink: CollectSink,
    storage: &Arc<dyn CheckpointStorage>,
    parallelism: u32,
) -> JobHandle {
    let env = Environment::new();
    env.source(source.clone().metadata([MetadataColumn::Timestamp]))
        .watermarks("kafka_timestamp", WatermarkStrategy::bounded_out_of_order(0))
        .sink(sink)
        .uid("out");
    let mut config = JobConfig::new("test");
    config.parallelism = parallelism;
    config.coordinator.checkpoint_interval = 200 * MILLI;
    start(
        env.build().unwrap(),
        config,
        storage.clone(),
        Arc::new(MapBackend::default()),
        Registry::default(),
        ChannelBounds::default(),
    )
    .unwrap()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    eventually(BOUND, what, || done().then_some(())).unwrap();
}

/// The sum of a metric over the tasks, for one cluster.
fn of_cluster(job: &JobHandle, name: &str, cluster: &str) -> i64 {
    let series = job.metrics().series(name);
    let of = series.iter().filter(|(labels, _)| labels.contains(&("cluster", cluster.to_string())));
    of.map(|(_, value)| value).sum()
}

/// The values that count, sorted.
pub fn values(collected: &Collected) -> Vec<String> {
    let mut values = Vec::new();
    for batch in collected.batches() {
        values.extend(batch.column(0).as_string_view().iter().flatten().map(String::from));
    }
    values.sort();
    values
}

/// Waits for more checkpoints, and that nothing was restarted for them.
fn checkpoints_go_on(job: &JobHandle) {
    let before = job.metrics().total("last_checkpoint");
    wait("checkpoints to complete", || job.metrics().total("last_checkpoint") >= before + 3);
    assert_eq!(job.metrics().total("restarts"), 0);
}

#[test]
fn f2_f3_f4_a_job_goes_on_checkpoints_and_is_restored_in_an_outage_and_each_row_comes_once() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("job-west").unwrap();
    let name = topic("job");
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 2).unwrap();
        cluster.produce(&name, numbered(prefix, 0..200)).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", &west)]);
    let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::new());
    let collected = Collected::new();

    // F2: west is down from the start, and follows without a restart.
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let first = job(&world.source(), collected.exactly_once_sink(), &storage, 2);
    wait("east's rows", || collected.row_count() == 200);
    checkpoints_go_on(&first);
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    wait("west's rows", || collected.row_count() == 400);

    // F3: west is lost in the middle.
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    wait("the outage to be noticed", || of_cluster(&first, "kafka_cluster_up", "west") == 0);
    west.produce(&name, numbered("w", 200..300)).unwrap();
    east.produce(&name, numbered("e", 200..5_200)).unwrap();
    wait("east to go on", || collected.row_count() == 5_400);
    checkpoints_go_on(&first);
    first.abandon();
    first.wait().unwrap();

    // F4: restored in the outage, twice, at other parallelisms.
    for (parallelism, from) in [(3, 5_200), (1, 5_300)] {
        let restored = job(&world.source(), collected.exactly_once_sink(), &storage, parallelism);
        east.produce(&name, numbered("e", from..from + 100)).unwrap();
        wait("east to resume", || collected.row_count() == 400 + 5_000 + from + 100 - 5_200);
        checkpoints_go_on(&restored);
        restored.abandon();
        restored.wait().unwrap();
    }
    let last = job(&world.source(), collected.exactly_once_sink(), &storage, 2);
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    let mut expected = [numbered("e", 0..5_400), numbered("w", 0..300)].concat();
    expected.sort();
    wait("west to resume", || collected.row_count() >= expected.len());
    checkpoints_go_on(&last);
    assert_eq!(values(&collected), expected, "each row once, west's from where they were");
    last.stop();
    last.wait().unwrap();
}

#[test]
fn f8_the_watermark_goes_on_without_a_lost_cluster_or_waits_for_it() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("f8-west").unwrap();
    let name = topic("f8");
    let at = |value: &'static str, second: i64| [NewRecord::from(value).timestamp_ms(second * 1_000)];
    for cluster in [east, &west] {
        cluster.create_topic(&name, 1).unwrap();
        cluster.produce(&name, at("first", 10)).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", &west)]);
    let start = |on_outage| {
        let (collected, storage) =
            (Collected::new(), Arc::new(MemoryStorage::new()) as Arc<dyn CheckpointStorage>);
        let job = job(&world.source().on_outage(on_outage), collected.sink(), &storage, 1);
        (job, collected)
    };
    let watermark = |job: &JobHandle| job.metrics().total("watermark_us");
    let before = |second: i64| second * 1_000_000 - 1;

    let (advancing, its_rows) = start(OnOutage::Advance);
    let (holding, held_rows) = start(OnOutage::Hold);
    for job in [&advancing, &holding] {
        wait("the first watermark", || watermark(job) == before(10));
    }
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    for job in [&advancing, &holding] {
        wait("the outage to be noticed", || of_cluster(job, "kafka_cluster_up", "west") == 0);
    }
    // One that begins in the outage has never read west.
    let (beginning, begun_rows) = start(OnOutage::Hold);
    let unset = watermark(&beginning);
    east.produce(&name, at("second", 20)).unwrap();
    wait("the watermark to go on", || watermark(&advancing) == before(20));
    wait("east's row", || held_rows.row_count() == 3 && begun_rows.row_count() == 2);
    checkpoints_go_on(&holding);
    checkpoints_go_on(&beginning);
    assert_eq!(watermark(&holding), before(10), "hold: it waits for west");
    assert_eq!(watermark(&beginning), unset, "hold: also for a cluster that was never read");

    west.produce(&name, at("late", 15)).unwrap();
    west.produce(&name, at("third", 30)).unwrap();
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    for (job, rows, count) in
        [(&advancing, &its_rows, 5), (&holding, &held_rows, 5), (&beginning, &begun_rows, 5)]
    {
        wait("all rows", || rows.row_count() == count);
        wait("the watermark of both", || watermark(job) == before(20));
    }
    for job in [advancing, holding, beginning] {
        job.abandon();
        job.wait().unwrap();
    }
}

/// Passes rows of two streams on.
struct Unite;

impl OperatorFactory for Unite {
    fn name(&self) -> String {
        "unite".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Unite))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Unite {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(batch);
        Ok(Step::Done)
    }
}

#[test]
fn f8_a_history_that_ends_leaves_the_watermark_to_a_topic_that_is_silent_so_far() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("history");
    east.create_topic(&name, 2).unwrap();
    let world = topology(&name, &[("east", east)]);
    let source = world.source().metadata([MetadataColumn::Timestamp]);
    let schema = source.output().unwrap().schema;
    let second = 1_000_000;
    let history = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(StringViewArray::from(vec!["old"])),
            Arc::new(TimestampMicrosecondArray::from(vec![10 * second]).with_timezone("+00:00")),
        ],
    )
    .unwrap();

    let env = Environment::new();
    let strategy = WatermarkStrategy::bounded_out_of_order(0).idle_after(100 * MILLI);
    let timed = |stream: Stream| stream.watermarks("kafka_timestamp", strategy.clone());
    let (history, recent) = (timed(env.source(VecSource::new(schema, [history]))), timed(env.source(source)));
    let collected = Collected::new();
    let united = history.union_apply(&[&recent], Arc::new(Unite)).uid("united");
    united.sink(collected.sink()).uid("out");
    let mut config = JobConfig::new("test");
    config.coordinator.checkpoint_interval = 200 * MILLI;
    let (storage, backend) = (Arc::new(MemoryStorage::new()), Arc::new(MapBackend::default()));
    let bounds = ChannelBounds::default();
    let job = start(env.build().unwrap(), config, storage, backend, Registry::default(), bounds).unwrap();

    let watermark = |job: &JobHandle| {
        let series = job.metrics().series("watermark_us");
        let united = |labels: &[(&'static str, String)]| labels.contains(&("uid", "united".to_string()));
        series.iter().find(|(labels, _)| united(labels)).map(|(_, value)| *value)
    };
    wait("the history", || collected.row_count() == 1);
    checkpoints_go_on(&job);
    assert!(watermark(&job) < Some(10 * second), "the end of one is not the end of all");
    east.produce(&name, [NewRecord::from("new").timestamp_ms(20_000)]).unwrap();
    wait("the topic's watermark", || watermark(&job) == Some(20 * second - 1));
    assert_eq!(values(&collected), ["new", "old"]);
    job.abandon();
    job.wait().unwrap();
}
