//! The production source on clusters in memory, in whole simulated jobs: outages, crashes of the
//! process, failing tasks, pauses, steps of the clock, silent discoveries, storage faults, retention,
//! partitions that are added, a topic that is made anew. A failing seed is printed; `THALWEG_SEED=<seed> cargo test -p thalweg-connectors --test
//! kafka simulated` replays it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_connectors::collect::Collected;
use thalweg_connectors::kafka::{
    Happening, KafkaSource, MetadataColumn, OnOffsetGone, OnOutage, OnTopicRecreated, SimulatedKafka,
    SimulatedRecord,
};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::checkpoint::fault::FaultyStorage;
use thalweg_engine::checkpoint::{JobLayout, MemoryStorage};
use thalweg_engine::cluster::{
    CrashAt, FaultCounts, JobConfig, Moment, Outcome, ProcessFault, ProcessFaults, SeededFaults, SeededOrder,
    Simulated, SimulationSetup, seeded_store_faults, simulate,
};
use thalweg_engine::graph::{Environment, Graph};
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::{MILLI, Micros, SECOND, WatermarkStrategy};

use crate::jobs::values;
use crate::text_format::Text;
use crate::world::TopologyOnDisk;

const SEEDS: u64 = 60;
const TOPIC: &str = "flights";
const CLUSTERS: [&str; 3] = ["east", "west", "north"];
const PARTITIONS: i32 = 2;
/// What happens to the clusters is over by then.
const PLANNED: Micros = 30 * SECOND;
/// From one checkpoint to the next.
const INTERVAL: Micros = 500 * MILLI;
/// The process crashes within so many steps, and a task fails within as many.
const STEPS: usize = 1_500;
/// Long enough for the last run to read everything that is left.
const LAST_STEPS: u64 = 8_000;

fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// How often a record comes, at least and at most.
type Due = BTreeMap<String, RangeInclusive<usize>>;

struct Plan {
    kafka: SimulatedKafka,
    order: SeededOrder,
    due: Due,
}

impl Plan {
    fn any(&mut self, from: Micros, to: Micros) -> Micros {
        from + self.order.below((to - from) as usize) as Micros
    }

    fn plan(&mut self, at: Micros, cluster: &str, happening: Happening) {
        self.kafka.will_happen(at, &format!("{cluster}:1"), happening);
    }

    /// Records of one partition, written little by little; the names of their values.
    fn write(&mut self, cluster: &str, partition: i32, what: &str, span: (Micros, Micros)) -> Vec<String> {
        let mut times: Vec<_> = (0..60).map(|_| self.any(span.0, span.1)).collect();
        times.sort_unstable();
        let mut names = Vec::new();
        for (number, at) in times.into_iter().enumerate() {
            let value = format!("{cluster}-{partition}-{what}-{number}");
            let record = SimulatedRecord {
                value: Some(value.clone().into_bytes()),
                timestamp_ms: at / MILLI,
                ..SimulatedRecord::default()
            };
            let happening = Happening::Written { topic: TOPIC.into(), partition, records: vec![record] };
            self.plan(at, cluster, happening);
            self.due.insert(value.clone(), 1..=1);
            names.push(value);
        }
        names
    }

    /// Outages of one cluster.
    fn outages(&mut self, cluster: &str) {
        let mut at = self.any(0, 8 * SECOND);
        while at < PLANNED {
            self.plan(at, cluster, Happening::Goes);
            at = self.any(at + SECOND / 10, at + 6 * SECOND);
            self.plan(at, cluster, Happening::Returns);
            at = self.any(at + SECOND, at + 15 * SECOND);
        }
    }
}

fn world(seed: u64, clock: &ManualClock) -> Plan {
    let kafka = SimulatedKafka::new(Arc::new(clock.clone()), seed);
    let mut plan = Plan { kafka, order: SeededOrder::new(seed ^ 0xfa11), due: Due::new() };
    for cluster in CLUSTERS {
        plan.plan(0, cluster, Happening::TopicMade { topic: TOPIC.into(), partitions: PARTITIONS });
    }
    for cluster in ["east", "west"] {
        plan.outages(cluster);
        for partition in 0..PARTITIONS {
            plan.write(cluster, partition, "first", (0, PLANNED));
        }
    }
    // East gets a partition more.
    let grown = plan.any(2 * SECOND, 20 * SECOND);
    let happening = Happening::PartitionsAdded { topic: TOPIC.into(), total: PARTITIONS + 1 };
    plan.plan(grown, "east", happening);
    plan.write("east", PARTITIONS, "added", (grown, PLANNED));
    // West loses its oldest records of a partition.
    let lost = plan.order.below(40);
    let deleted = plan.any(10 * SECOND, PLANNED);
    let happening = Happening::Deleted { topic: TOPIC.into(), partition: 0, before: lost as i64 };
    plan.plan(deleted, "west", happening);
    for number in 0..lost {
        plan.due.insert(format!("west-0-first-{number}"), 0..=1);
    }
    // North's topic is made anew, and filled when that had time to be seen.
    for partition in 0..PARTITIONS {
        for value in plan.write("north", partition, "old", (0, 10 * SECOND)) {
            plan.due.insert(value, 0..=1);
        }
    }
    let anew = plan.any(5 * SECOND, 10 * SECOND);
    plan.plan(anew, "north", Happening::TopicDeleted { topic: TOPIC.into() });
    let happening = Happening::TopicMade { topic: TOPIC.into(), partitions: PARTITIONS };
    plan.plan(10 * SECOND + 1, "north", happening);
    for partition in 0..PARTITIONS {
        for value in plan.write("north", partition, "new", (20 * SECOND, PLANNED)) {
            if !is_prompt(seed) {
                // Read before a look shows the new id, they come once more.
                plan.due.insert(value, 1..=2);
            }
        }
    }
    plan
}

/// Every other pair of seeds has no pauses and no silent discovery, so that a topic made anew is seen in
/// time.
fn is_prompt(seed: u64) -> bool {
    (seed / 2).is_multiple_of(2)
}

/// Faults without what makes a process or a discovery late.
struct Prompt(SeededFaults);

impl ProcessFaults for Prompt {
    fn strike(&mut self, moment: &Moment) -> Option<ProcessFault> {
        let late =
            |fault: &ProcessFault| matches!(fault, ProcessFault::Pause(_) | ProcessFault::TaskStalls(..));
        self.0.strike(moment).filter(|fault| !late(fault))
    }
}

fn graph(source: &KafkaSource, collected: &Collected) -> Graph {
    let env = Environment::new();
    env.source(source.clone().metadata([MetadataColumn::Timestamp]))
        .watermarks("kafka_timestamp", WatermarkStrategy::bounded_out_of_order(0))
        .sink(collected.exactly_once_sink())
        .uid("out");
    env.build().unwrap()
}

fn run(seed: u64, counts: &Arc<FaultCounts>) -> Result<(), String> {
    let mut order = SeededOrder::new(seed);
    let clock = ManualClock::new(0);
    let plan = world(seed, &clock);
    let addresses = CLUSTERS.map(|cluster| format!("{cluster}:1"));
    let listed: Vec<_> = CLUSTERS.iter().zip(&addresses).map(|(name, at)| (*name, at.as_str())).collect();
    let topology = TopologyOnDisk::new(TOPIC, &listed);
    let source = topology
        .simulated(Text, &plan.kafka)
        .on_outage(if seed.is_multiple_of(2) { OnOutage::Hold } else { OnOutage::Advance })
        .on_offset_gone(OnOffsetGone::Earliest)
        .on_topic_recreated(OnTopicRecreated::Restart);
    let (collected, storage) = (Collected::new(), Arc::new(MemoryStorage::default()));
    let layout = JobLayout::new("simulated").unwrap();
    let runs = 2 + order.below(4);
    for run in 0..=runs {
        let last = run == runs;
        if last {
            // What happens to the clusters is over.
            clock.advance_to(PLANNED);
        }
        let per_thousand = if last { 0 } else { order.below(60) };
        let plan = seeded_store_faults(order.fork(), per_thousand, INTERVAL, clock.clone(), counts.clone());
        let drawn = SeededFaults::new(order.fork(), STEPS, INTERVAL, counts.clone());
        let faults: Box<dyn ProcessFaults> = match last {
            true => Box::new(CrashAt(Some(LAST_STEPS))),
            false if is_prompt(seed) => Box::new(Prompt(drawn)),
            false => Box::new(drawn),
        };
        let local = tempfile::tempdir().unwrap();
        let setup = SimulationSetup {
            seed: order.next_u64(),
            faults,
            steps_max: u64::MAX,
            clock: clock.clone(),
            storage: Arc::new(FaultyStorage::new(storage.clone(), layout.clone(), plan)),
            backend: Arc::new(MapBackend::new(local.path())),
            bounds: ChannelBounds { rows_max: 1 + order.below(300), bytes_max: 1 << 20 },
        };
        let mut config = JobConfig::new("simulated");
        config.parallelism = 1 + order.below(3) as u32;
        config.max_parallelism = 16;
        config.coordinator.checkpoint_interval = INTERVAL;
        config.orphan_grace = 0;
        match simulate(graph(&source, &collected), config, setup).map_err(|error| error.to_string())? {
            Simulated::Crashed => {}
            // A store that fails too often fails the job; whoever supervises it starts it again.
            Simulated::Ended(Outcome::Failed { .. }) if !last => {}
            Simulated::Ended(other) => return Err(format!("ended with {other:?}")),
        }
    }
    compare(&values(&collected), &plan.due)
}

fn compare(found: &[String], due: &Due) -> Result<(), String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in found {
        *counts.entry(value).or_default() += 1;
    }
    let count = |value: &str| counts.get(value).copied().unwrap_or(0);
    let wrong = due.iter().filter(|(value, due)| !due.contains(&count(value)));
    let wrong: Vec<_> = wrong.map(|(value, due)| format!("{value}: {}, not {due:?}", count(value))).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{} came too often or too rarely: {wrong:?}", wrong.len()))
    }
}

#[test]
fn f3_f4_f5_f9_each_record_comes_once_over_outages_crashes_failing_tasks_and_topics_made_anew() {
    let counts = Arc::new(FaultCounts::default());
    for seed in seeds() {
        if let Err(error) = run(seed, &counts) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test -p thalweg-connectors --test kafka"
            );
        }
    }
    println!("{counts}");
    if std::env::var("THALWEG_SEED").is_err() {
        let least = [
            (&counts.crashes, 100),
            (&counts.task_failures, 50),
            (&counts.clock_steps, 30),
            (&counts.looks, 30),
            (&counts.store_faults, 100),
        ];
        let proves = least.into_iter().all(|(count, least)| count.load(Ordering::Relaxed) > least);
        assert!(proves, "{counts}: too few to prove anything");
    }
}
