//! F2, F3, F4 and F8: what an outage costs, and what it does to the watermark.

use std::time::Duration;

use thalweg_connectors::kafka::OnOutage;
use thalweg_engine::source::SplitActivity;
use thalweg_testkit::{KafkaCluster, ProxyMode};

use crate::driver::{BOUND, Driver, assert_each_once};
use crate::world::{numbered, topic, topology};

fn activity(driver: &Driver, cluster: &str) -> Vec<SplitActivity> {
    let of_cluster = driver.activity.iter().filter(|(split, _)| split.starts_with(&format!("{cluster}/")));
    of_cluster.map(|(_, activity)| *activity).collect()
}

#[test]
fn f2_f8_a_cluster_down_at_start_does_not_hold_the_job() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("f2-west").unwrap();
    let name = topic("f2");
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 2).unwrap();
        cluster.produce(&name, numbered(prefix, 0..100)).unwrap();
    }
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let world = topology(&name, &[("east", east), ("west", &west)]);
    let mut advancing = Driver::start(&world.source(), 2);
    let mut holding = Driver::start(&world.source().on_outage(OnOutage::Hold), 2);
    advancing.until("east's rows", |driver| driver.count("east") == 100);
    holding.until("east's rows", |driver| driver.count("east") == 100);
    advancing.until("the first look is over", |driver| !driver.holds());
    assert!(holding.holds(), "hold: a listed cluster was not read since the start");
    // A gauge reads 0, it is not missing.
    assert_eq!(advancing.metric("kafka_lag_records", "west"), Some(0));
    assert_eq!(advancing.metric("kafka_cluster_up", "west"), Some(0));
    assert_eq!(advancing.metric("kafka_cluster_up", "east"), Some(2), "up at both tasks");
    east.produce(&name, numbered("e", 100..150)).unwrap();
    holding.until("east goes on", |driver| driver.count("east") == 150);
    assert!(holding.holds());

    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    for driver in [&mut advancing, &mut holding] {
        driver.until("all rows", |driver| driver.rows.len() >= 250);
        driver.until("nothing holds", |driver| !driver.holds());
        assert_each_once(driver, [numbered("e", 0..150), numbered("w", 0..100)].concat());
    }
}

#[test]
fn f3_f8_a_cluster_lost_in_the_middle_is_isolated_and_resumes_exactly() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start("f3-west").unwrap();
    let name = topic("f3");
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 2).unwrap();
        cluster.produce(&name, numbered(prefix, 0..500)).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", &west)]);
    let mut advancing = Driver::start(&world.source(), 1);
    let mut holding = Driver::start(&world.source().on_outage(OnOutage::Hold), 1);
    for driver in [&mut advancing, &mut holding] {
        driver.until("all rows", |driver| driver.rows.len() == 1000);
        driver.until("nothing holds", |driver| !driver.holds());
    }
    west.kill().unwrap();
    advancing.until("west is idle", |driver| activity(driver, "west") == [SplitActivity::Idle; 2]);
    holding.until("west is held", |driver| activity(driver, "west") == [SplitActivity::Held; 2]);
    for driver in [&mut advancing, &mut holding] {
        assert_eq!(activity(driver, "east"), [SplitActivity::Active; 2]);
        driver.until("the gauge", |driver| driver.metric("kafka_cluster_up", "west") == Some(0));
        assert_eq!(driver.metric("kafka_outages_total", "west"), Some(1));
    }
    // East's throughput holds: no poll waits for west, whatever there is to read.
    advancing.longest_poll = Duration::ZERO;
    east.produce(&name, numbered("e", 500..20_000)).unwrap();
    advancing.until("east goes on", |driver| driver.count("east") == 20_000);
    assert!(advancing.longest_poll < Duration::from_secs(1), "a poll took {:?}", advancing.longest_poll);
    let checkpoint = advancing.checkpoint();
    let west_read: i64 =
        (0..2).map(|number| checkpoint.offset(&format!("west/{name}/{number}")).unwrap()).sum();
    assert_eq!(west_read, 500, "west's offsets are in the checkpoint");

    west.restart().unwrap();
    west.produce(&name, numbered("w", 500..600)).unwrap();
    for driver in [&mut advancing, &mut holding] {
        driver.until("all rows", |driver| driver.rows.len() >= 20_600);
        driver.until("west is active", |driver| activity(driver, "west") == [SplitActivity::Active; 2]);
        driver.turn_for(Duration::from_millis(200));
        assert_each_once(driver, [numbered("e", 0..20_000), numbered("w", 0..600)].concat());
        driver.until("the return", |driver| driver.metric("kafka_returns_total", "west") == Some(1));
        assert_eq!(driver.metric("kafka_outages_total", "west"), Some(1), "one outage is counted once");
    }
}

#[test]
fn f3_f8_f12_an_outage_and_its_end_are_noticed_by_the_client_however_slow_the_discovery_is() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("signal-west").unwrap();
    let name = topic("signal");
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 2).unwrap();
        cluster.produce(&name, numbered(prefix, 0..100)).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", &west)]);
    // After its first look the discovery sees nothing for ten times as long as this test may take.
    let source = world.source().discovery(10 * BOUND, Duration::from_millis(1500));
    let mut advancing = Driver::start(&source, 1);
    let mut holding = Driver::start(&source.on_outage(OnOutage::Hold), 1);
    for driver in [&mut advancing, &mut holding] {
        driver.until("all rows", |driver| driver.rows.len() == 200);
        driver.until("nothing holds", |driver| !driver.holds());
    }
    // A cut network, then one that swallows everything.
    for (count, mode) in [(1, ProxyMode::Refuse), (2, ProxyMode::BlackHole)] {
        west.proxy().unwrap().set(mode).unwrap();
        advancing.until("west is idle", |driver| activity(driver, "west") == [SplitActivity::Idle; 2]);
        holding.until("west is held", |driver| activity(driver, "west") == [SplitActivity::Held; 2]);
        west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
        // West is quiet: no record tells that it is back.
        for driver in [&mut advancing, &mut holding] {
            driver.until("west is active", |driver| activity(driver, "west") == [SplitActivity::Active; 2]);
            assert_eq!(activity(driver, "east"), [SplitActivity::Active; 2]);
            assert_eq!(driver.metric("kafka_outages_total", "west"), Some(count));
            assert_eq!(driver.metric("kafka_returns_total", "west"), Some(count));
        }
    }
    west.produce(&name, numbered("w", 100..150)).unwrap();
    for driver in [&mut advancing, &mut holding] {
        driver.until("west goes on", |driver| driver.count("west") == 150);
        assert_each_once(driver, [numbered("e", 0..100), numbered("w", 0..150)].concat());
    }
}

#[test]
fn f4_a_restore_in_an_outage_keeps_the_lost_clusters_offsets() {
    let east = KafkaCluster::shared("east").unwrap();
    let west = KafkaCluster::start_behind_proxy("f4-west").unwrap();
    let name = topic("f4");
    for (cluster, prefix) in [(east, "e"), (&west, "w")] {
        cluster.create_topic(&name, 2).unwrap();
        cluster.produce(&name, numbered(prefix, 0..300)).unwrap();
    }
    let world = topology(&name, &[("east", east), ("west", &west)]);
    let source = world.source().on_outage(OnOutage::Hold);
    let mut driver = Driver::start(&source, 2);
    driver.until("all rows", |driver| driver.rows.len() == 600);
    let first = driver.checkpoint();
    drop(driver);
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    east.produce(&name, numbered("e", 300..400)).unwrap();

    let mut driver = Driver::restore(&source, 3, &first);
    driver.until("east resumes", |driver| driver.count("east") == 100);
    driver.until("west is held", |driver| activity(driver, "west") == [SplitActivity::Held; 2]);
    let second = driver.checkpoint();
    for number in 0..2 {
        let split = format!("west/{name}/{number}");
        assert_eq!(second.offset(&split), first.offset(&split));
        assert!(second.offset(&split).is_some());
    }
    drop(driver);
    let mut driver = Driver::restore(&source, 1, &second);
    west.produce(&name, numbered("w", 300..350)).unwrap();
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    driver.until("west resumes", |driver| driver.count("west") == 50);
    driver.turn_for(Duration::from_millis(200));
    assert_each_once(&driver, numbered("w", 300..350));
}
