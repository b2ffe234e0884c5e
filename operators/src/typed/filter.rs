//! Keeps the rows that a closure wants.

use std::marker::PhantomData;

use arrow::array::{BooleanArray, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, filter_record_batch};
use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Mode, Record, RecordReader, check_schema};
use thalweg_engine::state::StateIdentity;

/// Keeps the rows for which a closure answers `true`. All columns stay, and key hashes too.
pub struct FilterRows<T, F> {
    predicate: F,
    record: PhantomData<fn(T)>,
}

impl<T, F> FilterRows<T, F>
where
    T: Record,
    F: for<'a> Fn(T::Row<'a>) -> bool + Clone + Send + Sync + 'static,
{
    /// Filters by `predicate`.
    pub fn new(predicate: F) -> Self {
        FilterRows { predicate, record: PhantomData }
    }
}

impl<T, F> OperatorFactory for FilterRows<T, F>
where
    T: Record,
    F: for<'a> Fn(T::Row<'a>) -> bool + Clone + Send + Sync + 'static,
{
    fn name(&self) -> String {
        "filter".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FilterRows::<T, F> { predicate: self.predicate.clone(), record: PhantomData }))
    }

    /// An upsert that no longer passes would leave the row that it replaces behind.
    fn takes(&self, _input: usize, mode: &Mode) -> bool {
        matches!(mode, Mode::Append | Mode::Retract)
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        check_schema::<T>(&input.schema)?;
        Ok(vec![input.clone()])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl<T, F> Operator for FilterRows<T, F>
where
    T: Record,
    F: for<'a> Fn(T::Row<'a>) -> bool + Send,
{
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let reader = RecordReader::<T>::new(batch.records())?;
        let kept = BooleanBuffer::collect_bool(reader.row_count(), |row| (self.predicate)(reader.row(row)));
        match kept.count_set_bits() {
            0 => {}
            all if all == batch.row_count() => cx.emit(batch),
            _ => cx.emit(keep(&batch, &BooleanArray::new(kept, None))?),
        }
        Ok(Step::Done)
    }
}

fn keep(batch: &Batch, mask: &BooleanArray) -> Result<Batch> {
    let kept = Batch::new(filter_record_batch(batch.records(), mask)?);
    match batch.key_hashes() {
        Some(hashes) => Ok(kept.with_key_hashes(UInt64Array::from(filter(hashes, mask)?.to_data()))),
        None => Ok(kept),
    }
}
