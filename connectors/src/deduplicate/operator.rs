//! The operator that drops copies, keyed by producer; what it remembers is keyed state.

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
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::state::key_encoding::{KeyEncoder, hash_key};
use thalweg_engine::state::{KeyedState, KeyedStateSpec, ValueState};
use thalweg_engine::{Error, Result};

use super::INTERVALS_MAX;
use super::interval_set::{Inserted, IntervalSet};
use super::read_ids::{PRODUCER, ReadRecordIds, SEQUENCE};

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
    intervals_max: usize,
}

impl Default for Deduplicate {
    /// [`INTERVALS_MAX`] intervals a producer.
    fn default() -> Self {
        Deduplicate { intervals_max: INTERVALS_MAX }
    }
}

impl Deduplicate {
    /// Another bound of the intervals that are remembered of one producer.
    #[must_use]
    pub fn intervals_max(mut self, intervals: usize) -> Self {
        self.intervals_max = intervals;
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
        Ok(Box::new(Dropper { intervals_max: self.intervals_max, open: None }))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        for column in [PRODUCER, SEQUENCE] {
            if input.schema.index_of(column).is_err() {
                let what = format!("deduplicate needs the column {column:?} that reading record ids makes");
                return Err(Error::user(what));
            }
        }
        let (schema, kept) = without_ids(&input.schema);
        let time = input.time.and_then(|time| kept.iter().position(|&column| column == time));
        Ok(vec![EdgeSchema { schema, time, mode: input.mode.clone() }])
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("deduplicate intervals_max={}", self.intervals_max)
    }
}

struct Dropper {
    intervals_max: usize,
    open: Option<Open>,
}

struct Open {
    keyed: KeyedState,
    seen: ValueState<IntervalSet>,
    key: KeyEncoder,
    key_bytes: Vec<u8>,
    copies: Counter,
    unremembered: Counter,
    without_id: Counter,
}

impl Dropper {
    fn open_mut(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::internal("deduplicate was not opened"))
    }
}

impl Open {
    /// Which rows pass.
    fn judge(&mut self, records: &RecordBatch, intervals_max: usize) -> Result<Vec<bool>> {
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
            self.keyed.set_current_key(hash_key(&self.key_bytes), &self.key_bytes);
            let (copies, unremembered) = self.seen.modify(&mut self.keyed, |seen| {
                let seen = seen.get_or_insert_default();
                let (mut copies, mut unremembered) = (0, 0);
                for (row, passes) in pass.iter_mut().enumerate().take(end).skip(row) {
                    match seen.insert(sequences.value(row), intervals_max) {
                        Inserted::New => {}
                        Inserted::Known => {
                            *passes = false;
                            copies += 1;
                        }
                        Inserted::Full => unremembered += 1,
                    }
                }
                (copies, unremembered)
            })?;
            self.copies.add(copies);
            self.unremembered.add(unremembered);
            row = end;
        }
        Ok(pass)
    }
}

impl Operator for Dropper {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let mut keyed = cx.keyed_state(KeyedStateSpec::of_backend(cx.backend.as_ref()))?;
        let seen = keyed.value("seen")?;
        let metrics = cx.metrics;
        self.open = Some(Open {
            keyed,
            seen,
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
        let intervals_max = self.intervals_max;
        let pass = self.open_mut()?.judge(batch.records(), intervals_max)?;
        let (_, kept) = without_ids(&batch.schema());
        let records = batch.records().project(&kept)?;
        let records = match pass.iter().all(|&pass| pass) {
            true => records,
            false => filter_record_batch(&records, &BooleanArray::from(pass))?,
        };
        cx.emit(Batch::new(records));
        Ok(Step::Done)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.open_mut()?.keyed.snapshot(checkpoint)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.open_mut()?.keyed.checkpoint_completed(checkpoint)
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.open_mut()?.keyed.checkpoint_aborted(checkpoint)
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
}
