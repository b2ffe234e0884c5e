//! An operator that shows its rows to a function, and who sees them when.

use std::sync::Arc;

use arrow::array::RecordBatch;
use thalweg::engine::checkpoint::CheckpointId;
use thalweg::engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step,
};
use thalweg::engine::record::{Batch, EdgeSchema};
use thalweg::engine::state::StateIdentity;
use thalweg::prelude::*;

/// An instance, and how many barriers it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub generation: u64,
    pub attempt: u64,
    pub subtask: u32,
    pub epoch: u32,
}

type Look = dyn Fn(Place, Watermark, &RecordBatch) + Send + Sync;

/// Passes rows on. Called with no rows when an instance opens.
#[derive(Clone)]
pub struct Tap(Arc<Look>);

impl Tap {
    pub fn new(look: impl Fn(Place, Watermark, &RecordBatch) + Send + Sync + 'static) -> Tap {
        Tap(Arc::new(look))
    }
}

impl OperatorFactory for Tap {
    fn name(&self) -> String {
        "tap".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Tapped { tap: self.clone(), place: Place::default() }))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

struct Tapped {
    tap: Tap,
    place: Place,
}

impl Operator for Tapped {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let info = cx.info;
        let (generation, attempt, subtask) = (info.generation, info.attempt, info.subtask);
        self.place = Place { generation, attempt, subtask, epoch: 0 };
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        (self.tap.0)(self.place, Watermark::MIN, &RecordBatch::new_empty(schema));
        Ok(())
    }
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        (self.tap.0)(self.place, cx.watermark(), batch.records());
        cx.emit(batch);
        Ok(Step::Done)
    }
    fn snapshot(&mut self, _: CheckpointId) -> Result<OperatorSnapshot> {
        self.place.epoch += 1;
        Ok(OperatorSnapshot::default())
    }
}
