//! The plain sink: what came before a barrier is acknowledged before the snapshot is done; a full
//! queue loses nothing; a refusal fails the task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use thalweg_connectors::kafka::KafkaSink;
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_engine::Result;
use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::operator::Step;
use thalweg_testkit::{KafkaCluster, ProxyMode};

use crate::driver::BOUND;
use crate::sink_bench::{Bench, Pending, Values, values};
use crate::world::topic;

fn bench(sink: KafkaSink) -> Bench {
    let bench = Bench::open(sink, 1, 0, Arc::new(MemoryStorage::new()));
    assert!(bench.committer.is_none(), "the plain sink has one phase");
    bench
}

fn finish(pending: Pending) -> Result<()> {
    assert!(pending.finish()?.is_empty());
    Ok(())
}

fn sink(cluster: &KafkaCluster, topic: &str, settings: &[(&str, &str)]) -> KafkaSink {
    let mut address = Cluster::at(cluster.bootstrap()).with("broker.address.family", Setting::given("v4"));
    for (name, value) in settings {
        address = address.with(name, Setting::given(*value));
    }
    KafkaSink::new("west", address, topic, || Ok(Box::new(Values))).key(["key"])
}

#[test]
fn all_that_came_before_a_barrier_is_there_when_its_snapshot_is_done() {
    let west = KafkaCluster::shared("west").unwrap();
    let name = topic("sink");
    west.create_topic(&name, 3).unwrap();
    let mut bench = bench(sink(west, &name, &[("linger.ms", "1000")]));
    bench.write(0..500).unwrap();
    let pending = bench.barrier().unwrap();
    bench.write(500..600).unwrap();
    finish(pending).unwrap();
    let records = west.consume(&name).unwrap();
    let there: BTreeSet<_> = records.iter().map(|record| record.text()).collect();
    assert_eq!(values(0..500).filter(|value| there.contains(value)).count(), 500);
    for record in &records {
        let key: i64 = String::from_utf8(record.key.clone().unwrap()).unwrap().parse().unwrap();
        let number: i64 = record.text()["v-".len()..].parse().unwrap();
        assert_eq!(number % 20, key, "{key} is not the key of {}", record.text());
    }
    finish(bench.barrier().unwrap()).unwrap();
    assert_eq!(west.consume(&name).unwrap().len(), 600);
    assert_eq!(bench.registry.total("kafka_records_written_total"), 600);
}

#[test]
fn a_full_queue_holds_the_input_back_and_loses_nothing() {
    let west = KafkaCluster::start_behind_proxy("sink-west").unwrap();
    let name = topic("sink-full");
    west.create_topic(&name, 2).unwrap();
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let mut bench = bench(sink(&west, &name, &[("queue.buffering.max.messages", "100")]));
    assert_eq!(bench.offer(0..1000).unwrap(), Step::More);
    assert_eq!(bench.resume().unwrap(), Step::More);
    assert!(bench.barrier().is_err(), "rows that are not sent yet decline the checkpoint");
    west.proxy().unwrap().set(ProxyMode::Pass).unwrap();
    let start = Instant::now();
    while bench.resume().unwrap() == Step::More {
        assert!(start.elapsed() < BOUND);
    }
    finish(bench.barrier().unwrap()).unwrap();
    let mut values: Vec<_> = west.consume(&name).unwrap().iter().map(|record| record.text()).collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 1000);
    assert!(bench.registry.total("kafka_producer_stalls_total") > 0);
}

#[test]
fn a_record_that_is_not_delivered_fails_the_snapshot_and_the_task() {
    let west = KafkaCluster::start_behind_proxy("sink-dead").unwrap();
    let name = topic("sink-dead");
    west.create_topic(&name, 1).unwrap();
    west.proxy().unwrap().set(ProxyMode::Refuse).unwrap();
    let mut bench = bench(sink(&west, &name, &[("message.timeout.ms", "1500")]));
    bench.write(0..3).unwrap();
    let failed = finish(bench.barrier().unwrap()).unwrap_err().to_string();
    assert!(failed.contains(&format!("west/{name}/")), "{failed}");
    assert!(bench.write(3..4).is_err());
    assert!(bench.call(|operator, cx| operator.wake(cx)).is_err());
}
