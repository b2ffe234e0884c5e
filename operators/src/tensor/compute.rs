//! What is done with the rows of a batch: the operator's view of a plan, so that gathering, order
//! and flushing can be tested without one.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use thalweg_engine::Result;

use super::References;

/// Computes columns of rows; belongs to one instance. Batches come out in the order they went in.
pub(super) trait Compute: Send {
    /// Starts a batch. With as many under way as there may be it first waits for the oldest.
    ///
    /// # Errors
    /// When the device fails.
    fn submit(&mut self, rows: &RecordBatch) -> Result<()>;

    /// Waits for the oldest batch; nothing where none is under way.
    ///
    /// # Errors
    /// When the device fails, or its memory is too small.
    fn finish(&mut self) -> Result<Option<Computed>>;

    /// Says which reference matrices will be set, so that what they need can begin.
    ///
    /// # Errors
    /// Why they cannot be.
    fn expect_references(&mut self, references: &References) -> Result<()>;

    /// Replaces reference matrices, for the batches that are submitted from now on.
    ///
    /// # Errors
    /// When one has another width, or does not fit into memory.
    fn set_references(&mut self, references: &Arc<References>) -> Result<()>;

    /// Bytes held on the device now.
    fn device_bytes(&self) -> usize;
}

/// What was computed of a batch.
#[derive(Debug, Default)]
pub(super) struct Computed {
    /// The output columns, of the rows that were not rejected.
    pub columns: Vec<ArrayRef>,
    /// Which rows these are, rising; `None`: all.
    pub kept: Option<Vec<u32>>,
    /// The others.
    pub rejected: Vec<RejectedRow>,
    /// How long the device computed.
    pub device_time: Duration,
    /// Bytes copied to the device and back.
    pub copied_bytes: usize,
}

/// A row that the transform does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RejectedRow {
    /// Which one of its batch.
    pub row: u32,
    /// The input column.
    pub column: Arc<str>,
    /// Why, for people; shows the value where it can.
    pub reason: String,
}
