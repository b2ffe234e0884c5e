//! Bounded reading: the ends are fixed once, and the source ends by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use thalweg_connectors::kafka::Until;
use thalweg_testkit::{KafkaCluster, NewRecord, ProxyMode};

use crate::driver::{Driver, assert_each_once};
use crate::world::{numbered, topic, topology};

#[test]
fn until_latest_reads_what_was_there_and_a_restore_has_the_same_ends() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let name = topic("until");
    for (cluster, prefix) in [(east, "e"), (west, "w")] {
        cluster.create_topic(&name, 3).unwrap();
        // Partition 2 stays empty.
        let records = numbered(prefix, 0..200).into_iter().zip(0..);
        cluster.produce(&name, records.map(|(value, n)| NewRecord::from(value).partition(n % 2))).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", west)]);
    let source = world.source().until(Until::Latest);
    let mut driver = Driver::start(&source, 2);
    driver.until("the splits", |driver| driver.owner.len() == 4 && driver.no_more);
    let early = driver.checkpoint();
    for (cluster, prefix) in [(east, "e"), (west, "w")] {
        cluster.produce(&name, numbered(prefix, 1000..1100)).unwrap();
    }
    driver.until("the end", Driver::is_finished);
    let expected = [numbered("e", 0..200), numbered("w", 0..200)].concat();
    assert_each_once(&driver, expected.clone());
    assert_eq!(driver.finished_splits.len(), 4);
    let late = driver.checkpoint();

    let splits = ["east", "west"].map(|cluster| [0, 1].map(|number| format!("{cluster}/{name}/{number}")));
    let already: i64 = splits.iter().flatten().map(|split| early.offset(split).unwrap()).sum();
    let mut restored = Driver::restore(&source, 3, &early);
    restored.until("the end", Driver::is_finished);
    assert_eq!(restored.rows.len() as i64, 400 - already);
    assert!(restored.values().iter().all(|value| expected.contains(value)), "the ends have moved");

    let mut at_end = Driver::restore(&source, 1, &late);
    at_end.until("the end", Driver::is_finished);
    assert!(at_end.rows.is_empty());
}

#[test]
fn until_offsets_stops_before_them() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("until-offsets");
    east.create_topic(&name, 1).unwrap();
    east.produce(&name, numbered("e", 0..50)).unwrap();
    let ends = BTreeMap::from([("east".to_string(), BTreeMap::from([(0, 20)]))]);
    let world = topology(&name, &[("east", east)]);
    let mut driver = Driver::start(&world.source().until(Until::Offsets(ends)), 1);
    driver.until("the end", Driver::is_finished);
    assert_each_once(&driver, numbered("e", 0..20));
}

#[test]
fn until_latest_does_not_end_before_every_listed_cluster_was_seen() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("until-west").unwrap();
    let name = topic("until-down");
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 1).unwrap();
        cluster.produce(&name, numbered(prefix, 0..10)).unwrap();
    }
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let world = topology(&name, &[("east", east), ("west", &west)]);
    let source = world.source().until(Until::Latest);
    let mut driver = Driver::start(&source, 1);
    driver.until("east is read", |driver| driver.finished_splits.len() == 1);
    driver.turn_for(Duration::from_secs(2));
    assert!(!driver.no_more && !driver.is_finished());
    let checkpoint = driver.checkpoint();
    drop(driver);
    let mut driver = Driver::restore(&source, 1, &checkpoint);
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    driver.until("the end", Driver::is_finished);
    assert_each_once(&driver, numbered("w", 0..10));
}
