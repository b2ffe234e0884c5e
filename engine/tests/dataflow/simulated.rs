//! Seeded runs with crashes and storage faults. A failing seed is printed;
//! `THALWEG_SEED=<seed> cargo test --workspace --test dataflow simulated` replays it alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_engine::checkpoint::{FaultyStorage, JobLayout, MemoryStorage};
use thalweg_engine::cluster::{JobConfig, Outcome, SeededOrder, Simulated, SimulationSetup, simulate};
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::state::{MapBackend, RocksBackend, RocksConfig, StateBackend};
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count};
use crate::tidy::holds_only_what_is_named;
use crate::weather::{Seen, bad_days};

const SEEDS: u64 = 150;
/// Runs of one seed; from the sixth on nothing is interrupted.
const RUNS_MAX: usize = 12;

pub fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

fn config(order: &mut SeededOrder) -> JobConfig {
    let mut config = JobConfig::new("count");
    config.parallelism = 1 + order.below(3) as u32;
    config.max_parallelism = 16;
    config.checkpoints_retained = 1 + order.below(2) as u32;
    config.coordinator.checkpoint_interval = 5 * MILLI;
    // No predecessor outlives a crash here.
    config.orphan_grace = 0;
    config
}

/// Runs the job to its end over crashes and faults, each restart at a parallelism of its own. Then
/// every count was delivered once, and the store holds nothing that nobody names.
fn run(seed: u64, crashes: &mut u32, seen: &Seen) -> Result<(), String> {
    let mut order = SeededOrder::new(seed);
    let rows = (0..1 + order.below(4)).map(|_| order.below(400) as i64).collect();
    let source = Numbers { rows, rows_per_poll: 1 + order.below(8) as i64 };
    let ledger = Ledger::default();
    let storage = Arc::new(MemoryStorage::default());
    let clock = ManualClock::new(0);
    let local = tempfile::tempdir().unwrap();
    for run in 0..RUNS_MAX {
        let quiet = run >= 6;
        let per_thousand = if quiet { 0 } else { order.below(60) };
        let plan = bad_days(order.next_u64(), per_thousand, seen.clone());
        let directory = local.path().join(run.to_string());
        let backend: Arc<dyn StateBackend> = if seed.is_multiple_of(10) {
            Arc::new(RocksBackend::new(RocksConfig::new(directory).simulated()).unwrap())
        } else {
            Arc::new(MapBackend::new(directory))
        };
        let setup = SimulationSetup {
            seed: order.next_u64(),
            crash_at: (!quiet).then(|| order.below(900) as u64),
            steps_max: 200_000,
            clock: clock.clone(),
            storage: Arc::new(FaultyStorage::new(storage.clone(), JobLayout::new("count").unwrap(), plan)),
            backend,
            bounds: ChannelBounds { rows_max: 1 + order.below(100), bytes_max: 1 << 20 },
        };
        let graph = keyed_count(source.clone(), &ledger);
        match simulate(graph, config(&mut order), setup).map_err(|error| error.to_string())? {
            Simulated::Crashed => *crashes += 1,
            Simulated::Ended(Outcome::Completed) => {
                let (rows, expected) = (ledger.rows(), expected(&[&source]));
                if rows != expected {
                    return Err(format!("{} rows, expected {}", rows.len(), expected.len()));
                }
                return holds_only_what_is_named(storage.as_ref(), "count");
            }
            // A store that fails too often fails the job; whoever supervises it starts it again.
            Simulated::Ended(Outcome::Failed { .. }) if !quiet => {}
            Simulated::Ended(other) => return Err(format!("ended with {other:?}")),
        }
    }
    Err(format!("not over after {RUNS_MAX} runs"))
}

#[test]
fn every_count_is_delivered_exactly_once_and_no_file_leaks_over_crashes_and_storage_faults() {
    let (mut crashes, seen) = (0, Seen::default());
    for seed in seeds() {
        if let Err(error) = run(seed, &mut crashes, &seen) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test --workspace --test dataflow"
            );
        }
    }
    if std::env::var("THALWEG_SEED").is_err() {
        let [faults, spells, deletes] =
            [&seen.faults, &seen.spells, &seen.deletes].map(|count| count.load(Ordering::Relaxed));
        assert!(
            crashes > 200 && faults > 1_000 && spells > 30 && deletes > 5_000,
            "{crashes} crashes, {faults} faults, {spells} spells, {deletes} deletes: too few to prove anything"
        );
    }
}
