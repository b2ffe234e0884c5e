//! Several streams of one schema as one: the graph feeds them into one input, and this hands the
//! batches on as they are.

use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema};

/// Hands every batch on. Key hashes end here: the united streams may be keyed differently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Union;

impl OperatorFactory for Union {
    fn name(&self) -> String {
        "union".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Union))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(vec![single_input(inputs)?.clone()])
    }
}

impl Operator for Union {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(batch.without_key_hashes());
        Ok(Step::Done)
    }
}
