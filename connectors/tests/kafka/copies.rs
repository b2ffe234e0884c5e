//! F13: copies that two clusters hold, read by different tasks, are dropped; also those that come
//! after an outage.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use thalweg_connectors::collect::Collected;
use thalweg_connectors::deduplicate::drop_copies;
use thalweg_connectors::kafka::MetadataColumn;
use thalweg_connectors::record_id::{RECORD_ID_HEADER, RecordId};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{JobConfig, start};
use thalweg_engine::graph::Environment;
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;
use thalweg_testkit::{KafkaCluster, NewRecord, ProxyMode, eventually};

use crate::driver::BOUND;
use crate::world::{topic, topology};

#[test]
fn f13_each_record_comes_once_though_two_clusters_hold_it_and_one_was_away() {
    const RECORDS: u64 = 600;
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("f13-west").unwrap();
    let name = topic("f13");
    // Three producers; of each record one copy in east, and of two in three another one in west.
    let record = |n: u64| {
        let producer = format!("job/sink/1/1/{}", n % 3);
        let id = RecordId { producer: &producer, epoch: n / 100, sequence: n / 3 };
        NewRecord::from(format!("r-{n}")).header(RECORD_ID_HEADER, id.encode())
    };
    for cluster in [east, &west] {
        cluster.create_topic(&name, 3).unwrap();
    }
    east.produce(&name, (0..RECORDS).map(record)).unwrap();
    west.produce(&name, (0..RECORDS).filter(|n| n % 9 < 6).rev().map(record)).unwrap();
    west.produce(&name, ["without an id", "without an id"]).unwrap();
    let copies = (0..RECORDS).filter(|n| n % 9 < 6).count();
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();

    let world = topology(&name, &[("east", east), ("west", &west)]);
    let source = world.source().metadata([MetadataColumn::Header(RECORD_ID_HEADER.into())]);
    let env = Environment::new();
    let collected = Collected::new();
    drop_copies(&env.source(source), "kafka_header_thalweg_id")
        .sink(collected.exactly_once_sink())
        .uid("out");
    let mut config = JobConfig::new("test");
    config.parallelism = 2;
    config.coordinator.checkpoint_interval = 200 * MILLI;
    let job = start(
        env.build().unwrap(),
        config,
        Arc::new(MemoryStorage::new()),
        Arc::new(MapBackend::default()),
        Registry::default(),
        ChannelBounds::default(),
    )
    .unwrap();
    eventually(BOUND, "east's records", || (collected.row_count() == RECORDS as usize).then_some(()))
        .unwrap();
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    let dropped = || job.metrics().total("copies_dropped_total");
    eventually(BOUND, "west's copies", || (dropped() >= copies as i64).then_some(())).unwrap();
    let all = RECORDS as usize + 2;
    eventually(BOUND, "what has no id", || (collected.row_count() >= all).then_some(())).unwrap();
    job.stop();
    let metrics = job.metrics().clone();
    job.wait().unwrap();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for batch in collected.batches() {
        for value in batch.column(0).as_string_view().iter().flatten() {
            *found.entry(value.to_string()).or_default() += 1;
        }
    }
    assert_eq!(found.remove("without an id"), Some(2), "what has no id passes");
    assert_eq!(found.len(), RECORDS as usize);
    assert!(found.values().all(|&count| count == 1), "{found:?}");
    assert_eq!(metrics.total("copies_dropped_total"), copies as i64);
    assert_eq!(metrics.total("copies_unremembered_total"), 0);
}
