//! A backend whose snapshotters break off: what a full disk or a crash in the middle leaves.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::*;
use crate::checkpoint::{KeyedHandle, SnapshotSite};
use crate::{Error, Result};

/// Another backend, whose snapshotters fail after so many writes.
pub(in crate::state) struct FaultyBackend {
    inner: Arc<dyn StateBackend>,
    writes_left: Arc<AtomicUsize>,
}

impl FaultyBackend {
    pub(in crate::state) fn new(inner: Arc<dyn StateBackend>) -> FaultyBackend {
        FaultyBackend { inner, writes_left: Arc::new(AtomicUsize::new(usize::MAX)) }
    }

    /// From now on snapshotters write so many shares and then fail.
    pub(in crate::state) fn break_after(&self, writes: usize) {
        self.writes_left.store(writes, Ordering::Relaxed);
    }
}

impl StateBackend for FaultyBackend {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn open(&self, site: &StoreSite<'_>) -> Result<Box<dyn KvStore>> {
        let inner = self.inner.open(site)?;
        Ok(Box::new(FaultyStore { inner, writes_left: self.writes_left.clone() }))
    }

    fn scratch(&self, unique: &str) -> Result<PathBuf> {
        self.inner.scratch(unique)
    }

    fn instance_bytes(&self) -> Option<usize> {
        self.inner.instance_bytes()
    }

    fn waits_for_flush(&self) -> bool {
        self.inner.waits_for_flush()
    }
}

struct FaultyStore {
    inner: Box<dyn KvStore>,
    writes_left: Arc<AtomicUsize>,
}

impl KvStore for FaultyStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(family, key)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        self.inner.multi_get(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.inner.scan(family, range, visit)
    }

    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        self.inner.write(ops)
    }

    fn snapshotter(&self) -> Box<dyn KvSnapshotter> {
        let inner = self.inner.snapshotter();
        Box::new(FaultySnapshotter { inner, writes_left: self.writes_left.clone() })
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

struct FaultySnapshotter {
    inner: Box<dyn KvSnapshotter>,
    writes_left: Arc<AtomicUsize>,
}

impl KvSnapshotter for FaultySnapshotter {
    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        let left = self.writes_left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(Error::external("the disk is full"));
        }
        self.writes_left.store(left - 1, Ordering::Relaxed);
        self.inner.write(ops)
    }

    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.inner.scan(family, range, visit)
    }

    fn freeze(&mut self, site: &SnapshotSite) -> Result<()> {
        self.inner.freeze(site)
    }

    fn upload(
        self: Box<Self>,
        site: &SnapshotSite,
        key_groups: KeyGroupRange,
        meta: Vec<u8>,
    ) -> Result<KeyedHandle> {
        self.inner.upload(site, key_groups, meta)
    }
}
