//! A sink that is full holds its input back through the whole job, and the barrier that frees it
//! still comes: nothing stands, nothing is lost, and what it holds stays near its bound.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{
    CrashAt, JobConfig, Outcome, SeededOrder, Simulated, SimulationSetup, simulate,
};
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, Staging, expected, expected_straight, keyed_count_into, straight};
use crate::simulated::seeds;

/// Bounds of a channel, in rows.
const CHANNEL_ROWS: usize = 16;
/// Rows of a batch.
const BATCH_ROWS: i64 = 8;
/// What may be under way to one sink when a barrier is sent: two sources, each with a full channel
/// that took one batch more, eight kept shares, and one batch in the outbox and in the chain.
const UNDER_WAY: usize = 2 * (CHANNEL_ROWS + 11 * BATCH_ROWS as usize);

fn config(parallelism: u32) -> JobConfig {
    let mut config = JobConfig::new("full");
    config.parallelism = parallelism;
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = 5 * MILLI;
    config
}

/// Runs one job to its end, crashed at most once. Returns the most rows that a sink held over its
/// bound, and whether one was ever full.
fn run(seed: u64) -> Result<bool, String> {
    let mut order = SeededOrder::new(seed ^ 0xf011);
    let rows = (0..1 + order.below(3)).map(|_| 200 + order.below(400) as i64).collect();
    let source = Numbers { rows, rows_per_poll: 1 + order.below(BATCH_ROWS as usize) as i64 };
    let chained = order.below(3) == 0;
    let staging = Staging { rows_max: Some(1 + order.below(40)), ..Staging::default() };
    let ledger = Ledger::default();
    let storage = Arc::new(MemoryStorage::default());
    let clock = ManualClock::new(0);
    for run in 0.. {
        let setup = SimulationSetup {
            seed: order.next_u64(),
            faults: Box::new(CrashAt((run < 1).then(|| order.below(4_000) as u64))),
            steps_max: 400_000,
            clock: clock.clone(),
            storage: storage.clone(),
            backend: Arc::new(MapBackend::new(std::env::temp_dir().join("thalweg-full-sink-test"))),
            bounds: ChannelBounds { rows_max: CHANNEL_ROWS, bytes_max: 1 << 20 },
        };
        let graph = match chained {
            true => straight(source.clone(), &ledger, staging.clone()),
            false => keyed_count_into(source.clone(), &ledger, staging.clone()),
        };
        match simulate(graph, config(1 + order.below(2) as u32), setup).map_err(|error| error.to_string())? {
            Simulated::Crashed => continue,
            Simulated::Ended(Outcome::Completed) => break,
            Simulated::Ended(other) => return Err(format!("ended with {other:?}")),
        }
    }
    let wanted = if chained { expected_straight(&source) } else { expected(&[&source]) };
    if ledger.rows() != wanted {
        return Err(format!("{} rows, expected {}", ledger.rows().len(), wanted.len()));
    }
    let (most, bound) = (staging.most.load(Ordering::Relaxed), staging.rows_max.unwrap_or_default());
    match most {
        _ if most > bound + UNDER_WAY => Err(format!("{most} rows in a sink that is full at {bound}")),
        _ => Ok(most >= bound),
    }
}

#[test]
fn a_full_sink_stalls_its_input_and_never_the_barrier_that_frees_it() {
    let mut full = 0;
    for seed in seeds() {
        match run(seed) {
            Ok(was_full) => full += usize::from(was_full),
            Err(error) => panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test --workspace --test dataflow full_sink"
            ),
        }
    }
    assert!(full > 0, "no sink was ever full: the runs prove nothing");
}

#[test]
fn a_full_sink_is_freed_by_checkpoints_on_threads_too() {
    for chained in [false, true] {
        let source = Numbers { rows: vec![20_000, 10, 10_000], rows_per_poll: 500 };
        let (ledger, staging) = (Ledger::default(), Staging { rows_max: Some(700), ..Staging::default() });
        let graph = match chained {
            true => straight(source.clone(), &ledger, staging.clone()),
            false => keyed_count_into(source.clone(), &ledger, staging.clone()),
        };
        let job = thalweg_engine::cluster::start(
            graph,
            config(2),
            Arc::new(MemoryStorage::default()),
            Arc::new(MapBackend::new(std::env::temp_dir().join("thalweg-full-sink-test"))),
            Registry::default(),
            ChannelBounds { rows_max: 1_000, bytes_max: 1 << 20 },
        )
        .unwrap();
        let summary = job.wait().unwrap();
        assert_eq!((summary.outcome, summary.restarts), (Outcome::Completed, 0));
        let wanted = if chained { expected_straight(&source) } else { expected(&[&source]) };
        assert_eq!(ledger.rows(), wanted);
        let most = staging.most.load(Ordering::Relaxed);
        assert!((700..10_000).contains(&most), "a sink that is full at 700 rows held {most}");
    }
}
