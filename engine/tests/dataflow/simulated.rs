//! Seeded runs with crashes, failing tasks, pauses and storage faults. A failing seed is printed;
//! `THALWEG_SEED=<seed> cargo test --workspace --test dataflow simulated` replays it alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_engine::cluster::{FaultCounts, SeededOrder, SimulatedJob};
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count};

const SEEDS: u64 = 150;

pub fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// Runs the job to its end. Then every count was delivered once, and the store holds nothing that
/// nobody names.
fn run(seed: u64, counts: &Arc<FaultCounts>) -> Result<(), String> {
    let mut order = SeededOrder::new(seed ^ 0xc0);
    let rows = (0..1 + order.below(4)).map(|_| order.below(400) as i64).collect();
    let source = Numbers { rows, rows_per_poll: 1 + order.below(8) as i64 };
    let (ledger, local) = (Ledger::default(), tempfile::tempdir().unwrap());
    let job = SimulatedJob {
        name: "count",
        graph: &|_| Ok(keyed_count(source.clone(), &ledger)),
        interval: 5 * MILLI,
        steps: 900,
        faults_per_thousand: 60,
        local: local.path(),
        counts,
    };
    job.run(seed).map_err(|error| error.to_string())?;
    let (rows, expected) = (ledger.rows(), expected(&[&source]));
    if rows == expected { Ok(()) } else { Err(format!("{} rows, expected {}", rows.len(), expected.len())) }
}

#[test]
fn every_count_is_delivered_exactly_once_and_no_file_leaks_whatever_befalls_process_and_store() {
    let counts = Arc::new(FaultCounts::default());
    for seed in seeds() {
        if let Err(error) = run(seed, &counts) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test --workspace --test dataflow"
            );
        }
    }
    println!("{counts}");
    if std::env::var("THALWEG_SEED").is_err() {
        let enough = [
            (&counts.crashes, 200),
            (&counts.task_failures, 200),
            (&counts.stalls, 100),
            (&counts.pauses, 100),
            (&counts.clock_steps, 100),
            (&counts.late_work, 200),
            (&counts.store_faults, 1_000),
            (&counts.refusals, 100),
            (&counts.log_spells, 30),
            (&counts.outages, 30),
            (&counts.deletes, 2_000),
        ];
        let proves = enough.into_iter().all(|(count, least)| count.load(Ordering::Relaxed) >= least);
        assert!(proves, "{counts}: too few to prove anything");
    }
}
