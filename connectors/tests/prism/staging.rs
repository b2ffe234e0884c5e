//! Segments: uploaded as they fill, kept over an abort, taken back when no manifest will name them;
//! and the disk bound, at which a job stalls and goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use thalweg_connectors::prism::PrismTarget;
use thalweg_connectors::sink::StreamSink;
use thalweg_connectors::vec::VecSource;
use thalweg_engine::checkpoint::collect::{Collector, Sweep};
use thalweg_engine::checkpoint::fault::{Call, Fault, FaultyStorage, Operation};
use thalweg_engine::checkpoint::log::LogView;
use thalweg_engine::checkpoint::{CheckpointStorage, JobLayout, MemoryStorage};
use thalweg_engine::cluster::{JobConfig, JobHandle, Outcome, start};
use thalweg_engine::graph::Environment;
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::Step;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;
use thalweg_testkit::eventually;

use crate::bench::{Bench, sink, values};
use crate::exactly_once::by_id;
use crate::sink_bench::batch;
use crate::world::{BOUND, Topic, assert_each_once, world};

/// A store that refuses segments while `away`, and counts those that it took.
struct Store {
    away: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    storage: Arc<dyn CheckpointStorage>,
}

fn store(job: &str) -> Store {
    let (away, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (refuses, counts) = (away.clone(), taken.clone());
    let plan = move |call: &Call<'_>| {
        if call.operation != Operation::Put || !call.path.contains("/segment-") {
            return Fault::None;
        }
        if refuses.load(Ordering::SeqCst) {
            return Fault::FailBefore;
        }
        counts.fetch_add(1, Ordering::SeqCst);
        Fault::None
    };
    let inner = Arc::new(MemoryStorage::new());
    let storage = FaultyStorage::new(inner, JobLayout::new(job).unwrap(), Box::new(plan));
    Store { away, taken, storage: Arc::new(storage) }
}

fn segments(storage: &dyn CheckpointStorage) -> usize {
    let listed = storage.list("test/checkpoints/").unwrap();
    listed.iter().filter(|object| object.path.contains("/segment-")).count()
}

#[test]
fn p5_segments_are_uploaded_as_they_fill_and_leave_the_disk() {
    let world = world();
    let topic = world.topic("p5-fill", 1);
    let sink = sink(&topic, PrismTarget::Embedded(topic.router())).segment_bytes(1_000);
    let store = store("test");
    let mut bench = Bench::restored(&sink, 1, 0, store.storage.clone());
    bench.write(0..1_000).unwrap();
    // Long before a barrier all but the last segment are in the store, and off the disk.
    eventually(BOUND, "the uploads", || {
        (bench.registry.total("prism_sink_staged_bytes") < 1_000).then_some(())
    })
    .unwrap();
    let early = segments(&*store.storage);
    assert!(early > 10, "{early} segments were uploaded before the barrier");
    let prepared = bench.barrier().unwrap().finish().unwrap();
    assert!((early..=early + 1).contains(&prepared.len()), "only the last one was left");
    assert_eq!(bench.registry.total("prism_sink_staged_bytes"), 0);
    assert!(world.consume(&topic).values().all(Vec::is_empty), "nothing is published before the commit");
    bench.commit(&prepared).unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..1_000));
}

#[test]
fn p5_what_an_abort_leaves_in_the_store_rides_with_the_next_and_is_not_uploaded_again() {
    let world = world();
    let topic = world.topic("p5-ride", 1);
    let sink = sink(&topic, PrismTarget::Embedded(topic.router())).segment_bytes(1_000);
    let store = store("test");
    let mut bench = Bench::restored(&sink, 1, 0, store.storage.clone());
    bench.write(0..200).unwrap();
    let aborted = bench.barrier().unwrap();
    bench.aborted(aborted.id);
    // Its tasks never ran.
    drop(aborted);
    bench.write(200..300).unwrap();
    store.away.store(true, Ordering::SeqCst);
    let declined = bench.barrier().unwrap();
    let id = declined.id;
    assert!(declined.finish().is_err(), "the store is away: the checkpoint is declined");
    bench.aborted(id);
    store.away.store(false, Ordering::SeqCst);
    bench.write(300..310).unwrap();
    let prepared = bench.barrier().unwrap().finish().unwrap();
    assert_eq!(store.taken.load(Ordering::SeqCst), prepared.len(), "each segment travels once");
    assert_eq!(segments(&*store.storage), prepared.len());
    bench.commit(&prepared).unwrap();
    let (records, copies) = world.distinct(&topic);
    assert_eq!(copies, 0);
    assert_each_once(&records, values(0..310));
}

#[test]
fn p5_a_sink_that_goes_takes_back_what_no_manifest_names_and_nothing_else() {
    let world = world();
    let topic = world.topic("p5-back", 1);
    let sink = sink(&topic, PrismTarget::Embedded(topic.router())).segment_bytes(1_000);
    let store = store("test");
    let mut bench = Bench::restored(&sink, 1, 0, store.storage.clone());
    bench.write(0..200).unwrap();
    let prepared = bench.barrier().unwrap().finish().unwrap();
    bench.write(200..400).unwrap();
    eventually(BOUND, "early segments", || (segments(&*store.storage) > prepared.len()).then_some(()))
        .unwrap();
    let committer = bench.committer();
    drop(bench);
    eventually(BOUND, "the clean-up", || (segments(&*store.storage) == prepared.len()).then_some(()))
        .unwrap();
    committer.commit(&prepared, &*store.storage, &|| false).unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..200));
}

#[test]
fn p5_segments_of_a_dead_generation_are_orphans_to_its_successor() {
    let world = world();
    let topic = world.topic("p5-orphan", 1);
    let sink = sink(&topic, PrismTarget::Embedded(topic.router())).segment_bytes(1_000);
    let store = store("test");
    let mut bench = Bench::restored(&sink, 1, 0, store.storage.clone());
    bench.write(0..200).unwrap();
    let prepared = bench.barrier().unwrap().finish().unwrap();
    let layout = JobLayout::new("test").unwrap();
    let listed = store.storage.list("test/checkpoints/").unwrap();
    let orphans = |generation| {
        let sweep = Sweep { generation, grace_over: true, job_over: false };
        Collector::new().orphans(&layout, &LogView::default(), sweep, &listed).unwrap()
    };
    assert!(orphans(1).is_empty(), "its own generation keeps them");
    let orphans = orphans(2);
    let named: Vec<_> = prepared.iter().flat_map(|one| one.objects.clone()).collect();
    assert!(!named.is_empty() && named.iter().all(|name| orphans.contains(name)), "{orphans:?}");
}

#[test]
fn staging_at_its_bound_is_full_counted_once_and_freed_by_uploads() {
    let world = world();
    let topic = world.topic("p5-bound", 1);
    let sink = sink(&topic, PrismTarget::Embedded(topic.router())).staging_bytes(1_000);
    let store = store("test");
    store.away.store(true, Ordering::SeqCst);
    let mut bench = Bench::restored(&sink, 1, 0, store.storage.clone());
    assert!(!bench.operator.is_full());
    bench.write(0..100).unwrap();
    assert!(bench.operator.is_full(), "the input is held back");
    // What comes before a barrier is taken all the same.
    bench.write(100..110).unwrap();
    assert_eq!(bench.registry.total("prism_sink_stalls_total"), 1, "one stall, counted once");
    assert_eq!(bench.registry.total("prism_sink_stalled"), 1);
    let failed = || (bench.registry.total("prism_sink_upload_failures_total") > 0).then_some(());
    eventually(BOUND, "an upload to fail", failed).unwrap();
    store.away.store(false, Ordering::SeqCst);
    eventually(BOUND, "room", || (!bench.operator.is_full()).then_some(())).unwrap();
    assert_eq!(bench.call(|operator, cx| operator.wake(cx)).unwrap(), Step::Done);
    assert_eq!(bench.registry.total("prism_sink_stalled"), 0);
    let prepared = bench.barrier().unwrap().finish().unwrap();
    bench.commit(&prepared).unwrap();
    assert_each_once(&world.distinct(&topic).0, values(0..110));
}

#[test]
fn p5_an_id_names_one_record_over_crashes_and_restores_at_other_parallelisms() {
    const ROWS: i64 = 60_000;
    let world = world();
    let topic = world.topic("p5-rescale", 2);
    let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::new());
    for (run, parallelism) in [2, 3, 1].into_iter().enumerate() {
        let env = Environment::new();
        let records = batch(0..ROWS).into_records();
        let source = VecSource::new(records.schema(), [records]).dealt_to(4).unwrap().batch_rows(4);
        let sink = sink(&topic, PrismTarget::Embedded(topic.router())).segment_bytes(20_000);
        env.source(source).parallelism(1).sink(sink).uid("sink").parallelism(parallelism);
        let mut config = JobConfig::new("test");
        config.coordinator.checkpoint_interval = 20 * MILLI;
        let backend = Arc::new(MapBackend::default());
        let bounds = ChannelBounds { rows_max: 100, bytes_max: 1 << 20 };
        let graph = env.build().unwrap();
        let job = start(graph, config, storage.clone(), backend, Registry::default(), bounds).unwrap();
        if run < 2 {
            let published = || (job.metrics().total("checkpoints_completed_total") >= 2).then_some(());
            eventually(BOUND, "two checkpoints", published).unwrap();
            assert!(!job.is_over(), "the run that is to be crashed was over before");
            job.abandon();
            job.wait().unwrap();
        } else {
            assert_eq!(job.wait().unwrap().outcome, Outcome::Completed);
        }
    }
    by_id(&world, &topic);
    assert_each_once(&world.distinct(&topic).0, values(0..ROWS));
}

/// A job that writes the bench's rows through an exchange, or in the source's own task, into a
/// sink with little room.
fn job(topic: &Topic, rows: i64, exchange: bool, store: &Store) -> JobHandle {
    let env = Environment::new();
    let records = batch(0..rows).into_records();
    let source = VecSource::new(records.schema(), [records]).batch_rows(100);
    let sink = sink(topic, PrismTarget::Embedded(topic.router())).staging_bytes(4_000).segment_bytes(1_000);
    env.source(source).sink(sink).uid("sink").parallelism(if exchange { 2 } else { 1 });
    let mut config = JobConfig::new("test");
    config.coordinator.checkpoint_interval = 300 * MILLI;
    start(
        env.build().unwrap(),
        config,
        store.storage.clone(),
        Arc::new(MapBackend::default()),
        Registry::default(),
        ChannelBounds { rows_max: 200, bytes_max: 1 << 20 },
    )
    .unwrap()
}

#[test]
fn p5_p6_a_job_whose_disk_bound_is_far_below_an_epochs_rows_stalls_and_delivers_each_once() {
    const ROWS: i64 = 20_000;
    let world = world();
    for exchange in [false, true] {
        let topic = world.topic("p5-stall", 2);
        let store = store("test");
        store.away.store(true, Ordering::SeqCst);
        let job = job(&topic, ROWS, exchange, &store);
        eventually(BOUND, "the stall", || (job.metrics().total("prism_sink_stalled") >= 1).then_some(()))
            .unwrap();
        // Checkpoints fail meanwhile, and the job does not.
        let failed = || (job.metrics().total("checkpoints_failed_total") >= 2).then_some(());
        eventually(BOUND, "checkpoints to fail", failed).unwrap();
        assert!(!job.is_over());
        let staged = job.metrics().total("prism_sink_staged_total");
        assert!(staged < ROWS / 2, "{staged} of {ROWS} rows were taken with the store away");
        store.away.store(false, Ordering::SeqCst);
        eventually(4 * BOUND, "the job's end", || job.is_over().then_some(())).unwrap();
        let metrics = job.metrics().clone();
        let summary = job.wait().unwrap();
        assert_eq!((summary.outcome, summary.restarts), (Outcome::Completed, 0));
        assert!(metrics.total("prism_sink_stalls_total") > 0);
        let (records, copies) = world.distinct(&topic);
        assert_eq!(copies, 0);
        assert_each_once(&records, values(0..ROWS));
    }
}
