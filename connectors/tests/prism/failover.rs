//! P3: a cluster is lost under load and returns. P7: keys keep their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_connectors::prism::{Delivery, PrismTarget, Router};
use thalweg_connectors::record_id::{RECORD_ID_HEADER, RecordId};
use thalweg_engine::metrics::Registry;
use thalweg_proto::prism::Record;
use thalweg_proto::prism::record_result::Outcome;
use thalweg_testkit::{ProxyMode, eventually};
use tokio::runtime::Runtime;

use crate::bench::{Bench, sink, values};
use crate::world::{BOUND, assert_each_once, world};

#[test]
fn p3_a_cluster_is_killed_under_load_nothing_is_lost_and_it_returns() {
    let world = world();
    let topic = world.topic("p3", 2);
    let registry = Registry::default();
    let gateway = topic.gateway(&registry);
    let target = PrismTarget::Gateway(gateway.endpoint());
    let mut bench = Bench::new(&sink(&topic, target).delivery(Delivery::AtLeastOnce));
    let mut next = 0;
    let mut write = |bench: &mut Bench, rows: i64| {
        bench.write(next..next + rows).unwrap();
        next += rows;
        next
    };
    write(&mut bench, 2000);
    bench.barrier().unwrap().finish().unwrap();
    let both = world.consume(&topic);
    assert!(!both["east"].is_empty() && !both["west"].is_empty(), "both share the load");

    write(&mut bench, 500);
    world.east.kill().unwrap();
    for _ in 0..20 {
        write(&mut bench, 200);
    }
    let start = Instant::now();
    bench.barrier().unwrap().finish().unwrap();
    let stood = start.elapsed();
    assert!(stood < Duration::from_secs(20), "the loss of a cluster held a checkpoint for {stood:?}");
    assert_eq!(registry.total("prism_breaker_open"), 1, "one breaker is open");
    // Only what was with east when it went can have failed there; the rest was not sent to it.
    let failed = registry.total("prism_deliveries_failed_total");
    assert!(failed <= 4_500, "{failed} deliveries failed, for 4,500 rows");

    world.east.restart().unwrap();
    eventually(BOUND, "the breaker to close", || {
        // Only records can prove that a half open cluster is well.
        write(&mut bench, 20);
        bench.barrier().unwrap().finish().unwrap();
        (registry.total("prism_breaker_open") == 0).then_some(())
    })
    .unwrap();
    let before = world.east.end_offsets(&topic.name).unwrap().iter().sum::<i64>();
    let total = write(&mut bench, 2000);
    bench.barrier().unwrap().finish().unwrap();
    let after = world.east.end_offsets(&topic.name).unwrap().iter().sum::<i64>();
    assert!(after - before > 300, "east is back in the rotation: {} of 2000", after - before);

    let (records, copies) = world.distinct(&topic);
    assert_each_once(&records, values(0..total));
    println!("{total} rows, {copies} copies, {stood:?} for the checkpoint over the loss");
    gateway.stop().unwrap();
}

#[test]
fn p3_a_cluster_that_goes_silent_is_passed_over() {
    let world = world();
    let topic = world.topic("p3-silent", 1);
    let registry = Registry::default();
    let router = Router::new(topic.router(), &registry.group(vec![])).unwrap();
    let record = |n: usize| Record { value: Some(format!("r{n}").into()), ..Record::default() };
    world.west.proxy().unwrap().set(ProxyMode::BlackHole).unwrap();
    let runtime = Runtime::new().unwrap();
    let start = Instant::now();
    let mut slow = 0;
    for round in 0..40 {
        let records: Arc<[Record]> = (0..10).map(|n| record(round * 10 + n)).collect();
        let called = Instant::now();
        for result in runtime.block_on(router.produce(&topic.name, records)) {
            let Some(Outcome::Ok(ok)) = result.outcome else { panic!("{result:?}") };
            assert_eq!(ok.cluster, "east");
        }
        slow += usize::from(called.elapsed() > Duration::from_secs(1));
    }
    assert!(slow <= 12, "{slow} of 40 calls waited for the silent cluster, {:?}", start.elapsed());
    assert!(registry.total("prism_records_rerouted_total") > 0);
    assert_eq!(world.east.consume(&topic.name).unwrap().len(), 400);
}

#[test]
fn p7_records_of_a_key_keep_their_order_in_one_partition() {
    let world = world();
    let topic = world.topic("p7", 3);
    let gateway = topic.gateway(&Registry::default());
    let target = PrismTarget::Gateway(gateway.endpoint());
    let mut bench = Bench::new(&sink(&topic, target).delivery(Delivery::AtLeastOnce));
    for batch in 0..40 {
        bench.write(batch * 500..(batch + 1) * 500).unwrap();
    }
    bench.barrier().unwrap().finish().unwrap();
    let mut places: BTreeMap<Vec<u8>, Vec<(&str, i32, i64, u64)>> = BTreeMap::new();
    for (cluster, records) in world.consume(&topic) {
        for record in records {
            let id = RecordId::decode(record.header(RECORD_ID_HEADER).unwrap()).unwrap().sequence;
            let place = (cluster, record.partition, record.offset, id);
            places.entry(record.key.unwrap()).or_default().push(place);
        }
    }
    assert_eq!(places.len(), 20);
    let mut clusters = BTreeMap::new();
    for (key, places) in places {
        let (cluster, partition, ..) = places[0];
        *clusters.entry(cluster).or_insert(0) += 1;
        assert!(places.iter().all(|&(c, p, ..)| (c, p) == (cluster, partition)), "key {key:?} moved");
        assert_eq!(places.len(), 1000);
        let mut sequences: Vec<_> =
            places.iter().map(|&(_, _, offset, sequence)| (offset, sequence)).collect();
        sequences.sort_unstable();
        assert!(sequences.is_sorted_by_key(|&(_, sequence)| sequence), "key {key:?} is out of order");
    }
    assert_eq!(clusters.len(), 2, "keys are spread over the clusters: {clusters:?}");
}
