//! Raw: the record's bytes as one column.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{BinaryViewArray, RecordBatch, builder::make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_engine::{Error, Result};

use super::{Decoded, Decoder, EncodedRows, Encoder, Format};

/// A block of payload bytes is sealed before it would pass this: offsets in views have 32 bits.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// The raw format: one `BinaryView` column `payload`, null for a record without a value. No record is
/// ever bad.
///
/// The payloads of a bulk are gathered in one buffer, and the rows are views into it: each byte is
/// copied once, out of the memory that the source is about to reuse.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Raw {
    /// The only one there is.
    pub fn new() -> Raw {
        Raw
    }
}

fn raw_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("payload", DataType::BinaryView, true)]))
}

impl Format for Raw {
    fn schema(&self) -> SchemaRef {
        raw_schema()
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(RawDecoder { schema: raw_schema(), ..RawDecoder::default() }))
    }

    fn describe(&self) -> String {
        "raw".to_string()
    }
}

struct RawDecoder {
    schema: SchemaRef,
    views: Vec<u128>,
    /// The rows that have no value.
    without: Vec<usize>,
    sealed: Vec<Buffer>,
    block: Vec<u8>,
    expected_bytes: usize,
}

impl Default for RawDecoder {
    fn default() -> Self {
        let (views, without, sealed, block) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        RawDecoder { schema: raw_schema(), views, without, sealed, block, expected_bytes: 0 }
    }
}

impl Decoder for RawDecoder {
    fn push(&mut self, payload: &[u8]) {
        if self.block.len() + payload.len() > BLOCK_BYTES_MAX && !self.block.is_empty() {
            self.sealed.push(Buffer::from_vec(std::mem::take(&mut self.block)));
        }
        if self.block.capacity() == 0 {
            self.block.reserve(self.expected_bytes);
        }
        let offset = self.block.len() as u32;
        self.views.push(make_view(payload, self.sealed.len() as u32, offset));
        // Short payloads lie in their views.
        if payload.len() > 12 {
            self.block.extend_from_slice(payload);
        }
    }

    fn push_null(&mut self) {
        self.without.push(self.views.len());
        self.views.push(0);
    }

    fn pending(&self) -> usize {
        self.views.len()
    }

    fn flush(&mut self) -> Result<Decoded> {
        let rows = self.views.len();
        let views = std::mem::replace(&mut self.views, Vec::with_capacity(rows));
        let mut buffers = std::mem::take(&mut self.sealed);
        self.expected_bytes = self.block.len();
        if !self.block.is_empty() {
            buffers.push(Buffer::from_vec(std::mem::take(&mut self.block)));
        }
        let nulls = (!self.without.is_empty()).then(|| {
            let mut without = std::mem::take(&mut self.without).into_iter().peekable();
            NullBuffer::from_iter((0..rows).map(|row| without.next_if_eq(&row).is_none()))
        });
        let payloads = BinaryViewArray::try_new(ScalarBuffer::from(views), buffers, nulls)?;
        let records = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(payloads)])?;
        Ok(Decoded { records, bad: Vec::new() })
    }
}

/// Encodes the only column (binary or string) as it is; a null becomes a record without a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawEncoder;

impl RawEncoder {
    /// The only one there is.
    pub fn new() -> RawEncoder {
        RawEncoder
    }
}

impl Encoder for RawEncoder {
    fn encode(&mut self, records: &RecordBatch, rows: &mut EncodedRows) -> Result<()> {
        let [column] = records.columns() else {
            let count = records.num_columns();
            return Err(Error::user(format!("the raw format writes exactly one column, there are {count}")));
        };
        let mut write = |value: Option<&[u8]>| {
            if value.is_none() {
                rows.remove_value(rows.len());
            }
            rows.buffer().extend_from_slice(value.unwrap_or_default());
            rows.end_row();
        };
        match column.data_type() {
            DataType::BinaryView => column.as_binary_view().iter().for_each(write),
            DataType::Binary => column.as_binary::<i32>().iter().for_each(write),
            DataType::Utf8View => {
                column.as_string_view().iter().for_each(|value| write(value.map(str::as_bytes)));
            }
            DataType::Utf8 => {
                column.as_string::<i32>().iter().for_each(|value| write(value.map(str::as_bytes)));
            }
            other => {
                let name = records.schema().field(0).name().clone();
                let message = format!("the raw format writes bytes or strings; column {name:?} is {other}");
                return Err(Error::user(message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_come_out() {
        let mut decoder = Raw::new().decoder().unwrap();
        let payloads: [&[u8]; 4] = [b"", b"\xff\x00short", b"a payload that is longer than a view", b"{\n"];
        for _ in 0..2 {
            payloads.iter().for_each(|payload| decoder.push(payload));
            assert_eq!(decoder.pending(), 4);
            let decoded = decoder.flush().unwrap();
            let mut rows = EncodedRows::new();
            RawEncoder.encode(&decoded.records, &mut rows).unwrap();
            assert_eq!(rows.iter().collect::<Vec<_>>(), payloads);
        }
        assert_eq!(decoder.flush().unwrap().records.num_rows(), 0);
    }

    #[test]
    fn a_record_without_a_value_is_a_null_and_comes_out_without_one() {
        let mut decoder = Raw::new().decoder().unwrap();
        decoder.push_null();
        decoder.push(b"");
        decoder.push(b"a payload that is longer than a view");
        decoder.push_null();
        let mut rows = EncodedRows::new();
        RawEncoder.encode(&decoder.flush().unwrap().records, &mut rows).unwrap();
        let values: Vec<_> = (0..4).map(|row| rows.value(row).map(<[u8]>::len)).collect();
        assert_eq!(values, [None, Some(0), Some(36), None]);
        decoder.push(b"x");
        assert_eq!(decoder.flush().unwrap().records.column(0).null_count(), 0);
    }
}
