//! A file that is being written and nobody may see yet.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use thalweg_engine::{Error, Result};

use super::sink::FileSinkFormat;
use super::{io_error, sync_directory};
use crate::format::{EncodedRows, Encoder};

/// The directory, inside the target directory, of files that are not committed.
const STAGING: &str = ".staging";
/// A Parquet row group is written out when it holds so many bytes in memory.
pub(super) const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Where a file of this name is before its commit.
pub(super) fn staged_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(STAGING).join(name)
}

enum Writer {
    Lines(BufWriter<File>),
    Parquet(Box<ArrowWriter<File>>),
}

/// A file in the staging directory. It is finished (flushed and on disk) at most once, on any
/// thread; a failed attempt may be repeated.
pub(super) struct StagedFile {
    pub(super) name: String,
    path: PathBuf,
    /// `None` once it is finished.
    writer: Mutex<Option<Writer>>,
    /// The same file, to bring it to disk and to measure it.
    file: File,
}

impl StagedFile {
    /// Makes the file `stem-<n>.<extension>`; the stem is the instance's own.
    pub(super) fn create(
        directory: &Path,
        stem: &str,
        sequence: &mut u64,
        format: &FileSinkFormat,
        schema: &SchemaRef,
    ) -> Result<StagedFile> {
        let staging = directory.join(STAGING);
        std::fs::create_dir_all(&staging).map_err(|error| io_error(&staging, "cannot create", error))?;
        let name = format!("{stem}-{sequence:06}.{}", format.extension());
        *sequence += 1;
        let path = staging.join(&name);
        let file = File::create_new(&path).map_err(|error| io_error(&path, "cannot create", error))?;
        let output = file.try_clone().map_err(|error| io_error(&path, "cannot open twice", error))?;
        let writer =
            Self::begin(output, format, schema).map_err(|e| e.context(path.display().to_string()))?;
        Ok(StagedFile { name, path, writer: Mutex::new(Some(writer)), file })
    }

    fn begin(output: File, format: &FileSinkFormat, schema: &SchemaRef) -> Result<Writer> {
        let mut lines = match format {
            FileSinkFormat::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                let writer =
                    ArrowWriter::try_new(output, schema.clone(), Some(properties)).map_err(refused)?;
                return Ok(Writer::Parquet(Box::new(writer)));
            }
            FileSinkFormat::Json(_) | FileSinkFormat::Csv { .. } => {
                BufWriter::with_capacity(256 * 1024, output)
            }
        };
        if let FileSinkFormat::Csv { encoder, header: true } = format {
            let mut header = encoder.header(schema);
            header.push(b'\n');
            lines.write_all(&header).map_err(|error| Error::external("cannot write").caused_by(error))?;
        }
        Ok(Writer::Lines(lines))
    }

    /// Writes rows, encoded by `encoder` into `rows` where the format has lines.
    pub(super) fn write(
        &self,
        records: &RecordBatch,
        encoder: Option<&mut (dyn Encoder + 'static)>,
        rows: &mut EncodedRows,
    ) -> Result<()> {
        match (self.writer.lock().as_mut(), encoder) {
            (Some(Writer::Lines(output)), Some(encoder)) => {
                rows.clear();
                encoder.encode(records, rows)?;
                for row in rows.iter() {
                    let written = output.write_all(row).and_then(|()| output.write_all(b"\n"));
                    written.map_err(|error| io_error(&self.path, "cannot write", error))?;
                }
                Ok(())
            }
            (Some(Writer::Parquet(output)), _) => {
                let written = output.write(records).and_then(|()| {
                    if output.memory_size() > ROW_GROUP_BYTES { output.flush() } else { Ok(()) }
                });
                written.map_err(|error| refused(error).context(self.path.display().to_string()))
            }
            (Some(Writer::Lines(_)), None) => Err(Error::internal("lines need an encoder")),
            (None, _) => Err(Error::internal(format!("{} is finished", self.path.display()))),
        }
    }

    /// Brings the file to disk and returns its length in bytes.
    pub(super) fn finish(&self) -> Result<u64> {
        let failed = |error| io_error(&self.path, "cannot finish", error);
        let mut writer = self.writer.lock();
        match writer.as_mut() {
            Some(Writer::Lines(output)) => output.flush().map_err(failed)?,
            Some(Writer::Parquet(output)) => {
                output.finish().map_err(|error| refused(error).context(self.path.display().to_string()))?;
            }
            None => {}
        }
        self.file.sync_all().map_err(failed)?;
        // Its name, too, and that of the staging directory, which may be new.
        let staging = self.path.parent().unwrap_or(Path::new("."));
        for directory in [Some(staging), staging.parent()].into_iter().flatten() {
            sync_directory(directory)?;
        }
        *writer = None;
        Ok(self.file.metadata().map_err(failed)?.len())
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::external("cannot write as Parquet").caused_by(error)
}
