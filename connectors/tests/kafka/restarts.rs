//! F2, F4 and F8 over restarts in the process: what an earlier attempt was told of the world is told
//! to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, StringViewArray};
use thalweg_connectors::collect::Collected;
use thalweg_connectors::conformance::comparable_rows;
use thalweg_connectors::conformance::restarts::RestartSuite;
use thalweg_connectors::format::Format;
use thalweg_connectors::kafka::{Happening, MetadataColumn, SimulatedKafka, SimulatedRecord, Until};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{JobConfig, JobHandle, SeededOrder, start};
use thalweg_engine::graph::Environment;
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::source::Source;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::{MILLI, SECOND, WatermarkStrategy};
use thalweg_testkit::{KafkaCluster, NewRecord, ProxyMode, eventually};

use crate::driver::BOUND;
use crate::failing::Failing;
use crate::jobs::values;
use crate::text_format::Text;
use crate::world::{TopologyOnDisk, numbered, topic, topology};

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    eventually(BOUND, what, || done().then_some(())).unwrap();
}

/// What the tasks of the last attempt say.
fn latest(job: &JobHandle, name: &str) -> Option<i64> {
    let attempt = |labels: &[(&'static str, String)]| {
        labels.iter().find(|(label, _)| *label == "attempt").and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let series = job.metrics().series(name);
    series.iter().max_by_key(|(labels, _)| attempt(labels)).map(|(_, value)| *value)
}

#[test]
fn f4_f8_each_attempt_hears_of_every_cluster_before_the_first_checkpoint_and_in_an_outage() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("restarts-west").unwrap();
    let name = topic("restarts");
    let at = |values: Vec<String>, second: i64| {
        values.into_iter().map(move |value| NewRecord::from(value).timestamp_ms(second * 1_000))
    };
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 1).unwrap();
        cluster.produce(&name, at(numbered(prefix, 0..100), 10)).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", &west)]);
    // The first batch fails the first attempt.
    let fuse = Arc::new(AtomicBool::new(true));
    let collected = Collected::new();
    let env = Environment::new();
    env.source(world.source().metadata([MetadataColumn::Timestamp]))
        .watermarks("kafka_timestamp", WatermarkStrategy::bounded_out_of_order(0))
        .apply(Failing::fuse(&fuse))
        .sink(collected.exactly_once_sink())
        .uid("out");
    let mut config = JobConfig::new("restarts");
    config.coordinator.checkpoint_interval = 200 * MILLI;
    let (storage, backend) = (Arc::new(MemoryStorage::new()), Arc::new(MapBackend::default()));
    let graph = env.build().unwrap();
    let job = start(graph, config, storage, backend, Registry::default(), ChannelBounds::default()).unwrap();
    let restarts = |job: &JobHandle| job.metrics().total("restarts");

    wait("all rows after a failure before the first checkpoint", || collected.row_count() == 200);
    assert_eq!(restarts(&job), 1);

    // Beside an outage, after checkpoints: the watermark goes on without the lost cluster.
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    wait("the outage to be noticed", || job.metrics().total("kafka_outages_total") >= 1);
    fuse.store(true, Ordering::Release);
    east.produce(&name, at(numbered("e", 100..150), 20)).unwrap();
    wait("east to go on", || collected.row_count() == 250);
    assert_eq!(restarts(&job), 2);
    wait("the watermark to go on", || latest(&job, "watermark_us") == Some(20_000_000 - 1));

    // The cluster returns while the restart is delayed.
    west.produce(&name, at(numbered("w", 100..130), 20)).unwrap();
    fuse.store(true, Ordering::Release);
    east.produce(&name, at(numbered("e", 150..151), 30)).unwrap();
    wait("the third failure", || restarts(&job) == 3);
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    wait("the returned cluster's rows", || collected.row_count() == 281);
    let mut expected = [numbered("e", 0..151), numbered("w", 0..130)].concat();
    expected.sort();
    assert_eq!(values(&collected), expected, "each row once");
    job.stop();
    job.wait().unwrap();
}

/// Two clusters that hold what they ever will; at times one of them is away at first, and comes back
/// before, in or after a restart.
fn clusters_in_memory(order: &mut SeededOrder, clock: &ManualClock) -> SimulatedKafka {
    let kafka = SimulatedKafka::new(Arc::new(clock.clone()), order.next_u64());
    for cluster in ["east", "west"] {
        let happens = |happening| kafka.happens(&format!("{cluster}:1"), happening);
        happens(Happening::TopicMade { topic: "restarts".into(), partitions: 2 });
        for partition in 0..2 {
            let record = |value: String| SimulatedRecord {
                value: Some(value.into_bytes()),
                ..SimulatedRecord::default()
            };
            let records = values_in_memory(cluster, partition).into_iter().map(record).collect();
            happens(Happening::Written { topic: "restarts".into(), partition, records });
        }
    }
    if order.below(2) == 0 {
        kafka.happens("west:1", Happening::Goes);
        kafka.will_happen(order.below(4 * SECOND as usize) as i64, "west:1", Happening::Returns);
    }
    kafka
}

fn values_in_memory(cluster: &str, partition: i32) -> Vec<String> {
    numbered(&format!("{cluster}-{partition}"), 0..40)
}

#[test]
fn f4_each_record_comes_once_whenever_tasks_fail_and_whether_or_not_a_cluster_is_away() {
    let topology = TopologyOnDisk::new("restarts", &[("east", "east:1"), ("west", "west:1")]);
    let make = |order: &mut SeededOrder, clock: &ManualClock| {
        let kafka = clusters_in_memory(order, clock);
        // Slowly, so that there are checkpoints meanwhile.
        let source = topology.simulated(Text, &kafka).until(Until::Latest).rows_per_second(200);
        Ok(Arc::new(source) as Arc<dyn Source>)
    };
    let all = ["east", "west"].map(|cluster| [0, 1].map(|partition| values_in_memory(cluster, partition)));
    let values = StringViewArray::from_iter_values(all.iter().flatten().flatten());
    let mut rows =
        comparable_rows(&RecordBatch::try_new(Text.schema(), vec![Arc::new(values)]).unwrap()).unwrap();
    rows.sort();
    RestartSuite { make: &make, rows, is_seen_at_once: false, interval: 20 * MILLI }.check().unwrap();
}
