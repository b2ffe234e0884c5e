//! Sources that end at different times: checkpoints go on when some tasks are at their end, and the
//! last rows are committed.

use std::sync::Arc;

use thalweg_engine::checkpoint::log::read_log;
use thalweg_engine::checkpoint::{JobLayout, Manifest, MemoryStorage};
use thalweg_engine::cluster::{
    CrashAt, JobConfig, Outcome, SeededOrder, Simulated, SimulationSetup, simulate, start,
};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count_of_two};

const SEEDS: u64 = 40;

fn config() -> JobConfig {
    let mut config = JobConfig::new("ends");
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = 3 * MILLI;
    // All are kept, to be looked at afterwards.
    config.checkpoints_retained = 1_000;
    config
}

/// The checkpoints that were taken when `short` had ended and `long` had not.
fn in_between(storage: &MemoryStorage) -> usize {
    let layout = JobLayout::new("ends").unwrap();
    let view = read_log(storage, &layout).unwrap();
    let manifests =
        view.published().iter().map(|&checkpoint| Manifest::read(storage, &layout, checkpoint).unwrap());
    let has_ended =
        |manifest: &Manifest, uid: &str| manifest.operators[&Uid::new(uid).unwrap()].is_finished();
    manifests.filter(|manifest| has_ended(manifest, "short") && !has_ended(manifest, "long")).count()
}

fn sources(seed: u64) -> (Numbers, Numbers) {
    let short = Numbers { rows: vec![5, 20 + seed as i64 % 50], rows_per_poll: 10 };
    let long = Numbers { rows: vec![300, 1_000], rows_per_poll: 2 };
    (short, long)
}

#[test]
fn checkpoints_go_on_behind_the_end_of_one_source_and_the_last_rows_are_committed() {
    for seed in 0..SEEDS {
        let (short, long) = sources(seed);
        let mut order = SeededOrder::new(seed);
        let (ledger, storage) = (Ledger::default(), Arc::new(MemoryStorage::default()));
        let clock = ManualClock::new(0);
        // Interrupted once, mostly when the short source is at its end.
        for crash_at in [Some(1_000 + order.below(1_500) as u64), None] {
            let mut config = config();
            config.parallelism = 1 + order.below(3) as u32;
            let setup = SimulationSetup {
                seed: order.next_u64(),
                faults: Box::new(CrashAt(crash_at)),
                steps_max: 200_000,
                clock: clock.clone(),
                storage: storage.clone(),
                backend: Arc::new(MapBackend::default()),
                bounds: ChannelBounds { rows_max: 1 + order.below(50), bytes_max: 1 << 20 },
            };
            let graph = keyed_count_of_two(short.clone(), long.clone(), &ledger);
            let ended = simulate(graph, config, setup).unwrap();
            if crash_at.is_none() {
                assert_eq!(ended, Simulated::Ended(Outcome::Completed), "seed {seed}");
            }
        }
        assert_eq!(ledger.rows(), expected(&[&short, &long]), "seed {seed}");
        assert!(in_between(&storage) > 2, "seed {seed}: no checkpoint between the two ends");
    }
}

#[test]
fn so_it_is_on_threads() {
    let short = Numbers { rows: vec![5], rows_per_poll: 10 };
    let long = Numbers { rows: vec![2_000, 150_000], rows_per_poll: 3 };
    let (ledger, storage) = (Ledger::default(), Arc::new(MemoryStorage::default()));
    let mut config = config();
    config.parallelism = 2;
    let job = start(
        keyed_count_of_two(short.clone(), long.clone(), &ledger),
        config,
        storage.clone(),
        Arc::new(MapBackend::default()),
        Registry::default(),
        ChannelBounds::default(),
    );
    assert_eq!(job.unwrap().wait().unwrap().outcome, Outcome::Completed);
    assert_eq!(ledger.rows(), expected(&[&short, &long]));
    assert!(in_between(&storage) > 0, "no checkpoint between the two ends");
}
