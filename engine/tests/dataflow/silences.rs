//! Ends, silences and slowness in event time: whole jobs, simulated from seeds, in which no row may
//! be late, for whoever is silent has rows to come and whoever ended has none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use thalweg_engine::checkpoint::{CheckpointId, MemoryStorage};
use thalweg_engine::cluster::{
    CrashAt, JobConfig, Outcome, SeededOrder, Simulated, SimulationSetup, simulate,
};
use thalweg_engine::graph::{Environment, Graph, Partitioner, Stream};
use thalweg_engine::operator::*;
use thalweg_engine::record::{Batch, EdgeSchema, time_type};
use thalweg_engine::runtime::{ChannelBounds, Clock, ManualClock};
use thalweg_engine::source::*;
use thalweg_engine::state::{MapBackend, StateIdentity};
use thalweg_engine::time::{MILLI, Micros, Watermark, WatermarkStrategy};
use thalweg_engine::{Error, Result};

use crate::simulated::seeds;

const SEEDS: usize = 40;
/// What makes a split idle.
const IDLE_AFTER: Micros = 2 * MILLI;
/// Long after everybody who is silent became idle, also when the simulator polls it late.
const MUCH_LATER: Micros = 400 * MILLI;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("time", time_type(), false)]))
}

/// A row's event time, and the processing time at which it is there to be read.
type Arrival = (i64, Micros);

/// A bounded source whose rows arrive in the course of time. Each poll brings rows of one split.
#[derive(Clone)]
struct Arrivals {
    splits: Vec<Vec<Arrival>>,
    rows_per_poll: usize,
}

impl Source for Arrivals {
    fn name(&self) -> String {
        "arrivals".into()
    }
    fn output(&self) -> Result<EdgeSchema> {
        Ok(EdgeSchema::new(schema()))
    }
    fn identity(&self) -> StateIdentity {
        StateIdentity::of("arrivals")
    }
    fn enumerator(&self, _restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        Ok(Box::new(Dealer { splits: self.splits.len() }))
    }
    fn reader(&self, _cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(ArrivalsReader {
            source: self.clone(),
            splits: BTreeMap::new(),
            turn: 0,
            no_more: false,
        }))
    }
}

/// Deals splits out in turn, from their beginning: these jobs are not restored.
struct Dealer {
    splits: usize,
}

impl Enumerator for Dealer {
    fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<EnumeratorAction>> {
        let EnumeratorEvent::Started { parallelism, .. } = event else { return Ok(Vec::new()) };
        let split = |index: usize| SplitState { id: SplitId(index.to_string().into()), position: Vec::new() };
        let hand = |subtask: u32| EnumeratorAction::Assign {
            subtask,
            splits: (subtask as usize..self.splits).step_by(parallelism as usize).map(split).collect(),
        };
        Ok((0..parallelism).map(hand).chain([EnumeratorAction::NoMoreSplits]).collect())
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
}

struct ArrivalsReader {
    source: Arrivals,
    splits: BTreeMap<SplitId, usize>,
    turn: usize,
    no_more: bool,
}

impl SourceReader for ArrivalsReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, _: &mut ReaderContext<'_>) -> Result<()> {
        self.splits.extend(splits.into_iter().map(|split| (split.id, 0)));
        Ok(())
    }
    fn release_splits(&mut self, _: &[SplitId], _: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        Err(Error::internal("not asked for"))
    }
    fn no_more_splits(&mut self) {
        self.no_more = true;
    }
    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        let ids: Vec<SplitId> = self.splits.keys().cloned().collect();
        let mut next_at: Option<Micros> = None;
        for offset in 0..ids.len() {
            let id = &ids[(self.turn + offset) % ids.len()];
            let rows = &self.source.splits[id.0.parse::<usize>().unwrap()];
            let from = self.splits[id];
            let there = rows[from..].iter().take(self.source.rows_per_poll);
            let times: Vec<i64> =
                there.take_while(|(_, at)| *at <= cx.now()).map(|(time, _)| *time).collect();
            let to = from + times.len();
            if !times.is_empty() {
                let column = TimestampMicrosecondArray::from(times).with_timezone("+00:00");
                cx.emit(id, Batch::new(RecordBatch::try_new(schema(), vec![Arc::new(column)])?));
            }
            if to == rows.len() {
                self.splits.remove(id);
                cx.effect(ReaderEffect::SplitFinished(SplitState { id: id.clone(), position: Vec::new() }));
            } else {
                self.splits.insert(id.clone(), to);
            }
            if to > from || to == rows.len() {
                self.turn += offset + 1;
                return Ok(ReaderStatus::Ready);
            }
            next_at = Some(next_at.map_or(rows[from].1, |at| at.min(rows[from].1)));
        }
        Ok(match next_at {
            Some(_) => ReaderStatus::Waiting(next_at),
            None if self.no_more => ReaderStatus::Finished,
            None => ReaderStatus::Waiting(None),
        })
    }
    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        Ok(Vec::new())
    }
}

/// What a job's last operator saw.
#[derive(Clone, Default)]
struct Witnessed {
    rows: Vec<i64>,
    /// Those among them that were late.
    late: Vec<i64>,
    /// The watermarks before the last.
    watermarks: Vec<i64>,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Witnessed>>);

impl OperatorFactory for Seen {
    fn name(&self) -> String {
        "seen".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
    fn outputs(&self, _inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(Vec::new())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Seen {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let times = batch.records().column(0).as_primitive::<TimestampMicrosecondType>();
        let mut seen = self.0.lock().unwrap();
        seen.rows.extend(times.values());
        seen.late.extend(times.values().iter().filter(|&&time| Watermark(time) <= cx.watermark()));
        Ok(Step::Done)
    }
    fn watermark(&mut self, watermark: Watermark, _: &mut OperatorContext<'_>) -> Result<Step> {
        if watermark < Watermark::MAX {
            self.0.lock().unwrap().watermarks.push(watermark.0);
        }
        Ok(Step::Done)
    }
}

/// Passes rows on, and takes `delay` for each batch: the whole process stands still meanwhile.
#[derive(Clone)]
struct Slow {
    clock: ManualClock,
    delay: Micros,
}

impl OperatorFactory for Slow {
    fn name(&self) -> String {
        "slow".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Slow {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.clock.advance_to(self.clock.monotonic() + self.delay);
        cx.emit(batch);
        Ok(Step::Done)
    }
}

fn timed(env: &Environment, source: &Arrivals) -> Stream {
    // Of several that are silent one may be the first to speak: it is no more ahead than this.
    let strategy = WatermarkStrategy::bounded_out_of_order(100).idle_after(IDLE_AFTER);
    env.source(source.clone()).watermarks("time", strategy)
}

/// Runs a job for each seed; it must see all rows of `sources`, none of them late.
fn nothing_is_late(
    job: impl Fn(&mut SeededOrder, &ManualClock, &Seen) -> (Graph, Vec<Arrivals>),
) -> Vec<Witnessed> {
    let mut witnessed = Vec::new();
    for seed in seeds().into_iter().take(SEEDS) {
        let mut order = SeededOrder::new(seed ^ 0x51_1e4c);
        let (clock, seen) = (ManualClock::new(0), Seen::default());
        let (graph, sources) = job(&mut order, &clock, &seen);
        let bounds = ChannelBounds { rows_max: 1 + order.below(50), bytes_max: 1 << 20 };
        let parallelism = 1 + order.below(3) as u32;
        run_to_end(graph, order.next_u64(), parallelism, clock, bounds);
        let Witnessed { mut rows, late, .. } = seen.0.lock().unwrap().clone();
        rows.sort_unstable();
        let mut expected: Vec<_> =
            sources.iter().flat_map(|source| source.splits.iter().flatten().map(|(time, _)| *time)).collect();
        expected.sort_unstable();
        assert_eq!(rows, expected, "seed {seed}");
        assert!(late.is_empty(), "seed {seed}: late: {late:?}");
        witnessed.push(seen.0.lock().unwrap().clone());
    }
    witnessed
}

/// Splits whose rows arrive from `at` on, one a tenth of a millisecond, with times from `time` on.
fn splits(order: &mut SeededOrder, time: i64, at: Micros) -> Vec<Vec<Arrival>> {
    let split = |order: &mut SeededOrder| {
        (0..1 + order.below(60) as i64).map(|i| (time + i, at + i * MILLI / 10)).collect()
    };
    (0..1 + order.below(3)).map(|_| split(order)).collect()
}

#[test]
fn f8_a_source_that_ends_beside_a_silent_one_does_not_make_its_rows_late() {
    nothing_is_late(|order, _, seen| {
        let rows_per_poll = 1 + order.below(8);
        let history = Arrivals { splits: splits(order, 0, 0), rows_per_poll };
        let topic = Arrivals { splits: splits(order, 1_000, MUCH_LATER), rows_per_poll };
        let env = Environment::new();
        let (old, new) = (timed(&env, &history).uid("history"), timed(&env, &topic).uid("topic"));
        // Either may be the first.
        let (first, second) = if order.below(2) == 0 { (old, new) } else { (new, old) };
        first.union_apply(&[&second], Arc::new(seen.clone())).uid("seen");
        (env.build().unwrap(), vec![history, topic])
    });
}

#[test]
fn f8_a_split_that_ends_before_a_silent_one_of_its_source_does_not_make_its_rows_late() {
    nothing_is_late(|order, _, seen| {
        let mut early = splits(order, 0, 0);
        early.extend(splits(order, 1_000, MUCH_LATER));
        let source = Arrivals { splits: early, rows_per_poll: 1 + order.below(8) };
        let env = Environment::new();
        timed(&env, &source).apply_dyn(Arc::new(seen.clone()), Some(Partitioner::Rebalance)).uid("seen");
        (env.build().unwrap(), vec![source])
    });
}

#[test]
fn slowness_is_never_taken_for_idleness() {
    nothing_is_late(|order, clock, seen| {
        // All rows are there from the beginning; each split's times go ahead at a pace of its own.
        let split = |pace: i64| (0..60).map(|i| (i * pace, 0)).collect();
        let source = Arrivals { splits: vec![split(10), split(1), split(3)], rows_per_poll: 1 };
        let delay = IDLE_AFTER * (1 + order.below(100) as i64);
        let env = Environment::new();
        let slow = timed(&env, &source).apply(Slow { clock: clock.clone(), delay }).uid("slow");
        slow.apply_dyn(Arc::new(seen.clone()), Some(Partitioner::Rebalance)).uid("seen");
        (env.build().unwrap(), vec![source])
    });
}

/// Passes rows on without their watermarks.
struct Plain;

impl OperatorFactory for Plain {
    fn name(&self) -> String {
        "plain".into()
    }
    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Plain))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }
}

impl Operator for Plain {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(batch);
        Ok(Step::Done)
    }
}

#[test]
fn watermarks_made_behind_an_operator_go_on_and_wait_for_no_silent_instance() {
    let witnessed = nothing_is_late(|order, _, seen| {
        // A single split: of several instances behind it, those that get no rows must hold nobody.
        // The bound is wide, for instances that were idle may be behind the others.
        let rows = (0..60).map(|i| (i * 10, i * MILLI / 2)).chain([(700, MUCH_LATER)]).collect();
        let source = Arrivals { splits: vec![rows], rows_per_poll: 1 + order.below(8) };
        let env = Environment::new();
        let strategy = WatermarkStrategy::bounded_out_of_order(1_000).idle_after(IDLE_AFTER);
        let plain = env.source(source.clone()).apply_dyn(Arc::new(Plain), Some(Partitioner::Rebalance));
        let timed = plain.watermarks("time", strategy).uid("timed").apply(Plain).uid("behind");
        timed.apply_dyn(Arc::new(seen.clone()), Some(Partitioner::Rebalance)).uid("seen");
        (env.build().unwrap(), vec![source])
    });
    for Witnessed { watermarks, .. } in witnessed {
        assert!(watermarks.iter().any(|&watermark| watermark >= 500 - 1_001), "{watermarks:?}");
    }
}

#[test]
fn a_stream_without_watermarks_does_not_hold_back_one_that_has_them() {
    let seen = Seen::default();
    let early = Arrivals { splits: vec![(0..60).map(|i| (i, i * MILLI)).collect()], rows_per_poll: 3 };
    let rules = Arrivals { splits: vec![vec![(0, 0), (1, 10 * MUCH_LATER)]], rows_per_poll: 1 };
    let env = Environment::new();
    let rules = env.source(rules).uid("rules");
    timed(&env, &early).connect(&rules, Arc::new(seen.clone()), [None, Some(Partitioner::Broadcast)]);
    run_to_end(env.build().unwrap(), 3, 1, ManualClock::new(0), ChannelBounds::default());
    let watermarks = seen.0.lock().unwrap().watermarks.clone();
    assert!(watermarks.last() > Some(&-60), "the watermark went on before the rules ended: {watermarks:?}");
}

fn run_to_end(graph: Graph, seed: u64, parallelism: u32, clock: ManualClock, bounds: ChannelBounds) {
    let mut config = JobConfig::new("silences");
    config.parallelism = parallelism;
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = 20 * MILLI;
    let setup = SimulationSetup {
        seed,
        faults: Box::new(CrashAt(None)),
        steps_max: 400_000,
        clock,
        storage: Arc::new(MemoryStorage::default()),
        backend: Arc::new(MapBackend::default()),
        bounds,
    };
    let ended = simulate(graph, config, setup).unwrap();
    assert_eq!(ended, Simulated::Ended(Outcome::Completed), "seed {seed}");
}
