//! What happens to rows that a transform does not take: nulls, wrong shapes, ids out of range, rows
//! that are too long.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_engine::record::Batch;
use thalweg_engine::{Error, Result};

use super::compute::RejectedRow;

/// What happens to a row that a transform does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnBadRow {
    /// The job fails, and says which row it was.
    #[default]
    Fail,
    /// The row is dropped and counted.
    Drop,
    /// The row goes, with the column and the reason, to the transform's side output 1.
    DeadLetter,
}

/// The column of dead letters that names the input column.
const COLUMN: &str = "bad_column";
/// The column of dead letters that says why.
const REASON: &str = "reason";

/// The columns that say where a record came from, as Kafka sources call them.
const POSITION: [&str; 4] = ["kafka_cluster", "kafka_topic", "kafka_partition", "kafka_offset"];

/// The schema of rows that were not taken: the input's columns, then `bad_column` and `reason`.
///
/// # Errors
/// A user error when the input has such columns.
pub(super) fn dead_letter_schema(input: &Schema) -> Result<SchemaRef> {
    for name in [COLUMN, REASON] {
        if input.index_of(name).is_ok() {
            return Err(Error::user(format!(
                "column {name:?} is taken: rows that are not taken get one of that name in the side output"
            )));
        }
    }
    let own = [COLUMN, REASON].map(|name| Arc::new(Field::new(name, DataType::Utf8View, false)));
    let fields: Vec<_> = input.fields().iter().cloned().chain(own).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The dead letters of a batch.
///
/// # Errors
/// An error of Arrow's.
pub(super) fn dead_letters(
    schema: &SchemaRef,
    rows: &RecordBatch,
    rejected: &[RejectedRow],
) -> Result<Batch> {
    let taken = take_record_batch(rows, &UInt32Array::from_iter_values(rejected.iter().map(|row| row.row)))?;
    let columns = StringViewArray::from_iter_values(rejected.iter().map(|row| &*row.column));
    let reasons = StringViewArray::from_iter_values(rejected.iter().map(|row| &row.reason));
    let own: [ArrayRef; 2] = [Arc::new(columns), Arc::new(reasons)];
    let all = taken.columns().iter().cloned().chain(own).collect();
    Ok(Batch::new(RecordBatch::try_new(schema.clone(), all)?))
}

/// The error for a row that fails the job: column, reason, and where the row came from if it says.
pub(super) fn bad_row(rows: &RecordBatch, rejected: &RejectedRow) -> Error {
    let shown = |name: &str| {
        let column = rows.column_by_name(name)?.slice(rejected.row as usize, 1);
        let text = cast(&column, &DataType::Utf8).ok()?;
        let text = arrow::array::AsArray::as_string::<i32>(&text).value(0).to_string();
        Some(format!("{} {text}", name.trim_start_matches("kafka_")))
    };
    let position: Vec<String> = POSITION.iter().filter_map(|name| shown(name)).collect();
    let position =
        if position.is_empty() { String::new() } else { format!(" (from {})", position.join(", ")) };
    Error::user(format!("column {:?}: {}{position}", rejected.column, rejected.reason))
}
