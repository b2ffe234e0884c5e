//! Seeded runs with crashes and storage faults. A failing seed is printed;
//! `THALWEG_SEED=<seed> cargo test -p thalweg-engine --test dataflow simulated` replays it alone.

use std::sync::Arc;

use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{JobConfig, Outcome, SeededOrder, Simulated, SimulationSetup, simulate};
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count};

const SEEDS: u64 = 150;

pub fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

pub fn config(parallelism: u32) -> JobConfig {
    let mut config = JobConfig::new("count");
    config.parallelism = parallelism;
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = 5 * MILLI;
    config
}

/// Runs the job to its end over any number of crashes, each restart at a parallelism of its own.
fn run(seed: u64) -> Result<(), String> {
    let mut order = SeededOrder::new(seed);
    let rows = (0..1 + order.below(4)).map(|_| order.below(400) as i64).collect();
    let source = Numbers { rows, rows_per_poll: 1 + order.below(40) as i64 };
    let ledger = Ledger::default();
    let storage = Arc::new(MemoryStorage::default());
    let clock = ManualClock::new(0);
    for run in 0.. {
        let crash_at = (run < 4).then(|| order.below(3_000) as u64);
        let setup = SimulationSetup {
            seed: order.next_u64(),
            crash_at,
            steps_max: 200_000,
            clock: clock.clone(),
            storage: storage.clone(),
            backend: Arc::new(MapBackend::new(std::env::temp_dir().join("thalweg-dataflow-test"))),
            bounds: ChannelBounds { rows_max: 1 + order.below(100), bytes_max: 1 << 20 },
        };
        let parallelism = 1 + order.below(3) as u32;
        let graph = keyed_count(source.clone(), &ledger);
        match simulate(graph, config(parallelism), setup).map_err(|error| error.to_string())? {
            Simulated::Crashed => continue,
            Simulated::Ended(Outcome::Completed) => break,
            Simulated::Ended(other) => return Err(format!("ended with {other:?}")),
        }
    }
    let (rows, expected) = (ledger.rows(), expected(&source));
    if rows == expected { Ok(()) } else { Err(format!("{} rows, expected {}", rows.len(), expected.len())) }
}

#[test]
fn every_count_is_delivered_exactly_once_over_crashes_at_any_step() {
    for seed in seeds() {
        if let Err(error) = run(seed) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test -p thalweg-engine --test dataflow"
            );
        }
    }
}
