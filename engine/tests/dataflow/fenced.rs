//! H2: two coordinators of one job on one store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_engine::checkpoint::{CheckpointStorage, MemoryStorage};
use thalweg_engine::cluster::{JobConfig, JobHandle, Outcome, start};
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count};

fn started(source: &Numbers, ledger: &Ledger, storage: Arc<dyn CheckpointStorage>) -> JobHandle {
    let mut config = JobConfig::new("count");
    config.coordinator.checkpoint_interval = 5 * MILLI;
    let backend = Arc::new(MapBackend::default());
    let graph = keyed_count(source.clone(), ledger);
    start(graph, config, storage, backend, Registry::default(), ChannelBounds::default()).unwrap()
}

fn wait_for_checkpoint(job: &JobHandle) {
    let started = Instant::now();
    while job.metrics().total("last_checkpoint") == 0 {
        assert!(started.elapsed() < Duration::from_secs(30), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn h2_the_coordinator_that_was_there_first_is_fenced_and_publishes_nothing_more() {
    // One row a poll: long enough for both to be at work.
    let source = Numbers { rows: vec![60_000, 60_000], rows_per_poll: 1 };
    let ledger = Ledger::default();
    let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::default());
    let first = started(&source, &ledger, storage.clone());
    wait_for_checkpoint(&first);
    let second = started(&source, &ledger, storage);
    let outcome = first.wait().unwrap().outcome;
    assert!(matches!(outcome, Outcome::Fenced { .. }), "{outcome:?}");
    assert_eq!(second.wait().unwrap().outcome, Outcome::Completed);
    assert_eq!(ledger.rows(), expected(&[&source]), "each count once, whoever committed it");
}
