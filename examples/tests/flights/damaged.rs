//! A checkpoint whose file is damaged: it is named, and the older one is taken when allowed.

use std::sync::Arc;

use thalweg::engine::checkpoint::log::read_log;
use thalweg::engine::checkpoint::{CheckpointStorage, JobLayout, Manifest, MemoryStorage};
use thalweg::engine::cluster::{CrashAt, JobConfig, Outcome, Simulated, SimulationSetup, simulate};
use thalweg::engine::runtime::{ChannelBounds, ManualClock};
use thalweg::engine::state::{RocksBackend, RocksConfig};
use thalweg::prelude::*;

use crate::simulated::{Input, Outputs, graph, input};

fn run(input: &Input, storage: &Arc<MemoryStorage>, crash_at: Option<u64>, older: bool) -> Simulated {
    let local = tempfile::tempdir().unwrap();
    let setup = SimulationSetup {
        seed: 7,
        faults: Box::new(CrashAt(crash_at)),
        steps_max: 1_000_000,
        clock: ManualClock::new(0),
        storage: storage.clone(),
        backend: Arc::new(RocksBackend::new(RocksConfig::new(local.path()).simulated()).unwrap()),
        bounds: ChannelBounds { rows_max: 20, bytes_max: 1 << 20 },
    };
    let mut config = JobConfig::new("flights");
    config.coordinator.checkpoint_interval = MILLI;
    config.use_older_when_damaged = older;
    simulate(graph(input, &Outputs::default()), config, setup).unwrap()
}

#[test]
fn a_damaged_file_is_named_and_the_older_checkpoint_taken_when_allowed() {
    let input = input();
    let storage = Arc::new(MemoryStorage::default());
    let layout = JobLayout::new("flights").unwrap();
    // Crash as late as it takes for two checkpoints to be there.
    let mut crash_at = 500;
    let published = loop {
        assert_eq!(run(&input, &storage, Some(crash_at), false), Simulated::Crashed);
        let published = read_log(storage.as_ref(), &layout).unwrap().published().to_vec();
        if published.len() >= 2 {
            break published;
        }
        crash_at += 250;
    };
    let newest = Manifest::read(storage.as_ref(), &layout, published[published.len() - 1]).unwrap();
    let older = Manifest::read(storage.as_ref(), &layout, published[published.len() - 2]).unwrap();
    let own = |path: &String| older.files().all(|file| file.path != *path);
    let damaged = newest.files().map(|file| file.path.clone()).find(own).expect("a file of the newest alone");
    storage.put(&damaged, bytes::Bytes::from_static(b"rubbish")).unwrap();

    let Simulated::Ended(Outcome::Failed { error, .. }) = run(&input, &storage, None, false) else {
        panic!("a damaged checkpoint was restored");
    };
    assert!(error.contains(&damaged), "{error} does not name {damaged}");

    assert_eq!(run(&input, &storage, None, true), Simulated::Ended(Outcome::Completed));
}
