//! Restore at another parallelism: 2 to 3, and 3 to 1.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_engine::checkpoint::log::read_log;
use thalweg_engine::checkpoint::{CheckpointStorage, JobLayout, MemoryStorage};
use thalweg_engine::cluster::{
    CrashAt, JobConfig, JobHandle, Outcome, SeededOrder, Simulated, SimulationSetup,
    holds_only_what_is_named, simulate, start,
};
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::state::{MapBackend, RocksBackend, RocksConfig, StateBackend};
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count};

const SEEDS: u64 = 30;
/// What the job runs at, one after the other.
const PARALLELISMS: [u32; 3] = [2, 3, 1];

fn config(parallelism: u32) -> JobConfig {
    let mut config = JobConfig::new("count");
    config.parallelism = parallelism;
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = 4 * MILLI;
    config.orphan_grace = 0;
    config
}

/// Whether the newest checkpoint was made by this generation: so the next restore takes it.
fn has_published(storage: &dyn CheckpointStorage, generation: u64) -> bool {
    let view = read_log(storage, &JobLayout::new("count").unwrap()).unwrap();
    view.published().last().is_some_and(|newest| newest.generation == generation)
}

#[test]
fn counts_go_on_at_three_tasks_from_two_and_at_one_from_three() {
    for seed in 0..SEEDS {
        let mut order = SeededOrder::new(seed);
        let source = Numbers { rows: vec![700, 500, 900], rows_per_poll: 1 + order.below(4) as i64 };
        let (ledger, storage) = (Ledger::default(), Arc::new(MemoryStorage::default()));
        let clock = ManualClock::new(0);
        let local = tempfile::tempdir().unwrap();
        for (run, parallelism) in PARALLELISMS.into_iter().enumerate() {
            let backend: Arc<dyn StateBackend> = if seed.is_multiple_of(5) {
                let config = RocksConfig::new(local.path().join(run.to_string())).simulated();
                Arc::new(RocksBackend::new(config).unwrap())
            } else {
                Arc::new(MapBackend::default())
            };
            let last = run == PARALLELISMS.len() - 1;
            let setup = SimulationSetup {
                seed: order.next_u64(),
                faults: Box::new(CrashAt((!last).then(|| 900 + order.below(600) as u64))),
                steps_max: 200_000,
                clock: clock.clone(),
                storage: storage.clone(),
                backend,
                bounds: ChannelBounds { rows_max: 1 + order.below(100), bytes_max: 1 << 20 },
            };
            let ended = simulate(keyed_count(source.clone(), &ledger), config(parallelism), setup).unwrap();
            let wanted = if last { Simulated::Ended(Outcome::Completed) } else { Simulated::Crashed };
            assert_eq!(ended, wanted, "seed {seed}, parallelism {parallelism}");
            assert!(
                has_published(&*storage, run as u64 + 1),
                "seed {seed}: none at parallelism {parallelism}"
            );
        }
        assert_eq!(ledger.rows(), expected(&[&source]), "seed {seed}");
        holds_only_what_is_named(&*storage, &JobLayout::new("count").unwrap()).unwrap();
    }
}

fn wait_for_checkpoint(job: &JobHandle) {
    let started = Instant::now();
    while job.metrics().total("last_checkpoint") == 0 {
        assert!(!job.is_over(), "it was to be stopped in the middle");
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn h1_so_they_do_on_threads_and_rocksdb_each_on_a_disk_of_its_own() {
    let source = Numbers { rows: vec![150_000, 120_000, 160_000], rows_per_poll: 3 };
    let (ledger, storage) = (Ledger::default(), Arc::new(MemoryStorage::default()));
    let local = tempfile::tempdir().unwrap();
    for (run, parallelism) in PARALLELISMS.into_iter().enumerate() {
        let backend = RocksBackend::new(RocksConfig::new(local.path().join(run.to_string()))).unwrap();
        let job = start(
            keyed_count(source.clone(), &ledger),
            config(parallelism),
            storage.clone(),
            Arc::new(backend),
            Registry::default(),
            ChannelBounds::default(),
        )
        .unwrap();
        let mut wanted = Outcome::Completed;
        if run < PARALLELISMS.len() - 1 {
            wait_for_checkpoint(&job);
            let written = job.metrics().total("checkpoint_written_bytes_total");
            assert!(written > 0, "counts are state, and a checkpoint wrote {written} bytes");
            job.stop();
            wanted = Outcome::Stopped;
        }
        assert_eq!(job.wait().unwrap().outcome, wanted, "parallelism {parallelism}");
    }
    assert_eq!(ledger.rows(), expected(&[&source]));
    holds_only_what_is_named(&*storage, &JobLayout::new("count").unwrap()).unwrap();
}
