//! P4: a checkpoint waits for its records. P6: with every cluster away, memory is bounded, nothing
//! is dropped, and all resumes.

use std::time::Duration;

use thalweg_connectors::prism::{Delivery, PrismTarget};
use thalweg_engine::operator::Step;
use thalweg_testkit::{ProxyMode, eventually};

use crate::bench::{Bench, sink, values};
use crate::world::{BOUND, assert_each_once, texts, world};

#[test]
fn p4_a_checkpoint_is_complete_when_everything_before_it_is_acknowledged() {
    let world = world();
    let topic = world.topic("p4", 2);
    let target = PrismTarget::Embedded(topic.router());
    let mut bench = Bench::new(&sink(&topic, target).delivery(Delivery::AtLeastOnce));
    bench.write(0..3000).unwrap();
    bench.barrier().unwrap().finish().unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..3000));

    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::BlackHole).unwrap();
    }
    bench.write(3000..3100).unwrap();
    let pending = bench.barrier().unwrap();
    let waiting = std::thread::spawn(|| pending.finish());
    // What comes after the barrier goes on meanwhile.
    bench.write(3100..3200).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(!waiting.is_finished(), "the checkpoint completed without its records");
    // A checkpoint that is given up does not keep its helper thread.
    let aborted = bench.barrier().unwrap();
    let id = aborted.id;
    let giving_up = std::thread::spawn(|| aborted.finish());
    bench.aborted(id);
    let error = giving_up.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("gave up waiting"), "{error}");

    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    }
    waiting.join().unwrap().unwrap();
    bench.barrier().unwrap().finish().unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..3200));
}

#[test]
fn p4_a_crash_before_a_checkpoint_is_complete_brings_its_rows_again_and_loses_none() {
    let world = world();
    let topic = world.topic("p4-crash", 2);
    let sink = sink(&topic, PrismTarget::Embedded(topic.router())).delivery(Delivery::AtLeastOnce);
    let mut bench = Bench::new(&sink);
    bench.write(0..1_000).unwrap();
    let complete = bench.barrier().unwrap();
    let id = complete.id;
    complete.finish().unwrap();
    bench.completed(id);
    bench.write(1_000..2_000).unwrap();
    // The barrier has come; the process dies before its rows are acknowledged.
    let storage = bench.storage.clone();
    drop(bench.barrier().unwrap());
    drop(bench);
    let mut restored = Bench::restored(&sink, 2, 1, storage);
    restored.write(1_000..2_500).unwrap();
    restored.barrier().unwrap().finish().unwrap();
    // Each row is there, those in between perhaps twice, with ids of their own.
    let (records, _) = world.distinct(&topic);
    let found: std::collections::BTreeSet<_> = texts(&records).into_iter().collect();
    assert!(values(0..2_500).all(|value| found.contains(&value)), "a row is lost");
    assert_eq!(found.len(), 2_500);
    let before = records.iter().filter(|record| record.text().as_str() < "v-001000").count();
    assert_eq!(before, 1_000, "what a complete checkpoint covers does not come again");
}

#[test]
fn p6_with_all_clusters_away_memory_is_bounded_nothing_is_dropped_and_all_resumes() {
    const BOUND_BYTES: usize = 256 << 10;
    let world = world();
    let topic = world.topic("p6", 2);
    let gateway = topic.gateway(&Default::default());
    let target = PrismTarget::Gateway(gateway.endpoint());
    let sink = sink(&topic, target).delivery(Delivery::AtLeastOnce).in_flight_bytes(BOUND_BYTES);
    let mut bench = Bench::new(&sink);
    bench.write(0..100).unwrap();
    bench.barrier().unwrap().finish().unwrap();
    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    }
    let mut next = 100;
    let mut step = Step::Done;
    while step == Step::Done {
        step = bench.offer(next..next + 100).unwrap();
        next += 100;
        assert!(next < 20_000, "the sink takes without end");
        let held = bench.registry.total("prism_sink_held_bytes");
        assert!(held <= BOUND_BYTES as i64, "{held} bytes are held");
    }
    for _ in 0..50 {
        assert_eq!(bench.resume().unwrap(), Step::More, "there is no room, and nothing is dropped");
    }
    assert!(bench.barrier().is_err(), "rows that were not taken decline the checkpoint");
    assert!(bench.registry.total("prism_sink_stalls_total") > 50);

    for cluster in [&world.east, &world.west] {
        cluster.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    }
    eventually(BOUND, "room in the sink", || (bench.resume().unwrap() == Step::Done).then_some(())).unwrap();
    bench.barrier().unwrap().finish().unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..next));
    assert_eq!(bench.registry.total("prism_sink_held_bytes"), 0);
    gateway.stop().unwrap();
}
