//! The flights job in the simulator: crashes at any step, storage faults, another parallelism
//! after every crash; a tenth of the seeds on RocksDB. A failing seed is printed;
//! `THALWEG_SEED=<seed> cargo test -p thalweg-examples --test flights simulated` replays it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use thalweg::engine::checkpoint::fault::FaultyStorage;
use thalweg::engine::checkpoint::log::read_log;
use thalweg::engine::checkpoint::{CheckpointStorage, JobLayout, Manifest, MemoryStorage};
use thalweg::engine::cluster::{JobConfig, Outcome, SeededOrder, Simulated, SimulationSetup, simulate};
use thalweg::engine::runtime::{ChannelBounds, ManualClock};
use thalweg::engine::state::{MapBackend, RocksBackend, RocksConfig, StateBackend};
use thalweg::prelude::*;
use thalweg_examples::data;
use thalweg_examples::expected::{Expected, expected};
use thalweg_examples::job::{self, flights_job};

const SEEDS: u64 = 100;
const SPLITS: usize = 3;
const ROWS: usize = 900;
/// Small batches make many steps, and a crash can come between any two.
const BATCH_ROWS: usize = 5;

fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// Flights of the first day or so, dealt to splits.
pub struct Input {
    flights: Vec<job::Flight>,
    expected: Expected,
}

pub fn input() -> Input {
    let mut flights = data::load(&data::shipped_file()).unwrap();
    flights.truncate(ROWS);
    let expected = expected(&flights).unwrap();
    let row = |flight: data::Flight| job::Flight {
        time_hour: Timestamp(flight.scheduled().unwrap() - flight.minute * MINUTE),
        carrier: flight.carrier,
        flight: flight.flight,
        tailnum: flight.tailnum,
        dep_delay: flight.dep_delay,
        minute: flight.minute,
    };
    Input { flights: flights.into_iter().map(row).collect(), expected }
}

/// What the job delivered, over all its runs.
#[derive(Default)]
pub struct Outputs {
    hours: Collected,
    alerts: Collected,
    incomplete: Collected,
    late: Collected,
}

pub fn graph(input: &Input, outputs: &Outputs) -> Graph {
    let env = Environment::new();
    let source = VecSource::of(&input.flights).unwrap().dealt_to(SPLITS).unwrap().batch_rows(BATCH_ROWS);
    let found = flights_job(env.source(source).uid("flights"));
    found.hours.sink(outputs.hours.exactly_once_sink()).uid("to-hours");
    found.alerts.sink(outputs.alerts.exactly_once_sink()).uid("to-alerts");
    found.incomplete.sink(outputs.incomplete.exactly_once_sink()).uid("to-incomplete");
    found.late.sink(outputs.late.exactly_once_sink()).uid("to-late");
    env.build().unwrap()
}

/// How often runs of all seeds were interrupted: the test is worth what these are.
#[derive(Default)]
pub struct Interruptions {
    pub crashes: u32,
    pub faults: Arc<AtomicU64>,
}

/// Runs a job to its end over crashes and storage faults, at another parallelism after each; then
/// its store holds nothing that nobody names.
pub fn run_interrupted(
    job: &str,
    seed: u64,
    graph: &dyn Fn() -> Graph,
    seen: &mut Interruptions,
) -> std::result::Result<(), String> {
    let mut order = SeededOrder::new(seed);
    let storage = Arc::new(MemoryStorage::default());
    let layout = JobLayout::new(job).unwrap();
    let clock = ManualClock::new(0);
    let local = tempfile::tempdir().unwrap();
    for run in 0..12 {
        let quiet = run >= 6;
        let faulty = SeededOrder::new(order.next_u64());
        let plan = faulty.faults(if quiet { 0 } else { order.below(100) }, seen.faults.clone());
        let directory = local.path().join(run.to_string());
        let backend: Arc<dyn StateBackend> = if seed.is_multiple_of(10) {
            Arc::new(RocksBackend::new(RocksConfig::new(directory).simulated()).unwrap())
        } else {
            Arc::new(MapBackend::new(directory))
        };
        let setup = SimulationSetup {
            seed: order.next_u64(),
            crash_at: (!quiet).then(|| order.below(1_500) as u64),
            steps_max: 500_000,
            clock: clock.clone(),
            storage: Arc::new(FaultyStorage::new(storage.clone(), layout.clone(), plan)),
            backend,
            bounds: ChannelBounds { rows_max: 1 + order.below(300), bytes_max: 1 << 20 },
        };
        let mut config = JobConfig::new(job);
        config.parallelism = 1 + order.below(3) as u32;
        config.max_parallelism = 16;
        config.coordinator.checkpoint_interval = 2 * MILLI;
        // No predecessor outlives a crash here.
        config.orphan_grace = 0;
        match simulate(graph(), config, setup).map_err(|error| error.to_string())? {
            Simulated::Crashed => seen.crashes += 1,
            Simulated::Ended(Outcome::Completed) => return holds_only_what_is_named(&*storage, &layout),
            // A store that fails too often fails the job; whoever supervises it starts it again.
            Simulated::Ended(Outcome::Failed { .. }) if !quiet => {}
            Simulated::Ended(other) => return Err(format!("ended with {other:?}")),
        }
    }
    Err("not over after 12 runs".to_string())
}

fn holds_only_what_is_named(
    storage: &dyn CheckpointStorage,
    layout: &JobLayout,
) -> std::result::Result<(), String> {
    let mut named = BTreeSet::new();
    for &checkpoint in read_log(storage, layout).unwrap().published() {
        named.extend(Manifest::read(storage, layout, checkpoint).unwrap().names(layout));
    }
    let listed = storage.list(&format!("{}/", layout.job_path())).unwrap().into_iter();
    let files = listed.map(|object| object.path).filter(|path| layout.log_sequence(path).is_none());
    let held: BTreeSet<_> = files.collect();
    if held == named {
        return Ok(());
    }
    let (leaked, lost) = (held.difference(&named), named.difference(&held));
    Err(format!("leaked {:?}, lost {:?}", leaked.collect::<Vec<_>>(), lost.collect::<Vec<_>>()))
}

fn run(seed: u64, input: &Input, seen: &mut Interruptions) -> std::result::Result<(), String> {
    let outputs = Outputs::default();
    run_interrupted("flights", seed, &|| graph(input, &outputs), seen)?;
    compare(&outputs, &input.expected)
}

fn compare(outputs: &Outputs, expected: &Expected) -> std::result::Result<(), String> {
    let mut hours = BTreeMap::new();
    for batch in outputs.hours.batches() {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        for row in 0..batch.num_rows() {
            let carrier = column("carrier").as_string_view().value(row).to_string();
            let start = column("window_start").as_primitive::<TimestampMicrosecondType>().value(row);
            let count = column("flights").as_primitive::<Int64Type>().value(row);
            if hours.insert((carrier.clone(), start), count).is_some() {
                return Err(format!("{carrier} at {start} twice"));
            }
        }
    }
    let wanted: BTreeMap<_, _> =
        expected.hours.iter().map(|(key, hour)| (key.clone(), hour.flights)).collect();
    let counts = [
        ("alerts", outputs.alerts.row_count(), expected.alerts.len()),
        ("incomplete", outputs.incomplete.row_count(), expected.incomplete),
        ("late", outputs.late.row_count(), 0),
    ];
    for (what, found, wanted) in counts {
        if found != wanted {
            return Err(format!("{found} {what}, expected {wanted}"));
        }
    }
    if hours == wanted { Ok(()) } else { Err(format!("{} hours, expected {}", hours.len(), wanted.len())) }
}

#[test]
fn the_flights_job_delivers_every_result_once_over_crashes_faults_and_rescaling() {
    let input = input();
    let mut seen = Interruptions::default();
    for seed in seeds() {
        if let Err(error) = run(seed, &input, &mut seen) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test -p thalweg-examples --test flights"
            );
        }
    }
    if std::env::var("THALWEG_SEED").is_err() {
        let (crashes, faults) = (seen.crashes, seen.faults.load(Ordering::Relaxed));
        assert!(
            crashes > 100 && faults > 300,
            "{crashes} crashes, {faults} faults: too few to prove anything"
        );
    }
}
