//! Rows to JSON objects.

use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use thalweg_engine::{Error, Result};

use super::super::{EncodedRows, Encoder};

/// Encodes rows to JSON objects, one a record, fields in the schema's order.
///
/// A null is written as `null`, as Kafka Connect's `JsonConverter` and Flink's JSON format do by
/// default: consumers see every field of the schema in every record. Timestamps become RFC 3339
/// strings, binary values hex, a float that is not finite becomes `null`.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonEncoder {
    omit_nulls: bool,
}

impl JsonEncoder {
    /// An encoder that writes nulls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves fields that are null out of their objects.
    #[must_use]
    pub fn omit_nulls(mut self) -> Self {
        self.omit_nulls = true;
        self
    }
}

impl Encoder for JsonEncoder {
    fn encode(&mut self, records: &RecordBatch, rows: &mut EncodedRows) -> Result<()> {
        let mut lines = Vec::new();
        let builder = WriterBuilder::new().with_explicit_nulls(!self.omit_nulls);
        let mut writer = builder.build::<_, LineDelimited>(&mut lines);
        let written = writer.write(records).and_then(|()| writer.finish());
        written.map_err(|error| Error::user("rows cannot be written as JSON").caused_by(error))?;
        drop(writer);
        // A newline inside a string is escaped, so every one of these ends a row.
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            rows.buffer().extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            rows.end_row();
        }
        Ok(())
    }
}
