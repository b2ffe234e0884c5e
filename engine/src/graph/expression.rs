//! What the engine knows of an expression: batch in, array out.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use crate::Result;

/// A pure function from a batch to one column of as many rows.
pub trait Expression: Send + Sync {
    /// The type of the column for batches of this schema.
    ///
    /// # Errors
    /// A user error when the expression does not fit the schema.
    fn data_type(&self, schema: &Schema) -> Result<DataType>;

    /// Evaluates.
    ///
    /// # Errors
    /// A user error when it fails for a row.
    fn evaluate(&self, records: &RecordBatch) -> Result<ArrayRef>;

    /// The expression as text, stable between processes.
    fn describe(&self) -> String;
}
