//! Formats: bytes of records to Arrow batches and back.
//!
//! This module knows Arrow and the engine's error; it knows no connector. The rule it lives by:
//! one payload is one record and one row. A payload that cannot be decoded is reported with its
//! index, its bytes and a reason, and neither spoils nor glues to its neighbours. Only the
//! schema's columns are decoded. Logic is pure: no clock, no I/O.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use thalweg_engine::Result;

mod columns;
mod csv;
mod dead_letter;
mod json;
mod raw;
mod row_decoder;
mod timestamp;

pub(crate) use columns::with_string_views;
pub use csv::{Csv, CsvEncoder};
pub use dead_letter::{DeadLetter, DeadLetters, dead_letter_schema};
pub use json::{Json, JsonEncoder};
pub use raw::{Raw, RawEncoder};

/// How the bytes of one record become a row. Shared by all readers of a source.
pub trait Format: Send + Sync {
    /// The columns of the decoded batches. Strings are `Utf8View`.
    fn schema(&self) -> SchemaRef;

    /// Makes a decoder for one reader.
    ///
    /// # Errors
    /// A user error that names the column, when the schema asks for what the format cannot hold.
    fn decoder(&self) -> Result<Box<dyn Decoder>>;

    /// What distinguishes this format from another configuration, for the graph's fingerprint.
    fn describe(&self) -> String;
}

/// Decodes records in bulk: push the payloads of a whole fetch, then flush once.
pub trait Decoder: Send {
    /// Takes one record. It counts as pushed whether it can be decoded or not. The payload is not
    /// needed after the call.
    fn push(&mut self, payload: &[u8]);

    /// Takes a record without a value, which is not an empty one: a row of nulls, and of anything in
    /// columns that take none, which the caller fills.
    fn push_null(&mut self);

    /// How many records were pushed since the last flush.
    fn pending(&self) -> usize;

    /// Everything that was pushed since the last flush.
    ///
    /// # Errors
    /// An internal error; a record that cannot be decoded is none.
    fn flush(&mut self) -> Result<Decoded>;
}

/// What a bulk of records was decoded to.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The good records in the order they were pushed, one row each.
    pub records: RecordBatch,
    /// The others, with rising indexes.
    pub bad: Vec<BadRecord>,
}

/// A record that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Which one among those pushed since the last flush, from 0.
    pub index: usize,
    /// Why, for people; names the column where it can.
    pub reason: String,
    /// The record's bytes.
    pub payload: Vec<u8>,
    /// What is wrong with the time that it is for, when it is one.
    pub time: Option<BadTime>,
}

/// Why a time cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTime {
    /// It is no time that the format knows.
    Unparsable,
    /// It is beyond what a column of its unit holds.
    OutOfRange,
}

/// What happens to a record that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDecodeError {
    /// The job fails, and says which record it was.
    #[default]
    Fail,
    /// The record is dropped and counted.
    Drop,
    /// The record goes, with its place and the reason, to the source's side output 1.
    DeadLetter,
}

/// Encodes rows to records.
pub trait Encoder: Send {
    /// Appends one record for each row to `rows`.
    ///
    /// # Errors
    /// A user error that names the column, when a type has no form in this format.
    fn encode(&mut self, records: &RecordBatch, rows: &mut EncodedRows) -> Result<()>;
}

/// Encoded records, one behind the other in one buffer. A record may have no value, which is not an
/// empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedRows {
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`; it begins where the one before it ends.
    ends: Vec<usize>,
    /// The records that have no value.
    without: BTreeSet<usize>,
}

impl EncodedRows {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all records, without anything between them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of record `index`; empty past the last one.
    pub fn row(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends.get(index - 1).copied().unwrap_or(0) };
        let end = self.ends.get(index).copied().unwrap_or(start);
        &self.bytes[start..end]
    }

    /// The value of record `index`, if it has one.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        (!self.without.contains(&index)).then(|| self.row(index))
    }

    /// Takes the value of record `index` away: to Kafka it is a tombstone then.
    pub fn remove_value(&mut self, index: usize) {
        self.without.insert(index);
    }

    /// The records in order, one without a value as an empty one.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.row(index))
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.without.clear();
    }

    /// Where an encoder appends a record's bytes; [`EncodedRows::end_row`] ends the record.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the record whose bytes were appended last.
    pub fn end_row(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_where_they_were_ended() {
        let mut rows = EncodedRows::new();
        for row in ["ab", "", "c"] {
            rows.buffer().extend_from_slice(row.as_bytes());
            rows.end_row();
        }
        assert_eq!(rows.iter().collect::<Vec<_>>(), [b"ab".as_slice(), b"", b"c"]);
        assert_eq!(rows.row(7), b"");
        rows.remove_value(2);
        assert_eq!([rows.value(1), rows.value(2)], [Some(b"".as_slice()), None]);
        rows.clear();
        assert!(rows.is_empty() && rows.bytes().is_empty());
    }
}
