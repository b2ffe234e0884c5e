//! The local files that segments are written to before they are uploaded. A file is a value: it is
//! deleted, and its bytes are given back, when it is dropped.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use thalweg_engine::checkpoint::{Cancellation, CheckpointStorage, FileHandle, upload_to};
use thalweg_engine::metrics::Gauge;
use thalweg_engine::operator::Waker;
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::Record;

use super::segment::{MAGIC, encode};

/// Bytes in the files of one instance, and whom to wake when there are fewer.
pub(super) struct StagedBytes {
    bytes: AtomicU64,
    shown: Gauge,
    waker: Waker,
}

impl StagedBytes {
    /// None yet.
    pub(super) fn new(shown: Gauge, waker: Waker) -> Arc<StagedBytes> {
        Arc::new(StagedBytes { bytes: AtomicU64::new(0), shown, waker })
    }

    /// How many there are.
    pub(super) fn get(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.show(self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }

    fn sub(&self, bytes: u64) {
        self.show(self.bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes);
        self.waker.wake();
    }

    fn show(&self, bytes: u64) {
        self.shown.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// A file on the local disk.
struct LocalFile {
    path: PathBuf,
    bytes: u64,
    staged: Arc<StagedBytes>,
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a staged segment could not be deleted");
        }
        self.staged.sub(self.bytes);
    }
}

/// A segment that is being written.
pub(super) struct OpenSegment {
    output: BufWriter<File>,
    file: LocalFile,
    pub(super) first_sequence: u64,
    records: u64,
    scratch: Vec<u8>,
}

impl OpenSegment {
    /// Begins a file.
    pub(super) fn create(directory: &Path, first_sequence: u64, staged: &Arc<StagedBytes>) -> Result<Self> {
        let path = directory.join(format!("segment-{first_sequence}"));
        let file = File::create_new(&path).map_err(|error| failed(&path, error))?;
        let mut output = BufWriter::with_capacity(256 << 10, file);
        output.write_all(MAGIC).map_err(|error| failed(&path, error))?;
        let file = LocalFile { path, bytes: 0, staged: staged.clone() };
        Ok(OpenSegment { output, file, first_sequence, records: 0, scratch: Vec::new() })
    }

    /// Adds a record.
    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        self.scratch.clear();
        encode(record, &mut self.scratch)?;
        self.output.write_all(&self.scratch).map_err(|error| failed(&self.file.path, error))?;
        let bytes = self.scratch.len() as u64;
        self.records += 1;
        self.file.bytes += bytes;
        self.file.staged.add(bytes);
        Ok(())
    }

    /// Bytes of records in it.
    pub(super) fn bytes(&self) -> u64 {
        self.file.bytes
    }

    /// The sequence after the last record's.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first_sequence + self.records
    }

    /// Writes out what is in memory; may be repeated when it fails.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(|error| failed(&self.file.path, error))
    }

    /// Ends a flushed file, which will be the object `path` in the store.
    pub(super) fn seal(self, path: String) -> Arc<SealedSegment> {
        Arc::new(SealedSegment {
            path,
            first_sequence: self.first_sequence,
            records: self.records,
            prepared: AtomicBool::new(false),
            place: Mutex::new(Place::Local(self.file)),
        })
    }
}

/// Where a segment is.
enum Place {
    Local(LocalFile),
    Stored(FileHandle),
}

/// A segment that is complete: on the local disk, and in the store once it was uploaded.
pub(super) struct SealedSegment {
    path: String,
    pub(super) first_sequence: u64,
    pub(super) records: u64,
    prepared: AtomicBool,
    /// Held while it is uploaded: who needs it meanwhile waits for that.
    place: Mutex<Place>,
}

impl SealedSegment {
    /// Brings it to the store, unless it is there. The local file goes with that.
    ///
    /// # Errors
    /// The store's; it may be tried again.
    pub(super) fn upload(
        &self,
        storage: &dyn CheckpointStorage,
        cancelled: &Cancellation,
    ) -> Result<FileHandle> {
        let mut place = self.place.lock();
        let local = match &*place {
            Place::Stored(file) => return Ok(file.clone()),
            Place::Local(local) => local,
        };
        let file = upload_to(storage, &self.path, &local.path, cancelled)?;
        *place = Place::Stored(file.clone());
        Ok(file)
    }

    /// From now on a manifest may name it.
    pub(super) fn prepare(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    /// Whether a manifest may name it.
    pub(super) fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire)
    }

    /// Takes back from the store what no manifest can ever name.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn discard(&self, storage: &dyn CheckpointStorage) -> Result<()> {
        match &*self.place.lock() {
            Place::Stored(file) if !self.is_prepared() => storage.delete(&file.path),
            _ => Ok(()),
        }
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::external(format!("cannot write {}", path.display())).caused_by(error)
}
