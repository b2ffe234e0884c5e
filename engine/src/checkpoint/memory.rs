//! A store in memory: for tests, the simulator and `memory:` jobs. No runtime, no thread, no clock;
//! two clones of one `Arc` see the same objects, and nothing outlives the process.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;

use super::layout::{check_path, check_prefix};
use super::{Cancellation, CheckpointStorage, ObjectInfo, PutOutcome};
use crate::{Error, Result};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStorage {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryStorage {
    /// An empty store.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }
}

impl CheckpointStorage for MemoryStorage {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        check_path(path)?;
        self.objects.lock().insert(path.to_owned(), data);
        Ok(())
    }

    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        check_path(path)?;
        let mut objects = self.objects.lock();
        if objects.contains_key(path) {
            return Ok(PutOutcome::Exists);
        }
        objects.insert(path.to_owned(), data);
        Ok(PutOutcome::Created)
    }

    fn put_file(&self, path: &str, local: &Path, _cancelled: &Cancellation) -> Result<u64> {
        let data = std::fs::read(local)
            .map_err(|error| Error::external(format!("cannot read {}", local.display())).caused_by(error))?;
        let bytes = data.len() as u64;
        self.put(path, data.into())?;
        Ok(bytes)
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        check_path(path)?;
        Ok(self.objects.lock().get(path).cloned())
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let Some(data) = self.get(path)? else { return Ok(None) };
        let end = range.end.min(data.len() as u64);
        let start = range.start.min(end);
        Ok(Some(data.slice(start as usize..end as usize)))
    }

    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>> {
        let Some(data) = self.get(path)? else { return Ok(None) };
        std::fs::write(local, &data)
            .map_err(|error| Error::external(format!("cannot write {}", local.display())).caused_by(error))?;
        Ok(Some(data.len() as u64))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        check_prefix(prefix)?;
        let objects = self.objects.lock();
        let below = objects.range(prefix.to_owned()..).take_while(|(path, _)| path.starts_with(prefix));
        Ok(below.map(|(path, data)| ObjectInfo { path: path.clone(), bytes: data.len() as u64 }).collect())
    }

    fn delete(&self, path: &str) -> Result<()> {
        check_path(path)?;
        self.objects.lock().remove(path);
        Ok(())
    }
}
