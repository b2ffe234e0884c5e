//! One open Parquet file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use ::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use thalweg_engine::runtime::TARGET_BYTES;
use thalweg_engine::{Context, Error, Result};

use super::{FilePosition, io_error};
use crate::format::with_string_views;

/// Rows of a batch, unless they are long.
const BATCH_ROWS: usize = 8_192;

/// The columns of a Parquet file, strings as `Utf8View`.
///
/// # Errors
/// An external error when the file cannot be read, a user error when it is not Parquet.
pub fn parquet_schema(path: &Path) -> Result<SchemaRef> {
    Ok(with_string_views(open_builder(path)?.schema()))
}

fn open_builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(|error| io_error(path, "cannot open", error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(path, error))
}

fn damaged(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::user(format!("{}: cannot be read as Parquet", path.display())).caused_by(error)
}

/// A Parquet file that is being read.
pub(super) struct OpenParquet {
    path: PathBuf,
    schema: SchemaRef,
    rows: ParquetRecordBatchReader,
    position: FilePosition,
}

impl OpenParquet {
    /// Opens a file and goes to the row of `position`.
    pub(super) fn open(path: &Path, schema: &SchemaRef, position: FilePosition) -> Result<OpenParquet> {
        let builder = open_builder(path)?;
        let known = builder.schema();
        for field in schema.fields() {
            let found = known.field_with_name(field.name());
            if found.is_err() {
                let (path, name) = (path.display(), field.name());
                return Err(Error::user(format!("{path}: there is no column {name:?}")));
            }
        }
        let wanted = known.fields().iter().enumerate();
        let wanted: Vec<_> = wanted
            .filter(|(_, field)| schema.index_of(field.name()).is_ok())
            .map(|(index, _)| index)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let batch_rows = batch_rows(builder.metadata(), &mask);
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if position.next > rows {
            let (path, next) = (path.display(), position.next);
            let message = format!("{path}: it was read up to row {next} and has {rows} rows now");
            return Err(Error::external(message).permanent());
        }
        let builder = builder.with_projection(mask).with_batch_size(batch_rows);
        let reader = builder.with_offset(position.next as usize).build();
        let rows = reader.map_err(|error| damaged(path, error))?;
        Ok(OpenParquet { path: path.to_path_buf(), schema: Arc::clone(schema), rows, position })
    }

    pub(super) fn position(&self) -> FilePosition {
        self.position
    }

    /// The next rows, with the source's columns; `None` at the end.
    pub(super) fn read_batch(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.rows.next() else {
            return Ok(None);
        };
        let batch = batch.map_err(|error| damaged(&self.path, error))?;
        self.position.next += batch.num_rows() as u64;
        self.fit(&batch).context(|| self.path.display().to_string()).map(Some)
    }

    /// The source's columns in its order and types.
    fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.schema.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name());
            let column = column.ok_or_else(|| Error::internal(format!("no column {:?}", field.name())))?;
            cast_exactly(column, field.data_type()).context(|| format!("column {:?}", field.name()))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let fitted = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        fitted.map_err(|error| Error::user("rows do not fit the schema").caused_by(error))
    }
}

/// Rows of a batch: fewer, where the columns that are read are long on average.
fn batch_rows(metadata: &ParquetMetaData, mask: &ProjectionMask) -> usize {
    let of_group = |group: &RowGroupMetaData| {
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes: i64 = columns.map(|(_, column)| column.uncompressed_size()).sum();
        usize::try_from(bytes / group.num_rows().max(1)).unwrap_or(0)
    };
    let row_bytes = metadata.row_groups().iter().map(of_group).max().unwrap_or(0);
    (TARGET_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS)
}

/// Casts without losing a value to a null.
fn cast_exactly(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let from = column.data_type();
    cast_with_options(column, to, &options)
        .map_err(|error| Error::user(format!("{from} cannot be read as {to}")).caused_by(error))
}
