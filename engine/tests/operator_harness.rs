//! The harness holds operators to their contract.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use thalweg_engine::Result;
use thalweg_engine::checkpoint::{CheckpointId, SnapshotPart};
use thalweg_engine::harness::{Emitted, HarnessInput, OperatorHarness};
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, OutputIndex, Step,
};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::time::Watermark;

/// What the operator under test does wrong, or right.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Passes,
    OtherSchema,
    OtherOutput,
    NeverDone,
    EmitsAfterTheEnd,
    Lists,
}

#[derive(Clone)]
struct Manners(Manner, Vec<Vec<u8>>);

fn edge() -> EdgeSchema {
    EdgeSchema::new(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])))
}

fn numbers(name: &str, values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([(name, column)]).unwrap()
}

impl OperatorFactory for Manners {
    fn name(&self) -> String {
        "manners".into()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn outputs(&self, _inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(vec![edge()])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("manners"))
    }
}

impl Operator for Manners {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.1 = cx.restored.items("seen").map(<[u8]>::to_vec).collect();
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        match self.0 {
            Manner::OtherSchema => cx.emit(Batch::new(numbers("m", [1]))),
            Manner::OtherOutput => cx.emit_to(OutputIndex(1), batch),
            Manner::NeverDone => return Ok(Step::More),
            Manner::EmitsAfterTheEnd => cx.wake_at(cx.now() + 5),
            Manner::Lists => self.1.push(vec![batch.row_count() as u8]),
            Manner::Passes => cx.emit(batch),
        }
        Ok(Step::Done)
    }

    fn resume(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        Ok(Step::More)
    }

    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(Batch::new(numbers("n", [cx.now()])));
        Ok(Step::Done)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let list = SnapshotPart::List { name: "seen".into(), items: self.1.clone() };
        Ok(OperatorSnapshot { parts: vec![list], ..OperatorSnapshot::default() })
    }
}

fn harness(manner: Manner) -> OperatorHarness {
    OperatorHarness::new(Manners(manner, Vec::new()), vec![HarnessInput::new(edge())]).unwrap()
}

fn failure(manner: Manner) -> String {
    harness(manner).push_batch(0, numbers("n", [1])).unwrap_err().to_string()
}

#[test]
fn what_was_not_announced_is_refused() {
    assert!(failure(Manner::OtherSchema).contains("it announced"));
    assert!(failure(Manner::OtherOutput).contains("emits to output 1, it announced 1"));
    assert!(failure(Manner::NeverDone).contains("not done after"));
}

#[test]
fn nothing_may_come_after_the_end() {
    let mut harness = harness(Manner::EmitsAfterTheEnd);
    harness.push_batch(0, numbers("n", [1])).unwrap();
    harness.advance_to(5).unwrap();
    assert_eq!(harness.take_batches(0), [numbers("n", [5])]);
    harness.push_batch(0, numbers("n", [1])).unwrap();
    harness.end(0).unwrap();
    assert!(harness.advance_to(10).unwrap_err().to_string().contains("after the end"));
    assert!(harness.push_batch(0, numbers("n", [1])).unwrap_err().to_string().contains("has ended"));
}

#[test]
fn what_the_test_itself_does_wrong_is_told() {
    let mut harness = harness(Manner::Passes);
    assert!(harness.push_batch(0, numbers("m", [1])).is_err());
    assert!(harness.push_batch(1, numbers("n", [1])).is_err());
    harness.watermark(0, 7).unwrap();
    assert!(harness.watermark(0, 6).is_err());
    harness.advance_to(7).unwrap();
    assert!(harness.advance_to(6).is_err());
}

#[test]
fn rows_and_watermarks_come_in_order_and_the_minimum_of_two_inputs_counts() {
    let inputs = vec![HarnessInput::new(edge()), HarnessInput::new(edge())];
    let mut harness = OperatorHarness::new(Manners(Manner::Passes, Vec::new()), inputs).unwrap();
    harness.watermark(0, 10).unwrap();
    harness.push_batch(1, numbers("n", [1, 2])).unwrap();
    harness.watermark(1, 4).unwrap();
    harness.set_active(1, false).unwrap();
    let seen: Vec<_> = harness
        .take(0)
        .into_iter()
        .map(|emitted| match emitted {
            Emitted::Batch(batch) => format!("{} rows", batch.row_count()),
            Emitted::Watermark(Watermark(micros)) => format!("watermark {micros}"),
        })
        .collect();
    assert_eq!(seen, ["2 rows", "watermark 4", "watermark 10"]);
}

#[test]
fn list_state_is_dealt_out_once_at_any_parallelism() {
    let builder =
        OperatorHarness::builder(Manners(Manner::Lists, Vec::new()), vec![HarnessInput::new(edge())]);
    let mut harness = builder.clone().parallelism(2).open().unwrap();
    for rows in 1..=5 {
        harness.push_batch(0, numbers("n", 0..rows)).unwrap();
    }
    for parallelism in [3, 1, 4] {
        let snapshot = harness.snapshot().unwrap();
        harness = builder.clone().parallelism(parallelism).restore(&snapshot).unwrap();
        let again = harness.snapshot().unwrap();
        let items = again.parts().flat_map(|part| match part {
            SnapshotPart::List { items, .. } => items.concat(),
            _ => Vec::new(),
        });
        let mut items: Vec<u8> = items.collect();
        items.sort_unstable();
        assert_eq!(items, [1, 2, 3, 4, 5]);
    }
}
