//! What every source, every sink and every way to Kafka owes, as suites that a new one passes before
//! it lands. They call the engine's traits directly, without a runtime, a thread or a clock; only what
//! takes a whole job (`restarts.rs`) runs one, in the simulator.
//!
//! A suite answers with an error that says what was broken, so that it can be used from any test.

#[cfg(feature = "kafka")]
pub mod kafka_client;
pub mod restarts;
pub mod sink;
pub mod source;

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use thalweg_engine::{Error, Result};

/// A row in a form that can be compared and sorted.
pub type ComparableRow = Vec<u8>;

/// The rows of a batch in order.
///
/// # Errors
/// An Arrow error when a type cannot be compared.
pub fn comparable_rows(records: &RecordBatch) -> Result<Vec<ComparableRow>> {
    let fields =
        records.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(records.columns())?;
    Ok(rows.iter().map(|row| row.as_ref().to_vec()).collect())
}

/// What is broken, as an error.
pub(crate) fn broken(what: impl Into<String>) -> Error {
    Error::internal(what)
}

/// An error when a promise does not hold.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(broken(what())) }
}
