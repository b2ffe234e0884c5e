//! The operator that drops copies, keyed by producer; what it remembers is in `memory`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, cast::AsArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::graph::Stream;
use thalweg_engine::metrics::Counter;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::state::key_encoding::{KeyEncoder, hash_key};
use thalweg_engine::time::{Micros, Watermark};
use thalweg_engine::{Context, Error, Result};

use super::memory::{Memory, Run};
use super::read_ids::{PRODUCER, ReadRecordIds, SEQUENCE};
use super::{INTERVALS_MAX, PRODUCERS_MAX};

/// Drops the records of `stream` that are copies of earlier ones: reads the ids from the binary
/// column `header`, exchanges by producer, drops. Records without an id pass. Works over all
/// clusters and tasks, since all copies of a record meet in one task.
pub fn drop_copies(stream: &Stream, header: &str) -> Stream {
    stream.apply(ReadRecordIds::new(header)).key_by(&[PRODUCER]).apply(Deduplicate::default())
}

/// The keyed operator behind [`ReadRecordIds`]. Its input is keyed by `id_producer`; its output
/// lacks the id columns.
#[derive(Clone, Debug)]
pub struct Deduplicate {
    pub(super) intervals_max: usize,
    pub(super) producers_max: usize,
    pub(super) forget: Forget,
}

/// When a producer of whom nothing was heard is forgotten. Its records that come later pass as if
/// they were new ones, so the time is to be longer than a copy may take: longer than a cluster may
/// be away that holds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forget {
    /// Never: producers are remembered up to their bound.
    #[default]
    Never,
    /// When the watermark has risen by so many microseconds since its last record came. Where the
    /// source holds the watermark for a cluster that is away, nobody is forgotten in an outage,
    /// however long.
    AfterEventTime(Micros),
    /// When nothing was heard for so many microseconds of processing time.
    AfterProcessingTime(Micros),
}

impl Default for Deduplicate {
    /// [`INTERVALS_MAX`] intervals a producer, [`PRODUCERS_MAX`] producers, never forgotten.
    fn default() -> Self {
        Deduplicate { intervals_max: INTERVALS_MAX, producers_max: PRODUCERS_MAX, forget: Forget::default() }
    }
}

impl Deduplicate {
    /// Another bound of the intervals that are remembered of one producer.
    #[must_use]
    pub fn intervals_max(mut self, intervals: usize) -> Self {
        self.intervals_max = intervals;
        self
    }

    /// Another bound of the producers that are remembered, over all instances. Each key group has
    /// its share; a new producer beyond that is not remembered, its records pass and are counted.
    #[must_use]
    pub fn producers_max(mut self, producers: usize) -> Self {
        self.producers_max = producers;
        self
    }

    /// When a producer is forgotten.
    #[must_use]
    pub fn forget(mut self, forget: Forget) -> Self {
        self.forget = forget;
        self
    }
}

fn without_ids(schema: &Schema) -> (SchemaRef, Vec<usize>) {
    let is_id = |name: &str| name == PRODUCER || name == SEQUENCE;
    let kept = (0..schema.fields().len()).filter(|&column| !is_id(schema.field(column).name()));
    let kept: Vec<usize> = kept.collect();
    let fields = kept.iter().map(|&column| schema.field(column).clone());
    (Arc::new(Schema::new(fields.collect::<Vec<_>>())), kept)
}

impl OperatorFactory for Deduplicate {
    fn name(&self) -> String {
        "deduplicate".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Dropper { config: self.clone(), open: None }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        for column in [PRODUCER, SEQUENCE] {
            if input.schema.index_of(column).is_err() {
                let what = format!("deduplicate needs the column {column:?} that reading record ids makes");
                return Err(Error::user(what));
            }
        }
        if matches!(self.forget, Forget::AfterEventTime(_)) {
            input.event_time().context(|| "deduplicate forgets by event time".to_string())?;
        }
        let (schema, kept) = without_ids(&input.schema);
        let time = input.time.and_then(|time| kept.iter().position(|&column| column == time));
        Ok(vec![EdgeSchema { schema, time, ..input.clone() }])
    }

    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        let input = &inputs.first()?.schema;
        let key: Vec<usize> = input.index_of(PRODUCER).into_iter().collect();
        Some(StateIdentity::of("deduplicate").keyed_by(input, &key))
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        let Deduplicate { intervals_max, producers_max, forget } = self;
        format!("deduplicate intervals_max={intervals_max} producers_max={producers_max} {forget:?}")
    }
}

struct Dropper {
    config: Deduplicate,
    open: Option<Open>,
}

struct Open {
    memory: Memory,
    key: KeyEncoder,
    key_bytes: Vec<u8>,
    copies: Counter,
    unremembered: Counter,
    without_id: Counter,
}

fn not_open() -> Error {
    Error::internal("deduplicate was not opened")
}

impl Dropper {
    fn open_mut(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(not_open)
    }

    /// Forgets whose time has come, some in a step.
    fn forget(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let open = self.open.as_mut().ok_or_else(not_open)?;
        let step = open.memory.forget(cx.watermark(), cx.now())?;
        if let Some(at) = open.memory.wake_at()? {
            cx.wake_at(at);
        }
        Ok(step)
    }
}

impl Open {
    /// Which rows pass.
    fn judge(&mut self, records: &RecordBatch, watermark: Watermark, now: Micros) -> Result<Vec<bool>> {
        let column = |name| {
            let column = records.column_by_name(name);
            column.cloned().ok_or_else(|| Error::internal(format!("no column {name:?}")))
        };
        let producers: [ArrayRef; 1] = [column(PRODUCER)?];
        let names = producers[0].as_string_view();
        let sequences = column(SEQUENCE)?;
        let sequences = sequences.as_primitive::<UInt64Type>();
        let mut pass = vec![true; records.num_rows()];
        let mut row = 0;
        while row < pass.len() {
            if names.is_null(row) {
                self.without_id.add(1);
                row += 1;
                continue;
            }
            // Records of one producer come in runs; one look-up for a run.
            let run = (row..pass.len())
                .take_while(|&other| !names.is_null(other) && names.value(other) == names.value(row));
            let end = run.last().map_or(row, |last| last) + 1;
            self.key_bytes.clear();
            self.key.encode(&producers, row, &mut self.key_bytes)?;
            let run = Run {
                key: &self.key_bytes,
                hash: hash_key(&self.key_bytes),
                sequences: &sequences.values()[row..end],
            };
            let seen = self.memory.see(&run, watermark, now, &mut pass[row..end])?;
            self.copies.add(seen.copies);
            self.unremembered.add(seen.unremembered);
            row = end;
        }
        Ok(pass)
    }
}

impl Operator for Dropper {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let mut memory = Memory::open(cx, &self.config)?;
        if memory.wake_at()?.is_some() {
            // A wake-up can be asked for only while an event is dealt with; this makes one.
            cx.waker.wake();
        }
        let metrics = cx.metrics;
        self.open = Some(Open {
            memory,
            key: KeyEncoder::new(&[DataType::Utf8View])?,
            key_bytes: Vec::new(),
            copies: metrics.counter("copies_dropped_total", "Records dropped as copies of earlier ones."),
            unremembered: metrics
                .counter("copies_unremembered_total", "Records that passed unremembered, at the bound."),
            without_id: metrics.counter("records_without_id_total", "Records that passed without an id."),
        });
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let open = self.open_mut()?;
        let pass = open.judge(batch.records(), cx.watermark(), cx.now())?;
        if let Some(at) = open.memory.wake_at()? {
            cx.wake_at(at);
        }
        let (_, kept) = without_ids(&batch.schema());
        let records = batch.records().project(&kept)?;
        let records = match pass.iter().all(|&pass| pass) {
            true => records,
            false => filter_record_batch(&records, &BooleanArray::from(pass))?,
        };
        cx.emit(Batch::new(records));
        Ok(Step::Done)
    }

    fn watermark(&mut self, _watermark: Watermark, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.forget(cx)
    }

    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.forget(cx)
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.forget(cx)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.open_mut()?.memory.keyed().snapshot(checkpoint)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.open_mut()?.memory.keyed().checkpoint_completed(checkpoint)
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.open_mut()?.memory.keyed().checkpoint_aborted(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_id::RecordId;
    use arrow::array::{BinaryViewArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use thalweg_engine::harness::{HarnessInput, OperatorHarness};

    fn ids(rows: &[(Option<(&str, u64)>, i64)]) -> RecordBatch {
        let header = rows
            .iter()
            .map(|(id, _)| id.map(|(producer, sequence)| RecordId { producer, epoch: 0, sequence }.encode()));
        let header: ArrayRef = Arc::new(BinaryViewArray::from_iter(header));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, value)| *value)));
        RecordBatch::try_from_iter_with_nullable([("header", header, true), ("n", values, false)]).unwrap()
    }

    fn read(records: RecordBatch) -> RecordBatch {
        let input = HarnessInput::new(EdgeSchema::new(records.schema()));
        let mut reader = OperatorHarness::new(ReadRecordIds::new("header"), vec![input]).unwrap();
        reader.push_batch(0, records).unwrap();
        reader.take_batches(0).remove(0)
    }

    fn numbers(harness: &mut OperatorHarness) -> Vec<i64> {
        let batches = harness.take_batches(0);
        let values = batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values());
        let mut values: Vec<i64> = values.copied().collect();
        values.sort_unstable();
        values
    }

    #[test]
    fn f13_copies_are_dropped_also_after_a_restore_at_another_parallelism() {
        let first = read(ids(&[
            (Some(("a", 0)), 1),
            (Some(("a", 1)), 2),
            (Some(("b", 0)), 3),
            (Some(("a", 1)), 4),
            (None, 5),
            (None, 5),
        ]));
        let input = HarnessInput::new(EdgeSchema::new(first.schema())).keyed(&[PRODUCER]).unwrap();
        let builder = OperatorHarness::builder(Deduplicate::default(), vec![input]);
        let mut one = builder.clone().parallelism(2).open().unwrap();
        one.push_batch(0, first).unwrap();
        assert_eq!(numbers(&mut one), [1, 2, 3, 5, 5]);
        let snapshot = one.snapshot().unwrap();
        let mut three = builder.parallelism(3).restore(&snapshot).unwrap();
        let again = [(Some(("b", 0)), 6), (Some(("a", 0)), 7), (Some(("b", 1)), 8), (Some(("c", 0)), 9)];
        three.push_batch(0, read(ids(&again))).unwrap();
        assert_eq!(numbers(&mut three), [8, 9]);
        assert_eq!(three.metrics().total("copies_dropped_total"), 2);
    }

    /// An input with a time column, keyed by producer.
    fn timed_input() -> HarnessInput {
        let schema = read(with_time(&[(None, 0)])).schema();
        let time = schema.index_of("t").ok();
        HarnessInput::new(EdgeSchema { time, ..EdgeSchema::new(schema) }).keyed(&[PRODUCER]).unwrap()
    }

    fn with_time(rows: &[(Option<(&str, u64)>, i64)]) -> RecordBatch {
        let records = ids(rows);
        let times = arrow::array::TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, n)| *n));
        let times = times.with_data_type(thalweg_engine::record::time_type());
        let columns = [records.column(0).clone(), records.column(1).clone(), Arc::new(times) as ArrayRef];
        let named = ["header", "n", "t"].into_iter().zip(columns).zip([true, false, false]);
        RecordBatch::try_from_iter_with_nullable(named.map(|((name, column), null)| (name, column, null)))
            .unwrap()
    }

    #[test]
    fn f13_a_producer_is_forgotten_when_the_watermark_has_left_it_behind_and_not_in_an_outage() {
        let forgetting = Deduplicate::default().forget(Forget::AfterEventTime(100));
        let builder = OperatorHarness::builder(forgetting, vec![timed_input()]);
        let mut harness = builder.clone().parallelism(2).open().unwrap();
        let push = |harness: &mut OperatorHarness, rows: &[(Option<(&str, u64)>, i64)]| {
            harness.push_batch(0, read(with_time(rows))).unwrap();
        };
        push(&mut harness, &[(Some(("a", 0)), 1), (Some(("b", 0)), 2)]);
        harness.watermark(0, 1_000).unwrap();
        // The watermark is held however long: nobody is forgotten.
        push(&mut harness, &[(Some(("a", 0)), 3), (Some(("b", 0)), 4)]);
        assert_eq!(numbers(&mut harness), [1, 2]);
        harness.watermark(0, 1_050).unwrap();
        push(&mut harness, &[(Some(("b", 1)), 5)]);
        harness.watermark(0, 1_110).unwrap();
        assert_eq!(harness.metrics().total("producers_forgotten_total"), 1, "a was silent, b was not");
        // What was known moves with a restore, timers too.
        let snapshot = harness.snapshot().unwrap();
        let mut harness = builder.parallelism(3).restore(&snapshot).unwrap();
        push(&mut harness, &[(Some(("b", 1)), 6), (Some(("a", 0)), 7)]);
        assert_eq!(numbers(&mut harness), [7], "of a nothing is known: its record passes");
        harness.watermark(0, 2_000).unwrap();
        assert_eq!(
            harness.metrics().total("producers_forgotten_total"),
            1,
            "b; a has only now a first watermark"
        );
    }

    #[test]
    fn f13_a_producer_is_forgotten_after_a_silence_in_processing_time() {
        let first = read(ids(&[(Some(("a", 0)), 1)]));
        let input = HarnessInput::new(EdgeSchema::new(first.schema())).keyed(&[PRODUCER]).unwrap();
        let forgetting = Deduplicate::default().forget(Forget::AfterProcessingTime(100));
        let mut harness = OperatorHarness::new(forgetting, vec![input]).unwrap();
        harness.push_batch(0, first.clone()).unwrap();
        harness.advance_to(90).unwrap();
        harness.push_batch(0, first.clone()).unwrap();
        harness.advance_to(180).unwrap();
        assert_eq!(harness.metrics().total("producers_forgotten_total"), 0, "it was heard of at 90");
        harness.advance_to(200).unwrap();
        assert_eq!(harness.metrics().total("producers_forgotten_total"), 1);
        harness.push_batch(0, first).unwrap();
        assert_eq!(numbers(&mut harness), [1, 1]);
    }

    #[test]
    fn f13_producers_beyond_the_bound_pass_and_are_counted_until_there_is_room() {
        let first = read(ids(&[(Some(("a", 0)), 1)]));
        let input = HarnessInput::new(EdgeSchema::new(first.schema())).keyed(&[PRODUCER]).unwrap();
        let bounded = Deduplicate::default().producers_max(1).forget(Forget::AfterProcessingTime(100));
        let builder = OperatorHarness::builder(bounded, vec![input]).max_parallelism(1);
        let mut harness = builder.open().unwrap();
        harness.push_batch(0, first).unwrap();
        let others = read(ids(&[(Some(("b", 0)), 2), (Some(("b", 0)), 3), (Some(("a", 0)), 4)]));
        harness.push_batch(0, others.clone()).unwrap();
        assert_eq!(numbers(&mut harness), [1, 2, 3], "b is not remembered, a still is");
        assert_eq!(harness.metrics().total("copies_unremembered_total"), 2);
        // The count is state: it holds after a restore.
        let snapshot = harness.snapshot().unwrap();
        let mut harness = builder.restore(&snapshot).unwrap();
        harness.push_batch(0, others.clone()).unwrap();
        assert_eq!(numbers(&mut harness), [2, 3]);
        harness.advance_to(1_000).unwrap();
        assert_eq!(harness.metrics().total("producers_forgotten_total"), 1);
        harness.push_batch(0, others).unwrap();
        assert_eq!(numbers(&mut harness), [2, 4], "now b is remembered, and a passes unremembered");
    }

    #[test]
    fn forgetting_by_event_time_needs_one() {
        let edge = EdgeSchema::new(read(ids(&[(None, 0)])).schema());
        let error = Deduplicate::default().forget(Forget::AfterEventTime(1)).outputs(&[edge]).unwrap_err();
        assert!(error.to_string().contains("has no event time"), "{error}");
    }
}
