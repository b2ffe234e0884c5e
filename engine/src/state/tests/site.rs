//! A workplace for the suite: a backend, a store for checkpoints, and instances on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;

use super::super::frozen::Flush;
use super::super::key_encoding::hash_key;
use super::super::*;
use super::faulty::FaultyBackend;
use crate::Result;
use crate::checkpoint::{
    Cancellation, CheckpointId, CheckpointStorage, FileHandle, KeyedHandle, MemoryStorage, SnapshotPart,
    SnapshotSite, SnapshotTask,
};
use crate::graph::Uid;
use crate::metrics::Registry;
use crate::operator::{OpenContext, SubtaskInfo, Waker};

pub(super) const MAX_PARALLELISM: u32 = 16;

/// Which backend a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    #[cfg(feature = "rocksdb")]
    Rocks,
}

pub(super) const KINDS: &[Kind] = &[
    Kind::Map,
    #[cfg(feature = "rocksdb")]
    Kind::Rocks,
];

pub(super) struct Site {
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) faults: Arc<FaultyBackend>,
    pub(super) storage: Arc<dyn CheckpointStorage>,
    known: BTreeMap<String, FileHandle>,
    checkpoints: u64,
    attempts: u64,
    pub(super) spec: KeyedStateSpec,
    _directory: TempDir,
}

impl Site {
    pub(super) fn new(kind: Kind, spec: KeyedStateSpec) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let inner: Arc<dyn StateBackend> = match kind {
            Kind::Map => Arc::new(MapBackend::new(directory.path())),
            #[cfg(feature = "rocksdb")]
            Kind::Rocks => {
                let config = RocksConfig {
                    block_cache_bytes: 4 << 20,
                    write_buffer_bytes: 4 << 20,
                    ..RocksConfig::new(directory.path())
                };
                Arc::new(RocksBackend::new(config).unwrap())
            }
        };
        let faults = Arc::new(FaultyBackend::new(inner));
        Site {
            backend: faults.clone(),
            faults,
            storage: Arc::new(MemoryStorage::new()),
            known: BTreeMap::new(),
            checkpoints: 0,
            attempts: 0,
            spec,
            _directory: directory,
        }
    }

    /// Opens an instance, restored from `handles` (those that it overlaps).
    pub(super) fn try_open(
        &mut self,
        subtask: u32,
        parallelism: u32,
        handles: &[KeyedHandle],
    ) -> Result<KeyedState> {
        self.attempts += 1;
        let info = SubtaskInfo {
            job: "job".into(),
            uid: Uid::new("counts").unwrap(),
            subtask,
            parallelism,
            max_parallelism: MAX_PARALLELISM,
            generation: 1,
            attempt: self.attempts,
            claim: "test".into(),
        };
        let owned = KeyGroupRange::of_subtask(subtask, parallelism, MAX_PARALLELISM);
        let overlaps = |handle: &&KeyedHandle| handle.key_groups.intersection(&owned).is_some();
        let parts = handles.iter().filter(overlaps).cloned().map(SnapshotPart::Keyed).collect();
        let mut cx = OpenContext {
            info: &info,
            restored: &RestoredState { parts },
            backend: &self.backend,
            storage: &self.storage,
            metrics: &Registry::default().group(Vec::new()),
            waker: &Waker::new(|| ()),
            now: 0,
            has_keyed_state: false,
        };
        cx.keyed_state(self.spec.clone())
    }

    pub(super) fn open(&mut self, handles: &[KeyedHandle]) -> KeyedState {
        self.try_open(0, 1, handles).unwrap()
    }

    /// A barrier: answers the helper's work.
    pub(super) fn barrier(&mut self, keyed: &mut KeyedState) -> (SnapshotTask, SnapshotSite) {
        let site = self.next_checkpoint(keyed);
        let mut snapshot = keyed.snapshot(site.checkpoint).unwrap();
        assert!(snapshot.parts.is_empty());
        let flush = snapshot.flushes.pop().unwrap();
        (Box::new(move |site| flush(site)?(site)), site)
    }

    /// A barrier: answers the helper, to be driven step by step.
    pub(super) fn freeze(&mut self, keyed: &mut KeyedState) -> (Flush, SnapshotSite) {
        let site = self.next_checkpoint(keyed);
        (keyed.freeze(site.checkpoint).unwrap(), site)
    }

    fn next_checkpoint(&mut self, keyed: &KeyedState) -> SnapshotSite {
        self.checkpoints += 1;
        let checkpoint = CheckpointId { generation: 1, number: self.checkpoints };
        let owned = keyed.key_groups();
        SnapshotSite {
            storage: Arc::clone(&self.storage),
            job_path: "job".to_string(),
            checkpoint,
            uid: Uid::new("counts").unwrap(),
            subtask: owned.first,
            known: Arc::new(self.known.clone()),
            scratch: self.backend.scratch(&format!("{checkpoint}-{}", owned.first)).unwrap(),
            cancelled: Cancellation::default(),
        }
    }

    /// The files of a complete checkpoint need not be uploaded again.
    pub(super) fn complete(&mut self, handle: &KeyedHandle) {
        self.known.extend(handle.files.iter().map(|file| (file.hash.clone(), file.clone())));
    }

    /// A barrier and its work, at once.
    pub(super) fn checkpoint(&mut self, keyed: &mut KeyedState) -> KeyedHandle {
        let (task, site) = self.barrier(keyed);
        let handle = finish(task, &site).unwrap();
        self.complete(&handle);
        keyed.checkpoint_completed(site.checkpoint).unwrap();
        handle
    }
}

/// Does a helper's work.
pub(super) fn finish(task: SnapshotTask, site: &SnapshotSite) -> Result<KeyedHandle> {
    match task(site)?.as_slice() {
        [SnapshotPart::Keyed(handle)] => Ok(handle.clone()),
        parts => panic!("{parts:?}"),
    }
}

/// Makes number `key` the current key.
pub(super) fn at(keyed: &mut KeyedState, key: u64) {
    let bytes = key_bytes(key);
    keyed.set_current_key(hash_key(&bytes), &bytes);
}

/// Every fifth key is long, so that not all keys are kept inline.
pub(super) fn key_bytes(key: u64) -> Vec<u8> {
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.extend(std::iter::repeat_n(7, if key.is_multiple_of(5) { 40 } else { 0 }));
    bytes
}

/// The keys below `count` whose key group `keyed` owns.
pub(super) fn owned_keys(keyed: &KeyedState, count: u64) -> Vec<u64> {
    let owned = keyed.key_groups();
    let group = |key: &u64| KeyGroup::of_hash(hash_key(&key_bytes(*key)), MAX_PARALLELISM);
    (0..count).filter(|key| owned.contains(group(key))).collect()
}

/// A cache so small that everything is evicted all the time.
pub(super) fn tiny() -> KeyedStateSpec {
    KeyedStateSpec { cache_bytes_max: 4 * 1024, timer_bytes_max: 1024 }
}
