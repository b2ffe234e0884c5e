//! The same job on threads.

use std::sync::Arc;

use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{JobConfig, Outcome, start};
use thalweg_engine::metrics::Registry;
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count};

#[test]
fn a_bounded_job_ends_by_itself_after_its_last_rows_are_committed() {
    for parallelism in [1, 2] {
        let source = Numbers { rows: vec![50_000, 10, 30_000], rows_per_poll: 1_000 };
        let ledger = Ledger::default();
        let mut config = JobConfig::new("count");
        config.parallelism = parallelism;
        config.coordinator.checkpoint_interval = 10 * MILLI;
        let job = start(
            keyed_count(source.clone(), &ledger),
            config,
            Arc::new(MemoryStorage::default()),
            Arc::new(MapBackend::default()),
            Registry::default(),
            ChannelBounds::default(),
        )
        .unwrap();
        let summary = job.wait().unwrap();
        assert_eq!(summary.outcome, Outcome::Completed);
        assert_eq!(ledger.rows(), expected(&[&source]));
    }
}
