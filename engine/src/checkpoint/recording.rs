//! A task's view of the store while it makes its part of a checkpoint. It remembers what was written
//! through it, and how much: whoever writes a part of a checkpoint that comes to nothing can say which
//! objects it leaves behind. And it writes no more once the checkpoint is aborted.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Cancellation, CheckpointStorage, ObjectInfo, PutOutcome};
use crate::Result;

/// A store that remembers the paths that were written, those of failed writes too: they may have
/// taken effect.
pub struct RecordingStorage {
    inner: Arc<dyn CheckpointStorage>,
    cancelled: Cancellation,
    written: Mutex<Vec<String>>,
    written_bytes: AtomicU64,
}

impl RecordingStorage {
    /// Writes to `inner`, until it is `cancelled`.
    pub fn new(inner: Arc<dyn CheckpointStorage>, cancelled: Cancellation) -> RecordingStorage {
        RecordingStorage { inner, cancelled, written: Mutex::default(), written_bytes: AtomicU64::new(0) }
    }

    /// The paths written so far, in order.
    pub fn written(&self) -> Vec<String> {
        self.written.lock().clone()
    }

    /// The bytes that were written so far, as far as the store has said so.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    fn record(&self, path: &str) -> Result<()> {
        self.cancelled.check()?;
        self.written.lock().push(path.to_owned());
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl CheckpointStorage for RecordingStorage {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        self.record(path)?;
        let bytes = data.len() as u64;
        self.inner.put(path, data)?;
        self.count(bytes);
        Ok(())
    }

    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        self.record(path)?;
        let bytes = data.len() as u64;
        let outcome = self.inner.put_if_absent(path, data)?;
        if outcome == PutOutcome::Created {
            self.count(bytes);
        }
        Ok(outcome)
    }

    fn put_file(&self, path: &str, local: &Path, _cancelled: &Cancellation) -> Result<u64> {
        self.record(path)?;
        let bytes = self.inner.put_file(path, local, &self.cancelled)?;
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

    fn version(&self, path: &str) -> Result<Option<String>> {
        self.inner.version(path)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix)
    }

    fn delete(&self, path: &str) -> Result<()> {
        self.inner.delete(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Fault;
    use super::super::{FaultyStorage, JobLayout, MemoryStorage};
    use super::*;

    #[test]
    fn a_write_that_failed_is_remembered_for_it_may_have_taken_effect() {
        let layout = JobLayout::new("job").unwrap();
        let memory = Arc::new(MemoryStorage::new());
        let faulty = FaultyStorage::new(memory, layout, Box::new(|_| Fault::FailAfter));
        let recording = RecordingStorage::new(Arc::new(faulty), Cancellation::default());
        assert!(recording.put("job/a", Bytes::new()).is_err());
        assert!(recording.put_if_absent("job/b", Bytes::new()).is_err());
        assert!(recording.get("job/c").is_err());
        assert_eq!(recording.written(), ["job/a", "job/b"]);
    }

    #[test]
    fn bytes_count_once_they_are_written() {
        let memory = Arc::new(MemoryStorage::new());
        let recording = RecordingStorage::new(memory, Cancellation::default());
        recording.put("job/a", "four".into()).unwrap();
        for outcome in [PutOutcome::Created, PutOutcome::Exists] {
            assert_eq!(recording.put_if_absent("job/b", "five!".into()).unwrap(), outcome);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sixsix").unwrap();
        recording.put_file("job/c", file.path(), &Cancellation::default()).unwrap();
        assert_eq!(recording.written_bytes(), 4 + 5 + 6);
    }

    #[test]
    fn nothing_is_written_for_a_checkpoint_that_was_aborted() {
        let (memory, cancelled) = (Arc::new(MemoryStorage::new()), Cancellation::default());
        let recording = RecordingStorage::new(memory.clone(), cancelled.clone());
        recording.put("job/a", Bytes::new()).unwrap();
        cancelled.cancel();
        assert!(recording.put("job/b", Bytes::new()).is_err());
        assert!(recording.put_if_absent("job/c", Bytes::new()).is_err());
        assert_eq!((memory.list("job/").unwrap().len(), recording.written()), (1, vec!["job/a".to_string()]));
    }
}
