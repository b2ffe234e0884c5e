//! P5: staged, prepared, published when the checkpoint is complete, published again identically,
//! carried over an abort. With a reader that drops copies by id: each once.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_connectors::conformance::sink::SinkSuite;
use thalweg_connectors::format::JsonEncoder;
use thalweg_connectors::prism::{PrismSink, PrismTarget};
use thalweg_connectors::record_id::{RECORD_ID_HEADER, RecordId};
use thalweg_connectors::sink::Sink;
use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_testkit::{ProxyMode, Record};

use crate::bench::{Bench, sink, values};
use crate::world::{Topic, World, assert_each_once, world};

/// What stands under each id; the same id never names two records.
pub fn by_id(world: &World, topic: &Topic) -> BTreeMap<String, Vec<Record>> {
    let mut found: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in world.consume(topic).into_values().flatten() {
        let id = String::from_utf8(record.header(RECORD_ID_HEADER).unwrap().to_vec()).unwrap();
        found.entry(id).or_default().push(record);
    }
    for (id, records) in &found {
        let first = (&records[0].key, &records[0].payload);
        assert!(
            records.iter().all(|record| (&record.key, &record.payload) == first),
            "{id} names two records"
        );
    }
    found
}

#[test]
fn p5_the_conformance_suite_of_two_phase_sinks() {
    let world = world();
    let topic = world.topic("p5-suite", 2);
    let staging = tempfile::tempdir().unwrap();
    let number = |record: &Record| {
        let row: serde_json::Value = serde_json::from_str(&record.text()).unwrap();
        row["n"].as_i64().unwrap()
    };
    let target = PrismTarget::Embedded(topic.router());
    let suite = SinkSuite {
        make: &|| {
            PrismSink::new(&topic.name, target.clone(), || Ok(Box::new(JsonEncoder::new())))
                .key(["n"])
                .staging(staging.path())
                .into_parts()
        },
        visible: &|| Ok(world.distinct(&topic).0.iter().map(number).collect()),
        storage: Arc::new(MemoryStorage::new()),
        other_storage: Arc::new(MemoryStorage::new()),
    };
    suite.check().unwrap();
}

#[test]
fn p5_a_commit_that_is_repeated_publishes_the_same_records_with_the_same_ids() {
    let world = world();
    let topic = world.topic("p5-again", 2);
    let gateway = topic.gateway(&Default::default());
    let target = PrismTarget::Gateway(gateway.endpoint());
    let mut bench = Bench::new(&sink(&topic, target.clone()));
    bench.write(0..500).unwrap();
    bench.write(500..1000).unwrap();
    let pending = bench.barrier().unwrap();
    let first = pending.id;
    let prepared = pending.finish().unwrap();
    assert_eq!(prepared.len(), 1);
    assert!(prepared[0].payload.len() < 1024, "a committable of {} bytes", prepared[0].payload.len());
    assert_eq!(prepared[0].objects.len(), 1);
    assert!(bench.storage.get(&prepared[0].objects[0]).unwrap().is_some());
    assert!(by_id(&world, &topic).is_empty(), "nothing is published before the commit");

    bench.commit(&prepared).unwrap();
    let once = by_id(&world, &topic);
    assert_eq!(once.len(), 1000);
    bench.completed(first);
    // Another process, after a crash that came before the commit was noted.
    let storage = bench.storage.clone();
    drop(bench);
    let mut restored = Bench::restored(&sink(&topic, target), 2, 1, storage);
    restored.commit(&prepared).unwrap();
    let twice = by_id(&world, &topic);
    assert!(once.keys().eq(twice.keys()), "the second commit made new ids");
    assert_eq!(twice.values().map(Vec::len).sum::<usize>(), 2000);

    // The next attempt's ids are its own.
    restored.write(1000..1500).unwrap();
    let prepared = restored.barrier().unwrap().finish().unwrap();
    restored.commit(&prepared).unwrap();
    assert_eq!(by_id(&world, &topic).len(), 1500);
    assert_each_once(&world.distinct(&topic).0, values(0..1500));
}

#[test]
fn p5_records_of_an_aborted_checkpoint_keep_their_ids_and_ride_with_the_next() {
    let world = world();
    let topic = world.topic("p5-abort", 1);
    let mut bench = Bench::new(&sink(&topic, PrismTarget::Embedded(topic.router())));
    bench.write(0..10).unwrap();
    let aborted = bench.barrier().unwrap();
    let id = aborted.id;
    // It was prepared and uploaded; a slower sink spoiled it.
    let spoiled = aborted.finish().unwrap();
    bench.aborted(id);
    bench.write(10..20).unwrap();
    let next = bench.barrier().unwrap();
    let next_id = next.id;
    let prepared = next.finish().unwrap();
    assert_eq!(prepared.len(), 2, "both epochs ride together");
    assert_eq!(prepared[0], spoiled[0], "it is not uploaded again, and keeps its ids");
    bench.commit(&prepared).unwrap();
    bench.completed(next_id);
    let (records, copies) = world.distinct(&topic);
    assert_eq!(copies, 0);
    assert_each_once(&records, values(0..20));
    for record in &records {
        let id = RecordId::decode(record.header(RECORD_ID_HEADER).unwrap()).unwrap();
        let number: u64 = record.text()["v-".len()..].parse().unwrap();
        assert_eq!(id.sequence, number, "sequences run on over epochs");
        assert_eq!(id.epoch, if number < 10 { 1 } else { 2 });
        assert_eq!(id.producer, "test-sink-0-1-1-test");
    }
    assert!(bench.barrier().unwrap().finish().unwrap().is_empty(), "nothing is left");
}

#[test]
fn p5_a_commit_outlasts_an_outage_and_can_be_cancelled() {
    let world = world();
    let topic = world.topic("p5-outage", 2);
    let target = PrismTarget::Embedded(topic.router());
    let mut bench = Bench::new(&sink(&topic, target));
    bench.write(0..2000).unwrap();
    let prepared = bench.barrier().unwrap().finish().unwrap();
    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    }
    let error = {
        let start = std::time::Instant::now();
        let cancelled = || start.elapsed().as_millis() > 300;
        bench.committer().commit(&prepared, &*bench.storage, &cancelled).unwrap_err()
    };
    assert!(error.is_retryable(), "{error}");
    let (committer, storage, again) = (bench.committer(), bench.storage.clone(), prepared.clone());
    let committing = std::thread::spawn(move || committer.commit(&again, &*storage, &|| false));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!committing.is_finished(), "nobody has the records");
    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    }
    committing.join().unwrap().unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..2000));
}

#[test]
fn p5_a_damaged_segment_is_named_and_nothing_of_it_is_published() {
    let world = world();
    let topic = world.topic("p5-damage", 1);
    let mut bench = Bench::new(&sink(&topic, PrismTarget::Embedded(topic.router())));
    bench.write(0..10).unwrap();
    let prepared = bench.barrier().unwrap().finish().unwrap();
    let path = &prepared[0].objects[0];
    let mut content = bench.storage.get(path).unwrap().unwrap().to_vec();
    let last = content.len() - 1;
    content[last] ^= 1;
    bench.storage.put(path, content.into()).unwrap();
    let error = bench.commit(&prepared).unwrap_err();
    assert!(error.to_string().contains(path.as_str()) && !error.is_retryable(), "{error}");
    assert!(world.consume(&topic).values().all(Vec::is_empty));
}
