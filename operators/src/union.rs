//! Makes one stream of several with the same columns. Rows pass untouched.

use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;

/// Passes on what comes; the streams that feed its one input become one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Union;

impl OperatorFactory for Union {
    fn name(&self) -> String {
        "union".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(*self))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(vec![single_input(inputs)?.clone()])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Union {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(batch);
        Ok(Step::Done)
    }
}
