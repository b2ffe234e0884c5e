//! A topic that was deleted and made anew is another topic (KIP-516): its offsets begin again.

use std::time::Duration;

use thalweg_connectors::kafka::OnTopicRecreated;
use thalweg_testkit::{KafkaCluster, eventually};

use crate::driver::{BOUND, Driver, assert_each_once};
use crate::world::{numbered, topic, topology};

fn make_anew(cluster: &KafkaCluster, topic: &str, partitions: i32) {
    cluster.delete_topic(topic).unwrap();
    eventually(BOUND, "the topic to be made anew", || cluster.create_topic(topic, partitions).ok()).unwrap();
}

#[test]
fn a_topic_made_anew_while_nothing_ran_fails_the_job_or_is_read_from_its_beginning() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("anew");
    east.create_topic(&name, 1).unwrap();
    east.produce(&name, numbered("old", 0..10)).unwrap();
    let world = topology(&name, &[("east", east)]);
    let mut driver = Driver::start(&world.source(), 1);
    driver.until("ten rows", |driver| driver.rows.len() == 10);
    let checkpoint = driver.checkpoint();
    drop(driver);
    // It has more records than were read of the old one: no broker calls the offset gone.
    make_anew(east, &name, 1);
    east.produce(&name, numbered("new", 0..20)).unwrap();

    let mut failing = Driver::restore(&world.source(), 1, &checkpoint);
    let error = failing.try_until("an error", |_| false).unwrap_err();
    let expected = format!("topic east/{name} was deleted and made anew");
    assert!(error.to_string().contains(&expected) && !error.is_retryable(), "{error}");
    assert!(failing.rows.is_empty());

    let source = world.source().on_topic_recreated(OnTopicRecreated::Restart);
    let mut restarting = Driver::restore(&source, 1, &checkpoint);
    restarting.until("the new rows", |driver| driver.rows.len() >= 20);
    restarting.turn_for(Duration::from_millis(200));
    assert_each_once(&restarting, numbered("new", 0..20));
    assert_eq!(restarting.checkpoint().offset(&format!("east/{name}/0")), Some(20));
}

#[test]
fn a_topic_made_anew_while_it_is_read_is_given_back_and_read_from_its_beginning() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("anew-live");
    east.create_topic(&name, 2).unwrap();
    east.produce(&name, numbered("old", 0..100)).unwrap();
    let world = topology(&name, &[("east", east)]);
    let source = world.source().on_topic_recreated(OnTopicRecreated::Restart);
    let mut driver = Driver::start(&source, 2);
    driver.until("the old rows", |driver| driver.rows.len() == 100);
    driver.checkpoint();
    make_anew(east, &name, 1);
    // Fewer than were read: the old offset is gone, and that says nothing about the new topic.
    east.produce(&name, numbered("new", 0..3)).unwrap();
    for _ in 0..100 {
        driver.turn_for(Duration::from_millis(100));
        driver.checkpoint();
        if driver.rows.len() > 100 {
            break;
        }
    }
    driver.until("the new rows", |driver| driver.rows.len() >= 103);
    driver.turn_for(Duration::from_millis(200));
    assert_each_once(&driver, [numbered("old", 0..100), numbered("new", 0..3)].concat());
    assert_eq!(driver.owner.keys().collect::<Vec<_>>(), [&format!("east/{name}/0")]);
}
