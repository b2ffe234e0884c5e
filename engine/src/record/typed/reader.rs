//! Rows out of a batch and into one.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::Record;
use super::column::{find, mismatch, same_type};
use crate::{Error, Result};

/// The rows of one batch as records, read in place.
pub struct RecordReader<'a, T: Record> {
    columns: T::Columns<'a>,
    rows: usize,
}

impl<T: Record> Clone for RecordReader<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Record> Copy for RecordReader<'_, T> {}

impl<'a, T: Record> RecordReader<'a, T> {
    /// Finds and downcasts the record's columns: once for a batch.
    ///
    /// # Errors
    /// A user error that names the column that does not fit.
    pub fn new(records: &'a RecordBatch) -> Result<Self> {
        Ok(RecordReader { columns: T::columns(records)?, rows: records.num_rows() })
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// The row at `row`. Panics when it is out of bounds, as indexing does.
    pub fn row(&self, row: usize) -> T::Row<'a> {
        T::read(&self.columns, row)
    }

    /// All rows in order.
    pub fn rows(&self) -> impl Iterator<Item = T::Row<'a>> + use<'a, T> {
        let reader = *self;
        (0..reader.rows).map(move |row| reader.row(row))
    }
}

/// Gathers records to a batch.
pub struct RecordBuilder<T: Record> {
    builder: T::Builder,
    rows: usize,
    bytes: usize,
}

impl<T: Record> Default for RecordBuilder<T> {
    fn default() -> Self {
        RecordBuilder { builder: T::Builder::default(), rows: 0, bytes: 0 }
    }
}

impl<T: Record> RecordBuilder<T> {
    /// Appends a record.
    pub fn push(&mut self, record: &T) {
        self.push_row(record.as_row());
    }

    /// Appends a row that lies elsewhere, such as in another batch.
    pub fn push_row(&mut self, row: T::Row<'_>) {
        T::append(&mut self.builder, row);
        self.rows += 1;
        self.bytes += T::row_bytes(row);
    }

    /// Number of rows appended since the last [`RecordBuilder::finish`].
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// Roughly the bytes of the rows appended since then.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A batch of what was appended; the builder is empty afterwards.
    ///
    /// # Errors
    /// An Arrow error, which is a bug of the derive.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        (self.rows, self.bytes) = (0, 0);
        T::finish(&mut self.builder)
    }
}

impl<'a, T: Record> Extend<&'a T> for RecordBuilder<T> {
    fn extend<I: IntoIterator<Item = &'a T>>(&mut self, records: I) {
        records.into_iter().for_each(|record| self.push(record));
    }
}

/// Checks that batches of `schema` can be read as `T`: every field has its column, of its type.
/// Nullability is checked on the batches, since what computes a column often cannot promise it.
///
/// # Errors
/// A user error that says every mistake.
pub fn check_schema<T: Record>(schema: &Schema) -> Result<()> {
    let expected = T::schema();
    let mut mistakes = Vec::new();
    for field in expected.fields() {
        let found = find(schema, field.name()).map(|index| schema.field(index).data_type());
        match found {
            Ok(found) if same_type(field.data_type(), found) => {}
            Ok(found) => mistakes.push(mismatch(field.name(), field.data_type(), found).to_string()),
            Err(error) => mistakes.push(error.to_string()),
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Error::user(mistakes.join("; "))) }
}
