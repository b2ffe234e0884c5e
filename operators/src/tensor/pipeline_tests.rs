//! Gathering, order, watermarks, barriers and bad rows, with a device that doubles numbers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parking_lot::Mutex;
use proptest::prelude::*;
use thalweg_engine::harness::{Emitted, HarnessInput, OperatorHarness};
use thalweg_engine::operator::{Operator, OperatorFactory, single_input};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::state::StateIdentity;
use thalweg_engine::time::{MILLI, Watermark};
use thalweg_engine::{Error, Result};
use thalweg_tensor::Graph;

use super::compute::{Compute, Computed, RejectedRow};
use super::pipeline::{Pipeline, Setup};
use super::rejected::dead_letter_schema;
use super::*;

/// Doubles column `n`; a negative number is not taken, 13 breaks the device.
#[derive(Default)]
struct Doubler {
    under_way: VecDeque<Computed>,
    log: Arc<Mutex<Vec<usize>>>,
    most_under_way: Arc<AtomicUsize>,
}

impl Compute for Doubler {
    fn submit(&mut self, rows: &RecordBatch) -> Result<()> {
        self.log.lock().push(rows.num_rows());
        let numbers = rows.column(0).as_primitive::<Int64Type>().values();
        if numbers.contains(&13) {
            return Err(Error::external("device test: lost"));
        }
        let good = |(row, &number): (usize, &i64)| (number >= 0).then_some((row as u32, 2 * number));
        let (kept, doubled): (Vec<u32>, Vec<i64>) = numbers.iter().enumerate().filter_map(good).unzip();
        let rejected = numbers.iter().enumerate().filter(|(_, number)| **number < 0).map(|(row, number)| {
            RejectedRow { row: row as u32, column: "n".into(), reason: format!("{number} is negative") }
        });
        let rejected: Vec<_> = rejected.collect();
        let kept = (!rejected.is_empty()).then_some(kept);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(doubled))];
        self.under_way.push_back(Computed {
            columns,
            kept,
            rejected,
            copied_bytes: 8,
            ..Computed::default()
        });
        self.most_under_way.fetch_max(self.under_way.len(), Ordering::Relaxed);
        Ok(())
    }
    fn finish(&mut self) -> Result<Option<Computed>> {
        Ok(self.under_way.pop_front())
    }
    fn expect_references(&mut self, _: &References) -> Result<()> {
        Ok(())
    }
    fn set_references(&mut self, _: &Arc<References>) -> Result<()> {
        Ok(())
    }
    fn device_bytes(&self) -> usize {
        1_000
    }
}

#[derive(Clone)]
struct Doubling {
    batching: Batching,
    on_bad_row: OnBadRow,
    inline: bool,
    fingerprint: Fingerprint,
    allow_changed_weights: bool,
    log: Arc<Mutex<Vec<usize>>>,
    most_under_way: Arc<AtomicUsize>,
}

impl Doubling {
    fn new(batching: Batching) -> Doubling {
        Doubling {
            batching,
            on_bad_row: OnBadRow::Fail,
            inline: true,
            fingerprint: Fingerprint::default(),
            allow_changed_weights: false,
            log: Arc::default(),
            most_under_way: Arc::default(),
        }
    }

    fn harness(&self) -> OperatorHarness {
        OperatorHarness::new(self.clone(), vec![HarnessInput::new(EdgeSchema::new(schema()))]).unwrap()
    }

    fn batches(&self) -> Vec<usize> {
        std::mem::take(&mut self.log.lock())
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8View, false),
    ]))
}

fn rows(numbers: impl IntoIterator<Item = i64>) -> RecordBatch {
    let numbers: Vec<i64> = numbers.into_iter().collect();
    // Rows of 10 and of 400 bytes in turns: 5 and 102 tokens.
    let texts = numbers.iter().map(|n| "x".repeat(if n % 2 == 0 { 10 } else { 400 }));
    let texts = StringViewArray::from_iter_values(texts);
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(numbers)), Arc::new(texts)]).unwrap()
}

fn empty_graph() -> Graph {
    let mut graph = thalweg_tensor::GraphBuilder::new();
    let n = graph.tensor("n", thalweg_tensor::Element::F32, [1]).unwrap();
    graph.output("n", n).unwrap();
    graph.build().unwrap()
}

impl OperatorFactory for Doubling {
    fn name(&self) -> String {
        "doubling".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        let input = schema();
        let watch = ReferenceWatch::open(&empty_graph(), &[])?;
        let (log, most_under_way) = (self.log.clone(), self.most_under_way.clone());
        Ok(Box::new(Pipeline::new(Setup {
            batching: Arc::new(self.batching.clone()),
            on_bad_row: self.on_bad_row,
            output: self.outputs(&[EdgeSchema::new(input.clone())])?[0].schema.clone(),
            dead_letters: Some(dead_letter_schema(&input)?),
            bucketed_by: (!self.batching.buckets.is_empty()).then_some(1),
            inline: self.inline,
            provenance: Provenance::new(
                self.fingerprint.clone(),
                self.allow_changed_weights,
                watch,
                self.inline,
            ),
            compute: Box::new(move |_, _| {
                let (log, most_under_way) = (log.clone(), most_under_way.clone());
                Ok(Box::new(Doubler { log, most_under_way, ..Doubler::default() }))
            }),
        })))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        let twice = Arc::new(Field::new("twice", DataType::Int64, false));
        let fields: Vec<_> = input.schema.fields().iter().cloned().chain([twice]).collect();
        let main = EdgeSchema { schema: Arc::new(Schema::new(fields)), ..input.clone() };
        Ok(vec![main, EdgeSchema::new(dead_letter_schema(&input.schema)?)])
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("doubling"))
    }
}

fn pairs(batches: &[RecordBatch]) -> Vec<(i64, i64)> {
    let column =
        |batch: &RecordBatch, index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(|batch| column(batch, 0).into_iter().zip(column(batch, 2))).collect()
}

fn doubled(numbers: impl IntoIterator<Item = i64>) -> Vec<(i64, i64)> {
    numbers.into_iter().map(|n| (n, 2 * n)).collect()
}

fn batching(rows_max: usize) -> Batching {
    Batching { rows_max, ..Batching::default() }
}

#[test]
fn batches_are_cut_by_rows_and_the_rest_waits_for_its_deadline() {
    let doubling = Doubling::new(batching(4));
    let mut harness = doubling.harness();
    harness.push_batch(0, rows(0..10)).unwrap();
    assert_eq!(doubling.batches(), [4, 4]);
    assert_eq!(pairs(&harness.take_batches(0)), doubled(0..8));
    harness.advance_to(4 * MILLI).unwrap();
    assert!(harness.take_batches(0).is_empty(), "5 ms are not over");
    harness.advance_to(5 * MILLI).unwrap();
    assert_eq!((doubling.batches(), pairs(&harness.take_batches(0))), (vec![2], doubled(8..10)));
    // Rows of several batches that come make one.
    for n in 0..4 {
        harness.push_batch(0, rows([n])).unwrap();
    }
    assert_eq!((doubling.batches(), pairs(&harness.take_batches(0))), (vec![4], doubled(0..4)));
}

#[test]
fn batches_are_cut_by_bytes_and_one_row_may_have_more() {
    let bytes = thalweg_engine::record::Batch::new(rows([0, 2, 4])).rows_bytes() / 3;
    let doubling = Doubling::new(Batching { bytes_max: 3 * bytes, ..batching(100) });
    let mut harness = doubling.harness();
    harness.push_batch(0, rows([0, 2, 4, 6, 8, 10, 12])).unwrap();
    harness.snapshot().unwrap();
    assert_eq!(doubling.batches(), [3, 3, 1]);
    let tiny = Doubling::new(Batching { bytes_max: 1, ..batching(100) });
    let mut harness = tiny.harness();
    harness.push_batch(0, rows(0..3)).unwrap();
    assert_eq!((tiny.batches(), pairs(&harness.take_batches(0))), (vec![1, 1, 1], doubled(0..3)));
}

#[test]
fn a_watermark_passes_behind_the_rows_before_it_and_a_batch_may_span_it() {
    let doubling = Doubling::new(batching(4));
    let mut harness = doubling.harness();
    harness.watermark(0, 5).unwrap();
    assert!(matches!(harness.take(0)[..], [Emitted::Watermark(Watermark(5))]), "nothing is before it");
    harness.push_batch(0, rows(0..2)).unwrap();
    harness.watermark(0, 10).unwrap();
    harness.push_batch(0, rows(2..3)).unwrap();
    harness.watermark(0, 20).unwrap();
    assert!(harness.take(0).is_empty());
    harness.push_batch(0, rows(3..5)).unwrap();
    harness.watermark(0, 30).unwrap();
    let emitted = harness.take(0);
    let [Emitted::Batch(batch), Emitted::Watermark(Watermark(20))] = &emitted[..] else {
        panic!("{emitted:?}");
    };
    assert_eq!(batch.row_count(), 4);
    harness.advance_to(5 * MILLI).unwrap();
    let emitted = harness.take(0);
    assert!(matches!(&emitted[..], [Emitted::Batch(_), Emitted::Watermark(Watermark(30))]), "{emitted:?}");
}

#[test]
fn everything_leaves_before_a_barrier_an_idle_input_and_the_end() {
    for inline in [true, false] {
        let doubling = Doubling { inline, ..Doubling::new(batching(4)) };
        let mut harness = doubling.harness();
        harness.push_batch(0, rows(0..11)).unwrap();
        harness.snapshot().unwrap();
        assert_eq!(pairs(&harness.take_batches(0)), doubled(0..11));
        harness.push_batch(0, rows(11..13)).unwrap();
        harness.set_active(0, false).unwrap();
        assert_eq!(pairs(&harness.take_batches(0)), doubled(11..13));
        harness.set_active(0, true).unwrap();
        harness.push_batch(0, rows(14..15)).unwrap();
        harness.end(0).unwrap();
        let emitted = harness.take(0);
        assert!(
            matches!(&emitted[..], [Emitted::Batch(_), Emitted::Watermark(Watermark::MAX)]),
            "{emitted:?}"
        );
    }
}

#[test]
fn rows_are_gathered_by_length_and_leave_in_the_order_they_came() {
    let buckets = Batching { buckets: vec![16, 64], ..batching(3) };
    let doubling = Doubling::new(buckets.clone());
    let mut harness = doubling.harness();
    harness.push_batch(0, rows([0, 1, 2, 3, 4, 5, 6])).unwrap();
    // 0, 2, 4 are short and 1, 3, 5 are long: two full batches, and 6 waits.
    assert_eq!(doubling.batches(), [3, 3]);
    assert_eq!(pairs(&harness.take_batches(0)), doubled(0..6));
    harness.push_batch(0, rows([7, 8, 9, 10])).unwrap();
    // 6, 8, 10 are done; 8 and 10 wait for 7, which waits for a third long one.
    assert_eq!((doubling.batches(), pairs(&harness.take_batches(0))), (vec![3], doubled([6])));
    harness.advance_to(5 * MILLI).unwrap();
    assert_eq!(pairs(&harness.take_batches(0)), doubled(7..11));

    let unordered = Doubling::new(Batching { ordered: false, ..buckets });
    let mut harness = unordered.harness();
    harness.push_batch(0, rows([1, 2, 4, 6])).unwrap();
    harness.watermark(0, 7).unwrap();
    let emitted = harness.take(0);
    assert!(matches!(&emitted[..], [Emitted::Batch(_)]), "the watermark waits for row 1: {emitted:?}");
    harness.advance_to(5 * MILLI).unwrap();
    assert!(matches!(&harness.take(0)[..], [Emitted::Batch(_), Emitted::Watermark(Watermark(7))]));
}

#[test]
fn bad_rows_fail_the_job_or_are_dropped_or_go_to_the_side_output() {
    let mut doubling = Doubling::new(batching(3));
    let error = doubling.harness().push_batch(0, rows([1, -2, 3])).unwrap_err().to_string();
    assert!(error.contains("column \"n\": -2 is negative"), "{error}");
    doubling.on_bad_row = OnBadRow::Drop;
    let mut harness = doubling.harness();
    harness.push_batch(0, rows([1, -2, 3, -4, -5, -6])).unwrap();
    assert_eq!(pairs(&harness.take_batches(0)), doubled([1, 3]));
    assert_eq!(harness.metrics().total("tensor_rejected_rows_total"), 4);
    doubling.on_bad_row = OnBadRow::DeadLetter;
    let mut harness = doubling.harness();
    harness.push_batch(0, rows([1, -2, 3])).unwrap();
    let letters = harness.take_batches(1);
    assert_eq!(letters[0].column(0).as_primitive::<Int64Type>().values(), &[-2]);
    assert_eq!(letters[0].column(3).as_string_view().value(0), "-2 is negative");
    assert_eq!(pairs(&harness.take_batches(0)), doubled([1, 3]));
}

#[test]
fn bad_rows_do_not_hold_up_the_rows_of_other_buckets() {
    let batching = Batching { buckets: vec![16], ..batching(3) };
    let doubling = Doubling { on_bad_row: OnBadRow::Drop, ..Doubling::new(batching) };
    let mut harness = doubling.harness();
    harness.push_batch(0, rows([-2, 1, -4, 3, -6, 5, 8])).unwrap();
    harness.watermark(0, 9).unwrap();
    assert_eq!(pairs(&harness.take_batches(0)), doubled([1, 3, 5]));
    harness.advance_to(5 * MILLI).unwrap();
    let emitted = harness.take(0);
    assert!(matches!(&emitted[..], [Emitted::Batch(_), Emitted::Watermark(Watermark(9))]), "{emitted:?}");
}

#[test]
fn a_slow_bucket_holds_up_the_others_only_so_far() {
    let batching = Batching { buckets: vec![16], delay_max: Duration::from_secs(60), ..batching(2) };
    let doubling = Doubling::new(batching);
    let mut harness = doubling.harness();
    // One long row, then short ones without end.
    let numbers: Vec<i64> = std::iter::once(1).chain((0..100).map(|n| 2 * n)).collect();
    for chunk in numbers.chunks(5) {
        harness.push_batch(0, rows(chunk.iter().copied())).unwrap();
    }
    let left = pairs(&harness.take_batches(0));
    assert!(left.len() > 80, "only {} rows have left", left.len());
    assert_eq!(left, doubled(numbers[..left.len()].iter().copied()));
}

#[test]
fn a_lost_device_fails_the_task_and_another_try_can_help() {
    for inline in [true, false] {
        let doubling = Doubling { inline, ..Doubling::new(batching(1)) };
        let mut harness = doubling.harness();
        let pushed = harness.push_batch(0, rows([13]));
        let error = match pushed {
            Err(error) => error,
            Ok(()) => loop {
                match harness.wait_woken(Duration::from_secs(10)) {
                    Ok(true) => {}
                    Ok(false) => panic!("the task never heard of the lost device"),
                    Err(error) => break error,
                }
            },
        };
        assert!(error.is_retryable() && error.to_string().contains("device test: lost"), "{error}");
    }
}

#[test]
fn a_thread_has_no_more_under_way_than_it_may_and_is_full_beyond() {
    let doubling = Doubling { inline: false, ..Doubling::new(batching(10)) };
    let mut harness = doubling.harness();
    harness.push_batch(0, rows(100..1_100)).unwrap();
    harness.snapshot().unwrap();
    assert_eq!(pairs(&harness.take_batches(0)), doubled(100..1_100));
    assert_eq!(doubling.batches(), vec![10; 100]);
    assert!(doubling.most_under_way.load(Ordering::Relaxed) <= 2);
    assert_eq!(harness.metrics().total("tensor_batches_under_way"), 0);
    assert_eq!(harness.metrics().total("tensor_rows_total"), 1_000);
    assert_eq!(harness.metrics().total("tensor_copied_bytes_total"), 800);
    assert_eq!(harness.metrics().total("tensor_device_bytes"), 1_000);
}

#[test]
fn a_restore_with_other_weights_is_refused_unless_it_is_allowed() {
    let with = |weights: &str| Doubling {
        fingerprint: Fingerprint { weights: weights.repeat(4), ..Fingerprint::default() },
        ..Doubling::new(batching(4))
    };
    let input = || vec![HarnessInput::new(EdgeSchema::new(schema()))];
    let mut harness = OperatorHarness::builder(with("0123456789abcdef"), input()).open().unwrap();
    let snapshot = harness.snapshot().unwrap();
    let restore = |doubling: Doubling| {
        OperatorHarness::builder(doubling, input()).parallelism(3).restore(&snapshot).map(drop)
    };
    restore(with("0123456789abcdef")).unwrap();
    let error = restore(with("fedcba9876543210")).unwrap_err();
    assert!(
        error.to_string().contains(
            "it has weights 0123456789abcdef, not fedcba9876543210; to go on with what the job has now, set \
             `allow_changed_weights: true`"
        ),
        "{error}"
    );
    assert!(!error.is_retryable());
    restore(Doubling { allow_changed_weights: true, ..with("fedcba9876543210") }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the sizes, rows leave once, in order, and no watermark overtakes one.
    #[test]
    fn rows_leave_once_and_in_order(
        sizes in prop::collection::vec(0usize..20, 1..20), rows_max in 1usize..9,
        has_buckets: bool, inline: bool, millis in prop::collection::vec(0i64..7, 20),
    ) {
        let buckets = if has_buckets { vec![16] } else { Vec::new() };
        let doubling = Doubling { inline, ..Doubling::new(Batching { buckets, ..batching(rows_max) }) };
        let mut harness = doubling.harness();
        let (mut next, mut now) = (100, 0);
        let mut emitted = Vec::new();
        for (size, millis) in sizes.iter().zip(&millis) {
            harness.push_batch(0, rows(next..next + *size as i64)).unwrap();
            next += *size as i64;
            harness.watermark(0, next).unwrap();
            now += millis * MILLI;
            harness.advance_to(now).unwrap();
            emitted.extend(harness.take(0));
        }
        harness.end(0).unwrap();
        emitted.extend(harness.take(0));
        let (mut expected, mut passed) = (100, i64::MIN);
        for element in &emitted {
            match element {
                Emitted::Watermark(watermark) => passed = watermark.0,
                Emitted::Batch(batch) => {
                    for (n, twice) in pairs(std::slice::from_ref(batch.records())) {
                        prop_assert_eq!((n, twice), (expected, 2 * expected));
                        prop_assert!(n >= passed, "row {} came behind watermark {}", n, passed);
                        expected += 1;
                    }
                }
            }
        }
        prop_assert_eq!(expected, next);
    }
}
