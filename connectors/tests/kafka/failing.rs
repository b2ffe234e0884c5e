//! An operator that hands on what it gets, and fails its task when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

/// Asked with every batch whether the task fails now.
#[derive(Clone)]
pub struct Failing(Arc<dyn Fn() -> bool + Send + Sync>);

impl Failing {
    pub fn when(fails: impl Fn() -> bool + Send + Sync + 'static) -> Failing {
        Failing(Arc::new(fails))
    }

    /// Fails once each time that the fuse is set.
    pub fn fuse(fuse: &Arc<AtomicBool>) -> Failing {
        let fuse = fuse.clone();
        Failing::when(move || fuse.swap(false, Ordering::AcqRel))
    }
}

impl OperatorFactory for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(vec![single_input(inputs)?.clone()])
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Failing {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        if (self.0)() {
            return Err(Error::external("told to fail"));
        }
        cx.emit(batch);
        Ok(Step::Done)
    }
}
