//! An operator that gathers rows and has them under way elsewhere: a watermark passes behind the
//! rows that came before it, a barrier waits for them, and what is counted behind it is counted
//! exactly once over crashes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use thalweg_engine::Result;
use thalweg_engine::checkpoint::{CheckpointId, MemoryStorage};
use thalweg_engine::cluster::{FaultCounts, JobConfig, Outcome, SeededOrder, SimulatedJob};
use thalweg_engine::graph::Stream;
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::*;
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::{MapBackend, StateIdentity};
use thalweg_engine::time::{MILLI, Micros, Watermark};

use crate::job::{Ledger, Numbers, expected, keyed_count_through};
use crate::simulated::seeds;

/// Enough: each has two gathering operators and three crashes.
const SEEDS: usize = 60;

/// What the runs came to: proofs that they prove something.
#[derive(Clone, Default)]
struct Seen {
    held_watermarks: Arc<AtomicUsize>,
    waits: Arc<AtomicUsize>,
    at_barriers: Arc<AtomicUsize>,
}

/// Holds each batch back for `delay`, or until it is flushed, which takes `waits` waits.
#[derive(Clone)]
struct Gather {
    delay: Micros,
    waits: usize,
    is_threaded: bool,
    seen: Seen,
}

impl OperatorFactory for Gather {
    fn name(&self) -> String {
        "gather".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Gatherer {
            gather: self.clone(),
            rows: VecDeque::new(),
            passed: Watermark::MIN,
            waker: None,
            left: 0,
        }))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

enum Held {
    Batch(Micros, Batch),
    Watermark(Watermark),
}

struct Gatherer {
    gather: Gather,
    rows: VecDeque<Held>,
    passed: Watermark,
    waker: Option<Waker>,
    left: usize,
}

impl Gatherer {
    fn wait(&mut self) -> Step {
        self.left -= 1;
        self.gather.seen.waits.fetch_add(1, Ordering::Relaxed);
        let waker = self.waker.clone().unwrap();
        if self.gather.is_threaded {
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_micros(300));
                waker.wake();
            });
        } else {
            waker.wake();
        }
        Step::Wait
    }

    fn emit(&mut self, until: Micros, cx: &mut OperatorContext<'_>) {
        while let Some(held) = self.rows.front() {
            match held {
                Held::Batch(due, _) if *due > until => break,
                Held::Batch(..) => {
                    let Some(Held::Batch(_, batch)) = self.rows.pop_front() else { unreachable!() };
                    cx.emit(batch);
                }
                Held::Watermark(watermark) => {
                    self.passed = *watermark;
                    self.rows.pop_front();
                }
            }
        }
        if let Some(Held::Batch(due, _)) = self.rows.front() {
            cx.wake_at(*due);
        }
    }
}

impl Operator for Gatherer {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.waker = Some(cx.waker.clone());
        Ok(())
    }
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        assert_eq!(self.left, 0, "nothing comes to an operator that waits");
        self.rows.push_back(Held::Batch(cx.now() + self.gather.delay, batch));
        self.emit(cx.now(), cx);
        Ok(Step::Done)
    }
    fn watermark(&mut self, watermark: Watermark, _: &mut OperatorContext<'_>) -> Result<Step> {
        if !self.rows.is_empty() {
            self.gather.seen.held_watermarks.fetch_add(1, Ordering::Relaxed);
            self.rows.push_back(Held::Watermark(watermark));
        }
        Ok(Step::Done)
    }
    fn watermark_bound(&self) -> Option<Watermark> {
        self.rows.iter().any(|held| matches!(held, Held::Watermark(_))).then_some(self.passed)
    }
    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        assert_eq!(self.left, 0, "nothing comes to an operator that waits");
        self.emit(cx.now(), cx);
        Ok(Step::Done)
    }
    fn flush(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        if self.rows.is_empty() {
            return Ok(Step::Done);
        }
        self.gather.seen.at_barriers.fetch_add(1, Ordering::Relaxed);
        self.left = self.gather.waits;
        self.resume(cx)
    }
    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        if self.left > 0 {
            return Ok(self.wait());
        }
        self.emit(Micros::MAX, cx);
        Ok(Step::Done)
    }
    fn end_of_data(&mut self, _: usize, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.left = self.gather.waits;
        self.resume(cx)
    }
    fn snapshot(&mut self, _: CheckpointId) -> Result<OperatorSnapshot> {
        assert!(self.rows.is_empty(), "flushed before the barrier");
        Ok(OperatorSnapshot::default())
    }
}

/// Passes rows on, none of which may be late.
struct NeverLate;

impl OperatorFactory for NeverLate {
    fn name(&self) -> String {
        "never late".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(NeverLate))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for NeverLate {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let times = batch.records().column(2).as_primitive::<TimestampMicrosecondType>();
        for &time in times.values() {
            assert!(Watermark(time) > cx.watermark(), "{time} came behind {:?}", cx.watermark());
        }
        cx.emit(batch);
        Ok(Step::Done)
    }
}

fn config(parallelism: u32) -> JobConfig {
    let mut config = JobConfig::new("gathering");
    config.parallelism = parallelism;
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = 5 * MILLI;
    config
}

fn run(seed: u64, seen: &Seen, counts: &Arc<FaultCounts>) -> std::result::Result<(), String> {
    let mut order = SeededOrder::new(seed ^ 0x9a7);
    let rows = (0..1 + order.below(3)).map(|_| 100 + order.below(300) as i64).collect();
    let source = Numbers { rows, rows_per_poll: 1 + order.below(8) as i64 };
    let (ledger, local) = (Ledger::default(), tempfile::tempdir().unwrap());
    let graph = |order: &mut SeededOrder| {
        let mut gather = || Gather {
            delay: order.below(3_000) as Micros,
            waits: order.below(3),
            is_threaded: false,
            seen: seen.clone(),
        };
        let (first, second) = (gather(), gather());
        // Two in one chain: the flush goes from one to the next.
        let through = |numbers: Stream| {
            numbers
                .apply(first)
                .uid("first")
                .apply(NeverLate)
                .uid("a")
                .apply(second)
                .uid("second")
                .apply(NeverLate)
                .uid("b")
        };
        Ok(keyed_count_through(source.clone(), through, Arc::new(ledger.clone())))
    };
    let job = SimulatedJob {
        name: "gathering",
        graph: &graph,
        interval: 5 * MILLI,
        steps: 2_000,
        faults_per_thousand: 20,
        local: local.path(),
        counts,
    };
    job.run(seed).map_err(|error| error.to_string())?;
    match ledger.rows() == expected(&[&source]) {
        true => Ok(()),
        false => Err("not exactly once".into()),
    }
}

#[test]
fn rows_under_way_are_overtaken_by_no_watermark_and_no_barrier() {
    let (seen, counts) = (Seen::default(), Arc::new(FaultCounts::default()));
    for seed in seeds().into_iter().take(SEEDS) {
        if let Err(error) = run(seed, &seen, &counts) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test --workspace --test dataflow gathering"
            );
        }
    }
    if std::env::var("THALWEG_SEED").is_err() {
        let [held, waits, barriers] = [&seen.held_watermarks, &seen.waits, &seen.at_barriers]
            .map(|count| count.load(Ordering::Relaxed));
        assert!(
            held > 400 && waits > 400 && barriers > 200,
            "{held} held, {waits} waits, {barriers} barriers"
        );
    }
}

#[test]
fn so_it_is_on_threads_that_wake_each_other() {
    let seen = Seen::default();
    let source = Numbers { rows: vec![20_000, 10, 10_000], rows_per_poll: 100 };
    let ledger = Ledger::default();
    let gather = Gather { delay: 500, waits: 2, is_threaded: true, seen: seen.clone() };
    let through = |numbers: Stream| numbers.apply(gather).uid("gather").apply(NeverLate).uid("never-late");
    let graph = keyed_count_through(source.clone(), through, Arc::new(ledger.clone()));
    let (storage, backend) = (Arc::new(MemoryStorage::default()), Arc::new(MapBackend::default()));
    let bounds = ChannelBounds::default();
    let job = thalweg_engine::cluster::start(graph, config(2), storage, backend, Registry::default(), bounds);
    let summary = job.unwrap().wait().unwrap();
    assert_eq!((summary.outcome, summary.restarts), (Outcome::Completed, 0));
    assert_eq!(ledger.rows(), expected(&[&source]));
    assert!(seen.waits.load(Ordering::Relaxed) > 0);
}
