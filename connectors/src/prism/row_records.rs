//! From rows to Prism's records: value by the encoder, key and time from columns.

use std::collections::VecDeque;

use arrow::array::{Array, RecordBatch, cast::AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::Record;

use super::outcome::record_bytes;
use crate::deletes::encode_changes;
use crate::format::{EncodedRows, Encoder};
use crate::kafka::RecordKeys;

/// Makes records of rows.
pub(super) struct RowRecords {
    encoder: Box<dyn Encoder>,
    key: Vec<String>,
    timestamp: Option<String>,
    record_bytes_max: usize,
    rows: EncodedRows,
}

/// Looks whether a stream has what records need.
///
/// # Errors
/// A user error that names the column.
pub(super) fn check_columns(input: &EdgeSchema, key: &[String], timestamp: Option<&str>) -> Result<()> {
    let schema = &input.schema;
    RecordKeys::new(schema, key)?.check(input)?;
    let Some(timestamp) = timestamp else { return Ok(()) };
    match schema.field_with_name(timestamp).map(|field| field.data_type()) {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, _)) => Ok(()),
        Ok(other) => {
            Err(Error::user(format!("column {timestamp:?} is {other}, not a timestamp in microseconds")))
        }
        Err(_) => Err(Error::user(format!("there is no column {timestamp:?} for the records' time"))),
    }
}

impl RowRecords {
    /// Keys from the columns `key`, times from the column `timestamp`.
    pub(super) fn new(
        encoder: Box<dyn Encoder>,
        key: Vec<String>,
        timestamp: Option<String>,
        record_bytes_max: usize,
    ) -> Self {
        RowRecords { encoder, key, timestamp, record_bytes_max, rows: EncodedRows::new() }
    }

    /// One record a row, without ids.
    ///
    /// # Errors
    /// A user error for a row that cannot be encoded or makes too large a record.
    pub(super) fn encode(&mut self, records: &RecordBatch) -> Result<VecDeque<Record>> {
        self.rows.clear();
        encode_changes(&mut *self.encoder, records, &mut self.rows)?;
        let keys = RecordKeys::new(&records.schema(), &self.key)?.encode(records)?;
        let times = match &self.timestamp {
            Some(column) => {
                let column = records.column_by_name(column);
                let times = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
                Some(times.ok_or_else(|| Error::internal("the records' time is no timestamp"))?)
            }
            None => None,
        };
        let mut made = VecDeque::with_capacity(self.rows.len());
        for row in 0..self.rows.len() {
            let time = times.filter(|times| !times.is_null(row)).map(|times| times.value(row));
            // In memory of its own: a record that waits keeps no other alive.
            let record = Record {
                key: keys.as_ref().map(|keys| Bytes::copy_from_slice(keys.row(row))),
                value: self.rows.value(row).map(Bytes::copy_from_slice),
                headers: Vec::new(),
                timestamp_ms: time.map(|micros| micros.div_euclid(1000)),
                id: None,
            };
            let (bytes, limit) = (record_bytes(&record), self.record_bytes_max);
            if bytes > limit {
                return Err(Error::user(format!(
                    "a row makes a record of {bytes} bytes; the limit is {limit}"
                )));
            }
            made.push_back(record);
        }
        Ok(made)
    }
}
