//! F1, F5, F6 and F12: many clusters are one stream, and they come and go.

use std::time::{Duration, Instant};

use thalweg_connectors::kafka::Start;
use thalweg_engine::source::SplitActivity;
use thalweg_testkit::{FaultProxy, KafkaCluster, NewRecord, ProxyMode};

use crate::driver::{Driver, assert_each_once};
use crate::world::{TopologyOnDisk, numbered, topic, topology};

#[test]
fn f1_the_same_topic_in_two_clusters_is_read_once_each_as_different_splits() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let name = topic("f1");
    for (cluster, prefix) in [(east, "e"), (west, "w")] {
        cluster.create_topic(&name, 4).unwrap();
        let records = numbered(prefix, 0..1000).into_iter().enumerate();
        let records = records.map(|(n, value)| NewRecord::from(value).partition((n % 4) as i32));
        cluster.produce(&name, records).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", west)]);
    let mut driver = Driver::start(&world.source(), 2);
    driver.until("all rows", |driver| driver.rows.len() >= 2000);
    assert_each_once(&driver, [numbered("e", 0..1000), numbered("w", 0..1000)].concat());
    assert_eq!(driver.owner.len(), 8);
    for reader in 0..2 {
        for cluster in ["east/", "west/"] {
            let split = |(split, owner): &(&String, &u32)| split.starts_with(cluster) && **owner == reader;
            assert_eq!(driver.owner.iter().filter(split).count(), 2, "{cluster} at reader {reader}");
        }
    }
    for (split, value) in &driver.rows {
        assert_eq!(&split[..1], &value[..1], "{value} came as one of {split}");
    }
    // Within a split, in the order of offsets.
    for number in 0..4 {
        let split = format!("east/{name}/{number}");
        let of_split = driver.rows.iter().filter(|(id, _)| *id == split).map(|(_, value)| value.clone());
        let expected: Vec<_> = (0..250).map(|row| format!("e-{}", row * 4 + number)).collect();
        assert_eq!(of_split.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn f5_f6_clusters_come_and_go_with_the_topology_and_keep_their_offsets() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let name = topic("f5");
    for (cluster, prefix) in [(east, "e"), (west, "w")] {
        cluster.create_topic(&name, 2).unwrap();
        cluster.produce(&name, numbered(prefix, 0..100)).unwrap();
    }
    let mut world = topology(&name, &[("east", east)]);
    let source = world.source();
    let mut driver = Driver::start(&source, 2);
    driver.until("east's rows", |driver| driver.rows.len() == 100);
    assert_eq!(driver.metric("kafka_lag_records", "west"), None);

    world.rewrite(&[("east", east.bootstrap()), ("west", west.bootstrap())]);
    driver.until("west's rows", |driver| driver.count("west") == 100);
    assert_eq!(driver.metric("kafka_connects_total", "east"), Some(2), "untouched readers are not reopened");

    // West goes: what is written there is not read, with or without a barrier.
    world.rewrite(&[("east", east.bootstrap())]);
    let idle = |driver: &Driver, cluster: &str| {
        let of = |(split, activity): (&String, &SplitActivity)| {
            !split.starts_with(cluster) || *activity == SplitActivity::Idle
        };
        driver.activity.iter().all(of)
    };
    driver.until("west is idle", |driver| idle(driver, "west/"));
    west.produce(&name, numbered("w", 100..150)).unwrap();
    east.produce(&name, numbered("e", 100..150)).unwrap();
    driver.until("east goes on", |driver| driver.count("east") == 150);
    driver.turn_for(Duration::from_millis(500));
    assert_eq!(driver.count("west"), 100);
    assert_eq!(driver.metric("kafka_connects_total", "east"), Some(2), "untouched readers are not reopened");
    let checkpoint = driver.checkpoint();
    assert!(!driver.owner.keys().any(|split| split.starts_with("west/")), "west was given back");

    // West returns, after a restore at another parallelism: exactly where it was.
    drop(driver);
    world.rewrite(&[("east", east.bootstrap()), ("west", west.bootstrap())]);
    let mut driver = Driver::restore(&world.source(), 3, &checkpoint);
    driver.until("west's new rows", |driver| driver.count("west") == 50);
    driver.turn_for(Duration::from_millis(300));
    assert_each_once(&driver, numbered("w", 100..150));
}

#[test]
fn f5_w1_an_edited_topology_is_in_effect_within_a_poll() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let name = topic("poll");
    for cluster in [east, west] {
        cluster.create_topic(&name, 1).unwrap();
    }
    let mut world = topology(&name, &[("east", east)]);
    let mut driver = Driver::start(&world.source(), 1);
    driver.until("east's split", |driver| driver.owner.len() == 1);
    let before = Instant::now();
    world.rewrite(&[("east", east.bootstrap()), ("west", west.bootstrap())]);
    driver.until("west's split", |driver| driver.owner.len() == 2);
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
}

#[test]
fn f5_partitions_and_topics_appear_and_nothing_else_is_touched() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let name = topic("grow");
    east.create_topic(&name, 1).unwrap();
    east.produce(&name, numbered("e", 0..50)).unwrap();
    // West is said to hold the topic, and has none of this name yet.
    let world = topology(&name, &[("east", east), ("west", west)]);
    let mut driver = Driver::start(&world.source().start(Start::Latest), 1);
    driver.until("east's split", |driver| driver.owner.len() == 1);
    east.add_partitions(&name, 2).unwrap();
    let added = numbered("n", 0..50).into_iter().map(|value| NewRecord::from(value).partition(1));
    east.produce(&name, added).unwrap();
    driver.until("the new partition's rows", |driver| driver.rows.len() == 50);
    assert_each_once(&driver, numbered("n", 0..50));
    west.create_topic(&name, 1).unwrap();
    driver.until("west's split", |driver| driver.owner.len() == 3);
    west.produce(&name, numbered("w", 0..50)).unwrap();
    driver.until("west's rows", |driver| driver.count("west") == 50);
    assert_eq!(driver.metric("kafka_connects_total", "east"), Some(1), "one consumer serves them all");
    assert_eq!(driver.metric("kafka_outages_total", "west"), Some(0), "a topic that is missing is no outage");
}

#[test]
fn f12_a_black_holed_cluster_delays_neither_the_others_nor_the_refresh() {
    let (east, west) = (KafkaCluster::shared("east").unwrap(), KafkaCluster::shared("west").unwrap());
    let hole = FaultProxy::start().unwrap();
    hole.set(ProxyMode::BlackHole).unwrap();
    let hole_at = hole.address().to_string();
    let name = topic("f12");
    for (cluster, prefix) in [(east, "e"), (west, "w")] {
        cluster.create_topic(&name, 1).unwrap();
        cluster.produce(&name, numbered(prefix, 0..10)).unwrap();
    }
    let mut world = TopologyOnDisk::new(&name, &[("east", east.bootstrap()), ("hole", &hole_at)]);
    let mut driver = Driver::start(&world.source(), 1);
    driver.until("east's rows", |driver| driver.count("east") == 10);
    let before = Instant::now();
    let with_west = [("east", east.bootstrap()), ("hole", &hole_at), ("west", west.bootstrap())];
    world.rewrite(&with_west);
    driver.until("west's rows", |driver| driver.count("west") == 10);
    assert!(before.elapsed() < Duration::from_secs(3), "the refresh took {:?}", before.elapsed());
    assert!(driver.longest_look < Duration::from_millis(500), "a look took {:?}", driver.longest_look);
}
