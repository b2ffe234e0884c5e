//! Typed records: what `#[derive(Record)]` implements, and how rows are read from and written to
//! batches through it.
//!
//! A [`Record`] is a struct whose fields are columns. Reading borrows: columns are found and
//! downcast once for a batch, and a row is a small `Copy` view in which strings are `&str` into
//! the batch. Writing appends to Arrow builders. Columns are matched by name, so a batch may have
//! more columns than the record has fields, in any order.

mod column;
mod reader;
mod timestamp;
mod vector_column;

pub use column::{ColumnType, TimeColumnType, column};
pub use reader::{RecordBuilder, RecordReader, check_schema};
pub use timestamp::Timestamp;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::EdgeSchema;
use crate::Result;

/// What generated code needs of Arrow, so that a user of the derive need not depend on it.
#[doc(hidden)]
pub mod export {
    pub use arrow::array::RecordBatch;
    pub use arrow::datatypes::{Field, Schema, SchemaRef};

    pub use crate::Result;
}

/// A struct whose values are rows. Derived: `#[derive(Record)]`.
///
/// The derive also makes `<Name>Row<'a>`, the borrowed view of one row, with a public field for
/// each column. Attributes of a field: `#[record(rename = "...")]` names its column,
/// `#[record(time)]` says that it is the event time. Attributes of the struct:
/// `#[record(crate = "...")]` is the path under which the engine is found (default `::thalweg`),
/// `#[record(row = "...")]` names the row view.
///
/// ```
/// use thalweg_engine::record::{Record, RecordBuilder, RecordReader, Timestamp};
///
/// #[derive(Record, Debug, PartialEq)]
/// #[record(crate = "thalweg_engine")]
/// struct Flight {
///     #[record(rename = "tailnum")]
///     tail: Option<String>,
///     #[record(time)]
///     scheduled: Timestamp,
/// }
///
/// let mut rows = RecordBuilder::<Flight>::default();
/// rows.push(&Flight { tail: Some("N14228".into()), scheduled: Timestamp(0) });
/// let batch = rows.finish()?;
/// let flights = RecordReader::<Flight>::new(&batch)?;
/// let row: FlightRow<'_> = flights.row(0);
/// assert_eq!(row.tail, Some("N14228"));
/// # Ok::<(), thalweg_engine::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    label = "needs `#[derive(Record)]`",
    note = "a record is a struct with named fields that derives `thalweg::prelude::Record`"
)]
pub trait Record: Sized + Send + Sync + 'static {
    /// The column that is the event time, if the struct names one.
    const TIME: Option<&'static str>;
    /// One row, borrowed from its batch.
    type Row<'a>: Copy;
    /// The columns of one batch, found and downcast.
    type Columns<'a>: Copy;
    /// The Arrow builders of the columns.
    type Builder: Default + Send;

    /// The Arrow schema, in the order of the fields. A field is nullable when it is an `Option`.
    fn schema() -> SchemaRef;

    /// Finds and downcasts the columns of a batch.
    ///
    /// # Errors
    /// A user error that names the column, the expected type and the one that is there; or that
    /// a column has nulls though its field is not an `Option`.
    fn columns(records: &RecordBatch) -> Result<Self::Columns<'_>>;

    /// Looks at one row. Panics when `row` is out of bounds, as indexing does.
    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self::Row<'a>;

    /// The view of an owned record.
    fn as_row(&self) -> Self::Row<'_>;

    /// Copies a row out of its batch.
    fn from_row(row: Self::Row<'_>) -> Self;

    /// Roughly the bytes that a row takes in a batch.
    fn row_bytes(row: Self::Row<'_>) -> usize;

    /// Appends a row to the builders.
    fn append(builder: &mut Self::Builder, row: Self::Row<'_>);

    /// Makes a batch of what was appended and empties the builders.
    ///
    /// # Errors
    /// An Arrow error when the arrays do not fit the schema, which is a bug of the derive.
    fn finish(builder: &mut Self::Builder) -> Result<RecordBatch>;

    /// The promise of an append edge on which these records flow.
    ///
    /// # Errors
    /// A user error when the time column is not a timestamp.
    fn edge_schema() -> Result<EdgeSchema> {
        let edge = EdgeSchema::new(Self::schema());
        match Self::TIME {
            Some(column) => edge.with_time(column),
            None => Ok(edge),
        }
    }
}
