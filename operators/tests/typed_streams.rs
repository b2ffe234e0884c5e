//! Typed streams: closures over borrowed rows, side outputs, and what is refused when a job is
//! built.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use thalweg_engine::harness::{HarnessInput, OperatorHarness};
use thalweg_engine::record::{EdgeSchema, Record, Timestamp};
use thalweg_operators::typed::{FilterRows, FlatMapRows, MapRows, Out, SideOutput, SideOutputs};

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
struct Word {
    text: String,
    count: i64,
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
struct Letter {
    letter: String,
    #[record(time)]
    at: Timestamp,
}

const EMPTY: SideOutput<Word> = SideOutput::new("empty");

fn word(text: &str, count: i64) -> Word {
    Word { text: text.into(), count }
}

/// Words with a column more, in another order than the record's.
fn wide(words: &[(&str, i64)]) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(words.iter().map(|(text, _)| text)));
    let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(words.iter().map(|(_, count)| *count)));
    RecordBatch::try_from_iter([("more", counts.clone()), ("count", counts), ("text", texts)]).unwrap()
}

#[test]
fn map_makes_one_record_of_each_row() {
    let upper = MapRows::<Word, Word, _>::new(|row: WordRow<'_>| Word {
        text: row.text.to_uppercase(),
        count: row.count + 1,
    });
    let mut harness = OperatorHarness::new(upper, vec![HarnessInput::of::<Word>().unwrap()]).unwrap();
    harness.push(0, [word("a", 1), word("b", 2)]).unwrap();
    assert_eq!(harness.take_records::<Word>(0).unwrap(), [word("A", 2), word("B", 3)]);
}

#[test]
fn filter_keeps_columns_that_the_record_does_not_know() {
    let input = wide(&[("a", 1), ("b", 2), ("c", 3)]);
    let edge = EdgeSchema::new(input.schema());
    let odd = FilterRows::<Word, _>::new(|row: WordRow<'_>| row.count % 2 == 1);
    let mut harness = OperatorHarness::new(odd, vec![HarnessInput::new(edge)]).unwrap();
    harness.push_batch(0, input.clone()).unwrap();
    assert_eq!(harness.take_batches(0), [wide(&[("a", 1), ("c", 3)])]);
    harness.push_batch(0, wide(&[("b", 2)])).unwrap();
    assert!(harness.take_batches(0).is_empty(), "an empty batch is not sent");
}

#[test]
fn filter_keeps_the_key_hashes_of_the_rows_that_stay() {
    let input = HarnessInput::of::<Word>().unwrap().keyed(&["text"]).unwrap();
    let odd = FilterRows::<Word, _>::new(|row: WordRow<'_>| row.count % 2 == 1);
    let mut harness = OperatorHarness::builder(odd, vec![input]).parallelism(1).open().unwrap();
    harness.push(0, [word("a", 1), word("b", 2), word("c", 3)]).unwrap();
    let [thalweg_engine::harness::Emitted::Batch(batch)] = &harness.take(0)[..] else {
        panic!("one batch");
    };
    let column = batch.records().column(0).clone();
    let expected = thalweg_engine::state::key_encoding::hash_keys(&[column], 2).unwrap();
    assert_eq!(batch.key_hashes().unwrap(), &expected);
}

fn letters(row: WordRow<'_>, out: &mut Out<Letter>) {
    if row.text.is_empty() {
        out.emit_row_to(EMPTY, row);
    }
    for _ in 0..row.count {
        for letter in row.text.chars() {
            out.emit(Letter { letter: letter.into(), at: Timestamp(row.count) });
        }
    }
}

#[test]
fn flat_map_emits_any_number_in_bounded_steps() {
    let operator = FlatMapRows::<Word, Letter, _>::new(SideOutputs::one(EMPTY), letters);
    let mut harness = OperatorHarness::new(operator, vec![HarnessInput::of::<Word>().unwrap()]).unwrap();
    let mut words = vec![word("ab", 2), word("", 7)];
    words.extend((0..1000).map(|_| word("x", 50)));
    harness.push(0, words).unwrap();
    assert_eq!(harness.take_records::<Word>(1).unwrap(), [word("", 7)]);
    let letters = harness.take_records::<Letter>(0).unwrap();
    assert_eq!(letters.len(), 4 + 50_000);
    let firsts: Vec<_> = letters.iter().take(5).map(|letter| letter.letter.as_str()).collect();
    assert_eq!(firsts, ["a", "b", "a", "b", "x"]);
    assert!(harness.step_rows_max() < 8192 + 50, "{}", harness.step_rows_max());
}

#[test]
fn large_rows_end_a_step_before_many_rows_do() {
    let large = "x".repeat(1 << 20);
    let blow_up = MapRows::<Word, Word, _>::new(move |row: WordRow<'_>| word(&large, row.count));
    let mut harness = OperatorHarness::new(blow_up, vec![HarnessInput::of::<Word>().unwrap()]).unwrap();
    harness.push(0, (0..40).map(|count| word("", count))).unwrap();
    let batches = harness.take_batches(0);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 40);
    assert!(batches.iter().all(|batch| batch.num_rows() <= 4), "four rows are four MiB");
}

#[test]
fn a_side_output_that_is_not_declared_is_a_clear_error() {
    let operator = FlatMapRows::<Word, Letter, _>::new(SideOutputs::none(), letters);
    let mut harness = OperatorHarness::new(operator, vec![HarnessInput::of::<Word>().unwrap()]).unwrap();
    let message = harness.push(0, [word("", 1)]).unwrap_err().to_string();
    assert!(message.contains("side output \"empty\"") && message.contains("not declared"), "{message}");
}

#[test]
fn a_schema_that_does_not_fit_is_refused_before_any_row() {
    let edge = EdgeSchema::new(Letter::schema());
    let odd = FilterRows::<Word, _>::new(|_: WordRow<'_>| true);
    let message = OperatorHarness::new(odd, vec![HarnessInput::new(edge)]).err().unwrap().to_string();
    assert_eq!(
        message,
        "there is no column \"text\" among letter, at; there is no column \"count\" among letter, at"
    );
}

#[test]
fn the_event_time_of_a_record_becomes_the_edges() {
    use thalweg_engine::operator::OperatorFactory;
    let edge = Word::edge_schema().unwrap();
    let operator = FlatMapRows::<Word, Letter, _>::new(SideOutputs::one(EMPTY), letters);
    let outputs = operator.outputs(&[edge]).unwrap();
    assert_eq!(outputs.iter().map(|edge| edge.time).collect::<Vec<_>>(), [Some(1), None]);
}
