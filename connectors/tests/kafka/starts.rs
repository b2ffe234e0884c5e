//! F11: where each cluster starts, and what happens when an offset is gone.

use std::collections::BTreeMap;

use thalweg_connectors::kafka::{OnOffsetGone, Start};
use thalweg_testkit::{KafkaCluster, NewRecord};

use crate::driver::{Driver, assert_each_once};
use crate::world::{TopologyOnDisk, numbered, topic, topology};

#[test]
fn f11_each_cluster_starts_where_it_is_told() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let name = topic("f11");
    for (cluster, prefix) in [(east, "e"), (west, "w")] {
        cluster.create_topic(&name, 1).unwrap();
        let timed = numbered(prefix, 0..10).into_iter().zip(0..);
        let timed = timed.map(|(value, n)| NewRecord::from(value).timestamp_ms(1_000_000 + n * 1_000));
        cluster.produce(&name, timed).unwrap();
    }
    // The same two brokers under four names: what counts is the cluster's name.
    let (e, w) = (east.bootstrap(), west.bootstrap());
    let world = TopologyOnDisk::new(&name, &[("a", e), ("b", w), ("c", e), ("d", w)]);
    let source = world
        .source()
        .start_in("b", Start::Latest)
        .start_in("c", Start::Timestamp(1_007_000))
        .start_in("d", Start::Offsets(BTreeMap::from([(0, 4)])));
    let mut driver = Driver::start(&source, 2);
    driver.until("the splits", |driver| driver.owner.len() == 4);
    driver.until("the rows", |driver| driver.rows.len() >= 19);
    west.produce(&name, ["w-new"]).unwrap();
    driver.until("the new rows", |driver| driver.rows.len() >= 21);
    let of = |cluster: &str| -> Vec<String> {
        let rows = driver.rows.iter().filter(|(split, _)| split.starts_with(cluster));
        rows.map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(of("a/"), numbered("e", 0..10));
    assert_eq!(of("b/"), ["w-new"]);
    assert_eq!(of("c/"), numbered("e", 7..10));
    assert_eq!(of("d/"), [numbered("w", 4..10), vec!["w-new".to_string()]].concat());
    for name in
        ["kafka_outages_total", "kafka_returns_total", "kafka_bad_records_total", "kafka_offset_resets_total"]
    {
        for cluster in ["a", "b", "c", "d"] {
            assert_eq!(driver.metric(name, cluster), Some(0), "{name} of {cluster} is there, and reads 0");
        }
    }
    driver.until("no lag", |driver| driver.metric("kafka_lag_records", "d") == Some(0));
    assert_eq!(driver.metric("kafka_records_total", "d"), Some(7));
}

#[test]
fn f11_a_gone_offset_fails_or_goes_on_as_told() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("gone");
    east.create_topic(&name, 1).unwrap();
    east.produce(&name, numbered("e", 0..10)).unwrap();
    let world = topology(&name, &[("east", east)]);
    // Far behind the end: no broker has it.
    let source = world.source().start(Start::Offsets(BTreeMap::from([(0, 5_000)])));

    let mut failing = Driver::start(&source, 1);
    let error = failing.try_until("an error", |_| false).unwrap_err();
    let split = format!("east/{name}/0");
    assert!(error.to_string().contains(&format!("offset 5000 of {split} is gone")), "{error}");
    assert!(!error.is_retryable());

    let mut earliest = Driver::start(&source.clone().on_offset_gone(OnOffsetGone::Earliest), 1);
    earliest.until("all rows", |driver| driver.rows.len() == 10);
    assert_each_once(&earliest, numbered("e", 0..10));
    assert_eq!(earliest.metric("kafka_offset_resets_total", "east"), Some(1));
    assert_eq!(earliest.checkpoint().offset(&split), Some(10));

    let mut latest = Driver::start(&source.on_offset_gone(OnOffsetGone::Latest), 1);
    goes_on_at_the_end(&mut latest, east, &name, 10);
}

/// Reading goes on behind the newest record, `end`, and checkpoints say so before another is there.
fn goes_on_at_the_end(driver: &mut Driver, cluster: &KafkaCluster, name: &str, end: usize) {
    driver.until("the gap", |driver| driver.metric("kafka_offset_resets_total", "east") == Some(1));
    let split = format!("east/{name}/0");
    assert_eq!(driver.checkpoint().offset(&split), Some(end as i64), "not the offset that is gone");
    cluster.produce(name, numbered("e", end..end + 5)).unwrap();
    driver.until("the new rows", |driver| driver.rows.len() >= 5);
    assert_each_once(driver, numbered("e", end..end + 5));
    assert_eq!(driver.checkpoint().offset(&split), Some(end as i64 + 5));
}

#[test]
fn f11_an_offset_that_retention_took_fails_or_goes_on_as_told_and_is_counted() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("retention");
    east.create_topic(&name, 1).unwrap();
    east.produce(&name, numbered("e", 0..10)).unwrap();
    let world = topology(&name, &[("east", east)]);
    let mut driver = Driver::start(&world.source(), 1);
    driver.until("ten rows", |driver| driver.rows.len() == 10);
    let checkpoint = driver.checkpoint();
    drop(driver);
    east.produce(&name, numbered("e", 10..100)).unwrap();
    east.delete_records(&name, 0, 50).unwrap();

    let mut failing = Driver::restore(&world.source(), 1, &checkpoint);
    let error = failing.try_until("an error", |_| false).unwrap_err();
    let gone = format!("offset 10 of east/{name}/0 is gone");
    assert!(error.to_string().contains(&gone), "{error}");

    let source = world.source().on_offset_gone(OnOffsetGone::Earliest);
    let mut earliest = Driver::restore(&source, 1, &checkpoint);
    earliest.until("what is left", |driver| driver.rows.len() == 50);
    assert_each_once(&earliest, numbered("e", 50..100));
    assert_eq!(earliest.metric("kafka_offset_resets_total", "east"), Some(1), "the gap is counted");

    let source = world.source().on_offset_gone(OnOffsetGone::Latest);
    let mut latest = Driver::restore(&source, 1, &checkpoint);
    goes_on_at_the_end(&mut latest, east, &name, 100);
}
