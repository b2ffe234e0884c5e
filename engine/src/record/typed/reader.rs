//! Rows out of a batch and into one.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::Record;
use super::column::{find, mismatch, same_type};
use crate::{Error, Result};

/// The rows of one batch as records, read in place.
pub struct RecordReader<'a, T: Record> {
    columns: T::Columns<'a>,
    rows: usize,
}

impl<T: Record> Clone for RecordReader<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Record> Copy for RecordReader<'_, T> {}

impl<'a, T: Record> RecordReader<'a, T> {
    /// Finds and downcasts the record's columns: once for a batch.
    ///
    /// # Errors
    /// A user error that names the column that does not fit.
    pub fn new(records: &'a RecordBatch) -> Result<Self> {
        Ok(RecordReader { columns: T::columns(records)?, rows: records.num_rows() })
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// The row at `row`. Panics when it is out of bounds, as indexing does.
    pub fn row(&self, row: usize) -> T::Row<'a> {
        T::read(&self.columns, row)
    }

    /// All rows in order.
    pub fn rows(&self) -> impl Iterator<Item = T::Row<'a>> + use<'a, T> {
        let reader = *self;
        (0..reader.rows).map(move |row| reader.row(row))
    }
}

/// Gathers records to a batch.
pub struct RecordBuilder<T: Record> {
    builder: T::Builder,
    rows: usize,
}

impl<T: Record> Default for RecordBuilder<T> {
    fn default() -> Self {
        RecordBuilder { builder: T::Builder::default(), rows: 0 }
    }
}

impl<T: Record> RecordBuilder<T> {
    /// Appends a record.
    pub fn push(&mut self, record: &T) {
        self.push_row(record.as_row());
    }

    /// Appends a row that lies elsewhere, such as in another batch.
    pub fn push_row(&mut self, row: T::Row<'_>) {
        T::append(&mut self.builder, row);
        self.rows += 1;
    }

    /// Number of rows appended since the last [`RecordBuilder::finish`].
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// A batch of what was appended; the builder is empty afterwards.
    ///
    /// # Errors
    /// An Arrow error, which is a bug of the derive.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        T::finish(&mut self.builder)
    }
}

impl<'a, T: Record> Extend<&'a T> for RecordBuilder<T> {
    fn extend<I: IntoIterator<Item = &'a T>>(&mut self, records: I) {
        records.into_iter().for_each(|record| self.push(record));
    }
}

/// Checks that batches of `schema` can be read as `T`: every field has its column, of its type.
/// Nullability is checked on the batches, since what computes a column often cannot promise it.
///
/// # Errors
/// A user error that says every mistake.
pub fn check_schema<T: Record>(schema: &Schema) -> Result<()> {
    let expected = T::schema();
    let mut mistakes = Vec::new();
    for field in expected.fields() {
        let found = find(schema, field.name()).map(|index| schema.field(index).data_type());
        match found {
            Ok(found) if same_type(field.data_type(), found) => {}
            Ok(found) => mistakes.push(mismatch(field.name(), field.data_type(), found).to_string()),
            Err(error) => mistakes.push(error.to_string()),
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Error::user(mistakes.join("; "))) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringViewArray};
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Record, Timestamp, time_type};

    #[derive(Clone, Debug, PartialEq, Record)]
    #[record(crate = "crate")]
    struct Everything {
        flag: bool,
        a: i8,
        b: i16,
        c: i32,
        d: i64,
        e: u8,
        f: u16,
        g: u32,
        h: u64,
        i: f32,
        j: f64,
        text: String,
        #[record(rename = "blob")]
        bytes: Vec<u8>,
        #[record(time)]
        at: Timestamp,
        maybe_flag: Option<bool>,
        maybe_text: Option<String>,
        maybe_bytes: Option<Vec<u8>>,
        maybe_at: Option<Timestamp>,
        r#type: u16,
    }

    prop_compose! {
        fn everything()(
            (flag, a, b, c, d) in any::<(bool, i8, i16, i32, i64)>(),
            (e, f, g, h) in any::<(u8, u16, u32, u64)>(),
            i in -1e9f32..1e9, j in -1e9f64..1e9,
            (text, bytes, at) in any::<(String, Vec<u8>, i64)>(),
            (maybe_flag, maybe_text, maybe_bytes) in any::<(Option<bool>, Option<String>, Option<Vec<u8>>)>(),
            maybe_at in any::<Option<i64>>(),
            kind in any::<u16>(),
        ) -> Everything {
            Everything {
                flag, a, b, c, d, e, f, g, h, i, j, text, bytes, at: Timestamp(at),
                maybe_flag, maybe_text, maybe_bytes, maybe_at: maybe_at.map(Timestamp), r#type: kind,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_come_back_as_they_went_in(records in proptest::collection::vec(everything(), 0..40)) {
            let mut builder = RecordBuilder::<Everything>::default();
            builder.extend(&records);
            prop_assert_eq!(builder.row_count(), records.len());
            let batch = builder.finish().unwrap();
            prop_assert_eq!(builder.row_count(), 0);
            prop_assert_eq!(batch.schema(), Everything::schema());
            let reader = RecordReader::<Everything>::new(&batch).unwrap();
            let back: Vec<_> = reader.rows().map(|row| row.to_record()).collect();
            prop_assert_eq!(&back, &records);
            let again: Vec<_> = reader.rows().map(Everything::from_row).collect();
            prop_assert_eq!(&again, &records);
        }
    }

    #[test]
    fn the_schema_says_names_types_nullability_and_time() {
        let schema = Everything::schema();
        assert_eq!(schema.field_with_name("blob").unwrap().data_type(), &arrow::datatypes::DataType::Binary);
        assert_eq!(schema.field_with_name("at").unwrap().data_type(), &time_type());
        assert!(!schema.field_with_name("text").unwrap().is_nullable());
        assert!(schema.field_with_name("maybe_text").unwrap().is_nullable());
        assert_eq!(schema.fields().last().unwrap().name(), "type");
        let edge = Everything::edge_schema().unwrap();
        assert_eq!(edge.time, Some(schema.index_of("at").unwrap()));
    }

    #[derive(Debug, PartialEq, Record)]
    #[record(crate = "crate", row = "Seen")]
    struct Pair {
        name: String,
        count: i64,
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn columns_are_found_by_name_among_others_and_strings_are_not_copied() {
        let long = "a string too long to be inlined in its view";
        let names = Arc::new(StringViewArray::from(vec!["short", long]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let records = batch(vec![("count", counts.clone()), ("other", counts), ("name", names.clone())]);
        let reader = RecordReader::<Pair>::new(&records).unwrap();
        assert_eq!(reader.row(0), Seen { name: "short", count: 1 });
        let row = reader.row(1);
        assert_eq!(row.name.as_ptr(), names.data_buffers()[0].as_ptr());
        assert_eq!(std::mem::size_of_val(&row), 24);
    }

    #[test]
    fn a_column_that_does_not_fit_is_named_with_both_types() {
        let names: ArrayRef = Arc::new(StringViewArray::from(vec!["x"]));
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let wrong = batch(vec![("name", names.clone()), ("count", narrow)]);
        let expected = "column \"count\" should be Int64, but is Int32";
        assert_eq!(RecordReader::<Pair>::new(&wrong).err().unwrap().to_string(), expected);
        assert_eq!(check_schema::<Pair>(&wrong.schema()).unwrap_err().to_string(), expected);

        let missing = batch(vec![("Name", names.clone())]);
        let message = check_schema::<Pair>(&missing.schema()).unwrap_err().to_string();
        assert_eq!(
            message,
            "there is no column \"name\" among Name; there is no column \"count\" among Name"
        );

        let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        let nulls = batch(vec![("name", names), ("count", nulls)]);
        check_schema::<Pair>(&nulls.schema()).unwrap();
        assert_eq!(
            RecordReader::<Pair>::new(&nulls).err().unwrap().to_string(),
            "column \"count\" has 1 nulls among 1 rows, but its field is not an Option"
        );
    }
}
