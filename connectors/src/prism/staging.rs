//! The local files that segments are written to before they are uploaded. A sealed one is deleted
//! when nobody needs it any more: it is a value, and its end is its drop.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_engine::{Error, Result};
use thalweg_proto::prism::Record;

use super::segment::{MAGIC, encode};

/// Bytes in the files of one instance.
pub(super) type StagedBytes = Arc<AtomicU64>;

/// A segment that is being written.
pub(super) struct OpenSegment {
    output: BufWriter<File>,
    sealed: SealedSegment,
    scratch: Vec<u8>,
}

/// A segment that is complete.
#[derive(Debug)]
pub(super) struct SealedSegment {
    pub(super) path: PathBuf,
    pub(super) epoch: u64,
    pub(super) first_sequence: u64,
    pub(super) records: u64,
    bytes: u64,
    staged: StagedBytes,
}

impl OpenSegment {
    /// Begins a file.
    pub(super) fn create(directory: &Path, first_sequence: u64, staged: &StagedBytes) -> Result<Self> {
        let path = directory.join(format!("segment-{first_sequence}"));
        let file = File::create_new(&path).map_err(|error| failed(&path, error))?;
        let mut output = BufWriter::with_capacity(256 << 10, file);
        output.write_all(MAGIC).map_err(|error| failed(&path, error))?;
        let staged = staged.clone();
        let sealed = SealedSegment { path, epoch: 0, first_sequence, records: 0, bytes: 0, staged };
        Ok(OpenSegment { output, sealed, scratch: Vec::new() })
    }

    /// Adds a record.
    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        self.scratch.clear();
        encode(record, &mut self.scratch)?;
        self.output.write_all(&self.scratch).map_err(|error| failed(&self.sealed.path, error))?;
        self.sealed.records += 1;
        self.sealed.bytes += self.scratch.len() as u64;
        self.sealed.staged.fetch_add(self.scratch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The sequence after the last record's.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sealed.first_sequence + self.sealed.records
    }

    /// Writes out what is in memory; may be repeated when it fails.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(|error| failed(&self.sealed.path, error))
    }

    /// Ends a flushed file.
    pub(super) fn seal(self, epoch: u64) -> SealedSegment {
        let mut sealed = self.sealed;
        sealed.epoch = epoch;
        sealed
    }
}

impl Drop for SealedSegment {
    fn drop(&mut self) {
        self.staged.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a staged segment could not be deleted");
        }
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::external(format!("cannot write {}", path.display())).caused_by(error)
}
