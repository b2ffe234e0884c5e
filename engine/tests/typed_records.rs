//! Derived records: schema, rows in place, batches, and what is said when a batch does not fit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray};
use proptest::prelude::*;

use thalweg_engine::record::{Record, RecordBuilder, RecordReader, Timestamp, check_schema, time_type};

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
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
        let texts: usize = records.iter().map(|record| record.text.len() + record.bytes.len()).sum();
        prop_assert!(builder.bytes() >= texts + records.len() * 100, "{}", builder.bytes());
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
#[record(crate = "thalweg_engine", row = "Seen")]
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
    assert_eq!(message, "there is no column \"name\" among Name; there is no column \"count\" among Name");

    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    let nulls = batch(vec![("name", names), ("count", nulls)]);
    check_schema::<Pair>(&nulls.schema()).unwrap();
    assert_eq!(
        RecordReader::<Pair>::new(&nulls).err().unwrap().to_string(),
        "column \"count\" has 1 nulls among 1 rows, but its field is not an Option"
    );
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
struct Embedded {
    id: i64,
    embedding: [f32; 3],
    quantised: Option<[i8; 2]>,
}

#[test]
fn vectors_are_fields_and_their_width_counts() {
    let records = [
        Embedded { id: 1, embedding: [1.0, -2.5, f32::NAN], quantised: Some([127, -128]) },
        Embedded { id: 2, embedding: [0.0; 3], quantised: None },
        Embedded { id: 3, embedding: [4.0, 5.0, 6.0], quantised: Some([0, 1]) },
    ];
    let mut builder = RecordBuilder::<Embedded>::default();
    builder.extend(&records);
    let batch = builder.finish().unwrap();
    check_schema::<Embedded>(&batch.schema()).unwrap();
    // A slice keeps to its rows.
    let sliced = batch.slice(1, 2);
    let reader = RecordReader::<Embedded>::new(&sliced).unwrap();
    let ids: Vec<i64> = reader.rows().map(|row| row.id).collect();
    assert_eq!((ids, reader.row(0).quantised), (vec![2, 3], None));
    assert_eq!((reader.row(1).embedding, reader.row(1).quantised), (&[4.0, 5.0, 6.0], Some(&[0, 1])));
    let whole = RecordReader::<Embedded>::new(&batch).unwrap();
    assert!(whole.row(0).embedding[2].is_nan());

    #[derive(Record)]
    #[record(crate = "thalweg_engine")]
    struct Wider {
        #[allow(dead_code)]
        embedding: [f32; 4],
    }
    let error = RecordReader::<Wider>::new(&batch).map(drop).unwrap_err().to_string();
    assert!(error.contains("column \"embedding\" should be"), "{error}");
    assert!(check_schema::<Wider>(&batch.schema()).is_err());
}
