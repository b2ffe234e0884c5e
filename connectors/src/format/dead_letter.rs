//! The rows of a source's side output for records that cannot be decoded.

use std::sync::Arc;

use arrow::array::{BinaryViewBuilder, Int32Builder, Int64Builder, RecordBatch, StringViewBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_engine::Result;

/// The schema of dead letters: `cluster, topic, partition, offset, reason, payload`. For files,
/// `cluster` is `file`, `topic` the path and `offset` the line (from 1).
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("cluster", DataType::Utf8View, false),
        Field::new("topic", DataType::Utf8View, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("payload", DataType::BinaryView, false),
    ]))
}

/// A record that could not be decoded, and where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Which cluster; `file` for files.
    pub cluster: &'a str,
    /// Which topic; the path for files.
    pub topic: &'a str,
    /// Which partition; 0 for files.
    pub partition: i32,
    /// Which record; the line (from 1) for files.
    pub offset: i64,
    /// Why it could not be decoded.
    pub reason: &'a str,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Gathers dead letters to a batch.
#[derive(Debug, Default)]
pub struct DeadLetters {
    rows: usize,
    cluster: StringViewBuilder,
    topic: StringViewBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    reason: StringViewBuilder,
    payload: BinaryViewBuilder,
}

impl DeadLetters {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, letter: DeadLetter<'_>) {
        self.rows += 1;
        self.cluster.append_value(letter.cluster);
        self.topic.append_value(letter.topic);
        self.partition.append_value(letter.partition);
        self.offset.append_value(letter.offset);
        self.reason.append_value(letter.reason);
        self.payload.append_value(letter.payload);
    }

    /// Takes what was gathered; `None` when there is nothing.
    ///
    /// # Errors
    /// An internal error of Arrow's.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(None);
        }
        let batch = RecordBatch::try_new(
            dead_letter_schema(),
            vec![
                Arc::new(self.cluster.finish()),
                Arc::new(self.topic.finish()),
                Arc::new(self.partition.finish()),
                Arc::new(self.offset.finish()),
                Arc::new(self.reason.finish()),
                Arc::new(self.payload.finish()),
            ],
        )?;
        Ok(Some(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_become_rows_and_nothing_becomes_nothing() {
        let mut letters = DeadLetters::new();
        assert!(letters.finish().unwrap().is_none());
        let letter = DeadLetter {
            cluster: "east",
            topic: "flights",
            partition: 3,
            offset: 9,
            reason: "no",
            payload: b"\xff{",
        };
        letters.push(letter);
        let batch = letters.finish().unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.schema()), (1, dead_letter_schema()));
        assert!(letters.finish().unwrap().is_none());
    }
}
