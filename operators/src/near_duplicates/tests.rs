//! The operator in the harness: keys, time, another parallelism.

use arrow::array::TimestampMicrosecondArray;
use thalweg_engine::harness::{HarnessInput, OperatorHarness};

use super::*;

/// Rows of `(id, key, time, vector)`.
fn rows(rows: &[(&str, &str, i64, [f32; 3])]) -> RecordBatch {
    let text = |of: fn(&(&str, &str, i64, [f32; 3])) -> String| {
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(of))) as ArrayRef
    };
    let times =
        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.2)).with_timezone("+00:00");
    let vectors = FixedSizeListArray::try_new(
        Arc::new(Field::new("item", DataType::Float32, false)),
        3,
        Arc::new(arrow::array::Float32Array::from_iter_values(rows.iter().flat_map(|row| row.3))),
        None,
    );
    RecordBatch::try_from_iter_with_nullable([
        ("id", text(|row| row.0.to_string()), false),
        ("key", text(|row| row.1.to_string()), false),
        ("time", Arc::new(times) as ArrayRef, false),
        ("embedding", Arc::new(vectors.unwrap()) as ArrayRef, true),
    ])
    .unwrap()
}

fn input() -> HarnessInput {
    let edge = EdgeSchema::new(rows(&[]).schema()).with_time("time").unwrap();
    HarnessInput::new(edge).keyed(&["key"]).unwrap()
}

fn near() -> NearDuplicates {
    NearDuplicates {
        key: vec![1],
        ..NearDuplicates::new("id", "embedding").threshold(0.95).keep(3).within(100)
    }
}

fn found(harness: &mut OperatorHarness) -> Vec<(String, Option<String>)> {
    let batches = harness.take_batches(0);
    let mut found: Vec<_> = batches
        .iter()
        .flat_map(|batch| {
            let of = batch.column_by_name(DUPLICATE_OF).unwrap().as_string_view();
            let ids = batch.column(0).as_string_view().iter().flatten().map(str::to_string);
            ids.zip(of.iter().map(|of| of.map(str::to_string))).collect::<Vec<_>>()
        })
        .collect();
    found.sort();
    found
}

fn pairs(pairs: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    pairs.iter().map(|(id, of)| (id.to_string(), of.map(str::to_string))).collect()
}

const UP: [f32; 3] = [0.0, 0.0, 2.0];
const NEARLY_UP: [f32; 3] = [0.1, 0.0, 1.0];
const EAST: [f32; 3] = [1.0, 0.0, 0.0];

#[test]
fn rows_of_one_key_are_compared_also_after_a_restore_at_another_parallelism() {
    let builder = OperatorHarness::builder(near(), vec![input()]);
    let mut one = builder.clone().parallelism(2).open().unwrap();
    one.push_batch(
        0,
        rows(&[("a", "x", 1, UP), ("b", "x", 2, NEARLY_UP), ("c", "y", 3, UP), ("d", "x", 4, EAST)]),
    )
    .unwrap();
    assert_eq!(found(&mut one), pairs(&[("a", None), ("b", Some("a")), ("c", None), ("d", None)]));
    assert_eq!(one.metrics().total("near_duplicates_total"), 1);
    let snapshot = one.snapshot().unwrap();
    let mut three = builder.parallelism(3).restore(&snapshot).unwrap();
    three.push_batch(0, rows(&[("e", "x", 5, EAST), ("f", "y", 6, NEARLY_UP), ("g", "z", 7, UP)])).unwrap();
    assert_eq!(found(&mut three), pairs(&[("e", Some("d")), ("f", Some("c")), ("g", None)]));
}

#[test]
fn what_was_not_seen_for_long_is_forgotten_by_row_and_by_watermark() {
    let mut harness = OperatorHarness::new(near(), vec![input()]).unwrap();
    harness.push_batch(0, rows(&[("a", "x", 1, UP), ("b", "x", 90, UP), ("c", "x", 190, UP)])).unwrap();
    assert_eq!(found(&mut harness), pairs(&[("a", None), ("b", Some("a")), ("c", Some("a"))]));
    harness.watermark(0, 290).unwrap();
    harness.push_batch(0, rows(&[("d", "x", 290, UP)])).unwrap();
    assert_eq!(found(&mut harness), pairs(&[("d", Some("a"))]), "seen again at 190");
    harness.watermark(0, 400).unwrap();
    harness.push_batch(0, rows(&[("e", "x", 350, UP)])).unwrap();
    assert_eq!(found(&mut harness), pairs(&[("e", None)]), "forgotten behind the watermark");
    let snapshot = harness.snapshot().unwrap();
    let mut restored = OperatorHarness::builder(near(), vec![input()]).restore(&snapshot).unwrap();
    restored.watermark(0, 1_000).unwrap();
    restored.push_batch(0, rows(&[("f", "x", 1_000, UP)])).unwrap();
    assert_eq!(found(&mut restored), pairs(&[("f", None)]), "the timer is in the snapshot");
}

#[test]
fn what_cannot_be_compared_is_refused_when_the_job_is_built() {
    let edge = EdgeSchema::new(rows(&[]).schema());
    for (near, wanted) in [
        (NearDuplicates::new("no", "embedding"), "there is no column \"no\""),
        (NearDuplicates::new("time", "embedding"), "names rows and is"),
        (NearDuplicates::new("id", "key"), "not vectors of f32 or f16"),
        (NearDuplicates::new("id", "embedding").threshold(1.5), "a threshold of 1.5 is no cosine"),
        (NearDuplicates::new("id", "embedding").keep(0), "at least one embedding"),
        (NearDuplicates::new("id", "embedding").within(5), "has no event time"),
    ] {
        let error = near.outputs(std::slice::from_ref(&edge)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn a_row_without_an_embedding_passes_and_a_large_batch_goes_in_steps() {
    let many: Vec<(String, i64)> = (0..1_000).map(|n| (n.to_string(), n)).collect();
    let many: Vec<_> = many.iter().map(|(id, _)| (id.as_str(), "x", 1, UP)).collect();
    let mut harness = OperatorHarness::new(near(), vec![input()]).unwrap();
    harness.push_batch(0, rows(&many)).unwrap();
    assert_eq!(harness.step_rows_max(), STEP_ROWS_MAX);
    assert_eq!(found(&mut harness).iter().filter(|(_, of)| of.as_deref() == Some("0")).count(), 999);
    let (fields, batch) = (rows(&[]).schema(), rows(&[("n", "x", 1, UP)]));
    let null = arrow::array::new_null_array(fields.field(3).data_type(), 1);
    let columns = vec![batch.column(0).clone(), batch.column(1).clone(), batch.column(2).clone(), null];
    harness.push_batch(0, RecordBatch::try_new(fields, columns).unwrap()).unwrap();
    assert_eq!(found(&mut harness), pairs(&[("n", None)]));
}

#[test]
fn a_vector_without_a_direction_is_near_nothing_and_is_not_remembered() {
    let mut harness = OperatorHarness::new(near(), vec![input()]).unwrap();
    for (name, vector) in [("zero", [0.0; 3]), ("nan", [f32::NAN, 0.0, 1.0]), ("far", [f32::INFINITY; 3])] {
        harness.push_batch(0, rows(&[(name, "x", 1, vector), (name, "x", 1, vector)])).unwrap();
        assert_eq!(found(&mut harness), pairs(&[(name, None), (name, None)]));
    }
    // Two vectors up, an element of the second of which is null.
    let batch = rows(&[("whole", "x", 2, UP), ("holed", "x", 3, UP)]);
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let mut elements = Float32Builder::new();
    elements.append_slice(&UP);
    elements.append_slice(&UP[..2]);
    elements.append_null();
    let vectors = FixedSizeListArray::new(item, 3, Arc::new(elements.finish()), None);
    let named = ["id", "key", "time", "embedding"].into_iter();
    let columns = batch.columns()[..3].iter().cloned().chain([Arc::new(vectors) as ArrayRef]);
    let holed = RecordBatch::try_from_iter_with_nullable(
        named.zip(columns).map(|(name, column)| (name, column, name == "embedding")),
    )
    .unwrap();
    let input = HarnessInput::new(EdgeSchema::new(holed.schema()).with_time("time").unwrap());
    let mut harness = OperatorHarness::new(near(), vec![input.keyed(&["key"]).unwrap()]).unwrap();
    harness.push_batch(0, holed).unwrap();
    assert_eq!(found(&mut harness), pairs(&[("holed", None), ("whole", None)]));
}
