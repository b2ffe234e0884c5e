//! Keyed aggregates against a plain model: over types, nulls, batch borders, bounds of memory,
//! checkpoints and other parallelisms.

use std::collections::BTreeMap;

use arrow::array::{
    AsArray, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, UInt64Type};
use proptest::prelude::*;
use thalweg_engine::harness::{HarnessBuilder, HarnessInput, OperatorHarness};
use thalweg_engine::record::time_type;

use super::*;
use crate::keyed_count::keyed_count;

/// A row: key, time, number, float, text.
type Row = (u64, Option<i64>, Option<i64>, Option<f64>, Option<String>);

fn edge() -> EdgeSchema {
    let schema = Schema::new(vec![
        Field::new("key", DataType::UInt64, true),
        Field::new("name", DataType::Utf8View, true),
        Field::new("time", time_type(), true),
        Field::new("number", DataType::Int64, true),
        Field::new("float", DataType::Float64, true),
        Field::new("text", DataType::Utf8View, true),
    ]);
    EdgeSchema::new(Arc::new(schema)).with_time("time").unwrap()
}

/// Key 0 is null.
fn batch(rows: &[Row]) -> RecordBatch {
    let key = |row: &Row| (row.0 != 0).then_some(row.0);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(key).collect::<UInt64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| key(row).map(|key| format!("a name that is long {key}")))
                .collect::<StringViewArray>(),
        ),
        Arc::new(rows.iter().map(|row| row.1).collect::<TimestampMicrosecondArray>().with_timezone("+00:00")),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.4.clone()).collect::<StringViewArray>()),
    ];
    RecordBatch::try_new(edge().schema, columns).unwrap()
}

fn aggregates() -> Vec<AggregateSpec> {
    let calls = [
        "count(*)",
        "count(text)",
        "sum(number)",
        "min(number)",
        "max(float)",
        "avg(number)",
        "min(text)",
        "max(text)",
        "first(number)",
        "last(text)",
        "last(float)",
    ];
    calls.iter().map(|call| call.parse().unwrap()).collect()
}

fn builder(key: &[&str], factory: impl Fn(&[usize]) -> KeyedAggregate) -> HarnessBuilder {
    let input = HarnessInput::new(edge()).keyed(key).unwrap();
    OperatorHarness::builder(factory(input.key()), vec![input])
}

/// The last row of each key, as text.
fn last_rows(harness: &mut OperatorHarness, into: &mut BTreeMap<String, Vec<String>>) {
    for batch in harness.take_batches(0) {
        for row in 0..batch.num_rows() {
            let cell = |column: usize| {
                arrow::util::display::array_value_to_string(batch.column(column), row).unwrap()
            };
            into.insert(cell(0), (1..batch.num_columns()).map(cell).collect());
        }
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// What a plain loop says.
fn expected(rows: &[Row], by_name: bool) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| keys.entry(row.0).or_default().push(row));
    let describe = |rows: &[&Row]| {
        let numbers: Vec<i64> = rows.iter().filter_map(|row| row.2).collect();
        let texts: Vec<&String> = rows.iter().filter_map(|row| row.4.as_ref()).collect();
        let timed = || rows.iter().filter_map(|row| Some((row.1?, row)));
        let floats = rows.iter().filter_map(|row| row.3);
        let float = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:?}"));
        let mean = (!numbers.is_empty())
            .then(|| numbers.iter().map(|&n| i128::from(n)).sum::<i128>() as f64 / numbers.len() as f64);
        vec![
            rows.len().to_string(),
            texts.len().to_string(),
            text((!numbers.is_empty()).then(|| numbers.iter().sum::<i64>())),
            text(numbers.iter().min()),
            float(floats.max_by(f64::total_cmp)),
            float(mean),
            text(texts.iter().min()),
            text(texts.iter().max()),
            text(timed().filter_map(|(time, row)| Some((time, row.2?))).min().map(|(_, number)| number)),
            text(timed().filter_map(|(time, row)| Some((time, row.4.as_ref()?))).max().map(|(_, text)| text)),
            float(
                timed()
                    .filter_map(|(time, row)| Some((time, row.3?)))
                    .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
                    .map(|(_, float)| float),
            ),
        ]
    };
    let name = |key: u64| match key {
        0 => String::new(),
        key if by_name => format!("a name that is long {key}"),
        key => key.to_string(),
    };
    keys.iter().map(|(key, rows)| (name(*key), describe(rows))).collect()
}

fn rows(count: usize) -> impl Strategy<Value = Vec<Row>> {
    let row = (
        0_u64..12,
        prop::option::weighted(0.9, -5_i64..5),
        prop::option::weighted(0.8, -1_000_i64..1_000),
        prop::option::weighted(0.8, -10.0..10.0_f64),
        prop::option::weighted(0.8, "[a-c]{0,20}"),
    );
    prop::collection::vec(row, 1..count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Straight; and with a checkpoint, a restore at another parallelism and next to no memory.
    #[test]
    fn aggregates_are_those_of_a_plain_loop(
        rows in rows(200), share in 1_usize..60, cut in 0_usize..200, by_name: bool,
        memory in prop::sample::select(vec![1_usize, 1_000, 1 << 20]),
    ) {
        let key = if by_name { ["name"] } else { ["key"] };
        let builder = builder(&key, |key| KeyedAggregate::new(key, aggregates()).memory_bytes(memory));
        let (before, after) = rows.split_at(cut.min(rows.len()));
        let mut found = BTreeMap::new();
        let mut harness = builder.clone().parallelism(2).open().unwrap();
        for share in before.chunks(share) {
            harness.push_batch(0, batch(share)).unwrap();
        }
        last_rows(&mut harness, &mut found);
        let barrier = harness.begin_snapshot().unwrap();
        // Comes after the barrier: must not be in the snapshot.
        harness.push_batch(0, batch(before)).unwrap();
        let snapshot = harness.complete_snapshot(barrier).unwrap();
        harness.push_batch(0, batch(before)).unwrap();
        let mut harness = builder.parallelism(3).restore(&snapshot).unwrap();
        for share in after.chunks(share) {
            harness.push_batch(0, batch(share)).unwrap();
        }
        last_rows(&mut harness, &mut found);
        prop_assert_eq!(found, expected(&rows, by_name));
    }
}

fn count_rows(keys: impl Iterator<Item = u64>) -> RecordBatch {
    let rows: Vec<Row> = keys.map(|key| (key + 1, None, None, None, None)).collect();
    batch(&rows)
}

fn counts(harness: &mut OperatorHarness) -> BTreeMap<u64, i64> {
    let mut counts = BTreeMap::new();
    for batch in harness.take_batches(0) {
        let keys = batch.column(0).as_primitive::<UInt64Type>().values().to_vec();
        let values = batch.column(1).as_primitive::<Int64Type>().values().to_vec();
        counts.extend(keys.into_iter().zip(values));
    }
    counts
}

#[test]
fn one_row_comes_out_for_each_changed_key_and_batch() {
    let mut harness = builder(&["key"], |key| keyed_count(key, "n")).open().unwrap();
    harness.push_batch(0, count_rows([1, 2, 1, 1, 2].into_iter())).unwrap();
    harness.push_batch(0, count_rows([2].into_iter())).unwrap();
    let batches = harness.take_batches(0);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(batches[0].column(1).as_primitive::<Int64Type>().values(), &[3, 2]);
    assert_eq!(batches[1].column(1).as_primitive::<Int64Type>().values(), &[3]);
}

/// 50,000 keys where a thousand fit: everything goes through the store, many times, with
/// checkpoints in between, one of which is aborted.
#[test]
fn state_far_larger_than_memory_counts_right() {
    let factory = |key: &[usize]| keyed_count(key, "n").memory_bytes(50_000);
    let builder = builder(&["key"], factory);
    let mut harness = builder.open().unwrap();
    for round in 0..4_u64 {
        for start in (0..50_000).step_by(5_000) {
            // Each round in another order.
            harness
                .push_batch(0, count_rows((start..start + 5_000).map(|i| (i * 7 + round) % 50_000)))
                .unwrap();
        }
        let barrier = harness.begin_snapshot().unwrap();
        if round == 2 {
            harness.abort_snapshot(barrier).unwrap();
        } else {
            harness.complete_snapshot(barrier).unwrap();
        }
    }
    let in_memory = harness.metrics().total("state_keys_in_memory");
    assert!(in_memory <= 6_000, "{in_memory} keys in memory");
    let snapshot = harness.snapshot().unwrap();
    let mut harness = builder.parallelism(3).restore(&snapshot).unwrap();
    harness.push_batch(0, count_rows(0..50_000)).unwrap();
    let counts = counts(&mut harness);
    assert_eq!(counts.len(), 50_000);
    assert!(counts.values().all(|&count| count == 5), "{:?}", counts.iter().find(|(_, n)| **n != 5));
}

#[test]
fn an_aborted_checkpoint_leaves_its_changes_to_the_next() {
    let builder = builder(&["key"], |key| keyed_count(key, "n"));
    let mut harness = builder.open().unwrap();
    harness.push_batch(0, count_rows(0..10)).unwrap();
    let barrier = harness.begin_snapshot().unwrap();
    assert!(harness.begin_snapshot().is_err(), "one frozen set at a time");
    harness.abort_snapshot(barrier).unwrap();
    let snapshot = harness.snapshot().unwrap();
    let mut harness = builder.restore(&snapshot).unwrap();
    harness.push_batch(0, count_rows(0..10)).unwrap();
    assert!(counts(&mut harness).values().all(|&count| count == 2));
}

#[test]
fn a_sum_that_overflows_is_an_error_that_names_it() {
    let mut harness =
        builder(&["key"], |key| KeyedAggregate::new(key, [AggregateSpec::sum("number")])).open().unwrap();
    let rows = [(1, None, Some(i64::MAX), None, None), (1, None, Some(1), None, None)];
    let error = harness.push_batch(0, batch(&rows)).unwrap_err().to_string();
    assert!(error.contains("sum(number)") && error.contains("64 bits"), "{error}");
}

#[test]
fn another_state_in_the_checkpoint_is_refused_with_both_named() {
    let counting = builder(&["key"], |key| keyed_count(key, "n"));
    let mut harness = counting.open().unwrap();
    harness.push_batch(0, count_rows(0..10)).unwrap();
    let snapshot = harness.snapshot().unwrap();
    let summing = builder(&["key"], |key| KeyedAggregate::new(key, [AggregateSpec::sum("number")]));
    let error = summing.restore(&snapshot).err().unwrap().to_string();
    assert!(error.contains("count(*)") && error.contains("sum(number)"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_when_the_job_is_built() {
    let refuse = |spec: AggregateSpec, edge: EdgeSchema| {
        KeyedAggregate::new(&[0], [spec]).outputs(&[edge]).unwrap_err().to_string()
    };
    assert!(refuse(AggregateSpec::sum("text"), edge()).contains("not Utf8View"));
    assert!(refuse(AggregateSpec::sum("nubmer"), edge()).contains("no column \"nubmer\""));
    let timeless = EdgeSchema { time: None, ..edge() };
    assert!(refuse(AggregateSpec::first("text"), timeless).contains("no event time"));
    let counted = KeyedAggregate::new(&[0], [AggregateSpec::count()]);
    assert!(!counted.takes(0, &Mode::Upsert(vec!["key".into()])));
    assert!(refuse(AggregateSpec::count().alias("key"), edge()).contains("two output columns"));
}
