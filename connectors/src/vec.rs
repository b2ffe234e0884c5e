//! A source of rows that are already there: for tests and small look-up streams.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::record::{Batch, EdgeSchema, Record, RecordBuilder};
use thalweg_engine::runtime::TARGET_BYTES;
use thalweg_engine::source::{
    Enumerator, ReaderContext, ReaderEffect, ReaderOpenContext, ReaderStatus, Source, SourceReader, SplitId,
    SplitState,
};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Context, Error, Result};

use crate::deal::FixedSplits;
use crate::position;

/// A batch has at most this many rows.
const BATCH_ROWS_MAX: usize = 8_192;

/// A bounded source that reads batches from memory. Watermarks are made as for any source, with
/// `Stream::watermarks`.
#[derive(Clone, Debug)]
pub struct VecSource {
    schema: SchemaRef,
    splits: Vec<Arc<Vec<RecordBatch>>>,
    batch_rows: usize,
}

impl VecSource {
    /// One split with these batches, in order.
    pub fn new(schema: SchemaRef, batches: impl IntoIterator<Item = RecordBatch>) -> VecSource {
        Self::with_splits(schema, [batches.into_iter().collect()])
    }

    /// One split with these typed rows, in order.
    ///
    /// # Errors
    /// An Arrow error when the rows do not fit a batch.
    pub fn of<'a, T: Record>(rows: impl IntoIterator<Item = &'a T>) -> Result<VecSource> {
        let mut builder = RecordBuilder::<T>::default();
        rows.into_iter().for_each(|row| builder.push(row));
        Ok(Self::new(T::schema(), [builder.finish()?]))
    }

    /// Splits with batches of their own.
    pub fn with_splits(schema: SchemaRef, splits: impl IntoIterator<Item = Vec<RecordBatch>>) -> VecSource {
        let splits = splits.into_iter().map(Arc::new).collect();
        VecSource { schema, splits, batch_rows: BATCH_ROWS_MAX }
    }

    /// Deals the rows, one after the other, to `count` splits in turn.
    ///
    /// # Errors
    /// An Arrow error when a batch does not have the schema.
    pub fn dealt_to(self, count: usize) -> Result<VecSource> {
        let count = count.max(1);
        let batches: Vec<_> = self.splits.iter().flat_map(|split| split.iter()).collect();
        let whole = arrow::compute::concat_batches(&self.schema, batches)?;
        let rows = whole.num_rows() as u64;
        let mut splits = Vec::new();
        for split in 0..count {
            let turn = arrow::array::UInt64Array::from_iter_values((split as u64..rows).step_by(count));
            splits.push(vec![arrow::compute::take_record_batch(&whole, &turn)?]);
        }
        Ok(VecSource { batch_rows: self.batch_rows, ..Self::with_splits(self.schema, splits) })
    }

    /// Emits at most this many rows at a time: small batches bring interleavings and barriers in
    /// between to light.
    #[must_use]
    pub fn batch_rows(mut self, rows: usize) -> VecSource {
        self.batch_rows = rows.clamp(1, BATCH_ROWS_MAX);
        self
    }
}

/// How many of a split's rows were read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Position {
    split: usize,
    next: usize,
}

fn state(position: Position) -> Result<SplitState> {
    let id = SplitId(format!("{:05}", position.split).into());
    Ok(SplitState { id, position: position::encode(&position)? })
}

impl Source for VecSource {
    fn name(&self) -> String {
        "vec".to_string()
    }

    fn output(&self) -> Result<EdgeSchema> {
        for batch in self.splits.iter().flat_map(|split| split.iter()) {
            if batch.schema_ref().fields() != self.schema.fields() {
                return Err(Error::user("a batch of the vec source does not have the source's schema"));
            }
        }
        Ok(EdgeSchema::new(Arc::clone(&self.schema)))
    }

    fn identity(&self) -> StateIdentity {
        StateIdentity::of("vec source").with("splits", self.splits.len().to_string())
    }

    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        let count = self.splits.len();
        let initial = move |_| (0..count).map(|split| state(Position { split, next: 0 })).collect();
        let rows: Vec<usize> =
            self.splits.iter().map(|split| split.iter().map(RecordBatch::num_rows).sum()).collect();
        let is_at_end = move |state: &SplitState| {
            let position: Result<Position> = position::decode(&state.position, "the position");
            position.is_ok_and(|at| rows.get(at.split).is_none_or(|&rows| at.next >= rows))
        };
        Ok(Box::new(FixedSplits::configured(restored, |_| 1, initial, is_at_end)?))
    }

    fn reader(&self, _cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(VecReader { source: self.clone(), splits: VecDeque::new(), no_more_splits: false }))
    }

    fn describe(&self) -> String {
        format!("vec of {} splits", self.splits.len())
    }
}

struct VecReader {
    source: VecSource,
    splits: VecDeque<(SplitId, Position)>,
    no_more_splits: bool,
}

impl VecReader {
    /// Rows from `position` on, out of one batch; `None` at the end.
    fn rows(&self, position: Position) -> Option<RecordBatch> {
        let mut skip = position.next;
        for batch in self.source.splits.get(position.split)?.iter() {
            if skip < batch.num_rows() {
                let rows = batch.slice(skip, self.source.batch_rows.min(batch.num_rows() - skip));
                let rows_max = Batch::new(rows.clone()).rows_within(TARGET_BYTES);
                return Some(rows.slice(0, rows_max));
            }
            skip -= batch.num_rows();
        }
        None
    }
}

impl SourceReader for VecReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, _cx: &mut ReaderContext<'_>) -> Result<()> {
        for split in splits {
            let position: Position = position::decode(&split.position, "the position")
                .context(|| format!("split {}", split.id))?;
            if position.split >= self.source.splits.len() {
                return Err(Error::user(format!("the vec source no longer has split {}", split.id)));
            }
            self.splits.push_back((split.id, position));
        }
        Ok(())
    }

    fn release_splits(&mut self, splits: &[SplitId], _cx: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        let (released, kept) = self.splits.drain(..).partition(|(id, _)| splits.contains(id));
        self.splits = kept;
        let released: VecDeque<_> = released;
        released.into_iter().map(|(_, position)| state(position)).collect()
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        let Some((id, mut position)) = self.splits.pop_front() else {
            let finished = self.no_more_splits;
            return Ok(if finished { ReaderStatus::Finished } else { ReaderStatus::Waiting(None) });
        };
        match self.rows(position) {
            Some(rows) => {
                position.next += rows.num_rows();
                cx.emit(&id, Batch::new(rows));
                self.splits.push_back((id, position));
            }
            None => cx.effect(ReaderEffect::SplitFinished(state(position)?)),
        }
        Ok(ReaderStatus::Ready)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        self.splits.iter().map(|(_, position)| state(*position)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::source::{SourceSuite, rows_of};
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(rows)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn a_vec_is_a_source() {
        let batches = vec![batch(0..10), batch(10..10), batch(10..500)];
        let one = VecSource::new(batch(0..0).schema(), batches);
        SourceSuite::new(one.clone().batch_rows(7)).check().unwrap();
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..5_000).map(|n| format!("{n:0>4000}"))));
        let long = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        SourceSuite::new(VecSource::new(long.schema(), [long])).check().unwrap();
        let dealt = one.clone().dealt_to(3).unwrap().batch_rows(20);
        SourceSuite::new(dealt.clone()).check().unwrap();
        assert_eq!(rows_of(&dealt, 2).unwrap(), rows_of(&one, 1).unwrap());
        SourceSuite::new(VecSource::new(batch(0..0).schema(), [])).check().unwrap();
    }

    #[test]
    fn a_batch_of_another_schema_is_refused() {
        let other =
            RecordBatch::try_from_iter([("m", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(VecSource::new(batch(0..0).schema(), [other]).output().is_err());
    }

    #[derive(Record)]
    #[record(crate = "thalweg_engine")]
    struct Bid {
        bidder: i64,
        channel: Option<String>,
    }

    #[test]
    fn typed_rows_come_from_a_vec_and_from_json_alike() {
        use crate::format::{Format, Json};
        let bids = [Bid { bidder: 1, channel: Some("web".into()) }, Bid { bidder: 2, channel: None }];
        let source = VecSource::of(&bids).unwrap();
        let mut decoder = Json::of::<Bid>().decoder().unwrap();
        decoder.push(b"{\"bidder\":1,\"channel\":\"web\"}");
        decoder.push(b"{\"bidder\":2}");
        decoder.push(b"{\"channel\":\"web\"}");
        let decoded = decoder.flush().unwrap();
        assert_eq!(decoded.bad.len(), 1);
        assert_eq!(source.output().unwrap().schema, decoded.records.schema());
        assert_eq!(
            rows_of(&source, 1).unwrap(),
            crate::conformance::comparable_rows(&decoded.records).unwrap()
        );
    }
}
