//! The unit that flows: an Arrow record batch, the bytes that it keeps alive (measured once), and
//! the key hashes that travel with it as a hidden column.
//!
//! There are two measures. [`Batch::bytes`] is what holding the batch costs: its buffers whole, the
//! data of views among them, one that columns share once, and what arrays are beside their buffers.
//! [`Batch::rows_bytes`] is what a copy of the rows would take. A slice, a `take` or a filter of
//! strings keeps all of its source alive; where rows wait, [`Batch::compacted`] copies them out.
//!
//! Costs: `bytes` looks at buffers only, about a microsecond for ten columns, and only where a batch
//! waits; `rows_bytes` also passes over the views of columns with long strings, less than a
//! nanosecond a row. A batch that runs down a chain is not measured at all.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;

use super::footprint::{self, Footprint};
use crate::Result;

/// A batch that keeps more than this many times its own bytes alive is compacted before it waits.
const RETAINED_RATIO_MAX: usize = 4;
/// Below this many retained bytes nobody cares.
const RETAINED_BYTES_MIN: usize = 64 * 1024;

/// Rows in columns; cheap to clone. Shape: `row_count() x schema().fields().len()`.
#[derive(Clone, Debug)]
pub struct Batch {
    records: RecordBatch,
    key_hashes: Option<UInt64Array>,
    /// Measured when somebody asks.
    bytes: OnceLock<usize>,
}

impl Batch {
    /// Wraps a record batch.
    pub fn new(records: RecordBatch) -> Self {
        Batch { records, key_hashes: None, bytes: OnceLock::new() }
    }

    /// Attaches one 64-bit key hash for each row.
    #[must_use]
    pub fn with_key_hashes(self, hashes: UInt64Array) -> Self {
        debug_assert_eq!(hashes.len(), self.records.num_rows());
        Batch { records: self.records, key_hashes: Some(hashes), bytes: OnceLock::new() }
    }

    /// Takes the key hashes off, for a batch that leaves its keyed stream.
    #[must_use]
    pub fn without_key_hashes(self) -> Self {
        Batch::new(self.records)
    }

    /// The visible columns.
    pub fn records(&self) -> &RecordBatch {
        &self.records
    }

    /// Gives the visible columns away.
    pub fn into_records(self) -> RecordBatch {
        self.records
    }

    /// The hidden column of key hashes, one a row, when the batch flows on a keyed edge.
    pub fn key_hashes(&self) -> Option<&UInt64Array> {
        self.key_hashes.as_ref()
    }

    /// The schema of the visible columns.
    pub fn schema(&self) -> SchemaRef {
        self.records.schema()
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.records.num_rows()
    }

    /// What the batch keeps alive, in bytes. Batches that share buffers count them each.
    pub fn bytes(&self) -> usize {
        *self.bytes.get_or_init(|| {
            let mut footprint = Footprint::default();
            self.columns().for_each(|column| footprint.add(column));
            footprint.bytes()
        })
    }

    /// What a copy of the rows would take, in bytes.
    pub fn rows_bytes(&self) -> usize {
        self.columns().map(footprint::rows_bytes).sum()
    }

    /// How many of the rows have `bytes_max` bytes between them, on average; one at least.
    pub fn rows_within(&self, bytes_max: usize) -> usize {
        let rows = self.row_count();
        (rows.saturating_mul(bytes_max) / self.rows_bytes().max(1)).clamp(1, rows.max(1))
    }

    /// The visible columns and the hidden one.
    fn columns(&self) -> impl Iterator<Item = &dyn Array> {
        let hashes = self.key_hashes.iter().map(|hashes| hashes as &dyn Array);
        self.records.columns().iter().map(|column| column.as_ref()).chain(hashes)
    }

    /// Rows `offset..offset + length`, without copying.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Batch {
        let sliced = Batch::new(self.records.slice(offset, length));
        match &self.key_hashes {
            Some(hashes) => sliced.with_key_hashes(hashes.slice(offset, length)),
            None => sliced,
        }
    }

    /// The rows at `indices` (null-free), copied, but for the data of long strings.
    ///
    /// # Errors
    /// An Arrow error when an index is out of bounds.
    pub fn take(&self, indices: &dyn Array) -> Result<Batch> {
        let taken = Batch::new(take_record_batch(&self.records, indices)?);
        match &self.key_hashes {
            Some(hashes) => {
                let hashes = arrow::compute::take(hashes, indices, None)?;
                Ok(taken.with_key_hashes(UInt64Array::from(hashes.to_data())))
            }
            None => Ok(taken),
        }
    }

    /// Joins batches of one schema into one. Key hashes stay when all have them.
    ///
    /// # Errors
    /// An Arrow error when schemas differ.
    pub fn concat(schema: &SchemaRef, batches: &[Batch]) -> Result<Batch> {
        if let [single] = batches {
            return Ok(single.clone());
        }
        let joined = Batch::new(concat_batches(schema, batches.iter().map(Batch::records))?);
        let hashes: Option<Vec<&dyn Array>> =
            batches.iter().map(|batch| batch.key_hashes().map(|hashes| hashes as &dyn Array)).collect();
        match hashes {
            Some(hashes) if !hashes.is_empty() => {
                let hashes = arrow::compute::concat(&hashes)?;
                Ok(joined.with_key_hashes(UInt64Array::from(hashes.to_data())))
            }
            _ => Ok(joined),
        }
    }

    /// Copies the rows out of their buffers when they keep far more alive than they are: what every
    /// batch goes through before it waits.
    ///
    /// # Errors
    /// An Arrow error from the copying kernel.
    pub fn compacted(self) -> Result<Batch> {
        let bytes = self.bytes();
        match bytes < RETAINED_BYTES_MIN || bytes <= RETAINED_RATIO_MAX.saturating_mul(self.rows_bytes()) {
            true => Ok(self),
            false => self.copied(),
        }
    }

    /// The rows in pieces that keep about `bytes_max` bytes alive each, or are one row; the batch
    /// itself when it keeps no more.
    ///
    /// # Errors
    /// An Arrow error from the copying kernel.
    pub fn cut(self, bytes_max: usize) -> Result<Vec<Batch>> {
        if self.bytes() <= bytes_max {
            return Ok(vec![self]);
        }
        let mut pieces = Vec::new();
        self.cut_into(bytes_max.max(1), &mut pieces)?;
        Ok(pieces)
    }

    fn cut_into(&self, bytes_max: usize, pieces: &mut Vec<Batch>) -> Result<()> {
        let rows = self.row_count();
        // Strings that many rows share take less here than a copy would.
        let rows_max = if self.bytes() < self.rows_bytes() {
            (rows * bytes_max / self.bytes()).max(1)
        } else {
            self.rows_within(bytes_max)
        };
        if rows_max >= rows {
            pieces.push(self.clone().copied()?);
            return Ok(());
        }
        for first in (0..rows).step_by(rows_max) {
            let piece = self.slice(first, rows_max.min(rows - first));
            // Rows are not all alike.
            match piece.row_count() > 1 && piece.bytes().min(piece.rows_bytes()) > 2 * bytes_max {
                true => piece.cut_into(bytes_max, pieces)?,
                false => pieces.push(piece.copied()?),
            }
        }
        Ok(())
    }

    /// Each column in buffers of its own that hold no more than its rows, where it has not.
    fn copied(self) -> Result<Batch> {
        let columns = self.records.columns().iter().map(footprint::copied).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count()));
        let copy = Batch::new(RecordBatch::try_new_with_options(self.schema(), columns, &options)?);
        match self.key_hashes {
            Some(hashes) => {
                let hashes = footprint::copied(&(Arc::new(hashes) as _))?;
                Ok(copy.with_key_hashes(UInt64Array::from(hashes.to_data())))
            }
            None => Ok(copy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray, UInt32Array};

    const TEXT_BYTES: usize = 4096;

    fn batch(rows: i64) -> Batch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (0..rows).map(|row| format!("a string that is long enough {row}")),
        ));
        let records = RecordBatch::try_from_iter([("n", numbers), ("s", names)]).unwrap();
        Batch::new(records).with_key_hashes(UInt64Array::from_iter_values(0..rows as u64))
    }

    /// Rows with a text of four KiB each.
    fn texts(rows: usize) -> Batch {
        let texts = (0..rows).map(|row| format!("{row:0>TEXT_BYTES$}"));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        Batch::new(RecordBatch::try_from_iter([("text", texts)]).unwrap())
    }

    #[test]
    fn take_and_concat_carry_the_key_hashes() {
        let whole = batch(10);
        let taken = whole.take(&UInt32Array::from(vec![3, 5])).unwrap();
        assert_eq!(taken.key_hashes().unwrap().values(), &[3, 5]);
        let joined = Batch::concat(&whole.schema(), &[taken, whole.slice(0, 1)]).unwrap();
        assert_eq!(joined.key_hashes().unwrap().values(), &[3, 5, 0]);
        assert_eq!(joined.row_count(), 3);
    }

    #[test]
    fn h8_a_batch_counts_the_data_of_its_strings_and_a_thin_share_its_whole_source() {
        let whole = texts(1_000);
        let data = 1_000 * TEXT_BYTES;
        assert!((data..2 * data).contains(&whole.bytes()), "{}", whole.bytes());
        assert!((data..data + 64_000).contains(&whole.rows_bytes()), "{}", whole.rows_bytes());
        let share = whole.take(&UInt32Array::from(vec![3, 5])).unwrap();
        assert!(share.bytes() >= data, "{}", share.bytes());
        assert!((2 * TEXT_BYTES..3 * TEXT_BYTES).contains(&share.rows_bytes()), "{}", share.rows_bytes());
    }

    #[test]
    fn h8_buffers_that_columns_share_are_counted_once() {
        let one = texts(1_000);
        let column = one.records().column(0).clone();
        let both = Batch::new(RecordBatch::try_from_iter([("a", column.clone()), ("b", column)]).unwrap());
        assert!(both.bytes() < one.bytes() + 1_000, "{} and {}", both.bytes(), one.bytes());
    }

    #[test]
    fn h8_a_small_slice_of_a_large_batch_lets_go_of_it() {
        for slice in [batch(100_000).slice(7, 10), texts(1_000).slice(7, 10)] {
            let before = slice.bytes();
            let compacted = slice.clone().compacted().unwrap();
            let after = compacted.bytes();
            assert!(before > 1_000_000 && after < 50_000, "{before} -> {after}");
            assert!(after < 2 * compacted.rows_bytes() + 1_000, "{after}");
            assert_eq!(compacted.records(), slice.records());
            assert_eq!(compacted.key_hashes(), slice.key_hashes());
        }
    }

    #[test]
    fn h8_rows_that_keep_little_more_than_themselves_are_not_copied() {
        let slice = texts(1_000).slice(0, 400);
        let compacted = slice.clone().compacted().unwrap();
        let views = |batch: &Batch| batch.records().column(0).as_string_view().views().as_ptr();
        assert_eq!(views(&compacted), views(&slice));
    }

    #[test]
    fn h8_a_large_batch_is_cut_into_pieces_of_bounded_bytes() {
        let lengths = (0..500).map(|row| if row % 50 == 0 { 40_000 } else { row });
        let texts = lengths.map(|length| "x".repeat(length));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let whole = Batch::new(RecordBatch::try_from_iter([("text", texts)]).unwrap());
        let whole = whole.with_key_hashes(UInt64Array::from_iter_values(0..500));
        let pieces = whole.clone().cut(20_000).unwrap();
        assert!(pieces.len() > 10, "{}", pieces.len());
        for piece in &pieces {
            assert!(piece.bytes() <= 40_000 + 1_000 || piece.row_count() == 1, "{}", piece.bytes());
        }
        let joined = Batch::concat(&whole.schema(), &pieces).unwrap();
        assert_eq!((joined.records(), joined.key_hashes()), (whole.records(), whole.key_hashes()));
        assert_eq!(whole.clone().cut(1 << 20).unwrap().len(), 1);
    }

    #[test]
    fn many_small_batches_cost_more_than_their_rows() {
        let one = batch(1);
        assert!(one.bytes() > 5 * one.rows_bytes(), "{} and {}", one.bytes(), one.rows_bytes());
    }
}
