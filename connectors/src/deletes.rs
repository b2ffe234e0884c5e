//! The deletes of an upsert stream, for sinks that write Kafka: a tombstone, which is a key and no
//! value. That the key says all that the upsert's key does is checked where the sinks' keys are.

use arrow::array::{Int8Array, RecordBatch, cast::AsArray};
use arrow::datatypes::Int8Type;
use thalweg_engine::record::OP_COLUMN;
use thalweg_engine::{Error, Result};

use crate::format::{EncodedRows, Encoder};

/// Encodes rows, those that delete another one as records without a value. The column that tells
/// them is not written.
///
/// # Errors
/// The encoder's; an internal one for a column of another type.
pub(crate) fn encode_changes(
    encoder: &mut dyn Encoder,
    records: &RecordBatch,
    rows: &mut EncodedRows,
) -> Result<()> {
    let Ok(op) = records.schema().index_of(OP_COLUMN) else {
        return encoder.encode(records, rows);
    };
    let ops = records.column(op).as_primitive_opt::<Int8Type>();
    let ops: &Int8Array = ops.ok_or_else(|| Error::internal(format!("{OP_COLUMN} is not of type Int8")))?;
    let first = rows.len();
    let columns: Vec<usize> = (0..records.num_columns()).filter(|&column| column != op).collect();
    encoder.encode(&records.project(&columns)?, rows)?;
    for (row, op) in ops.values().iter().enumerate() {
        if *op < 0 {
            rows.remove_value(first + row);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::format::JsonEncoder;

    #[test]
    fn a_delete_is_a_record_without_a_value_and_its_mark_is_not_written() {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1]));
        let ops: ArrayRef = Arc::new(Int8Array::from(vec![1, 1, -1]));
        let records = RecordBatch::try_from_iter([("id", ids), (OP_COLUMN, ops)]).unwrap();
        let mut rows = EncodedRows::new();
        encode_changes(&mut JsonEncoder::new(), &records, &mut rows).unwrap();
        let values: Vec<_> = (0..3).map(|row| rows.value(row).map(<[u8]>::to_vec)).collect();
        assert_eq!(values, [Some(b"{\"id\":1}".to_vec()), Some(b"{\"id\":2}".to_vec()), None]);
    }
}
