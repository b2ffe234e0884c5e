//! A store of checkpoints that counts what is written to it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use thalweg_engine::Result;
use thalweg_engine::checkpoint::{CheckpointStorage, ObjectInfo, PutOutcome};

/// Counts bytes on their way to another store.
pub struct CountingStorage {
    inner: Arc<dyn CheckpointStorage>,
    written: Arc<AtomicU64>,
}

impl CountingStorage {
    /// A counter in front of `inner`; `written` rises with every byte.
    pub fn new(inner: Arc<dyn CheckpointStorage>, written: Arc<AtomicU64>) -> CountingStorage {
        CountingStorage { inner, written }
    }

    fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl CheckpointStorage for CountingStorage {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        self.count(data.len() as u64);
        self.inner.put(path, data)
    }

    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        self.count(data.len() as u64);
        self.inner.put_if_absent(path, data)
    }

    fn put_file(&self, path: &str, local: &Path) -> Result<u64> {
        let bytes = self.inner.put_file(path, local)?;
        self.count(bytes);
        Ok(bytes)
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.inner.get(path)
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.get_range(path, range)
    }

    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>> {
        self.inner.get_file(path, local)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix)
    }

    fn delete(&self, path: &str) -> Result<()> {
        self.inner.delete(path)
    }
}
