//! Files: a bounded source over JSON lines, CSV, raw lines and Parquet, and a two-phase sink.
//!
//! Each file is a split. A position is the byte at which the next record begins (in a compressed
//! file: of its unpacked content), or the next row of a Parquet file, so that a restore goes on
//! exactly there. Files are taken to be complete and unchanging from the moment they are listed.
//! Large files are read in bounded chunks; local reads are the only thing that blocks.

mod commit;
mod lines;
mod listing;
mod parquet;
mod reader;
mod sink;
mod staged;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::source::{
    Discovery, Enumerator, ReaderOpenContext, Source, SourceReader, SplitId, SplitState,
};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

pub use parquet::parquet_schema;
pub use sink::{FileSink, FileSinkFormat};

use crate::deal::FixedSplits;
use crate::format::{Csv, Format, OnDecodeError, dead_letter_schema};
use crate::position;

/// What the files hold.
#[derive(Clone)]
enum FileFormat {
    /// One record a line.
    Lines(Arc<dyn Format>),
    /// A record may span lines, within quotes.
    Csv(Csv),
    /// These columns of the files, by name.
    Parquet(SchemaRef),
}

impl FileFormat {
    fn schema(&self) -> SchemaRef {
        match self {
            FileFormat::Lines(format) => format.schema(),
            FileFormat::Csv(csv) => csv.schema(),
            FileFormat::Parquet(schema) => Arc::clone(schema),
        }
    }
}

/// A bounded source over the files that a path names: a file, a directory (its files, not those
/// below it), or a glob such as `data/2013-*/*.jsonl.gz`. Names beginning with `.` or `_` are left
/// out of directories and globs. `.gz` and `.zst` are unpacked.
///
/// Each reader reads up to 16 of its files in turn; the watermark waits for files not yet begun.
#[derive(Clone)]
pub struct FileSource {
    path: PathBuf,
    format: FileFormat,
    on_decode_error: OnDecodeError,
}

impl FileSource {
    /// Files with one record a line, such as JSON lines. Lines of white space are passed over.
    pub fn lines(path: impl Into<PathBuf>, format: impl Format + 'static) -> FileSource {
        Self::new(path, FileFormat::Lines(Arc::new(format)))
    }

    /// CSV files.
    pub fn csv(path: impl Into<PathBuf>, csv: Csv) -> FileSource {
        Self::new(path, FileFormat::Csv(csv))
    }

    /// Parquet files; reads these columns by name and casts them where types differ. See
    /// [`parquet_schema`] for the columns of a file.
    pub fn parquet(path: impl Into<PathBuf>, schema: &Schema) -> FileSource {
        Self::new(path, FileFormat::Parquet(crate::format::with_string_views(schema)))
    }

    fn new(path: impl Into<PathBuf>, format: FileFormat) -> FileSource {
        FileSource { path: path.into(), format, on_decode_error: OnDecodeError::default() }
    }

    /// What happens to a record that cannot be decoded. Fails by default.
    #[must_use]
    pub fn on_decode_error(mut self, on_decode_error: OnDecodeError) -> FileSource {
        self.on_decode_error = on_decode_error;
        self
    }
}

impl Source for FileSource {
    fn name(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn output(&self) -> Result<EdgeSchema> {
        // Made once to say early what the format cannot hold.
        match &self.format {
            FileFormat::Lines(format) => drop(format.decoder()?),
            FileFormat::Csv(csv) => drop(csv.decoder()?),
            FileFormat::Parquet(_) => {}
        }
        Ok(EdgeSchema::new(self.format.schema()))
    }

    fn side_outputs(&self) -> Result<Vec<EdgeSchema>> {
        Ok(match self.on_decode_error {
            OnDecodeError::DeadLetter => vec![EdgeSchema::new(dead_letter_schema())],
            OnDecodeError::Fail | OnDecodeError::Drop => Vec::new(),
        })
    }

    fn identity(&self) -> StateIdentity {
        let positions = match self.format {
            FileFormat::Lines(_) | FileFormat::Csv(_) => "bytes",
            FileFormat::Parquet(_) => "parquet rows",
        };
        StateIdentity::of("file source")
            .with("path", self.path.display().to_string())
            .with("positions in", positions)
    }

    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        Ok(Box::new(FixedSplits::discovered(restored, FilePosition::bytes_left, listing::read)?))
    }

    fn discovery(&self) -> Result<Option<Box<dyn Discovery>>> {
        Ok(Some(Box::new(listing::FileListing::new(self.path.clone()))))
    }

    fn reader(&self, cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(reader::FileReader::new(self.clone(), cx.metrics)))
    }

    fn describe(&self) -> String {
        let format = match &self.format {
            FileFormat::Lines(format) => format.describe(),
            FileFormat::Csv(csv) => csv.describe(),
            FileFormat::Parquet(_) => "parquet".to_string(),
        };
        format!("file {} {format} {:?}", self.path.display(), self.on_decode_error)
    }
}

/// How far a file has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FilePosition {
    /// Its length on disk when it was listed, in bytes.
    bytes: u64,
    /// The byte (of the unpacked content) or Parquet row at which the next record begins.
    next: u64,
    /// The line at which the next record begins, from 1; 0 for Parquet.
    line: u64,
}

impl FilePosition {
    fn state(self, id: SplitId) -> Result<SplitState> {
        Ok(SplitState { id, position: position::encode(&self)? })
    }

    /// Bytes left to read, as far as one can tell: a compressed file's length is not its content's.
    fn bytes_left(split: &SplitState) -> u64 {
        let position: Result<FilePosition> = position::decode(&split.position, "the position");
        position.map_or(0, |position| position.bytes.saturating_sub(position.next))
    }
}

/// Brings the names in a directory to disk: a file that is synced may still lose its name.
fn sync_directory(directory: &Path) -> Result<()> {
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io_error(directory, "cannot bring its names to disk", error))
}

/// An error of the file system, with the path.
fn io_error(path: &Path, what: &str, error: std::io::Error) -> Error {
    Error::external(format!("{}: {what}", path.display())).caused_by(error)
}
