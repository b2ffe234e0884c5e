//! Jobs on production sources, simulated from seeds: files, generator and rows in memory with their
//! own enumerators and discoveries, over crashes, failing tasks, pauses, silent discoveries and
//! stores that fail, are slow, refuse or are away. A failing seed is printed;
//! `THALWEG_SEED=<seed> cargo test --workspace --test simulated` replays it alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod readings;
mod sources;
mod two_inputs;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg::engine::cluster::FaultCounts;

/// Runs a job over all seeds.
fn over_seeds(
    seeds: u64,
    test: &str,
    run: impl Fn(u64, &Arc<FaultCounts>) -> Result<(), String>,
) -> Arc<FaultCounts> {
    let counts = Arc::new(FaultCounts::default());
    let seeds = match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..seeds).collect(),
    };
    let (alone, started) = (seeds.len() == 1, std::time::Instant::now());
    for seed in seeds {
        if let Err(error) = run(seed, &counts) {
            panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test --workspace --test simulated {test}"
            );
        }
    }
    println!("{test}: {counts} in {:.1} s", started.elapsed().as_secs_f64());
    let (crashes, failures) =
        (counts.crashes.load(Ordering::Relaxed), counts.task_failures.load(Ordering::Relaxed));
    assert!(alone || (crashes > 50 && failures * 2 > crashes), "{counts}: too few to prove anything");
    counts
}
