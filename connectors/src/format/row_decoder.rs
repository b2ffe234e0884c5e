//! The decoder of formats that read each payload by itself into columns: what a bad record left
//! there is cut back, and its index, bytes and reason are kept. JSON and CSV are read so.

use arrow::datatypes::SchemaRef;
use thalweg_engine::Result;

use super::columns::{Read, Record};
use super::{BadRecord, Decoded, Decoder};

/// Reads one payload as one row.
pub(super) trait ReadRow: Send {
    /// Fills the row. After an error the record's columns are cut back.
    fn read(&mut self, payload: &[u8], record: &mut Record) -> Read<()>;
}

/// Decodes with a [`ReadRow`].
pub(super) struct RowDecoder<R> {
    schema: SchemaRef,
    record: Record,
    rows: R,
    pushed: usize,
    bad: Vec<BadRecord>,
}

impl<R: ReadRow> RowDecoder<R> {
    /// A decoder to the columns of `schema`.
    ///
    /// # Errors
    /// A user error that names a column of a type that no format holds.
    pub(super) fn new(schema: &SchemaRef, rows: R) -> Result<Self> {
        let record = Record::new(schema.fields())?;
        Ok(RowDecoder { schema: schema.clone(), record, rows, pushed: 0, bad: Vec::new() })
    }
}

impl<R: ReadRow> Decoder for RowDecoder<R> {
    fn push(&mut self, payload: &[u8]) {
        let row = self.record.rows();
        if let Err(fault) = self.rows.read(payload, &mut self.record) {
            self.record.truncate(row);
            let (reason, time) = (fault.to_string(), fault.time());
            self.bad.push(BadRecord { index: self.pushed, reason, payload: payload.to_vec(), time });
        }
        self.pushed += 1;
    }

    fn push_null(&mut self) {
        self.record.push_blank();
        self.pushed += 1;
    }

    fn pending(&self) -> usize {
        self.pushed
    }

    fn flush(&mut self) -> Result<Decoded> {
        self.pushed = 0;
        let bad = std::mem::take(&mut self.bad);
        Ok(Decoded { records: self.record.finish_batch(&self.schema)?, bad })
    }
}
