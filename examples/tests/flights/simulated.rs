//! The flights job in the simulator: crashes at any step, failing tasks, storage faults, another
//! parallelism after every crash; a tenth of the seeds on RocksDB. A failing seed is printed;
//! `THALWEG_SEED=<seed> cargo test -p thalweg-examples --test flights simulated` replays it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use thalweg::engine::cluster::{FaultCounts, SimulatedJob};
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

/// Runs a job to its end whatever befalls it.
pub fn run_disturbed(
    job: &str,
    seed: u64,
    graph: &dyn Fn() -> Graph,
    counts: &Arc<FaultCounts>,
) -> std::result::Result<(), String> {
    let local = tempfile::tempdir().unwrap();
    let job = SimulatedJob {
        name: job,
        graph: &|_| Ok(graph()),
        interval: 2 * MILLI,
        steps: 1_500,
        faults_per_thousand: 100,
        local: local.path(),
        counts,
    };
    job.run(seed).map_err(|error| error.to_string())
}

fn run(seed: u64, input: &Input, counts: &Arc<FaultCounts>) -> std::result::Result<(), String> {
    let outputs = Outputs::default();
    run_disturbed("flights", seed, &|| graph(input, &outputs), counts)?;
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
    let counts = Arc::new(FaultCounts::default());
    for seed in seeds() {
        if let Err(error) = run(seed, &input, &counts) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test -p thalweg-examples --test flights"
            );
        }
    }
    if std::env::var("THALWEG_SEED").is_err() {
        let least = [(&counts.crashes, 100), (&counts.task_failures, 100), (&counts.store_faults, 300)];
        let proves = least.into_iter().all(|(count, least)| count.load(Ordering::Relaxed) > least);
        assert!(proves, "{counts}: too few to prove anything");
    }
}
