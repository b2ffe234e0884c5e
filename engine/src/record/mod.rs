//! What flows: Arrow batches with their own size and their key hashes, the schema of an edge
//! (mode, time column), and typed records over them.
//!
//! This module knows Arrow and nobody else in the crate but the error.

mod batch;
mod edge;
mod footprint;
mod typed;

pub use batch::Batch;
pub use edge::{EdgeSchema, Mode, OP_COLUMN, RESERVED_PREFIX, time_type, time_values};
pub use thalweg_derive::Record;
pub use typed::{
    ColumnType, Record, RecordBuilder, RecordReader, TimeColumnType, Timestamp, check_schema, column, export,
};
