//! F2, F4 and F8 over restarts in the process: what an earlier attempt was told of the world is told
//! to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thalweg_connectors::collect::Collected;
use thalweg_connectors::kafka::MetadataColumn;
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{JobConfig, JobHandle, start};
use thalweg_engine::graph::Environment;
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::{MILLI, WatermarkStrategy};
use thalweg_testkit::{KafkaCluster, NewRecord, ProxyMode, eventually};

use crate::driver::BOUND;
use crate::failing::Failing;
use crate::jobs::values;
use crate::world::{numbered, topic, topology};

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
