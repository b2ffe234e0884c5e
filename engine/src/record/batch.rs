//! The unit that flows: an Arrow record batch, its size in bytes (computed once), and the key
//! hashes that travel with it as a hidden column.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;

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
    bytes: usize,
}

impl Batch {
    /// Wraps a record batch and measures it: O(columns), no look at the rows.
    pub fn new(records: RecordBatch) -> Self {
        let bytes = records.columns().iter().map(|column| slice_bytes(&column.to_data())).sum();
        Batch { records, key_hashes: None, bytes }
    }

    /// Attaches one 64-bit key hash for each row.
    #[must_use]
    pub fn with_key_hashes(mut self, hashes: UInt64Array) -> Self {
        debug_assert_eq!(hashes.len(), self.records.num_rows());
        self.key_hashes = Some(hashes);
        self
    }

    /// Takes the key hashes off, for a batch that leaves its keyed stream.
    #[must_use]
    pub fn without_key_hashes(mut self) -> Self {
        self.key_hashes = None;
        self
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

    /// The rows' own bytes, without what their buffers keep alive beside them.
    pub fn bytes(&self) -> usize {
        self.bytes
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

    /// The rows at `indices` (null-free), copied.
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

    /// Copies the rows out of their buffers when they keep far more alive than they are.
    ///
    /// # Errors
    /// An Arrow error from the copying kernel.
    pub fn compacted(self) -> Result<Batch> {
        let retained: usize =
            self.records.columns().iter().map(|column| column.get_buffer_memory_size()).sum();
        if retained < RETAINED_BYTES_MIN || retained <= RETAINED_RATIO_MAX * self.bytes.max(1) {
            return Ok(self);
        }
        let columns = self.records.columns().iter().map(compact_column).collect::<Result<Vec<_>>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.row_count()));
        let records = RecordBatch::try_new_with_options(self.records.schema(), columns, &options)?;
        Ok(Batch { records, ..self })
    }
}

fn compact_column(column: &Arc<dyn Array>) -> Result<Arc<dyn Array>> {
    use arrow::array::cast::AsArray;
    use arrow::datatypes::DataType;
    if let DataType::Utf8View = column.data_type() {
        return Ok(Arc::new(column.as_string_view().gc()));
    }
    if let DataType::BinaryView = column.data_type() {
        return Ok(Arc::new(column.as_binary_view().gc()));
    }
    let data = column.to_data();
    let mut copy = arrow::array::MutableArrayData::new(vec![&data], false, column.len());
    copy.try_extend(0, 0, column.len())?;
    Ok(arrow::array::make_array(copy.freeze()))
}

/// Bytes of the rows of one column. Views count their longest possible share of the data buffers:
/// an upper bound that needs no pass over the rows.
fn slice_bytes(data: &ArrayData) -> usize {
    data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};

    fn batch(rows: i64) -> Batch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (0..rows).map(|row| format!("a string that is long enough {row}")),
        ));
        let records = RecordBatch::try_from_iter([("n", numbers), ("s", names)]).unwrap();
        Batch::new(records).with_key_hashes(UInt64Array::from_iter_values(0..rows as u64))
    }

    #[test]
    fn take_and_concat_carry_the_key_hashes() {
        let whole = batch(10);
        let taken = whole.take(&arrow::array::UInt32Array::from(vec![3, 5])).unwrap();
        assert_eq!(taken.key_hashes().unwrap().values(), &[3, 5]);
        let joined = Batch::concat(&whole.schema(), &[taken, whole.slice(0, 1)]).unwrap();
        assert_eq!(joined.key_hashes().unwrap().values(), &[3, 5, 0]);
        assert_eq!(joined.row_count(), 3);
    }

    #[test]
    fn a_small_slice_of_a_large_batch_lets_go_of_it() {
        let slice = batch(100_000).slice(0, 10);
        let before: usize =
            slice.records().columns().iter().map(|column| column.get_buffer_memory_size()).sum();
        let compacted = slice.clone().compacted().unwrap();
        let after: usize =
            compacted.records().columns().iter().map(|column| column.get_buffer_memory_size()).sum();
        assert!(before > 1_000_000 && after < 10_000, "{before} -> {after}");
        assert_eq!(compacted.records(), slice.records());
    }
}
